"""Intents are rows that a domain writes with its own, and that end once, with the domain's own doing."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import base58
import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from hub import metrics
from hub.chain import intents_store as store
from hub.chain.intent import Attempt
from hub.chain.intents import (
    IntentState,
    Plan,
    end_intent_by_event,
    find_intent_id_of,
    find_open_intent,
    get_intent,
    plan_intent,
    take_wallet_signature,
)
from hub.chain.sender import measure_intents_once
from hub.db import transaction
from hub.errors import IntentNotFound, TransactionNotOurs

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEP = Instruction(Pubkey.from_bytes(b"P" * 32), b"\4data", [AccountMeta(Pubkey.from_bytes(b"A" * 32), True, True)])
LEASED = NOW + timedelta(seconds=15)


def plan(**fields):
    return Plan(
        **{
            "intent_id": uuid4(), "kind": "mint", "subject": "meter:roof", "instructions": (STEP, STEP),
            "compute_units": 5_000, "lookup_tables": (Pubkey.from_bytes(b"T" * 32),), "data": {"seals": [1, 2]},
            **fields,
        }
    )  # fmt: skip


def planned(engine, **fields):
    each = plan(**fields)
    with transaction(engine) as connection:
        plan_intent(connection, each, NOW)
    return each.intent_id


def attempt(number=1):
    return Attempt(number, b"message %d" % number, b"s" * 63 + bytes([number]), None, 1_000, 900, 0, None, "")


def opened(engine, **fields):
    """Planned, built and signed."""
    intent_id = planned(engine, **fields)
    with transaction(engine) as connection:
        leased = store.lease_due(connection, [IntentState.PLANNED], NOW, LEASED)
        assert store.change_state(connection, leased.intent, IntentState.OPEN, leased.lease_token, next_at=NOW)
        store.insert_attempt(connection, intent_id, attempt(), NOW)
    return intent_id


def test_a_plan_comes_back_as_it_was_written(engine):
    each = plan(wallet=b"W" * 32, valid_for_s=300)
    with transaction(engine) as connection:
        plan_intent(connection, each, NOW)
        intent = get_intent(connection, each.intent_id)
    assert (intent.state, intent.instructions, intent.lookup_tables) == (
        IntentState.PLANNED,
        each.instructions,
        each.lookup_tables,
    )
    assert (intent.wallet, intent.valid_until) == (b"W" * 32, NOW + timedelta(seconds=300))
    assert (intent.data, intent.newest, intent.signature) == ({"seals": [1, 2]}, None, None)


def test_what_was_planned_in_a_transaction_that_failed_never_was(engine):
    each = plan()
    with pytest.raises(ZeroDivisionError), transaction(engine) as connection:
        plan_intent(connection, each, NOW)
        _ = 1 // 0
    with transaction(engine) as connection, pytest.raises(IntentNotFound):
        get_intent(connection, each.intent_id)


def test_an_id_is_planned_once(engine):
    each = plan()
    with transaction(engine) as connection:
        plan_intent(connection, each, NOW)
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        plan_intent(connection, each, NOW)


def test_the_open_intent_of_a_subject_is_found_until_it_ends(engine):
    intent_id = opened(engine)
    with transaction(engine) as connection:
        assert find_open_intent(connection, "mint", "meter:roof").intent_id == intent_id
        assert find_open_intent(connection, "mint", "meter:other") is None
        assert find_open_intent(connection, "write_off", "meter:roof") is None
        assert end_intent_by_event(connection, intent_id, attempt().signature, 950, {}, NOW)
        assert find_open_intent(connection, "mint", "meter:roof") is None


def test_an_event_ends_an_intent_once_and_the_domain_writes_in_the_same_transaction(engine):
    intent_id = opened(engine)
    told = []
    reactions = {"mint": lambda connection, ended, now: told.append(ended)}
    signature = attempt().signature
    with transaction(engine) as connection:
        assert end_intent_by_event(connection, intent_id, signature, 950, reactions, NOW)
        assert not end_intent_by_event(connection, intent_id, signature, 950, reactions, NOW)
        assert find_intent_id_of(connection, signature) == intent_id
        ended = get_intent(connection, intent_id)
    assert [(each.outcome, each.signature, each.slot) for each in told] == [("finalized", signature, 950)]
    assert (ended.state, ended.signature, ended.slot, ended.ended_at) == (
        IntentState.FINALIZED,
        signature,
        950,
        NOW,
    )


def test_a_reaction_that_fails_leaves_the_intent_as_it_was(engine):
    intent_id = opened(engine)

    def fail(connection, ended, now):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), transaction(engine) as connection:
        end_intent_by_event(connection, intent_id, attempt().signature, 950, {"mint": fail}, NOW)
    with transaction(engine) as connection:
        assert get_intent(connection, intent_id).state == IntentState.OPEN


def test_an_event_of_an_unknown_id_is_nobodys(engine):
    with transaction(engine) as connection:
        assert not end_intent_by_event(connection, uuid4(), attempt().signature, 950, {}, NOW)


def test_an_event_that_contradicts_an_end_is_an_alarm_and_changes_nothing(engine, log_lines):
    intent_id = opened(engine)
    before = metrics.CHAIN_INTENTS_CONTRADICTED._value.get()
    with transaction(engine) as connection:
        intent = get_intent(connection, intent_id)
        assert store.change_state(connection, intent, IntentState.FAILED, None, ended_at=NOW, error_code="paused")
        assert not end_intent_by_event(connection, intent_id, attempt().signature, 950, {}, NOW)
        assert get_intent(connection, intent_id).state == IntentState.FAILED
    assert metrics.CHAIN_INTENTS_CONTRADICTED._value.get() == before + 1
    assert [line["event"] for line in log_lines()] == ["chain_intent_contradicted"]


def test_nothing_is_signed_for_an_intent_that_has_no_transaction(engine):
    intent_id = planned(engine, wallet=b"W" * 32, valid_for_s=300)
    with transaction(engine) as connection:
        with pytest.raises(TransactionNotOurs):
            take_wallet_signature(connection, intent_id, b"", bytes(64), NOW)
        with pytest.raises(IntentNotFound):
            take_wallet_signature(connection, uuid4(), b"", bytes(64), NOW)


def test_an_event_takes_the_intent_from_the_sender_that_looks_after_it(engine):
    intent_id = opened(engine)
    with transaction(engine) as connection:
        leased = store.lease_due(connection, [IntentState.OPEN], NOW, LEASED)
        assert end_intent_by_event(connection, intent_id, attempt().signature, 950, {}, NOW)
        assert not store.keep_lease(connection, leased, LEASED)
        assert not store.postpone(connection, leased, LEASED)
        assert not store.change_state(connection, leased.intent, IntentState.UNKNOWN, leased.lease_token)


def test_of_two_senders_at_once_one_gets_the_intent(engine):
    planned(engine)
    taken, ready = [], threading.Barrier(2)

    def take():
        with transaction(engine) as connection:
            ready.wait()
            taken.append(store.lease_due(connection, [IntentState.PLANNED], NOW, LEASED))
            ready.wait()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each is None for each in taken) == [False, True]


def test_a_lease_that_ran_out_passes_to_the_next_and_the_earlier_due_come_first(engine):
    late = planned(engine)
    with transaction(engine) as connection:
        early = plan()
        plan_intent(connection, early, NOW - timedelta(seconds=1))
        first = store.lease_due(connection, [IntentState.PLANNED], NOW, LEASED)
        second = store.lease_due(connection, [IntentState.PLANNED], NOW, LEASED)
        assert [first.intent.intent_id, second.intent.intent_id] == [early.intent_id, late]
        assert store.lease_due(connection, [IntentState.PLANNED], NOW, LEASED) is None
        again = store.lease_due(connection, [IntentState.PLANNED], LEASED, LEASED + timedelta(seconds=15))
        assert again.intent.intent_id == early.intent_id and again.lease_token > first.lease_token


def test_no_two_intents_share_a_signature(engine):
    opened(engine)
    other = planned(engine)
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        store.insert_attempt(connection, other, attempt(), NOW)


def test_a_states_that_do_not_follow_are_our_mistake(engine):
    intent_id = opened(engine)
    with transaction(engine) as connection:
        intent = get_intent(connection, intent_id)
        with pytest.raises(AssertionError):
            store.change_state(connection, intent, IntentState.AWAITING_WALLET, None)


def test_the_gauges_have_each_kind_and_the_age_of_the_oldest(engine):
    opened(engine)
    planned(engine, kind="user.register")
    with transaction(engine) as connection:
        assert measure_intents_once(connection, NOW + timedelta(seconds=90)) == 2
    assert metrics.CHAIN_INTENTS.labels("mint", "open")._value.get() == 1
    assert metrics.CHAIN_INTENTS.labels("user.register", "planned")._value.get() == 1
    assert metrics.CHAIN_OLDEST_INTENT.labels("open")._value.get() == 90


def test_a_signature_is_shown_as_explorers_show_it():
    assert base58.b58decode(attempt().signature) == attempt().hub_signature


def test_a_sender_is_given_the_newest_attempt_alone_however_many_there_were(engine):
    intent_id = opened(engine)
    with transaction(engine) as connection:
        for number in (2, 3):
            store.insert_attempt(connection, intent_id, attempt(number), NOW)
        leased = store.lease_due(connection, [IntentState.OPEN], NOW, LEASED)
        assert [each.attempt_no for each in leased.intent.attempts] == [3]
        assert [each.attempt_no for each in get_intent(connection, intent_id).attempts] == [1, 2, 3]


def test_however_many_intents_wait_the_first_of_them_is_found_by_its_index(engine):
    with transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO chain_intents (intent_id, kind, subject, instructions, compute_units, lookup_tables, data,"
                " state, next_at, created_at) SELECT gen_random_uuid(), 'mint', 'meters:3', '{}', 1, '{}', '{}',"
                " 'planned', :now - i * interval '1 s', :now FROM generate_series(1, 20000) AS i"
            ),
            {"now": NOW},
        )
        connection.execute(text("ANALYZE chain_intents"))
        values = {"states": ["planned", "unknown"], "now": NOW, "leased_until": LEASED}
        plan = connection.execute(text("EXPLAIN (ANALYZE, FORMAT JSON) " + store._LEASE.text), values).scalar_one()
    assert max(_rows_of(plan[0]["Plan"])) <= 2


def _rows_of(node):
    """How many rows each node of a query's plan went through."""
    yield node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    for below in node.get("Plans", []):
        yield from _rows_of(below)
