"""A street whose every line is bad on demand: eight homes, their agents, and a relay on each wire of the platform.

    meter ──relay── agent ──relay── broker ──relay── hub ──relay── PostgreSQL
                      └─────relay──── API (two of the eight) ───────┘

The agents run in this process, except one that is to be killed. After each round everything that the hub stores is
compared with what the simulated registers have counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import socket
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from edge.errors import EdgeError
from edge.service import replay
from edge.settings import Settings, load_settings
from infra.local.community import Community
from infra.local.homes import GENERATION_AND_GRID, NET_ONLY, Home, Rhythm, agent_toml, register, simulator_toml
from infra.local.processes import LOOPBACK
from protocol.settlement import SETTLEMENT_INTERVAL_S
from simulators.meters.configuration import load
from simulators.meters.energy import HomeEnergy
from simulators.network.relay import Relay, Tls

RHYTHM = Rhythm(interval_s=60, seal_interval_s=300)
STRETCH = timedelta(minutes=30)
STRETCH_TIMEOUT_S = 60.0
ROUND_TIMEOUT_S = 240.0
RESTART_PAUSE_S = 0.05
START_TIMEOUT_S = 30.0
SUPERVISION_PAUSE_S = 0.2
HUB_PARTS = ("api", "ingest", "jobs")
TRANSPORTS = ("mqtt5", "mqtt5", "mqtt3", "https")
"""Of every four homes."""
HOMES = [
    Home(f"home-{number}", f"H0-{'ABC'[number % 3]}", f"PV{1 + 2 * (number % 2)}", 4_000 + 500 * number, measurement)
    for number, measurement in enumerate([GENERATION_AND_GRID, NET_ONLY, NET_ONLY, GENERATION_AND_GRID] * 2)
]


class RelayedCommunity(Community):
    """A community whose hub reaches broker and database through relays, once their ports are known."""

    broker_relay_port = 0
    database_relay_port = 0

    def broker_lives(self) -> bool:
        """Whether somebody listens where the broker should."""
        try:
            with socket.create_connection((LOOPBACK, self.broker.port), timeout=1):
                return True
        except OSError:
            return False

    def environment(self) -> dict[str, str]:
        """The hub's settings, with the relays' ports."""
        settings = super().environment()
        url = urlsplit(settings["COMMONWATT_DATABASE_URL"])
        credentials = url.netloc.rpartition("@")[0]
        return {
            **settings,
            "COMMONWATT_DATABASE_URL": url._replace(
                netloc=f"{credentials}@{LOOPBACK}:{self.database_relay_port}"
            ).geturl(),
            "COMMONWATT_MQTT_PORT": str(self.broker_relay_port),
        }


@dataclass
class Household:
    """One home: its agent's configuration, its two relays, and how far it has lived."""

    home: Home
    energy: HomeEnergy
    settings: Settings
    configuration: Path
    meter_line: Relay
    uplink: Relay
    start: datetime
    lived_until: datetime
    surplus_wh: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def counters(self, moment: datetime) -> tuple[int, int]:
        """Production and consumption that the registers of the home have counted by then, in Wh."""
        energy = self.energy.at(int(moment.timestamp()))
        if self.home.measurement == NET_ONLY:
            return energy.export_wh, energy.import_wh
        return energy.generation_wh, energy.consumption_wh

    async def live_until(self, until: datetime) -> None:
        """Read, seal and publish until then and until everything is committed, starting again whatever fails."""
        first = int(self.start.timestamp()) + RHYTHM.interval_s
        while True:
            try:
                await replay(self.settings, first, int(until.timestamp()), STRETCH_TIMEOUT_S)
            except EdgeError as error:
                self.errors[str(error)] += 1
                await asyncio.sleep(RESTART_PAUSE_S)
            else:
                return

    def netted_until(self, until: datetime) -> int:
        """Σ max(0, Δproduction − Δconsumption) over the settlement intervals since the start, in Wh."""
        stretch_s = int((until - self.lived_until).total_seconds())
        boundaries = [
            self.counters(self.lived_until + timedelta(seconds=seconds))
            for seconds in range(0, stretch_s + 1, SETTLEMENT_INTERVAL_S)
        ]
        self.surplus_wh += sum(
            max(0, (after[0] - before[0]) - (after[1] - before[1])) for before, after in pairwise(boundaries)
        )
        return self.surplus_wh


