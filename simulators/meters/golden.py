"""The golden day: a day whose energy everybody can add up in their head. All times are UTC.

    06:00 to 08:00   produces  5,000 Wh, consumes 2,000 Wh     surplus 3,000 Wh
    08:00 to 10:00   produces 10,000 Wh, consumes 2,000 Wh     surplus 8,000 Wh
    12:30 to 17:30   produces  5,000 Wh, consumes 5,000 Wh     surplus     0 Wh

In the afternoon every quarter of an hour first produces and then consumes the same 250 Wh: energy crosses
the grid meter both ways, and whoever nets by the reading instead of by the interval finds a surplus that
never was.
"""

QUARTER_MINUTES = 15
QUARTERS_PER_DAY = 96
AFTERNOON_FIRST, AFTERNOON_LAST = 50, 70
"""Quarter hours of the day: 12:30 to 17:30."""
AFTERNOON_STEP_MINUTES = 10
"""Production runs for the first, consumption for the last ten minutes of an afternoon quarter hour."""


def production_wh_by_minute() -> list[int]:
    """Watt-hours produced in each of the 1,440 minutes."""
    return _day(morning_wh=625, forenoon_wh=1_250, afternoon_wh=250, afternoon_from_minute=0)


def consumption_wh_by_minute() -> list[int]:
    """Watt-hours consumed in each of the 1,440 minutes."""
    return _day(
        morning_wh=250,
        forenoon_wh=250,
        afternoon_wh=250,
        afternoon_from_minute=QUARTER_MINUTES - AFTERNOON_STEP_MINUTES,
    )


def _day(morning_wh: int, forenoon_wh: int, afternoon_wh: int, afternoon_from_minute: int) -> list[int]:
    minutes: list[int] = []
    for quarter in range(QUARTERS_PER_DAY):
        if 24 <= quarter < 32:
            minutes += _evenly(morning_wh, 0, QUARTER_MINUTES)
        elif 32 <= quarter < 40:
            minutes += _evenly(forenoon_wh, 0, QUARTER_MINUTES)
        elif AFTERNOON_FIRST <= quarter < AFTERNOON_LAST:
            minutes += _evenly(afternoon_wh, afternoon_from_minute, AFTERNOON_STEP_MINUTES)
        else:
            minutes += [0] * QUARTER_MINUTES
    return minutes


def _evenly(energy_wh: int, first_minute: int, minutes: int) -> list[int]:
    """One quarter hour with its energy spread over some of its minutes."""

    def reached_wh(minute: int) -> int:
        return energy_wh * max(0, min(minute - first_minute, minutes)) // minutes

    return [reached_wh(minute + 1) - reached_wh(minute) for minute in range(QUARTER_MINUTES)]
