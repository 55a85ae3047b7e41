"""Buckets in PostgreSQL, shared by all API processes: for the limits that guard guesses. The rule in one statement.

The table is unlogged: a crashed database forgets who has tried how often, and nothing that anybody may have to prove.
A bucket is named by a keyed hash, so the table tells nobody which addresses were tried.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Column, Connection, LargeBinary, PrimaryKeyConstraint, Table, text

from hub.db import metadata
from hub.limits.rules import MICROSECONDS_PER_S, Policy, Verdict, judge

BUCKET_BYTES = 16

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("bucket", LargeBinary, nullable=False),
    Column("rested_at_us", BigInteger, nullable=False),
    Column("counted", Boolean, nullable=False),
    PrimaryKeyConstraint("bucket", name="rate_limits_pk"),
)
"""`counted` says how the last request ended, because a statement can return only what is stored."""

_TAKE = text(
    """
    INSERT INTO rate_limits AS l (bucket, rested_at_us, counted)
    VALUES (:bucket, CAST(:now_us AS bigint) + :cost_us, true)
    ON CONFLICT (bucket) DO UPDATE SET (rested_at_us, counted) = (
        SELECT CASE WHEN fits THEN begins_us + :cost_us ELSE begins_us END, fits
        FROM (SELECT least(greatest(l.rested_at_us, :now_us), :now_us + :window_us) AS begins_us) AS b,
             LATERAL (SELECT begins_us + :cost_us <= :now_us + :window_us AS fits) AS f)
    RETURNING rested_at_us, counted
    """
)


def take(connection: Connection, bucket: bytes, policy: Policy, now: datetime) -> Verdict:
    """Take one request out of a bucket, or say that it is empty. The bucket is locked until the transaction ends."""
    now_us = _microseconds(now)
    taken = connection.execute(
        _TAKE, {"bucket": bucket, "now_us": now_us, "cost_us": policy.cost_us, "window_us": policy.window_us}
    ).one()
    return judge(policy, taken.counted, taken.rested_at_us, now_us)


def forget_bucket(connection: Connection, bucket: bytes) -> None:
    """Fill a bucket at once."""
    connection.execute(rate_limits.delete().where(rate_limits.c.bucket == bucket))


def forget_full_buckets(connection: Connection, now: datetime) -> int:
    """Delete the buckets that are full again; returns how many."""
    return connection.execute(rate_limits.delete().where(rate_limits.c.rested_at_us <= _microseconds(now))).rowcount


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * MICROSECONDS_PER_S)
