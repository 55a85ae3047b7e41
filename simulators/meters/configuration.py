"""The TOML file of `commonwatt simulate meters`: which homes, and where. Unknown keys are refused.

ports_file = "ports.json"              # optional: {"home id": port} is written here once all listen

[[homes]]
id = "home-01"
port = 0                               # 0: the system chooses
measurement = "generation_and_grid"    # or "net_only": no generation meter at unit 2
household = "H0-A"                     # a column of profiles/household.csv
solar = "PV1"                          # a column of profiles/solar.csv; absent: no panels
solar_peak_w = 5000
seed = 1
installed = "2026-11-01"               # registers stand at their starting values until then
import_start_wh = 100000
export_start_wh = 50000
generation_start_wh = 200000
golden_day = "2026-11-19"              # optional; the home is then installed on that day
grid_model = "eastron_sdm630"          # a name of simulators.meters.models.MODELS; this one if absent
generation_model = "abb_b23"
framing = "tcp"                        # or "rtu_over_tcp", or "rtu": then device (and baud) instead of port
device = "/dev/pts/7"
baud = 9600

[[homes.faults]]                       # any number; see simulators/meters/faults.py
role = "grid"                          # or "generation"
kind = "spike"
start = "2026-11-19T12:00:00Z"
end = "2026-11-19T12:01:00Z"           # not for a permanent fault
size = 5000000                         # what it means depends on the kind; 0 if absent
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from protocol.enrolment import MEASUREMENT_NAMES, MEASURES_GENERATION_AND_GRID
from protocol.errors import ProtocolError
from protocol.topics import check_meter_id
from simulators import profiles
from simulators.meters.energy import Energy, HomeEnergy
from simulators.meters.faults import FOREVER_UNIX_S, Fault, Kind, Schedule
from simulators.meters.lines import BAUD_RATES
from simulators.meters.meter import NO_FAULTS
from simulators.meters.models import DEFAULT_MODEL, MODELS

GENERATION_AND_GRID = MEASUREMENT_NAMES[MEASURES_GENERATION_AND_GRID]
GRID, GENERATION = "grid", "generation"
TCP, RTU_OVER_TCP, RTU = "tcp", "rtu_over_tcp", "rtu"
DEFAULT_BAUD = 9_600
START_WH_MAX = 10**13
"""Enough to stand before the end of any register."""
FAULT_SIZE_MAX = 10**13
SOLAR_PEAK_W_MAX = 100_000
DEFAULT_START_WH = 100_000
PORT_MAX = 65_535


class ConfigurationError(ValueError):
    """The file does not describe homes; the message names the key and what it may hold."""


@dataclass(frozen=True)
class Home:
    """One home, served on one line. Unit 1 is its grid meter; unit 2 its generation meter, if it has one.

    port is of a TCP line, device and baud are of a serial one.
    """

    home_id: str
    port: int
    measurement: str
    seed: int
    energy: HomeEnergy
    grid_model: str = DEFAULT_MODEL
    generation_model: str = DEFAULT_MODEL
    framing: str = TCP
    device: str = ""
    baud: int = DEFAULT_BAUD
    grid_faults: Schedule = NO_FAULTS
    generation_faults: Schedule = NO_FAULTS

    @property
    def has_generation_meter(self) -> bool:
        """Whether unit 2 answers."""
        return self.measurement == GENERATION_AND_GRID


@dataclass(frozen=True)
class Configuration:
    """All homes of one process."""

    homes: list[Home]
    ports_file: Path | None = None


def load(path: Path) -> Configuration:
    """Read the file. Raises ConfigurationError or OSError; `ports_file` is relative to the file's folder."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return parse(table, path.parent)


def parse(table: dict[str, Any], folder: Path) -> Configuration:
    """The configuration that a parsed file describes. Raises ConfigurationError."""
    top = _Table("the file", table)
    ports_file = top.text("ports_file", "")
    homes = [_home(_Table(f"home {number}", home)) for number, home in enumerate(top.tables("homes"), 1)]
    top.refuse_rest()
    for what, values in (
        ("id", [home.home_id for home in homes]),
        ("port", [home.port for home in homes if home.port]),
        ("device", [home.device for home in homes if home.device]),
    ):
        if len(set(values)) != len(values):
            raise ConfigurationError(f"two homes have the same {what}")
    return Configuration(homes, folder / ports_file if ports_file else None)


