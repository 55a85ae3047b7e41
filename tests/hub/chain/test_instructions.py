"""Instructions are built as the page lists them: number, data, and accounts with who signs and what is written."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from uuid import UUID

import pytest
from solders.pubkey import Pubkey

from hub.chain import instructions
from hub.chain.accounts import MeterState, UserKind
from hub.chain.addresses import INSTRUCTIONS_SYSVAR, SYSTEM_PROGRAM, TOKEN_2022_PROGRAM, Addresses
from hub.chain.instructions import Roles, Signed

PAGE = (Path(__file__).parents[3] / "docs" / "program.md").read_text(encoding="utf-8")
AT = Addresses(Pubkey.from_bytes(b"P" * 32))
HUB, OWNER, KEY, ADMIN = b"H" * 32, b"O" * 32, b"K" * 32, b"A" * 32
MINT = Pubkey.from_bytes(b"M" * 32)
GRID = AT.grid_account(OWNER, MINT)
ID = UUID(int=7)
ROLES = Roles(HUB, b"I" * 32, b"V" * 32, 1_000, 10)
SIGNED = Signed(KEY, b"m" * 124, b"s" * 64)
KNOWN = {
    "config": AT.config(), "user": AT.user(OWNER), "meter": AT.meter("roof"), "meter_key": AT.meter_key(KEY),
    "grid_mint": MINT, "grid_account": GRID, "program_data": AT.program_data(), "ixs": INSTRUCTIONS_SYSVAR,
    "system": SYSTEM_PROGRAM, "token_2022": TOKEN_2022_PROGRAM, "hub": Pubkey.from_bytes(HUB),
    "owner": Pubkey.from_bytes(OWNER), "wallet": Pubkey.from_bytes(OWNER), "authority": Pubkey.from_bytes(ADMIN),
    "admin": Pubkey.from_bytes(ADMIN), "new_admin": Pubkey.from_bytes(OWNER),
}  # fmt: skip
BUILT = {
    "initialize": (instructions.initialize(AT, ADMIN, MINT, b"D" * 8, ROLES),),
    "register_user": (instructions.register_user(AT, HUB, OWNER, UserKind.PROSUMER),),
    "register_meter": instructions.register_meter(AT, HUB, OWNER, "roof", MINT, SIGNED, 5_000, 10),
    "rotate_meter_key": instructions.rotate_meter_key(AT, HUB, "roof", SIGNED, SIGNED),
    "submit_reading": instructions.submit_reading(AT, HUB, "roof", SIGNED, ID),
    "settle_meter_balance": instructions.settle(AT, HUB, "roof", MINT, GRID, ID),
    "write_off": instructions.write_off(AT, HUB, "roof", SIGNED, 3, 2, ID),
    "set_meter_status": instructions.set_meter_status(AT, HUB, "roof", MeterState.SUSPENDED),
    "deactivate_meter": instructions.deactivate_meter(AT, ADMIN, "roof", OWNER),
    "pause": (instructions.pause(AT, ADMIN, True),),
    "configure": (instructions.configure(AT, ADMIN, OWNER, ROLES),),
}
SIZES = {"u8": 1, "u32": 4, "u64": 8, "i64": 8}
ROWS = re.findall(r"^\| (\d+) \| (\w+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.M)


def test_every_instruction_of_the_page_has_a_builder():
    assert [name for _, name, _, _ in ROWS] == list(BUILT)


@pytest.mark.parametrize(("number", "name", "data", "accounts"), ROWS, ids=[row[1] for row in ROWS])
def test_it_is_built_as_the_page_says(number, name, data, accounts):
    *before, ours = BUILT[name]
    listed = [field.split()[-1] for field in data.split(",")] if data.strip() != "–" else []
    length = 1 + sum(SIZES[size] if size in SIZES else int(size) for size in listed)
    assert (ours.program_id, ours.data[0], len(ours.data)) == (AT.program_id, int(number), length)
    expected = [re.fullmatch(r"(\w+)(?: `([sw]+)`)?", each.strip()).groups() for each in accounts.split(",")]
    assert [(each.pubkey, each.is_signer, each.is_writable) for each in ours.accounts] == [
        (KNOWN[account], "s" in (flags or ""), "w" in (flags or "")) for account, flags in expected
    ]
    assert len(before) == {"rotate_meter_key": 2, "register_meter": 1, "submit_reading": 1, "write_off": 1}.get(name, 0)


def test_values_lie_where_the_program_reads_them():
    write_off = bytes(BUILT["write_off"][-1].data)
    assert write_off == bytes([6]) + ID.bytes + struct.pack("<QQ", 3, 2)
    configure = bytes(BUILT["configure"][0].data)
    assert configure[1:33] == OWNER and configure[33:129] == HUB + b"I" * 32 + b"V" * 32
    assert configure[129:] == struct.pack("<QI", 1_000, 10)
    assert bytes(BUILT["initialize"][0].data)[1:9] == b"D" * 8


def test_an_ed25519_instruction_has_all_its_parts_in_itself():
    data = bytes(instructions.ed25519(SIGNED).data)
    assert data[:2] == b"\x01\0"
    signature_at, _, key_at, _, message_at, length, _ = offsets = struct.unpack_from("<7H", data, 2)
    assert [offsets[index] for index in (1, 3, 6)] == [0xFFFF] * 3
    assert data[key_at : key_at + 32] == KEY
    assert data[signature_at : signature_at + 64] == SIGNED.signature
    assert data[message_at:] == SIGNED.message and length == 124
