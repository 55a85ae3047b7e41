"""The agent between real meters and its real journal; nobody is at the other end of the network."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from pymodbus.constants import ExcCodes

from edge.agent import Agent
from edge.bus_budget import shortest_interval_s
from edge.bus_settings import TcpBus
from edge.clock import KernelClock, LaboratoryClock
from edge.confirming import READS_MAX
from edge.counters import accept_registers, start_counters
from edge.enrolment import enrol, get_enrolment
from edge.errors import JournalError, ModbusError, RegisterError, SettingsError
from edge.home_reader import HomeReader
from edge.identity import Identity, load_or_create_identity
from edge.journal import Intervals, Journal
from edge.poll import RawRegisters, read_poll
from edge.replacement import accept_now
from edge.sampler import read_agreed
from edge.service import _say_alive
from edge.settings import Settings
from protocol.command import RESEND, RESTART, SET_INTERVAL, Command, encode_command
from protocol.committed import Committed, encode_committed
from protocol.readings import (
    FLAG_AFTER_GAP,
    FLAG_CLOCK_UNSYNCHRONISED,
    FLAG_METER_SWAP,
    FLAG_REGISTER_RESET,
    Reading,
    decode_readings,
)
from protocol.seal import Message, seal_hash, split_message

GENERATION_IMPORT = (2, 0x48)
POWER = 0x34
STATUS_BYTES_MAX = 4_096  # what the hub keeps


class Wanderer(LaboratoryClock):
    """A device's clock in the test's hands: it can be wrong, and be set."""

    vouches = True

    def synchronised(self) -> bool:
        return self.vouches

    def set(self, time_unix_s: int) -> None:
        self._now_unix_s = time_unix_s


class Home:
    """An enrolled home whose agent can be ended and started again."""

    def __init__(self, settings: Settings, meters: Any, start: int) -> None:
        self.settings = settings
        self.meters = meters
        self.identity: Identity = load_or_create_identity(settings.key_file)
        self.clock = Wanderer(start, self._told)
        self.journal: Journal | None = None

    async def _told(self, time_unix_s: int) -> None:
        if self.meters.at_time is not None:
            self.meters.at_time(time_unix_s)

    async def __aenter__(self) -> Agent:
        self.journal = Journal(self.settings.journal.file, self.settings.journal.bytes_max)
        self.reader = HomeReader(self.settings.buses)
        if self.journal.find_enrolment() is None:
            poll = read_poll(self.settings.meters, await self.reader.read())
            counters = start_counters(self.settings.measurement, poll.registers_wh, self.clock.now_unix_s())
            enrol(self.settings, self.identity, self.journal, counters)
        self.agent = Agent(
            self.settings,
            self.identity,
            self.journal,
            clock=self.clock,
            reader=self.reader,
            random=lambda: 0.5,
            read_pause_s=0.01,
        )
        return self.agent

    async def __aexit__(self, *_: object) -> None:
        self.reader.close()
        assert self.journal is not None
        self.journal.close()

    async def minutes(self, count: int) -> None:
        for _ in range(count):
            scheduled = self.agent.next_reading_time()
            await self.clock.wait_until(scheduled)
            await self.agent.sample_once(scheduled)

    def seals(self) -> list[Message]:
        assert self.journal is not None
        found = [self.journal.find_message(sequence) for sequence in self.journal.unconfirmed_sequences()]
        return [split_message(message) for message in found if message is not None]

    def readings(self) -> list[Reading]:
        assert self.journal is not None
        sealed = [reading for message in self.seals() for reading in decode_readings(message.section)]
        return sealed + self.journal.unsealed_readings(900)


@pytest.fixture
def home(settings: Settings, meters: Any, quarter: int) -> Home:
    for unit in (1, 2):
        meters.set(unit, POWER, float("nan"))  # nothing to hold the energy against
    return Home(settings, meters, quarter)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_a_quarter_of_an_hour_is_fifteen_readings_sealed_right_at_its_end(
    home: Home, meters: Any, quarter: int
) -> None:
    def at(now: int) -> None:
        minute = (now - quarter) // 60
        meters.home_wh(100_000 + 100 * minute, 50_000 + 10 * minute, 20_000 + 30 * minute)

    meters.at_time = at
    meters.set(2, POWER, 6_000.0)
    meters.set(1, POWER, -1_200.0)

    async def story() -> None:
        async with home:
            await home.minutes(14)
            assert home.seals() == []
            await home.minutes(2)
            (message,) = home.seals()
            seal = message.seal
            home.identity._key.verify_key.verify(message.seal_bytes, message.signature)
            assert (seal.sequence, seal.sealed_at_unix_s, seal.closed_until_unix_s) == (1, quarter + 900, quarter + 900)
            assert (seal.production_wh, seal.consumption_wh) == (101_500, 131_200)
            assert seal.surplus_wh == 1_500 - 1_200
            sealed = decode_readings(message.section)
            assert [r.time_unix_s for r in sealed] == [quarter + 60 * i for i in range(1, 16)]
            assert (sealed[0].power_w, sealed[0].voltage_dv, sealed[0].frequency_mhz) == (-1_200, 2_305, 49_980)
            assert all(reading.flags == 0 for reading in sealed)

    run(story)


def test_a_restart_continues_counters_chain_and_unsealed_readings(home: Home, meters: Any, quarter: int) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(20)
        meters.home_wh(100_900, 50_000, 20_000)
        async with home:
            await home.minutes(10)
            first, second = home.seals()
            assert second.seal.sequence == 2
            assert second.seal.previous_seal_hash == seal_hash(first.seal_bytes)
            assert [r.time_unix_s for r in home.readings()] == [quarter + 60 * i for i in range(1, 31)]
            assert second.seal.production_wh - first.seal.production_wh == 900

    run(story)


def test_meters_that_do_not_answer_cost_no_energy_and_leave_a_flag(home: Home, meters: Any, quarter: int) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(2)
            meters.refuse = ExcCodes.DEVICE_BUSY
            await home.minutes(5)
            assert home.agent.problems == {"meter_unreadable"}
            assert home.agent.counts["modbus_busy"] == 15
            meters.refuse = None
            meters.home_wh(100_300, 50_000, 20_000)
            await home.minutes(1)
            assert home.agent.problems == set()
            last = home.readings()[-1]
            assert (last.time_unix_s, last.production_wh, last.flags) == (quarter + 480, 100_300, FLAG_AFTER_GAP)

    run(story)


def test_a_meter_that_says_zero_while_it_starts_is_read_again(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(1)
            meters.home_wh(0, 50_000, 20_000)
            recovery = asyncio.get_running_loop().call_later(0.005, meters.home_wh, 100_010, 50_000, 20_000)
            await home.minutes(1)
            recovery.cancel()
            last = home.readings()[-1]
            assert last.production_wh in (100_010, 100_000)
            assert home.agent.counts["register_reset"] == 0

    run(story)


def test_a_register_that_stays_fallen_adds_nothing_and_goes_on_also_over_a_restart(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(1)
            meters.home_wh(7, 50_000, 20_000)
            await home.minutes(5)
            assert home.agent.problems == {"register_fell"}
            assert len(home.readings()) == 1
        async with home:
            await home.minutes(5)
            assert home.agent.problems == {"register_fell"}
            await home.minutes(1)
            assert home.agent.counts["register_reset"] == 1
            assert home.agent.problems == set()
            reset = home.readings()[-1]
            assert (reset.production_wh, reset.flags) == (100_000, FLAG_REGISTER_RESET | FLAG_AFTER_GAP)
            meters.home_wh(20, 50_000, 20_000)
            await home.minutes(1)
            assert home.readings()[-1].production_wh == 100_013
        async with home:
            meters.home_wh(100_120, 50_000, 20_000)
            await home.minutes(1)
            assert home.readings()[-1].production_wh == 100_120

    run(story)


def test_a_jump_that_was_refused_stays_refused_over_a_restart_until_a_person_accepts_it(
    home: Home, meters: Any, quarter: int
) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(1)
            meters.home_wh(200_000, 50_000, 20_000)
            await home.minutes(1)
            assert home.agent.problems == {"register_jumped"}
        home.clock.set(quarter + 7 * 86_400)
        async with home:
            await home.minutes(1)
            assert home.agent.problems == {"register_jumped"}
            assert len(home.readings()) == 1
        assert await accept_now(home.settings, []) == ["generation"]
        with pytest.raises(RegisterError, match="register_believed"):
            await accept_now(home.settings, [])
        with pytest.raises(SettingsError, match="register_unknown"):
            await accept_now(home.settings, ["gas"])
        async with home:
            home.clock.set(int(time.time()) + 60)
            await home.minutes(2)
            swapped, ordinary = home.readings()[-2:]
            assert (swapped.production_wh, swapped.flags & FLAG_METER_SWAP) == (100_000, FLAG_METER_SWAP)
            assert (ordinary.production_wh, ordinary.flags) == (100_000, 0)

    run(story)


@pytest.mark.parametrize("raw", ["7fc00000", "7f800000", "bf800000", "4ac00000"])
def test_a_register_that_cannot_be_true_is_no_reading(home: Home, meters: Any, raw: str) -> None:
    async def story() -> None:
        async with home:
            meters.raw[GENERATION_IMPORT] = bytes.fromhex(raw)
            await home.minutes(1)
            assert home.readings() == []
            assert home.agent.problems == {"register_jumped" if raw == "4ac00000" else "meter_unreadable"}
            meters.home_wh(100_001, 50_000, 20_000)
            await home.minutes(1)
            assert home.readings()[-1].production_wh == 100_001

    run(story)


def test_an_optional_value_that_is_no_number_costs_only_its_column(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            meters.set(1, 0x34, float("nan"))
            await home.minutes(1)
            (reading,) = home.readings()
            assert (reading.power_w, reading.voltage_dv) == (None, 2_305)

    run(story)


def test_nothing_is_sealed_while_the_clock_is_not_synchronised(home: Home, quarter: int) -> None:
    async def story() -> None:
        async with home:
            home.clock.vouches = False
            await home.minutes(20)
            assert home.seals() == []
            assert home.agent.status()["clock"] == "unsynchronised"
            assert home.agent.problems == {"clock_unsynchronised"}
            home.clock.vouches = True
            await home.minutes(1)
            (message,) = home.seals()
            flags = [reading.flags for reading in decode_readings(message.section)]
            assert flags == [FLAG_CLOCK_UNSYNCHRONISED] * 20 + [0]

    run(story)


def test_a_device_that_wakes_in_1970_keeps_no_reading_until_it_knows_the_time(home: Home, quarter: int) -> None:
    async def story() -> None:
        async with home:
            home.clock.vouches = False
            home.clock.set(1_000)
            await home.minutes(3)
            assert home.readings() == []
            assert home.agent.counts["reading_without_time"] == 3
            home.clock.vouches = True
            home.clock.set(quarter + 30)
            await home.minutes(1)
            assert [r.time_unix_s for r in home.readings()] == [quarter + 60]

    run(story)


def test_readings_of_a_clock_that_was_ahead_give_way_and_their_energy_stays(
    home: Home, meters: Any, quarter: int
) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(2)
            home.clock.vouches = False
            home.clock.set(quarter + 10**8)
            meters.home_wh(100_500, 50_000, 20_000)
            await home.minutes(2)
            home.clock.vouches = True
            home.clock.set(quarter + 200)
            meters.home_wh(102_000, 50_000, 20_000)
            await home.minutes(3)
            assert home.agent.counts["reading_from_the_future"] == 2
            times = [reading.time_unix_s for reading in home.readings()]
            assert times == [quarter + 60, quarter + 120, quarter + 300, quarter + 360]
            assert home.readings()[-1].production_wh == 102_000

    run(story)


def test_a_clock_that_is_set_is_counted_and_the_next_reading_does_not_vouch_for_its_time(
    home: Home, meters: Any, quarter: int
) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(2)
            home.clock.set(quarter + 150)
            await home.minutes(1)
            home.clock.set(quarter + 600)
            meters.home_wh(100_100, 50_000, 20_000)
            await home.minutes(2)
            assert home.agent.counts["clock_stepped"] == 2
            flags = {reading.time_unix_s - quarter: reading.flags for reading in home.readings()}
            assert flags == {
                60: 0,
                120: 0,
                180: FLAG_CLOCK_UNSYNCHRONISED,
                660: FLAG_CLOCK_UNSYNCHRONISED | FLAG_AFTER_GAP,
                720: 0,
            }
            assert home.readings()[-1].production_wh == 100_100

    run(story)


def test_a_device_that_wakes_in_1970_between_readings_loses_and_doubles_nothing(
    home: Home, meters: Any, quarter: int
) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(3)
        home.clock.vouches = False
        home.clock.set(40)
        async with home:
            meters.home_wh(109_000, 50_000, 20_000)  # ten hours of sunshine in the dark of the device
            await home.minutes(5)
            assert home.agent.problems == {"clock_unsynchronised", "clock_behind_last_reading"}
            assert home.agent.counts["reading_without_time"] == 5
            home.clock.vouches = True
            home.clock.set(quarter + 36_000)
            await home.minutes(1)
            last = home.readings()[-1]
            assert (last.time_unix_s, last.production_wh) == (quarter + 36_060, 109_000)
            assert last.flags == FLAG_CLOCK_UNSYNCHRONISED | FLAG_AFTER_GAP
            await home.minutes(1)
            assert home.readings()[-1].flags == 0
            times = [reading.time_unix_s for reading in home.readings()]
            assert times == sorted(set(times))

    run(story)


def test_an_agent_started_behind_its_last_reading_waits_for_it_and_then_believes_what_passed_meanwhile(
    home: Home, meters: Any, quarter: int
) -> None:
    async def story() -> None:
        home.clock.set(quarter + 7_200)  # two hours ahead, and sure of it
        async with home:
            await home.minutes(15)
        home.clock.set(quarter + 900)
        async with home:
            await home.minutes(100)
            meters.home_wh(108_000, 50_000, 20_000)
            await home.minutes(25)
            assert home.agent.counts["register_jumped"] == 0
            assert home.readings()[-1].production_wh == 108_000

    run(story)


def test_a_register_that_is_frozen_takes_no_reading_until_it_moves_again(home: Home, meters: Any, quarter: int) -> None:
    async def story() -> None:
        async with home:
            meters.set(1, POWER, 3_000.0)
            await home.minutes(10)
            assert home.agent.problems == {"register_frozen"}
            assert 1 <= len(home.readings()) <= 3
            meters.home_wh(100_000, 50_500, 20_000)
            await home.minutes(1)
            assert home.agent.problems == set()
            last = home.readings()[-1]
            assert (last.time_unix_s, last.consumption_wh) == (quarter + 660, 130_500)

    run(story)


def test_neither_a_restart_nor_a_clock_that_is_set_makes_a_frozen_import_believed(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            meters.set(1, POWER, 3_000.0)
            await home.minutes(10)
            before = home.readings()
            meters.set(1, POWER, -50.0)
            home.clock.set(home.clock.now_unix_s() + 90)
            meters.home_wh(100_700, 50_000, 20_500)  # by day it exports; what it imported is still missing
            await home.minutes(3)
            assert home.agent.problems == {"register_frozen"}
        async with home:
            await home.minutes(3)
            assert home.agent.problems == {"register_frozen"}
            assert home.readings() == before
            meters.home_wh(100_700, 50_700, 20_500)
            await home.minutes(1)
            assert home.agent.problems == set()
            assert home.readings()[-1].consumption_wh == 130_900

    run(story)


def test_a_meter_that_is_another_is_a_problem_by_that_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def another() -> RawRegisters:
        raise ModbusError("meter_is_another", "unit 1 says 00ff")

    async def story() -> None:
        async with home:
            await home.minutes(1)
            monkeypatch.setattr(home.reader, "read", another)
            await home.minutes(1)
            assert home.agent.problems == {"meter_is_another"}
            monkeypatch.undo()
            await home.minutes(1)
            assert home.agent.problems == set()

    run(story)


def test_the_status_says_how_the_meters_and_the_journal_stand(home: Home, meters: Any, quarter: int) -> None:
    async def story() -> None:
        async with home:
            heard: list[Reading] = []
            home.agent.on_reading = heard.append
            meters.home_wh(8_192_000, 50_000, 20_000)
            assert await accept_running(home)
            await home.minutes(3)
            assert heard == home.readings()
            status = home.agent.status()
            assert status["last_reading_unix_s"] == quarter + 180
            assert status["time_unix_s"] == quarter + 180
            assert (status["unsealed_readings"], status["backlog_seals"]) == (3, 0)
            assert status["journal_bytes_max"] == home.settings.journal.bytes_max
            assert status["transport"] == "mqtt5"
            assert status["meters"] == [
                {"role": "grid", "map": "eastron_sdm630", "quantum_wh": "0.00381"},
                {"role": "generation", "map": "eastron_sdm630", "quantum_wh": "0.977"},
            ]
            assert len(json.dumps(status)) < STATUS_BYTES_MAX

    run(story)


def test_outside_the_schedule_too_a_register_is_what_two_reads_agree_on(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            poll = await read_agreed(home.settings.meters, home.reader, 100_000)
            assert poll.registers_wh == {"generation": 100_000, "grid_import": 50_000, "grid_export": 20_000}

            class Nonsense(HomeReader):
                reads = 0

                async def read(self) -> RawRegisters:
                    self.reads += 1
                    meters.set(2, 0x48, 100 + 7_919 * self.reads % 1_000)
                    return await super().read()

            nonsense = Nonsense(home.settings.buses)
            with pytest.raises(RegisterError, match="register_unsteady"):
                await read_agreed(home.settings.meters, nonsense, 100_000)
            nonsense.close()

    run(story)


async def accept_running(home: Home) -> bool:
    """Accept the registers as they are, as `accept-register` does while the agent is stopped."""
    assert home.journal is not None
    registers_wh = read_poll(home.settings.meters, await home.reader.read()).registers_wh
    state = accept_registers(home.journal.get_counters(), registers_wh, registers_wh.keys(), home.clock.now_unix_s())
    home.agent.sampler.counters = state
    return state.swapped


def test_a_clock_set_back_behind_the_last_seal_waits_for_it(home: Home, quarter: int) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(15)
            home.clock.set(quarter + 300)
            await home.minutes(20)
            times = [message.seal.sealed_at_unix_s for message in home.seals()]
            assert times == [quarter + 900]
            await home.minutes(10)
            assert [message.seal.sealed_at_unix_s for message in home.seals()] == [quarter + 900, quarter + 1_800]

    run(story)


def test_a_clock_behind_the_last_sealed_reading_is_a_problem_that_is_seen(home: Home, quarter: int) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(15)
            home.clock.set(quarter + 300)
            await home.minutes(5)
            assert home.agent.problems == {"clock_behind_last_reading"}
            assert len(home.readings()) == 15
            await home.minutes(6)
            assert home.agent.problems == set()

    run(story)


def test_a_clock_that_is_stepped_back_costs_one_interval_and_not_the_step(home: Home) -> None:
    at = 0.0

    def wall_s() -> float:
        return 1_900_000_000.5 + (time.monotonic() - started) - (86_400 if at and time.monotonic() > at else 0)

    async def story() -> None:
        nonlocal at
        home.clock.set(1_800_000_000)
        async with home:
            home.agent.sampler._clock = home.agent.sealer._clock = KernelClock("trust", wall_s)
            home.agent.sampler.intervals = Intervals(1, 900)
            sampling = asyncio.create_task(home.agent.sample_forever())
            await asyncio.sleep(1.2)
            assert home.agent.counts["reading"] >= 1
            at = time.monotonic()
            await asyncio.sleep(2.5)
            sampling.cancel()
            assert home.agent.counts["reading_without_time"] + home.agent.counts["reading_from_the_future"] >= 1
            assert home.agent.came_round_lately()

    started = time.monotonic()
    run(story)


def test_an_agent_that_does_not_come_round_is_not_called_alive(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    supervisor.bind(os.path.relpath(tmp_path / "notify"))
    supervisor.settimeout(0)
    monkeypatch.setenv("NOTIFY_SOCKET", os.path.relpath(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")

    async def heard(agent: Agent) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(_say_alive(agent), 0.1)
        try:
            return supervisor.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return False

    async def story() -> None:
        now_s = 0.0
        async with home:
            agent = Agent(
                home.settings,
                home.identity,
                home.agent._journal,
                clock=home.clock,
                reader=home.reader,
                random=lambda: 0.5,
                monotonic_s=lambda: now_s,
            )
            now_s = 120.0
            assert await heard(agent)
            now_s = 120.0 + READS_MAX * (home.reader.time_max_s + 0.5) + 0.1
            assert not await heard(agent)

    run(story)
    supervisor.close()


def test_a_journal_that_cannot_be_written_is_named_and_the_bus_is_not_asked_again(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(14)
            assert home.journal is not None
            home.journal._db.execute("PRAGMA query_only = 1")  # as a disk gone read-only would answer
            reads = meters.reads
            await home.minutes(1)
            per_reading = meters.reads - reads
            assert home.agent.problems == {"journal_unwritable"}
            home.agent.receiver.receive_receipt(receipt(home, 0))
            await home.minutes(1)
            home.journal._db.execute("PRAGMA query_only = 0")
            reads = meters.reads
            await home.minutes(1)
            assert meters.reads - reads == per_reading
            assert home.agent.problems == set()
            assert home.readings()[-1].production_wh == 100_000

    run(story)


def test_a_full_journal_takes_no_new_readings_and_says_so_but_loses_no_energy(home: Home, meters: Any) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(1)
            assert home.journal is not None
            home.journal._bytes_max = 1
            meters.home_wh(100_200, 50_000, 20_000)
            await home.minutes(5)
            assert home.agent.problems == {"journal_full"}
            assert home.agent.counts["reading_not_journaled"] == 5
            assert len(home.readings()) == 1
            meters.home_wh(0, 50_000, 20_000)
            await home.minutes(12)
            assert home.agent.counts["register_reset"] == 1
            home.journal._bytes_max = 2**26
            await home.minutes(1)
            assert home.agent.problems == set()
            assert home.readings()[-1].production_wh == 100_200
            assert home.readings()[-1].flags == FLAG_AFTER_GAP | FLAG_REGISTER_RESET

    run(story)


def receipt(home: Home, contiguous: int, *ranges: tuple[int, int], digest: bytes | None = None) -> bytes:
    assert home.journal is not None
    own = home.journal.find_seal_hash(contiguous)
    return encode_committed(Committed(1, contiguous, digest or own, list(ranges)))


def test_a_seal_is_forgotten_only_when_the_hub_names_its_hash(home: Home) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(60)
            assert len(home.seals()) == 4
            home.agent.receiver.receive_receipt(receipt(home, 2, digest=b"x" * 32))
            assert home.agent.problems == {"receipt_hash_differs"}
            assert len(home.seals()) == 4
            home.agent.receiver.receive_receipt(receipt(home, 2, (4, 4)))
            assert home.agent.problems == set()
            assert [message.seal.sequence for message in home.seals()] == [3]
            home.agent.receiver.receive_receipt(receipt(home, 4))
            assert home.agent.status()["backlog_seals"] == 0
            home.agent.receiver.receive_receipt(receipt(home, 4))
        async with home as again:
            assert len(again.outbox) == 0

    run(story)


def test_when_the_hub_has_seals_that_this_journal_never_made_sealing_stops(home: Home) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(15)
            home.agent.receiver.receive_receipt(receipt(home, 3, digest=b"x" * 32))
            assert home.agent.problems == {"receipt_hub_is_ahead"}
            await home.minutes(15)
            assert len(home.seals()) == 1
            assert len(home.readings()) == 30

    run(story)


def test_a_restart_does_not_forget_that_the_hub_is_ahead_and_nothing_is_published(home: Home) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(15)
            home.agent.receiver.receive_receipt(receipt(home, 3, digest=b"x" * 32))
        async with home:
            assert home.agent.problems == {"receipt_hub_is_ahead"}
            await home.minutes(15)
            assert len(home.seals()) == 1
            assert home.agent.receiver.find_message(1) is None
            home.agent.receiver.receive_receipt(receipt(home, 0))
            assert home.agent.problems == set()
            assert home.agent.receiver.find_message(1) is not None
        async with home:
            assert home.agent.problems == set()

    run(story)


def test_a_broker_that_repeats_old_receipts_does_not_wear_the_disk(home: Home, settings: Settings) -> None:
    write_ahead_log = settings.journal.file.with_name(settings.journal.file.name + "-wal")

    async def story() -> None:
        async with home:
            await home.minutes(45)
            older, ahead = receipt(home, 1), receipt(home, 9, digest=b"x" * 32)
            home.agent.receiver.receive_receipt(receipt(home, 2))
            for repeated in (older, ahead):
                home.agent.receiver.receive_receipt(repeated)
                written = write_ahead_log.read_bytes()
                for _ in range(50):
                    home.agent.receiver.receive_receipt(repeated)
                assert write_ahead_log.read_bytes() == written
            assert home.agent.counts["receipt_stale"] == home.agent.counts["receipt_hub_is_ahead"] == 51

    run(story)


def test_seals_made_offline_on_an_old_journal_are_not_published_once_the_hub_names_another(home: Home) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(30)
            home.agent.receiver.receive_receipt(receipt(home, 1, digest=b"x" * 32))
            assert home.agent.receiver.find_message(2) is None
            home.agent.receiver.receive_receipt(receipt(home, 1))
            assert home.agent.receiver.find_message(2) is not None

    run(story)


def test_a_hub_that_lost_seals_is_named_and_its_ranges_are_still_used(home: Home) -> None:
    now_s = 0.0

    async def story() -> None:
        nonlocal now_s
        async with home:
            home.agent.receiver._monotonic_s = lambda: now_s
            await home.minutes(60)
            before = receipt(home, 1)
            home.agent.receiver.receive_receipt(receipt(home, 2))
            home.agent.receiver.receive_receipt(before)
            await home.minutes(1)
            assert home.agent.problems == set()
            now_s = 61.0
            home.agent.receiver.receive_receipt(encode_committed(Committed(1, 1, b"x" * 32, [(3, 4)])))
            assert home.seals() == []
            assert home.agent.status()["backlog_seals"] == 0
            await home.minutes(1)
            assert home.agent.problems == {"hub_lost_seals"}
            home.agent.receiver.receive_receipt(receipt(home, 2))
            await home.minutes(1)
            assert home.agent.problems == set()

    run(story)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x94\x01\x02\xc0\x90", bytes(500), b"\xdd\xff\xff\xff\xff"])
def test_no_payload_ends_the_agent(home: Home, payload: bytes) -> None:
    async def story() -> None:
        async with home:
            home.agent.receiver.receive_receipt(payload)
            home.agent.receiver.receive_command(payload)
            assert home.agent.counts["receipt_malformed"] == 1
            assert home.agent.counts["command_malformed"] == 1

    run(story)


def command(home: Home, key: SigningKey, counter: int, kind: int, first: int = 0, last: int = 0) -> bytes:
    expires = home.clock.now_unix_s() + 60
    data = encode_command(Command(home.settings.domain, "home-17", counter, expires, kind, first, last))
    return data + key.sign(data).signature


def test_signed_commands_set_the_intervals_resend_and_restart_once_each(
    home: Home, hub_key: SigningKey, quarter: int
) -> None:
    async def story() -> None:
        async with home:
            await home.minutes(15)
            live = command(home, hub_key, 1, SET_INTERVAL, 10, 0)
            home.agent.receiver.receive_command(live)
            await home.minutes(3)
            assert [m.seal.sealed_at_unix_s - quarter for m in home.seals()] == [900, 910, 920, 930]
            for sequence in home.agent.outbox.take(0):
                home.agent.outbox.finished(sequence, 10**9)
            assert home.agent.outbox.take(10**9) == []
            home.agent.receiver.receive_command(command(home, hub_key, 2, RESEND, 2, 9))
            assert home.agent.outbox.take(10**9) == [2, 3, 4]
            home.agent.receiver.receive_command(live)
            assert home.agent.counts["command_repeated"] == 1
        async with home:
            await home.minutes(1)
            assert home.seals()[-1].seal.sealed_at_unix_s == quarter + 940
            home.agent.receiver.receive_command(live)
            assert home.agent.counts["command_repeated"] == 1
            assert not home.agent.stop.is_set()
            home.agent.receiver.receive_command(command(home, hub_key, 3, RESTART))
            assert home.agent.stop.is_set()

    run(story)


def test_an_interval_that_the_buses_cannot_keep_is_refused_by_name_and_changes_nothing(
    home: Home, hub_key: SigningKey, quarter: int
) -> None:
    (bus,) = home.settings.buses
    assert isinstance(bus, TcpBus)
    home.settings = replace(home.settings, buses=(replace(bus, retries=2, timeout_s=3),))
    fitting_s = shortest_interval_s(home.settings.buses)
    assert fitting_s > 6

    async def story() -> None:
        async with home:
            await home.minutes(1)
            too_fast = command(home, hub_key, 1, SET_INTERVAL, fitting_s - 1, 0)
            home.agent.receiver.receive_command(too_fast)
            assert home.agent.counts["command_interval_too_short"] == 1
            assert home.agent.sampler.intervals.reading_s == 60
            home.agent.receiver.receive_command(too_fast)
            assert home.agent.counts["command_repeated"] == 1
            assert home.journal is not None
            home.journal.accept_command(2, Intervals(fitting_s - 1, 0))  # with fewer meters it did fit
        async with home:
            assert home.agent.sampler.intervals.reading_s == 60
            home.agent.receiver.receive_command(command(home, hub_key, 3, SET_INTERVAL, fitting_s, 0))
            assert home.agent.sampler.intervals.reading_s == fitting_s

    run(story)


def test_a_journal_of_another_key_or_meter_is_not_continued(home: Home, tmp_path: Path) -> None:
    async def story() -> None:
        async with home:
            pass
        journal = Journal(home.settings.journal.file, 2**26)
        stranger = load_or_create_identity(tmp_path / "other.key")
        with pytest.raises(JournalError, match="another key"):
            get_enrolment(home.settings, stranger, journal)
        journal.close()

    run(story)
