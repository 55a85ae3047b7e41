"""Running what the outbox holds: lease, do it outside any transaction, write down how it ended.

A job may be done twice (the worker dies after doing it, before saying so), so every handler is harmless to repeat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from hub import logs, metrics
from hub.db import is_database_away, transaction
from hub.outbox.store import Job, count_unfinished_jobs, end_job, lease_due_job, postpone_job

LEASE = timedelta(seconds=60)
"""Longer than any handler's own timeouts together."""

BACK_OFF_MAX_S = 300
BATCH_JOBS_MAX = 100
POLL_PAUSE_S = 0.5
ERROR_LENGTH_MAX = 500

log = logs.get_logger()

Clock = Callable[[], datetime]
Handler = Callable[[Job, datetime], None]
"""Does one job. Returns when it is done; raises JobImpossible if it never can be; any other exception: later again."""


class JobImpossible(Exception):
    """No repetition will help: the payload itself is wrong, or came too late."""


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def back_off_s(attempts: int) -> int:
    """The pause after so many failed attempts: 1, 2, 4, … seconds, at most BACK_OFF_MAX_S."""
    return min(BACK_OFF_MAX_S, 1 << min(attempts - 1, 16))


def run_jobs_once(engine: Engine, handlers: Mapping[str, Handler], clock: Clock) -> int:
    """Do what is due, at most BATCH_JOBS_MAX jobs; returns how many were tried.

    Raises only if the database is away.
    """
    for tried in range(BATCH_JOBS_MAX):
        now = clock()
        with transaction(engine) as connection:
            job = lease_due_job(connection, now, now + LEASE)
        if job is None:
            return tried
        _run(engine, handlers, job, clock)
    return BATCH_JOBS_MAX


def run_jobs(engine: Engine, handlers: Mapping[str, Handler], stop: threading.Event) -> None:
    """Go on until `stop` is set. The loop only paces; a database that is away is tried again."""
    while not stop.is_set():
        tried = 0
        try:
            tried = run_jobs_once(engine, handlers, utc_now)
            with transaction(engine) as connection:
                metrics.OUTBOX_DEPTH.set(count_unfinished_jobs(connection))
        except Exception as fault:
            if not is_database_away(fault):
                raise
            log.warning("outbox_database_away", error=str(fault).splitlines()[0])
        if tried < BATCH_JOBS_MAX:
            stop.wait(POLL_PAUSE_S)


def _run(engine: Engine, handlers: Mapping[str, Handler], job: Job, clock: Clock) -> None:
    with logs.bound(job_id=str(job.job_id), job_kind=job.kind, job_subject=job.subject):
        error: str | None = None
        try:
            _handler_of(handlers, job)(job, clock())
        except JobImpossible as fault:
            error = str(fault)
            log.error("job_given_up", error=error)  # noqa: TRY400 - the reason says all, a traceback adds nothing
        except Exception as fault:  # noqa: BLE001 - a job must not stop the others, whatever its handler meets
            _postpone(engine, job, clock(), f"{type(fault).__name__}: {fault}"[:ERROR_LENGTH_MAX])
            return
        state = "done" if error is None else "given_up"
        metrics.OUTBOX_JOBS.labels(job.kind, state).inc()
        with transaction(engine) as connection:
            ours = end_job(connection, job, state, error, clock())
        if not ours:
            log.warning("job_lease_lost")


def _handler_of(handlers: Mapping[str, Handler], job: Job) -> Handler:
    try:
        return handlers[job.kind]
    except KeyError:
        raise JobImpossible("this hub knows no such kind of job") from None


def _postpone(engine: Engine, job: Job, now: datetime, error: str) -> None:
    pause_s = back_off_s(job.attempts)
    log.warning("job_postponed", error=error, pause_s=pause_s, attempts=job.attempts)
    metrics.OUTBOX_JOBS.labels(job.kind, "postponed").inc()
    with transaction(engine) as connection:
        if not postpone_job(connection, job, error, now + timedelta(seconds=pause_s)):
            log.warning("job_lease_lost")