def _home(table: "_Table") -> Home:
    home_id = table.text("id")
    try:
        check_meter_id(home_id)
    except ProtocolError as error:
        raise ConfigurationError(f"{table.where}: id: {error.detail}") from error
    measurement = table.choice("measurement", list(MEASUREMENT_NAMES.values()))
    golden_day = table.day("golden_day", None)
    installed = table.day("installed", golden_day)
    if installed is None:
        raise ConfigurationError(f"{table.where}: installed is missing")
    if golden_day is not None and (installed != golden_day or measurement != GENERATION_AND_GRID):
        raise ConfigurationError(f"{table.where}: a golden home is installed on its golden day and has both meters")
    seed = table.integer("seed", 0, 2**31 - 1)
    solar = table.choice("solar", profiles.solar_names()) if table.has("solar") else None
    energy = HomeEnergy(
        household=table.choice("household", profiles.household_names()),
        solar=solar,
        solar_peak_w=table.integer("solar_peak_w", 1, SOLAR_PEAK_W_MAX) if solar else 0,
        seed=seed,
        installed=installed,
        start=Energy(
            generation_wh=table.integer("generation_start_wh", 0, START_WH_MAX, DEFAULT_START_WH),
            import_wh=table.integer("import_start_wh", 0, START_WH_MAX, DEFAULT_START_WH),
            export_wh=table.integer("export_start_wh", 0, START_WH_MAX, DEFAULT_START_WH),
        ),
        golden_day=golden_day,
    )
    framing = table.choice("framing", [TCP, RTU_OVER_TCP, RTU], TCP)
    is_serial = framing == RTU
    faults = [
        _fault(_Table(f"{table.where}: fault {number}", fault))
        for number, fault in enumerate(table.tables("faults") if table.has("faults") else [], 1)
    ]
    home = Home(
        home_id,
        0 if is_serial else table.integer("port", 0, PORT_MAX, 0),
        measurement,
        seed,
        energy,
        grid_model=table.choice("grid_model", list(MODELS), DEFAULT_MODEL),
        generation_model=table.choice("generation_model", list(MODELS), DEFAULT_MODEL),
        framing=framing,
        device=table.text("device") if is_serial else "",
        baud=table.integer("baud", min(BAUD_RATES), max(BAUD_RATES), DEFAULT_BAUD) if is_serial else DEFAULT_BAUD,
        grid_faults=_schedule(table.where, GRID, faults, seed),
        generation_faults=_schedule(table.where, GENERATION, faults, seed),
    )
    if home.baud not in BAUD_RATES:
        raise ConfigurationError(f"{table.where}: baud must be one of {', '.join(map(str, BAUD_RATES))}")
    table.refuse_rest()
    return home


def _fault(table: "_Table") -> tuple[str, Fault]:
    """The role of the meter, and what is wrong with it."""
    role = table.choice("role", [GRID, GENERATION])
    kind = Kind(table.choice("kind", list(Kind)))
    start_unix_s = table.instant("start")
    end_unix_s = table.instant("end") if table.has("end") else FOREVER_UNIX_S
    fault = Fault(kind, start_unix_s, end_unix_s, table.integer("size", -FAULT_SIZE_MAX, FAULT_SIZE_MAX, 0))
    table.refuse_rest()
    return role, fault


def _schedule(where: str, role: str, faults: list[tuple[str, Fault]], seed: int) -> Schedule:
    try:
        return Schedule([fault for of, fault in faults if of == role], seed)
    except ValueError as error:
        raise ConfigurationError(f"{where}: faults of the {role} meter: {error}") from error


class _Table:
    """Takes keys out of a TOML table one by one, so that what is left over is unknown."""

    def __init__(self, where: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ConfigurationError(f"{where} is not a table")
        self.where = where
        self._rest = dict(table)

    def has(self, key: str) -> bool:
        return key in self._rest

    def text(self, key: str, default: str | None = None) -> str:
        value = self._rest.pop(key, default)
        if not isinstance(value, str):
            raise ConfigurationError(f"{self.where}: {key} must be a text")
        return value

    def choice(self, key: str, names: Sequence[str], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in names:
            raise ConfigurationError(f"{self.where}: {key} must be one of {', '.join(names)}")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._rest.pop(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigurationError(f"{self.where}: {key} must be a whole number from {low} to {high}")
        return value

    def day(self, key: str, default: date | None) -> date | None:
        if key not in self._rest:
            return default
        value = self.text(key)
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise ConfigurationError(f"{self.where}: {key} must be a date like 2026-11-19") from error

    def instant(self, key: str) -> int:
        value = self.text(key)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise ConfigurationError(f"{self.where}: {key} must be a time like 2026-11-19T12:00:00Z") from error
        if moment.tzinfo is None:
            raise ConfigurationError(f"{self.where}: {key} must say its offset from UTC, or Z")
        return int(moment.timestamp())

    def tables(self, key: str) -> list[object]:
        value = self._rest.pop(key, None)
        if not isinstance(value, list) or not value:
            raise ConfigurationError(f"{self.where}: [[{key}]] is missing")
        return value

    def refuse_rest(self) -> None:
        if self._rest:
            raise ConfigurationError(f"{self.where}: unknown key {', '.join(sorted(self._rest))}")
