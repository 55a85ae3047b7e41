"""Which addresses are in which address lookup table of the chain, and from which slot on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from solders.pubkey import Pubkey
from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    Uuid,
    func,
    literal,
    select,
    text,
)

from hub.chain.accounts import MeterState
from hub.db import metadata

chain_lookup_tables = Table(
    "chain_lookup_tables",
    metadata,
    Column("table_address", LargeBinary),
    Column("intent_id", Uuid),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("table_address", name="chain_lookup_tables_pk"),
    ForeignKeyConstraint(["intent_id"], ["chain_intents.intent_id"], name="chain_lookup_tables_intent_id_fk"),
)
chain_lookup_addresses = Table(
    "chain_lookup_addresses",
    metadata,
    Column("table_address", LargeBinary, nullable=False),
    Column("position", Integer, nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("extended_slot", BigInteger),
    PrimaryKeyConstraint("table_address", "position", name="chain_lookup_addresses_pk"),
    UniqueConstraint("address", "table_address", name="chain_lookup_addresses_address_table_address_key"),
    ForeignKeyConstraint(
        ["table_address"], ["chain_lookup_tables.table_address"], name="chain_lookup_addresses_table_address_fk"
    ),
)


@dataclass(frozen=True)
class StoredTable:
    """A table: its addresses in their order, those alone that it has finalized, and the slot of the last of them."""

    address: Pubkey
    addresses: tuple[Pubkey, ...]
    extended_slot: int


@dataclass(frozen=True)
class TableRoom:
    """A table that nobody is writing to: how many addresses it has."""

    address: Pubkey
    addresses: int


@dataclass(frozen=True)
class Filling:
    """How full a table is."""

    address: Pubkey
    usable: int
    pending: int
    writing: bool


def lock_lookup_tables(connection: Connection) -> None:
    """One at a time decides what goes where."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('commonwatt lookup tables'))"))


def insert_table(connection: Connection, address: Pubkey, intent_id: UUID, now: datetime) -> None:
    """A table that is being made."""
    connection.execute(
        chain_lookup_tables.insert().values(table_address=bytes(address), intent_id=intent_id, created_at=now)
    )


def delete_table(connection: Connection, address: Pubkey) -> None:
    """A table that was never made, with what was to be in it."""
    for table in (chain_lookup_addresses, chain_lookup_tables):
        connection.execute(table.delete().where(table.c.table_address == bytes(address)))


def set_writer(connection: Connection, address: Pubkey, intent_id: UUID | None) -> None:
    """Who is writing to a table: one intent at a time, so that positions are known beforehand."""
    connection.execute(
        chain_lookup_tables.update()
        .where(chain_lookup_tables.c.table_address == bytes(address))
        .values(intent_id=intent_id)
    )


def insert_addresses(connection: Connection, table: Pubkey, first: int, addresses: Sequence[Pubkey]) -> None:
    """Addresses that are being put into a table, from this position on."""
    rows = [
        {"table_address": bytes(table), "position": first + index, "address": bytes(address)}
        for index, address in enumerate(addresses)
    ]
    connection.execute(chain_lookup_addresses.insert(), rows)


def set_extended(connection: Connection, table: Pubkey, slot: int) -> None:
    """What was being put into the table is in it, since this slot."""
    columns = chain_lookup_addresses.c
    pending = (columns.table_address == bytes(table)) & columns.extended_slot.is_(None)
    connection.execute(chain_lookup_addresses.update().where(pending).values(extended_slot=slot))


def delete_pending(connection: Connection, table: Pubkey) -> None:
    """What was to be put into the table is not."""
    columns = chain_lookup_addresses.c
    pending = (columns.table_address == bytes(table)) & columns.extended_slot.is_(None)
    connection.execute(chain_lookup_addresses.delete().where(pending))


def list_room(connection: Connection, addresses_max: int) -> list[TableRoom]:
    """Tables that nobody is writing to and that have room, the fullest first."""
    taken = func.count(chain_lookup_addresses.c.position)
    rows = connection.execute(
        select(chain_lookup_tables.c.table_address, taken)
        .outerjoin(
            chain_lookup_addresses, chain_lookup_addresses.c.table_address == chain_lookup_tables.c.table_address
        )
        .where(chain_lookup_tables.c.intent_id.is_(None))
        .group_by(chain_lookup_tables.c.table_address)
        .having(taken < addresses_max)
        .order_by(taken.desc(), chain_lookup_tables.c.table_address)
    )
    return [TableRoom(Pubkey.from_bytes(bytes(address)), count) for address, count in rows]


