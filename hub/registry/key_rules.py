"""What makes a rotation and a request for credentials acceptable. Pure; time is an argument.

Whether the rotation begins at the right seal is for the readings domain to say: it knows the seals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hub import signatures
from hub.errors import RotationInvalid
from protocol.credential import CredentialRequest, split_credential_request
from protocol.enrolment import (
    ENROLMENT_METER_REPLACED,
    ENROLMENT_PHASES_NOT_NETTED,
    MEASURES_GENERATION_AND_GRID,
    Enrolment,
)
from protocol.errors import ProtocolError
from protocol.limits import FUTURE_MAX_S
from protocol.replacement import REGISTER_GENERATION, REPLACEMENTS_MAX, Replacement, split_replacement
from protocol.rotation import split_rotation

BY_FIRST: Final = "first"
BY_OLD_KEY: Final = "old_key"
BY_OWNER: Final = "owner"

CREDENTIAL_AGE_MAX_S: Final = 300
"""A request is of use for so long, either way of the hub's clock: enough for a meter's clock, little for a thief."""


@dataclass(frozen=True)
class Exchange:
    """A decoded replacement record with what was signed."""

    record: Replacement
    signed: bytes
    signature: bytes


@dataclass(frozen=True)
class Rotation:
    """A rotation whose new key has signed everything that came with it. Who endorsed it is not known yet."""

    statement: Enrolment
    signed: bytes
    signature: bytes
    endorsement: bytes
    exchanges: tuple[Exchange, ...]

    @property
    def phases_netted(self) -> bool:
        """Whether the meter adds up its phases before it counts."""
        return not self.statement.flags & ENROLMENT_PHASES_NOT_NETTED

    @property
    def meter_replaced(self) -> bool:
        """Whether the new key begins with another physical meter."""
        return bool(self.statement.flags & ENROLMENT_METER_REPLACED)


def open_rotation(message: bytes, records: Sequence[bytes], meter_id: str, domain: bytes, now_unix_s: int) -> Rotation:
    """Take apart what was handed in and check all that needs no knowledge of the meter. Raises RotationInvalid."""
    try:
        statement, signed, signature, endorsement = split_rotation(message)
    except ProtocolError as fault:
        raise RotationInvalid(str(fault)) from fault
    if not signatures.is_acceptable_key(statement.public_key):
        raise RotationInvalid("the public key is not a canonical Ed25519 key of prime order")
    if not signatures.verify(statement.public_key, signed, signature):
        raise RotationInvalid("the signature is not by the key that the statement names")
    if statement.domain != domain:
        raise RotationInvalid("the statement is for another deployment (its domain differs)")
    if statement.meter_id != meter_id:
        raise RotationInvalid(f"the statement is of {statement.meter_id}")
    exchanges = tuple(_open_exchange(record, statement, now_unix_s) for record in records)
    if exchanges and not statement.flags & ENROLMENT_METER_REPLACED:
        raise RotationInvalid("records of exchanged meters come with a statement that says so")
    if len(exchanges) > REPLACEMENTS_MAX or len({each.record.register for each in exchanges}) < len(exchanges):
        raise RotationInvalid("one record a register at most")
    return Rotation(statement, signed, signature, endorsement, exchanges)


def _open_exchange(message: bytes, statement: Enrolment, now_unix_s: int) -> Exchange:
    try:
        record, signed, signature = split_replacement(message)
    except ProtocolError as fault:
        raise RotationInvalid(str(fault)) from fault
    if not signatures.verify(statement.public_key, signed, signature):
        raise RotationInvalid("a record of an exchanged meter is not signed by the new key")
    if (record.domain, record.meter_id, record.key_epoch) != (
        statement.domain,
        statement.meter_id,
        statement.key_epoch,
    ):
        raise RotationInvalid("a record of an exchanged meter is of another meter or key epoch")
    if record.register == REGISTER_GENERATION and statement.measurement != MEASURES_GENERATION_AND_GRID:
        raise RotationInvalid("this meter has no generation register")
    if record.at_unix_s > now_unix_s + FUTURE_MAX_S:
        raise RotationInvalid("a meter was exchanged in the future")
    return Exchange(record, signed, signature)


def endorser_of(rotation: Rotation, current: Enrolment, owner: bytes, *, current_key_revoked: bool) -> str:
    """BY_OLD_KEY or BY_OWNER: who of them vouches for the new key. Raises RotationInvalid.

    A revoked key vouches for nobody, so that its thief cannot rotate away from the revocation.
    """
    statement = rotation.statement
    if (statement.owner, statement.kind, statement.measurement) != (owner, current.kind, current.measurement):
        raise RotationInvalid("owner, kind and measurement stay what they are")
    if signatures.verify(owner, rotation.signed, rotation.endorsement):
        return BY_OWNER
    if not signatures.verify(current.public_key, rotation.signed, rotation.endorsement):
        raise RotationInvalid("neither the current key nor the owner's has endorsed it")
    if current_key_revoked:
        raise RotationInvalid("the current key is revoked: only the owner may endorse the next one")
    return BY_OLD_KEY


def is_minting_allowed(*, allowed: bool, netted_before: bool, netted_now: bool, meter_replaced: bool) -> bool:
    """Whether the meter may mint after a rotation: what an operator allowed holds for the meter that it was said of.

    Never more than before: a meter that sums its phases gets no permission by saying that it no longer does.
    """
    if netted_now or (not netted_before and not meter_replaced):
        return allowed
    return False


def open_credential_request(message: bytes) -> tuple[CredentialRequest, bytes, bytes] | None:
    """The request, its signed bytes and the signature (not verified); None if these bytes are none."""
    try:
        return split_credential_request(message)
    except ProtocolError:
        return None


def is_credential_request_good(
    request: CredentialRequest,
    signed: bytes,
    signature: bytes,
    *,
    domain: bytes,
    key_epoch: int,
    public_key: bytes,
    now_unix_s: int,
) -> bool:
    """Whether the meter's current key made this request for this deployment just now."""
    return (
        request.domain == domain
        and request.key_epoch == key_epoch
        and abs(request.at_unix_s - now_unix_s) <= CREDENTIAL_AGE_MAX_S
        and signatures.verify(public_key, signed, signature)
    )


@dataclass(frozen=True)
class Base:
    """Where the next key epoch begins: the last seal that counts, or the current epoch's own statement (sequence 0).

    The counters are those of its last closed interval, as the statement must repeat them; `last_…` are its last
    reading's, from which energy goes on, and the excess is how far they are ahead of the installation's capacity.
    `key_epoch` is the epoch of the seal.
    """

    key_epoch: int
    sequence: int
    seal_hash: bytes
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    sealed_at_unix_s: int
    last_reading_unix_s: int
    last_production_wh: int
    last_consumption_wh: int
    production_excess_ws: int = 0
    consumption_excess_ws: int = 0

    def differs_from(self, statement: Enrolment) -> str:
        """What the statement should say instead; empty if it begins exactly here."""
        stated = (
            statement.last_seal_hash,
            statement.valid_from_unix_s,
            statement.production_wh,
            statement.consumption_wh,
            statement.surplus_wh,
        )
        mine = (
            self.seal_hash,
            self.closed_until_unix_s,
            self.production_wh,
            self.consumption_wh,
            self.surplus_wh,
        )
        if stated == mine:
            return ""
        return (
            f"the base is seal {self.sequence} of key epoch {self.key_epoch}, hash {self.seal_hash.hex()}, closed until"
            f" {self.closed_until_unix_s}: {self.production_wh}, {self.consumption_wh}, {self.surplus_wh} Wh"
        )
