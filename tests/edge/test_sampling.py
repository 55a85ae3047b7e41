from hypothesis import given
from hypothesis import strategies as st

from edge.poll import Poll
from edge.sampling import make_reading, next_reading_time, reading_time, time_usable
from protocol.limits import TIME_MIN_UNIX_S
from protocol.readings import FLAG_AFTER_GAP, FLAG_CLOCK_UNSYNCHRONISED, FLAG_METER_SWAP, FLAG_REGISTER_RESET

BOUNDARY = 1_800_000_000
times = st.integers(TIME_MIN_UNIX_S, 2 * 10**9)


@given(times, st.integers(1, 900))
def test_there_is_a_reading_on_every_settlement_boundary_whatever_the_interval(after: int, interval: int) -> None:
    scheduled = [next_reading_time(after, interval)]
    while scheduled[-1] % 900:
        scheduled.append(next_reading_time(scheduled[-1], interval))
    assert after < scheduled[0] <= after + interval
    assert scheduled[-1] - after <= 900
    assert scheduled == sorted(set(scheduled))


def test_a_minute_is_the_minute_of_the_clock() -> None:
    assert next_reading_time(BOUNDARY, 60) == BOUNDARY + 60
    assert next_reading_time(BOUNDARY + 61, 60) == BOUNDARY + 120
    assert next_reading_time(BOUNDARY + 899, 7) == BOUNDARY + 900


def test_a_punctual_poll_carries_its_scheduled_instant_and_a_late_one_its_true_second() -> None:
    assert reading_time(BOUNDARY, BOUNDARY + 2) == BOUNDARY
    assert reading_time(BOUNDARY, BOUNDARY + 3) == BOUNDARY + 3
    assert reading_time(BOUNDARY, BOUNDARY - 40) == BOUNDARY - 40


def test_a_clock_that_was_never_set_or_set_back_gives_no_reading() -> None:
    assert not time_usable(0, 0)
    assert not time_usable(BOUNDARY, BOUNDARY)
    assert time_usable(BOUNDARY + 1, BOUNDARY)


def test_flags_say_what_is_special_about_a_reading() -> None:
    def flags(last: int, *, synchronised: bool = True, reset: bool = False, swapped: bool = False) -> int:
        return make_reading(
            Poll({}), BOUNDARY, 5, 6, last_reading_unix_s=last, interval_s=60,
            clock_synchronised=synchronised, register_reset=reset, meter_swapped=swapped,
        ).flags  # fmt: skip

    assert flags(BOUNDARY - 60) == 0
    assert flags(BOUNDARY - 181) == FLAG_AFTER_GAP
    assert flags(BOUNDARY - 60, synchronised=False) == FLAG_CLOCK_UNSYNCHRONISED
    assert flags(BOUNDARY - 60, reset=True) == FLAG_REGISTER_RESET
    assert flags(BOUNDARY - 60, swapped=True) == FLAG_METER_SWAP
