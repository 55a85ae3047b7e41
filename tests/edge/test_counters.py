from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge.believing import JUMP_ALLOWANCE_WH, RESET_CONFIRM_S, RESET_READINGS_MIN
from edge.counters import (
    GENERATION,
    GRID_EXPORT,
    GRID_IMPORT,
    CounterState,
    accept_registers,
    advance_counters,
    shift_time,
    start_counters,
)
from protocol.enrolment import MEASURES_GENERATION_AND_GRID, MEASURES_NET_ONLY

POWER_MAX_W = 100_000_000
PAIR = MEASURES_GENERATION_AND_GRID
NOTHING_WRAPS: dict[str, int | None] = {}


def registers(generation: int, imported: int, exported: int) -> dict[str, int]:
    return {GENERATION: generation, GRID_IMPORT: imported, GRID_EXPORT: exported}


def advance(state: CounterState, after: dict[str, int]) -> CounterState:
    step = advance_counters(state, after, NOTHING_WRAPS, state.time_unix_s + 60, POWER_MAX_W)
    assert step.refused is None
    return step.state


class Minutes:
    """A home polled each minute, whatever is believed of it."""

    def __init__(self, state: CounterState, modulus_wh: int | None = None, power_max_w: int = POWER_MAX_W) -> None:
        self.state, self.now, self.power_max_w = state, state.time_unix_s, power_max_w
        self.moduli = dict.fromkeys(state.registers, modulus_wh)
        self.resets: tuple[str, ...] = ()

    def poll(self, after: dict[str, int], times: int = 1) -> str:
        for _ in range(times):
            self.now += 60
            step = advance_counters(self.state, after, self.moduli, self.now, self.power_max_w)
            assert step.state.production_wh >= self.state.production_wh
            assert step.state.consumption_wh >= self.state.consumption_wh
            self.state, self.resets = step.state, self.resets + step.resets
        return step.refused.code if step.refused else ""


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


LONG = RESET_CONFIRM_S // 60 + 1


def test_a_fall_is_believed_only_once_it_has_lasted() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0))
    assert home.poll(registers(10, 500, 300), LONG - 1) == "register_fell"
    assert (home.state.time_unix_s, home.resets) == (0, ())
    assert home.poll(registers(10, 500, 300)) == ""
    assert home.resets == (GENERATION,)
    assert home.state.production_wh == 100_000
    home.poll(registers(25, 500, 300))
    assert home.state.production_wh == 100_015


def test_a_fall_seen_twice_in_an_hour_is_not_believed() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0))
    for _ in range(RESET_READINGS_MIN - 1):
        home.now += 1_800
        assert home.poll(registers(10, 500, 300)) == "register_fell"


def test_a_register_that_was_zero_for_an_hour_and_returns_was_never_reset() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=100_000)
    assert home.poll(registers(0, 500, 300), 60) == ""
    assert home.poll(registers(100_040, 500, 300)) == ""
    assert home.state.production_wh == 100_040
    home.poll(registers(100_050, 500, 300))
    assert home.state.production_wh == 100_050


def test_energy_counted_after_a_false_reset_is_not_counted_again() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=100_000)
    home.poll(registers(0, 500, 300), LONG)
    home.poll(registers(60, 500, 300))
    assert home.state.production_wh == 100_060
    home.poll(registers(100_040, 500, 300))
    assert home.state.production_wh == 100_060
    home.poll(registers(100_070, 500, 300))
    assert home.state.production_wh == 100_070


def test_a_true_reset_counts_on_beyond_the_value_before_it() -> None:
    home = Minutes(start_counters(PAIR, registers(5_000, 0, 0), 0), power_max_w=100_000)
    home.poll(registers(0, 0, 0), LONG)
    for grown in range(0, 20_001, 500):
        assert home.poll(registers(grown, 0, 0)) == ""
    assert home.state.production_wh == 25_000


def test_a_return_long_after_a_reset_is_a_jump_like_any_other() -> None:
    home = Minutes(start_counters(PAIR, registers(500_000, 0, 0), 0), power_max_w=100_000)
    home.poll(registers(0, 0, 0), 2 * 1_440)
    assert home.poll(registers(900_000, 0, 0), 10) == "register_jumped"
    assert home.poll(registers(10, 0, 0)) == ""
    assert home.state.production_wh == 500_010


