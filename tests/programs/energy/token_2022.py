"""Token-2022 as far as GRID needs it, good mints and bad ones."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountParams, create_account

TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")

METADATA_POINTER_BYTES = 4 + 64
MINT_EXTENSIONS_AT = 166
MINT_TOKENS, FREEZE_ACCOUNT = 0, 1
"""Kinds of authority that a mint has."""

BAD_EXTENSIONS: dict[str, tuple[bytes, int]] = {
    "permanent delegate": (b"\x23" + b"\x05" * 32, 32),
    "frozen accounts": (bytes([28, 0, 1]), 1),
    "non-transferable": (b"\x20", 0),
    "close authority": (b"\x19\x01" + b"\x05" * 32, 32),
    "interest": (bytes([33, 0]) + b"\x05" * 32 + struct.pack("<h", 7), 52),
    "transfer hook": (bytes([36, 0]) + b"\x05" * 64, 64),
    "transfer fee": (bytes([26, 0, 1]) + b"\x05" * 32 + b"\x01" + b"\x05" * 32 + struct.pack("<HQ", 10, 10), 108),
    "pausable": (bytes([44, 0]) + b"\x05" * 32, 33),
    "scaled amount": (bytes([43, 0]) + b"\x05" * 32 + struct.pack("<d", 2.0), 56),
    "group pointer": (bytes([40, 0]) + b"\x05" * 64, 64),
}
"""Instruction that adds the extension to a mint, and its length there."""


def create_mint(
    payer: Pubkey,
    mint: Pubkey,
    lamports: int,
    extension: str | None = None,
    decimals: int = 9,
    freeze_authority: Pubkey | None = None,
    named: bool = True,
) -> list[Instruction]:
    """A mint whose tokens `payer` mints: name it, then hand the authority over."""
    extra = BAD_EXTENSIONS[extension] if extension else None
    space = (MINT_EXTENSIONS_AT + METADATA_POINTER_BYTES * named + (4 + extra[1] if extra else 0)) if (
        named or extra
    ) else 82  # fmt: skip
    instructions = [
        create_account(
            CreateAccountParams(from_pubkey=payer, to_pubkey=mint, lamports=lamports, space=space, owner=TOKEN_2022)
        )
    ]
    if named:
        instructions.append(_at_mint(mint, bytes([39, 0]) + bytes(payer) + bytes(mint)))
    if extra:
        instructions.append(_at_mint(mint, extra[0]))
    freezes = b"\0" if freeze_authority is None else b"\1" + bytes(freeze_authority)
    instructions.append(_at_mint(mint, bytes([20, decimals]) + bytes(payer) + freezes))
    if named:
        instructions.append(_name(payer, mint))
    return instructions


def _name(authority: Pubkey, mint: Pubkey) -> Instruction:
    words = b"".join(
        struct.pack("<I", len(word)) + word for word in (b"Grid energy", b"GRID", b"https://example.test/grid.json")
    )
    initialize = hashlib.sha256(b"spl_token_metadata_interface:initialize_account").digest()[:8]
    return Instruction(
        TOKEN_2022,
        initialize + words,
        [
            AccountMeta(mint, False, True),
            AccountMeta(authority, False, False),
            AccountMeta(mint, False, False),
            AccountMeta(authority, True, False),
        ],
    )


def _at_mint(mint: Pubkey, data: bytes) -> Instruction:
    return Instruction(TOKEN_2022, data, [AccountMeta(mint, False, True)])


def set_authority(mint: Pubkey, authority: Pubkey, kind: int, successor: Pubkey | None) -> Instruction:
    option = b"\0" if successor is None else b"\1" + bytes(successor)
    metas = [AccountMeta(mint, False, True), AccountMeta(authority, True, False)]
    return Instruction(TOKEN_2022, bytes([6, kind]) + option, metas)


def mint_to(mint: Pubkey, account: Pubkey, authority: Pubkey, amount_units: int) -> Instruction:
    metas = [AccountMeta(mint, False, True), AccountMeta(account, False, True), AccountMeta(authority, True, False)]
    return Instruction(TOKEN_2022, b"\x07" + struct.pack("<Q", amount_units), metas)


def burn(account: Pubkey, mint: Pubkey, owner: Pubkey, amount_units: int) -> Instruction:
    metas = [AccountMeta(account, False, True), AccountMeta(mint, False, True), AccountMeta(owner, True, False)]
    return Instruction(TOKEN_2022, b"\x08" + struct.pack("<Q", amount_units), metas)


def token_account(owner: Pubkey, mint: Pubkey, program: Pubkey = TOKEN_2022) -> Pubkey:
    """The owner's associated token account."""
    return Pubkey.find_program_address([bytes(owner), bytes(program), bytes(mint)], ASSOCIATED_TOKEN)[0]


def create_token_account(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    metas = [
        AccountMeta(payer, True, True),
        AccountMeta(token_account(owner, mint), False, True),
        AccountMeta(owner, False, False),
        AccountMeta(mint, False, False),
        AccountMeta(SYSTEM, False, False),
        AccountMeta(TOKEN_2022, False, False),
    ]
    return Instruction(ASSOCIATED_TOKEN, b"\x01", metas)


def supply_units(mint: Sequence[int] | bytes) -> int:
    return int(struct.unpack_from("<Q", bytes(mint), 36)[0])


def balance_units(account: bytes) -> int:
    return int(struct.unpack_from("<Q", account, 64)[0])
