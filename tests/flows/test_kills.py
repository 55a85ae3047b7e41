"""The promise of the whole stream: whatever is killed, whenever, what is stored is what the meters counted.

Real agents read real (simulated) registers over Modbus and publish through a real broker to a real hub and database.
A seeded hand kills any of them with SIGKILL and starts it again, while two homes live through hour after hour.
"""

import asyncio
import json
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from pymodbus.client import AsyncModbusTcpClient

from infra.local.community import Community
from infra.local.homes import GENERATION_AND_GRID, NET_ONLY, Home, Rhythm, agent_toml, register, simulator_toml
from infra.local.mosquitto_package import Installation
from protocol.settlement import SETTLEMENT_INTERVAL_S
from simulators.meters.configuration import load

HOMES = [
    Home("pair", "H0-A", "PV1", 6_000, GENERATION_AND_GRID),
    Home("single", "H0-B", "PV3", 4_000, NET_ONLY),
]
RHYTHM = Rhythm(interval_s=60, seal_interval_s=300)
STRETCH = timedelta(hours=8)
FIRST_DAY_AGO = timedelta(days=33)  # within the hub's age limit
SUBJECTS = ("agent", "broker", "ingest", "api or jobs", "database")
STRETCH_TIMEOUT_S = 120.0


@dataclass
class Street:
    """The homes, their agents, and how far each has lived."""

    community: Community
    start: datetime
    directory: Path
    lived_until: dict[str, datetime] = field(default_factory=dict)

    def agent(self, home: Home) -> str:
        return f"agent-{home.home_id}"

    def configuration(self, home: Home) -> Path:
        return self.directory / home.home_id / "agent.toml"

    def set_up(self) -> None:
        ports_file = self.directory / "ports.json"
        installed = (self.start - timedelta(days=1)).date()
        simulation = self.directory / "homes.toml"
        simulation.write_text(simulator_toml(HOMES, installed, self.start.date(), ports_file))
        self.community.run("simulator", "simulate", "meters", "--config", simulation)
        wait_for(ports_file)
        self.ports = {home.home_id: port for home, port in zip(HOMES, ports(ports_file), strict=True)}
        with self.community.client() as client:
            for home in HOMES:
                folder = self.directory / home.home_id
                folder.mkdir()
                self.configuration(home).write_text(agent_toml(home, self.ports[home.home_id], self.community, RHYTHM))
                arguments = ("--config", self.configuration(home), "--valid-from", self.start.isoformat())
                enrolment = self.community.finish(self.community.run("enrol", "edge", "enrol", *arguments)).strip()
                (self.community.log / "enrol.log").unlink()
                key = register(client, home, enrolment.splitlines()[-1], folder)
                self.configuration(home).write_text(
                    agent_toml(home, self.ports[home.home_id], self.community, RHYTHM, key)
                )
                self.lived_until[home.home_id] = self.start

    def live_on(self, home: Home) -> None:
        """Start the agent for its next stretch, or again for the one in which it was killed."""
        until = self.lived_until[home.home_id] + STRETCH
        self.community.run(
            self.agent(home), "edge", "replay", "--config", self.configuration(home), "--from",
            (self.start + timedelta(seconds=RHYTHM.interval_s)).isoformat(), "--to", until.isoformat(),
            "--timeout-s", str(STRETCH_TIMEOUT_S),
        )  # fmt: skip

    def go_on(self) -> None:
        """Whoever has finished a stretch begins the next."""
        for home in HOMES:
            process = self.community.processes[self.agent(home)]
            if process.poll() == 0 and self.lived_until[home.home_id] + 2 * STRETCH < datetime.now(UTC):
                self.lived_until[home.home_id] += STRETCH
                self.live_on(home)

    def finish(self) -> None:
        """Let every agent end the stretch it is in."""
        for home in HOMES:
            if self.community.processes[self.agent(home)].poll() not in (None, 0):
                self.live_on(home)
            self.community.finish(self.agent(home), STRETCH_TIMEOUT_S + 60)
            self.lived_until[home.home_id] += STRETCH

    def kill(self, subject: str, rng: random.Random) -> bool:
        """SIGKILL and start again, without waiting for anything to recover. False if it had just ended by itself."""
        if subject == "agent":
            home = rng.choice(HOMES)
            process = self.community.processes[self.agent(home)]
            if process.poll() is not None:
                return False
            process.kill()
            process.wait()
            self.live_on(home)
        elif subject in ("broker", "database"):
            server = self.community.broker if subject == "broker" else self.community.postgres
            server.kill()
            time.sleep(rng.uniform(0, 0.5))
            server.start()
        else:
            part = "ingest" if subject == "ingest" else rng.choice(["api", "jobs"])
            process = self.community.processes[f"hub-{part}"]
            process.kill()
            process.wait()
            self.community.start_part(part)
        return True


def ports(ports_file: Path) -> list[int]:
    return [json.loads(ports_file.read_text())[home.home_id] for home in HOMES]


def wait_for(file: Path) -> None:
    deadline_s = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline_s, f"no {file}"
        time.sleep(0.05)


