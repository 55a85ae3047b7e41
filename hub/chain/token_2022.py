"""What is needed of Token-2022 and of the associated token program: GRID's mint, its name, and members' accounts."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from hub.chain.addresses import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM, TOKEN_2022_PROGRAM
from hub.errors import ChainAccountMalformed

GRID_DECIMALS: Final = 9
UNITS_PER_WH: Final = 10**6

TOKEN_ACCOUNT_BYTES_MIN: Final = 165
ACCOUNT_TYPE_AT: Final = 165
EXTENSIONS_AT: Final = 166
MINT_TYPE: Final = 1
ACCOUNT_TYPE: Final = 2
METADATA_POINTER: Final = 18
TOKEN_METADATA: Final = 19
METADATA_POINTER_BYTES: Final = 64
GRID_ACCOUNT_BYTES: Final = 170
"""With the one extension that every associated account of Token-2022 has (ImmutableOwner)."""
MINT_BYTES: Final = EXTENSIONS_AT + 4 + METADATA_POINTER_BYTES
"""Before the metadata, for which Token-2022 makes the account longer; its rent must be there already."""

_METADATA_INITIALIZE: Final = hashlib.sha256(b"spl_token_metadata_interface:initialize_account").digest()[:8]
_AUTHORITY_MINT_TOKENS: Final = 0


@dataclass(frozen=True)
class TokenAccount:
    """A token account. `amount_units` in base units of its mint."""

    mint: bytes
    owner: bytes
    amount_units: int
    frozen: bool


@dataclass(frozen=True)
class Mint:
    """A mint. `supply_units` in its base units; an authority is 32 bytes, or None for nobody."""

    mint_authority: bytes | None
    supply_units: int
    decimals: int
    freeze_authority: bytes | None
    extensions: tuple[int, ...]


@dataclass(frozen=True)
class TokenName:
    """What wallets show."""

    name: str
    symbol: str
    uri: str

    def encode(self) -> bytes:
        """Borsh: each string after its length."""
        encoded = [text.encode() for text in (self.name, self.symbol, self.uri)]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def decode_token_account(address: Pubkey, data: bytes) -> TokenAccount:
    """Raises ChainAccountMalformed unless these bytes are an initialised token account."""
    if len(data) < TOKEN_ACCOUNT_BYTES_MIN or data[108] not in (1, 2):
        raise ChainAccountMalformed(f"{address}: not a token account")
    if len(data) > ACCOUNT_TYPE_AT and data[ACCOUNT_TYPE_AT] != ACCOUNT_TYPE:
        raise ChainAccountMalformed(f"{address}: not a token account")
    return TokenAccount(data[:32], data[32:64], int.from_bytes(data[64:72], "little"), data[108] == 2)


def decode_mint(address: Pubkey, data: bytes) -> Mint:
    """Raises ChainAccountMalformed unless these bytes are an initialised mint of Token-2022."""
    plain = len(data) == 82
    extended = len(data) > EXTENSIONS_AT and data[ACCOUNT_TYPE_AT] == MINT_TYPE
    if not (plain or extended) or data[45] != 1:
        raise ChainAccountMalformed(f"{address}: not a mint")
    return Mint(
        data[4:36] if data[:4] == b"\x01\0\0\0" else None,
        int.from_bytes(data[36:44], "little"),
        data[44],
        data[50:82] if data[46:50] == b"\x01\0\0\0" else None,
        _extensions(address, data) if extended else (),
    )


def create_grid_account(payer: bytes, owner: bytes, mint: Pubkey, grid_account: Pubkey) -> Instruction:
    """Make the owner's associated account of this mint, paid by `payer`, unless it is there."""
    return Instruction(
        ASSOCIATED_TOKEN_PROGRAM,
        b"\x01",  # CreateIdempotent
        [
            AccountMeta(Pubkey.from_bytes(payer), True, True),
            AccountMeta(grid_account, False, True),
            AccountMeta(Pubkey.from_bytes(owner), False, False),
            AccountMeta(mint, False, False),
            AccountMeta(SYSTEM_PROGRAM, False, False),
            AccountMeta(TOKEN_2022_PROGRAM, False, False),
        ],
    )


def initialize_grid_mint(mint: Pubkey, authority: Pubkey, config: Pubkey, name: TokenName) -> tuple[Instruction, ...]:
    """Make a mint of an account of MINT_BYTES: its name in itself, then its authority handed to the program.

    `authority` mints for the moment that Token-2022 needs to believe the name, and keeps the name alone.
    """
    written = AccountMeta(mint, False, True)
    signs = AccountMeta(authority, True, False)
    pointer = bytes([39, 0]) + bytes(32) + bytes(mint)  # nobody may point elsewhere later
    metadata = _METADATA_INITIALIZE + name.encode()
    return (
        Instruction(TOKEN_2022_PROGRAM, pointer, [written]),
        Instruction(TOKEN_2022_PROGRAM, bytes([20, GRID_DECIMALS]) + bytes(authority) + b"\0", [written]),
        Instruction(
            TOKEN_2022_PROGRAM,
            metadata,
            [written, AccountMeta(authority, False, False), AccountMeta(mint, False, False), signs],
        ),
        Instruction(TOKEN_2022_PROGRAM, bytes([6, _AUTHORITY_MINT_TOKENS, 1]) + bytes(config), [written, signs]),
    )


def mint_bytes_with_name(name: TokenName) -> int:
    """The length that the mint has in the end: what its rent is for."""
    return MINT_BYTES + 4 + 64 + len(name.encode()) + 4


def _extensions(address: Pubkey, data: bytes) -> tuple[int, ...]:
    kinds: list[int] = []
    at = EXTENSIONS_AT
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        if kind == 0:
            break
        if at + 4 + length > len(data):
            raise ChainAccountMalformed(f"{address}: an extension reaches beyond the account")
        kinds.append(kind)
        at += 4 + length
    return tuple(kinds)
