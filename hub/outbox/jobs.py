"""Running what the outbox holds: lease, do it outside any transaction, write down how it ended.

A job may be done twice (the worker dies after doing it, before saying so), so every handler is harmless to repeat.

A worker serves the kinds it has handlers for and no others. Kinds with the same fate share a lane (`hub/cli.py`), so
that what is slow in one lane delays nothing in another; a kind that no lane serves waits, and says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from hub import logs, metrics
from hub.db import is_database_away, transaction
from hub.outbox.store import Job, end_job, lease_due_job, list_backlogs, postpone_job

LEASE = timedelta(seconds=60)
"""Longer than any handler's own timeouts together."""

BACK_OFF_MAX_S = 300
BATCH_JOBS_MAX = 100
POLL_PAUSE_S = 0.5
ERROR_LENGTH_MAX = 500

log = logs.get_logger()

Clock = Callable[[], datetime]
Handler = Callable[[Job, datetime], None]
"""Does one job. Returns when it is done; raises JobImpossible if it never can be, JobPostponed if it may go on at a
certain time; any other exception: later again, by `back_off_s`."""


class JobImpossible(Exception):
    """No repetition will help: the payload itself is wrong, or came too late."""


class JobPostponed(Exception):
    """Not now, and the handler knows when: in `pause_s` seconds."""

    def __init__(self, reason: str, pause_s: float) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def back_off_s(attempts: int) -> int:
    """The pause after so many failed attempts: 1, 2, 4, … seconds, at most BACK_OFF_MAX_S."""
    return min(BACK_OFF_MAX_S, 1 << min(attempts - 1, 16))


def run_jobs_once(engine: Engine, handlers: Mapping[str, Handler], clock: Clock, jobs_max: int = BATCH_JOBS_MAX) -> int:
    """Do what is due, at most `jobs_max` jobs; returns how many were tried.

    Raises only if the database is away.
    """
    for tried in range(jobs_max):
        now = clock()
        with transaction(engine) as connection:
            job = lease_due_job(connection, handlers.keys(), now, now + LEASE)
        if job is None:
            return tried
        _run(engine, handlers[job.kind], job, clock)
    return jobs_max


def run_jobs(engine: Engine, handlers: Mapping[str, Handler], stop: threading.Event) -> None:
    """Go on until `stop` is set. The loop only paces; a database that is away is tried again."""
    while not stop.is_set():
        tried = 0
        try:
            tried = run_jobs_once(engine, handlers, utc_now, 1)  # one by one: a signal waits for one job at most
        except Exception as fault:
            if not is_database_away(fault):
                raise
            log.warning("outbox_database_away", error=str(fault).splitlines()[0])
        if not tried:
            stop.wait(POLL_PAUSE_S)


@dataclass(frozen=True)
class Lane:
    """Kinds of jobs that share their workers, each a thread with a connection to the database now and then."""

    name: str
    workers: int
    handlers: Mapping[str, Handler]


def loops_of(lanes: Collection[Lane], engine: Engine, stop: threading.Event) -> dict[str, Callable[[], None]]:
    """What each worker has to run, by the name of its thread."""
    kinds = [kind for lane in lanes for kind in lane.handlers]
    assert len(kinds) == len(set(kinds)), "a kind has two lanes"
    return {
        f"{lane.name}-{number}": lambda handlers=lane.handlers: run_jobs(engine, handlers, stop)  # type: ignore[misc]
        for lane in lanes
        for number in range(1, lane.workers + 1)
    }


class OutboxGauges:
    """What waits in the outbox, for Prometheus; and a line in the log when a kind waits that nobody here serves."""

    def __init__(self, served: Iterable[str]) -> None:
        self._served = frozenset(served)
        self._unserved: frozenset[str] = frozenset()

    def measure_once(self, engine: Engine, now: datetime) -> int:
        """Set the gauges. Kinds are the hub's own words, so that they may be labels."""
        with transaction(engine) as connection:
            backlogs = list_backlogs(connection)
        metrics.OUTBOX_DEPTH.set(sum(each.jobs for each in backlogs))
        for gauge in (metrics.OUTBOX_LATENESS, metrics.OUTBOX_UNSERVED):
            gauge.clear()
        for each in backlogs:
            metrics.OUTBOX_LATENESS.labels(each.kind).set(max(0.0, (now - each.due_at).total_seconds()))
            if each.kind not in self._served:
                metrics.OUTBOX_UNSERVED.labels(each.kind).set(each.jobs)
        unserved = frozenset(each.kind for each in backlogs) - self._served
        if unserved - self._unserved:
            log.warning("outbox_kinds_unserved", kinds=sorted(unserved))  # a newer hub may have written them
        self._unserved = unserved
        return 0


def _run(engine: Engine, handler: Handler, job: Job, clock: Clock) -> None:
    with logs.bound(job_id=str(job.job_id), job_kind=job.kind, job_subject=job.subject):
        error: str | None = None
        try:
            handler(job, clock())
        except JobImpossible as fault:
            error = str(fault)
            log.error("job_given_up", error=error)  # noqa: TRY400 - the reason says all, a traceback adds nothing
        except JobPostponed as fault:
            log.info("job_postponed", reason=str(fault), pause_s=fault.pause_s)
            _postpone(engine, job, clock(), str(fault), fault.pause_s)
            return
        except Exception as fault:  # noqa: BLE001 - a job must not stop the others, whatever its handler meets
            error, pause_s = f"{type(fault).__name__}: {fault}", back_off_s(job.attempts)
            log.warning("job_failed", error=error[:ERROR_LENGTH_MAX], pause_s=pause_s, attempts=job.attempts)
            _postpone(engine, job, clock(), error, pause_s)
            return
        state = "done" if error is None else "given_up"
        metrics.OUTBOX_JOBS.labels(job.kind, state).inc()
        with transaction(engine) as connection:
            ours = end_job(connection, job, state, error, clock())
        if not ours:
            log.warning("job_lease_lost")


def _postpone(engine: Engine, job: Job, now: datetime, error: str, pause_s: float) -> None:
    metrics.OUTBOX_JOBS.labels(job.kind, "postponed").inc()
    kept = error[:ERROR_LENGTH_MAX].replace("\x00", "\ufffd")
    with transaction(engine) as connection:
        if not postpone_job(connection, job, kept, now + timedelta(seconds=pause_s)):
            log.warning("job_lease_lost")
