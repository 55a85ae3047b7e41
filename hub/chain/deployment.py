"""Bringing the energy program to a chain and setting it up: what an operator does by hand, with keys of its own.

The pieces of a program go into a buffer whose key follows from the payer's key and from the program's bytes, so that an
interrupted deployment finds it again, writes what is missing, and goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountWithSeedParams, create_account_with_seed

from hub.chain import instructions, loader
from hub.chain.accounts import ConfigAccount
from hub.chain.addresses import LOADER_PROGRAM, TOKEN_2022_PROGRAM, Addresses
from hub.chain.by_hand import carry_out, fees_lamports
from hub.chain.chain_state import (
    PROGRAM_BYTES,
    PROGRAM_DATA_HEADER_BYTES,
    get_config,
    get_program_data,
    holds,
)
from hub.chain.instructions import Roles
from hub.chain.rpc import Node
from hub.chain.rpc_answers import Level, NodeAccount
from hub.chain.token_2022 import MINT_BYTES, TokenName, initialize_grid_mint, mint_bytes_with_name
from hub.errors import ProgramDiffers, ProgramNotDeployed, ProgramNotInitialized, SettingsInvalid, TransactionRefused

ROOM_FACTOR: Final = 2
"""A program gets room for one twice its size, so that an upgrade seldom has to make room first."""
PIECES_AT_ONCE: Final = 8

Say = Callable[[str], None]
"""Where an operator reads how far it is."""


@dataclass(frozen=True)
class Cost:
    """What a step takes from the payer, in lamports: kept on the chain for good, fees, and what comes back."""

    rent_lamports: int
    fee_lamports: int
    lent_lamports: int = 0


@dataclass(frozen=True)
class Deployer:
    """Who pays, who may upgrade (often the same), and at which level each step waits for the one before."""

    node: Node
    payer: Keypair
    authority: Keypair
    say: Say
    level: Level = "finalized"
    """Of the last step; those on the way are content with confirmed."""
    compute_unit_price_micro_lamports: int = 0
    """Offered so that a busy cluster takes its transactions."""

    @property
    def signers(self) -> list[Keypair]:
        """The payer first."""
        return [self.payer] if self.payer == self.authority else [self.payer, self.authority]

    async def carry_out(self, steps: Sequence[Instruction], signers: Sequence[Keypair], level: Level) -> None:
        """One transaction, waited for."""
        await carry_out(self.node, steps, signers, level, self.compute_unit_price_micro_lamports)


def buffer_key(payer: Keypair, program: bytes) -> Keypair:
    """The key of the buffer for these bytes: nobody but the payer can know it, and it is always the same."""
    return Keypair.from_seed(hashlib.sha256(b"commonwatt buffer" + bytes(payer)[:32] + program).digest())


async def is_deployed(node: Node, program_id: Pubkey) -> bool:
    """Whether a program is at this address."""
    try:
        await get_program_data(node, program_id, "confirmed")
    except ProgramNotDeployed:
        return False
    return True


async def deployment_cost(node: Node, program: bytes, compute_unit_price_micro_lamports: int = 0) -> Cost:
    """Of `deploy`, from nothing."""
    kept = await node.rent_lamports(PROGRAM_BYTES)
    kept += await node.rent_lamports(PROGRAM_DATA_HEADER_BYTES + ROOM_FACTOR * len(program))
    lent = await node.rent_lamports(loader.BUFFER_HEADER_BYTES + len(program))
    pieces = -(-len(program) // loader.PIECE_BYTES)
    fees = fees_lamports(2 * pieces + 5, pieces + 2, compute_unit_price_micro_lamports)
    return Cost(kept, fees, lent)


async def upgrade_cost(
    node: Node, program_id: Pubkey, program: bytes, compute_unit_price_micro_lamports: int = 0
) -> Cost:
    """Of `upgrade`: the buffer is lent, room that is not there is kept. Raises ProgramNotDeployed."""
    room_bytes = len((await get_program_data(node, program_id)).content)
    more_bytes = room_missing_bytes(room_bytes, program)
    kept = 0
    if more_bytes:
        kept = await node.rent_lamports(PROGRAM_DATA_HEADER_BYTES + room_bytes + more_bytes)
        kept -= await node.rent_lamports(PROGRAM_DATA_HEADER_BYTES + room_bytes)
    lent = await node.rent_lamports(loader.BUFFER_HEADER_BYTES + len(program))
    pieces = -(-len(program) // loader.PIECE_BYTES)
    fees = fees_lamports(2 * pieces + 6, pieces + 3, compute_unit_price_micro_lamports)
    return Cost(kept, fees, lent)


def room_missing_bytes(room_bytes: int, program: bytes) -> int:
    """By how much a program's room is to be made larger for this one; 0 if it fits."""
    missing_bytes = len(program) - room_bytes
    return 0 if missing_bytes <= 0 else max(missing_bytes, loader.EXTENSION_BYTES_MIN)


