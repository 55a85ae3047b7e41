from collections.abc import Mapping
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from edge.confirming import FAILURES_MAX, READS_MAX, Round, Taken, agreed_registers
from edge.counters import GRID_EXPORT, GRID_IMPORT, CounterState, start_counters
from edge.errors import ModbusError
from edge.frozen import PowerWitness
from edge.poll import Poll
from protocol.enrolment import MEASURES_NET_ONLY

START = 1_800_000_000
POWER_MAX_W = 100_000
IMPORT_WH, EXPORT_WH = 500_000, 20_000
NO_ANSWER = ModbusError("modbus_no_answer")


def poll(imported: int, exported: int = EXPORT_WH, powers_w: Mapping[str, int] | None = None) -> Poll:
    quanta = {GRID_IMPORT: Fraction(1), GRID_EXPORT: Fraction(1)}
    return Poll({GRID_IMPORT: imported, GRID_EXPORT: exported}, powers_w=powers_w or {}, quanta_wh=quanta)


def home() -> CounterState:
    return start_counters(MEASURES_NET_ONLY, {GRID_IMPORT: IMPORT_WH, GRID_EXPORT: EXPORT_WH}, START)


def witness() -> PowerWitness:
    return PowerWitness({"grid": (GRID_IMPORT, GRID_EXPORT)})


def a_round(after_s: int = 60) -> tuple[Round, int]:
    return Round(home(), {}, POWER_MAX_W, witness()), START + after_s


def test_a_reading_is_what_two_reads_agree_on() -> None:
    reading, now = a_round()
    assert reading.heard(poll(IMPORT_WH + 15), now) == []
    assert not reading.over
    assert reading.heard(poll(IMPORT_WH + 15), now) == []
    assert reading.taken is not None
    assert reading.taken.step.state.consumption_wh == IMPORT_WH + 15


def test_a_flipped_bit_counts_nothing_however_low_it_is_and_is_noticed() -> None:
    for bit in range(24):
        for flipped_first in (True, False):
            reading, now = a_round()
            reads = [poll((IMPORT_WH + 15) ^ 1 << bit), poll(IMPORT_WH + 15)]
            wrong = [
                error.code for read in (reads if flipped_first else reads[::-1]) for error in reading.heard(read, now)
            ]
            assert reading.taken is None
            assert wrong in ([], ["register_disagreed"])
            reading.heard(poll(IMPORT_WH + 15), now)
            assert reading.taken is not None
            assert reading.taken.step.state.consumption_wh == IMPORT_WH + 15


def test_registers_need_not_agree_in_the_same_two_reads() -> None:
    reading, now = a_round()
    for imported, exported in ((1, 5), (1, 6), (2, 6)):
        reading.heard(poll(IMPORT_WH + imported, EXPORT_WH + exported), now)
    assert reading.taken is not None
    assert reading.taken.poll.registers_wh == {GRID_IMPORT: IMPORT_WH + 1, GRID_EXPORT: EXPORT_WH + 6}


def test_a_register_that_moves_at_each_read_is_the_median_of_five() -> None:
    reading, now = a_round()
    for second in range(5):
        assert not reading.over
        reading.heard(poll(IMPORT_WH + 100 + 25 * second), now + second)
    assert reading.taken is not None
    assert reading.taken.poll.registers_wh[GRID_IMPORT] == IMPORT_WH + 150
    assert reading.taken.time_unix_s == now


@given(st.lists(st.integers(0, 20), min_size=5, max_size=5), st.integers(0, 4), st.integers(0, 2**31))
def test_one_wrong_read_among_moving_ones_never_counts_beyond_the_true_ones(
    steps: list[int], at: int, wrong: int
) -> None:
    reading, now = a_round()
    true_wh = [IMPORT_WH + sum(steps[: i + 1]) for i in range(5)]
    for i, wh in enumerate(true_wh):
        if not reading.over:
            reading.heard(poll(wrong if i == at else wh), now)
    if reading.taken is not None and wrong not in true_wh:
        assert true_wh[0] <= reading.taken.poll.registers_wh[GRID_IMPORT] <= true_wh[-1]


def test_reads_that_never_agree_are_no_reading() -> None:
    reading, now = a_round()
    reads = 0
    while not reading.over:
        reading.heard(poll(IMPORT_WH + (7_919 * reads) % 1_000), now)
        reads += 1
    assert reading.taken is None
    assert reading.problem == "register_unsteady"
    assert reads <= READS_MAX


def test_a_read_that_fails_does_not_spoil_the_one_before_it() -> None:
    reading, now = a_round()
    reading.heard(poll(IMPORT_WH + 15), now)
    reading.failed(NO_ANSWER)
    assert reading.pause
    reading.heard(poll(IMPORT_WH + 15), now)
    assert reading.taken is not None


def test_a_meter_that_does_not_answer_is_given_up_after_three_tries() -> None:
    reading, _ = a_round()
    for _ in range(FAILURES_MAX):
        assert not reading.over
        reading.failed(NO_ANSWER)
    assert reading.over
    assert reading.problem == "meter_unreadable"


