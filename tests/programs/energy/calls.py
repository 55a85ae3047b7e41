"""The program's instructions with their accounts by name, so that a test can change any one of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from tests.programs.energy.token_2022 import TOKEN_2022

SYSTEM = Pubkey.default()
INSTRUCTIONS_SYSVAR = Pubkey.from_string("Sysvar1nstructions1111111111111111111111111")

INITIALIZE, REGISTER_USER, REGISTER_METER, ROTATE_METER_KEY, SUBMIT_READING, SETTLE = range(6)
WRITE_OFF, SET_METER_STATUS, DEACTIVATE_METER, PAUSE, CONFIGURE = range(6, 11)

SHAPES: dict[int, str] = {
    INITIALIZE: "authority:sw config:w grid_mint program_data system",
    REGISTER_USER: "hub:sw wallet:s config user:w system",
    REGISTER_METER: "hub:sw owner:s config user:w meter:w meter_key:w grid_account ixs system",
    ROTATE_METER_KEY: "hub:sw config meter:w meter_key:w ixs system",
    SUBMIT_READING: "hub:s config meter:w ixs",
    SETTLE: "hub:s config meter:w grid_mint:w grid_account:w token_2022",
    WRITE_OFF: "hub:s config meter:w ixs",
    SET_METER_STATUS: "hub:s config meter:w",
    DEACTIVATE_METER: "authority:s config meter:w user:w",
    PAUSE: "authority:s config:w",
    CONFIGURE: "admin:s config:w new_admin:s",
}
"""The table of docs/program.md: account names with `s` for a signer and `w` for one that is written."""

DATA_BYTES = {
    INITIALIZE: 8 + 96 + 8 + 4,
    REGISTER_USER: 1,
    REGISTER_METER: 12,
    ROTATE_METER_KEY: 0,
    SUBMIT_READING: 16,
    SETTLE: 16,
    WRITE_OFF: 32,
    SET_METER_STATUS: 1,
    DEACTIVATE_METER: 0,
    PAUSE: 1,
    CONFIGURE: 128 + 8 + 4,
}
"""Length of the data after the number."""


@dataclass(frozen=True)
class Place:
    """One account of an instruction's list."""

    name: str
    signs: bool
    written: bool


def places_of(number: int) -> list[Place]:
    places = []
    for word in SHAPES[number].split():
        name, _, marks = word.partition(":")
        places.append(Place(name, "s" in marks, "w" in marks))
    return places


@dataclass(frozen=True)
class Call:
    """One instruction of the program, still to be changed."""

    program: Pubkey
    number: int
    metas: tuple[tuple[str, AccountMeta], ...]
    data: bytes

    def instruction(self) -> Instruction:
        return Instruction(self.program, bytes([self.number]) + self.data, [meta for _, meta in self.metas])

    def key(self, name: str) -> Pubkey:
        return self._meta(name).pubkey

    def with_data(self, data: bytes) -> Call:
        return replace(self, data=data)

    def with_account(self, name: str, key: Pubkey, signs: bool | None = None) -> Call:
        """Another account in this place, marked as the one before unless said."""
        old = self._meta(name)
        return self._set(name, AccountMeta(key, old.is_signer if signs is None else signs, old.is_writable))

    def unsigned(self, name: str) -> Call:
        old = self._meta(name)
        return self._set(name, AccountMeta(old.pubkey, False, old.is_writable))

    def read_only(self, name: str) -> Call:
        old = self._meta(name)
        return self._set(name, AccountMeta(old.pubkey, old.is_signer, False))

    def first(self, count: int) -> Call:
        """Only so many accounts."""
        return replace(self, metas=self.metas[:count])

    def _meta(self, name: str) -> AccountMeta:
        return next(meta for each, meta in self.metas if each == name)

    def _set(self, name: str, meta: AccountMeta) -> Call:
        return replace(self, metas=tuple((each, meta if each == name else old) for each, old in self.metas))


def call(program: Pubkey, number: int, data: bytes = b"", **accounts: Pubkey) -> Call:
    """A call with the accounts that its place in the table asks for; the fixed ones are known."""
    known = {"ixs": INSTRUCTIONS_SYSVAR, "system": SYSTEM, "token_2022": TOKEN_2022} | accounts
    metas = tuple(
        (place.name, AccountMeta(known[place.name], place.signs, place.written)) for place in places_of(number)
    )
    return Call(program, number, metas, data)


def limits(capacity_w: int, register_step_wh: int) -> bytes:
    return struct.pack("<QI", capacity_w, register_step_wh)
