"""One home lived through: its meters, its device with a clock of its own, and an agent that is started and stopped.

The agent's sampling, journal and sealing are the real ones; the line to the meters and the device's clock are what the
faults make of them. Time is simulated.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from edge.bus_settings import TcpBus
from edge.clock import Instant
from edge.counters import accept_registers, start_counters
from edge.enrolment import enrol, get_enrolment
from edge.frozen import SURGE_W
from edge.identity import Identity
from edge.journal import Journal
from edge.sampler import Sampler
from edge.sealer import Sealer
from edge.settings import JournalSettings, SamplingSettings, Settings
from edge.status import Standing
from edge.uplink_settings import HubSettings
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, MEASURES_NET_ONLY
from protocol.readings import Reading
from protocol.topics import domain_of
from simulators.meters.energy import Energy, HomeEnergy
from tests.flows.year_of_faults.books import Books, Judge
from tests.flows.year_of_faults.faults import FAR_WH, STUCK_MORE_WH, WEIGHTS, Fault, corruption, draw, instead
from tests.flows.year_of_faults.meters import REGISTERS, FaultyMeters, Model

DAY_S = 86_400
FIRST_DAY = date(2025, 1, 1)
POWER_MAX_W = 30_000
SOLAR_PEAK_W = 8_000
CONNECTION_W = 24_000
RESET_APART_S = 30 * 3_600
RESET_MIN_WH = 30_000
"""A register that is reset sooner or lower than this is not told from one that returns; see the decision page."""
OFFSET_MAX_S = 240


@dataclass(frozen=True)
class HomeOfYear:
    """One home and how it is read."""

    model: Model
    household: str
    solar: str
    pair: bool
    interval_s: int
    starts_wh: tuple[int, int, int]
    quantum_wh: int


class Device:
    """The device's clock: `offset_s` off the truth, and vouched for or not. It is booted now and then."""

    def __init__(self, true_unix_s: int) -> None:
        self.true_unix_s = true_unix_s
        self.offset_s = 0
        self.vouches = True
        self.booted_unix_s = true_unix_s

    def now_unix_s(self) -> int:
        return self.true_unix_s + self.offset_s

    def instant(self) -> Instant:
        return Instant(self.now_unix_s(), self.true_unix_s - self.booted_unix_s)

    def synchronised(self) -> bool:
        return self.vouches

    async def wait_until(self, time_unix_s: int) -> None:
        self.true_unix_s += max(0, time_unix_s - self.now_unix_s())


@dataclass
class Outcome:
    """What became of the year."""

    polls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    honest_rounds: int = 0
    honest_refused: Counter[str] = field(default_factory=Counter)
    honest_quarantined: Counter[str] = field(default_factory=Counter)
    doubtful_quarantined: Counter[str] = field(default_factory=Counter)
    production_wh: int = 0
    consumption_wh: int = 0
    surplus_wh: int = 0
    lost: Counter[str] = field(default_factory=Counter)


