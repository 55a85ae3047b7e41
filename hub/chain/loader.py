"""The upgradeable loader's instructions, as every cluster has them: a program comes to the chain by ordinary
transactions, in pieces, into a buffer of ours, and from there in one go."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from hub.chain.addresses import CLOCK_SYSVAR, LOADER_PROGRAM, RENT_SYSVAR, SYSTEM_PROGRAM, Addresses

BUFFER_TAG: Final = 1
BUFFER_HEADER_BYTES: Final = 37
PIECE_BYTES: Final = 900
"""With its signature and addresses this fits into a transaction."""
EXTENSION_BYTES_MIN: Final = 10_240
"""Newer clusters make no program larger by less."""

_INITIALIZE_BUFFER, _WRITE, _DEPLOY, _UPGRADE, _SET_AUTHORITY, _CLOSE, _EXTEND = range(7)


def create_buffer(
    payer: Pubkey, buffer: Pubkey, authority: Pubkey, room_bytes: int, lamports: int
) -> list[Instruction]:
    """Make the buffer, which `authority` writes; the buffer's key signs too."""
    space = BUFFER_HEADER_BYTES + room_bytes
    return [
        create_account(
            CreateAccountParams(
                from_pubkey=payer, to_pubkey=buffer, lamports=lamports, space=space, owner=LOADER_PROGRAM
            )
        ),
        Instruction(LOADER_PROGRAM, struct.pack("<I", _INITIALIZE_BUFFER), [_writable(buffer), _read(authority)]),
    ]


def write_piece(buffer: Pubkey, authority: Pubkey, at: int, piece: bytes) -> Instruction:
    """Write a piece of the program into the buffer."""
    data = struct.pack("<IIQ", _WRITE, at, len(piece)) + piece
    return Instruction(LOADER_PROGRAM, data, [_writable(buffer), _signer(authority)])


def deploy(
    payer: Pubkey, program_id: Pubkey, buffer: Pubkey, authority: Pubkey, room_bytes: int, lamports: int
) -> list[Instruction]:
    """Make the program of the buffer, with room for this many bytes; the program's key signs too. The buffer ends."""
    program = CreateAccountParams(
        from_pubkey=payer, to_pubkey=program_id, lamports=lamports, space=36, owner=LOADER_PROGRAM
    )
    accounts = [
        AccountMeta(payer, True, True),
        _writable(Addresses(program_id).program_data()),
        _writable(program_id),
        _writable(buffer),
        _read(RENT_SYSVAR),
        _read(CLOCK_SYSVAR),
        _read(SYSTEM_PROGRAM),
        _signer(authority),
    ]
    return [create_account(program), Instruction(LOADER_PROGRAM, struct.pack("<IQ", _DEPLOY, room_bytes), accounts)]


def upgrade(program_id: Pubkey, buffer: Pubkey, authority: Pubkey, refund_to: Pubkey) -> Instruction:
    """Put the buffer's program in the place of the present one; what the buffer held goes to `refund_to`."""
    accounts = [
        _writable(Addresses(program_id).program_data()),
        _writable(program_id),
        _writable(buffer),
        _writable(refund_to),
        _read(RENT_SYSVAR),
        _read(CLOCK_SYSVAR),
        _signer(authority),
    ]
    return Instruction(LOADER_PROGRAM, struct.pack("<I", _UPGRADE), accounts)


def extend(program_id: Pubkey, payer: Pubkey, more_bytes: int) -> Instruction:
    """Give the program so much more room, which `payer` pays for. In this slot it can be upgraded no more."""
    accounts = [
        _writable(Addresses(program_id).program_data()),
        _writable(program_id),
        _read(SYSTEM_PROGRAM),
        AccountMeta(payer, True, True),
    ]
    return Instruction(LOADER_PROGRAM, struct.pack("<II", _EXTEND, more_bytes), accounts)


def set_upgrade_authority(program_id: Pubkey, authority: Pubkey, new_authority: Pubkey | None) -> Instruction:
    """Hand the right to upgrade to another key, or (None) to nobody, for ever."""
    accounts = [_writable(Addresses(program_id).program_data()), _signer(authority)]
    if new_authority is not None:
        accounts.append(_read(new_authority))
    return Instruction(LOADER_PROGRAM, struct.pack("<I", _SET_AUTHORITY), accounts)


def pieces_missing(program: bytes, written: bytes) -> Iterator[tuple[int, bytes]]:
    """Where the buffer does not yet hold the program, and what belongs there."""
    for at in range(0, len(program), PIECE_BYTES):
        piece = program[at : at + PIECE_BYTES]
        if written[at : at + len(piece)] != piece:
            yield at, piece


def _writable(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=True)


def _signer(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=True, is_writable=False)


def _read(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=False)