@pytest.fixture
def street(tmp_path: Path, mosquitto_installation: Installation) -> Iterator[Street]:
    start = datetime.now(UTC).replace(hour=4, minute=0, second=0, microsecond=0) - FIRST_DAY_AGO
    with Community(tmp_path / "community", "test-community", mosquitto_installation) as community:
        community.start_servers()
        community.start_hub()
        made = Street(community, start, tmp_path)
        made.set_up()
        yield made


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1])
def test_a_dozen_kills_of_everything_cost_not_a_watt_hour(street: Street, seed: int) -> None:
    kill_and_compare(street, seed, kills_per_subject=12)


@pytest.mark.long
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("seed", range(2, 4))
def test_hundreds_of_kills_of_everything_cost_not_a_watt_hour(street: Street, seed: int) -> None:
    kill_and_compare(street, seed, kills_per_subject=60)


def kill_and_compare(street: Street, seed: int, kills_per_subject: int) -> None:
    rng = random.Random(seed)
    order = [subject for subject in SUBJECTS for _ in range(kills_per_subject)]
    rng.shuffle(order)
    for home in HOMES:
        street.live_on(home)
    killed = Counter[str]()
    for subject in order:
        time.sleep(rng.uniform(0.1, 1.8))
        killed[subject] += street.kill(subject, rng)
        street.go_on()
    street.finish()
    assert all(killed[subject] >= kills_per_subject * 2 // 3 for subject in SUBJECTS), killed
    for home in HOMES:
        assert street.lived_until[home.home_id] - street.start >= 2 * STRETCH, "the kills hit a stream that flows"
        compare(street, home)


def compare(street: Street, home: Home) -> None:
    """The database against the register on the wall, read here by hand, and against the profile itself."""
    until = street.lived_until[home.home_id]
    [simulated] = [each for each in load(street.directory / "homes.toml").homes if each.home_id == home.home_id]

    def counters(moment: datetime) -> tuple[int, int]:
        energy = simulated.energy.at(int(moment.timestamp()))
        if home.measurement == NET_ONLY:
            return energy.export_wh, energy.import_wh
        return energy.generation_wh, energy.consumption_wh

    registers = asyncio.run(read_registers(street.ports[home.home_id], int(until.timestamp())))
    if home.measurement == NET_ONLY:
        assert registers["grid"] == counters(until)[::-1]
    else:
        (imported_wh, exported_wh), (generated_wh, _) = registers["grid"], registers["generation"]
        assert (generated_wh, generated_wh + imported_wh - exported_wh) == counters(until)

    with psycopg.connect(street.community.database_url) as database:
        meter_no, start_p, start_c, start_s = database.execute(
            "SELECT meter_no, production_wh, consumption_wh, surplus_wh FROM meter_keys JOIN meters USING (meter_no)"
            " WHERE meter_id = %s",
            [home.home_id],
        ).fetchone()  # type: ignore[misc]
        assert (start_p, start_c) == counters(street.start)
        stored = database.execute(
            "SELECT production_wh, consumption_wh FROM interval_closings WHERE meter_no = %s"
            " ORDER BY interval_end DESC LIMIT 1",
            [meter_no],
        ).fetchone()
        assert stored == counters(until), "to the watt-hour"
        boundaries = [
            counters(street.start + timedelta(seconds=seconds))
            for seconds in range(0, int((until - street.start).total_seconds()) + 1, SETTLEMENT_INTERVAL_S)
        ]
        surplus_wh = sum(
            max(0, (after[0] - before[0]) - (after[1] - before[1])) for before, after in pairwise(boundaries)
        )
        sealed = database.execute(
            "SELECT surplus_wh, sequence FROM seals WHERE meter_no = %s ORDER BY sequence DESC LIMIT 1", [meter_no]
        ).fetchone()
        assert sealed is not None
        assert sealed[0] - start_s == surplus_wh
        expected_readings = int((until - street.start).total_seconds()) // RHYTHM.interval_s
        counts = database.execute(
            "SELECT (SELECT count(*) FROM readings WHERE meter_no = %(m)s), (SELECT count(*) FROM seals WHERE"
            " meter_no = %(m)s AND linked AND state = 'accepted'), (SELECT count(*) FROM evidence WHERE meter_no ="
            " %(m)s), (SELECT count(*) FROM quarantine), (SELECT count(*) FROM seal_gaps)",
            {"m": meter_no},
        ).fetchone()
        assert counts == (expected_readings, sealed[1], sealed[1], 0, 0), "nothing lost, doubled, held or missing"


async def read_registers(port: int, time_unix_s: int) -> dict[str, tuple[int, int]]:
    """Import and export of each meter in whole Wh, at an instant of the laboratory clock."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    try:
        await client.write_registers(0, list(struct.unpack(">4H", struct.pack(">q", time_unix_s))), device_id=247)
        found = {}
        for unit, role in ((1, "grid"), (2, "generation")):
            answer = await client.read_input_registers(0x48, count=4, device_id=unit)
            if not answer.isError():
                kwh = struct.unpack(">2f", struct.pack(">4H", *answer.registers))
                found[role] = (round(kwh[0] * 1_000), round(kwh[1] * 1_000))
        return found
    finally:
        client.close()
