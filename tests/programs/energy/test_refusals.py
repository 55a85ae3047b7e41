"""Everything that the interface forbids, each with its own number, and each number at least once."""

import re

import pytest

from tests.programs.energy import account_refusals, administration_refusals, minting_refusals, registry_refusals
from tests.programs.energy.error_numbers import NUMBERS, ROOT
from tests.programs.energy.refusals import Case, check

CASES = [*administration_refusals.CASES, *registry_refusals.CASES, *minting_refusals.CASES]
BEFORE_THE_BEGINNING = administration_refusals.INITIALIZE_CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_refused_and_nothing_changes(community, case: Case):
    check(community, case)


@pytest.mark.parametrize("case", BEFORE_THE_BEGINNING, ids=str)
def test_nobody_begins_like_this(bare, case: Case):
    check(bare, case)


def test_every_error_of_the_program_is_provoked():
    cases = [*CASES, *BEFORE_THE_BEGINNING, *account_refusals.CASES]
    assert {each.error for each in cases} == NUMBERS.keys()


def test_the_program_and_its_page_have_the_same_errors():
    source = (ROOT / "programs" / "energy" / "errors.h").read_text()
    found = re.findall(r"\bERROR\((\d+), (\w+)\)", source)
    assert {name: int(number) for number, name in found} == NUMBERS
    assert len(found) == len(NUMBERS) == 51


def test_no_case_is_written_twice():
    titles = [each.title for each in [*CASES, *BEFORE_THE_BEGINNING, *account_refusals.CASES]]
    assert len(titles) == len(set(titles))
