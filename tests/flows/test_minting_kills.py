"""The promise of minting: whoever is killed between any two steps, supply is what was earned, to the unit.

Real processes, a real database, a cluster with its program; a seeded hand strikes each of them at a step it chose
(`minting/points.py` is the table), while homes live on. After each strike all books are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.mosquitto_package import Installation
from tests.flows.minting import trails
from tests.flows.minting.points import FAULTS, STEPS, VICTIMS, all_points, choose
from tests.flows.minting.roofs import LOST, UNITS_PER_WH
from tests.flows.minting.strikes import Strikes
from tests.flows.minting.town import Town, living_town

POINTS, POINTS_LONG = 10, 300


@pytest.fixture
def town(tmp_path: Path, mosquitto_installation: Installation) -> Iterator[Town]:
    """Two owners; one of them has two roofs."""
    with living_town(tmp_path, mosquitto_installation) as made:
        for name, roofs in (("Ada", ["ada-south", "ada-west"]), ("Bo", ["bo-barn"])):
            person = made.join(name)
            assert made.put_on_chain(person)["state"] == "finalized"
            for meter_id in roofs:
                made.build(meter_id, person)
                assert made.put_on_chain(person, meter_id)["state"] == "finalized"
        yield made


def test_the_points_are_spread_over_all_that_can_happen() -> None:
    for count in (POINTS, POINTS_LONG):
        chosen = choose(count, seed=1)
        assert len(set(chosen)) == count
        assert {point.victim for point in chosen} == VICTIMS.keys()
        assert {point.fault for point in chosen} == FAULTS.keys()
    assert {(point.step, point.moment) for point in choose(POINTS_LONG, 1)} == {
        (point.step, point.moment) for point in all_points()
    }
    assert {step.name for step in STEPS} <= {point.step for point in all_points()}


@pytest.mark.timeout(600)
def test_a_strike_at_any_step_of_a_mint_costs_and_makes_not_a_unit(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strike_at(town, POINTS, seed=1)
    every_trail_verifies(town, tmp_path, capsys)


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_three_hundred_strikes_cost_and_make_not_a_unit(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strike_at(town, POINTS_LONG, seed=2)
    every_trail_verifies(town, tmp_path, capsys)


def strike_at(town: Town, count: int, seed: int) -> None:
    with Strikes(town, seed) as strikes:
        for number, point in enumerate(choose(count, seed), 1):
            print(f"{number}/{count} {point}")  # shown if one of them fails
            strikes.strike(point)


def every_trail_verifies(town: Town, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind each transaction is a file in which nothing is false, and missing only what is lost; together they are
    all there is."""
    query = "SELECT DISTINCT signature FROM mints WHERE state = 'finalized' AND step <> 'rotate' ORDER BY 1"
    units = dict.fromkeys((roof.meter_id for roof in town.roofs), 0)
    missing: set[tuple[str, int, int]] = set()
    for [signature] in town.rows(query):
        status, report = trails.check(trails.fetch(town, signature, directory / "bundle.ndjson"), town, capsys)
        assert (trails.faults_of(report), report["transaction"]) == ([], signature)
        assert status == (1 if trails.missing_from(report) else 0)
        missing |= trails.missing_from(report)
        for mint in report["mints"]:
            units[mint["meter_id"]] += int(mint["amount_units"])
    assert units == {roof.meter_id: roof.expected().total.minted_wh * UNITS_PER_WH for roof in town.roofs}
    lost = [(roof.meter_id, page) for roof in town.roofs for page in roof.book if page.fate == LOST]
    assert missing == {(meter_id, page.key_epoch, page.sequence) for meter_id, page in lost}
