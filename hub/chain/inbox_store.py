"""The inbox: what the program told, transaction by transaction in the chain's order, and how far the chain was read.

An event is written once, whoever reads the chain and however often, and stays: what was told is evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Row,
    Select,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from hub.db import metadata

WAITING: Final = "waiting"
PROCESSED: Final = "processed"
SET_ASIDE: Final = "set_aside"

_TIME: Final = TIMESTAMP(timezone=True)

chain_cursor = Table(
    "chain_cursor",
    metadata,
    Column("cursor_id", SmallInteger, autoincrement=False),
    Column("genesis_hash", LargeBinary, nullable=False),
    Column("program_id", LargeBinary, nullable=False),
    Column("slot", BigInteger, nullable=False, server_default="0"),
    Column("position", Integer, nullable=False, server_default="0"),
    Column("signature", LargeBinary),
    Column("previous_signature", LargeBinary),
    Column("seen_through_slot", BigInteger, nullable=False, server_default="0"),
    Column("seen_at", _TIME),
    Column("reconcile_because", Text),
    Column("reconciled_slot", BigInteger),
    Column("reconciled_at", _TIME),
    PrimaryKeyConstraint("cursor_id", name="chain_cursor_pk"),
    CheckConstraint("cursor_id = 1", name="one"),
)
"""One row. `signature` is the last transaction that was read, `previous_signature` the one before it; all that came by
`seen_through_slot` was read. `reconcile_because`: something may have been missed, and the accounts must be compared.
"""

chain_events = Table(
    "chain_events",
    metadata,
    Column("event_id", BigInteger, Identity(always=True)),
    Column("signature", LargeBinary, nullable=False),
    Column("event_no", SmallInteger, nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("block_time_unix_s", BigInteger),
    Column("payload", LargeBinary, nullable=False),
    Column("account_address", LargeBinary),
    Column("instruction", SmallInteger),
    Column("business_id", Uuid),
    Column("amount_units", Numeric(20), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_try_at", _TIME),
    Column("last_error", Text),
    Column("seen_at", _TIME, nullable=False),
    Column("processed_at", _TIME),
    PrimaryKeyConstraint("event_id", name="chain_events_pk"),
    UniqueConstraint("signature", "event_no"),
    CheckConstraint("state IN ('waiting', 'processed', 'set_aside')", name="state"),
    CheckConstraint("(state = 'processed') = (processed_at IS NOT NULL)", name="processed"),
    CheckConstraint("(state = 'set_aside') = (next_try_at IS NOT NULL)", name="next_try"),
)
"""`position` is the transaction's place among those of its slot that concern the program, `event_no` the event's within
the transaction. Without `account_address` it is no event that this hub understands."""
_OLDEST_FIRST: Final = (chain_events.c.slot, chain_events.c.position, chain_events.c.event_no)
Index("chain_events_waiting_idx", *_OLDEST_FIRST, postgresql_where=chain_events.c.state == WAITING)
Index("chain_events_set_aside_idx", chain_events.c.account_address, postgresql_where=chain_events.c.state == SET_ASIDE)
Index("chain_events_account_address_idx", chain_events.c.account_address, *_OLDEST_FIRST)
Index(
    "chain_events_business_id_idx",
    chain_events.c.business_id,
    postgresql_where=chain_events.c.business_id.is_not(None),
)


@dataclass(frozen=True)
class Cursor:
    """How far the chain was read, and of which chain."""

    genesis_hash: bytes
    program_id: bytes
    slot: int
    position: int
    signature: bytes | None
    previous_signature: bytes | None
    seen_through_slot: int
    seen_at: datetime | None
    reconcile_because: str | None
    reconciled_slot: int | None
    reconciled_at: datetime | None


@dataclass(frozen=True)
class NewEvent:
    """An event as read from a transaction; the last four are empty if it is none that this hub understands."""

    signature: bytes
    event_no: int
    slot: int
    position: int
    block_time_unix_s: int | None
    payload: bytes
    account_address: bytes | None
    instruction: int | None
    business_id: UUID | None
    amount_units: int


@dataclass(frozen=True)
class InboxEvent:
    """An event that is to be processed."""

    event_id: int
    signature: bytes
    event_no: int
    slot: int
    position: int
    block_time_unix_s: int | None
    payload: bytes
    account_address: bytes | None
    state: str
    attempts: int


def insert_cursor(connection: Connection, genesis_hash: bytes, program_id: bytes) -> None:
    """Begin to read this chain, if none has been begun."""
    statement = insert(chain_cursor).values(cursor_id=1, genesis_hash=genesis_hash, program_id=program_id)
    connection.execute(statement.on_conflict_do_nothing())


def find_cursor(connection: Connection) -> Cursor | None:
    """How far the chain was read; None if it was not begun."""
    row = connection.execute(_CURSOR).one_or_none()
    return None if row is None else _cursor(row)


def get_cursor_for_update(connection: Connection) -> Cursor:
    """How far the chain was read; whoever else reads it waits until the transaction ends."""
    return _cursor(connection.execute(_CURSOR.with_for_update()).one())


def move_cursor(
    connection: Connection, slot: int, position: int, signature: bytes, previous_signature: bytes | None
) -> None:
    """This transaction was read now, and the one before it."""
    connection.execute(
        chain_cursor.update().values(
            slot=slot, position=position, signature=signature, previous_signature=previous_signature
        )
    )


def forget_last_read(connection: Connection) -> None:
    """No node knows any more which transaction was read last; of its slot and of later ones everything is unread."""
    connection.execute(chain_cursor.update().values(signature=None, previous_signature=None))


def mark_seen_through(connection: Connection, slot: int, now: datetime) -> None:
    """All that came by this slot was read. It only grows."""
    connection.execute(
        chain_cursor.update()
        .where(chain_cursor.c.seen_through_slot <= slot)
        .values(seen_through_slot=slot, seen_at=now)
    )


def ask_to_reconcile(connection: Connection, because: str) -> None:
    """Something may have been missed; the first reason is kept until it was done."""
    connection.execute(
        chain_cursor.update().values(reconcile_because=func.coalesce(chain_cursor.c.reconcile_because, because))
    )


def mark_reconciled(connection: Connection, slot: int, now: datetime, because: str | None) -> None:
    """The mirrors were compared with the accounts of this slot; a reason that came meanwhile stays."""
    asked = chain_cursor.c.reconcile_because
    connection.execute(
        chain_cursor.update().values(
            reconciled_slot=slot, reconciled_at=now, reconcile_because=func.nullif(asked, because or "")
        )
    )


def insert_events(connection: Connection, events: Sequence[NewEvent], now: datetime) -> int:
    """Write events that are not written yet; returns how many were new."""
    if not events:
        return 0
    rows = [{**vars(event), "state": WAITING, "seen_at": now} for event in events]
    statement = insert(chain_events).on_conflict_do_nothing(
        index_elements=[chain_events.c.signature, chain_events.c.event_no]
    )
    return len(connection.execute(statement.returning(chain_events.c.event_id), rows).all())


def take_turn(connection: Connection) -> bool:
    """Be the one that processes until the transaction ends; False if another is."""
    taken = connection.execute(text("SELECT pg_try_advisory_xact_lock(hashtext('commonwatt chain inbox'))"))
    return bool(taken.scalar_one())


def await_turn(connection: Connection) -> None:
    """Be the one that processes until the transaction ends, as soon as no other is."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('commonwatt chain inbox'))"))