def test_energy_that_makes_sense_only_with_its_words_exchanged_is_named_and_leaves_no_suspicion() -> None:
    reading, now = a_round()
    exchanged = {GRID_IMPORT: IMPORT_WH + 15, GRID_EXPORT: EXPORT_WH}
    wrong = []
    while not reading.over:
        wrong += reading.heard(poll(2_701_131_776, 538_968_064), now, lambda: exchanged)
    assert {error.code for error in wrong} == {"register_word_order"}
    assert reading.suspicion is None
    assert reading.problem == "register_word_order"


def test_a_rise_that_its_power_does_not_explain_waits_for_the_next_reading_and_is_gone_by_then() -> None:
    state, power = home(), witness()
    codes = []
    for minute, imported in enumerate((15, 30, 330, 60), 1):
        reading = Round(state, {}, POWER_MAX_W, power)
        for _ in range(2):
            codes += [
                error.code
                for error in reading.heard(poll(IMPORT_WH + imported, powers_w={"grid": 900}), START + 60 * minute)
            ]
        if reading.taken is not None:
            state = reading.taken.step.state
            assert state.consumption_wh == IMPORT_WH + 15 * minute
    assert codes == ["register_unexplained"]
    assert state.consumption_wh == IMPORT_WH + 60


class Rounds:
    """A net-only home read each quarter of an hour; the readings that came of it, with their import."""

    def __init__(self) -> None:
        self.state, self.witness, self.now = home(), witness(), START
        self.held: Taken | None = None
        self.readings: list[tuple[int, int]] = []

    def hear(self, imported: int, exported: int = 0, power_w: int = 300) -> str:
        self.now += 900
        reading = Round(self.state, {}, POWER_MAX_W, self.witness, self.held)
        for _ in range(2):
            reading.heard(poll(IMPORT_WH + imported, EXPORT_WH + exported, {"grid": power_w}), self.now)
        self.held = reading.held
        for taken in (reading.confirmed, reading.taken):
            if taken is not None:
                self.state = taken.step.state
                self.readings.append(((taken.time_unix_s - START) // 900, self.state.consumption_wh - IMPORT_WH))
        if reading.taken is None and reading.suspicion is not None:
            self.state = reading.suspicion
        return "" if reading.taken is not None else reading.problem


def test_a_shower_between_two_quarters_costs_no_reading() -> None:
    rounds = Rounds()
    assert [rounds.hear(wh) for wh in (75, 150, 2_200, 2_275)] == ["", "", "register_unexplained", ""]
    assert rounds.readings == [(1, 75), (2, 150), (3, 2_200), (4, 2_275)]


def test_shower_after_shower_each_reading_comes_with_the_next() -> None:
    rounds = Rounds()
    for wh in (75, 2_200, 4_400, 6_600, 6_675):
        rounds.hear(wh)
    assert rounds.readings == [(1, 75), (2, 2_200), (3, 4_400), (4, 6_600), (5, 6_675)]


def test_a_rise_that_is_gone_at_the_next_reading_never_was() -> None:
    rounds = Rounds()
    for wh in (75, 150, 2_200, 300, 375):
        rounds.hear(wh)
    assert rounds.readings == [(1, 75), (2, 150), (4, 300), (5, 375)]


def test_what_is_held_while_an_import_is_frozen_is_not_believed_by_being_seen_again() -> None:
    rounds = Rounds()
    rounds.hear(75)
    while not rounds.hear(75, power_w=2_000):
        pass
    assert rounds.state.frozen_wh == {GRID_IMPORT: IMPORT_WH + 75}
    believed = len(rounds.readings)
    assert rounds.hear(75, 9_000, power_w=-300) == "register_unexplained"
    assert rounds.hear(75, 9_075, power_w=-300) == "register_frozen"
    assert len(rounds.readings) == believed
    assert rounds.hear(2_000, 9_150, power_w=-300) in ("", "register_unexplained")
    assert rounds.hear(2_000, 9_225, power_w=-300) == ""
    assert rounds.state.frozen_wh == {}


def test_a_rise_that_is_still_there_at_the_next_reading_is_believed_whatever_the_power_says() -> None:
    rounds = Rounds()
    for wh in (0, 1_800, 3_600, 5_400, 7_200):
        rounds.hear(wh, power_w=0)
    assert rounds.readings == [(1, 0), (2, 1_800), (3, 3_600), (4, 5_400)]  # each comes with the next


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=9))
def test_what_is_agreed_on_was_read_twice(rows: list[list[int]]) -> None:
    reads = [dict(zip("abc", row, strict=True)) for row in rows]
    agreed = agreed_registers(reads)
    if agreed is None:
        assert any(len({read[name] for read in reads}) == len(reads) for name in "abc")
    else:
        assert all([read[name] for read in reads].count(value) >= 2 for name, value in agreed.items())