def test_a_register_that_wraps_goes_on_once_the_fall_has_lasted() -> None:
    home = Minutes(start_counters(PAIR, registers(99_990, 500, 300), 0), modulus_wh=100_000)
    home.poll(registers(15, 500, 300), LONG)
    assert home.resets == ()
    assert home.state.production_wh == 100_015


def test_a_fall_from_the_middle_of_the_range_is_a_reset_even_if_the_register_can_wrap() -> None:
    home = Minutes(start_counters(PAIR, registers(50_000, 500, 300), 0), modulus_wh=100_000)
    home.poll(registers(15, 500, 300), LONG)
    assert home.resets == (GENERATION,)
    assert home.state.production_wh == 50_000


def test_a_register_cannot_rise_faster_than_the_home_can_draw_and_waiting_changes_nothing() -> None:
    home = Minutes(start_counters(PAIR, registers(180_200, 0, 0), 0), power_max_w=100_000)
    assert home.poll(registers(5_000_000, 0, 0), 10_000) == "register_jumped"
    assert home.poll(registers(180_250, 0, 0)) == ""
    assert home.state.production_wh == 180_250
    limit_wh = 100_000 * 60 // 3_600 + JUMP_ALLOWANCE_WH
    assert home.poll(registers(180_250 + limit_wh + 1, 0, 0)) == "register_jumped"
    assert home.poll(registers(180_250 + limit_wh, 0, 0)) == ""


def test_a_rise_that_never_was_is_not_counted_twice_however_long_its_end_lasts() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=100_000)
    assert home.poll(registers(100_300, 500, 300)) == ""
    assert home.poll(registers(100_010, 500, 300), 500) == "register_fell"
    assert home.resets == ()
    assert home.poll(registers(100_310, 500, 300)) == ""
    assert home.state.production_wh == 100_310


def test_a_fall_to_where_no_register_begins_waits_for_a_person_and_is_never_energy() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=100_000)
    for other_meter_wh in range(41_000, 60_000, 20):
        assert home.poll(registers(other_meter_wh, 500, 300)) == "register_fell"
    home.state = accept_registers(home.state, registers(60_000, 500, 300), [GENERATION], home.now)
    assert home.poll(registers(60_012, 500, 300)) == ""
    assert home.state.production_wh == 100_012


def test_after_a_long_silence_a_reset_register_may_have_come_some_way() -> None:
    home = Minutes(start_counters(PAIR, registers(900_000, 500, 300), 0), power_max_w=10_000)
    home.now += 5 * 3_600
    assert home.poll(registers(40_000, 500, 300), LONG) == ""
    assert home.resets == (GENERATION,)


def test_a_wrap_is_said_to_be_one() -> None:
    state = start_counters(PAIR, registers(99_990, 500, 300), 0)
    wraps: tuple[str, ...] = ()
    for minute in range(1, LONG + 1):
        step = advance_counters(state, registers(15, 500, 300), {GENERATION: 100_000}, 60 * minute, POWER_MAX_W)
        state, wraps = step.state, wraps + step.wraps
    assert (wraps, state.production_wh) == ((GENERATION,), 100_015)


def test_energy_that_passes_after_a_clock_is_set_back_is_no_jump() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=30_000)
    home.poll(registers(100_100, 500, 300))
    home.now -= 3_600
    home.state = shift_time(home.state, -3_600)
    home.now += 1_740
    assert home.poll(registers(110_000, 500, 300)) == ""


def test_a_device_that_stood_still_while_energy_passed_believes_it_however_its_clock_was_set_right() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=30_000)
    home.now += 8 * 3_600
    home.state = shift_time(home.state, 8 * 3_600)  # a virtual machine that was paused: its other clock stood still too
    assert home.poll(registers(140_000, 500, 300)) == ""


def test_a_clock_that_is_set_changes_no_duration() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=100_000)
    home.poll(registers(0, 500, 300), LONG - 1)
    for by_s in (-86_400, 3_600):
        home.now += by_s
        home.state = shift_time(home.state, by_s)
    assert home.poll(registers(0, 500, 300)) == ""
    assert home.resets == (GENERATION,)
    home.now -= 3_600
    home.state = shift_time(home.state, -3_600)
    assert home.poll(registers(100_050, 500, 300)) == ""
    assert home.state.production_wh == 100_050