def count_being_written(connection: Connection) -> int:
    """How many tables are being made or made longer."""
    query = select(func.count()).select_from(chain_lookup_tables).where(chain_lookup_tables.c.intent_id.is_not(None))
    return connection.execute(query).scalar_one()


def find_placed(connection: Connection, addresses: Collection[Pubkey]) -> set[Pubkey]:
    """Those of these addresses that are in some table, or on their way into one."""
    columns = chain_lookup_addresses.c
    wanted = literal([bytes(each) for each in addresses], ARRAY(LargeBinary))  # one parameter, however many they are
    query = select(columns.address).where(columns.address == func.any(wanted)).distinct()
    return {Pubkey.from_bytes(bytes(row.address)) for row in connection.execute(query)}


_UNPLACED = text(
    """
    SELECT m.address, m.grid_account FROM chain_meters AS m
    WHERE m.state = :active AND m.kind = ANY(:kinds) AND NOT (
        EXISTS (SELECT FROM chain_lookup_addresses AS a WHERE a.address = m.address)
        AND EXISTS (SELECT FROM chain_lookup_addresses AS a WHERE a.address = m.grid_account))
    ORDER BY m.meter_id LIMIT :limit
    """
)


def list_unplaced(connection: Connection, kinds: Collection[int], limit: int) -> list[Pubkey]:
    """Of so many active meters of these kinds that are in no table: Meter, its owner's GRID account, in pairs."""
    values = {"active": MeterState.ACTIVE.value, "kinds": sorted(kinds), "limit": limit}
    rows = connection.execute(_UNPLACED, values).all()
    return [Pubkey.from_bytes(bytes(address)) for row in rows for address in row]


def list_addresses(connection: Connection, table: Pubkey) -> set[Pubkey]:
    """What is in a table, or on its way into it."""
    columns = chain_lookup_addresses.c
    query = select(columns.address).where(columns.table_address == bytes(table))
    return {Pubkey.from_bytes(bytes(row.address)) for row in connection.execute(query)}


def list_tables_with(connection: Connection, addresses: Collection[Pubkey]) -> dict[Pubkey, set[Pubkey]]:
    """By table, which of these addresses it has, finalized."""
    columns = chain_lookup_addresses.c
    query = select(columns.table_address, columns.address).where(
        columns.address.in_([bytes(each) for each in addresses]), columns.extended_slot.is_not(None)
    )
    found: dict[Pubkey, set[Pubkey]] = {}
    for table, address in connection.execute(query):
        found.setdefault(Pubkey.from_bytes(bytes(table)), set()).add(Pubkey.from_bytes(bytes(address)))
    return found


def list_tables(connection: Connection, tables: Collection[Pubkey]) -> list[StoredTable]:
    """These tables with what is in them, finalized."""
    columns = chain_lookup_addresses.c
    query = (
        select(columns.table_address, columns.address, columns.extended_slot)
        .where(columns.table_address.in_([bytes(each) for each in tables]), columns.extended_slot.is_not(None))
        .order_by(columns.table_address, columns.position)
    )
    held: dict[bytes, list[tuple[Pubkey, int]]] = {}
    for table, address, slot in connection.execute(query):
        held.setdefault(bytes(table), []).append((Pubkey.from_bytes(bytes(address)), slot))
    return [
        StoredTable(Pubkey.from_bytes(table), tuple(each for each, _ in rows), max(slot for _, slot in rows))
        for table, rows in held.items()
    ]


def list_fillings(connection: Connection) -> list[Filling]:
    """All tables, the oldest first."""
    columns = chain_lookup_addresses.c
    rows = connection.execute(
        select(
            chain_lookup_tables.c.table_address,
            func.count(columns.extended_slot),
            func.count(columns.position) - func.count(columns.extended_slot),
            chain_lookup_tables.c.intent_id.is_not(None),
        )
        .outerjoin(chain_lookup_addresses, columns.table_address == chain_lookup_tables.c.table_address)
        .group_by(chain_lookup_tables.c.table_address)
        .order_by(chain_lookup_tables.c.created_at, chain_lookup_tables.c.table_address)
    )
    return [Filling(Pubkey.from_bytes(bytes(address)), *counts) for address, *counts in rows]
