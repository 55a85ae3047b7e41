"""Each delivery of a webhook to one endpoint: the table, one statement a function.

A delivery is `queued` while a job of the outbox is to carry it, `waiting` between tries, and then `delivered` or
`given_up`. The outbox keeps the jobs of one endpoint in order and runs one of them at a time.
"""

from __future__ import annotations

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
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    select,
    text,
)

from hub.db import metadata
from hub.integrations.webhooks import Answer, Outcome

QUEUED: Final = "queued"
WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
GIVEN_UP: Final = "given_up"
"""States of a delivery."""

_TIME = TIMESTAMP(timezone=True)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_no", BigInteger, Identity(always=True)),
    Column("delivery_id", Uuid, nullable=False),
    Column(
        "endpoint_id",
        Uuid,
        ForeignKey("webhook_endpoints.endpoint_id", name="webhook_deliveries_endpoint_id_fk"),
        nullable=False,
    ),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("created_at", _TIME, nullable=False),
    Column("last_try_at", _TIME),
    Column("last_outcome", Text),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("last_duration_ms", Integer),
    Column("next_try_at", _TIME),
    Column("ended_at", _TIME),
    PrimaryKeyConstraint("delivery_no", name="webhook_deliveries_pk"),
    UniqueConstraint("delivery_id", name="webhook_deliveries_delivery_id_key"),
    CheckConstraint("state IN ('queued', 'waiting', 'delivered', 'given_up')", name="state"),
    CheckConstraint("last_outcome IN ('delivered', 'refused', 'unknown', 'not_sent')", name="last_outcome"),
    CheckConstraint("(state = 'waiting') = (next_try_at IS NOT NULL)", name="next_try"),
    CheckConstraint("(state IN ('delivered', 'given_up')) = (ended_at IS NOT NULL)", name="ended"),
    Index("webhook_deliveries_endpoint_id_idx", "endpoint_id", "delivery_no"),
    Index("webhook_deliveries_created_at_idx", "endpoint_id", "created_at"),
    Index(
        "webhook_deliveries_unfinished_idx",
        "endpoint_id",
        "state",
        "next_try_at",
        "delivery_no",
        postgresql_where=text("state IN ('queued', 'waiting')"),
    ),
    Index("webhook_deliveries_ended_at_idx", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)
"""`attempts` counts every try there was, `tries` those since the delivery was made or replayed. One that was begun, and
whose end nobody noted, is `unknown`."""


QUEUE_DUE = text(
    """
    WITH RECURSIVE addressed (endpoint_id) AS (
        (SELECT endpoint_id FROM webhook_deliveries WHERE state IN ('queued', 'waiting') ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.endpoint_id FROM webhook_deliveries AS d
                WHERE d.state IN ('queued', 'waiting') AND d.endpoint_id > a.endpoint_id
                ORDER BY d.endpoint_id LIMIT 1)
        FROM addressed AS a WHERE a.endpoint_id IS NOT NULL),
    due AS (
        SELECT w.delivery_no, w.next_try_at
        FROM addressed JOIN webhook_endpoints AS e USING (endpoint_id)
        CROSS JOIN LATERAL (
            SELECT d.delivery_no, d.next_try_at FROM webhook_deliveries AS d
            WHERE d.endpoint_id = e.endpoint_id AND d.state = 'waiting' AND d.next_try_at <= :now
            ORDER BY d.next_try_at, d.delivery_no
            LIMIT CASE WHEN e.failures > 0 THEN 1 ELSE :at_once_max END
            FOR UPDATE SKIP LOCKED) AS w
        WHERE (e.rests_until IS NULL OR e.rests_until <= :now)
          AND NOT EXISTS (SELECT FROM webhook_deliveries AS q
                          WHERE q.endpoint_id = e.endpoint_id AND q.state = 'queued')
        LIMIT :limit),
    queued AS (
        UPDATE webhook_deliveries SET state = 'queued', next_try_at = NULL
        WHERE delivery_no = ANY (ARRAY (SELECT due.delivery_no FROM due))
        RETURNING delivery_no, endpoint_id)
    SELECT delivery_no, endpoint_id FROM queued JOIN due USING (delivery_no) ORDER BY due.next_try_at, delivery_no
    """
)
"""From endpoint to endpoint by the index of what is unfinished, not from delivery to delivery: thousands may wait for a
dead endpoint, and are not looked at until it is their turn."""