def test_a_replaced_meter_goes_on_from_its_own_registers_once_a_person_has_accepted_them() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0), power_max_w=100_000)
    assert home.poll(registers(7_000_000, 500, 300), 5) == "register_jumped"
    home.state = accept_registers(home.state, registers(7_000_000, 500, 300), [GENERATION], home.now)
    assert (home.state.production_wh, home.state.swapped) == (100_000, True)
    assert home.poll(registers(7_000_012, 500, 300)) == ""
    assert (home.state.production_wh, home.state.swapped) == (100_012, False)


def test_one_register_that_is_not_believed_keeps_the_others_waiting_and_loses_nothing_of_them() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 500, 300), 0))
    home.poll(registers(0, 600, 300), 3)
    home.poll(registers(100_050, 650, 300))
    assert (home.state.production_wh, home.state.consumption_wh) == (100_050, 100_400)
    assert all(state == replace(state, fall=None, rebase=None) for state in home.state.registers.values())


TRUE_POWER_W = 12_000
LOWER = st.integers(0, 100_000)
FAR_HIGHER = st.integers(10**7, 10**9)
"""Beyond what the home can have drawn in the whole story; what it could have drawn, nobody can tell from the truth."""


@given(
    st.integers(100_001, 200_000),
    st.lists(
        st.tuples(
            st.integers(1, 200), st.integers(0, TRUE_POWER_W // 60), st.just(0) | LOWER | FAR_HIGHER, st.integers(1, 30)
        )
    ),
)
def test_whatever_a_register_says_for_however_long_nothing_is_invented_and_nothing_lost(
    true_wh: int, spells: list[tuple[int, int, int, int]]
) -> None:
    home = Minutes(start_counters(MEASURES_NET_ONLY, {GRID_IMPORT: true_wh, GRID_EXPORT: 5}, 0), power_max_w=100_000)
    for garbage_minutes, rise_wh, garbage_wh, true_minutes in spells:
        for _ in range(garbage_minutes):
            true_wh += rise_wh
            home.poll({GRID_IMPORT: garbage_wh, GRID_EXPORT: 5})
            assert home.state.consumption_wh <= true_wh
        for _ in range(true_minutes):
            true_wh += rise_wh
            assert home.poll({GRID_IMPORT: true_wh, GRID_EXPORT: 5}) == ""
            assert home.state.consumption_wh == true_wh


@given(st.lists(st.integers(0, 10**9), max_size=60))
def test_a_register_that_says_something_else_each_time_invents_nothing(nonsense: list[int]) -> None:
    true_wh = 200_000
    home = Minutes(start_counters(MEASURES_NET_ONLY, {GRID_IMPORT: true_wh, GRID_EXPORT: 5}, 0), power_max_w=100_000)
    for garbage_wh in nonsense:
        home.poll({GRID_IMPORT: garbage_wh if garbage_wh >= 10**7 else garbage_wh % 100_000, GRID_EXPORT: 5})
        true_wh += 20
        assert home.poll({GRID_IMPORT: true_wh, GRID_EXPORT: 5}) == ""
        assert home.state.consumption_wh == true_wh


def test_a_register_that_froze_for_a_while_catches_up_or_waits_for_a_person() -> None:
    home = Minutes(start_counters(PAIR, registers(100_000, 0, 0), 0), power_max_w=100_000)
    home.poll(registers(100_000, 0, 0), 15)
    assert home.poll(registers(102_500, 0, 0)) == ""
    home.poll(registers(102_500, 0, 0), 15)
    assert home.poll(registers(202_500, 0, 0), 1_000) == "register_jumped"


@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 3, st.integers(1, LONG)), max_size=30))
def test_whatever_the_registers_do_counters_never_fall(polls: list[tuple[int, int, int, int]]) -> None:
    home = Minutes(start_counters(PAIR, registers(5_000, 5_000, 5_000), 0))
    for generation, imported, exported, times in polls:
        home.poll(registers(generation, imported, exported), times)
