"""How it stands with the chain, in plain words: every check that the hub makes, what the program says of itself, and
how long the hub's lamports will last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import base58
from solders.pubkey import Pubkey

from hub.chain.accounts import CONFIG_BYTES, METER_BYTES, METER_KEY_BYTES, USER_BYTES, ConfigAccount, ConfigState
from hub.chain.by_hand import FEE_LAMPORTS
from hub.chain.chain_state import (
    KEY_LAMPORTS_MIN,
    ProgramData,
    check_genesis,
    check_program,
    get_config,
)
from hub.chain.rpc import Node
from hub.chain.token_2022 import GRID_ACCOUNT_BYTES, UNITS_PER_WH, decode_mint
from hub.errors import HubError

LAMPORTS_PER_SOL: Final = 10**9
MINT_SIGNATURES: Final = 4
"""Of a transaction that mints for three meters: the hub's, and each meter's, which the chain verifies."""
METERS_PER_MINT: Final = 3
assert CONFIG_BYTES == METER_BYTES

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One finding. `good` None: it is told, not judged."""

    good: bool | None
    text: str


def sol(lamports: int) -> str:
    """An amount of lamports for people: both, and without rounding."""
    whole, rest = divmod(lamports, LAMPORTS_PER_SOL)
    return f"{whole}.{rest:09d} SOL ({lamports} lamports)"


async def describe_chain(
    node: Node, program_id: Pubkey, genesis_hash: bytes | None, domain: bytes | None, hub: bytes | None
) -> list[Line]:
    """All that can be said; a check that cannot be made ends it, for those behind it would say nothing."""
    lines: list[Line] = []
    found = await _tried(lines, node.genesis_hash)
    if found is None:
        return lines
    if genesis_hash is None:
        lines.append(Line(None, f"The chain began with {base58.b58encode(found).decode()} (hex {found.hex()})."))
    else:
        if await _tried(lines, lambda: _is_genesis(node, genesis_hash)) is None:
            return lines
        lines.append(Line(True, f"The node at {node.host} is on the chain that the settings name."))
    finalized = await _tried(lines, node.finalized)
    if finalized is not None:
        lines.append(Line(None, f"Final up to slot {finalized.slot}, block height {finalized.block_height}."))
    program = await _tried(lines, lambda: check_program(node, program_id))
    if program is None:
        return lines
    lines += _about_program(program_id, program)
    config = await _tried(lines, lambda: get_config(node, program_id))
    if config is None:
        return lines
    lines += _about_config(config, domain, hub)
    lines += await _about_mint(node, config)
    lines += await _about_key(node, config.hub if hub is None else hub)
    return lines


async def _is_genesis(node: Node, genesis_hash: bytes) -> bool:
    await check_genesis(node, genesis_hash)
    return True


async def _tried(lines: list[Line], ask: Callable[[], Awaitable[T]]) -> T | None:
    try:
        return await ask()
    except HubError as fault:
        lines.append(Line(False, f"{fault.title}: {fault.detail}." if fault.detail else f"{fault.title}."))
        return None


def _about_program(program_id: Pubkey, program: ProgramData) -> list[Line]:
    authority = program.upgrade_authority
    may = "nobody can upgrade it any more" if authority is None else f"{Pubkey.from_bytes(authority)} may upgrade it"
    return [
        Line(True, f"The program {program_id} is this release's, deployed in slot {program.slot}."),
        Line(None, f"It has room for {len(program.content)} bytes; {may}."),
    ]


def _about_config(config: ConfigAccount, domain: bytes | None, hub: bytes | None) -> list[Line]:
    running = config.state == ConfigState.RUNNING
    same_domain = None if domain is None else config.domain == domain
    same_hub = None if hub is None else config.hub == hub
    of_domain = "" if same_domain is not False else f", not {domain.hex() if domain else ''} as this community's"
    of_hub = "" if same_hub is not False else ", not this hub's key"
    return [
        Line(True if running else None, "It is running." if running else "It is PAUSED: nothing is minted."),
        Line(same_domain, f"Its domain is {config.domain.hex()}{of_domain}."),
        Line(same_hub, f"Its hub is {Pubkey.from_bytes(config.hub)}{of_hub}."),
        Line(None, f"Its admin is {Pubkey.from_bytes(config.admin)}."),
        Line(None, f"Its issuer is {Pubkey.from_bytes(config.issuer)}."),
        Line(None, f"Its validator is {Pubkey.from_bytes(config.validator)}."),
        Line(None, f"A meter has at most {config.capacity_w_max} W, and steps of {config.register_step_wh_max} Wh."),
    ]


async def _about_mint(node: Node, config: ConfigAccount) -> list[Line]:
    address = Pubkey.from_bytes(config.grid_mint)
    account = await node.find_account(address)
    if account is None:
        return [Line(False, f"There is no mint of GRID at {address}.")]
    mint = decode_mint(address, account.data)
    ours = mint.mint_authority == bytes(config.address)
    wh = mint.supply_units // UNITS_PER_WH
    authority = "only the program can mint it" if ours else "SOMEBODY ELSE can mint it"
    return [Line(ours, f"GRID is {address}: {wh} Wh in all, and {authority}.")]


async def _about_key(node: Node, hub: bytes) -> list[Line]:
    address = Pubkey.from_bytes(hub)
    lamports = await node.lamports(address)
    sizes = (USER_BYTES, METER_BYTES, METER_KEY_BYTES, GRID_ACCOUNT_BYTES)
    member = sum([await node.rent_lamports(size) for size in sizes]) + 4 * FEE_LAMPORTS
    mint = MINT_SIGNATURES * FEE_LAMPORTS
    left = max(0, lamports - KEY_LAMPORTS_MIN)
    return [
        Line(lamports >= KEY_LAMPORTS_MIN, f"The hub's key {address} has {sol(lamports)}."),
        Line(
            None,
            f"That pays for {left // member} members with a meter ({sol(member)} each),"
            f" or for minting {METERS_PER_MINT * (left // mint)} times ({sol(mint)} for {METERS_PER_MINT} meters).",
        ),
    ]
