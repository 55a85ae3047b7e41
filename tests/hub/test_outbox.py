"""Jobs survive whoever works on them."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from hub import metrics
from hub.db import transaction
from hub.outbox.jobs import (
    BACK_OFF_MAX_S,
    LEASE,
    JobImpossible,
    JobPostponed,
    Lane,
    OutboxGauges,
    back_off_s,
    loops_of,
    run_jobs_once,
)
from hub.outbox.store import Backlog, add_job, end_job, lease_due_job, list_backlogs, postpone_job

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TIMEOUT_S = 20


def _add(engine, subject="roof", kind="greet", payload=None, now=NOON):
    with transaction(engine) as connection:
        add_job(connection, kind, subject, payload or {}, now)


def _lease(engine, now=NOON, kinds=("greet",)):
    with transaction(engine) as connection:
        return lease_due_job(connection, kinds, now, now + LEASE)


def _plant(engine, count, kind, subject, now=NOON):
    """Many waiting jobs at once; `subject` is SQL over `number`."""
    with transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO outbox_jobs (kind, subject, payload, state, run_at, created_at)"
                f" SELECT :kind, {subject}, '{{}}', 'waiting', CAST(:now AS timestamptz) - interval '1 hour', :now"
                " FROM generate_series(1, :count) AS number"
            ),
            {"kind": kind, "count": count, "now": now},
        )


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

    def impossible(job, now):
        raise JobImpossible("the payload is no command")

    assert run_jobs_once(engine, {"greet": impossible}, lambda: NOON) == 1
    assert [row[:3] for row in _rows(engine)] == [("given_up", 1, "the payload is no command")]


def test_a_handler_may_say_when_to_try_again(engine):
    _add(engine)

    def busy(job, now):
        raise JobPostponed("nobody is at home", 90.5)

    assert run_jobs_once(engine, {"greet": busy}, lambda: NOON) == 1
    assert _rows(engine) == [("waiting", 1, "nobody is at home", NOON + timedelta(seconds=90.5))]
    assert run_jobs_once(engine, {"greet": busy}, lambda: NOON + timedelta(seconds=90)) == 0
    assert run_jobs_once(engine, {"greet": lambda job, now: None}, lambda: NOON + timedelta(seconds=91)) == 1
    assert _rows(engine)[0].state == "done"


def test_an_error_with_a_zero_byte_is_kept_without_it(engine):
    _add(engine)

    def fail(job, now):
        raise ValueError("what came was \x00")

    assert run_jobs_once(engine, {"greet": fail}, lambda: NOON) == 1
    assert _rows(engine)[0].last_error == "ValueError: what came was \ufffd"


def test_a_worker_takes_no_kind_that_it_has_no_handler_for(engine):
    _add(engine, kind="unheard of")
    assert run_jobs_once(engine, {"greet": lambda job, now: None}, lambda: NOON) == 0
    assert run_jobs_once(engine, {}, lambda: NOON) == 0
    assert [row[:3] for row in _rows(engine)] == [("waiting", 0, None)]


def test_a_kind_that_nobody_serves_shows_in_a_figure_and_once_in_the_log(engine, log_lines):
    for subject in ("roof", "cellar"):
        _add(engine, kind="unheard of", subject=subject)
    _add(engine)
    gauges = OutboxGauges(["greet", "part"])
    for _ in range(2):
        gauges.measure_once(engine, NOON + timedelta(seconds=40))
    unserved = metrics.OUTBOX_UNSERVED.collect()[0].samples
    assert [(each.labels, each.value) for each in unserved] == [({"kind": "unheard of"}, 2)]
    late_s = {each.labels["kind"]: each.value for each in metrics.OUTBOX_LATENESS.collect()[0].samples}
    assert late_s == {"unheard of": 40, "greet": 40}
    assert metrics.REGISTRY.get_sample_value("commonwatt_outbox_unfinished_jobs") == 3
    assert [each["kinds"] for each in log_lines() if each["event"] == "outbox_kinds_unserved"] == [["unheard of"]]
    run_jobs_once(engine, {"unheard of": lambda job, now: None}, lambda: NOON)
    gauges.measure_once(engine, NOON)
    assert metrics.OUTBOX_UNSERVED.collect()[0].samples == []


def test_a_slow_lane_delays_no_job_of_another(engine):
    """A handler of one lane waits until a job of another, written after it, is done."""
    account_made, stop = threading.Event(), threading.Event()
    waited = []
    lanes = [
        Lane("slow", 1, {"post": lambda job, now: waited.append(account_made.wait(TIMEOUT_S))}),
        Lane("quick", 1, {"account": lambda job, now: account_made.set()}),
    ]
    now = datetime.now(UTC)
    for number in range(3):
        _add(engine, kind="post", subject=f"receiver-{number}", now=now)
    _add(engine, kind="account", now=now)
    workers = [threading.Thread(target=loop) for loop in loops_of(lanes, engine, stop).values()]
    for worker in workers:
        worker.start()
    assert account_made.wait(TIMEOUT_S)
    stop.set()
    for worker in workers:
        worker.join()
    assert waited and all(waited)


def test_no_kind_is_served_by_two_lanes(engine):
    lane = Lane("one", 2, {"greet": lambda job, now: None})
    assert list(loops_of([lane], engine, threading.Event())) == ["one-1", "one-2"]
    with pytest.raises(AssertionError):
        loops_of([lane, Lane("other", 1, lane.handlers)], engine, threading.Event())


def test_of_several_kinds_the_job_that_has_been_due_for_longest_comes_first(engine):
    _add(engine, kind="part", now=NOON - timedelta(seconds=1))
    _add(engine, kind="greet", now=NOON - timedelta(seconds=2))
    _add(engine, kind="part", subject="cellar", now=NOON - timedelta(seconds=3))
    leased = [_lease(engine, kinds=["greet", "part"]) for _ in range(4)]
    assert [each and (each.kind, each.subject) for each in leased] == [
        ("part", "cellar"),
        ("greet", "roof"),
        ("part", "roof"),
        None,
    ]


@pytest.mark.parametrize(
    ("kind", "subject"),
    [("other", "'receiver-' || number"), ("other", "'one receiver'"), ("greet", "'member-' || number")],
)
def test_a_lease_looks_at_a_few_rows_however_many_jobs_wait(engine, kind, subject):
    """100,000 jobs, of another lane or of this one: the pages that a lease touches stay few, by index alone."""
    _plant(engine, 100_000, kind, subject)
    _add(engine, now=NOON - timedelta(hours=2))
    with transaction(engine) as connection:
        connection.execute(text("ANALYZE outbox_jobs"))
    with engine.connect() as connection:
        plan, statement = [], None

        def explain(_connection, cursor, sql, parameters, _context, _many):
            nonlocal statement
            statement = sql, parameters

        event.listen(engine, "before_cursor_execute", explain)
        leased = lease_due_job(connection, ["greet", "part"], NOON, NOON + LEASE)
        event.remove(engine, "before_cursor_execute", explain)
        connection.rollback()
        raw = connection.connection.cursor()
        raw.execute("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) " + statement[0], statement[1])
        plan = [line for (line,) in raw.fetchall()]
        connection.rollback()
    assert leased.subject == "roof"
    assert not [line for line in plan if "Seq Scan" in line], plan
    [buffers, *_] = [line for line in plan if "Buffers: shared" in line]
    pages = sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", buffers))
    assert pages < 100, "\n".join(plan)


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
        assert list_backlogs(connection) == [Backlog("greet", 3, NOON)]
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
