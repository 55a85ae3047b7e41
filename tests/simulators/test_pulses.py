"""The edges of an S0 output, as the kernel would report them."""

import struct
from itertools import pairwise

import pytest

from simulators.meters.pulses import FALLING_EDGE, RISING_EDGE, PulseOutput, line_events

START = 1_795_176_000
HOUR = 3_600
EVENT_BYTES = 48

Event = tuple[int, int, int, int, int]


def energy_wh(moment: int) -> int:
    """Three kilowatts, from 1 MWh."""
    return 1_000_000 + (moment - START) * 3_000 // HOUR


def events(output: PulseOutput, end: int = START + HOUR, monotonic_ns: int = 0) -> list[Event]:
    found = list(line_events(output, energy_wh, START, end, monotonic_ns))
    assert all(len(event) == EVENT_BYTES for event in found)
    return [struct.unpack("=QIIII", event[:24]) for event in found]


@pytest.mark.parametrize("impulses_per_kwh", [100, 800, 1_000, 2_000, 10_000])
def test_an_hour_of_three_kilowatts_makes_three_times_the_impulses_of_a_kilowatt_hour(impulses_per_kwh: int) -> None:
    found = events(PulseOutput(impulses_per_kwh))
    assert sum(edge == RISING_EDGE for _, edge, *_ in found) == 3 * impulses_per_kwh
    assert sum(edge == FALLING_EDGE for _, edge, *_ in found) == 3 * impulses_per_kwh


def test_the_events_of_two_spans_are_those_of_the_whole() -> None:
    output = PulseOutput(1_000)
    middle = START + 1_234
    apart = list(line_events(output, energy_wh, START, middle)) + list(
        line_events(output, energy_wh, middle, START + HOUR)
    )
    assert len(apart) == len(events(output))


def test_time_rises_numbers_are_without_gap_and_the_line_is_named() -> None:
    found = events(PulseOutput(1_000, line=17, bounces=3), monotonic_ns=5_000_000_000)
    times = [event[0] for event in found]
    assert times == sorted(times)
    assert times[0] >= 5_000_000_000
    assert [event[3] for event in found] == list(range(1, len(found) + 1))
    assert all(event[2] == 17 and event[3] == event[4] for event in found)


def test_a_quiet_contact_stays_closed_as_long_as_the_standard_wants() -> None:
    found = events(PulseOutput(1_000))
    for closed, opened in zip(found[::2], found[1::2], strict=True):
        assert (closed[1], opened[1]) == (RISING_EDGE, FALLING_EDGE)
        assert opened[0] - closed[0] == 40_000_000


def test_bounces_alternate_and_are_over_before_the_next_movement() -> None:
    found = events(PulseOutput(1_000, bounces=3, seed=4))
    assert len(found) > 6_000
    assert all(before[1] != after[1] for before, after in pairwise(found))
    pauses_ns = [after[0] - before[0] for before, after in pairwise(found)]
    assert sum(pause > 30_000_000 for pause in pauses_ns) == 2 * 3_000 - 1


def test_a_lost_event_leaves_a_gap_in_the_numbers() -> None:
    whole, found = events(PulseOutput(1_000)), events(PulseOutput(1_000, lost_share=0.1, seed=2))
    assert 0.05 < 1 - len(found) / len(whole) < 0.15
    assert set(found) < set(whole)
    assert events(PulseOutput(1_000, lost_share=1.0)) == []


def test_the_same_seed_makes_the_same_events() -> None:
    noisy = PulseOutput(1_000, bounces=2, lost_share=0.01, seed=9)
    assert events(noisy) == events(noisy)
    assert events(noisy) != events(PulseOutput(1_000, bounces=2, lost_share=0.01, seed=10))
