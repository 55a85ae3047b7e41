"""Where things are on the chain: derived, never taken from anybody's word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from solders.pubkey import Pubkey

from protocol.limits import METER_ID_BYTES_MAX

SYSTEM_PROGRAM: Final = Pubkey.default()
TOKEN_2022_PROGRAM: Final = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED_TOKEN_PROGRAM: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
ED25519_PROGRAM: Final = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")
COMPUTE_BUDGET_PROGRAM: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
LOOKUP_TABLE_PROGRAM: Final = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
LOADER_PROGRAM: Final = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
INSTRUCTIONS_SYSVAR: Final = Pubkey.from_string("Sysvar1nstructions1111111111111111111111111")
RENT_SYSVAR: Final = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
CLOCK_SYSVAR: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")

ADDRESSES_CACHED_MAX: Final = 100_000
"""Deriving one takes about 30 µs; so many take some 20 MB."""


@lru_cache(maxsize=ADDRESSES_CACHED_MAX)
def _derive(program_id: Pubkey, *seeds: bytes) -> Pubkey:
    return Pubkey.find_program_address(list(seeds), program_id)[0]


def meter_id_bytes(meter_id: str) -> bytes:
    """A meter id as seals, statements and accounts hold it: padded with zeros to 32 bytes."""
    encoded = meter_id.encode()
    assert 0 < len(encoded) <= METER_ID_BYTES_MAX, meter_id
    return encoded.ljust(METER_ID_BYTES_MAX, b"\0")


@dataclass(frozen=True)
class Addresses:
    """The addresses of one deployment of the energy program (`docs/program.md`). Keys and wallets are 32 bytes."""

    program_id: Pubkey

    def config(self) -> Pubkey:
        """The one Config; it is also the authority that mints GRID."""
        return _derive(self.program_id, b"config")

    def user(self, wallet: bytes) -> Pubkey:
        """The User of a wallet."""
        return _derive(self.program_id, b"user", wallet)

    def meter(self, meter_id: str) -> Pubkey:
        """The Meter of this id."""
        return _derive(self.program_id, b"meter", meter_id_bytes(meter_id))

    def meter_key(self, key: bytes) -> Pubkey:
        """The MeterKey of a meter's public key."""
        return _derive(self.program_id, b"key", key)

    def grid_account(self, owner: bytes, mint: Pubkey) -> Pubkey:
        """The owner's associated token account of a Token-2022 mint."""
        return _derive(ASSOCIATED_TOKEN_PROGRAM, owner, bytes(TOKEN_2022_PROGRAM), bytes(mint))

    def program_data(self) -> Pubkey:
        """Where the loader keeps the program's bytes and its upgrade authority."""
        return _derive(LOADER_PROGRAM, bytes(self.program_id))
