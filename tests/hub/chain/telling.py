"""What the program prints, written by hand from docs/program.md: accounts, events, and the logs around them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from uuid import UUID

from solders.pubkey import Pubkey

PROGRAM = Pubkey.from_bytes(b"\x07" * 32)
STRANGER = Pubkey.from_bytes(b"\x09" * 32)
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
OWNER = b"\x0a" * 32
MINT = b"\x0b" * 32

SUBMIT_READING = 4
SETTLE = 5


def address_of(meter_id: str) -> Pubkey:
    return Pubkey.find_program_address([b"meter", meter_id.encode().ljust(32, b"\0")], PROGRAM)[0]


def meter_bytes(meter_id: str = "roof", **changes: int | bytes) -> bytes:
    """A Meter of 320 bytes."""
    fields: dict[str, int | bytes] = {
        "state": 1,
        "kind": 1,
        "owner": OWNER,
        "key": b"\x0c" * 32,
        "grid_account": b"\x0d" * 32,
        "key_epoch": 1,
        "measurement": 1,
        "flags": 0,
        "capacity_w": 10_000,
        "register_step_wh": 10,
        "sequence": 7,
        "closed_until": 1_795_089_600,
        "production_wh": 12_000,
        "consumption_wh": 4_000,
        "surplus_wh": 9_000,
        "settled_wh": 9_000,
        "written_off_production_wh": 0,
        "written_off_surplus_wh": 0,
        "base_production_wh": 0,
        "base_surplus_wh": 0,
        "registered_at": 1_795_000_000,
    } | changes
    header = struct.pack(
        "<4sBBBB32s", b"CWME", 1, 255, fields.pop("state"), fields.pop("kind"), bytes(address_of(meter_id))
    )
    body = struct.pack("<32s32s32s32sIBBHQIIQqQQQQQQQQq", meter_id.encode(), *_with_gaps(list(fields.values())))
    return (header + body).ljust(320, b"\0")


def user_bytes(wallet: bytes = OWNER, meters: int = 1) -> bytes:
    """A User of 160 bytes."""
    address = Pubkey.find_program_address([b"user", wallet], PROGRAM)[0]
    header = struct.pack("<4sBBBB32s", b"CWUS", 1, 254, 1, 1, bytes(address))
    return (header + struct.pack("<32sqII", wallet, 1_795_000_000, meters, meters)).ljust(160, b"\0")


def config_bytes(state: int = 1) -> bytes:
    """A Config of 320 bytes."""
    address = Pubkey.find_program_address([b"config"], PROGRAM)[0]
    header = struct.pack("<4sBBBB32s", b"CWCF", 1, 253, state, 9, bytes(address))
    keys = [bytes([number]) * 32 for number in (1, 2, 3, 4)]
    return (header + struct.pack("<8s32s32s32s32s32sQI", b"\x05" * 8, *keys, MINT, 100_000, 1_000)).ljust(320, b"\0")


def event_bytes(
    account: bytes, instruction: int = SUBMIT_READING, business_id: UUID | None = None, amount_units: int = 0
) -> bytes:
    """An event about an account."""
    who = bytes(16) if business_id is None else business_id.bytes
    return b"CWEV" + bytes([1, instruction, 0, 0]) + who + struct.pack("<Q", amount_units) + account


def invoke(program: Pubkey, depth: int = 1) -> str:
    return f"Program {program} invoke [{depth}]"


def success(program: Pubkey) -> str:
    return f"Program {program} success"


def data(payload: bytes) -> str:
    return "Program data: " + base64.b64encode(payload).decode()


def told(*payloads: bytes, program: Pubkey = PROGRAM) -> list[str]:
    """The logs of a transaction with one instruction that printed this."""
    return called(program, [data(payload) for payload in payloads])


def called(program: Pubkey, inside: Sequence[str], depth: int = 1) -> list[str]:
    consumed = f"Program {program} consumed 5000 of 200000 compute units"
    return [invoke(program, depth), *inside, consumed, success(program)]


def _with_gaps(values: list[int | bytes]) -> list[int | bytes]:
    """The zeros of the layout: behind `measurement`, behind `register_step_wh`."""
    at = 5
    values.insert(at, 0)
    values.insert(9, 0)
    return values
