import struct
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pulses import (
    FALLING,
    LINE_EVENT,
    RISING,
    LineEvent,
    PulseCounter,
    count_bytes,
    first_count,
    pulse_register_map,
    split_events,
)
from edge.register import quantum, scaled_value

MS = 1_000_000
LINE = 17


def counted(*edges: tuple[int, bool], lost: tuple[int, ...] = ()) -> PulseCounter:
    """Counts edges (milliseconds, closing); those whose numbers are in `lost` the kernel had to drop."""
    counter = PulseCounter(30)
    for number, (at_ms, rising) in enumerate(edges, 1):
        if number not in lost:
            counter.take(LineEvent(at_ms * MS, rising, number))
    return counter


def pulses(*starts_ms: int, width_ms: int = 40) -> list[tuple[int, bool]]:
    return [edge for start_ms in starts_ms for edge in ((start_ms, True), (start_ms + width_ms, False))]


def test_each_closing_of_thirty_milliseconds_is_a_pulse() -> None:
    assert counted(*pulses(0, 100, 200)).counted == 3
    assert counted(*pulses(0, 100, 200, width_ms=30)).counted == 3
    assert counted(*pulses(0, 100, 200, width_ms=29)).counted == 0


def test_a_pulse_counts_when_the_contact_opens_again() -> None:
    assert counted((0, True)).counted == 0


def test_pulses_between_which_the_contact_was_hardly_open_are_one() -> None:
    assert counted(*pulses(0, 60)).counted == 1
    assert counted(*pulses(0, 70)).counted == 2


def test_a_contact_that_bounces_counts_once() -> None:
    counter = counted(
        (0, True), (1, False), (2, True), (3, False), (4, True), (44, False), (45, True), (46, False),
        (200, True), (240, False),
    )  # fmt: skip
    assert (counter.counted, counter.bounces) == (2, 6)


def test_a_pulse_whose_beginning_nobody_saw_is_not_counted() -> None:
    assert counted((0, False), (100, True), (140, False)).counted == 1


@pytest.mark.parametrize("lost", [(3,), (4,), (3, 4), (2, 3), (4, 5)])
def test_events_that_the_kernel_dropped_are_known_and_never_become_energy(lost: tuple[int, ...]) -> None:
    counter = counted(*pulses(0, 100, 200, 300), lost=lost)
    assert counter.events_lost == len(lost)
    touched = {(number + 1) // 2 for number in lost}
    assert 4 - 2 * len(touched) <= counter.counted <= 4 - len(touched)


def test_an_event_told_twice_counts_once() -> None:
    counter = counted(*pulses(0, 100))
    counter.take(LineEvent(140 * MS, False, 4))
    assert (counter.counted, counter.events_lost) == (2, 0)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=40),
    st.sets(st.integers(1, 40), max_size=10),
)
def test_no_stream_of_edges_makes_more_pulses_than_closings_that_were_long_enough(
    steps: list[tuple[int, bool]], lost: set[int]
) -> None:
    edges, now_ms = [], 0
    for after_ms, rising in steps:
        now_ms += after_ms
        edges.append((now_ms, rising))
    long_enough = sum(before[1] and not after[1] and after[0] - before[0] >= 30 for before, after in pairwise(edges))
    counter = counted(*edges, lost=tuple(lost))
    assert counter.counted <= long_enough
    assert counter.events_lost <= len(lost)


def record(at_ns: int, what: int, line_seqno: int, line: int = LINE) -> bytes:
    return struct.pack("=QIIII6I", at_ns, what, line, line_seqno, line_seqno, 0, 0, 0, 0, 0, 0)


def test_a_record_is_the_kernels_forty_eight_bytes() -> None:
    assert LINE_EVENT.size == len(record(1, RISING, 1)) == 48
    data = record(5, RISING, 1) + record(6, RISING, 1, line=4) + record(7, FALLING, 2) + record(8, RISING, 3)[:20]
    events, rest = split_events(data, LINE)
    assert events == [LineEvent(5, True, 1), LineEvent(7, False, 2)]
    assert rest == record(8, RISING, 3)[:20]
    assert split_events(rest + record(8, RISING, 3)[20:], LINE) == ([LineEvent(8, True, 3)], b"")


@given(st.integers(0, 2**40), st.integers(1, 100_000))
def test_a_count_is_energy_exactly(count: int, impulses_per_kwh: int) -> None:
    register = pulse_register_map(impulses_per_kwh).registers["energy_total"]
    assert scaled_value(register, count_bytes(count)) == round(Fraction(1000 * count, impulses_per_kwh))
    assert quantum(register, count_bytes(count)) == Fraction(1000, impulses_per_kwh)


def test_counting_goes_on_from_what_the_meter_showed() -> None:
    assert first_count(1_234_567, 1_000) == 1_234_567
    assert first_count(1_234_567, 800) == 987_653
    assert first_count(0, 1_000) == 0
