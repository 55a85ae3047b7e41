"""Energy of a simulated home: exact, monotone, and the same whenever one asks."""

from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.settlement import Netting
from simulators.meters.energy import Energy, HomeEnergy

GOLDEN_DAY = date(2026, 11, 19)
MIDNIGHT = int(datetime(2026, 11, 19, tzinfo=UTC).timestamp())
HOUR_S, QUARTER_S, DAY_S = 3_600, 900, 86_400
START = Energy(generation_wh=200_000, import_wh=100_000, export_wh=50_000)


def home(**changes: Any) -> HomeEnergy:
    described: dict[str, Any] = {
        "household": "H0-A",
        "solar": "PV1",
        "solar_peak_w": 5_000,
        "seed": 1,
        "installed": GOLDEN_DAY,
        "start": START,
    }
    return HomeEnergy(**(described | changes))


GOLDEN = home(golden_day=GOLDEN_DAY)
ORDINARY = home()


def since_start(energy: HomeEnergy, second: int) -> tuple[int, int]:
    """Production and consumption in Wh since the midnight of the golden day."""
    now = energy.at(MIDNIGHT + second)
    return now.generation_wh - START.generation_wh, now.consumption_wh - START.consumption_wh


def netted(energy: HomeEnergy, until_s: int, step_s: int) -> Netting:
    netting = Netting(MIDNIGHT, 0, 0, 0, 0, 0)
    for second in range(step_s, until_s + 1, step_s):
        netting.add(MIDNIGHT + second, *since_start(energy, second))
    return netting


def test_the_golden_day_adds_up_at_every_boundary() -> None:
    production_wh = consumption_wh = 0
    for end in range(QUARTER_S, DAY_S + 1, QUARTER_S):
        hour = (end - QUARTER_S) / HOUR_S
        if 6 <= hour < 8:
            production_wh, consumption_wh = production_wh + 625, consumption_wh + 250
        elif 8 <= hour < 10:
            production_wh, consumption_wh = production_wh + 1_250, consumption_wh + 250
        elif 12.5 <= hour < 17.5:
            production_wh, consumption_wh = production_wh + 250, consumption_wh + 250
        assert since_start(GOLDEN, end) == (production_wh, consumption_wh), end


@pytest.mark.parametrize("step_s", [10, 60, 300, 900])
def test_the_golden_day_has_its_surplus_at_any_sampling_rate(step_s: int) -> None:
    for hour, figures in {
        6: (0, 0, 0),
        8: (5_000, 2_000, 3_000),
        10: (15_000, 4_000, 11_000),
        12: (15_000, 4_000, 11_000),
        18: (20_000, 9_000, 11_000),
        24: (20_000, 9_000, 11_000),
    }.items():
        netting = netted(GOLDEN, hour * HOUR_S, step_s)
        assert (netting.production_wh, netting.consumption_wh, netting.surplus_wh) == figures, hour


def test_on_the_golden_afternoon_energy_goes_back_and_forth_across_the_grid_meter() -> None:
    noon, evening = GOLDEN.at(MIDNIGHT + 12 * HOUR_S), GOLDEN.at(MIDNIGHT + 18 * HOUR_S)
    assert evening.export_wh - noon.export_wh == evening.import_wh - noon.import_wh == 2_500


def test_before_its_installation_a_home_stands_at_its_starting_registers() -> None:
    assert GOLDEN.at(MIDNIGHT - 1) == START
    first = GOLDEN.at(MIDNIGHT)
    assert (first.generation_wh, first.import_wh, first.export_wh) == (200_000, 100_000, 50_000)


def test_the_day_after_the_golden_day_is_an_ordinary_one() -> None:
    production_wh, consumption_wh = since_start(GOLDEN, 2 * DAY_S)
    assert production_wh > 20_000
    assert consumption_wh > 9_000 + 3_000


def test_at_every_second_the_home_uses_what_comes_in_and_does_not_go_out() -> None:
    for energy in (GOLDEN, ORDINARY):
        for first in (9 * HOUR_S, 13 * HOUR_S, 17 * HOUR_S + 1_700):
            for before, after in pairwise(energy.at(MIDNIGHT + second) for second in range(first, first + 1_000)):
                assert after.generation_wh >= before.generation_wh
                assert after.import_wh >= before.import_wh
                assert after.export_wh >= before.export_wh
                assert after.consumption_wh >= before.consumption_wh


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 400 * DAY_S), min_size=2, max_size=6).map(sorted))
def test_no_register_ever_falls(seconds: list[int]) -> None:
    readings = [ORDINARY.at(MIDNIGHT + second) for second in seconds]
    for before, after in pairwise(readings):
        assert after.generation_wh >= before.generation_wh
        assert after.import_wh >= before.import_wh
        assert after.export_wh >= before.export_wh
        assert after.consumption_wh >= before.consumption_wh


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 400 * DAY_S), st.integers(0, 400 * DAY_S))
def test_the_answer_does_not_depend_on_what_was_asked_before(first: int, second: int) -> None:
    asked_both, asked_one = home(), home()
    asked_both.at(MIDNIGHT + first)
    assert asked_both.at(MIDNIGHT + second) == asked_one.at(MIDNIGHT + second)


def test_two_seeds_are_two_homes() -> None:
    a, b = home(seed=1).at(MIDNIGHT + DAY_S), home(seed=2).at(MIDNIGHT + DAY_S)
    assert a.generation_wh == b.generation_wh
    assert a.import_wh != b.import_wh


def test_a_home_without_panels_exports_nothing() -> None:
    dark = home(solar=None, solar_peak_w=0).at(MIDNIGHT + 7 * DAY_S)
    assert (dark.generation_wh, dark.export_wh) == (START.generation_wh, START.export_wh)
    assert dark.import_wh > START.import_wh


def test_power_is_what_the_minute_brings() -> None:
    morning = GOLDEN.at(MIDNIGHT + 9 * HOUR_S)
    assert 4_900 <= morning.generation_power_w <= 5_100
    assert -4_100 <= morning.grid_power_w <= -3_900