@dataclass(frozen=True)
class Delivery:
    """One thing on its way to one endpoint. The duration of the last try in milliseconds."""

    delivery_no: int
    delivery_id: UUID
    endpoint_id: UUID
    kind: str
    body: str
    state: str
    attempts: int
    tries: int
    created_at: datetime
    last_try_at: datetime | None
    last_outcome: str | None
    last_status: int | None
    last_error: str | None
    last_duration_ms: int | None
    next_try_at: datetime | None
    ended_at: datetime | None


def insert_delivery(
    connection: Connection, delivery_id: UUID, endpoint_id: UUID, kind: str, body: str, now: datetime
) -> Delivery:
    """Write a delivery, queued: the caller writes its job."""
    statement = webhook_deliveries.insert().values(
        delivery_id=delivery_id, endpoint_id=endpoint_id, kind=kind, body=body, state=QUEUED, created_at=now
    )
    return _delivery(connection.execute(statement.returning(webhook_deliveries)).one())


def find_delivery(connection: Connection, endpoint_id: UUID, delivery_id: UUID) -> Delivery | None:
    """This delivery, if it is one of this endpoint."""
    query = select(webhook_deliveries).where(
        webhook_deliveries.c.endpoint_id == endpoint_id, webhook_deliveries.c.delivery_id == delivery_id
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _delivery(row)


def list_deliveries(
    connection: Connection, endpoint_id: UUID, state: str | None, before_no: int, limit: int
) -> list[Delivery]:
    """Deliveries to an endpoint, newest first, beginning before a number; of one state, if one is given."""
    query = select(webhook_deliveries).where(
        webhook_deliveries.c.endpoint_id == endpoint_id, webhook_deliveries.c.delivery_no < before_no
    )
    if state is not None:
        query = query.where(webhook_deliveries.c.state == state)
    rows = connection.execute(query.order_by(webhook_deliveries.c.delivery_no.desc()).limit(limit))
    return [_delivery(row) for row in rows]


def begin_try(connection: Connection, delivery_no: int, now: datetime) -> Delivery | None:
    """Count a try of a queued delivery before it is made, its end unknown; None if it is queued no more."""
    row = connection.execute(
        webhook_deliveries.update()
        .where(webhook_deliveries.c.delivery_no == delivery_no, webhook_deliveries.c.state == QUEUED)
        .values(
            attempts=webhook_deliveries.c.attempts + 1,
            tries=webhook_deliveries.c.tries + 1,
            last_try_at=now,
            last_outcome=Outcome.UNKNOWN,
            last_status=None,
            last_error="the hub stopped before it knew",
            last_duration_ms=None,
        )
        .returning(webhook_deliveries)
    ).one_or_none()
    return None if row is None else _delivery(row)


def end_try(
    connection: Connection, delivery: Delivery, answer: Answer, state: str, next_try_at: datetime | None, now: datetime
) -> bool:
    """Note how the try that `begin_try` counted ended. False if another try has begun since: nothing changed.

    A delivery that was given up meanwhile stays so, unless it has arrived after all.
    """
    changed = connection.execute(
        text(
            """
            UPDATE webhook_deliveries
            SET state = CASE WHEN ends_here THEN 'given_up' ELSE :state END,
                next_try_at = CASE WHEN ends_here THEN NULL ELSE CAST(:next_try_at AS timestamptz) END,
                ended_at = CASE WHEN ends_here THEN ended_at ELSE CAST(:ended_at AS timestamptz) END,
                last_outcome = :outcome, last_status = :status, last_error = :error, last_duration_ms = :duration_ms
            FROM (SELECT delivery_no AS number, state = 'given_up' AND :state <> 'delivered' AS ends_here
                  FROM webhook_deliveries WHERE delivery_no = :delivery_no FOR UPDATE) AS before
            WHERE delivery_no = number AND attempts = :attempts AND state IN ('queued', 'given_up')
            """
        ),
        {
            "delivery_no": delivery.delivery_no,
            "attempts": delivery.attempts,
            "state": state,
            "next_try_at": next_try_at,
            "ended_at": None if state == WAITING else now,
            "outcome": answer.outcome,
            "status": answer.status,
            "error": answer.error,
            "duration_ms": round(answer.duration_s * 1_000),
        },
    )
    return changed.rowcount == 1


def postpone_delivery(connection: Connection, delivery_no: int, next_try_at: datetime) -> None:
    """Let a queued delivery wait without a try."""
    connection.execute(
        webhook_deliveries.update()
        .where(webhook_deliveries.c.delivery_no == delivery_no, webhook_deliveries.c.state == QUEUED)
        .values(state=WAITING, next_try_at=next_try_at)
    )


def give_up_delivery(connection: Connection, delivery_no: int, error: str | None, now: datetime) -> None:
    """End a queued delivery without another try; `error` replaces what the last one said, if there is one."""
    values: dict[str, object] = {"state": GIVEN_UP, "ended_at": now}
    if error is not None:
        values["last_error"] = error
    connection.execute(
        webhook_deliveries.update()
        .where(webhook_deliveries.c.delivery_no == delivery_no, webhook_deliveries.c.state == QUEUED)
        .values(values)
    )


def give_up_deliveries(connection: Connection, endpoint_id: UUID, now: datetime) -> int:
    """End everything that is on its way to an endpoint; returns how many."""
    changed = connection.execute(
        webhook_deliveries.update()
        .where(webhook_deliveries.c.endpoint_id == endpoint_id, webhook_deliveries.c.state.in_([QUEUED, WAITING]))
        .values(state=GIVEN_UP, next_try_at=None, ended_at=now)
    )
    return changed.rowcount


def queue_again(connection: Connection, delivery_no: int) -> bool:
    """Let a delivery begin its tries anew; False if it is queued already. The caller writes its job."""
    changed = connection.execute(
        webhook_deliveries.update()
        .where(webhook_deliveries.c.delivery_no == delivery_no, webhook_deliveries.c.state != QUEUED)
        .values(state=QUEUED, tries=0, next_try_at=None, ended_at=None)
    )
    return changed.rowcount == 1


def queue_given_up(connection: Connection, endpoint_id: UUID, since: datetime, limit: int) -> list[int]:
    """Let what was made since then and given up begin its tries anew; the numbers, oldest first, of at most `limit`."""
    chosen = (
        select(webhook_deliveries.c.delivery_no)
        .where(
            webhook_deliveries.c.endpoint_id == endpoint_id,
            webhook_deliveries.c.state == GIVEN_UP,
            webhook_deliveries.c.created_at >= since,
        )
        .order_by(webhook_deliveries.c.delivery_no)
        .limit(limit)
        .with_for_update()
    )
    rows = connection.execute(
        webhook_deliveries.update()
        .where(webhook_deliveries.c.delivery_no.in_(chosen.scalar_subquery()))
        .values(state=QUEUED, tries=0, ended_at=None)
        .returning(webhook_deliveries.c.delivery_no)
    )
    return sorted(rows.scalars())


def queue_due(connection: Connection, now: datetime, at_once_max: int, limit: int) -> list[tuple[int, UUID]]:
    """Queue what waited long enough: number and endpoint of each, by when it was due. The caller writes the jobs.

    Of an endpoint that rests, or has something queued, nothing; of one that fails one delivery; else `at_once_max`.
    """
    rows = connection.execute(QUEUE_DUE, {"now": now, "at_once_max": at_once_max, "limit": limit})
    return [(int(row.delivery_no), row.endpoint_id) for row in rows]


def forget_deliveries(connection: Connection, ended_before: datetime) -> int:
    """Delete deliveries that ended before then; returns how many."""
    ended = webhook_deliveries.c.ended_at < ended_before
    return connection.execute(webhook_deliveries.delete().where(ended)).rowcount


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
