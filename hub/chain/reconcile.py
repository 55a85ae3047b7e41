"""Compares what the program's accounts hold with what the hub believes of them, and sets the latter right.

The events should have told everything. This is for when they could not (the node had forgotten, a log was cut short),
and to know that they did: a difference that nothing explains is an alarm.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from solders.pubkey import Pubkey
from sqlalchemy import Connection, Engine

from hub import logs, metrics
from hub.chain import inbox_store, mirrors, mirrors_store
from hub.chain.accounts import ConfigAccount, MeterKeyAccount, address_of, decode_account
from hub.chain.addresses import Addresses
from hub.chain.inbox import Alarm, Trouble, open_cursor
from hub.chain.inbox_store import Cursor
from hub.chain.mirrors import Mirror, MirroredAccount
from hub.chain.rpc import BLOCKS_AHEAD_MAX, Node
from hub.chain.token_2022 import decode_mint
from hub.db import transaction
from hub.errors import ChainAccountMalformed, ChainAnswersNonsense, ChainDiffers

CATCH_UP_TIMEOUT_S: Final = 30.0
"""For so long the inbox may take to come to the slot of the comparison; after that it counts as behind."""
CATCH_UP_PAUSE_S: Final = 0.2
BEHIND_ALL_OF_ITS_SLOT: Final = 2**31 - 1
NAMED_MAX: Final = 10

MIRROR_DIFFERED: Final = "chain_mirror_differed"
ACCOUNT_MISSING: Final = "chain_account_missing"
ACCOUNT_MALFORMED: Final = "chain_account_malformed"
"""Kinds of alarms."""

MISSED: Final = "missed"
BEHIND: Final = "behind"

Clock = Callable[[], datetime]

AccountReaction = Callable[[Connection, MirroredAccount, int, datetime], None]
"""What a domain does about an account that differed, as it was found at a slot: perhaps no event ever tells of it.
Harmless to repeat, and if an event does after all."""

log = logs.get_logger()


@dataclass(frozen=True)
class Found:
    """The program's accounts as of a slot; MeterKeys are left out, nothing of theirs is not in a Meter."""

    slot: int
    accounts: Mapping[Pubkey, MirroredAccount]
    malformed: tuple[Pubkey, ...]


@dataclass(frozen=True)
class Compared:
    """What came of a comparison. `missed`: of so many repaired mirrors no event is to come. `read_s`: so long the node
    took to tell of all accounts."""

    slot: int
    accounts: int
    repaired: int
    missed: int
    read_s: float = 0.0


async def reconcile_once(
    engine: Engine,
    node: Node,
    genesis_hash: bytes,
    program_id: Pubkey,
    alarm: Alarm,
    clock: Clock,
    catch_up_timeout_s: float = CATCH_UP_TIMEOUT_S,
    reactions: Sequence[AccountReaction] = (),
) -> Compared:
    """Compare all accounts at finalized with the mirrors, and repair those that differ and show nothing later.

    Raises ChainDiffers, ChainAway, ChainRefuses, ChainAnswersNonsense, ChainAccountMalformed.
    """
    if await node.genesis_hash() != genesis_hash:
        raise ChainDiffers("nothing is compared")
    before = await asyncio.to_thread(_read_cursor, engine, genesis_hash, program_id)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    slot, listed = await node.program_accounts(program_id)
    read_s = loop.time() - begun_s
    finalized = await node.finalized()
    if slot > finalized.slot + BLOCKS_AHEAD_MAX:
        raise ChainAnswersNonsense(f"accounts as of slot {slot}, and slot {finalized.slot} is finalized")
    found = decode_all(slot, {each.pubkey: each.account.data for each in listed}, Addresses(program_id))
    config = next((each for each in found.accounts.values() if isinstance(each, ConfigAccount)), None)
    supply = None if config is None else await _read_supply(node, config.grid_mint)
    await _await_inbox(engine, slot, catch_up_timeout_s)
    compared = await asyncio.to_thread(_compare, engine, found, supply, before, alarm, reactions, clock())
    return dataclasses.replace(compared, read_s=read_s)


async def _read_supply(node: Node, mint: bytes) -> tuple[bytes, int, int]:
    """The mint, a slot, and how many units there were at it. Raises ChainAccountMalformed: at Config's mint is none."""
    address = Pubkey.from_bytes(mint)
    slot, [account] = await node.find_accounts([address])
    return mint, slot, decode_mint(address, b"" if account is None else account.data).supply_units


def decode_all(slot: int, listed: Mapping[Pubkey, bytes], at: Addresses) -> Found:
    """What these bytes hold, by address; what does not lie where it must is malformed. Pure."""
    accounts: dict[Pubkey, MirroredAccount] = {}
    malformed = []
    for address, data in listed.items():
        try:
            account = decode_account(address, data)
        except ChainAccountMalformed:
            malformed.append(address)
            continue
        if address_of(account, at) != address:
            malformed.append(address)
            continue
        if not isinstance(account, MeterKeyAccount):
            accounts[address] = account
    return Found(slot, accounts, tuple(malformed))


