"""Sampling: when it is time, read the meters until a reading is believed, and put it into the journal.

Order of effects: a reading and the counters that it leaves are on the disk before anything else looks at them.
What fails is counted, named and tried again at the next instant; the registers are cumulative, so the next reading
carries the energy of those that could not be taken.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Protocol

from edge.believing import REGISTER_FELL, REGISTER_JUMPED
from edge.bus_budget import shortest_interval_s
from edge.bus_settings import MeterSettings
from edge.clock import Clock, step_s
from edge.confirming import (
    DISAGREEING_MAX,
    METER_IS_ANOTHER,
    METER_UNREADABLE,
    READS_MAX,
    REGISTER_UNSTEADY,
    Round,
    Taken,
    agreed_poll,
)
from edge.counters import CounterState, shift_time
from edge.errors import JournalError, ModbusError, RegisterError
from edge.frozen import REGISTER_FROZEN, PowerWitness
from edge.journal import Intervals, Journal
from edge.poll import REGISTER_WORD_ORDER, Poll, RawRegisters, moduli_wh, read_poll, swapped_registers_wh
from edge.sampling import make_reading, next_reading_time, reading_time, time_usable
from edge.settings import Settings
from edge.status import REGISTERS_OF_ROLE, Standing
from protocol.limits import TIME_MIN_UNIX_S
from protocol.readings import Reading

READ_PAUSE_S = 0.5
ROUNDS_MISSED_MAX = 2
"""So many reading intervals without a round of sampling, and the supervisor hears no more from us."""
REGISTER_COARSE = "register_coarse"
READING_WITHOUT_TIME = "reading_without_time"
CLOCK_STEPPED = "clock_stepped"
READING_PROBLEMS = (
    METER_UNREADABLE,
    METER_IS_ANOTHER,
    REGISTER_FELL,
    REGISTER_JUMPED,
    REGISTER_FROZEN,
    REGISTER_UNSTEADY,
    REGISTER_WORD_ORDER,
)
"""Why there may be no reading. One at a time. A reading that is held is none: the next round has both."""

log = logging.getLogger(__name__)


class Reader(Protocol):
    """What reads the meters."""

    @property
    def time_max_s(self) -> float:
        """How long one read can take."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What went wrong on the buses, retried or not."""

    @property
    def problems(self) -> set[str]:
        """What the last read must be held against."""

    async def read(self) -> RawRegisters:
        """Every wanted register of every meter. Raises ModbusError."""


async def read_agreed(meters: Sequence[MeterSettings], reader: Reader, power_max_w: int) -> Poll:
    """One poll outside the schedule, as carefully read as any: what two reads agree on.

    Raises ModbusError, or RegisterError, `register_unsteady` if the reads never agree.
    """
    reads: list[tuple[int, Poll]] = []
    while len(reads) < DISAGREEING_MAX:
        reads.append((0, read_poll(meters, await reader.read())))
        if (poll := agreed_poll(reads, power_max_w)) is not None:
            return poll
    raise RegisterError(REGISTER_UNSTEADY, f"{[dict(poll.registers_wh) for _, poll in reads]} Wh")


def _nobody(_reading: Reading) -> None:
    """Until somebody listens."""