class Street:
    """The homes and everything between their registers and the database."""

    def __init__(self, community: RelayedCommunity, homes: Path, start: datetime) -> None:
        self.community = community
        self.homes = homes
        self.start = start
        self.households: list[Household] = []
        self.faults: Counter[str] = Counter()
        self._hub_in_hand = asyncio.Lock()

    async def set_up(self) -> None:
        """Start everything, with good lines, and register every home."""
        community = self.community
        await asyncio.to_thread(community.start_servers)
        broker = community.broker
        certificates = broker.ca_file.parent
        self._tls = Tls(certificates / "server.crt", certificates / "server.key", broker.ca_file)
        self.hub_broker_line = Relay(broker.host, broker.port, framing="mqtt", seed=1, tls=self._tls)
        self.database_line = Relay(LOOPBACK, community.postgres.port, framing="bytes", seed=2)
        await self.hub_broker_line.start()
        await self.database_line.start()
        community.broker_relay_port = self.hub_broker_line.port
        community.database_relay_port = self.database_line.port
        await asyncio.to_thread(community.start_hub)
        self._supervising = asyncio.create_task(self._supervise_hub())
        ports = await self._start_meters()
        moves = [self._move_in(number, home, ports[home.home_id]) for number, home in enumerate(HOMES)]
        self.households = await asyncio.gather(*moves)

    async def _start_meters(self) -> dict[str, int]:
        directory = self.community.directory
        ports_file = directory / "ports.json"
        simulation = directory / "homes.toml"
        installed = (self.start - timedelta(days=1)).date()
        simulation.write_text(simulator_toml(HOMES, installed, self.start.date(), ports_file))
        self.community.run("simulator", "simulate", "meters", "--config", simulation)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not ports_file.exists():
                await asyncio.sleep(0.05)
        ports: dict[str, int] = json.loads(ports_file.read_text())
        return ports

    async def _move_in(self, number: int, home: Home, port: int) -> Household:
        community = self.community
        meter_line = Relay(LOOPBACK, port, framing="modbus_tcp", seed=100 + number)
        transport = TRANSPORTS[number % len(TRANSPORTS)]
        uplink = self._uplink(transport, seed=200 + number)
        await meter_line.start()
        await uplink.start()
        directory = self.homes / home.home_id
        directory.mkdir()
        configuration = directory / "agent.toml"

        def configure(command_key: str = "") -> None:
            text = agent_toml(home, meter_line.port, community, RHYTHM, command_key)
            configuration.write_text(over(transport, text, community.broker.port, uplink.port))

        configure()
        arguments = ("edge", "enrol", "--config", configuration, "--valid-from", self.start.isoformat())
        printed = await asyncio.to_thread(community.finish, community.run(f"{home.home_id}-enrol", *arguments))
        configure(await asyncio.to_thread(self._register, home, printed.split()[-1], directory))
        [simulated] = [each for each in load(community.directory / "homes.toml").homes if each.home_id == home.home_id]
        settings = load_settings(configuration)
        return Household(home, simulated.energy, settings, configuration, meter_line, uplink, self.start, self.start)

    def _uplink(self, transport: str, seed: int) -> Relay:
        broker = self.community.broker
        if transport == "https":  # the API of one machine speaks plain HTTP
            return Relay(LOOPBACK, urlsplit(self.community.api_url).port or 0, framing="bytes", seed=seed)
        return Relay(broker.host, broker.port, framing="mqtt", seed=seed, tls=self._tls)

    def _register(self, home: Home, enrolment: str, directory: Path) -> str:
        with self.community.client() as client:
            return register(client, home, enrolment, directory)

    async def tear_down(self) -> None:
        """Stop the supervision and the relays; the community stops itself."""
        self._supervising.cancel()
        lines = [line for household in self.households for line in (household.meter_line, household.uplink)]
        for line in [self.hub_broker_line, self.database_line, *lines]:
            await line.stop()

    # --- what can go wrong, beyond a line ---------------------------------------------------------------------

    async def kill_agent(self, household: Household, until: datetime, after_s: float) -> None:
        """Let the agent live as a process, and kill it; if it is not done by then, its next start goes on here."""
        first = household.start + timedelta(seconds=RHYTHM.interval_s)
        name = self.community.run(
            f"{household.home.home_id}-agent", "edge", "replay", "--config", household.configuration,
            "--from", first.isoformat(), "--to", until.isoformat(),
        )  # fmt: skip
        await asyncio.sleep(after_s)
        process = self.community.processes.pop(name)
        process.kill()
        await asyncio.to_thread(process.wait)

    async def kill_broker(self, pause_s: float, *, wiped: bool = False, accounts: bool = False) -> None:
        """SIGKILL the broker and start it again: perhaps without sessions, queues and receipts, or even accounts."""
        broker = self.community.broker
        await asyncio.to_thread(broker.kill)
        if wiped:
            (broker.state / "mosquitto.db").unlink(missing_ok=True)
        if accounts:
            shutil.rmtree(broker.state)
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(broker.start)
        if accounts:
            await asyncio.to_thread(self._make_accounts_again)

    def _make_accounts_again(self) -> None:
        environment = self.community.environment()
        self.community.finish(self.community.run("hub-accounts", "hub", "accounts", environment=environment))

    async def kill_database(self, pause_s: float) -> None:
        """SIGKILL PostgreSQL with all its backends, and start it again."""
        await asyncio.to_thread(self.community.postgres.kill)
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(self.community.postgres.start)

    async def kill_hub(self, part: str) -> None:
        """SIGKILL the API, the ingest worker or the jobs, and start it again."""
        async with self._hub_in_hand:
            process = self.community.processes[f"hub-{part}"]
            process.kill()
            await asyncio.to_thread(process.wait)
            self.community.start_part(part)

    async def _supervise_hub(self) -> None:
        """As systemd does: a part that has ended by itself, perhaps because its disk was full, is started again."""
        while True:
            async with self._hub_in_hand:
                for part in HUB_PARTS:
                    if self.community.processes[f"hub-{part}"].poll() is not None:
                        self.community.start_part(part)
            await asyncio.sleep(SUPERVISION_PAUSE_S)

    # --- whether it went wrong --------------------------------------------------------------------------------

    def writes_refused_to_agents(self) -> int:
        """How often an agent gave up because its journal could not be written."""
        return sum(
            times for household in self.households for error, times in household.errors.items() if "journal" in error
        )

    def writes_refused_to_the_database(self) -> int:
        """How often PostgreSQL found no room."""
        return self.community.postgres.log.read_text().count("No space left on device")

    def refused_messages(self) -> int:
        """How many messages without a good signature the hub has set aside."""
        with psycopg.connect(self.community.postgres.url()) as database:
            row = database.execute("SELECT count(*) FROM quarantine WHERE NOT verified").fetchone()
        assert row is not None
        return int(row[0])

    # --- the truth --------------------------------------------------------------------------------------------

    def compare(self, until: datetime) -> None:
        """Every home's stored energy against its registers, to the watt-hour, and nothing lost, doubled or held."""
        with psycopg.connect(self.community.postgres.url()) as database:
            rows = database.execute(STORED).fetchall()
            held, gaps = database.execute(
                "SELECT (SELECT count(*) FROM quarantine WHERE verified), (SELECT count(*) FROM seal_gaps)"
            ).fetchone()  # type: ignore[misc]
        assert (held, gaps) == (0, 0)
        stored = {row[0]: row[1:] for row in rows}
        for household in self.households:
            start_surplus_wh, production_wh, consumption_wh, surplus_wh, sequence, accepted, kept, readings = stored[
                household.home.home_id
            ]
            expected = (
                *household.counters(until),
                start_surplus_wh + household.netted_until(until),
                (until - self.start) // timedelta(seconds=RHYTHM.interval_s),
                sequence,
                sequence,
            )
            found = (production_wh, consumption_wh, surplus_wh, readings, accepted, kept)
            assert found == expected, f"{household.home.home_id}: stored {found}, the registers say {expected}"
            household.lived_until = until


