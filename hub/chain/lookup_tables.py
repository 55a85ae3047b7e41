"""Address lookup tables: with one, an address takes a byte of a transaction instead of 32.

In each table come first the accounts that every mint names, then pairs (Meter, its owner's GRID account). Tables are
made and made longer by intents, one at a time each, so that every position is known before it is written. What is in a
table can be used once that is finalized and a slot is over. Without tables everything works, with fewer meters in a
transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateLookupTableParams,
    ExtendLookupTableParams,
    create_lookup_table,
    extend_lookup_table,
)
from sqlalchemy import Connection

from hub.chain import lookup_tables_store as store
from hub.chain.addresses import INSTRUCTIONS_SYSVAR, TOKEN_2022_PROGRAM, Addresses
from hub.chain.intents import Ended, Plan, Reactions, plan_intent
from hub.errors import ChainLags

CREATE_KIND: Final = "lookup_table.create"
EXTEND_KIND: Final = "lookup_table.extend"
ADDRESSES_PER_TABLE_MAX: Final = 256
ADDRESSES_PER_INTENT_MAX: Final = 20
"""With the making of the table in the same transaction, this is what fits."""
TABLES_WRITTEN_MAX: Final = 4
"""So many tables are written to at the same time."""
PAIRS_PER_ROUND_MAX: Final = TABLES_WRITTEN_MAX * ADDRESSES_PER_INTENT_MAX // 2
"""No more can be placed in one round."""
COMPUTE_UNITS: Final = 50_000
_INTENTS: Final = UUID("6f8e3c0e-7a53-4a0b-9d52-3a4c2ab2f3d1")


def common_addresses(at: Addresses, grid_mint: Pubkey) -> tuple[Pubkey, ...]:
    """What every mint names beside the meter's own accounts."""
    return (at.config(), grid_mint, INSTRUCTIONS_SYSVAR, TOKEN_2022_PROGRAM)


def tables_for(connection: Connection, addresses: Sequence[Pubkey]) -> tuple[Pubkey, ...]:
    """The fewest tables (nearly) that hold what is held of these addresses; each one that helps by two or more."""
    found = store.list_tables_with(connection, set(addresses))
    chosen: list[Pubkey] = []
    left = set(addresses)
    while found:
        best = max(found, key=lambda table: (len(found[table] & left), bytes(table)))
        if len(found[best] & left) < 2:  # a table itself takes 34 bytes, so for one address it saves nothing
            break
        chosen.append(best)
        left -= found.pop(best)
    return tuple(chosen)


def load_tables(connection: Connection, tables: Sequence[Pubkey], slot: int) -> list[AddressLookupTableAccount]:
    """These tables for a transaction that is built at this slot. Raises ChainLags if one was written to only now."""
    stored = {each.address: each for each in store.list_tables(connection, tables)}
    for address in tables:
        if address not in stored or stored[address].extended_slot >= slot:
            raise ChainLags(f"lookup table {address} cannot be used yet")
    return [AddressLookupTableAccount(address, list(stored[address].addresses)) for address in tables]


def plan_tables_once(
    connection: Connection, hub: Pubkey, common: Sequence[Pubkey], wanted: Sequence[Pubkey], slot: int, now: datetime
) -> int:
    """Plan to put those of these addresses into tables that are in none. Returns how many pairs were placed.

    `wanted` are pairs, kept together; `slot` is one that the chain finalized just now, from which a new table's address
    is made.
    """
    store.lock_lookup_tables(connection)
    placed = store.find_placed(connection, wanted)
    pairs = [wanted[index : index + 2] for index in range(0, len(wanted), 2)]
    waiting = [pair for pair in pairs if not placed.issuperset(pair)]
    writing = store.count_being_written(connection)
    rooms = store.list_room(connection, ADDRESSES_PER_TABLE_MAX - 1)[: max(0, TABLES_WRITTEN_MAX - writing)]
    before = len(waiting)
    for room in rooms:
        taken = min(ADDRESSES_PER_INTENT_MAX, ADDRESSES_PER_TABLE_MAX - room.addresses) // 2
        # the meters of one owner share their GRID account, and a table has an address once
        there = store.list_addresses(connection, room.address)
        if waiting:
            _plan_extension(connection, hub, room, _flat(waiting[:taken], there), now)
        waiting = waiting[taken:]
    if waiting and writing + len(rooms) < TABLES_WRITTEN_MAX:  # one in a round: its address is made from the slot
        taken = (ADDRESSES_PER_INTENT_MAX - len(common)) // 2
        _plan_table(connection, hub, [*common, *_flat(waiting[:taken], set(common))], slot, now)
        waiting = waiting[taken:]
    return before - len(waiting)


def _flat(pairs: Sequence[Sequence[Pubkey]], there: Collection[Pubkey]) -> list[Pubkey]:
    """These addresses, each once, without those that are there already."""
    return [address for address in dict.fromkeys(each for pair in pairs for each in pair) if address not in there]


def _plan_table(connection: Connection, hub: Pubkey, addresses: Sequence[Pubkey], slot: int, now: datetime) -> None:
    create, table = create_lookup_table(
        CreateLookupTableParams(authority_address=hub, payer_address=hub, recent_slot=slot)
    )
    intent_id = uuid5(_INTENTS, f"create {table} {now.isoformat()}")
    plan = Plan(
        intent_id,
        CREATE_KIND,
        f"lookup_table:{table}",
        (create, _extension(table, hub, addresses)),
        COMPUTE_UNITS,
    )
    plan_intent(connection, plan, now)
    store.insert_table(connection, table, intent_id, now)
    store.insert_addresses(connection, table, 0, addresses)


def _plan_extension(
    connection: Connection, hub: Pubkey, room: store.TableRoom, addresses: Sequence[Pubkey], now: datetime
) -> None:
    table = room.address
    intent_id = uuid5(_INTENTS, f"extend {table} {room.addresses} {now.isoformat()}")
    plan = Plan(intent_id, EXTEND_KIND, f"lookup_table:{table}", (_extension(table, hub, addresses),), COMPUTE_UNITS)
    plan_intent(connection, plan, now)
    store.set_writer(connection, table, intent_id)
    store.insert_addresses(connection, table, room.addresses, addresses)


def _extension(table: Pubkey, hub: Pubkey, addresses: Sequence[Pubkey]) -> Instruction:
    return extend_lookup_table(
        ExtendLookupTableParams(
            lookup_table_address=table, authority_address=hub, payer_address=hub, new_addresses=list(addresses)
        )
    )


def _react(connection: Connection, ended: Ended, now: datetime) -> None:
    table = Pubkey.from_string(ended.subject.removeprefix("lookup_table:"))
    store.lock_lookup_tables(connection)
    match ended.outcome:
        case "finalized":
            assert ended.slot is not None
            store.set_extended(connection, table, ended.slot)
            store.set_writer(connection, table, None)
        case "failed" | "expired" if ended.kind == CREATE_KIND:
            store.delete_table(connection, table)
        case "failed" | "expired":
            store.delete_pending(connection, table)
            store.set_writer(connection, table, None)
        case "unknown":
            return  # nobody is kept waiting: the table's other addresses stay usable


def lookup_table_reactions() -> Reactions:
    """For the sender: what follows when a table was written to."""
    return {CREATE_KIND: _react, EXTEND_KIND: _react}
