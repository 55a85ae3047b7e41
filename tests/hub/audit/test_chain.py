"""Every commit links what it did to the chain; nobody unlinks it, and no two commits wait for each other for ever."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

import hub.db
from hub.audit import append_audit, store
from hub.audit.jobs import note_head_once
from hub.auth.bootstrap import bootstrap_admin
from hub.db import create_database_engine, snapshot, transaction
from hub.registry.service import queue_accounts

NOW = datetime(2026, 11, 20, 6, 0, 0, 123456, tzinfo=UTC)


def _act(connection, number=0, **changes):
    values = {
        "actor": "member:ada",
        "action": "meter.suspend",
        "subject": f"meter:{number}",
        "detail": {"reason": "x"},
    }
    append_audit(connection, NOW, **(values | changes))


def _act_once(engine, number=0, **changes):
    with transaction(engine) as connection:
        _act(connection, number, **changes)


def _links(engine):
    with transaction(engine) as connection:
        return store.list_links(connection, 1, 2**53 - 1, 100_000)


def _check(links):
    """The chain by the documented rule."""
    previous = bytes(32)
    for position, link in enumerate(links, 1):
        entry_hash = hashlib.sha256(link.entry.encode()).digest()
        previous = hashlib.sha256(previous + position.to_bytes(8, "big") + entry_hash).digest()
        assert (link.position, link.entry_hash, link.chain_hash) == (position, entry_hash, previous)


def test_each_act_is_a_link_with_the_text_that_was_hashed(engine):
    for number in range(3):
        _act_once(engine, number)
    links = _links(engine)
    assert links[1].entry == (
        '{"at": "2026-11-20T06:00:00.123456Z", "actor": "member:ada", "action": "meter.suspend",'
        ' "detail": {"reason": "x"}, "subject": "meter:1", "audit_id": 2}'
    )
    _check(links)


@given(
    detail=st.dictionaries(
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30),
        max_size=5,
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_letters_an_act_is_told_in_the_chain_can_be_worked_out_again(engine, detail):
    _act_once(engine, detail=detail)
    _check(_links(engine))


def test_several_acts_of_one_transaction_are_linked_in_their_order(engine):
    with transaction(engine) as connection:
        for number in (3, 1, 2):
            _act(connection, number)
    assert [json.loads(link.entry)["subject"] for link in _links(engine)] == ["meter:3", "meter:1", "meter:2"]
    _check(_links(engine))


def test_the_chain_follows_the_commits_not_the_numbers_of_the_entries(engine):
    with engine.connect() as first, engine.connect() as second:
        _act(first, 1)
        _act(second, 2)
        second.commit()
        first.commit()
    assert [link.entry.rpartition(" ")[2] for link in _links(engine)] == ["2}", "1}"]
    _check(_links(engine))


def test_an_act_that_was_rolled_back_leaves_no_gap(engine):
    _act_once(engine, 1)
    with engine.connect() as connection:
        _act(connection, 2)
        connection.rollback()
    _act_once(engine, 3)
    assert [link.position for link in _links(engine)] == [1, 2]
    _check(_links(engine))


def test_many_at_once_make_one_chain_without_a_gap_or_a_deadlock(engine):
    """Each holds a row that another needs next, taken in one order as everywhere; the chain's lock comes on top."""
    writers, acts = 8, 25
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE things (thing integer PRIMARY KEY, touched integer NOT NULL)"))
        connection.execute(text("INSERT INTO things SELECT n, 0 FROM generate_series(0, 3) AS n"))
    faults = []

    def write(writer):
        try:
            for act in range(acts):
                with transaction(engine) as connection:
                    _act(connection, writer)  # the entry first: what is locked after it must not wait for the chain
                    for thing in sorted({(writer + act) % 4, (writer + 2 * act + 1) % 4}):
                        connection.execute(
                            text("UPDATE things SET touched = touched + 1 WHERE thing = :thing"), {"thing": thing}
                        )
        except Exception as fault:
            faults.append(fault)
            raise

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    links = _links(engine)
    assert len(links) == writers * acts
    _check(links)


