"""Who reads which shard: leases in the database, so that workers come and go without configuration.

A lease is a row with a holder, an expiry and a token that grows with every change of hands. Each batch checks the
tokens of its shards inside its own transaction, so a worker that was away too long cannot write beside its successor.
Time is the database's: workers need not agree on a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hub.db import Driver
from hub.errors import LeaseLost
from protocol.limits import SHARDS

LEASE_S = 3.0
"""How long the shards of a killed worker wait. A worker that stalls for longer only starts over."""
RENEW_EVERY_S = 0.75


def fair_share(workers: int) -> int:
    """How many shards one of so many workers holds at most."""
    return -(-SHARDS // max(1, workers))


def announce_worker(db: Driver, worker_id: str) -> int:
    """Say that this worker lives, forget those that fell silent, and return how many there are."""
    db.execute(
        "INSERT INTO ingest_workers VALUES (%(id)s, now() + make_interval(secs => %(lease)s))"
        " ON CONFLICT (worker_id) DO UPDATE SET expires_at = excluded.expires_at",
        {"id": worker_id, "lease": LEASE_S},
    )
    db.execute("DELETE FROM ingest_workers WHERE expires_at < now()")
    row = db.execute("SELECT count(*) FROM ingest_workers").fetchone()
    assert row is not None
    return int(row[0])


def renew_leases(db: Driver, worker_id: str, tokens: Mapping[int, int]) -> set[int]:
    """Extend the leases held with these tokens; returns the shards that are still ours."""
    rows = db.execute(
        "UPDATE shard_leases SET expires_at = now() + make_interval(secs => %s)"
        " WHERE holder = %s AND (shard, token) IN (SELECT * FROM unnest(%s::smallint[], %s::bigint[]))"
        " RETURNING shard",
        [LEASE_S, worker_id, list(tokens), list(tokens.values())],
    )
    return {row[0] for row in rows}


def acquire_leases(db: Driver, worker_id: str, known: Collection[int], limit: int) -> dict[int, int]:
    """Take up to so many shards that nobody holds, or that are ours but not among those `known`: token by shard."""
    rows = db.execute(
        "UPDATE shard_leases SET holder = %s, token = token + 1, expires_at = now() + make_interval(secs => %s)"
        " WHERE shard IN (SELECT shard FROM shard_leases WHERE (expires_at < now() OR holder = %s)"
        "   AND NOT shard = ANY(%s) ORDER BY shard LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING shard, token",
        [worker_id, LEASE_S, worker_id, list(known), limit],
    )
    return dict(rows.fetchall())


def release_leases(db: Driver, worker_id: str, shards: Sequence[int]) -> None:
    """Give shards back at once."""
    db.execute(
        "UPDATE shard_leases SET holder = NULL, expires_at = '-infinity' WHERE holder = %s AND shard = ANY(%s)",
        [worker_id, list(shards)],
    )


def dismiss_worker(db: Driver, worker_id: str) -> None:
    """The worker ends: it no longer counts for anybody's share."""
    db.execute("DELETE FROM ingest_workers WHERE worker_id = %s", [worker_id])


def check_leases_for_share(db: Driver, worker_id: str, tokens: Mapping[int, int]) -> None:
    """Hold these leases until the transaction ends. Raises LeaseLost if one has changed hands."""
    rows = db.execute(
        "SELECT shard FROM shard_leases WHERE holder = %s"
        " AND (shard, token) IN (SELECT * FROM unnest(%s::smallint[], %s::bigint[])) FOR SHARE",
        [worker_id, list(tokens), list(tokens.values())],
    )
    lost = set(tokens) - {row[0] for row in rows}
    if lost:
        raise LeaseLost(f"shards {sorted(lost)}")