async def deploy(deployer: Deployer, program_key: Keypair, program: bytes) -> None:
    """Bring a program to the chain, at the address of `program_key`. Again: nothing happens.

    Raises ProgramDiffers if another program is there, TransactionRefused, TransactionExpired, errors of the chain.
    """
    node, program_id = deployer.node, program_key.pubkey()
    if await is_deployed(node, program_id):
        present = await get_program_data(node, program_id, "confirmed")
        if not holds(present.content, program):
            raise ProgramDiffers("another program has this address; `upgrade` puts this one in its place")
        deployer.say("The program is there already.")
        return
    buffer = await _fill_buffer(deployer, program)
    room_bytes = ROOM_FACTOR * len(program)
    steps = loader.deploy(
        deployer.payer.pubkey(),
        program_id,
        buffer,
        deployer.authority.pubkey(),
        room_bytes,
        await node.rent_lamports(PROGRAM_BYTES),
    )
    deployer.say(f"Making the program {program_id}.")
    deploying = deployer.carry_out(steps, [*deployer.signers, program_key], deployer.level)
    await _unless_done(deploying, lambda: _is_there(node, program_id, program))


async def upgrade(deployer: Deployer, program_id: Pubkey, program: bytes) -> None:
    """Put this program in the place of the present one, with more room if it needs that. Again: nothing happens.

    Raises ProgramNotDeployed, ProgramDiffers if this key may not upgrade it, and as `deploy`.
    """
    node = deployer.node
    present = await get_program_data(node, program_id)
    if holds(present.content, program):
        deployer.say("The program is this one already.")
        return
    if present.upgrade_authority != bytes(deployer.authority.pubkey()):
        raise ProgramDiffers("this key may not upgrade it")
    if more_bytes := room_missing_bytes(len(present.content), program):
        deployer.say(f"Making room for {more_bytes} bytes more.")
        extension = loader.extend(program_id, deployer.payer.pubkey(), more_bytes)
        await deployer.carry_out([extension], [deployer.payer], deployer.level)
    buffer = await _fill_buffer(deployer, program)
    step = loader.upgrade(program_id, buffer, deployer.authority.pubkey(), deployer.payer.pubkey())
    deployer.say(f"Upgrading the program {program_id}.")
    upgrading = deployer.carry_out([step], deployer.signers, deployer.level)
    await _unless_done(upgrading, lambda: _is_there(node, program_id, program))


async def set_upgrade_authority(deployer: Deployer, program_id: Pubkey, new_authority: Pubkey | None) -> None:
    """Hand the right to upgrade to another key; None: to nobody, for ever."""
    step = loader.set_upgrade_authority(program_id, deployer.authority.pubkey(), new_authority)
    await deployer.carry_out([step], deployer.signers, deployer.level)


def mint_seed(domain: bytes) -> str:
    """The mint's address follows from the authority's key and this."""
    return f"GRID {domain.hex()}"


def grid_mint_of(authority: Pubkey, domain: bytes) -> Pubkey:
    """Where `initialize` makes the mint of GRID."""
    return Pubkey.create_with_seed(authority, mint_seed(domain), TOKEN_2022_PROGRAM)


async def initialization_cost(node: Node, name: TokenName, compute_unit_price_micro_lamports: int = 0) -> Cost:
    """Of `initialize`."""
    kept = await node.rent_lamports(320) + await node.rent_lamports(mint_bytes_with_name(name))
    return Cost(kept, fees_lamports(1, 1, compute_unit_price_micro_lamports))


