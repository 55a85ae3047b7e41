"""The tables of intents and attempts. A state changes only `WHERE state = :from`, along the table in `intent.py`.

A lease is a deadline and a fencing token, as the outbox has them: a sender that hung, and comes back after another took
over (or after the wallet or an event changed the intent), can say nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.chain.intent import NEXT_STATES, Attempt, Intent, IntentState, Plan
from hub.db import metadata

chain_intents = Table(
    "chain_intents",
    metadata,
    Column("intent_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("instructions", ARRAY(LargeBinary), nullable=False),
    Column("compute_units", Integer, nullable=False),
    Column("wallet", LargeBinary),
    Column("lookup_tables", ARRAY(LargeBinary), nullable=False),
    Column("data", JSONB, nullable=False),
    Column("valid_until", TIMESTAMP(timezone=True)),
    Column("state", Text, nullable=False),
    Column("error_code", Text),
    Column("error", Text, nullable=False, server_default=""),
    Column("ended_by", LargeBinary),
    Column("slot", BigInteger),
    Column("setbacks", Integer, nullable=False, server_default="0"),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("leased_until", TIMESTAMP(timezone=True)),
    Column("next_at", TIMESTAMP(timezone=True), nullable=False),
    Column("unknown_at", TIMESTAMP(timezone=True)),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("ended_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("intent_id", name="chain_intents_pk"),
)
_UNENDED = chain_intents.c.ended_at.is_(None)
Index(
    "chain_intents_due_idx",
    *(chain_intents.c[name] for name in ("state", "next_at", "created_at", "intent_id")),  # by state, the first due
    postgresql_where=_UNENDED,
)
Index("chain_intents_open_idx", chain_intents.c.kind, chain_intents.c.subject, postgresql_where=_UNENDED)

chain_attempts = Table(
    "chain_attempts",
    metadata,
    Column("signature", LargeBinary),
    Column("intent_id", Uuid, nullable=False),
    Column("attempt_no", Integer, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Column("wallet_signature", LargeBinary),
    Column("last_valid_block_height", BigInteger, nullable=False),
    Column("signed_at_slot", BigInteger, nullable=False),
    Column("sends", Integer, nullable=False, server_default="0"),
    Column("refusal_code", Text),
    Column("refusal", Text, nullable=False, server_default=""),
    Column("signed_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("signature", name="chain_attempts_pk"),
    UniqueConstraint("intent_id", "attempt_no", name="chain_attempts_intent_id_attempt_no_key"),
    ForeignKeyConstraint(["intent_id"], ["chain_intents.intent_id"], name="chain_attempts_intent_id_fk"),
)

_INTENT_COLUMNS = [
    chain_intents.c[name]
    for name in (
        *("intent_id", "kind", "subject", "instructions", "compute_units", "wallet", "lookup_tables", "data"),
        *("valid_until", "state", "error_code", "error", "ended_by", "slot", "setbacks", "unknown_at"),
        *("created_at", "ended_at"),
    )
]

_LEASE = text(
    """
    UPDATE chain_intents
    SET lease_token = lease_token + 1, leased_until = :leased_until
    WHERE intent_id = (
        SELECT first.intent_id FROM unnest(CAST(:states AS text[])) AS wanted (state) CROSS JOIN LATERAL (
            SELECT due.intent_id, due.next_at, due.created_at FROM chain_intents AS due
            WHERE due.ended_at IS NULL AND due.state = wanted.state AND due.next_at <= :now
              AND (due.leased_until IS NULL OR due.leased_until <= :now)
            ORDER BY due.next_at, due.created_at, due.intent_id LIMIT 1
            FOR UPDATE SKIP LOCKED) AS first
        ORDER BY first.next_at, first.created_at, first.intent_id LIMIT 1)
    RETURNING intent_id, lease_token
    """
)


@dataclass(frozen=True)
class Leased:
    """An intent that this sender looks after, with its newest attempt alone (what a busy cluster drops for days has
    thousands); `lease_token` proves that it still is ours."""

    intent: Intent
    lease_token: int


@dataclass(frozen=True)
class Backlog:
    """Intents of one kind and state that have not ended."""

    kind: str
    state: IntentState
    intents: int
    oldest_at: datetime


def insert_intent(connection: Connection, plan: Plan, valid_until: datetime | None, now: datetime) -> None:
    """Write a planned intent, due at once."""
    connection.execute(
        chain_intents.insert().values(
            intent_id=plan.intent_id,
            kind=plan.kind,
            subject=plan.subject,
            instructions=[bytes(each) for each in plan.instructions],
            compute_units=plan.compute_units,
            wallet=plan.wallet,
            lookup_tables=[bytes(each) for each in plan.lookup_tables],
            data=dict(plan.data),
            valid_until=valid_until,
            state=IntentState.PLANNED.value,
            next_at=now,
            created_at=now,
        )
    )


def find_intent(connection: Connection, intent_id: UUID) -> Intent | None:
    """The intent with its attempts."""
    row = connection.execute(select(*_INTENT_COLUMNS).where(chain_intents.c.intent_id == intent_id)).one_or_none()
    return None if row is None else _with_attempts(connection, row)


def find_intent_for_update(connection: Connection, intent_id: UUID) -> Intent | None:
    """Likewise, locked until the end of the transaction."""
    query = select(*_INTENT_COLUMNS).where(chain_intents.c.intent_id == intent_id).with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else _with_attempts(connection, row)


def find_unended(connection: Connection, kind: str, subject: str) -> Intent | None:
    """The newest intent of this kind and subject that has not ended."""
    query = (
        select(*_INTENT_COLUMNS)
        .where(_UNENDED, chain_intents.c.kind == kind, chain_intents.c.subject == subject)
        .order_by(chain_intents.c.created_at.desc(), chain_intents.c.intent_id)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _with_attempts(connection, row)


def lease_due(
    connection: Connection, states: Collection[IntentState], now: datetime, leased_until: datetime
) -> Leased | None:
    """Take the intent in one of these states that has been due for longest, also one whose lease ran out."""
    values = {"states": sorted(states), "now": now, "leased_until": leased_until}
    row = connection.execute(_LEASE, values).one_or_none()
    if row is None:
        return None
    leased = connection.execute(select(*_INTENT_COLUMNS).where(chain_intents.c.intent_id == row.intent_id)).one()
    return Leased(_with_attempts(connection, leased, newest_only=True), row.lease_token)


def change_state(
    connection: Connection, intent: Intent, state: IntentState, lease_token: int | None, **changes: object
) -> bool:
    """Move an intent along an edge and end the lease. False if it is not any more where it was, or not ours.

    Without a lease token whoever changes it has locked the row, and takes it from the sender that looks after it.
    """
    assert state in NEXT_STATES[intent.state], f"{intent.state} to {state}"
    return _update(connection, intent, lease_token, state=state.value, **changes)


def postpone(connection: Connection, leased: Leased, next_at: datetime, **changes: object) -> bool:
    """Leave an intent as it is until then, and end the lease. False if it is not ours any more."""
    return _update(connection, leased.intent, leased.lease_token, next_at=next_at, **changes)


def keep_lease(connection: Connection, leased: Leased, leased_until: datetime) -> bool:
    """Go on looking after an intent. False if it is not ours any more."""
    ours = (
        chain_intents.c.intent_id == leased.intent.intent_id,
        chain_intents.c.lease_token == leased.lease_token,
        chain_intents.c.state == leased.intent.state.value,
    )
    return connection.execute(chain_intents.update().where(*ours).values(leased_until=leased_until)).rowcount == 1


def insert_attempt(connection: Connection, intent_id: UUID, attempt: Attempt, now: datetime) -> None:
    """Write down a transaction that was just signed, before anybody may send it."""
    connection.execute(
        chain_attempts.insert().values(
            signature=attempt.hub_signature,
            intent_id=intent_id,
            attempt_no=attempt.attempt_no,
            message=attempt.message,
            wallet_signature=attempt.wallet_signature,
            last_valid_block_height=attempt.last_valid_block_height,
            signed_at_slot=attempt.signed_at_slot,
            signed_at=now,
        )
    )


def set_wallet_signature(connection: Connection, attempt: Attempt, wallet_signature: bytes) -> None:
    """Keep what the wallet signed."""
    _update_attempt(connection, attempt, wallet_signature=wallet_signature)


def count_send(connection: Connection, attempt: Attempt) -> None:
    """Written before each try: a crash may count one too many, never one too few."""
    _update_attempt(connection, attempt, sends=attempt.sends + 1)


def set_refusal(connection: Connection, attempt: Attempt, refusal_code: str | None, refusal: str) -> None:
    """What the node's simulation said of the newest try; None: it took it."""
    _update_attempt(connection, attempt, refusal_code=refusal_code, refusal=refusal)


