"""Numbers are given in the order of commits, without a gap, and nobody waits for anybody in a circle."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import weakref
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from hub.db import transaction
from hub.live import store
from hub.live.jobs import KEPT_FOR, KEPT_MAX, forget_old_updates_once
from hub.live.publishing import DATA_BYTES_MAX, Update, publish
from hub.live.topics import ALERTS, BOOK, meters_of, notifications_of
from infra.bench import live_publisher

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
ADA = UUID("00000000-0000-4000-8000-0000000000ad")


class GivenUp(Exception):
    """The transaction's owner thinks better of it."""


def give_up() -> None:
    raise GivenUp


def update(topic: str, number: int, kind: str = "test.counted") -> Update:
    return Update(topic, kind, {"number": number})


def rows(engine, topic: str) -> list[tuple[int, str]]:
    with transaction(engine) as connection:
        found = connection.execute(
            text("SELECT sequence, data->>'number' FROM live_updates WHERE topic = :topic ORDER BY sequence"),
            {"topic": topic},
        )
        return [(row[0], row[1]) for row in found]


def test_updates_are_numbered_per_topic_in_the_order_in_which_they_were_told(engine):
    with transaction(engine) as connection:
        publish(connection, [update(BOOK, 1), update(ALERTS, 2)], NOW)
        publish(connection, [update(BOOK, 3)], NOW)
        publish(connection, [], NOW)
    with transaction(engine) as connection:
        publish(connection, [update(BOOK, 4)], NOW)
        assert store.map_sequences(connection, [BOOK, ALERTS, "orders:nobody"]) == {BOOK: 2, ALERTS: 1}
    assert rows(engine, BOOK) == [(1, "1"), (2, "3"), (3, "4")]
    assert rows(engine, ALERTS) == [(1, "2")]


def test_a_transaction_that_fails_tells_nothing_and_leaves_no_gap(engine):
    with transaction(engine) as connection:
        publish(connection, [update(BOOK, 1)], NOW)
    with pytest.raises(ZeroDivisionError), transaction(engine) as connection:
        publish(connection, [update(BOOK, 2)], NOW)
        raise ZeroDivisionError
    with engine.connect() as connection:
        with connection.begin() as unfinished:
            publish(connection, [update(BOOK, 3)], NOW)
            unfinished.rollback()
        with connection.begin():
            publish(connection, [update(BOOK, 4)], NOW)
        with connection.begin():
            connection.execute(text("SELECT 1"))
    assert rows(engine, BOOK) == [(1, "1"), (2, "4")]


def test_the_commit_fails_if_its_updates_cannot_be_written(engine):
    with transaction(engine) as connection:
        connection.execute(text("DROP TABLE live_updates"))
    with pytest.raises(psycopg.errors.UndefinedTable), transaction(engine) as connection:
        connection.execute(text("CREATE TABLE proof (n int)"))
        publish(connection, [update(BOOK, 1)], NOW)
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT to_regclass('proof')")).scalar_one() is None


def test_the_topics_of_a_transaction_that_is_not_yet_at_its_end_are_free(engine):
    with transaction(engine) as slow:
        publish(slow, [update(ALERTS, 1)], NOW)
        with transaction(engine) as quick:
            publish(quick, [update(ALERTS, 2)], NOW)
    assert rows(engine, ALERTS) == [(1, "2"), (2, "1")]


def test_many_transactions_at_once_get_numbers_without_gaps_and_never_wait_in_a_circle(engine):
    """Who listens hears each number of a topic exactly when it is visible, and never one before a smaller one."""
    topics = [BOOK, ALERTS, *(make(UUID(int=number)) for number in range(5) for make in (meters_of, notifications_of))]
    told: dict[str, int] = dict.fromkeys(topics, 0)
    failures: list[Exception] = []

    def work(seed: int) -> None:
        choice = random.Random(seed)
        try:
            for number in range(40):
                with contextlib.suppress(GivenUp), transaction(engine) as connection:
                    for topic in choice.sample(topics, 6):
                        publish(connection, [update(topic, number)], NOW)
                    if choice.random() < 0.2:
                        give_up()
        except Exception as fault:  # noqa: BLE001 - the test's own thread reports it
            failures.append(fault)

    def hear(timeout_s: float) -> int:
        heard = 0
        for notification in listener.notifies(timeout=timeout_s):
            for part in notification.payload.partition(" ")[2].split(","):
                topic, _, sequence = part.rpartition(" ")
                assert int(sequence) > told[topic], "a smaller number after a larger one"
                told[topic] = int(sequence)
                heard += 1
        return heard

    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(False), autocommit=True) as listener:
        listener.execute(f"LISTEN {store.CHANNEL}")
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            hear(0.1)
        while hear(0.1):
            pass
    assert not failures
    with transaction(engine) as connection:
        assert store.map_sequences(connection, topics) == told
    for topic in topics:
        assert [sequence for sequence, _ in rows(engine, topic)] == list(range(1, told[topic] + 1))