async def initialize(
    node: Node,
    authority: Keypair,
    program_id: Pubkey,
    domain: bytes,
    roles: Roles,
    name: TokenName,
    level: Level,
    compute_unit_price_micro_lamports: int = 0,
) -> None:
    """Make the mint of GRID, hand it to the program, and make the Config: one transaction, all or nothing.

    `authority` is the program's upgrade authority, pays, and becomes the admin.
    """
    at, payer = Addresses(program_id), authority.pubkey()
    mint = grid_mint_of(payer, domain)
    account = CreateAccountWithSeedParams(
        from_pubkey=payer,
        to_pubkey=mint,
        base=payer,
        seed=mint_seed(domain),
        lamports=await node.rent_lamports(mint_bytes_with_name(name)),
        space=MINT_BYTES,
        owner=TOKEN_2022_PROGRAM,
    )
    steps = [
        create_account_with_seed(account),
        *initialize_grid_mint(mint, payer, at.config(), name),
        instructions.initialize(at, bytes(payer), mint, domain, roles),
    ]
    await carry_out(node, steps, [authority], level, compute_unit_price_micro_lamports)


async def find_config(node: Node, program_id: Pubkey) -> ConfigAccount | None:
    """The Config, if there is one."""
    try:
        return await get_config(node, program_id, "confirmed")
    except ProgramNotInitialized:
        return None


async def _unless_done(act: Awaitable[None], is_done: Callable[[], Awaitable[bool]]) -> None:
    """Do this. If it is refused because it was done meanwhile, by the transaction of a command that was interrupted and
    given again at once, all is well."""
    try:
        await act
    except TransactionRefused:
        if not await is_done():
            raise


async def _is_there(node: Node, program_id: Pubkey, program: bytes) -> bool:
    """Whether this very program is at this address."""
    if not await is_deployed(node, program_id):
        return False
    return holds((await get_program_data(node, program_id, "confirmed")).content, program)


async def _fill_buffer(deployer: Deployer, program: bytes) -> Pubkey:
    """A buffer on the chain with this program in it."""
    node, key = deployer.node, buffer_key(deployer.payer, program)
    buffer, authority = key.pubkey(), deployer.authority.pubkey()
    account = await node.find_account(buffer, "confirmed")
    if account is None:
        deployer.say(f"Making a buffer of {len(program)} bytes, {buffer}.")
        lamports = await node.rent_lamports(loader.BUFFER_HEADER_BYTES + len(program))
        steps = loader.create_buffer(deployer.payer.pubkey(), buffer, authority, len(program), lamports)
        making = deployer.carry_out(steps, [deployer.payer, key], "confirmed")

        async def is_made() -> bool:
            return await node.find_account(buffer, "confirmed") is not None

        await _unless_done(making, is_made)
        account = await node.find_account(buffer, "confirmed")
    while pieces := list(loader.pieces_missing(program, _buffered(account, authority))):
        deployer.say(f"Writing {len(pieces)} pieces.")
        turns = asyncio.Semaphore(PIECES_AT_ONCE)

        async def write(at: int, piece: bytes, turns: asyncio.Semaphore = turns) -> None:
            async with turns:
                step = loader.write_piece(buffer, authority, at, piece)
                await deployer.carry_out([step], deployer.signers, "confirmed")

        try:
            async with asyncio.TaskGroup() as group:
                for at, piece in pieces:
                    group.create_task(write(at, piece))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None  # the same for all, nearly always
        account = await node.find_account(buffer, "confirmed")
    return buffer


def _buffered(account: NodeAccount | None, authority: Pubkey) -> bytes:
    expected = loader.BUFFER_TAG.to_bytes(4, "little") + b"\x01" + bytes(authority)
    if account is None or account.owner != bytes(LOADER_PROGRAM) or account.data[:37] != expected:
        raise SettingsInvalid("the buffer on the chain belongs to another authority: deploy with the key that began it")
    return account.data[loader.BUFFER_HEADER_BYTES :]
