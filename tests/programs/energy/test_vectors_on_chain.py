"""The golden vectors bind the chain to the same bytes as CPython and MicroPython."""

import json

import pytest

from tests.programs.energy.community import ADA
from tests.programs.energy.error_numbers import NAMES, ROOT
from tests.programs.energy.refusals import NEW
from tests.programs.energy.signing import Signed, ed25519, sign

VECTORS = ROOT / "tests" / "vectors"


def cases(name: str, operation: str) -> list[dict[str, str]]:
    return [each for each in json.loads((VECTORS / name).read_text()) if each.get("operation", "") == operation]


@pytest.mark.parametrize("case", cases("ed25519.json", ""), ids=lambda case: case["name"])
def test_the_chain_takes_the_signatures_that_everybody_takes(community, case):
    signed = Signed(*(bytes.fromhex(case[name]) for name in ("public_key", "signature", "message")))
    assert community.send([ed25519(signed)]).accepted == case["valid"]


@pytest.mark.parametrize("case", cases("seals.json", "decode_seal"), ids=lambda case: case["name"])
def test_the_chain_reads_seals_as_the_hub_does(community, case):
    """They are of another community: a good one is refused for that alone."""
    outcome = community.send([ed25519(sign(ADA.key, bytes.fromhex(case["given"]))), community.submit(ADA)])
    assert NAMES[outcome.custom] == ("domain_differs" if "result" in case else "seal_malformed")


@pytest.mark.parametrize("case", cases("enrolments.json", "decode_enrolment"), ids=lambda case: case["name"])
def test_the_chain_reads_statements_as_the_hub_does(community, case):
    signed = ed25519(sign(NEW.key, bytes.fromhex(case["given"])))
    outcome = community.send([signed, community.register_meter(NEW)])
    assert NAMES[outcome.custom] == ("domain_differs" if "result" in case else "statement_malformed")


def test_there_are_vectors():
    assert min(len(cases("seals.json", "decode_seal")), len(cases("enrolments.json", "decode_enrolment"))) > 10
