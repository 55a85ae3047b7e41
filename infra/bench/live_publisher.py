"""Commits updates at a steady rate, as a domain of the hub does at the end of its transaction, and says when.

The statement is the hub's, for one topic (`hub/live/store.py`; a test holds one to the other). Of each update the
monotonic clock, in nanoseconds, just before the COMMIT is sent: what comes later is delivery.
"""

import argparse
import json
import time
from pathlib import Path

import psycopg

APPEND = (
    "WITH numbered AS (INSERT INTO live_topics AS t (topic, sequence) VALUES (%(topic)s, 1)"
    "   ON CONFLICT (topic) DO UPDATE SET sequence = t.sequence + 1 RETURNING topic, sequence),"
    " written AS (INSERT INTO live_updates (topic, sequence, at, kind, data)"
    "   SELECT topic, sequence, now(), 'bench.told', %(data)s::json FROM numbered)"
    " SELECT sequence, pg_notify('commonwatt_live',"
    "   extract(epoch FROM clock_timestamp())::text || ' ' || topic || ' ' || sequence) FROM numbered"
)


def append(connection: "psycopg.Connection[tuple[int, object]]", topic: str, data: dict[str, object]) -> int:
    """Write one update in the connection's transaction; returns its sequence."""
    row = connection.execute(APPEND, {"topic": topic, "data": json.dumps(data)}).fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    """Publish, each update at its own time, however long the one before took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--topic", default="book")
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--per-s", type=float, required=True)
    parser.add_argument("--data-bytes", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    committed: dict[int, int] = {}
    with psycopg.connect(given.database_url) as connection:
        begun_s = time.monotonic()
        for number in range(given.updates):
            time.sleep(max(0.0, begun_s + number / given.per_s - time.monotonic()))
            sequence = append(connection, given.topic, {"number": number, "filler": "x" * given.data_bytes})
            committed[sequence] = time.monotonic_ns()
            connection.commit()
    given.out.write_text(json.dumps(committed))


if __name__ == "__main__":
    main()
