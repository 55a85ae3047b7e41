"""Builders of the energy program's instructions, one function each, as `docs/program.md` lists them.

Pure: addresses are derived, nothing is asked. Keys and wallets are 32 bytes; energy in Wh, power in W.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from hub.chain.accounts import MeterState, UserKind
from hub.chain.addresses import (
    COMPUTE_BUDGET_PROGRAM,
    ED25519_PROGRAM,
    INSTRUCTIONS_SYSVAR,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    Addresses,
)

ED25519_HEADER_BYTES: Final = 2
ED25519_OFFSETS_BYTES: Final = 14
THIS_INSTRUCTION: Final = 0xFFFF

INITIALIZE, REGISTER_USER, REGISTER_METER, ROTATE_METER_KEY, SUBMIT_READING = range(5)
SETTLE_METER_BALANCE, WRITE_OFF, SET_METER_STATUS, DEACTIVATE_METER, PAUSE, CONFIGURE = range(5, 11)


@dataclass(frozen=True)
class Signed:
    """What somebody's Ed25519 key signed: 32, any number of, and 64 bytes."""

    key: bytes
    message: bytes
    signature: bytes


@dataclass(frozen=True)
class Roles:
    """Who may do what, and how large a meter may be: what initialize and configure set."""

    hub: bytes
    issuer: bytes
    validator: bytes
    capacity_w_max: int
    register_step_wh_max: int

    def encode(self) -> bytes:
        """As the instructions carry it."""
        limits = struct.pack("<QI", self.capacity_w_max, self.register_step_wh_max)
        return self.hub + self.issuer + self.validator + limits


def ed25519(signed: Signed) -> Instruction:
    """Lets the chain verify one signature, all of whose parts lie in this instruction."""
    start = ED25519_HEADER_BYTES + ED25519_OFFSETS_BYTES
    key_at, signature_at, message_at = start, start + 32, start + 96
    offsets = struct.pack(
        "<HHHHHHH",
        *(signature_at, THIS_INSTRUCTION, key_at, THIS_INSTRUCTION),
        *(message_at, len(signed.message), THIS_INSTRUCTION),
    )
    assert len(signed.key) == 32 and len(signed.signature) == 64
    return Instruction(ED25519_PROGRAM, b"\x01\x00" + offsets + signed.key + signed.signature + signed.message, [])


def compute_unit_limit(units: int) -> Instruction:
    """So many compute units at most; more than needed costs nothing by itself."""
    return Instruction(COMPUTE_BUDGET_PROGRAM, struct.pack("<BI", 2, units), [])


def compute_unit_price(micro_lamports: int) -> Instruction:
    """What is offered per compute unit of the limit."""
    return Instruction(COMPUTE_BUDGET_PROGRAM, struct.pack("<BQ", 3, micro_lamports), [])


def initialize(at: Addresses, authority: bytes, grid_mint: Pubkey, domain: bytes, roles: Roles) -> Instruction:
    """Make the Config; `authority` is the program's upgrade authority, pays, and becomes the admin."""
    return _instruction(
        at,
        INITIALIZE,
        domain + roles.encode(),
        _writable_signer(authority),
        _writable(at.config()),
        _read(grid_mint),
        _read(at.program_data()),
        _read(SYSTEM_PROGRAM),
    )


def register_user(at: Addresses, hub: bytes, wallet: bytes, kind: UserKind) -> Instruction:
    """Make the User of a wallet, which signs; the hub pays the rent."""
    return _instruction(
        at,
        REGISTER_USER,
        bytes([kind]),
        _writable_signer(hub),
        _signer(wallet),
        _read(at.config()),
        _writable(at.user(wallet)),
        _read(SYSTEM_PROGRAM),
    )


def register_meter(
    at: Addresses,
    hub: bytes,
    owner: bytes,
    meter_id: str,
    grid_mint: Pubkey,
    enrolment: Signed,
    capacity_w: int,
    register_step_wh: int,
) -> tuple[Instruction, ...]:
    """Make Meter and MeterKey from the statement that the meter's key signed (180 bytes); owner and hub sign."""
    return (
        ed25519(enrolment),
        _instruction(
            at,
            REGISTER_METER,
            struct.pack("<QI", capacity_w, register_step_wh),
            _writable_signer(hub),
            _signer(owner),
            _read(at.config()),
            _writable(at.user(owner)),
            _writable(at.meter(meter_id)),
            _writable(at.meter_key(enrolment.key)),
            _read(at.grid_account(owner, grid_mint)),
            _read(INSTRUCTIONS_SYSVAR),
            _read(SYSTEM_PROGRAM),
        ),
    )


