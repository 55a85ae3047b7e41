"""A year of profiles with faults at every layer below the seal: nothing is invented, and nothing is lost that the
meters still show. What is expected is worked out by `tests/flows/year_of_faults/books.py` at each reading.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.flows.year_of_faults.faults import FLAT_WEIGHTS, WEIGHTS
from tests.flows.year_of_faults.meters import ABB_B23, EM24, SDM630, WHEEL
from tests.flows.year_of_faults.story import FIRST_DAY, HomeOfYear, Outcome, Story, unix_s

DAY_S = 86_400
MEMORY = Path("/dev/shm")  # noqa: S108  # what is proved here is arithmetic; tests/edge/test_journal.py proves the disk
PAIR = "a pair of SDM630"
HOMES = {
    PAIR: HomeOfYear(SDM630, "H0-A", "PV1", True, 60, (8_150_000, 3_900_000, 5_200_000), 1),
    "one EM24, net only": HomeOfYear(EM24, "H0-B", "PV3", False, 300, (0, 4_000_000, 9_000_000), 100),
    "a pair of ABB B23": HomeOfYear(ABB_B23, "H0-C", "PV5", True, 900, (90_000, 40_000_000, 50_000_000), 10),
    "a pair that wraps": HomeOfYear(WHEEL, "H0-G", "PV1", True, 300, (250_000, 90_000, 10_000), 10),
}
FAULTS_PER_ROUND = 0.15
FAULTS_IN_A_YEAR = 100_000
RECOGNISED = (
    "register_disagreed", "register_fell", "register_jumped", "register_unexplained", "register_frozen",
    "register_word_order", "register_reset", "register_wrapped", "register_not_a_number", "register_unavailable",
    "modbus_no_answer", "modbus_busy", "clock_stepped", "reading_without_time", "reading_from_the_future",
)  # fmt: skip


def live(
    home: HomeOfYear,
    seed: int,
    days: int,
    first: date,
    faults_per_round: float,
    weights: Mapping[str, float] = WEIGHTS,
) -> tuple[Outcome, str]:
    """What became of a stretch of a home's time, and the hash of its last seal."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        start_unix_s = unix_s(first)
        story = Story(home, seed, faults_per_round, Path(directory), start_unix_s, weights)
        asyncio.run(story.live_until(start_unix_s + days * DAY_S))
        return story.outcome, story.sealer.chain.last_seal_hash


def assert_hardly_any_is_wrongly_kept_out(outcomes: list[Outcome]) -> None:
    kept_out = sum(sum((o.honest_refused + o.honest_quarantined).values()) for o in outcomes)
    assert kept_out * 100_000 < sum(o.honest_rounds for o in outcomes), [o.honest_refused for o in outcomes]


@pytest.mark.parametrize("name", HOMES)
def test_some_days_of_faults_count_exactly_what_the_meters_showed(name: str) -> None:
    home = HOMES[name]
    days = 3 * home.interval_s // 60
    outcome, _ = live(home, 20, days, FIRST_DAY + timedelta(days=170), FAULTS_PER_ROUND, FLAT_WEIGHTS)
    assert outcome.readings > 0.5 * days * DAY_S / home.interval_s
    assert len(outcome.faults) >= 20
    assert outcome.surplus_wh > 0
    assert_hardly_any_is_wrongly_kept_out([outcome])


def test_without_faults_every_reading_is_taken_and_accepted() -> None:
    for home in HOMES.values():
        outcome, _ = live(home, 3, 2, FIRST_DAY + timedelta(days=100), 0)
        assert outcome.readings == outcome.honest_rounds == (2 * DAY_S + 7_200) // home.interval_s
        assert set(outcome.counts) <= {"reading", "seal", "register_wrapped", "register_fell"}
        assert not outcome.doubtful_quarantined


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_year_with_a_hundred_thousand_faults_counts_no_watt_hour_wrongly() -> None:
    outcomes = [live(home, 2_025, 365, FIRST_DAY, FAULTS_PER_ROUND)[0] for home in HOMES.values()]
    faults = sum((outcome.faults for outcome in outcomes), Counter())
    counts = sum((outcome.counts for outcome in outcomes), Counter())
    for name, outcome in zip(HOMES, outcomes, strict=True):
        print(name, outcome)  # the figures of docs/decisions/believing-a-register.md
    assert sum(faults.values()) >= FAULTS_IN_A_YEAR
    assert {kind: faults[kind] for kind in WEIGHTS if faults[kind] < 10} == {}
    assert {what: counts[what] for what in RECOGNISED if counts[what] < 10} == {}
    assert counts["register_reset"] == faults["reset"]
    assert_hardly_any_is_wrongly_kept_out(outcomes)


CHANGE_OF_CLOCKS = """
import sys
from datetime import date
from tests.flows.test_year_of_faults import HOMES, live
outcome, seal_hash = live(HOMES["one EM24, net only"], 1, 2, date.fromisoformat(sys.argv[1]), 0)
print(outcome.readings, seal_hash)
"""


@pytest.mark.parametrize("eve", ["2025-03-29", "2025-10-25"])
def test_where_clocks_change_at_night_every_seal_is_the_same_byte_for_byte(eve: str) -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", CHANGE_OF_CLOCKS, eve],
            env={**os.environ, "TZ": zone, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for zone in ("Europe/Berlin", "UTC")
    }
    (line,) = said
    assert int(line.split()[0]) == (2 * DAY_S + 7_200) // 300
