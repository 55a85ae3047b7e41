"""The seal: 124 bytes that a meter signs, and the message that carries them.

    message = seal (124) ‖ Ed25519 signature over the seal (64) ‖ readings section

The seal binds the readings by their hash and its predecessor by its hash, so one signature serves the hub, the
auditor and the chain, and a missing or a second seal is evident. The three counters are as of
`closed_until_unix_s`, the end of the last closed settlement interval. Little-endian, fixed size: an on-chain
program reads it by offset.
"""

import hashlib
import struct

from protocol.errors import ProtocolError
from protocol.limits import (
    ENERGY_WH_MAX,
    MESSAGE_BYTES_MAX,
    SEQUENCE_MAX,
    SETTLEMENT_INTERVAL_S,
    TIME_MAX_UNIX_S,
    TIME_MIN_UNIX_S,
)

MAGIC = b"CWS1"
LAYOUT = "<4s8sQqqQQQ32s32s"
SEAL_BYTES = 124
SIGNATURE_BYTES = 64
HASH_BYTES = 32
DOMAIN_BYTES = 8
NO_PREDECESSOR = b"\x00" * HASH_BYTES
"""`previous_seal_hash` of the first seal of a key epoch."""


class Seal:
    """The signed part of a batch. Energy in watt-hours, times in whole seconds since 1970 UTC."""

    def __init__(
        self,
        domain: bytes,
        sequence: int,
        sealed_at_unix_s: int,
        closed_until_unix_s: int,
        production_wh: int,
        consumption_wh: int,
        surplus_wh: int,
        previous_seal_hash: bytes,
        readings_hash: bytes,
    ) -> None:
        self.domain = domain
        self.sequence = sequence
        self.sealed_at_unix_s = sealed_at_unix_s
        self.closed_until_unix_s = closed_until_unix_s
        self.production_wh = production_wh
        self.consumption_wh = consumption_wh
        self.surplus_wh = surplus_wh
        self.previous_seal_hash = previous_seal_hash
        self.readings_hash = readings_hash

    def _key(self) -> "tuple[bytes, int, int, int, int, int, int, bytes, bytes]":
        return (
            self.domain,
            self.sequence,
            self.sealed_at_unix_s,
            self.closed_until_unix_s,
            self.production_wh,
            self.consumption_wh,
            self.surplus_wh,
            self.previous_seal_hash,
            self.readings_hash,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seal) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return "Seal" + repr(self._key())


class Message:
    """A seal, its signature and its readings section, as they came: nothing verified but the shapes."""

    def __init__(self, seal: Seal, seal_bytes: bytes, signature: bytes, section: bytes) -> None:
        self.seal = seal
        self.seal_bytes = seal_bytes
        self.signature = signature
        self.section = section


def sha256(data: bytes) -> bytes:
    """SHA-256, spelled so that MicroPython understands it too."""
    return hashlib.sha256(data).digest()


def seal_hash(seal_bytes: bytes) -> bytes:
    """What the next seal names as its predecessor: SHA-256 of the 124 bytes, without the signature."""
    return sha256(seal_bytes)


def encode_seal(seal: Seal) -> bytes:
    """The 124 bytes to sign. Raises ProtocolError `seal_…` if a field is out of its range."""
    _check(seal)
    return struct.pack(
        LAYOUT,
        MAGIC,
        seal.domain,
        seal.sequence,
        seal.sealed_at_unix_s,
        seal.closed_until_unix_s,
        seal.production_wh,
        seal.consumption_wh,
        seal.surplus_wh,
        seal.previous_seal_hash,
        seal.readings_hash,
    )


def decode_seal(data: bytes) -> Seal:
    """The inverse of encode_seal. Raises ProtocolError `seal_…` and nothing else, whatever the bytes."""
    if len(data) != SEAL_BYTES:
        raise ProtocolError("seal_length", "%d bytes instead of %d" % (len(data), SEAL_BYTES))
    fields = struct.unpack(LAYOUT, data)
    if fields[0] != MAGIC:
        raise ProtocolError("seal_magic", "not a protocol v1 seal")
    seal = Seal(*fields[1:])
    _check(seal)
    return seal


def _check(seal: Seal) -> None:
    if len(seal.domain) != DOMAIN_BYTES:
        raise ProtocolError("seal_domain", "%d bytes" % len(seal.domain))
    if len(seal.previous_seal_hash) != HASH_BYTES or len(seal.readings_hash) != HASH_BYTES:
        raise ProtocolError("seal_hash", "a hash has %d bytes" % HASH_BYTES)
    if not 1 <= seal.sequence <= SEQUENCE_MAX:
        raise ProtocolError("seal_sequence", str(seal.sequence))
    if (seal.sequence == 1) != (seal.previous_seal_hash == NO_PREDECESSOR):
        raise ProtocolError("seal_predecessor", "exactly the first seal has no predecessor")
    if not TIME_MIN_UNIX_S <= seal.sealed_at_unix_s <= TIME_MAX_UNIX_S:
        raise ProtocolError("seal_time", "sealed at %d" % seal.sealed_at_unix_s)
    if not TIME_MIN_UNIX_S <= seal.closed_until_unix_s <= seal.sealed_at_unix_s:
        raise ProtocolError("seal_time", "closed until %d" % seal.closed_until_unix_s)
    if seal.closed_until_unix_s % SETTLEMENT_INTERVAL_S:
        raise ProtocolError("seal_time", "no settlement interval ends at %d" % seal.closed_until_unix_s)
    if not 0 <= seal.production_wh <= ENERGY_WH_MAX or not 0 <= seal.consumption_wh <= ENERGY_WH_MAX:
        raise ProtocolError("seal_counter", "a counter is outside its range")
    if not 0 <= seal.surplus_wh <= seal.production_wh:
        raise ProtocolError("seal_counter", "surplus exceeds production")


def join_message(seal_bytes: bytes, signature: bytes, section: bytes) -> bytes:
    """The bytes to publish. Raises ProtocolError `message_…` if they are not of the agreed sizes."""
    if len(seal_bytes) != SEAL_BYTES or len(signature) != SIGNATURE_BYTES:
        raise ProtocolError("message_length", "seal or signature of the wrong size")
    message = seal_bytes + signature + section
    if len(message) > MESSAGE_BYTES_MAX:
        raise ProtocolError("message_too_long", "%d bytes" % len(message))
    return message


def split_message(message: bytes) -> Message:
    """Take a message apart and check that the seal binds this readings section.

    Raises ProtocolError and nothing else, whatever the bytes. The signature is not verified here.
    """
    if len(message) > MESSAGE_BYTES_MAX:
        raise ProtocolError("message_too_long", "%d bytes" % len(message))
    if len(message) <= SEAL_BYTES + SIGNATURE_BYTES:
        raise ProtocolError("message_truncated", "%d bytes" % len(message))
    seal_bytes = message[:SEAL_BYTES]
    signature = message[SEAL_BYTES : SEAL_BYTES + SIGNATURE_BYTES]
    section = message[SEAL_BYTES + SIGNATURE_BYTES :]
    seal = decode_seal(seal_bytes)
    if sha256(section) != seal.readings_hash:
        raise ProtocolError("readings_hash", "the seal does not bind this readings section")
    return Message(seal, seal_bytes, signature, section)
