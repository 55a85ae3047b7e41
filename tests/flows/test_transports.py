"""An agent with a long outage behind it, over each way to the hub: broker, ingest, database and API are the real ones.

What a live seal waits for is told by order and not by time: how many seals of the backlog are confirmed between the
moment in which it is sealed and its receipt.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest

from edge.agent import Agent
from edge.believing import RegisterState
from edge.clock import LaboratoryClock
from edge.counters import CounterState
from edge.enrolment import enrol
from edge.home_reader import HomeReader
from edge.identity import load_identity, load_or_create_identity
from edge.journal import Journal
from edge.outbox import BACKLOG_AWAITING_MAX, LIVE_AWAITING
from edge.sealing import seal_readings
from edge.settings import Settings, load_settings
from infra.local.community import Community
from infra.local.mosquitto_package import Installation
from infra.local.processes import write_secret
from protocol.readings import Reading

DAYS_S = 30 * 86_400
LIVE_SEALS = 5
BYTES_MAX = 256 * 1024 * 1024
WAIT_S = 60
POLL_S = 0.005
_numbers = itertools.count(1)
TRANSPORTS = {"mqtt5": "version = 5", "mqtt3": "version = 3", "https": ""}


async def wait_until(what: str, happened: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s until {what}"
        await asyncio.sleep(POLL_S)


@dataclass
class Device:
    """A registered meter's device: its files, its journal, and the next thing that it measures."""

    community: Community
    settings: Settings
    start_unix_s: int
    step_s: int
    made: int = 0
    readings: list[Reading] = field(default_factory=list)

    def reading(self) -> Reading:
        self.made += 1
        self.readings.append(Reading(self.start_unix_s + self.made * self.step_s, 100 * self.made, 40 * self.made))
        return self.readings[-1]

    def journal(self) -> Journal:
        return Journal(self.settings.journal.file, BYTES_MAX)

    def seal_offline(self, seals: int) -> None:
        """What an outage leaves behind."""
        identity = load_identity(self.settings.key_file)
        with closing(self.journal()) as journal:
            chain, counters = journal.get_chain(), journal.get_counters()
            for _ in range(seals):
                reading = self.reading()
                sealed = seal_readings(chain, [reading], reading.time_unix_s, self.settings.domain, identity.sign)
                journal.append_seal(sealed)
                chain = sealed.chain
            last = self.readings[-1]
            journal.append_readings([], replace(counters, time_unix_s=last.time_unix_s))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Running"]:
        """The agent and its transport, without its sampling: the test says what is measured."""
        journal = self.journal()
        reader = HomeReader(self.settings.buses)

        async def tell(_: int) -> None:
            pass

        clock = LaboratoryClock(self.start_unix_s + self.made * self.step_s, tell)
        identity = load_identity(self.settings.key_file)
        agent = Agent(self.settings, identity, journal, clock=clock, reader=reader, random=lambda: 0.1)
        task = asyncio.create_task(agent.transport.run())
        try:
            yield Running(self, agent, journal, clock)
        finally:
            task.cancel()
            await asyncio.wait([task])
            reader.close()
            journal.close()

    def stored(self) -> list[tuple[int, str]]:
        """Sequence and state of every seal that the hub has."""
        with psycopg.connect(self.community.database_url) as database:
            rows = database.execute(
                "SELECT sequence, seals.state FROM seals JOIN meters USING (meter_no) WHERE meter_id = %s"
                " ORDER BY sequence",
                [self.settings.meter_id],
            ).fetchall()
        return [(sequence, state) for sequence, state in rows]

    def stored_energy(self) -> tuple[int, int]:
        with psycopg.connect(self.community.database_url) as database:
            row = database.execute(
                "SELECT max(production_wh), max(consumption_wh) FROM readings JOIN meters USING (meter_no)"
                " WHERE meter_id = %s",
                [self.settings.meter_id],
            ).fetchone()
        assert row is not None
        return row[0], row[1]


