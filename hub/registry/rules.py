"""What makes an enrolment acceptable, and which states a meter passes through. Pure; time is an argument."""

from __future__ import annotations

from hub import signatures
from hub.errors import EnrolmentInvalid
from protocol.enrolment import Enrolment, split_enrolment
from protocol.errors import ProtocolError
from protocol.limits import FUTURE_MAX_S
from protocol.seal import NO_PREDECESSOR

CAPACITY_W_MAX = 10_000_000
"""Ten megawatts: beyond it an installation is a power station and has other meters."""

REGISTER_QUANTUM_WH_DEFAULT = 10
REGISTER_QUANTUM_WH_MAX = 1_000

REGISTER_QUANTUM_WH_MINTED_MAX = 10
"""Netting registers of coarser steps gives too much surplus (100 Wh: 0.3 to 0.5 %): an operator must allow it first."""

FIRST_EPOCH = 1

ACTIVE = "active"
SUSPENDED = "suspended"
RETIRED = "retired"

KEY_ACTIVE = "active"
KEY_SUPERSEDED = "superseded"
KEY_REVOKED = "revoked"


def check_first_enrolment(
    message: bytes, domain: bytes, now_unix_s: int, age_max_s: int
) -> tuple[Enrolment, bytes, bytes]:
    """Judge `statement ‖ signature` of a meter that is new here: the statement, its bytes, the signature.

    Raises EnrolmentInvalid saying which rule it breaks.
    """
    try:
        statement, signed, signature = split_enrolment(message)
    except ProtocolError as fault:
        raise EnrolmentInvalid(str(fault)) from fault
    if not signatures.is_acceptable_key(statement.public_key):
        raise EnrolmentInvalid("the public key is not a canonical Ed25519 key of prime order")
    if not signatures.verify(statement.public_key, signed, signature):
        raise EnrolmentInvalid("the signature is not by the key that the statement names")
    if statement.domain != domain:
        raise EnrolmentInvalid("the statement is for another deployment (its domain differs)")
    if statement.key_epoch != FIRST_EPOCH or statement.last_seal_hash != NO_PREDECESSOR:
        raise EnrolmentInvalid("a first registration has key epoch 1 and no predecessor")
    if statement.valid_from_unix_s > now_unix_s + FUTURE_MAX_S:
        raise EnrolmentInvalid(f"valid_from is more than {FUTURE_MAX_S} s ahead of the hub's clock")
    if statement.valid_from_unix_s < now_unix_s - age_max_s:
        raise EnrolmentInvalid(f"valid_from is more than {age_max_s} s ago: make a new statement")
    return statement, signed, signature
