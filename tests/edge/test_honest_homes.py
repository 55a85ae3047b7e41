"""Homes in which nothing is wrong: every scheduled instant has its reading, whatever meter, interval and weather."""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction

import pytest

from edge.bus_settings import MeterSettings
from edge.confirming import Round, Taken
from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT, start_counters
from edge.frozen import PowerWitness
from edge.poll import Poll, read_poll, wanted_registers
from edge.register_map import MAPS_DIRECTORY, load_register_map
from edge.sampling import next_reading_time
from edge.status import REGISTERS_OF_ROLE
from protocol.enrolment import MEASURES_GENERATION_AND_GRID
from simulators.meters.energy import Energy, HomeEnergy
from simulators.meters.measured import generation_meter, grid_meter
from simulators.meters.meter import Meter
from simulators.meters.models import MODELS
from simulators.meters.registers import Read

MAPS = sorted(path.stem for path in MAPS_DIRECTORY.glob("*.toml"))
GRID_METER_BESIDE = {"carlo_gavazzi_em24_import": "carlo_gavazzi_em24"}
"""A meter without an export register counts generation only."""
MONDAY = date(2025, 6, 9)
MONDAY_UNIX_S = 1_749_427_200
SUNRISE_S, QUARTER_S, DAY_S = 5 * 3_600, 900, 86_400
WS_PER_WH = 3_600
POWER_MAX_W = 30_000

PollAt = Callable[[int], Poll]


def unread(poll_at: PollAt, start_unix_s: int, interval_s: int, count: int) -> list[tuple[int, str]]:
    """The scheduled instants, of so many, that have no reading when all is over, and why."""
    witness = PowerWitness(REGISTERS_OF_ROLE)
    state = start_counters(MEASURES_GENERATION_AND_GRID, poll_at(start_unix_s).registers_wh, start_unix_s)
    held: Taken | None = None
    missing, now = [], start_unix_s
    for _ in range(count):
        now = next_reading_time(now, interval_s)
        poll = poll_at(now)
        reading = Round(state, {}, POWER_MAX_W, witness, held)
        reading.heard(poll, now)
        reading.heard(poll, now)
        held = reading.held
        for taken in (reading.confirmed, reading.taken):
            state = taken.step.state if taken is not None else state
        if reading.taken is None and held is None:
            missing.append((now - start_unix_s, reading.problem))
        if held is None:
            assert state.registers[GRID_IMPORT].last_wh == poll.registers_wh[GRID_IMPORT]
    return missing


@pytest.mark.parametrize("name", MAPS)
def test_a_home_that_lives_a_measured_week_is_never_doubted_with_any_meter(name: str) -> None:
    models = {"grid": GRID_METER_BESIDE.get(name, name), "generation": name}
    settings = [
        MeterSettings(role, unit, load_register_map(model), "import")
        for unit, (role, model) in enumerate(models.items(), 1)
    ]
    start = Energy(8_150_000, 3_900_000, 5_200_000)
    home = HomeEnergy(household="H0-A", solar="PV1", solar_peak_w=8_000, seed=5, installed=MONDAY, start=start)
    meters = {
        "grid": Meter(MODELS[models["grid"]], 1, lambda now: grid_meter(home.at(now), now, 1)),
        "generation": Meter(MODELS[name], 2, lambda now: generation_meter(home.at(now), now, 1)),
    }

    def raw_of(meter: MeterSettings, now: int) -> Iterator[tuple[tuple[str, str], bytes]]:
        for register in wanted_registers(meter):
            answers = [meters[meter.role].read(Read(*span), now).words for span in register.spans]
            data = b"".join(struct.pack(f">{len(words)}H", *words) for words in answers if isinstance(words, tuple))
            yield (meter.role, register.quantity), data

    def poll_at(now: int) -> Poll:
        return read_poll(settings, dict(pair for meter in settings for pair in raw_of(meter, now)))

    def powerless(now: int) -> Poll:
        return replace(poll_at(now), powers_w={})

    for interval_s, since_s, count in ((1, 12 * 3_600, 120), (60, SUNRISE_S, 240), (QUARTER_S, 0, 192)):
        assert unread(poll_at, MONDAY_UNIX_S + since_s, interval_s, count) == []
    assert unread(powerless, MONDAY_UNIX_S, QUARTER_S, 192) == []


@dataclass
class Weather:
    """A home second by second, rougher than any average of a quarter of an hour: its power, and its energy in Ws."""

    load_w: list[int]
    generation_w: list[int]
    quantum_wh: int

    def __post_init__(self) -> None:
        self.energy_ws = [(10**6 * WS_PER_WH,) * 3]
        for load_w, generation_w in zip(self.load_w, self.generation_w, strict=True):
            generated, imported, exported = self.energy_ws[-1]
            net_w = load_w - generation_w
            self.energy_ws.append(
                (generated + max(0, generation_w), imported + max(0, net_w), exported + max(0, -net_w))
            )

    def poll_at(self, second: int) -> Poll:
        at = max(0, second - 1)
        powers_w = {"generation": self.generation_w[at], "grid": self.load_w[at] - self.generation_w[at]}
        names = GENERATION, GRID_IMPORT, GRID_EXPORT
        shown = [ws // WS_PER_WH // self.quantum_wh * self.quantum_wh for ws in self.energy_ws[second]]
        quanta = dict.fromkeys(names, Fraction(self.quantum_wh))
        return Poll(dict(zip(names, shown, strict=True)), powers_w=powers_w, quanta_wh=quanta)


def bursts(rng: random.Random, every_s: int, lasts_s: tuple[int, int], power_w: int, otherwise_w: int) -> list[int]:
    """A day of something that comes and goes."""
    power = [otherwise_w] * DAY_S
    second = 0
    while (second := second + rng.randint(1, 2 * every_s)) < DAY_S:
        end = min(DAY_S, second + rng.randint(*lasts_s))
        power[second:end] = [power_w] * (end - second)
        second = end
    return power


@pytest.mark.parametrize("quantum_wh", [1, 100])
@pytest.mark.parametrize("interval_s", [10, 60, 300, 900])
def test_clouds_showers_and_a_battery_charged_by_night_cost_no_reading(interval_s: int, quantum_wh: int) -> None:
    rng = random.Random(interval_s)
    showers = bursts(rng, 7_200, (40, 400), 21_000, 250)
    broken_clouds = bursts(rng, 120, (20, 240), 8_000, 800)
    night = [0] * (DAY_S // 4) + [-3_000] * (DAY_S // 4)  # through the panels' meter, by the register nobody reads
    home = Weather(showers, broken_clouds[: DAY_S // 2] + night, quantum_wh)
    assert unread(home.poll_at, 0, interval_s, DAY_S // interval_s) == []


@pytest.mark.parametrize("quantum_wh", [1, 10, 100])
@pytest.mark.parametrize("standby_w", [0, 4, 30, 50, 99])
def test_a_home_at_standby_is_never_called_frozen(standby_w: int, quantum_wh: int) -> None:
    home = Weather([standby_w] * DAY_S, [0] * DAY_S, quantum_wh)
    assert unread(home.poll_at, 0, 60, DAY_S // 60) == []


@pytest.mark.parametrize("quantum_wh", [1, 100])
def test_a_battery_that_holds_the_grid_near_zero_is_never_called_frozen(quantum_wh: int) -> None:
    rng = random.Random(quantum_wh)
    home = Weather([rng.choice((-600, -200, 0, 200, 600)) for _ in range(DAY_S)], [0] * DAY_S, quantum_wh)
    assert unread(home.poll_at, 0, 60, DAY_S // 60) == []
