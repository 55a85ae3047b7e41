"""How much energy has passed through a home at any instant: a pure function of profile, seed and time.

A home's day is 1,440 minutes of whole watt-hours. Each minute splits into what is used where it is produced,
what is exported and what is imported, as a meter that integrates the instantaneous net would count it; within
the minute the three rise evenly. So at every second, in whole watt-hours,

    generation + import − export = consumption

exactly, and no counter ever falls.
"""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, pairwise

from simulators import profiles
from simulators.meters import golden

MINUTES_PER_DAY = 1_440
SECONDS_PER_DAY = 86_400
QUARTER_MINUTES = 15
SCALE_PERCENT = (80, 120)
"""Two homes with one profile differ by their seed: this much more or less consumption."""
APPLIANCE_WEIGHT = 4
"""Within a quarter hour an appliance draws so many times the base load, for a few minutes."""


@dataclass(frozen=True)
class Energy:
    """Cumulative watt-hours at an instant; power in watts at the grid (import is positive) and generated."""

    generation_wh: int
    import_wh: int
    export_wh: int
    grid_power_w: int = 0
    generation_power_w: int = 0

    @property
    def consumption_wh(self) -> int:
        """What the home has used."""
        return self.generation_wh + self.import_wh - self.export_wh


@dataclass(frozen=True)
class Day:
    """Cumulative energy within one day at each of its 1,441 minute boundaries, in watt-hours."""

    used_at_home_wh: list[int]
    export_wh: list[int]
    import_wh: list[int]

    @classmethod
    def of_minutes(cls, production_wh: list[int], consumption_wh: list[int]) -> "Day":
        """The day in which each minute produces and consumes these watt-hours."""
        pairs = list(zip(production_wh, consumption_wh, strict=True))
        return cls(
            _cumulative([min(produced, consumed) for produced, consumed in pairs]),
            _cumulative([max(0, produced - consumed) for produced, consumed in pairs]),
            _cumulative([max(0, consumed - produced) for produced, consumed in pairs]),
        )

    def at(self, second: int) -> tuple[int, int, int]:
        """Used at home, export and import in Wh since midnight; `second` 0 to 86,400."""
        used, exported, imported = (
            _between(column, second) for column in (self.used_at_home_wh, self.export_wh, self.import_wh)
        )
        return used, exported, imported

    def minute(self, second: int) -> tuple[int, int, int]:
        """Used at home, export and import in Wh during the minute of a second."""
        at = second // 60
        used, exported, imported = (
            column[at + 1] - column[at] for column in (self.used_at_home_wh, self.export_wh, self.import_wh)
        )
        return used, exported, imported


class HomeEnergy:
    """The energy of one home. Before `installed` every register stands at its starting value.

    household: a name of profiles.household_names(). solar: one of profiles.solar_names(), or None for a home
    without panels. solar_peak_w: nameplate power. golden_day: the date on which the golden day is lived
    instead.
    """

    def __init__(
        self,
        *,
        household: str,
        solar: str | None,
        solar_peak_w: int,
        seed: int,
        installed: date,
        start: Energy,
        golden_day: date | None = None,
    ) -> None:
        self.household = household
        self.solar = solar
        self.solar_peak_w = solar_peak_w
        self.seed = seed
        self.installed = installed
        self.start = start
        self.golden_day = golden_day
        self._scale_percent = random.Random(f"scale/{seed}").randint(*SCALE_PERCENT)
        self._days: dict[tuple[str, int], Day] = {}
        self._midnights: list[tuple[int, int, int]] = [(0, 0, 0)]

    def at(self, time_unix_s: int) -> Energy:
        """What the registers of this home have counted at an instant."""
        since_s = time_unix_s - _midnight_unix_s(self.installed)
        if since_s < 0:
            return self.start
        number, second = divmod(since_s, SECONDS_PER_DAY)
        day = self.day(self.installed + timedelta(days=number))
        used, exported, imported = (
            before + within for before, within in zip(self._midnight(number), day.at(second), strict=True)
        )
        used_now, exported_now, imported_now = day.minute(second)
        return Energy(
            self.start.generation_wh + used + exported,
            self.start.import_wh + imported,
            self.start.export_wh + exported,
            (imported_now - exported_now) * 60,
            (used_now + exported_now) * 60,
        )

    def day(self, day: date) -> Day:
        """The energy of one date."""
        if day == self.golden_day:
            return GOLDEN
        kind = (profiles.season_of(day), day.weekday())
        if kind not in self._days:
            self._days[kind] = self._day_of_kind(*kind)
        return self._days[kind]

    def _day_of_kind(self, season: str, weekday: int) -> Day:
        rng = random.Random(f"day/{self.seed}/{season}/{weekday}")
        consumption = [
            energy_wh * self._scale_percent // 100
            for energy_wh in profiles.household_wh(self.household, season, weekday)
        ]
        production = [0] * profiles.QUARTERS_PER_DAY
        if self.solar is not None:
            production = [
                energy_wh * self.solar_peak_w // profiles.SOLAR_NAMEPLATE_W
                for energy_wh in profiles.solar_wh(self.solar, season, weekday)
            ]
        return Day.of_minutes(
            _minutes(production, [[1] * QUARTER_MINUTES] * len(production)),
            _minutes(consumption, [_appliance(rng) for _ in consumption]),
        )

    def _midnight(self, number: int) -> tuple[int, int, int]:
        """Energy from the installation to the start of its n-th day; remembers every day before."""
        while len(self._midnights) <= number:
            yesterday = self.day(self.installed + timedelta(days=len(self._midnights) - 1))
            used, exported, imported = self._midnights[-1]
            self._midnights.append(
                (
                    used + yesterday.used_at_home_wh[-1],
                    exported + yesterday.export_wh[-1],
                    imported + yesterday.import_wh[-1],
                )
            )
        return self._midnights[number]


def _appliance(rng: random.Random) -> list[int]:
    """How the load of a quarter hour spreads over its minutes."""
    first, minutes = rng.randrange(QUARTER_MINUTES), rng.randint(2, 6)
    return [APPLIANCE_WEIGHT if first <= minute < first + minutes else 1 for minute in range(QUARTER_MINUTES)]


def _minutes(quarters_wh: list[int], weights: list[list[int]]) -> list[int]:
    """Spread each quarter hour over its minutes by weight, to the watt-hour."""
    minutes: list[int] = []
    for energy_wh, shares in zip(quarters_wh, weights, strict=True):
        reached = [energy_wh * share // sum(shares) for share in accumulate(shares, initial=0)]
        minutes.extend(after - before for before, after in pairwise(reached))
    return minutes


def _cumulative(steps: list[int]) -> list[int]:
    return list(accumulate(steps, initial=0))


def _between(column: list[int], second: int) -> int:
    minute, rest_s = divmod(second, 60)
    if rest_s == 0:
        return column[minute]
    return column[minute] + (column[minute + 1] - column[minute]) * rest_s // 60


def _midnight_unix_s(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


GOLDEN = Day.of_minutes(golden.production_wh_by_minute(), golden.consumption_wh_by_minute())
