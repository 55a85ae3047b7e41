"""Topics and their newest updates: the tables, the statement that writes both, and what is read of them.

The feed reads by asynchronous connections of its own; everybody else in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

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
"""`NOTIFY`: `flushed_s topic sequence,topic sequence…`: when it was written, and how far each topic has come."""
TOPICS_PER_NOTIFICATION: Final = 100
"""PostgreSQL takes less than 8,000 bytes; a topic and its sequence are at most 70."""

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


class NewUpdate(msgspec.Struct, frozen=True):
    """An update without its number. `data` is JSON."""

    topic: str
    at: datetime
    kind: str
    data: str


class StoredUpdate(msgspec.Struct, frozen=True):
    """An update as stored. `data` is JSON."""

    topic: str
    sequence: int
    at: datetime
    kind: str
    data: str


def append_updates(connection: Connection, updates: Sequence[NewUpdate]) -> None:
    """Number updates, store them, and have PostgreSQL tell it at the commit.

    The row of each topic stays locked until then, in the order of the names: so numbers are given in the order of
    commits and without a gap, and two transactions never wait for each other in a circle.
    """
    driver(connection).execute(
        "WITH given AS (SELECT g.*, row_number() OVER (PARTITION BY topic ORDER BY ordinality) AS place"
        "   FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::text[]) WITH ORDINALITY"
        "   AS g (topic, at, kind, data)),"
        " counted AS (SELECT topic, count(*) AS count FROM given GROUP BY topic ORDER BY topic),"
        " numbered AS (INSERT INTO live_topics AS t (topic, sequence) SELECT topic, count FROM counted"
        "   ON CONFLICT (topic) DO UPDATE SET sequence = t.sequence + excluded.sequence RETURNING topic, sequence),"
        " written AS (INSERT INTO live_updates (topic, sequence, at, kind, data)"
        "   SELECT g.topic, n.sequence - c.count + g.place, g.at, g.kind, g.data::json"
        "   FROM given g JOIN counted c USING (topic) JOIN numbered n USING (topic)),"
        " parts AS (SELECT topic, sequence, (row_number() OVER (ORDER BY topic) - 1) / %s AS part FROM numbered)"
        " SELECT pg_notify(%s, extract(epoch FROM clock_timestamp())::text"
        "   || ' ' || string_agg(topic || ' ' || sequence, ',')) FROM parts GROUP BY part",
        [
            [update.topic for update in updates],
            [update.at for update in updates],
            [update.kind for update in updates],
            [update.data for update in updates],
            TOPICS_PER_NOTIFICATION,
            CHANNEL,
        ],
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
    return {row[0]: row[1] for row in rows}  # type: ignore[misc]


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
