"""From what the program told to what the hub does about it: once each, in the chain's order, in database transactions.

An event that cannot be processed, because of a fault of ours or because it is of a version that we do not know, is set
aside with an alarm and tried again later. What comes after it about the same account waits; all other accounts go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from solders.pubkey import Pubkey
from solders.signature import Signature
from sqlalchemy import Connection, Engine

from hub import logs, metrics
from hub.chain import inbox_store, mirrors
from hub.chain.accounts import address_of
from hub.chain.addresses import Addresses
from hub.chain.events import Printed, ProgramEvent, decode_event
from hub.chain.inbox_store import Cursor, InboxEvent, NewEvent
from hub.chain.intent import Reaction
from hub.chain.intents import end_intent_by_event, find_intent_id_of
from hub.chain.mirrors import Mirror
from hub.db import is_database_away, transaction
from hub.errors import ChainDiffers, ChainEventMalformed

BATCH_EVENTS_MAX: Final = 100
BACK_OFF_MAX_S: Final = 300
ERROR_LENGTH_MAX: Final = 500

EVENT_SET_ASIDE: Final = "chain_event_set_aside"
"""Kind of an alarm."""

log = logs.get_logger()


@dataclass(frozen=True)
class StoredEvent:
    """An event and where it stands: in which finalized transaction (Base58), as which of its events."""

    signature: str
    event_no: int
    slot: int
    position: int
    block_time_unix_s: int | None
    event: ProgramEvent


@dataclass(frozen=True)
class Trouble:
    """Something that operators must look into; `detail` is JSON."""

    kind: str
    why: str
    detail: Mapping[str, object]


Alarm = Callable[[Connection, Trouble, datetime], None]
"""Tells operators, in the caller's transaction."""

EventReaction = Callable[[Connection, StoredEvent, Mirror | None, datetime], None]
"""What a domain does about an event, in the transaction that marks it processed. It is given the mirror as it was
before; one that is from later than the event says that the event is old news. Harmless to repeat after a rollback."""


@dataclass(frozen=True)
class Reactions:
    """What the domains do when something happened: by the kind of intent that ended, and for every event."""

    by_intent_kind: Mapping[str, Reaction]
    of_events: Sequence[EventReaction]


def open_cursor(connection: Connection, genesis_hash: bytes, program_id: Pubkey) -> Cursor:
    """How far this program was read on this chain. Raises ChainDiffers: the database holds what another one told."""
    inbox_store.insert_cursor(connection, genesis_hash, bytes(program_id))
    cursor = inbox_store.find_cursor(connection)
    assert cursor is not None
    if (cursor.genesis_hash, cursor.program_id) != (genesis_hash, bytes(program_id)):
        raise ChainDiffers("the database holds what another chain, or another program, told")
    return cursor


def new_events(
    signature: bytes, slot: int, position: int, block_time_unix_s: int | None, printed: Printed
) -> list[NewEvent]:
    """What one transaction printed, as rows of the inbox. What we cannot decode is kept as it came."""
    rows = []
    for event_no, payload in enumerate(printed.payloads):
        try:
            event = decode_event(payload)
        except ChainEventMalformed:
            said: tuple[bytes | None, int | None] = (None, None)
            business_id, amount_units = None, 0
        else:
            said = (bytes(event.account.address), event.instruction)
            business_id, amount_units = event.business_id, event.amount_units
        row = (signature, event_no, slot, position, block_time_unix_s, payload, *said, business_id, amount_units)
        rows.append(NewEvent(*row))
    return rows


def process_once(engine: Engine, reactions: Reactions, alarm: Alarm, now: datetime) -> int:
    """Process the oldest events that wait, and one that was set aside and is due; returns how many were looked at.

    Raises only if the database is away. Several processes may call it: one at a time does something.
    """
    with transaction(engine) as connection:
        due = inbox_store.find_due_set_aside(connection, now)
    again = 0 if due is None else _process_alone(engine, due, reactions, alarm, now)
    try:
        return again + _process_batch(engine, reactions, now)
    except Exception as fault:
        if is_database_away(fault):
            raise
        log.warning("chain_events_one_by_one", error=repr(fault)[:ERROR_LENGTH_MAX])
    return again + _process_one_by_one(engine, reactions, alarm, now)