@pytest.mark.parametrize("table", ["audit_log", "audit_chain"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET audit_id = audit_id", "DELETE FROM {}", "TRUNCATE {} CASCADE", "TRUNCATE {}"]
)
def test_nothing_written_is_changed_or_removed(engine, table, statement):
    _act_once(engine)
    with pytest.raises(DBAPIError), transaction(engine) as connection:
        connection.execute(text(statement.format(table)))
    assert len(_links(engine)) == 1


@pytest.mark.parametrize(("at", "detail"), [("infinity", "{}"), ("-infinity", "{}"), ("now", "[]"), ("now", "7")])
def test_an_entry_that_no_verifier_could_read_is_not_taken(engine, at, detail):
    _act_once(engine)
    with pytest.raises(IntegrityError, match=r"audit_log_(at|detail)_check"), transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO audit_log (at, actor, action, subject, detail)"
                " VALUES (CAST(:at AS timestamptz), 'somebody', 'a.b', 'c', CAST(:detail AS jsonb))"
            ),
            {"at": at, "detail": detail},
        )
    assert len(_links(engine)) == 1


def test_nobody_writes_the_chain_by_hand(engine):
    """Neither a second link for an entry, nor one with hashes of one's own."""
    _act_once(engine)
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO audit_chain (position, audit_id, entry, entry_hash, chain_hash)"
                " VALUES (7, 1, '{}', sha256(''), sha256(''))"
            )
        )
    with pytest.raises(DBAPIError), transaction(engine) as connection:
        connection.execute(text("INSERT INTO audit_chain (audit_id) VALUES (99)"))
    with transaction(engine) as connection:
        connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER audit_log_chained"))
        _act(connection, 2)
        connection.execute(text("ALTER TABLE audit_log ENABLE TRIGGER audit_log_chained"))
        connection.execute(
            text(
                "INSERT INTO audit_chain (position, audit_id, entry, entry_hash, chain_hash)"
                " VALUES (7, 2, '{}', sha256(''), sha256(''))"
            )
        )
    _check(_links(engine))


def test_a_snapshot_cannot_fork_the_chain(engine):
    """A transaction that sees an old head is refused, rather than linked to it."""
    _act_once(engine, 1)
    with pytest.raises(DBAPIError), snapshot(engine) as connection:
        connection.execute(text("SELECT count(*) FROM audit_log"))
        _act_once(engine, 2)
        _act(connection, 3)
    links = _links(engine)
    assert len(links) == 2
    _check(links)


def test_the_chain_is_the_only_thing_that_happens_at_the_commit(engine):
    """Its lock closes no circle because it is the last that a transaction takes. Another deferred trigger or constraint
    may take locks after it: then this needs a new thought.
    """
    with transaction(engine) as connection:
        triggers = connection.execute(
            text(
                "SELECT tgname FROM pg_trigger WHERE tgdeferrable AND NOT tgisinternal UNION ALL"
                " SELECT conname FROM pg_constraint WHERE condeferrable AND contype <> 't'"
            )
        ).scalars()
        assert list(triggers) == ["audit_log_chained"]


def test_what_was_logged_before_there_was_a_chain_is_linked_by_the_migration(postgres):
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE audit_before")
    config = Config()
    config.set_main_option("script_location", str(Path(hub.db.__file__).parent / "migrations"))
    config.attributes["url"] = postgres.url("audit_before")
    command.upgrade(config, "0004")
    engine = create_database_engine(postgres.url("audit_before"), "tests")
    try:
        for number in range(5):
            _act_once(engine, number)
        command.upgrade(config, "head")
        _act_once(engine, 5)
        links = _links(engine)
        assert len(links) == 6
        _check(links)
    finally:
        engine.dispose()


def test_every_hour_the_head_is_logged_and_what_is_not_in_the_chain_is_told(log_lines, engine):
    note_head_once(engine, NOW)
    _act_once(engine)
    note_head_once(engine, NOW)
    heads = [entry for entry in log_lines() if entry["event"] == "audit_head"]
    assert [entry["position"] for entry in heads] == [0, 1]
    assert heads[1]["chain_hash"] == _links(engine)[0].chain_hash.hex()
    assert not [entry for entry in log_lines() if entry["event"] == "audit_chain_incomplete"]
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # as a superuser could
        _act(connection)
    note_head_once(engine, NOW)
    [entry] = [entry for entry in log_lines() if entry["event"] == "audit_chain_incomplete"]
    assert (entry["level"], entry["entries_too_many"]) == ("error", 1)


def test_what_is_done_on_the_command_line_is_audited_too(engine):
    with transaction(engine) as connection:
        bootstrap_admin(connection, b"m" * 32, "Ada", another=False, now=NOW)
        queue_accounts(connection, "command line", NOW)
    entries = [json.loads(link.entry) for link in _links(engine)]
    assert [entry["action"] for entry in entries] == [
        "member.create",
        "member.give_role",
        "api_key.create",
        "broker.recreate_accounts",
    ]
    assert {entry["actor"] for entry in entries} == {"command line"}