def list_waiting(connection: Connection, limit: int) -> list[InboxEvent]:
    """The oldest events that wait, but those of accounts of which one is set aside."""
    stuck = chain_events.alias("stuck")
    blocked = exists().where(stuck.c.state == SET_ASIDE, stuck.c.account_address == chain_events.c.account_address)
    query = _EVENTS.where(chain_events.c.state == WAITING, ~blocked).order_by(*_OLDEST_FIRST).limit(limit)
    return [InboxEvent(**row._mapping) for row in connection.execute(query)]


def find_due_set_aside(connection: Connection, now: datetime) -> InboxEvent | None:
    """The event that was set aside and whose time has come longest ago; of an account only the oldest comes."""
    older = chain_events.alias("older")
    behind = exists().where(
        older.c.state != PROCESSED,
        older.c.account_address == chain_events.c.account_address,
        tuple_(older.c.slot, older.c.position, older.c.event_no) < tuple_(*_OLDEST_FIRST),
    )
    due = (chain_events.c.state == SET_ASIDE) & (chain_events.c.next_try_at <= now)
    query = _EVENTS.where(due, or_(chain_events.c.account_address.is_(None), ~behind))
    row = connection.execute(query.order_by(chain_events.c.next_try_at, chain_events.c.event_id).limit(1)).one_or_none()
    return None if row is None else InboxEvent(**row._mapping)


def is_unprocessed_for_update(connection: Connection, event_id: int) -> bool:
    """Whether nobody processed this event meanwhile; its row is locked."""
    query = select(chain_events.c.state).where(chain_events.c.event_id == event_id).with_for_update()
    return bool(connection.execute(query).scalar_one() != PROCESSED)


def mark_processed(connection: Connection, event_ids: Collection[int], now: datetime) -> None:
    """These are done."""
    connection.execute(
        chain_events.update()
        .where(chain_events.c.event_id.in_(event_ids))
        .values(state=PROCESSED, processed_at=now, next_try_at=None)
    )


def set_aside(connection: Connection, event_id: int, error: str, next_try_at: datetime) -> bool:
    """This one cannot be processed now. False if another process has done it meanwhile."""
    updated = connection.execute(
        chain_events.update()
        .where(chain_events.c.event_id == event_id, chain_events.c.state != PROCESSED)
        .values(state=SET_ASIDE, attempts=chain_events.c.attempts + 1, last_error=error, next_try_at=next_try_at)
    )
    return updated.rowcount == 1


def count_unprocessed(connection: Connection) -> dict[str, int]:
    """How many events wait, and how many are set aside."""
    return {
        state: connection.execute(select(func.count()).where(chain_events.c.state == state)).scalar_one()
        for state in (WAITING, SET_ASIDE)  # each by its own index
    }


def list_accounts_with_unprocessed(connection: Connection) -> set[bytes]:
    """The addresses of accounts of which something is not processed yet."""
    return {
        bytes(address)
        for state in (WAITING, SET_ASIDE)
        for address in connection.execute(
            select(chain_events.c.account_address)
            .where(chain_events.c.state == state, chain_events.c.account_address.is_not(None))
            .distinct()
        ).scalars()
    }


_CURSOR: Final[Select[Any]] = select(*[column for column in chain_cursor.c if column.name != "cursor_id"])
_EVENTS: Final[Select[Any]] = select(*[chain_events.c[name] for name in InboxEvent.__dataclass_fields__])


def _cursor(row: Row[Any]) -> Cursor:
    return Cursor(**row._mapping)
