"""Rotation: a meter's next key takes over where its last one stopped.

    statement (180) ‖ signature by the new key (64) ‖ endorsement (64)

The statement is an enrolment statement for the next epoch. The endorsement is a signature over the same 180 bytes,
by the old key or by the owner's: the new key alone cannot make itself the meter's. The base of the new epoch is the
last seal of the one before: its hash, its three counters and its `closed_until` are named exactly, so that netting
goes on across the change and no watt-hour is counted twice or lost.
"""

from protocol.enrolment import STATEMENT_BYTES, Enrolment, decode_enrolment
from protocol.errors import ProtocolError
from protocol.seal import SIGNATURE_BYTES

ROTATION_BYTES = STATEMENT_BYTES + 2 * SIGNATURE_BYTES
FIRST_ROTATION_EPOCH = 2
"""The first key has nothing to take over from."""


def join_rotation(statement_bytes: bytes, signature: bytes, endorsement: bytes) -> bytes:
    """The 308 bytes to hand in. Raises ProtocolError `rotation_…`, `enrolment_…` or `meter_id`."""
    if len(signature) != SIGNATURE_BYTES or len(endorsement) != SIGNATURE_BYTES:
        raise ProtocolError("rotation_length", "a signature has %d bytes" % SIGNATURE_BYTES)
    _check(decode_enrolment(statement_bytes))
    return statement_bytes + signature + endorsement


def split_rotation(message: bytes) -> "tuple[Enrolment, bytes, bytes, bytes]":
    """The statement, its 180 signed bytes, the new key's signature and the endorsement (neither verified).

    Raises ProtocolError and nothing else, whatever the bytes.
    """
    if len(message) != ROTATION_BYTES:
        raise ProtocolError("rotation_length", "%d bytes instead of %d" % (len(message), ROTATION_BYTES))
    signed = message[:STATEMENT_BYTES]
    statement = decode_enrolment(signed)
    _check(statement)
    signature = message[STATEMENT_BYTES : STATEMENT_BYTES + SIGNATURE_BYTES]
    return statement, signed, signature, message[STATEMENT_BYTES + SIGNATURE_BYTES :]


def _check(statement: Enrolment) -> None:
    if statement.key_epoch < FIRST_ROTATION_EPOCH:
        raise ProtocolError("rotation_epoch", "a first key is enrolled, not rotated to")
