"""Why a transaction did nothing: the chain's own words for it, and the energy program's refusals by number.

The numbers are those of `docs/program.md` and `programs/energy/errors.h`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from hub.chain.addresses import ED25519_PROGRAM

_NAMES: Final = [
    "instruction_unknown",
    "instruction_malformed",
    "accounts_missing",
    "account_not_ours",
    "account_type",
    "account_version",
    "account_address",
    "account_not_writable",
    "signer_missing",
    "not_the_hub",
    "not_the_admin",
    "not_the_upgrade_authority",
    "not_the_owner",
    "program_differs",
    "paused",
    "state_unchanged",
    "already_exists",
    "validator_is_issuer",
    "mint_unacceptable",
    "kind_unknown",
    "user_not_active",
    "wallet_differs",
    "signature_missing",
    "signature_malformed",
    "key_differs",
    "statement_malformed",
    "domain_differs",
    "capacity_out_of_range",
    "register_step_out_of_range",
    "meter_not_active",
    "meter_deactivated",
    "seal_malformed",
    "sequence_not_later",
    "interval_not_later",
    "from_the_future",
    "counter_decreased",
    "over_capacity",
    "surplus_out_of_bounds",
    "epoch_differs",
    "counters_beyond",
    "endorsement_missing",
    "write_off_decreased",
    "write_off_over_counter",
    "write_off_gives",
    "grid_account_differs",
    "mint_differs",
    "overflow",
    "state_unknown",
    "message_differs",
    "counters_differ",
    "statement_too_old",
]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")

FIRST_NUMBER: Final = 6000

PROGRAM_ERRORS: Final[Mapping[int, str]] = {FIRST_NUMBER + index: name for index, name in enumerate(_NAMES)}

ED25519_ERRORS: Final[Mapping[int, str]] = {
    0: "ed25519_public_key_invalid",
    2: "ed25519_signature_invalid",
    3: "ed25519_offsets_invalid",
    4: "ed25519_data_malformed",
}
"""Numbers of the chain's own verifier of Ed25519 signatures."""

LAMPORTS_MISSING: Final = 1
"""Number of the system program's error; no refusal of the energy program's or of the verifier's has it."""
assert LAMPORTS_MISSING not in PROGRAM_ERRORS and LAMPORTS_MISSING not in ED25519_ERRORS


def program_error_name(number: int) -> str:
    """The name of a custom error; one that is not ours (a Token-2022 or System error passed on) keeps its number."""
    return PROGRAM_ERRORS.get(number, f"program_error_{number}")


@dataclass(frozen=True)
class TransactionFault:
    """Why the chain refused a transaction, or why what it began was undone."""

    name: str
    """In the chain's words, such as BlockhashNotFound; of an instruction, its kind, such as Custom."""
    instruction_no: int | None = None
    """Which instruction refused; None: the transaction as a whole never began."""
    number: int | None = None
    """Of a custom error."""

    def __str__(self) -> str:
        number = "" if self.number is None else f" {self.number}"
        return f"{self.name}{number}" + ("" if self.instruction_no is None else f" in {self.instruction_no}")

    @property
    def by_program(self) -> bool:
        """Whether a program refused. All else (a blockhash, the fee, locks) may pass."""
        return self.instruction_no is not None

    @property
    def for_want_of_lamports(self) -> bool:
        """Whether the payer could not pay for an account: the system program says so, also from within other calls."""
        return self.by_program and self.number == LAMPORTS_MISSING

    @property
    def for_good(self) -> bool:
        """Whether a program refused, and will again."""
        return self.by_program and not self.for_want_of_lamports

    def code(self, programs: Sequence[Pubkey]) -> str:
        """A word for it. `programs` are those of the transaction's instructions, in their order."""
        if self.number is None:
            return _snake_case(self.name)
        at = self.instruction_no
        if at is not None and at < len(programs) and programs[at] == ED25519_PROGRAM:
            return ED25519_ERRORS.get(self.number, f"ed25519_error_{self.number}")
        return program_error_name(self.number)


def parse_fault(err: object) -> TransactionFault:
    """A node's `err`. Raises ValueError unless it has the shape of one."""
    match err:
        case str(name):
            return TransactionFault(_checked(name))
        case {"InstructionError": [int(at), {"Custom": int(number)}]}:
            return TransactionFault("Custom", at, number)
        case {"InstructionError": [int(at), str(name)]}:
            return TransactionFault(_checked(name), at)
        case {"InstructionError": [int(at), dict(detailed)]} if len(detailed) == 1:
            return TransactionFault(_checked(next(iter(detailed))), at)
        case dict(detailed) if len(detailed) == 1 and "InstructionError" not in detailed:
            return TransactionFault(_checked(next(iter(detailed))))
    raise ValueError("not an error of a transaction")


def _checked(name: object) -> str:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError("not an error of a transaction")
    return name


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