def rotate_meter_key(
    at: Addresses, hub: bytes, meter_id: str, statement: Signed, endorsement: Signed
) -> tuple[Instruction, ...]:
    """Give the meter its next key: the statement by the new key, endorsed over the same bytes by the old one or
    the owner."""
    return (
        ed25519(statement),
        ed25519(endorsement),
        _instruction(
            at,
            ROTATE_METER_KEY,
            b"",
            _writable_signer(hub),
            _read(at.config()),
            _writable(at.meter(meter_id)),
            _writable(at.meter_key(statement.key)),
            _read(INSTRUCTIONS_SYSVAR),
            _read(SYSTEM_PROGRAM),
        ),
    )


def submit_reading(
    at: Addresses, hub: bytes, meter_id: str, seal: Signed, business_id: UUID
) -> tuple[Instruction, ...]:
    """Present a seal (124 bytes) that the meter's key signed."""
    return (
        ed25519(seal),
        _instruction(
            at,
            SUBMIT_READING,
            business_id.bytes,
            _signer(hub),
            _read(at.config()),
            _writable(at.meter(meter_id)),
            _read(INSTRUCTIONS_SYSVAR),
        ),
    )


def settle(
    at: Addresses, hub: bytes, meter_id: str, grid_mint: Pubkey, grid_account: Pubkey, business_id: UUID
) -> tuple[Instruction, ...]:
    """Mint what the meter has earned and was not yet given, to the account that its registration fixed."""
    return (
        _instruction(
            at,
            SETTLE_METER_BALANCE,
            business_id.bytes,
            _signer(hub),
            _read(at.config()),
            _writable(at.meter(meter_id)),
            _writable(grid_mint),
            _writable(grid_account),
            _read(TOKEN_2022_PROGRAM),
        ),
    )


def write_off(
    at: Addresses,
    hub: bytes,
    meter_id: str,
    seal: Signed,
    production_wh: int,
    surplus_wh: int,
    business_id: UUID,
) -> tuple[Instruction, ...]:
    """Present a seal and set what is written off in all until there, absolutely: it can only take away."""
    return (
        ed25519(seal),
        _instruction(
            at,
            WRITE_OFF,
            business_id.bytes + struct.pack("<QQ", production_wh, surplus_wh),
            _signer(hub),
            _read(at.config()),
            _writable(at.meter(meter_id)),
            _read(INSTRUCTIONS_SYSVAR),
        ),
    )


def set_meter_status(at: Addresses, hub: bytes, meter_id: str, state: MeterState) -> tuple[Instruction, ...]:
    """Suspend a meter, or let it go on."""
    accounts = (_signer(hub), _read(at.config()), _writable(at.meter(meter_id)))
    return (_instruction(at, SET_METER_STATUS, bytes([state]), *accounts),)


def deactivate_meter(at: Addresses, authority: bytes, meter_id: str, owner: bytes) -> tuple[Instruction, ...]:
    """End a meter for good; `authority` is the hub or the owner."""
    accounts = (_signer(authority), _read(at.config()), _writable(at.meter(meter_id)), _writable(at.user(owner)))
    return (_instruction(at, DEACTIVATE_METER, b"", *accounts),)


def pause(at: Addresses, authority: bytes, paused: bool) -> Instruction:
    """Stop everything that gives (hub or admin), or go on (admin alone)."""
    return _instruction(at, PAUSE, bytes([paused]), _signer(authority), _writable(at.config()))


def configure(at: Addresses, admin: bytes, new_admin: bytes, roles: Roles) -> Instruction:
    """Set who may do what; the new admin signs too, and may be the present one."""
    accounts = (_signer(admin), _writable(at.config()), _signer(new_admin))
    return _instruction(at, CONFIGURE, new_admin + roles.encode(), *accounts)


def _instruction(at: Addresses, number: int, data: bytes, *accounts: AccountMeta) -> Instruction:
    return Instruction(at.program_id, bytes([number]) + data, list(accounts))


def _writable_signer(key: bytes) -> AccountMeta:
    return AccountMeta(Pubkey.from_bytes(key), is_signer=True, is_writable=True)


def _signer(key: bytes) -> AccountMeta:
    return AccountMeta(Pubkey.from_bytes(key), is_signer=True, is_writable=False)


def _writable(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=True)


def _read(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=False)