@dataclass
class Running:
    device: Device
    agent: Agent
    journal: Journal
    clock: LaboratoryClock

    async def seal_live(self) -> int:
        """One more reading, sealed at once; its sequence."""
        reading = self.device.reading()
        await self.clock.wait_until(reading.time_unix_s)
        self.journal.append_readings([reading], self.journal.get_counters())
        assert self.agent.seal_once(early=True)
        return self.agent.sealer.chain.sequence

    def backlog(self, live_from: int) -> int:
        """How many of the seals before `live_from` have no receipt."""
        return sum(sequence in self.agent.outbox for sequence in range(1, live_from))


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory, mosquitto_installation: Installation) -> Iterator[Community]:
    running = Community(tmp_path_factory.mktemp("community"), "long-street", mosquitto_installation)
    try:
        running.start_servers()
        running.start_hub()
        yield running
    finally:
        running.stop()


@pytest.fixture
def new_device(community: Community, tmp_path: Path) -> Callable[..., Device]:
    """Makes a device that was enrolled 31 days ago, unless told, and registered just now."""

    def make(transport: str, step_s: int = 900, age_s: int = DAYS_S + 86_400) -> Device:
        meter_id = f"home-{next(_numbers)}"
        folder = tmp_path / meter_id
        folder.mkdir()
        file = folder / "edge.toml"

        def configure(command_public_key: str) -> Settings:
            file.write_text(f"""
community_id = "long-street"
meter_id = "{meter_id}"
kind = "solar"
measurement = "net_only"
owner = "{"0f" * 32}"
transport = "{transport[:4] if transport.startswith("mqtt") else transport}"
[[bus]]
type = "tcp"
host = "127.0.0.1"
port = 1
[[bus.meter]]
role = "grid"
unit = 1
map = "eastron_sdm630"
[sampling]
clock_check = "trust"
[journal]
bytes_max = {BYTES_MAX}
[mqtt]
host = "{community.broker.host}"
port = {community.broker.port}
ca_file = "{community.broker.ca_file}"
password_file = "mqtt.password"
{TRANSPORTS[transport]}
[https]
password_file = "mqtt.password"
[hub]
url = "{community.api_url}"
command_public_key = "{command_public_key}"
""")
            return load_settings(file)

        settings = configure("")
        start_unix_s = int(time.time()) - age_s
        registers = {name: RegisterState(0, 0) for name in ("grid_import", "grid_export")}
        with closing(Journal(settings.journal.file, BYTES_MAX)) as journal:
            identity = load_or_create_identity(settings.key_file)
            statement = enrol(settings, identity, journal, CounterState(start_unix_s, registers, 0, 0, 0))
        body = {
            "enrolment": statement.hex(),
            "production_capacity_w": 50_000,
            "connection_capacity_w": 50_000,
        }
        with community.client() as client:
            answer = client.post("/meters", json=body, headers={"Idempotency-Key": f"register-{meter_id}"})
        assert answer.status_code == 201, answer.text
        write_secret(folder / "mqtt.password", answer.json()["broker"]["password"])
        return Device(community, configure(answer.json()["command_public_key"]), start_unix_s, step_s)

    return make


def drain(device: Device, backlog: int, timeout_s: float) -> None:
    device.seal_offline(backlog)

    async def live_through_it() -> list[int]:
        waited = []
        async with device.running() as home:
            await wait_until("the first are confirmed", lambda: len(home.agent.outbox) < backlog, timeout_s)
            for _ in range(LIVE_SEALS):
                before = home.backlog(backlog + 1)
                live = await home.seal_live()
                await wait_until("the live seal is confirmed", lambda live=live: live not in home.agent.outbox)
                waited.append(before - home.backlog(backlog + 1))
            await wait_until("everything is confirmed", lambda: not len(home.agent.outbox), timeout_s)
            assert home.agent.problems == set()
        return waited

    waited = asyncio.run(live_through_it())
    # with the broker at the moment of sealing, and what the receipt before the seal's own let follow
    assert max(waited) <= 2 * BACKLOG_AWAITING_MAX + LIVE_AWAITING, waited
    assert device.stored() == [(sequence, "accepted") for sequence in range(1, backlog + LIVE_SEALS + 1)]
    assert device.stored_energy() == (100 * device.made, 40 * device.made)


