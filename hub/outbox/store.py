"""The jobs table: written in business transactions, leased by workers.

A lease is a row lock only for the moment of taking it; from then on it is a deadline and a fencing token, so that a
worker which hung, and comes back after another took over, can no longer say how the job ended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.db import metadata

outbox_jobs = Table(
    "outbox_jobs",
    metadata,
    Column("job_id", BigInteger, Identity(always=True)),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("run_at", TIMESTAMP(timezone=True), nullable=False),
    Column("leased_until", TIMESTAMP(timezone=True)),
    Column("last_error", Text),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("ended_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("job_id", name="outbox_jobs_pk"),
)
_UNFINISHED = outbox_jobs.c.state.in_(["waiting", "running"])
Index(
    "outbox_jobs_due_idx",
    outbox_jobs.c.kind,
    outbox_jobs.c.run_at,
    outbox_jobs.c.job_id,
    postgresql_where=_UNFINISHED,
)
Index(
    "outbox_jobs_unfinished_idx",
    outbox_jobs.c.subject,
    outbox_jobs.c.kind,
    outbox_jobs.c.job_id,
    postgresql_where=_UNFINISHED,
)


@dataclass(frozen=True)
class Job:
    """A leased job. `attempts` counts this one too; `lease_token` proves that the lease is still ours."""

    job_id: int
    kind: str
    subject: str
    payload: Mapping[str, Any]
    attempts: int
    lease_token: int


@dataclass(frozen=True)
class Backlog:
    """What is unfinished of a kind. `due_at` is the earliest instant at which one of them may run."""

    kind: str
    jobs: int
    due_at: datetime


_LEASE = text(
    """
    UPDATE outbox_jobs
    SET state = 'running', attempts = attempts + 1, lease_token = lease_token + 1, leased_until = :leased_until
    WHERE job_id = (
        SELECT due.job_id
        FROM unnest(CAST(:kinds AS text[])) AS served (kind)
        CROSS JOIN LATERAL (
            SELECT job.job_id, job.run_at FROM outbox_jobs AS job
            WHERE job.kind = served.kind AND job.run_at <= :now AND job.state IN ('waiting', 'running')
              AND (job.state = 'waiting' OR job.leased_until <= :now)
              AND job.job_id = (
                  SELECT first.job_id FROM outbox_jobs AS first
                  WHERE (first.subject, first.kind) >= (job.subject, job.kind)
                    AND first.state IN ('waiting', 'running')
                  ORDER BY first.subject, first.kind, first.job_id LIMIT 1)
            ORDER BY job.run_at, job.job_id LIMIT 1
            FOR UPDATE SKIP LOCKED) AS due
        ORDER BY due.run_at, due.job_id LIMIT 1)
    RETURNING job_id, kind, subject, payload, attempts, lease_token
    """
)
"""For each kind its first due job by that kind's index, and of these the earliest: however many jobs of other kinds
wait, none is looked at. Which job is the first of its subject is asked by a range and not by equality, for which only
one index has the order: neither a join nor a walk along the primary key can look cheaper to the planner."""


def add_job(connection: Connection, kind: str, subject: str, payload: Mapping[str, object], now: datetime) -> None:
    """Write a job, due at once, in the caller's transaction."""
    connection.execute(
        outbox_jobs.insert().values(
            kind=kind, subject=subject, payload=dict(payload), state="waiting", run_at=now, created_at=now
        )
    )


def lease_due_job(connection: Connection, kinds: Collection[str], now: datetime, leased_until: datetime) -> Job | None:
    """Take the job of these kinds that has been due for longest, also one whose worker's lease ran out.

    Jobs of one kind and subject run in the order in which they were written: while one is unfinished, the later wait.
    """
    row = connection.execute(_LEASE, {"kinds": sorted(kinds), "now": now, "leased_until": leased_until}).one_or_none()
    return None if row is None else Job(**row._mapping)


def end_job(connection: Connection, job: Job, state: str, error: str | None, now: datetime) -> bool:
    """Mark a job `done` or `given_up`. False if the lease had passed to someone else: nothing changed."""
    return _update_leased(connection, job, state=state, last_error=error, leased_until=None, ended_at=now)


def postpone_job(connection: Connection, job: Job, error: str, run_at: datetime) -> bool:
    """Let a job wait until `run_at`. False if the lease had passed to someone else: nothing changed."""
    return _update_leased(connection, job, state="waiting", last_error=error, leased_until=None, run_at=run_at)


def list_backlogs(connection: Connection) -> list[Backlog]:
    """How many jobs of each kind are unfinished, and when the first of them is or was due."""
    rows = connection.execute(
        select(outbox_jobs.c.kind, func.count().label("jobs"), func.min(outbox_jobs.c.run_at).label("due_at"))
        .where(_UNFINISHED)
        .group_by(outbox_jobs.c.kind)
        .order_by(outbox_jobs.c.kind)
    )
    return [Backlog(*row) for row in rows]


def has_unfinished_job(connection: Connection, kind: str, subject: str) -> bool:
    """Whether such a job waits or runs."""
    query = select(outbox_jobs.c.job_id).where(
        _UNFINISHED, outbox_jobs.c.kind == kind, outbox_jobs.c.subject == subject
    )
    return connection.execute(query.limit(1)).first() is not None


def forget_ended_jobs(connection: Connection, ended_before: datetime) -> int:
    """Delete jobs that were done before then; those given up stay. Returns how many."""
    ended = (outbox_jobs.c.state == "done") & (outbox_jobs.c.ended_at < ended_before)
    return connection.execute(outbox_jobs.delete().where(ended)).rowcount


def _update_leased(connection: Connection, job: Job, **changes: object) -> bool:
    updated = connection.execute(
        outbox_jobs.update()
        .where(
            outbox_jobs.c.job_id == job.job_id,
            outbox_jobs.c.lease_token == job.lease_token,
            outbox_jobs.c.state == "running",
        )
        .values(**changes)
    )
    return updated.rowcount == 1