def find_intent_id_of(connection: Connection, signature: bytes) -> UUID | None:
    """Whose attempt this transaction is."""
    query = select(chain_attempts.c.intent_id).where(chain_attempts.c.signature == signature)
    return connection.execute(query).scalar_one_or_none()


def has_open(connection: Connection, count: int) -> bool:
    """Whether so many intents are being sent."""
    is_open = chain_intents.c.state == IntentState.OPEN.value
    some = select(chain_intents.c.intent_id).where(_UNENDED, is_open).limit(count).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one() >= count


def list_backlogs(connection: Connection) -> list[Backlog]:
    """How many intents of each kind and state have not ended, and since when the oldest is there."""
    rows = connection.execute(
        select(chain_intents.c.kind, chain_intents.c.state, func.count(), func.min(chain_intents.c.created_at))
        .where(_UNENDED)
        .group_by(chain_intents.c.kind, chain_intents.c.state)
        .order_by(chain_intents.c.kind, chain_intents.c.state)
    )
    return [Backlog(kind, IntentState(state), count, oldest_at) for kind, state, count, oldest_at in rows]


def _update(connection: Connection, intent: Intent, lease_token: int | None, **changes: object) -> bool:
    ours = [chain_intents.c.intent_id == intent.intent_id, chain_intents.c.state == intent.state.value]
    if lease_token is not None:
        ours.append(chain_intents.c.lease_token == lease_token)
    fenced = chain_intents.c.lease_token + 1
    updated = connection.execute(
        chain_intents.update().where(*ours).values(**changes, leased_until=None, lease_token=fenced)
    )
    return updated.rowcount == 1


def _update_attempt(connection: Connection, attempt: Attempt, **changes: object) -> None:
    connection.execute(
        chain_attempts.update().where(chain_attempts.c.signature == attempt.hub_signature).values(**changes)
    )


def _with_attempts(connection: Connection, row: Row[Any], newest_only: bool = False) -> Intent:
    fields = dict(row._mapping)
    fields["state"] = IntentState(fields["state"])
    fields["instructions"] = tuple(Instruction.from_bytes(bytes(each)) for each in fields["instructions"])
    fields["lookup_tables"] = tuple(Pubkey.from_bytes(bytes(each)) for each in fields["lookup_tables"])
    columns = chain_attempts.c
    rows = connection.execute(
        select(
            columns.attempt_no,
            columns.message,
            columns.signature,
            columns.wallet_signature,
            columns.last_valid_block_height,
            columns.signed_at_slot,
            columns.sends,
            columns.refusal_code,
            columns.refusal,
        )
        .where(columns.intent_id == fields["intent_id"])
        .order_by(columns.attempt_no.desc())
        .limit(1 if newest_only else None)
    ).all()
    return Intent(**fields, attempts=tuple(Attempt(*each) for each in reversed(rows)))
