"""The part of `commonwatt verify` that follows a meter from key to key: who vouches for the next, and where it begins.

A key line stands between the seals of two key epochs. It carries the rotation as its meter handed it in, and the
records of exchanged meters. Nothing of it is believed but what a key has signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from protocol.enrolment import ENROLMENT_METER_REPLACED, Enrolment
from protocol.errors import ProtocolError
from protocol.limits import SEQUENCE_MAX
from protocol.replacement import REGISTER_NAMES, REPLACEMENTS_MAX, Replacement, split_replacement
from protocol.rotation import split_rotation

BY_OLD_KEY, BY_OWNER, BY_ITSELF = "old_key", "owner", "itself"

KEY_LINE = {"key_epoch": int, "rotation": str, "replacements": list, "to_sequence": int}


class FaultError(Exception):
    """Something that the file states is not true. `reason` is stable, `detail` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class KnownKey:
    """A key that the file proves to be the meter's, as far as whoever endorsed it is believed."""

    key_epoch: int
    public_key: bytes
    endorsed_by: str


@dataclass(frozen=True)
class Handover:
    """A key line that holds: the next key's statement, who endorsed it, which meters were exchanged."""

    statement: Enrolment
    endorsed_by: str
    exchanges: tuple[Replacement, ...]
    to_sequence: int

    @property
    def key(self) -> KnownKey:
        """The key that takes over."""
        return KnownKey(self.statement.key_epoch, self.statement.public_key, self.endorsed_by)


def read_handover(line: dict[str, Any], before: Enrolment) -> Handover:
    """Check a key line against the statement of the key before. Raises FaultError.

    That the old key was revoked, and so could endorse nothing, no file can prove: compare with what the owner knows.
    """
    try:
        statement, signed, signature, endorsement = split_rotation(unhex(line["rotation"]))
    except ProtocolError as fault:
        raise FaultError(fault.code, fault.detail) from fault
    check_key(statement.public_key)
    check_signature(statement.public_key, signed, signature)
    if statement.key_epoch != before.key_epoch + 1 or line["key_epoch"] != statement.key_epoch:
        raise FaultError("key_epoch", f"key epoch {statement.key_epoch} after {before.key_epoch}")
    for name in ("domain", "meter_id", "owner", "kind", "measurement"):
        if getattr(statement, name) != getattr(before, name):
            raise FaultError("rotation_mismatch", f"another {name} than the key before")
    if not 0 <= line["to_sequence"] <= SEQUENCE_MAX:
        raise FaultError("header_mismatch", "there are no such sequences")
    return Handover(
        statement,
        _endorser(before, signed, endorsement),
        _read_exchanges(line["replacements"], statement),
        line["to_sequence"],
    )


def _endorser(before: Enrolment, signed: bytes, endorsement: bytes) -> str:
    for key, who in ((before.owner, BY_OWNER), (before.public_key, BY_OLD_KEY)):
        try:
            check_signature(key, signed, endorsement)
        except FaultError:
            continue
        return who
    raise FaultError("endorsement", "neither the key before nor the owner's endorsed this key")


def _read_exchanges(records: list[Any], statement: Enrolment) -> tuple[Replacement, ...]:
    if len(records) > REPLACEMENTS_MAX or (records and not statement.flags & ENROLMENT_METER_REPLACED):
        raise FaultError("replacement", "records that the statement does not announce, or too many")
    found = []
    for text in records:
        if not isinstance(text, str):
            raise FaultError("line_malformed", "not a line of this format")
        try:
            record, signed, signature = split_replacement(unhex(text))
        except ProtocolError as fault:
            raise FaultError(fault.code, fault.detail) from fault
        check_signature(statement.public_key, signed, signature)
        mine = (statement.domain, statement.meter_id, statement.key_epoch)
        if (record.domain, record.meter_id, record.key_epoch) != mine:
            raise FaultError("replacement", "a record of another meter or key epoch")
        found.append(record)
    if len({record.register for record in found}) < len(found):
        raise FaultError("replacement", "two records of one register")
    return tuple(found)


def exchange_json(record: Replacement) -> dict[str, Any]:
    """An exchanged meter for machines."""
    return {
        "key_epoch": record.key_epoch,
        "register": REGISTER_NAMES[record.register],
        "at_unix_s": record.at_unix_s,
        "old_serial": record.old_serial,
        "final_wh": record.final_wh,
        "new_serial": record.new_serial,
        "initial_wh": record.initial_wh,
    }


def check_key(public_key: bytes) -> None:
    """A key that every verifier judges alike. Raises FaultError."""
    if not crypto_core_ed25519_is_valid_point(public_key):
        raise FaultError("enrolment_key", "not a canonical Ed25519 key of prime order")


def check_signature(public_key: bytes, signed: bytes, signature: bytes) -> None:
    """RFC 8032 as libsodium holds it: canonical S, no small-order key or R. Raises FaultError."""
    try:
        crypto_sign_open(signature + signed, public_key)
    except BadSignatureError as fault:
        raise FaultError("signature", "the meter's key did not sign these bytes") from fault


def unhex(text: str) -> bytes:
    """Bytes from lower case hexadecimal, in its one spelling. Raises FaultError."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if data.hex() != text:
        raise FaultError("not_hexadecimal", "lower case hexadecimal digits are expected")
    return data
