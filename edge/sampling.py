"""When to read, which instant a reading belongs to, and what a poll becomes. Pure: the time is an argument.

A reading falls on every settlement boundary, whatever the interval, so that an interval's energy is exact.
"""

from edge.poll import Poll
from protocol.limits import SETTLEMENT_INTERVAL_S, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from protocol.readings import (
    FLAG_AFTER_GAP,
    FLAG_CLOCK_UNSYNCHRONISED,
    FLAG_METER_SWAP,
    FLAG_REGISTER_RESET,
    Reading,
)
from protocol.settlement import time_floor

LATENESS_MAX_S = 2
"""A poll begun within this of its scheduled instant carries that instant; a later one its true second."""
GAP_INTERVALS = 3
"""So many intervals without a reading are a gap worth a flag."""


def next_reading_time(after_unix_s: int, interval_s: int) -> int:
    """The first scheduled instant later than `after_unix_s`.

    Instants are multiples of the interval counted from each settlement boundary, and the boundaries
    themselves.
    """
    boundary = time_floor(after_unix_s)
    steps = (after_unix_s - boundary) // interval_s + 1
    return min(boundary + steps * interval_s, boundary + SETTLEMENT_INTERVAL_S)


def reading_time(scheduled_unix_s: int, begun_unix_s: int) -> int:
    """The instant that a poll begun at `begun_unix_s` stands for."""
    return scheduled_unix_s if 0 <= begun_unix_s - scheduled_unix_s <= LATENESS_MAX_S else begun_unix_s


def time_usable(time_unix_s: int, last_reading_unix_s: int) -> bool:
    """Whether a reading may carry this time: a clock never set, or set back, gives times that no seal can hold."""
    return TIME_MIN_UNIX_S <= time_unix_s <= TIME_MAX_UNIX_S and time_unix_s > last_reading_unix_s


def make_reading(
    poll: Poll,
    time_unix_s: int,
    production_wh: int,
    consumption_wh: int,
    *,
    last_reading_unix_s: int,
    interval_s: int,
    clock_synchronised: bool,
    register_reset: bool,
    meter_swapped: bool,
) -> Reading:
    """One reading with its flags. A clock that was set since the last reading cannot vouch for the time between."""
    flags = 0
    if not clock_synchronised:
        flags |= FLAG_CLOCK_UNSYNCHRONISED
    if register_reset:
        flags |= FLAG_REGISTER_RESET
    if meter_swapped:
        flags |= FLAG_METER_SWAP
    if time_unix_s - last_reading_unix_s > GAP_INTERVALS * interval_s:
        flags |= FLAG_AFTER_GAP
    return Reading(time_unix_s, production_wh, consumption_wh, poll.power_w, poll.voltage_dv, poll.frequency_mhz, flags)