@pytest.mark.parametrize(("transport", "backlog"), [("mqtt5", 2_870), ("mqtt3", 300), ("https", 300)])
def test_a_long_outage_drains_and_each_live_seal_is_confirmed_on_the_way(
    new_device: Callable[..., Device], transport: str, backlog: int
) -> None:
    drain(new_device(transport), backlog, WAIT_S)


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_thirty_days_of_live_mode_drain_likewise(new_device: Callable[..., Device], transport: str) -> None:
    drain(new_device(transport, step_s=60), 43_200, 3_000)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_old_copy_of_the_journal_sends_nothing_and_says_so(
    new_device: Callable[..., Device], transport: str
) -> None:
    device = new_device(transport)
    device.seal_offline(2)
    files = {file: file.read_bytes() for file in device.settings.journal.file.parent.glob("journal.sqlite*")}
    device.seal_offline(3)

    async def run_until(what: str, happened: Callable[[Agent], bool]) -> None:
        async with device.running() as home:
            await wait_until(what, lambda: happened(home.agent))

    asyncio.run(run_until("everything is confirmed", lambda agent: not len(agent.outbox)))
    before = device.stored()
    for file in device.settings.journal.file.parent.glob("journal.sqlite*"):
        file.unlink()
    for file, content in files.items():
        file.write_bytes(content)
    device.made -= 3
    device.start_unix_s += 7  # the same numbers, other seals
    device.seal_offline(1)
    asyncio.run(run_until("the agent knows", lambda agent: "receipt_hub_is_ahead" in agent.problems))
    assert device.stored() == before
    with psycopg.connect(device.community.database_url) as database:
        row = database.execute(
            "SELECT count(*) FROM quarantine JOIN meters USING (meter_no) WHERE meter_id = %s",
            [device.settings.meter_id],
        ).fetchone()
    assert row == (0,)


def test_over_https_commands_come_with_the_next_report_once_and_the_status_is_seen(
    new_device: Callable[..., Device],
) -> None:
    device = new_device("https")
    device.seal_offline(1)
    meter_id = device.settings.meter_id
    body = {"kind": "set_interval", "first": 30, "last": 60, "expires_in_s": 86_000}

    async def obey() -> None:
        async with device.running() as home:
            await wait_until("the seal is confirmed", lambda: not len(home.agent.outbox))
            with device.community.client() as client:
                answer = client.post(
                    f"/meters/{meter_id}/commands", json=body, headers={"Idempotency-Key": f"command-{meter_id}"}
                )
                assert answer.status_code == 202, answer.text
            home.agent.transport.status_changed()
            await wait_until("the command is followed", lambda: home.agent.counts["command"] == 1)
            await wait_until("it is told that it was", lambda: "'command': 1" in told(device))
            assert home.agent.counts["command_replayed"] == 0

    asyncio.run(obey())
    assert "offline" in told(device)


def told(device: Device) -> str:
    """All that the hub knows of the device's status, as text."""
    with device.community.client() as client:
        return str(client.get(f"/meters/{device.settings.meter_id}/status").json())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_password_renewed_by_the_community_is_fetched_by_the_device(
    new_device: Callable[..., Device], transport: str
) -> None:
    device = new_device(transport, step_s=1, age_s=60)  # its clock is right: the hub believes no old request
    device.seal_offline(50)

    async def go_on() -> None:
        async with device.running() as home:
            await wait_until("the seal is confirmed", lambda: not len(home.agent.outbox))
        with device.community.client() as client:
            answer = client.post(
                f"/meters/{device.settings.meter_id}/broker-password",
                json={"reason": "lost"},
                headers={"Idempotency-Key": f"renew-{device.settings.meter_id}"},
            )
        assert answer.status_code in (200, 201, 202), answer.text
        password_file = device.settings.key_file.parent / "mqtt.password"
        old = password_file.read_text().strip()
        async with device.running() as home:
            await wait_until("there is another password", lambda: password_file.read_text().strip() != old)
            live = await home.seal_live()
            await wait_until("the next seal is confirmed", lambda: live not in home.agent.outbox)
            assert home.agent.problems == set()

    asyncio.run(go_on())
    assert [sequence for sequence, _ in device.stored()] == list(range(1, 52))
