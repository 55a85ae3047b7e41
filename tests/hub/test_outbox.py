"""Jobs survive whoever works on them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from hub.db import transaction
from hub.outbox.jobs import BACK_OFF_MAX_S, LEASE, JobImpossible, back_off_s, run_jobs_once
from hub.outbox.store import add_job, count_unfinished_jobs, end_job, lease_due_job, postpone_job

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _add(engine, subject="roof", kind="greet", payload=None, now=NOON):
    with transaction(engine) as connection:
        add_job(connection, kind, subject, payload or {}, now)


def _lease(engine, now=NOON):
    with transaction(engine) as connection:
        return lease_due_job(connection, now, now + LEASE)


def _rows(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT state, attempts, last_error, run_at FROM outbox_jobs ORDER BY job_id")
        ).all()


def test_a_job_of_a_transaction_that_failed_never_existed(engine):
    with pytest.raises(RuntimeError), transaction(engine) as connection:
        add_job(connection, "greet", "roof", {}, NOON)
        raise RuntimeError
    assert _lease(engine) is None


def test_a_job_is_done_once(engine):
    _add(engine, payload={"name": "roof"})
    done = []
    handlers = {"greet": lambda job, now: done.append((job.subject, job.payload, now))}
    assert run_jobs_once(engine, handlers, lambda: NOON) == 1
    assert run_jobs_once(engine, handlers, lambda: NOON) == 0
    assert done == [("roof", {"name": "roof"}, NOON)]
    assert [row[:3] for row in _rows(engine)] == [("done", 1, None)]


def test_a_failed_job_waits_longer_each_time_and_is_never_dropped(engine):
    _add(engine)

    def fail(job, now):
        raise ConnectionError("the broker is away")

    now, pauses_s = NOON, []
    for attempt in range(1, 13):
        assert run_jobs_once(engine, {"greet": fail}, lambda now=now: now) == 1
        [(state, attempts, error, run_at)] = _rows(engine)
        assert (state, attempts, error) == ("waiting", attempt, "ConnectionError: the broker is away")
        pauses_s.append((run_at - now).total_seconds())
        assert _lease(engine, run_at - timedelta(seconds=1)) is None
        now = run_at
    assert pauses_s == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


@given(st.integers(min_value=1, max_value=2**31))
def test_no_pause_exceeds_five_minutes(attempts):
    assert 1 <= back_off_s(attempts) <= BACK_OFF_MAX_S


def test_a_job_that_can_never_succeed_is_given_up_and_kept(engine):
    _add(engine)
    _add(engine, kind="unheard of")

    def impossible(job, now):
        raise JobImpossible("the payload is no command")

    assert run_jobs_once(engine, {"greet": impossible}, lambda: NOON) == 2
    assert [row[:3] for row in _rows(engine)] == [
        ("given_up", 1, "the payload is no command"),
        ("given_up", 1, "this hub knows no such kind of job"),
    ]


def test_a_job_whose_worker_died_is_taken_over_when_its_lease_ends(engine):
    _add(engine)
    lost = _lease(engine)
    assert _lease(engine, NOON + LEASE - timedelta(seconds=1)) is None
    taken = _lease(engine, NOON + LEASE)
    assert (taken.job_id, taken.attempts) == (lost.job_id, 2)


def test_a_worker_that_comes_back_too_late_cannot_say_how_the_job_ended(engine):
    _add(engine)
    late = _lease(engine)
    current = _lease(engine, NOON + LEASE)
    with transaction(engine) as connection:
        assert not end_job(connection, late, "done", None, NOON)
        assert not postpone_job(connection, late, "gone", NOON)
        assert end_job(connection, current, "done", None, NOON)
        assert not end_job(connection, current, "given_up", "twice", NOON)
    assert _rows(engine)[0].state == "done"


def test_jobs_of_one_subject_keep_their_order_and_do_not_hold_up_others(engine):
    for number in range(3):
        _add(engine, payload={"number": number})
    _add(engine, subject="cellar", payload={"number": 9})
    first = _lease(engine)
    assert first.payload == {"number": 0}
    assert _lease(engine).subject == "cellar"
    assert _lease(engine) is None
    with transaction(engine) as connection:
        end_job(connection, first, "done", None, NOON)
        assert count_unfinished_jobs(connection) == 3
    assert _lease(engine).payload == {"number": 1}


def test_two_workers_share_the_jobs_and_do_each_once(engine):
    for number in range(60):
        _add(engine, subject=f"meter-{number}")
    done = []
    handlers = {"greet": lambda job, now: done.append(job.subject)}
    workers = [threading.Thread(target=run_jobs_once, args=(engine, handlers, lambda: NOON)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(done) == sorted(f"meter-{number}" for number in range(60))
