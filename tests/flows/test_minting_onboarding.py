"""A wallet, and then a meter, come onto the chain exactly once, whoever is killed on the way.

The wallet signs whatever transaction there is to sign, again if another has to be built. In the end there is one
account of each, linked once, and the rent that the hub has noted is what the accounts hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local.mosquitto_package import Installation
from tests.flows.minting.hand import Hand
from tests.flows.minting.onboarding import FAULTS, METER, STEPS, VICTIMS, Point, choose, judge_newcomer
from tests.flows.minting.town import TIMEOUT_S, Town, living_town

POINTS, POINTS_LONG = 3, 60


@pytest.fixture
def town(tmp_path: Path, mosquitto_installation: Installation) -> Iterator[Town]:
    with living_town(tmp_path, mosquitto_installation) as made:
        yield made


@pytest.mark.timeout(600)
def test_a_newcomer_is_on_the_chain_once_whoever_dies_on_the_way(town: Town) -> None:
    strike_at(town, POINTS, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_sixty_newcomers_are_on_the_chain_once_whoever_dies_on_the_way(town: Town) -> None:
    strike_at(town, POINTS_LONG, seed=2)


def strike_at(town: Town, count: int, seed: int) -> None:
    with Hand(town, STEPS) as hand, ThreadPoolExecutor(1) as newcomers:
        for number, point in enumerate(choose(count, seed), 1):
            print(f"{number}/{count} {point}")  # shown if one of them fails
            live_through(town, hand, newcomers, point, number)


def live_through(town: Town, hand: Hand, newcomers: ThreadPoolExecutor, point: Point, number: int) -> None:
    person = town.join(f"Newcomer {number}")
    meter_id = f"roof-{number}" if point.of == METER else None
    if meter_id is not None:
        assert town.put_on_chain(person)["state"] == "finalized"
        town.build(meter_id, person)
    town.cluster.fail(**FAULTS[point.fault])
    hand.hold(point.step, point.moment)
    registered = newcomers.submit(town.put_on_chain, person, meter_id)
    hand.wait_until_held(point.step, point.moment)
    hand.strike(VICTIMS[point.victim], let_go_first=number % 2 == 0)
    assert registered.result(TIMEOUT_S)["state"] == "finalized"
    town.cluster.fail()
    hand.rest()
    nothing_open = "SELECT 1 FROM chain_intents WHERE ended_at IS NULL HAVING count(*) > 0"
    town.wait_until("nothing is under way", lambda: not town.rows(nothing_open))
    is_linked = "SELECT 1 FROM chain_accounts WHERE wallet = %s AND meter_id IS NOT DISTINCT FROM %s"
    town.wait_until("the account is linked", lambda: town.rows(is_linked, [person.public_key, meter_id]))
    judge_newcomer(town, person, meter_id)
