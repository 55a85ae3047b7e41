import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.counters import (
    GENERATION,
    GRID_EXPORT,
    GRID_IMPORT,
    JUMP_ALLOWANCE_WH,
    CounterState,
    RegisterFellError,
    advance_counters,
    start_counters,
)
from edge.errors import RegisterError
from protocol.enrolment import MEASURES_GENERATION_AND_GRID, MEASURES_NET_ONLY

POWER_MAX_W = 100_000_000
PAIR = MEASURES_GENERATION_AND_GRID
NOTHING_WRAPS: dict[str, int | None] = {}


def registers(generation: int, imported: int, exported: int) -> dict[str, int]:
    return {GENERATION: generation, GRID_IMPORT: imported, GRID_EXPORT: exported}


def advance(state: CounterState, after: dict[str, int], *, confirmed: bool = False) -> CounterState:
    time_unix_s = state.time_unix_s + 60
    step = advance_counters(state, after, NOTHING_WRAPS, time_unix_s, POWER_MAX_W, falls_confirmed=confirmed)
    return step.state


steps = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500)), max_size=60)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), steps)
def test_counters_never_fall_and_end_at_exactly_the_difference_of_the_registers(
    generation: int, imported: int, exported: int, rises: list[tuple[int, int, int]]
) -> None:
    start = state = start_counters(PAIR, registers(generation, imported, exported), 0)
    ends = generation, imported, exported
    for rise in rises:
        # Export is read a moment before generation, so the sum dips; a real home catches up.
        dipped = registers(ends[0], ends[1], ends[2] + min(rise[0] + rise[1], rise[2]))
        ends = ends[0] + rise[0], ends[1] + rise[1], dipped[GRID_EXPORT]
        for polled in (dipped, registers(*ends)):
            before, state = state, advance(state, polled)
            assert state.production_wh >= before.production_wh
            assert state.consumption_wh >= before.consumption_wh
    assert state.production_wh - start.production_wh == ends[0] - generation
    used_wh = (ends[0] - generation) + (ends[1] - imported) - (ends[2] - exported)
    assert state.consumption_wh - start.consumption_wh == used_wh


def test_a_dip_by_a_quantum_waits_and_is_recovered() -> None:
    state = start_counters(PAIR, registers(1_000, 500, 300), 0)
    assert state.consumption_wh == 1_200
    state = advance(state, registers(1_000, 500, 301))
    assert state.consumption_wh == 1_200
    state = advance(state, registers(1_001, 500, 301))
    assert state.consumption_wh == 1_200
    assert advance(state, registers(1_002, 500, 301)).consumption_wh == 1_201


def test_a_net_only_meter_produces_what_it_exports() -> None:
    state = start_counters(MEASURES_NET_ONLY, {GRID_IMPORT: 700, GRID_EXPORT: 90}, 0)
    assert (state.production_wh, state.consumption_wh) == (90, 700)


def test_a_grid_meter_older_than_the_generation_meter_starts_the_sum_at_zero() -> None:
    state = start_counters(PAIR, registers(0, 100, 5_000), 0)
    assert state.consumption_wh == 0
    assert advance(state, registers(30, 107, 5_000)).consumption_wh == 37


def test_a_fall_is_not_believed_before_it_is_confirmed() -> None:
    state = start_counters(PAIR, registers(1_000, 500, 300), 0)
    with pytest.raises(RegisterFellError):
        advance(state, registers(0, 500, 300))


def test_a_register_that_goes_backwards_adds_no_energy_and_goes_on_from_there() -> None:
    state = start_counters(PAIR, registers(1_000, 500, 300), 0)
    step = advance_counters(state, registers(10, 500, 300), NOTHING_WRAPS, 60, POWER_MAX_W, falls_confirmed=True)
    assert step.resets == (GENERATION,)
    assert step.state.production_wh == 1_000
    assert advance(step.state, registers(25, 500, 300)).production_wh == 1_015


def test_a_register_that_wraps_goes_on() -> None:
    state = start_counters(PAIR, registers(99_990, 500, 300), 0)
    step = advance_counters(
        state, registers(15, 500, 300), {GENERATION: 100_000}, 60, POWER_MAX_W, falls_confirmed=False
    )
    assert step.resets == ()
    assert step.state.production_wh == 100_015


def test_a_fall_from_the_middle_of_the_range_is_a_reset_even_if_the_register_can_wrap() -> None:
    state = start_counters(PAIR, registers(50_000, 500, 300), 0)
    step = advance_counters(
        state, registers(15, 500, 300), {GENERATION: 100_000}, 60, POWER_MAX_W, falls_confirmed=True
    )
    assert step.resets == (GENERATION,)
    assert step.state.production_wh == 50_000


def test_a_register_cannot_rise_faster_than_the_home_can_draw() -> None:
    state = start_counters(PAIR, registers(180_200, 0, 0), 0)
    with pytest.raises(RegisterError, match="register_jumped"):
        advance_counters(state, registers(5_000_000, 0, 0), {}, 60, 100_000, falls_confirmed=False)
    limit_wh = 100_000 * 60 // 3_600 + JUMP_ALLOWANCE_WH
    step = advance_counters(state, registers(180_200 + limit_wh, 0, 0), {}, 60, 100_000, falls_confirmed=False)
    assert step.state.production_wh == 180_200 + limit_wh


@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 3), max_size=30))
def test_whatever_the_registers_do_counters_never_fall(polls: list[tuple[int, int, int]]) -> None:
    state = start_counters(PAIR, registers(5_000, 5_000, 5_000), 0)
    for poll in polls:
        before, state = state, advance(state, registers(*poll), confirmed=True)
        assert state.production_wh >= before.production_wh
        assert state.consumption_wh >= before.consumption_wh
