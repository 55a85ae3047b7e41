"""Real households and real sunshine: energy per quarter of an hour for any date, from an extract of SimBench.

A date maps to the same weekday of one measured week of its season. Everything is in UTC.
"""

import csv
from datetime import date
from functools import cache
from pathlib import Path

QUARTERS_PER_DAY = 96
SOLAR_NAMEPLATE_W = 10_000
"""The photovoltaic columns are for a plant of this nameplate power."""

WINTER, TRANSITION, SUMMER = "winter", "transition", "summer"


def season_of(day: date) -> str:
    """Season of a date: winter November to 20 March, summer 15 May to 14 September, transition between."""
    month_day = (day.month, day.day)
    if month_day >= (11, 1) or month_day <= (3, 20):
        return WINTER
    if (5, 15) <= month_day <= (9, 14):
        return SUMMER
    return TRANSITION


def household_names() -> list[str]:
    """Names of the household profiles."""
    return list(_columns("household.csv"))


def solar_names() -> list[str]:
    """Names of the photovoltaic profiles."""
    return list(_columns("solar.csv"))


def household_wh(profile: str, season: str, weekday: int) -> list[int]:
    """Consumption in Wh of each of the 96 quarter hours of a day; `weekday` 0 is Monday.

    Raises KeyError for an unknown profile or season.
    """
    return _day("household.csv", profile, season, weekday)


def solar_wh(profile: str, season: str, weekday: int) -> list[int]:
    """Production in Wh of SOLAR_NAMEPLATE_W in each quarter hour of a day. Raises KeyError likewise."""
    return _day("solar.csv", profile, season, weekday)


def _day(name: str, profile: str, season: str, weekday: int) -> list[int]:
    first = weekday * QUARTERS_PER_DAY
    return _columns(name)[profile][season][first : first + QUARTERS_PER_DAY]


@cache
def _columns(name: str) -> dict[str, dict[str, list[int]]]:
    columns: dict[str, dict[str, list[int]]] = {}
    with (Path(__file__).parent / name).open(newline="") as file:
        for row in csv.DictReader(file):
            season = row.pop("season")
            del row["quarter"]
            for profile, energy_wh in row.items():
                columns.setdefault(profile, {}).setdefault(season, []).append(int(energy_wh))
    return columns