def test_a_notification_names_many_topics_in_few_messages(engine):
    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(False), autocommit=True) as listener:
        listener.execute(f"LISTEN {store.CHANNEL}")
        with transaction(engine) as connection:
            publish(connection, [update(meters_of(UUID(int=number)), number) for number in range(250)], NOW)
        payloads = [each.payload for each in listener.notifies(timeout=5, stop_after=3)]
    assert len(payloads) == 3
    assert max(map(len, payloads)) < 8_000
    heads = [part for payload in payloads for part in payload.partition(" ")[2].split(",")]
    assert sorted(heads) == sorted(f"{meters_of(UUID(int=number))} 1" for number in range(250))


def test_what_is_no_update_is_our_own_mistake(engine):
    with transaction(engine) as connection:
        for wrong in (
            Update("nonsense", "test.counted", {}),
            Update(BOOK, "Counted!", {}),
            Update(BOOK, "test.counted", {"text": "x" * DATA_BYTES_MAX}),
        ):
            with pytest.raises(AssertionError):
                publish(connection, [wrong], NOW)
        with pytest.raises(TypeError):
            publish(connection, [Update(BOOK, "test.counted", {"what": object()})], NOW)


def test_instants_and_ids_are_written_as_json_has_them(engine):
    with transaction(engine) as connection:
        publish(connection, [Update(BOOK, "test.counted", {"at": NOW, "member_id": ADA, "note": "Grüße\x00"})], NOW)
    with transaction(engine) as connection:
        data = connection.execute(text("SELECT data::text FROM live_updates")).scalar_one()
    assert data == f'{{"at":"2026-11-20T06:00:00Z","member_id":"{ADA}","note":"Grüße\\u0000"}}'


def test_a_connection_that_told_something_is_not_remembered(engine):
    with transaction(engine) as connection:
        publish(connection, [update(BOOK, 1)], NOW)
    gone = weakref.ref(connection)
    del connection
    gc.collect()
    assert gone() is None


def test_updates_of_yesterday_are_forgotten_and_of_a_busy_topic_all_but_the_newest(engine):
    old, recent = NOW - KEPT_FOR - timedelta(seconds=1), NOW - timedelta(hours=1)
    with transaction(engine) as connection:
        publish(connection, [update(ALERTS, number) for number in range(1, 6)], old)
        publish(connection, [update(meters_of(ADA), 1)], old)
        publish(connection, [update(ALERTS, number) for number in range(6, 9)], recent)
        publish(connection, [update(ALERTS, 9)], old)  # its clock was wrong: what is newer does not go before it
        publish(connection, [update(BOOK, number) for number in range(1, KEPT_MAX + 4)], recent)
    assert forget_old_updates_once(engine, NOW, limit=2) == 5 + 1 + 3
    assert rows(engine, ALERTS) == [(number, str(number)) for number in range(6, 10)]
    assert rows(engine, meters_of(ADA)) == []
    assert [sequence for sequence, _ in rows(engine, BOOK)] == list(range(4, KEPT_MAX + 4))
    assert forget_old_updates_once(engine, NOW) == 0
    with transaction(engine) as connection:
        assert store.map_sequences(connection, [ALERTS, meters_of(ADA)]) == {ALERTS: 9, meters_of(ADA): 1}
        assert store.map_oldest_sequences(connection, [ALERTS, meters_of(ADA), BOOK]) == {ALERTS: 6, BOOK: 4}
        publish(connection, [update(meters_of(ADA), 2)], NOW)
    assert rows(engine, meters_of(ADA)) == [(2, "2")]


def test_the_bench_publishes_as_the_hub_does(engine):
    """It may not import the hub, so it has the statement again (`infra/bench/live_publisher.py`)."""
    url = engine.url.set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url) as bench:
        listener.execute(f"LISTEN {store.CHANNEL}")
        with transaction(engine) as connection:
            publish(connection, [update(BOOK, 1)], NOW)
        assert live_publisher.append(bench, BOOK, {"number": 2}) == 2
        bench.commit()
        payloads = [each.payload.split(" ") for each in listener.notifies(timeout=5, stop_after=2)]
    assert [(len(flushed.partition(".")[2]), *rest) for flushed, *rest in payloads] == [(6, BOOK, "1"), (6, BOOK, "2")]
    assert rows(engine, BOOK) == [(1, "1"), (2, "2")]
