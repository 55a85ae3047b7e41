"""What the hub does on its own clock in the jobs process, besides the outbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from hub import logs
from hub.db import ensure_months, is_database_away, transaction
from hub.idempotency import forget_old_keys
from hub.outbox.store import forget_ended_jobs

PARTITIONS_AHEAD: Final = timedelta(days=35)
ENDED_JOBS_KEPT_FOR: Final = timedelta(days=7)
TICK_S: Final = 1.0

log = logs.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to do every so often; `once` takes the time and returns how much there was to do."""

    name: str
    every_s: float
    once: Callable[[datetime], int]


def run_chores(chores: Sequence[Chore], clock: Callable[[], datetime], stop: threading.Event) -> None:
    """Do each chore at the start and then at its pace, until `stop`. A database that is away is tried again."""
    due_s = dict.fromkeys((chore.name for chore in chores), 0.0)
    while not stop.is_set():
        for chore in chores:
            if time.monotonic() < due_s[chore.name]:
                continue
            try:
                done = chore.once(clock())
            except Exception as fault:
                if not is_database_away(fault):
                    raise
                log.warning("chore_postponed", chore=chore.name, error=str(fault).strip().splitlines()[0])
                continue
            due_s[chore.name] = time.monotonic() + chore.every_s
            if done:
                log.info("chore_done", chore=chore.name, count=done)
        stop.wait(TICK_S)


def make_partitions_once(engine: Engine, now: datetime) -> int:
    """Have next month's partitions ready before its first second."""
    months = {(moment.year, moment.month) for moment in (now, now + PARTITIONS_AHEAD)}
    ensure_months(engine, months)
    return 0


def forget_ended_jobs_once(engine: Engine, now: datetime) -> int:
    """Drop outbox jobs that were done long ago; what they did is in the audit log."""
    with transaction(engine) as connection:
        return forget_ended_jobs(connection, now - ENDED_JOBS_KEPT_FOR)


def forget_old_keys_once(engine: Engine, now: datetime) -> int:
    """Drop the idempotency keys that nobody will repeat any more."""
    with transaction(engine) as connection:
        return forget_old_keys(connection, now)
