"""The accounts of the energy program as typed objects: the layout of `docs/program.md`, and nothing guessed.

What a node answers is checked here once and trusted inside: tag, version, length, the kept address, known numbers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from solders.pubkey import Pubkey

from hub.chain.addresses import Addresses
from hub.errors import ChainAccountMalformed
from protocol.errors import ProtocolError
from protocol.topics import decode_meter_id

ACCOUNT_VERSION: Final = 1
CONFIG_BYTES: Final = 320
USER_BYTES: Final = 160
METER_BYTES: Final = 320
METER_KEY_BYTES: Final = 128

_HEADER: Final = struct.Struct("<4sBBBB32s")
_CONFIG: Final = struct.Struct("<8s32s32s32s32s32sQI")
_USER: Final = struct.Struct("<32sqII")
_METER: Final = struct.Struct("<32s32s32s32sIBxHQI4xQqQQQQQQQQqQq")
_METER_KEY: Final = struct.Struct("<32s32sI4xq")


class ConfigState(IntEnum):
    """Whether the program does its work."""

    RUNNING = 1
    PAUSED = 2


class UserKind(IntEnum):
    """What a user registered as."""

    PROSUMER = 1
    CONSUMER = 2


class MeterState(IntEnum):
    """What a meter may do on the chain."""

    ACTIVE = 1
    SUSPENDED = 2
    DEACTIVATED = 3


@dataclass(frozen=True)
class ConfigAccount:
    """The deployment: its domain, who may do what, and its limits."""

    address: Pubkey
    state: ConfigState
    decimals: int
    domain: bytes
    admin: bytes
    hub: bytes
    issuer: bytes
    validator: bytes
    grid_mint: bytes
    capacity_w_max: int
    register_step_wh_max: int


@dataclass(frozen=True)
class UserAccount:
    """A wallet that registered."""

    address: Pubkey
    state: int
    kind: UserKind
    wallet: bytes
    registered_at_unix_s: int
    meters: int
    meters_ever: int


@dataclass(frozen=True)
class MeterAccount:
    """A meter: whose it is, its key, the last seal presented, and what came of it. Counters in Wh.

    `high_…`: how far any earlier key had come; a key that begins lower gets no production out of that time again.
    """

    address: Pubkey
    state: MeterState
    kind: int
    meter_id: str
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
    registered_at_unix_s: int
    high_production_wh: int
    high_until_unix_s: int


@dataclass(frozen=True)
class MeterKeyAccount:
    """That a key belongs to this meter, for ever."""

    address: Pubkey
    key: bytes
    meter: bytes
    key_epoch: int
    registered_at_unix_s: int


Account = ConfigAccount | UserAccount | MeterAccount | MeterKeyAccount


def decode_account(address: Pubkey, data: bytes) -> Account:
    """The account that these bytes are, whose `address` this is. Raises ChainAccountMalformed whatever the bytes."""
    if len(data) < _HEADER.size:
        raise ChainAccountMalformed(f"{address}: {len(data)} bytes")
    tag, version, _bump, state, kind, own = _HEADER.unpack_from(data)
    if version != ACCOUNT_VERSION:
        raise ChainAccountMalformed(f"{address}: version {version} of {tag!r}")
    if own != bytes(address):
        raise ChainAccountMalformed(f"{address}: it says to be {Pubkey.from_bytes(own)}")
    try:
        match tag, len(data):
            case b"CWCF", 320:
                return _decode_config(address, state, kind, data)
            case b"CWUS", 160:
                return _decode_user(address, state, kind, data)
            case b"CWME", 320:
                return _decode_meter(address, state, kind, data)
            case b"CWMK", 128:
                return MeterKeyAccount(address, *_METER_KEY.unpack_from(data, _HEADER.size))
    except (ValueError, ProtocolError) as fault:
        raise ChainAccountMalformed(f"{address}: {fault}") from fault
    raise ChainAccountMalformed(f"{address}: {len(data)} bytes of {tag!r}")


def address_of(account: Account, at: Addresses) -> Pubkey:
    """Where an account that holds this must lie, in this deployment."""
    match account:
        case ConfigAccount():
            return at.config()
        case UserAccount(wallet=wallet):
            return at.user(wallet)
        case MeterAccount(meter_id=meter_id):
            return at.meter(meter_id)
        case MeterKeyAccount(key=key):
            return at.meter_key(key)


def _decode_config(address: Pubkey, state: int, decimals: int, data: bytes) -> ConfigAccount:
    domain, admin, hub, issuer, validator, mint, capacity_w_max, step_wh_max = _CONFIG.unpack_from(data, _HEADER.size)
    return ConfigAccount(
        address, ConfigState(state), decimals, domain, admin, hub, issuer, validator, mint, capacity_w_max, step_wh_max
    )


def _decode_user(address: Pubkey, state: int, kind: int, data: bytes) -> UserAccount:
    return UserAccount(address, state, UserKind(kind), *_USER.unpack_from(data, _HEADER.size))


def _decode_meter(address: Pubkey, state: int, kind: int, data: bytes) -> MeterAccount:
    meter_id, *rest = _METER.unpack_from(data, _HEADER.size)
    return MeterAccount(address, MeterState(state), kind, decode_meter_id(meter_id), *rest)