def differing(found: Found, known: Mapping[Pubkey, Mirror]) -> list[MirroredAccount]:
    """The accounts of which a mirror says something else, or nothing, and nothing later. Pure."""
    return [
        account
        for address, account in found.accounts.items()
        if (mirror := known.get(address)) is None or (mirror.slot <= found.slot and mirror.account != account)
    ]


def _read_cursor(engine: Engine, genesis_hash: bytes, program_id: Pubkey) -> Cursor:
    with transaction(engine) as connection:
        return open_cursor(connection, genesis_hash, program_id)


async def _await_inbox(engine: Engine, slot: int, timeout_s: float) -> None:
    """Until all that came by this slot was read and processed, or the time is over: what then differs was missed."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while loop.time() < until_s and not await asyncio.to_thread(_is_caught_up, engine, slot):
        await asyncio.sleep(CATCH_UP_PAUSE_S)


def _is_caught_up(engine: Engine, slot: int) -> bool:
    with transaction(engine) as connection:
        cursor = inbox_store.find_cursor(connection)
        waiting = inbox_store.count_unprocessed(connection)[inbox_store.WAITING]
    return cursor is not None and cursor.seen_through_slot >= slot and not waiting


def _compare(
    engine: Engine,
    found: Found,
    supply: tuple[bytes, int, int] | None,
    before: Cursor,
    alarm: Alarm,
    reactions: Sequence[AccountReaction],
    now: datetime,
) -> Compared:
    with transaction(engine) as connection:
        inbox_store.await_turn(connection)  # so that nobody else writes mirrors, in another order
        cursor = inbox_store.get_cursor_for_update(connection)
        known = mirrors.all_mirrors(connection)
        coming = inbox_store.list_accounts_with_unprocessed(connection)
        told_all = cursor.seen_through_slot >= found.slot
        repaired, missed = [], []
        for account in differing(found, known):
            if not mirrors.show(connection, account, found.slot, BEHIND_ALL_OF_ITS_SLOT, now):
                continue
            repaired.append(account)
            for reaction in reactions:
                reaction(connection, account, found.slot, now)
            if told_all and bytes(account.address) not in coming:
                missed.append(account)
        if supply is not None:
            mint, slot, units = supply
            mirrors_store.write_supply(connection, mint, units, slot, now)
        explained = before.reconcile_because is not None or before.reconciled_at is None
        _tell(connection, found, known, [] if explained else missed, alarm, now)
        inbox_store.mark_reconciled(connection, found.slot, now, before.reconcile_because)
    _report(repaired, missed, known, before.reconcile_because)
    return Compared(found.slot, len(found.accounts), len(repaired), len(missed))


def _tell(
    connection: Connection,
    found: Found,
    known: Mapping[Pubkey, Mirror],
    unexplained: list[MirroredAccount],
    alarm: Alarm,
    now: datetime,
) -> None:
    """Raise the alarms. What stays wrong is told again with each comparison: nobody may get used to it."""
    gone = [address for address, mirror in known.items() if mirror.slot <= found.slot and address not in found.accounts]
    gone = [address for address in gone if address not in found.malformed]
    troubles = [
        (MIRROR_DIFFERED, [each.address for each in unexplained], "Accounts hold what no event had told."),
        (ACCOUNT_MISSING, gone, "Accounts that no program can delete are not there: the node lies, or lost its state."),
        (ACCOUNT_MALFORMED, list(found.malformed), "Accounts of the program are not what this hub knows."),
    ]
    for kind, addresses, why in troubles:
        if addresses:
            shown = [str(address) for address in addresses[:NAMED_MAX]]
            detail = {"slot": found.slot, "count": len(addresses), "accounts": shown}
            alarm(connection, Trouble(kind, f"{why} In all: {len(addresses)}.", detail), now)
            log.error(kind, **detail)


def _report(
    repaired: list[MirroredAccount], missed: list[MirroredAccount], known: Mapping[Pubkey, Mirror], because: str | None
) -> None:
    metrics.CHAIN_MIRROR_REPAIRS.labels(MISSED).inc(len(missed))
    metrics.CHAIN_MIRROR_REPAIRS.labels(BEHIND).inc(len(repaired) - len(missed))
    for account in repaired[:NAMED_MAX]:
        mirror = known.get(account.address)
        changes = ["new"] if mirror is None else changed_fields(mirror.account, account)
        log.warning("chain_mirror_repaired", address=str(account.address), changes=changes, because=because)
    if len(repaired) > NAMED_MAX:
        log.warning("chain_mirrors_repaired", count=len(repaired), because=because)


def changed_fields(before: MirroredAccount, after: MirroredAccount) -> list[str]:
    """The names of the fields in which two states of an account differ. Pure."""
    if type(before) is not type(after):
        return ["kind"]
    names = (field.name for field in dataclasses.fields(after))
    return [name for name in names if getattr(before, name) != getattr(after, name)]