class Story:
    """A stretch of one home's year under `faults_per_round`. Every reading asserts what the oracle says."""

    def __init__(
        self,
        home: HomeOfYear,
        seed: int,
        faults_per_round: float,
        directory: Path,
        start_unix_s: int,
        weights: Mapping[str, float] = WEIGHTS,
    ) -> None:
        self._rng = random.Random(f"year/{home.model.name}/{seed}")
        self._home = home
        self._faults_per_round = faults_per_round
        self._weights = weights
        generation_wh, import_wh, export_wh = home.starts_wh
        energy = HomeEnergy(
            household=home.household, solar=home.solar, solar_peak_w=SOLAR_PEAK_W, seed=seed, installed=FIRST_DAY,
            start=Energy(generation_wh, import_wh, export_wh),
        )  # fmt: skip
        self.device = Device(start_unix_s)
        roles = ("generation", "grid") if home.pair else ("grid",)
        self.meters = FaultyMeters(
            energy, home.model, roles, {name: 0 for name in REGISTERS}, lambda: self.device.true_unix_s
        )
        bus = TcpBus("bus", "127.0.0.1", 502, "tcp", 1, 0, self.meters.settings)
        self._settings = Settings(
            community_id="faulty-street", meter_id="home-1", kind=KIND_SOLAR,
            measurement=MEASURES_GENERATION_AND_GRID if home.pair else MEASURES_NET_ONLY, owner=b"o" * 32,
            domain=domain_of("faulty-street", b"", b""), key_file=directory / "key", buses=(bus,),
            sampling=SamplingSettings(home.interval_s, 900, "trust", POWER_MAX_W),
            journal=JournalSettings(directory / "journal", 2**26), transport="mqtt", mqtt=None, https=None,
            hub=HubSettings("", None, None), home_assistant=None, laboratory_clock_unit=None,
        )  # fmt: skip
        self._identity = Identity(b"y" * 32)
        self.outcome = Outcome()
        self._journal = Journal(self._settings.journal.file, self._settings.journal.bytes_max)
        shown = self.meters.shown_wh()
        self.books = Books(dict(shown), self.meters.true_wh(), home.model.modulus_wh, home.quantum_wh, home.pair)
        enrol(
            self._settings,
            self._identity,
            self._journal,
            start_counters(self._settings.measurement, shown, start_unix_s),
        )
        statement = get_enrolment(self._settings, self._identity, self._journal)
        self._valid_from_unix_s = statement.valid_from_unix_s
        self._hub = Judge(statement, SOLAR_PEAK_W, CONNECTION_W, home.quantum_wh + 1)
        self._doubtful: set[int] = set()
        self._reset_unix_s = dict.fromkeys(shown, start_unix_s - RESET_APART_S)
        self._undisturbed = 0
        self._spell: Fault | None = None
        self._spell_left = 0
        self._after: Callable[[], None] = _nothing
        self._awaited = False
        self._held: tuple[list[dict[str, int]], dict[str, int]] = [], {}
        self._start_agent()

    # ── the agent ───────────────────────────────────────────────────────────────────────────────────────

    def _start_agent(self) -> None:
        self._standing = Standing()
        self.sampler = Sampler(
            self._settings, self._journal, self._standing, clock=self.device, reader=self.meters, read_pause_s=0
        )
        self.sealer = Sealer(
            self._settings.domain, self._identity, self._journal, self._standing, clock=self.device,
            sampler=self.sampler, sealed=self._sealed,
        )  # fmt: skip

    def _stop_agent(self) -> None:
        self.outcome.counts += self._standing.counts
        self._journal.close()
        self._journal = Journal(self._settings.journal.file, self._settings.journal.bytes_max)

    def _sealed(self, sequence: int) -> None:
        message = self._journal.find_message(sequence)
        assert message is not None
        sealed, fault = self._hub.receive(message, self.device.true_unix_s)
        times = sealed.readings.times_unix_s
        for time_unix_s, *counters in zip(
            times, sealed.readings.productions_wh, sealed.readings.consumptions_wh, strict=True
        ):
            assert tuple(counters) == self.books.readings[time_unix_s]
        if fault:
            honest = not self._doubtful.intersection(times)
            (self.outcome.honest_quarantined if honest else self.outcome.doubtful_quarantined)[fault.split(":")[0]] += (
                len(times)
            )
        self._doubtful.difference_update(times)
        self._journal.forget_seals(sequence, [])

    # ── the story ───────────────────────────────────────────────────────────────────────────────────────

    async def live_until(self, end_unix_s: int) -> None:
        while self.device.true_unix_s < end_unix_s:
            await self._round()
        await self._settle()

    async def _settle(self) -> None:
        """A quiet hour, so that whatever was waiting comes home; then the sums."""
        self._faults_per_round = 0
        while self._spell is not None:
            await self._round()
        end_unix_s = self.device.true_unix_s + 2 * 3_600
        while self.device.true_unix_s < end_unix_s:
            await self._round()
        while self.sealer.seal_once(early=True):
            self.device.true_unix_s += 1
        self._stop_agent()
        for name in self.books.totals:
            assert abs(self.books.behind_wh(name, self.books.truth)) <= self.books.tolerance_wh
        chain, books, outcome = self.sealer.chain, self.books, self.outcome
        assert (chain.last_production_wh, chain.last_consumption_wh) == (books.production_wh, books.consumption_wh)
        assert chain.surplus_wh == books.surplus_wh(self._valid_from_unix_s, chain.closed_until_unix_s)
        outcome.production_wh, outcome.consumption_wh = books.production_wh, books.consumption_wh
        outcome.surplus_wh, outcome.lost = chain.surplus_wh, books.lost
        assert chain.sealed_at_unix_s > end_unix_s - 3_600

    async def _round(self) -> None:
        """Until the next scheduled instant, whatever happens meanwhile, and what the agent makes of it."""
        fault = self._next_fault()
        if fault is not None and fault.kind in ("restart", "power_cut", "no_rtc", "replacement"):
            self._interrupt(fault)
        scheduled = self.sampler.next_reading_time()
        target_unix_s = self.device.true_unix_s + scheduled - self.device.now_unix_s()
        if fault is not None:
            self._set_clock(fault)
        if self.device.now_unix_s() < scheduled:
            self.device.true_unix_s = target_unix_s
        if fault is not None and fault.kind == "late":
            self.device.true_unix_s += self._rng.randint(1, 10)
        if self.device.now_unix_s() >= scheduled:
            self.meters.begin_round(self._corruption(fault))
            await self._sample(scheduled, disturbed=fault is not None)
        self._undisturbed = 0 if fault is not None else self._undisturbed + 1

    def _next_fault(self) -> Fault | None:
        if self._spell is not None:
            self._spell_left -= 1
            if self._spell_left > 0:
                return self._spell
            self._after()
            self._spell, self._after = None, _nothing
        if self._awaited or self._rng.random() >= self._faults_per_round:
            return None
        fault = draw(self._rng, self._home.interval_s, self._weights)
        if not self._begins(fault):
            return None
        self.outcome.faults[fault.kind] += 1
        if fault.rounds > 1 or fault.kind in ("clock_wild", "no_rtc"):
            self._spell, self._spell_left = fault, fault.rounds
        return fault

    def _begins(self, fault: Fault) -> bool:
        """Do to the meter what begins now. Returns whether this fault can happen now."""
        registers, truth = self.meters.registers, self.meters.true_wh()
        name = self._rng.choice(list(registers))
        if fault.kind in ("stuck_bit", "far_spike"):
            resets_are_past = self.device.true_unix_s - max(self._reset_unix_s.values()) >= RESET_APART_S
            return self._undisturbed >= 2 and resets_are_past
        if fault.kind == "frozen":
            registers[name].stuck_wh = registers[name].counted_wh(truth[name])
            self._after = lambda: setattr(registers[name], "stuck_wh", None)
        elif fault.kind == "stale":
            self.meters.hold_answer()
            self._after = self.meters.release_answer
        elif fault.kind == "reset":
            long_ago = self.device.true_unix_s - self._reset_unix_s[name] >= RESET_APART_S
            if not long_ago or registers[name].shown_wh(truth[name]) < RESET_MIN_WH or self._undisturbed < 2:
                return False
            self._begin_register_at(name, 0)
            self.books.begun_again.add(name)
            self._awaited = True
        elif fault.kind == "replacement":
            return self._undisturbed >= 2
        elif fault.kind in ("clock_wild", "no_rtc"):
            wild_s = self._rng.choice((-1, 1)) * self._rng.randint(600, 400 * DAY_S)
            if fault.kind == "clock_wild":
                self._wild_s = wild_s
            self._after = self._set_right
        return True

    def _begin_register_at(self, name: str, counted_wh: int) -> None:
        self.meters.registers[name].begin_at(counted_wh, self.meters.true_wh()[name])
        self._reset_unix_s[name] = self.device.true_unix_s

    def _set_right(self) -> None:
        """A time source is found."""
        self.device.offset_s = 0
        self.device.vouches = True

    def _interrupt(self, fault: Fault) -> None:
        """The agent ends, and is started again."""
        if fault.kind == "no_rtc" and self._spell_left < fault.rounds:
            return
        self._stop_agent()
        if fault.kind in ("power_cut", "no_rtc"):
            self.device.true_unix_s += self._rng.randint(60, 6 * 3_600)
            self.device.booted_unix_s = self.device.true_unix_s
        if fault.kind == "no_rtc":
            self.device.offset_s = self._rng.randint(0, 10**6) - self.device.true_unix_s
            self.device.vouches = False
        if fault.kind == "replacement":
            self._replace_meter()
        self._start_agent()

    def _replace_meter(self) -> None:
        """Another meter is installed, and a person accepts its registers, as `accept-register` does."""
        role = self._rng.choice([meter.role for meter in self.meters.settings])
        names = [name for name in self.meters.registers if REGISTERS[name][0] == role]
        for name in names:
            self._begin_register_at(name, self._rng.randrange(10**6))
        shown = self.meters.shown_wh()
        state = accept_registers(self._journal.get_counters(), shown, names, self.device.now_unix_s())
        self._journal.append_readings([], state)
        self.books.replace(names, shown, self.meters.true_wh())

    def _set_clock(self, fault: Fault) -> None:
        device = self.device
        if fault.kind == "clock_forward":
            device.offset_s = self._rng.randint(min(device.offset_s + 2, OFFSET_MAX_S), OFFSET_MAX_S)
        elif fault.kind == "clock_back":
            device.offset_s = self._rng.randint(-OFFSET_MAX_S, max(device.offset_s - 2, -OFFSET_MAX_S))
        elif fault.kind == "leap_second":
            device.offset_s += self._rng.choice((-1, 1))
        elif fault.kind == "clock_wild" and self._spell_left == fault.rounds:
            device.offset_s += self._wild_s
            device.vouches = False

    def _corruption(self, fault: Fault | None):  # type: ignore[no-untyped-def]
        if fault is None:
            return None
        if fault.kind in ("stuck_bit", "far_spike"):
            name = self._rng.choice(list(self.meters.registers))
            if fault.kind == "stuck_bit":
                more_wh = self._explained_wh() + self._rng.randint(1, STUCK_MORE_WH)
            elif (modulus_wh := self._home.model.modulus_wh) is not None:  # far, and not where a register begins again
                low = self.meters.shown_wh()[name] < modulus_wh // 2
                more_wh = modulus_wh // 2 if low else -modulus_wh // 4
            else:
                more_wh = self._rng.randint(*FAR_WH)
            counted_wh = self.meters.registers[name].counted_wh(self.meters.true_wh()[name])
            return instead(REGISTERS[name], self._home.model.energy(counted_wh + more_wh))
        return corruption(fault.kind, self._rng, self._home.model, list(self.meters.registers))

    def _explained_wh(self) -> int:
        """More than any home of ours can make or draw between two readings, twice over, and a kettle."""
        return (2 * SOLAR_PEAK_W + 2 * SURGE_W) * self._home.interval_s // 3_600 + 3 * self._home.quantum_wh + 20

    # ── one reading ─────────────────────────────────────────────────────────────────────────────────────

    async def _sample(self, scheduled: int, *, disturbed: bool) -> None:
        outcome, sampler = self.outcome, self.sampler
        before_unix_s = sampler.last_reading_unix_s
        discarded = self._standing.counts["reading_from_the_future"]
        usable = self.device.now_unix_s() > before_unix_s
        unexplained = self._standing.counts["register_unexplained"]
        sampler.on_reading = lambda reading: self._taken(reading, scheduled, disturbed=disturbed)
        taken = await sampler.sample_once(scheduled)
        outcome.polls += len(self.meters.shown_this_round)
        if self._standing.counts["register_unexplained"] > unexplained:
            self._held = self.meters.shown_this_round, self.meters.true_wh()
        expected = self._undisturbed and not disturbed and usable and not self._awaited and not self._wheel_turned()
        if expected and not taken:
            outcome.honest_refused[",".join(sorted(self._standing.problems))] += 1
        if not disturbed:
            outcome.honest_rounds += 1
        counted = {name: register.last_wh + register.offset_wh for name, register in sampler.counters.registers.items()}
        assert counted == self.books.totals
        assert sampler.counters.production_wh == self.books.production_wh
        assert sampler.counters.consumption_wh == self.books.consumption_wh
        await self.sealer.seal_due()
        if self._standing.counts["reading_from_the_future"] > discarded:
            for time_unix_s in [t for t in self.books.readings if t > sampler.last_reading_unix_s]:
                del self.books.readings[time_unix_s]

    def _taken(self, reading: Reading, scheduled: int, *, disturbed: bool) -> None:
        """A reading was journaled: of this round, or the one that an earlier round has left waiting."""
        sampler, books, time_unix_s = self.sampler, self.books, reading.time_unix_s
        shown_then, truth = self.meters.shown_this_round, self.meters.true_wh()
        if time_unix_s < scheduled:
            shown_then, truth = self._held
        believed = {name: register.last_wh for name, register in sampler.counters.registers.items()}
        for name, wh in believed.items():
            assert wh in {shown[name] for shown in shown_then}, f"{name}: {wh} Wh was never shown"
        books.take(believed, truth)
        self._awaited = False
        assert time_unix_s not in books.readings, "two readings of one instant"
        books.readings[time_unix_s] = books.production_wh, books.consumption_wh
        self.outcome.readings += 1
        if disturbed or self._undisturbed < 2 or self.device.offset_s:
            self._doubtful.add(time_unix_s)

    def _wheel_turned(self) -> bool:
        """Whether a register has wrapped and its fall is still waited for."""
        shown = self.meters.shown_wh()
        return any(shown[name] < wh for name, wh in self.books.shown.items())


def _nothing() -> None:
    """No fault is to be ended."""


def unix_s(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