class Sampler:
    """The readings of one enrolled meter. `on_reading` hears each that is journaled."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        standing: Standing,
        *,
        clock: Clock,
        reader: Reader,
        read_pause_s: float = READ_PAUSE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meters = settings.meters
        self._power_max_w = settings.sampling.power_max_w
        self._journal = journal
        self._standing = standing
        self._clock = clock
        self._reader = reader
        self._read_pause_s = read_pause_s
        self._monotonic_s = monotonic_s
        self._round_s = monotonic_s()
        self._moduli_wh = moduli_wh(self._meters)
        self.counters = journal.get_counters()
        configured = Intervals(settings.sampling.interval_s, settings.sampling.seal_interval_s)
        self.intervals = journal.find_intervals() or configured
        if self.intervals.reading_s < shortest_interval_s(settings.buses):  # a meter more since the command
            log.warning("intervals_do_not_fit", extra=asdict(self.intervals))
            self.intervals = configured
        if self.intervals != configured:
            log.warning("intervals_set_by_command", extra=asdict(self.intervals))
        unsealed = journal.find_unsealed()
        self.last_reading_unix_s = unsealed.last_unix_s if unsealed else journal.get_chain().last_reading_unix_s
        self.last_poll: Poll | None = None
        self.on_reading: Callable[[Reading], None] = _nobody
        self._wait: asyncio.Future[None] | None = None
        self._begun = self._instant = clock.instant()
        self._counted_here = False
        self._stepped = self._reset = False
        self._witness = PowerWitness(
            {meter.role: REGISTERS_OF_ROLE[meter.role] for meter in self._meters},
            against={meter.role for meter in self._meters if meter.energy == "export"},
        )
        self._held: Taken | None = None

    # ── when ────────────────────────────────────────────────────────────────────────────────────────────

    def next_reading_time(self) -> int:
        """When the next reading is scheduled."""
        return next_reading_time(self._clock.now_unix_s(), self.intervals.reading_s)

    async def wait(self) -> int | None:
        """Wait for the next scheduled instant. None if it did not come: the intervals or the clock were set."""
        self._round_s = self._monotonic_s()
        scheduled = self.next_reading_time()
        self._wait = asyncio.ensure_future(self._clock.wait_until(scheduled))
        await asyncio.wait([self._wait])
        if self._wait.cancelled():
            return None
        self._wait.result()
        return scheduled if self._clock.now_unix_s() >= scheduled else None

    def set_intervals(self, intervals: Intervals) -> None:
        """Sample and seal by these from now on."""
        self.intervals = intervals
        if self._wait is not None:
            self._wait.cancel()

    def came_round_lately(self) -> bool:
        """Whether sampling goes on, by a clock that nobody sets."""
        round_max_s = READS_MAX * (self._reader.time_max_s + self._read_pause_s)
        return self._monotonic_s() - self._round_s <= ROUNDS_MISSED_MAX * self.intervals.reading_s + round_max_s

    # ── one reading ─────────────────────────────────────────────────────────────────────────────────────

    async def sample_once(self, scheduled_unix_s: int) -> bool:
        """Take one scheduled reading. Returns whether there is one."""
        self._look_at_the_clock()
        now_unix_s = self._clock.now_unix_s()
        self._standing.problem("clock_behind_last_reading", now_unix_s <= self.last_reading_unix_s)
        if not time_usable(now_unix_s, self.last_reading_unix_s):
            self._standing.count(READING_WITHOUT_TIME)
            return False
        try:
            problem = await self._read(scheduled_unix_s)
        except JournalError as error:
            problem = error.code
            self._standing.journaled("reading", error)
        for name in READING_PROBLEMS:
            self._standing.problem(name, name == problem)
        return not problem

    def _look_at_the_clock(self) -> None:
        """Notice that it was set. What was counted by this process was counted by the clock as it was before."""
        self._standing.problem("clock_unsynchronised", not self._clock.synchronised())
        before, self._instant = self._instant, self._clock.instant()
        by_s = step_s(before, self._instant)
        if not by_s:
            return
        self._standing.count(CLOCK_STEPPED)
        log.warning(CLOCK_STEPPED, extra={"by_s": by_s})
        self._stepped = True
        self._witness.forget_polls()
        self._held = None
        if self._counted_here and before.unix_s >= TIME_MIN_UNIX_S:
            self.counters = shift_time(self.counters, by_s)

    def _counters_by_this_clock(self) -> CounterState:
        """The counters as of an instant that leaves at least the time that was watched passing: an agent that starts
        with its clock behind its last reading waits, and energy passes."""
        if self._counted_here:
            return self.counters
        watched_from = int(self._clock.now_unix_s() - (self._instant.monotonic_s - self._begun.monotonic_s))
        return shift_time(self.counters, min(0, watched_from - self.counters.time_unix_s))

    async def _read(self, scheduled_unix_s: int) -> str:
        """Take one reading. Returns the name of the problem if there is none to be had. Raises JournalError."""
        counters = self._counters_by_this_clock()
        reading = Round(counters, self._moduli_wh, self._power_max_w, self._witness, self._held)
        poll: Poll | None = None
        before: RawRegisters = {}
        while not reading.over:
            if reading.pause:
                await asyncio.sleep(self._read_pause_s)
            time_unix_s = reading_time(scheduled_unix_s, self._clock.now_unix_s())
            if not time_usable(time_unix_s, self.last_reading_unix_s):
                self._standing.count(READING_WITHOUT_TIME)
                break
            try:
                raw = await self._reader.read()
                if poll is None or raw != before:  # the second read of a round mostly brings the same bytes
                    poll, before = read_poll(self._meters, raw), raw
            except (ModbusError, RegisterError) as error:
                self._standing.failed(error)
                reading.failed(error)
                continue
            for wrong in reading.heard(poll, time_unix_s, partial(swapped_registers_wh, self._meters, raw)):
                self._standing.failed(wrong)
        self._held = reading.held
        if reading.confirmed is not None:
            self.take(reading.confirmed)
            counters = self.counters
        if reading.taken is not None:
            self.take(reading.taken)
            return ""
        if reading.suspicion is not None and reading.suspicion != counters:
            self._append([], reading.suspicion)  # a restart must not forget a suspicion
        return reading.problem

    def take(self, taken: Taken) -> None:
        """Journal a believed reading. Raises JournalError."""
        poll, step = taken.poll, taken.step
        self._reset = self._reset or bool(step.resets)
        for name in step.resets:
            self._standing.count("register_reset")
            before_wh = self.counters.registers[name].last_wh
            log.warning("register_reset", extra={"register": name, "before_wh": before_wh})
        for _ in step.wraps:
            self._standing.count("register_wrapped")
        self._standing.problem(REGISTER_COARSE, bool(poll.coarse))
        reading = make_reading(
            poll,
            taken.time_unix_s,
            step.state.production_wh,
            step.state.consumption_wh,
            last_reading_unix_s=self.last_reading_unix_s,
            interval_s=self.intervals.reading_s,
            clock_synchronised=self._clock.synchronised() and not self._stepped,
            register_reset=self._reset,
            meter_swapped=self.counters.swapped,
        )
        full = self._journal.full()
        self._standing.problem("journal_full", full)
        state = replace(step.state, swapped=step.state.swapped or self.counters.swapped) if full else step.state
        self._append([] if full else [reading], state)
        self._counted_here = True
        self.last_poll = poll
        if full:
            self._standing.count("reading_not_journaled")
            return
        self._standing.count("reading")
        self._stepped = self._reset = False
        self.last_reading_unix_s = taken.time_unix_s
        self.on_reading(reading)

    def _append(self, readings: list[Reading], state: CounterState) -> None:
        self._journal.append_readings(readings, state)
        self.counters = state
        self._standing.journaled("reading")

    def discard_future(self, last_sealed_unix_s: int) -> None:
        """Readings that a clock took before it was set right cannot be sealed; their energy is in the counters.

        Raises JournalError.
        """
        now_unix_s = self._clock.now_unix_s()
        if self.last_reading_unix_s <= max(now_unix_s, last_sealed_unix_s):
            return
        unsealed = self._journal.find_unsealed()
        if unsealed is None or unsealed.last_unix_s <= now_unix_s:
            return
        counters = self.counters
        if counters.time_unix_s > now_unix_s:  # before a restart: nobody has watched how long ago that was
            counters = replace(counters, time_unix_s=last_sealed_unix_s)
        discarded = self._journal.discard_readings_after(now_unix_s, counters)
        self.counters = counters
        unsealed = self._journal.find_unsealed()
        self.last_reading_unix_s = unsealed.last_unix_s if unsealed else last_sealed_unix_s
        self._standing.counts["reading_from_the_future"] += discarded
        log.warning("readings_from_the_future_discarded", extra={"readings": discarded})
