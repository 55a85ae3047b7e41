"""The program's accounts and events as docs/program.md has them, written down a second time."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import ClassVar, Self

from solders.pubkey import Pubkey

VERSION = 1
RUNNING, PAUSED = 1, 2
ACTIVE, SUSPENDED, DEACTIVATED = 1, 2, 3
PROSUMER, CONSUMER = 1, 2
SOLAR, WIND, BATTERY, GRID_METER = 1, 2, 3, 4
UNITS_PER_WH = 10**6
DECIMALS = 9


class Account:
    """What the four accounts have in common: 40 bytes at the beginning, zeros at the end."""

    TAG: ClassVar[bytes]
    BYTES: ClassVar[int]
    REST: ClassVar[str]

    def encode(self) -> bytes:
        bump, state, kind, address, *rest = astuple(self)  # type: ignore[call-overload]
        head = struct.pack("<4sBBBB32s", self.TAG, VERSION, bump, state, kind, address)
        return (head + struct.pack(self.REST, *rest)).ljust(self.BYTES, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The account, checked to be exactly what encode makes of it: unused bytes are zeros."""
        tag, version, *head = struct.unpack_from("<4sBBBB32s", data)
        assert (tag, version, len(data)) == (cls.TAG, VERSION, cls.BYTES)
        account = cls(*head, *struct.unpack_from(cls.REST, data, 40))
        assert account.encode() == data
        return account


@dataclass(frozen=True)
class Config(Account):
    TAG = b"CWCF"
    BYTES = 320
    REST = "<8s32s32s32s32s32sQI"

    bump: int
    state: int
    kind: int
    address: bytes
    domain: bytes
    admin: bytes
    hub: bytes
    issuer: bytes
    validator: bytes
    grid_mint: bytes
    capacity_w_max: int
    register_step_wh_max: int


@dataclass(frozen=True)
class User(Account):
    TAG = b"CWUS"
    BYTES = 160
    REST = "<32sqII"

    bump: int
    state: int
    kind: int
    address: bytes
    wallet: bytes
    registered_at: int
    meters: int
    meters_ever: int


@dataclass(frozen=True)
class Meter(Account):
    TAG = b"CWME"
    BYTES = 320
    REST = "<32s32s32s32sIBxHQI4xQqQQQQQQQQqQq"

    bump: int
    state: int
    kind: int
    address: bytes
    meter_id: bytes
    owner: bytes
    key: bytes
    grid_account: bytes
    key_epoch: int
    measurement: int
    flags: int
    capacity_w: int
    register_step_wh: int
    sequence: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    settled_wh: int
    written_off_production_wh: int
    written_off_surplus_wh: int
    base_production_wh: int
    base_surplus_wh: int
    registered_at: int
    high_production_wh: int
    high_until_unix_s: int


@dataclass(frozen=True)
class MeterKey(Account):
    TAG = b"CWMK"
    BYTES = 128
    REST = "<32s32sI4xq"

    bump: int
    state: int
    kind: int
    address: bytes
    key: bytes
    meter: bytes
    key_epoch: int
    registered_at: int


ACCOUNTS: dict[bytes, type[Account]] = {each.TAG: each for each in (Config, User, Meter, MeterKey)}


def decode_account(data: bytes) -> Account:
    return ACCOUNTS[data[:4]].decode(data)


@dataclass(frozen=True)
class Event:
    """What an instruction tells of one account that it changed."""

    instruction: int
    business_id: bytes
    amount_units: int
    account: bytes

    HEAD: ClassVar[str] = "<4sBBH16sQ"

    def encode(self) -> bytes:
        head = struct.pack(self.HEAD, b"CWEV", 1, self.instruction, 0, self.business_id, self.amount_units)
        return head + self.account


@dataclass(frozen=True)
class Addresses:
    """Where the accounts of one deployment lie."""

    program: Pubkey

    def config(self) -> Pubkey:
        return self._derive(b"config")

    def user(self, wallet: Pubkey) -> Pubkey:
        return self._derive(b"user", bytes(wallet))

    def meter(self, meter_id: str | bytes) -> Pubkey:
        name = meter_id.encode() if isinstance(meter_id, str) else meter_id
        return self._derive(b"meter", name.ljust(32, b"\0"))

    def meter_key(self, key: Pubkey | bytes) -> Pubkey:
        return self._derive(b"key", bytes(key))

    def _derive(self, *seeds: bytes) -> Pubkey:
        return Pubkey.find_program_address(list(seeds), self.program)[0]


def bump_of(program: Pubkey, *seeds: bytes) -> int:
    return Pubkey.find_program_address(list(seeds), program)[1]
