"""The extract of real profiles, and which of its days a date gets."""

from datetime import date, timedelta

import pytest

from simulators import profiles


@pytest.mark.parametrize(
    ("day", "season"),
    [
        (date(2026, 1, 1), "winter"),
        (date(2026, 3, 20), "winter"),
        (date(2026, 3, 21), "transition"),
        (date(2026, 5, 14), "transition"),
        (date(2026, 5, 15), "summer"),
        (date(2026, 9, 14), "summer"),
        (date(2026, 9, 15), "transition"),
        (date(2026, 10, 31), "transition"),
        (date(2026, 11, 1), "winter"),
        (date(2028, 2, 29), "winter"),
    ],
)
def test_every_date_has_a_season(day: date, season: str) -> None:
    assert profiles.season_of(day) == season


def test_every_profile_has_96_quarter_hours_for_every_day_of_every_season() -> None:
    for season in (profiles.WINTER, profiles.TRANSITION, profiles.SUMMER):
        for weekday in range(7):
            for name in profiles.household_names():
                day = profiles.household_wh(name, season, weekday)
                assert len(day) == 96
                assert min(day) >= 0
                assert 500 < sum(day) < 60_000, (name, season, weekday)
            for name in profiles.solar_names():
                day = profiles.solar_wh(name, season, weekday)
                assert len(day) == 96
                assert min(day) >= 0
                assert max(day) <= profiles.SOLAR_NAMEPLATE_W / 4


def test_the_sun_does_not_shine_at_night_and_shines_more_in_summer() -> None:
    for name in profiles.solar_names():
        weeks = {
            season: [profiles.solar_wh(name, season, weekday) for weekday in range(7)]
            for season in (profiles.WINTER, profiles.SUMMER)
        }
        assert all(sum(day[:12]) == sum(day[-8:]) == 0 for week in weeks.values() for day in week)
        assert sum(map(sum, weeks[profiles.SUMMER])) > 2 * sum(map(sum, weeks[profiles.WINTER]))


def test_a_year_of_a_household_is_what_a_household_uses() -> None:
    for name in profiles.household_names():
        days = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
        year_wh = sum(sum(profiles.household_wh(name, profiles.season_of(day), day.weekday())) for day in days)
        assert 1_000_000 < year_wh < 8_000_000
