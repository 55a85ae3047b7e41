"""Makes household.csv and solar.csv from the SimBench database. Run by hand, never at run time.

    python -m venv /tmp/simbench && /tmp/simbench/bin/pip install -r simulators/profiles/requirements.txt
    /tmp/simbench/bin/python simulators/profiles/extract.py

One Monday-to-Sunday week per season, in watt-hours per quarter of an hour: households of the size given
below, photovoltaics per 10 kW of nameplate power.
"""

from pathlib import Path

import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
import simbench  # type: ignore[import-untyped,import-not-found,unused-ignore]

SCENARIO = "1-complete_data-mixed-all-0-sw"
WEEKS = {"winter": "2016-01-25", "transition": "2016-04-04", "summer": "2016-08-08"}
ANNUAL_CONSUMPTION_KWH = {
    "H0-A": 3_600,
    "H0-B": 2_900,
    "H0-C": 3_100,
    "H0-G": 2_400,
    "H0-H": 5_200,
    "H0-L": 1_900,
}
SOLAR = ["PV1", "PV3", "PV5"]
SOLAR_NAMEPLATE_W = 10_000
QUARTERS_PER_WEEK = 7 * 96
HOURS_PER_YEAR = 366 * 24


def read(table: str) -> pandas.DataFrame:
    """One table of the database, by time. Values are fractions of a nominal power."""
    path = Path(simbench.__file__).parent / "networks" / SCENARIO / f"{table}.csv"
    frame = pandas.read_csv(path, sep=";")
    frame.index = pandas.to_datetime(frame.pop("time"), format="%d.%m.%Y %H:%M")
    return frame


def write(name: str, energy_wh: pandas.DataFrame) -> None:
    """Write the three weeks of a table, one row per quarter of an hour."""
    parts = []
    for season, monday in WEEKS.items():
        first = energy_wh.index.get_loc(pandas.Timestamp(monday))
        week = energy_wh.iloc[first : first + QUARTERS_PER_WEEK].round().astype(int)
        week.insert(0, "quarter", range(QUARTERS_PER_WEEK))
        week.insert(0, "season", season)
        parts.append(week)
    pandas.concat(parts).to_csv(Path(__file__).parent / name, index=False, lineterminator="\n")


def main() -> None:
    """Make both files."""
    load = read("LoadProfile")
    households = {}
    for profile, annual_kwh in ANNUAL_CONSUMPTION_KWH.items():
        fraction = load[f"{profile}_pload"]
        households[profile] = fraction / fraction.mean() * annual_kwh * 1_000 / HOURS_PER_YEAR / 4
    write("household.csv", pandas.DataFrame(households))
    write("solar.csv", read("RESProfile")[SOLAR] * SOLAR_NAMEPLATE_W / 4)


if __name__ == "__main__":
    main()
