"""The program's numbers and ours are one list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from hub.chain.addresses import COMPUTE_BUDGET_PROGRAM, ED25519_PROGRAM
from hub.chain.program_errors import PROGRAM_ERRORS, TransactionFault, parse_fault, program_error_name

ROOT = Path(__file__).parents[3]
PROGRAMS = (COMPUTE_BUDGET_PROGRAM, ED25519_PROGRAM, Pubkey.default())


def test_the_errors_are_those_of_the_programs_source():
    source = (ROOT / "programs" / "energy" / "errors.h").read_text(encoding="utf-8")
    listed = {int(number): name for number, name in re.findall(r"ERROR\((6\d{3}), ([a-z_]+)\)", source)}
    assert listed == dict(PROGRAM_ERRORS)


def test_the_errors_are_those_of_the_page():
    page = (ROOT / "docs" / "program.md").read_text(encoding="utf-8")
    listed = {int(number): name for number, name in re.findall(r"\| (6\d{3}) ([a-z_]+) (?=\|)", page)}
    assert listed == dict(PROGRAM_ERRORS)


@pytest.mark.parametrize(
    ("err", "code", "by_program"),
    [
        ({"InstructionError": [2, {"Custom": 6014}]}, "paused", True),
        ({"InstructionError": [2, {"Custom": 17}]}, "program_error_17", True),
        ({"InstructionError": [1, {"Custom": 2}]}, "ed25519_signature_invalid", True),
        ({"InstructionError": [2, "ProgramFailedToComplete"]}, "program_failed_to_complete", True),
        ({"InstructionError": [2, {"BorshIoError": "unknown"}]}, "borsh_io_error", True),
        ("BlockhashNotFound", "blockhash_not_found", False),
        ({"InsufficientFundsForRent": {"account_index": 3}}, "insufficient_funds_for_rent", False),
        ({"DuplicateInstruction": 1}, "duplicate_instruction", False),
    ],
)
def test_what_a_node_says_has_a_name(err, code, by_program):
    fault = parse_fault(err)
    assert (fault.code(PROGRAMS), fault.by_program) == (code, by_program)


def test_only_what_a_program_will_refuse_again_is_for_good():
    assert parse_fault({"InstructionError": [2, {"Custom": 6014}]}).for_good
    assert not parse_fault("BlockhashNotFound").for_good
    poor = parse_fault({"InstructionError": [2, {"Custom": 1}]})
    assert poor.for_want_of_lamports and not poor.for_good, "whoever pays may pay later"


@pytest.mark.parametrize(
    "err", [{}, [], 7, "", "no name", {"InstructionError": 3}, {"InstructionError": [1]}, {"a": 1, "b": 2}, True]
)
def test_nonsense_is_no_fault(err):
    with pytest.raises(ValueError, match="not an error"):
        parse_fault(err)


def test_an_error_at_an_instruction_that_is_not_there_keeps_its_name():
    assert TransactionFault("Custom", 9, 6000).code(PROGRAMS) == "instruction_unknown"
    assert program_error_name(5999) == "program_error_5999"