def back_off_s(attempts: int) -> int:
    """The pause after so many failed attempts: 1, 2, 4, … seconds, at most BACK_OFF_MAX_S."""
    return min(BACK_OFF_MAX_S, 1 << min(attempts - 1, 16))


@contextmanager
def _turn(engine: Engine) -> Iterator[Connection | None]:
    with transaction(engine) as connection:
        yield connection if inbox_store.take_turn(connection) else None


def _process_batch(engine: Engine, reactions: Reactions, now: datetime) -> int:
    with _turn(engine) as connection:
        if connection is None:
            return 0
        batch = inbox_store.list_waiting(connection, BATCH_EVENTS_MAX)
        at = _addresses(connection)
        for row in batch:
            _process(connection, row, at, reactions, now)
        if batch:
            inbox_store.mark_processed(connection, [row.event_id for row in batch], now)
    metrics.CHAIN_EVENTS_PROCESSED.labels("processed").inc(len(batch))
    return len(batch)


def _process_one_by_one(engine: Engine, reactions: Reactions, alarm: Alarm, now: datetime) -> int:
    """As many events as a batch has, each in a transaction of its own, so that only the culprit is set aside."""
    for looked_at in range(BATCH_EVENTS_MAX):
        with transaction(engine) as connection:
            waiting = inbox_store.list_waiting(connection, 1)
        if not waiting or not _process_alone(engine, waiting[0], reactions, alarm, now):
            return looked_at
    return BATCH_EVENTS_MAX


def _process_alone(engine: Engine, row: InboxEvent, reactions: Reactions, alarm: Alarm, now: datetime) -> int:
    try:
        with _turn(engine) as connection:
            if connection is None or not inbox_store.is_unprocessed_for_update(connection, row.event_id):
                return 0
            _process(connection, row, _addresses(connection), reactions, now)
            inbox_store.mark_processed(connection, [row.event_id], now)
    except Exception as fault:
        if is_database_away(fault):
            raise
        _set_aside(engine, row, fault, alarm, now)
    else:
        metrics.CHAIN_EVENTS_PROCESSED.labels("processed").inc()
    return 1


def _addresses(connection: Connection) -> Addresses | None:
    """Of the program that is read; None before anything was."""
    cursor = inbox_store.find_cursor(connection)
    return None if cursor is None else Addresses(Pubkey.from_bytes(cursor.program_id))


def _process(
    connection: Connection, row: InboxEvent, at: Addresses | None, reactions: Reactions, now: datetime
) -> None:
    event = decode_event(row.payload)
    if at is not None and event.account.address != address_of(event.account, at):
        raise ChainEventMalformed(f"{event.account.address} is not where this {type(event.account).__name__} lies")
    signature = str(Signature.from_bytes(row.signature))
    stored = StoredEvent(signature, row.event_no, row.slot, row.position, row.block_time_unix_s, event)
    before = mirrors.find_before(connection, event.account)
    mirrors.show(connection, event.account, row.slot, row.position, now)
    intent_id = event.business_id or find_intent_id_of(connection, signature)
    if intent_id is not None:
        end_intent_by_event(connection, intent_id, signature, row.slot, reactions.by_intent_kind, now)
    for reaction in reactions.of_events:
        reaction(connection, stored, before, now)


def _set_aside(engine: Engine, row: InboxEvent, fault: Exception, alarm: Alarm, now: datetime) -> None:
    error = repr(fault)[:ERROR_LENGTH_MAX].replace("\x00", "\ufffd")
    signature = str(Signature.from_bytes(row.signature))
    log.error("chain_event_set_aside", signature=signature, event_no=row.event_no, error=error, exc_info=fault)
    metrics.CHAIN_EVENTS_PROCESSED.labels("set_aside").inc()
    with transaction(engine) as connection:
        next_try_at = now + timedelta(seconds=back_off_s(row.attempts + 1))
        still = inbox_store.set_aside(connection, row.event_id, error, next_try_at)
        if still and row.state != inbox_store.SET_ASIDE:  # the first time; it may be tried for days
            detail = {"signature": signature, "event_no": row.event_no, "error": error}
            alarm(connection, Trouble(EVENT_SET_ASIDE, "What the program told cannot be processed.", detail), now)
