"""Topics and their newest updates: the tables, the statement that writes both, and what is read of them.

The feed reads by asynchronous connections of its own; everybody else in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, cast

import msgspec
import psycopg
from psycopg.rows import TupleRow
from sqlalchemy import (
    JSON,
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    PrimaryKeyConstraint,
    Table,
    Text,
    select,
    text,
)

from hub.db import driver, metadata

CHANNEL: Final = "commonwatt_live"
"""`NOTIFY`: `flushed_unix_s topic sequence,topic sequence…`: when it was written, and how far each topic has come."""

live_topics = Table(
    "live_topics",
    metadata,
    Column("topic", Text),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("topic", name="live_topics_pk"),
    CheckConstraint("sequence > 0", name="sequence"),
)
"""`sequence` is that of the topic's newest update; it only grows, also when updates are forgotten."""

live_updates = Table(
    "live_updates",
    metadata,
    Column("topic", Text),
    Column("sequence", BigInteger, autoincrement=False),
    Column("at", TIMESTAMP(timezone=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", JSON, nullable=False),
    PrimaryKeyConstraint("topic", "sequence", name="live_updates_pk"),
)

AsyncDriver = psycopg.AsyncConnection[TupleRow]


class StoredUpdate(msgspec.Struct, frozen=True):
    """An update as stored. `data` is JSON."""

    topic: str
    sequence: int
    at: datetime
    kind: str
    data: str


def advance_topics(connection: Connection, counts: Mapping[str, int]) -> dict[str, int]:
    """Count so many more updates of each topic; returns the sequence of the newest of each.

    The rows stay locked until the transaction ends, in the order of the names everywhere: so numbers are given in the
    order of commits and without a gap, and two transactions never wait for each other in a circle.
    """
    topics = sorted(counts)
    rows = driver(connection).execute(
        "INSERT INTO live_topics AS t (topic, sequence) SELECT * FROM unnest(%s::text[], %s::bigint[])"
        " ON CONFLICT (topic) DO UPDATE SET sequence = t.sequence + excluded.sequence RETURNING topic, sequence",
        [topics, [counts[topic] for topic in topics]],
    )
    return dict(cast(list[tuple[str, int]], rows.fetchall()))


def copy_updates(connection: Connection, updates: Iterable[StoredUpdate]) -> None:
    """Store numbered updates."""
    columns = "topic, sequence, at, kind, data"
    with driver(connection).cursor().copy(f"COPY live_updates ({columns}) FROM STDIN") as copy:
        for each in updates:
            copy.write_row((each.topic, each.sequence, each.at, each.kind, each.data))


def notify(connection: Connection, payloads: Sequence[str]) -> None:
    """Have PostgreSQL tell every API process at the commit."""
    driver(connection).execute(
        "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", [CHANNEL, [*payloads]]
    )


def map_sequences(connection: Connection, topics: Sequence[str]) -> dict[str, int]:
    """The sequence of the newest update of each of these topics; one that has had none is left out."""
    query = select(live_topics.c.topic, live_topics.c.sequence).where(live_topics.c.topic.in_(topics))
    return {row.topic: row.sequence for row in connection.execute(query)}


def map_oldest_sequences(connection: Connection, topics: Sequence[str]) -> dict[str, int]:
    """The sequence of the oldest update that is kept of each of these topics; one of which none is kept is left out."""
    rows = driver(connection).execute(
        "SELECT t.topic, u.sequence FROM unnest(%s::text[]) AS t (topic), LATERAL"
        " (SELECT sequence FROM live_updates WHERE topic = t.topic ORDER BY sequence LIMIT 1) AS u",
        [list(topics)],
    )
    return dict(cast(list[tuple[str, int]], rows.fetchall()))


def forget_updates(connection: Connection, before: datetime, kept_max: int, limit: int) -> int:
    """Delete updates from before then, and those beyond `kept_max` of a topic; at most `limit`, returns how many.

    Of each topic the oldest go, up to the first that is recent enough, so that what remains is without a gap.
    """
    deleted = connection.execute(
        text(
            """
            DELETE FROM live_updates AS u USING (
                SELECT t.topic, o.sequence
                FROM live_topics AS t CROSS JOIN LATERAL (
                    SELECT greatest(t.sequence - :kept_max + 1, coalesce(
                        (SELECT f.sequence FROM live_updates AS f
                         WHERE f.topic = t.topic AND f.at >= :before ORDER BY f.sequence LIMIT 1),
                        t.sequence + 1)) AS kept_from) AS k
                CROSS JOIN LATERAL (
                    SELECT f.sequence FROM live_updates AS f
                    WHERE f.topic = t.topic AND f.sequence < k.kept_from ORDER BY f.sequence LIMIT :limit) AS o
                ORDER BY t.topic, o.sequence LIMIT :limit) AS old
            WHERE u.topic = old.topic AND u.sequence = old.sequence
            """
        ),
        {"before": before, "kept_max": kept_max, "limit": limit},
    )
    return deleted.rowcount


# --- what the feed reads ---------------------------------------------------------------------------------------


async def read_sequences(db: AsyncDriver, topics: Sequence[str]) -> dict[str, int]:
    """As `map_sequences`."""
    cursor = await db.execute("SELECT topic, sequence FROM live_topics WHERE topic = ANY(%s)", [list(topics)])
    return {topic: sequence for topic, sequence in await cursor.fetchall()}


async def read_updates(db: AsyncDriver, after: Sequence[tuple[str, int]], limit: int) -> list[StoredUpdate]:
    """The updates of topics behind a sequence, (topic, sequence) each, in order; at most `limit` of each topic."""
    cursor = await db.execute(
        "SELECT t.topic, u.sequence, u.at, u.kind, u.data::text FROM unnest(%s::text[], %s::bigint[])"
        " AS t (topic, after), LATERAL (SELECT * FROM live_updates"
        "   WHERE topic = t.topic AND sequence > t.after ORDER BY sequence LIMIT %s) AS u"
        " ORDER BY t.topic, u.sequence",
        [[topic for topic, _ in after], [sequence for _, sequence in after], limit],
    )
    return [StoredUpdate(*row) for row in await cursor.fetchall()]
