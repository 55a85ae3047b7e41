"""What a meter signs, packed without a check so that tests can lie, and Ed25519 instructions good and bad."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

ED25519 = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")
THIS_INSTRUCTION = 0xFFFF
ZEROS = b"\0" * 32
INTERVAL_S = 900


@dataclass(frozen=True)
class Seal:
    """The 124 bytes of docs/protocol.md."""

    magic: bytes
    domain: bytes
    sequence: int
    sealed_at_unix_s: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    previous_seal_hash: bytes
    readings_hash: bytes

    def encode(self) -> bytes:
        return struct.pack("<4s8sQqqQQQ32s32s", *astuple(self))

    @classmethod
    def decode(cls, data: bytes) -> Seal:
        return cls(*struct.unpack("<4s8sQqqQQQ32s32s", data))


@dataclass(frozen=True)
class Statement:
    """The 180 bytes of an enrolment or a rotation."""

    magic: bytes
    domain: bytes
    meter_id: bytes
    kind: int
    measurement: int
    flags: int
    key_epoch: int
    owner: bytes
    public_key: bytes
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    valid_from_unix_s: int
    last_seal_hash: bytes

    def encode(self) -> bytes:
        return struct.pack("<4s8s32sBBHI32s32sQQQq32s", *astuple(self))

    @classmethod
    def decode(cls, data: bytes) -> Statement:
        return cls(*struct.unpack("<4s8s32sBBHI32s32sQQQq32s", data))


@dataclass(frozen=True)
class Signed:
    """One signature over one message."""

    key: bytes
    signature: bytes
    message: bytes


def sign(key: Keypair, message: bytes) -> Signed:
    return Signed(bytes(key.pubkey()), bytes(key.sign_message(message)), message)


def ed25519(*signed: Signed, program: Pubkey = ED25519) -> Instruction:
    """An Ed25519 instruction that holds all of its parts itself."""
    records, body = b"", b""
    start = 2 + 14 * len(signed)
    for each in signed:
        at = start + len(body)
        records += struct.pack(
            "<7H", at + 32, THIS_INSTRUCTION, at, THIS_INSTRUCTION, at + 96, len(each.message), THIS_INSTRUCTION
        )
        body += each.key + each.signature + each.message
    return Instruction(program, bytes([len(signed), 0]) + records + body, [])


def ed25519_elsewhere(signed: Signed, part: str, index: int) -> Instruction:
    """The same instruction, one of whose parts is read from the instruction `index`, which holds the same bytes."""
    data = bytearray(ed25519(signed).data)
    struct.pack_into("<H", data, {"signature": 4, "key": 8, "message": 14}[part], index)
    return Instruction(ED25519, bytes(data), [])
