"""In memory and in the database a bucket is the same bucket; the one is bounded, the other shared."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from hub.db import transaction
from hub.errors import RateLimited
from hub.limits import guard as guards
from hub.limits import policies, store
from hub.limits.buckets import Buckets
from hub.limits.guard import Guard, bucket_of
from hub.limits.rules import Policy

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
SECRET = b"s" * 32
FEW = Policy("few", 3, 30, "a test")
database = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def _guard(engine, now=NOW, address="198.51.100.7", noted=None):
    return Guard(engine, SECRET, address, now, (noted if noted is not None else []).append)


@database
@given(
    policy=st.sampled_from([FEW, Policy("one", 1, 7, "a test"), Policy("many", 50, 10, "a test")]),
    pauses_us=st.lists(st.integers(-5_000_000, 15_000_000) | st.integers(0, 300_000), max_size=15),
)
def test_memory_and_database_decide_alike(engine, policy, pauses_us):
    buckets, name, now = Buckets(), uuid4().bytes, NOW
    for pause_us in pauses_us:
        now += timedelta(microseconds=pause_us)
        with transaction(engine) as connection:
            decided = store.take(connection, name, policy, now)
        assert decided == buckets.count(policy, "x", round(now.timestamp() * 1_000_000))


def test_of_many_tries_at_once_no_more_pass_than_the_quota(engine):
    passed = []

    def attempt():
        for _ in range(5):
            try:
                _guard(engine).count(FEW, "ada@example.org")
                passed.append(1)
            except RateLimited:
                pass

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == FEW.quota


def test_the_refusal_says_when_to_come_again_and_then_it_is_so(engine):
    for _ in range(FEW.quota):
        _guard(engine).count(FEW, "x")
    with pytest.raises(RateLimited) as refusal:
        _guard(engine).count(FEW, "x")
    wait = timedelta(seconds=refusal.value.retry_after_s)
    assert wait == timedelta(seconds=10)
    with pytest.raises(RateLimited):
        _guard(engine, NOW + wait - timedelta(microseconds=1)).count(FEW, "x")
    _guard(engine, NOW + wait).count(FEW, "x")


def test_every_verdict_is_noted_for_the_headers(engine):
    noted = []
    guard = _guard(engine, noted=noted)
    for _ in range(FEW.quota):
        guard.count(FEW, "x")
    with pytest.raises(RateLimited):
        guard.count(FEW, "x")
    assert [(verdict.allowed, verdict.remaining) for verdict in noted] == [(True, 2), (True, 1), (True, 0), (False, 0)]


def test_subjects_of_several_parts_are_not_confused():
    assert bucket_of(SECRET, FEW, "ab", "c") != bucket_of(SECRET, FEW, "a", "bc")
    assert bucket_of(SECRET, FEW, "abc") != bucket_of(SECRET, FEW, "ab", "c")
    assert bucket_of(SECRET, FEW, "a\x001:b") != bucket_of(SECRET, FEW, "a", "b")
    assert bucket_of(SECRET, FEW, "a") != bucket_of(SECRET, Policy("fewer", 3, 30, ""), "a")
    assert bucket_of(SECRET, FEW, "a") != bucket_of(b"t" * 32, FEW, "a")


def test_the_table_does_not_tell_whose_account_was_tried(engine):
    _guard(engine).count_sign_in("ada@example.org", None)
    with transaction(engine) as connection:
        rows = connection.execute(select(store.rate_limits)).all()
    assert len(rows) == 3
    for row in rows:
        assert len(row.bucket) == 16
        assert b"ada" not in row.bucket


def test_full_buckets_are_forgotten_and_others_are_not(engine):
    _guard(engine).count(FEW, "x")
    _guard(engine, NOW + timedelta(seconds=15)).count(FEW, "y")
    assert guards.forget_full_buckets_once(engine, NOW + timedelta(seconds=9)) == 0
    assert guards.forget_full_buckets_once(engine, NOW + timedelta(seconds=10)) == 1
    assert guards.forget_full_buckets_once(engine, NOW + timedelta(seconds=10)) == 0


# ── sign-in ──────────────────────────────────────────────────────────────────────────────────────────────────


def _exhaust(engine, account, known=None, clients=40):
    """Strangers from many addresses try until the account refuses all of them."""
    refusals = 0
    for client in range(clients):
        try:
            _guard(engine, address=f"203.0.113.{client}").count_sign_in(account, known)
        except RateLimited:
            refusals += 1
    return refusals


def test_strangers_delay_strangers_and_never_a_client_that_was_signed_in(engine):
    assert _exhaust(engine, "ada@example.org") == 40 - policies.SIGN_IN_BY_ACCOUNT.quota
    with pytest.raises(RateLimited) as refusal:
        _guard(engine).count_sign_in("ada@example.org", None)
    assert refusal.value.retry_after_s == 180, "a delay of three minutes, not a lock"
    for _ in range(policies.SIGN_IN_BY_KNOWN_CLIENT.quota):
        _guard(engine, address="192.0.2.1").count_sign_in("ada@example.org", "session-1")
    with pytest.raises(RateLimited):
        _guard(engine, address="192.0.2.1").count_sign_in("ada@example.org", "session-1")
    _guard(engine, address="192.0.2.1").count_sign_in("ada@example.org", "session-2")


def test_the_delay_passes_by_itself(engine):
    _exhaust(engine, "ada@example.org")
    _guard(engine, NOW + timedelta(seconds=180)).count_sign_in("ada@example.org", None)


def test_one_account_delayed_is_not_another(engine):
    _exhaust(engine, "ada@example.org")
    _guard(engine).count_sign_in("bo@example.org", None)


def test_one_address_cannot_use_up_an_account(engine):
    """What the address is refused for is not taken from the account."""
    for _ in range(100):
        try:
            _guard(engine, address="203.0.113.1").count_sign_in("ada@example.org", None)
        except RateLimited:
            continue
    assert _exhaust(engine, "ada@example.org") == 40 - (
        policies.SIGN_IN_BY_ACCOUNT.quota - policies.SIGN_IN_BY_ACCOUNT_AND_CLIENT.quota
    )


def test_one_address_tries_few_accounts(engine):
    passed = 0
    for number in range(100):
        try:
            _guard(engine).count_sign_in(f"member-{number}@example.org", None)
            passed += 1
        except RateLimited:
            continue
    assert passed == policies.SIGN_IN_BY_CLIENT.quota


def test_a_proven_mailbox_opens_the_account_at_once(engine):
    _exhaust(engine, "ada@example.org")
    with transaction(engine) as connection:
        guards.forget_sign_ins(connection, SECRET, "ada@example.org")
    _guard(engine).count_sign_in("ada@example.org", None)


# ── in memory ────────────────────────────────────────────────────────────────────────────────────────────────


def test_however_many_ask_the_memory_stays_bounded_and_the_busy_are_not_forgotten():
    buckets = Buckets(buckets_max=100)
    for _ in range(FEW.quota):
        buckets.count(FEW, "busy", 0)
    for number in range(1_000):
        buckets.count(FEW, f"client-{number}", 0)
        assert not buckets.count(FEW, "busy", 0).allowed
        assert len(buckets) <= 100


def test_looking_takes_nothing():
    buckets = Buckets()
    for _ in range(10):
        assert buckets.look(FEW, "x", 0).remaining == FEW.quota
    assert len(buckets) == 0
    buckets.count(FEW, "x", 0)
    assert buckets.look(FEW, "x", 0).remaining == FEW.quota - 1


def test_threads_share_one_bucket():
    buckets, policy, passed = Buckets(), Policy("p", 1_000, 1_000, "a test"), []

    def ask():
        passed.append(sum(buckets.count(policy, "x", 0).allowed for _ in range(400)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == policy.quota
