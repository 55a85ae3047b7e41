"""Whichever account is wrong, in whichever way, the program says which way it is, and nothing changes."""

from itertools import permutations

import pytest

from tests.programs.energy.account_refusals import CASES
from tests.programs.energy.calls import INITIALIZE, places_of
from tests.programs.energy.error_numbers import NAMES
from tests.programs.energy.histories import world_of
from tests.programs.energy.ledger import KEYPAIRS, PAYER
from tests.programs.energy.model import Done
from tests.programs.energy.refusals import HONEST, NAMES_OF_CALLS, Case, check, last_call

FIRST_PAIRS = [(one.name, other.name) for one, other in permutations(places_of(INITIALIZE), 2)]
PAIRS = [(number, one.name, other.name) for number in HONEST for one, other in permutations(places_of(number), 2)]


@pytest.mark.parametrize("number", HONEST, ids=NAMES_OF_CALLS.__getitem__)
def test_as_it_should_be_it_is_accepted(community, number):
    outcome = community.send(HONEST[number](community))
    assert outcome.accepted, outcome.logs


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_account_or_wrong_data_is_refused(community, case: Case):
    check(community, case)


@pytest.mark.parametrize(("place", "given"), FIRST_PAIRS)
def test_nobody_begins_with_an_account_in_the_place_of_another(bare, place: str, given: str):
    honest = bare.initialize()
    other = honest.key(given)
    signs = place == "authority" and other in KEYPAIRS
    assert bare.send([honest.with_account(place, other, signs)]).custom in NAMES


@pytest.mark.parametrize(("number", "place", "given"), PAIRS)
def test_an_account_in_the_place_of_another_is_refused(community, number: int, place: str, given: str):
    """Also twice the same account, which the runtime hands over as one. The model says which errors are right."""
    acts = HONEST[number](community)
    honest = last_call(acts)
    other = honest.key(given)
    signs = dict(honest.metas)[place].is_signer and other in KEYPAIRS
    acts = [*acts[:-1], honest.with_account(place, other, signs)]
    said = world_of(community).execute(
        [each if not hasattr(each, "instruction") else each.instruction() for each in acts], PAYER.pubkey()
    )
    outcome = community.send(acts)
    assert not isinstance(said, Done)
    assert NAMES[outcome.custom or 0] in said.errors, (said, outcome.logs)
    assert outcome.index == said.index