STORED = """
SELECT meter_id, k.surplus_wh, s.last_production_wh, s.last_consumption_wh, s.surplus_wh, s.sequence,
    (SELECT count(*) FROM seals a WHERE a.meter_no = m.meter_no AND linked AND state = 'accepted'),
    (SELECT count(*) FROM evidence e WHERE e.meter_no = m.meter_no),
    (SELECT count(*) FROM readings r WHERE r.meter_no = m.meter_no)
FROM meters m JOIN meter_keys k USING (meter_no)
JOIN LATERAL (SELECT * FROM seals x WHERE x.meter_no = m.meter_no ORDER BY sequence DESC LIMIT 1) s ON true
"""


def over(transport: str, text: str, broker_port: int, uplink_port: int) -> str:
    """An agent's configuration with this transport, through its relay; what has no receipt goes again after 1 s."""
    pieces = (f"port = {broker_port}\n", "republish_after_s = 5\n", "[hub]\n")
    assert [text.count(piece) for piece in pieces] == [1, 1, 1]
    port, again, hub = pieces
    if transport == "https":
        https = '[https]\npassword_file = "mqtt.password"\nrepublish_after_s = 1\n\n'
        return 'transport = "https"\n' + text.replace(hub, f'{https}{hub}url = "http://{LOOPBACK}:{uplink_port}"\n')
    version = "republish_after_s = 1\nversion = " + transport.removeprefix("mqtt") + "\n"
    return text.replace(port, f"port = {uplink_port}\n").replace(again, version)


def beginning() -> datetime:
    """The first instant of the street: within the hub's age limit, early in a day."""
    return datetime.now(UTC).replace(hour=5, minute=0, second=0, microsecond=0) - timedelta(days=33)


def pause(rng: random.Random) -> float:
    """Some moment of a round."""
    return rng.uniform(0.0, 1.2)
