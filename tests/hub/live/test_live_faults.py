"""Nothing is lost or told twice: cut connections, a database that goes, two processes, clients that never read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import text
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hub.db import create_database_engine, migrate, transaction
from hub.live.topics import BOOK
from hub.permissions import Role
from infra.local.postgres import Postgres
from tests.hub.conftest import running, settings_in
from tests.hub.live.conftest import following, numbers_of, opening, orders_of, tell
from tests.hub.live.processes import RawSocket, running_process

DEADLINE_S = 40


@contextlib.contextmanager
def publishers(engine, topic, count: int, each: int) -> Iterator[Callable[[], None]]:
    """So many transactions at once, each writing one to three updates at a time; yields what waits for their end."""
    failures: list[Exception] = []

    def work(seed: int) -> None:
        choice, left = random.Random(seed), each
        try:
            while left:
                size = min(left, choice.randint(1, 3))
                tell(engine, topic, *range(size))
                left -= size
        except Exception as fault:  # noqa: BLE001 - the test's own thread reports it
            failures.append(fault)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]

    def wait() -> None:
        for thread in threads:
            thread.join()
        assert not failures

    for thread in threads:
        thread.start()
    try:
        yield wait
    finally:
        for thread in threads:
            thread.join()


def until(what: str, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {deadline_s} s until {what}"
        time.sleep(0.05)


def sequences(updates) -> list[int]:
    return [each["sequence"] for each in updates]


def test_a_cut_connection_of_the_feed_loses_nothing(server):
    ada = server.member()
    engine, topic = server.engine, orders_of(ada)
    with following(server.url, ada.api_key, orders=None) as client, publishers(engine, topic, 3, 200) as wait:
        for _ in range(5):
            with transaction(engine) as connection:
                cut = connection.execute(
                    text(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND application_name LIKE 'commonwatt-live-%'"
                    )
                ).scalar_one()
            assert cut <= 3
            time.sleep(0.2)
        wait()
        assert sequences(client.receive_updates(600)) == list(range(1, 601))
        assert client.is_silent(0.1)
    figures = server.anonymous.get("/metrics").text
    assert 'commonwatt_live_database_connections_lost_total{connection="listen"}' in figures


@pytest.mark.long
def test_a_connection_that_says_nothing_any_more_is_noticed(server):
    """The backend is frozen: the sweep finds what it should have told, and the heartbeat finds that it is gone."""
    ada = server.member()
    with (
        following(server.url, ada.api_key, orders=None) as client,
        psycopg.connect(server.settings.database_url, autocommit=True) as connection,
    ):

        def backends() -> list[int]:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'commonwatt-live-listen'"
            )
            return [row[0] for row in rows]

        [frozen] = backends()
        os.kill(frozen, signal.SIGSTOP)
        try:
            tell(server.engine, orders_of(ada), 1)
            assert numbers_of(client.receive_updates(1, DEADLINE_S)) == [1]
            until("it listens again", lambda: len(backends()) == 2)
            tell(server.engine, orders_of(ada), 2)
            assert numbers_of(client.receive_updates(1)) == [2]
        finally:
            os.kill(frozen, signal.SIGCONT)


def test_a_database_that_was_restarted_delays_updates_and_closes_no_socket(tmp_path):
    with Postgres(tmp_path / "postgres") as postgres:
        migrate(postgres.url())
        engine = create_database_engine(postgres.url(), "tests", 12)
        with running(settings_in(tmp_path, postgres.url()), engine) as server:
            ada = server.member()
            with following(server.url, ada.api_key, orders=None) as client:
                tell(engine, orders_of(ada), 1)
                assert numbers_of(client.receive_updates(1)) == [1]
                postgres.kill()
                assert client.ask(type="ping") == {"type": "pong"}
                with opening(server.url) as other:
                    assert other.ask(type="authenticate", token=ada.api_key)["code"] == "database_away"
                    assert other.closing() == ([], 1013)
                postgres.start()
                until("the database answers", lambda: server.anonymous.get("/ready").status_code == 200)
                tell(engine, orders_of(ada), 2, 3)
                assert numbers_of(client.receive_updates(2)) == [2, 3]
                assert client.subscribe("book") == 0


def test_who_resumes_again_and_again_at_two_processes_gets_each_update_once(server, settings, tmp_path):
    """Thousands of updates by publishers at once; the client leaves in the middle and comes back elsewhere."""
    ada = server.member()
    topic, choice = orders_of(ada), random.Random(4)
    with running_process(settings, tmp_path / "api.log") as other, publishers(server.engine, topic, 4, 750) as wait:
        received: list[int] = []
        with following(other.url, ada.api_key, orders=0) as watching:
            while len(received) < 3_000:
                url = choice.choice([server.url, other.url])
                with following(url, ada.api_key, orders=len(received)) as client:
                    wanted = min(choice.randint(1, 400), 3_000 - len(received))
                    received += sequences(client.receive_updates(wanted, DEADLINE_S))
            assert received == list(range(1, 3_001))
            wait()
            assert sequences(watching.receive_updates(3_000)) == list(range(1, 3_001))
            assert watching.is_silent(0.1)
        assert other.stop() == 0


def test_the_hub_survives_clients_that_never_read(server, settings, tmp_path):
    """Their buffers are full to the brim; others are served, the process stays small, and in the end they are gone."""
    members = [server.member() for _ in range(3)]
    ada = server.member()
    mute = 40
    with running_process(settings, tmp_path / "api.log") as api, contextlib.ExitStack() as stack:
        with following(api.url, ada.api_key, book=None) as client:
            for number in range(mute):
                raw = RawSocket(api.url)
                stack.callback(raw.close)
                raw.send(type="authenticate", token=members[number % 3].api_key)
                assert raw.read_frame()["type"] == "authenticated"
                raw.send(type="subscribe", topic="book")
                assert raw.read_frame()["type"] == "subscribed"
            before_bytes = api.rss_bytes()
            filler = 7_000 * "x"
            most_bytes = before_bytes
            for batch in range(40):
                tell(server.engine, BOOK, *range(25 * batch, 25 * batch + 25), text=filler)
                assert numbers_of(client.receive_updates(25)) == list(range(25 * batch, 25 * batch + 25))
                most_bytes = max(most_bytes, api.rss_bytes())
            # 7 MB were told: the process keeps them once, and of each socket what fits into its buffer
            assert most_bytes - before_bytes < 40_000_000
            until("the mute ones are gone", lambda: api.open_connections() <= 1 + 2)
            assert client.ask(type="ping") == {"type": "pong"}
        assert 'ended_total{reason="stuck"} 40.0' in _figures(api)
        assert api.stop() == 0


def _figures(api) -> str:
    import httpx

    return httpx.get(f"{api.url}/metrics").text


def test_the_process_stops_in_time_and_says_so_to_its_sockets(server, settings, tmp_path):
    ada, bob = server.member(), server.member()
    with running_process(settings, tmp_path / "api.log") as api, contextlib.ExitStack() as stack:
        client = stack.enter_context(following(api.url, ada.api_key, book=None))
        raw = RawSocket(api.url)
        stack.callback(raw.close)
        raw.send(type="authenticate", token=bob.api_key)
        raw.send(type="subscribe", topic="book")
        tell(server.engine, BOOK, *range(200), text=7_000 * "x")
        client.receive_updates(200)
        begun_s = time.monotonic()
        assert api.stop() == 0
        assert time.monotonic() - begun_s < 20
        assert client.closing() == ([], 1001)


def test_a_slow_client_is_told_of_a_gap_and_others_wait_for_nothing(server):
    """It reads, but slower than updates come: it loses the middle, is told so, and has the end."""
    ada = server.member()
    with contextlib.ExitStack() as stack:
        quick = stack.enter_context(following(server.url, ada.api_key, book=None))
        slow = stack.enter_context(contextlib.closing(RawSocket(server.url, 64 * 1024)))
        slow.send(type="authenticate", token=ada.api_key)
        slow.send(type="subscribe", topic="book")
        assert [slow.read_frame()["type"] for _ in range(2)] == ["authenticated", "subscribed"]
        for batch in range(24):
            tell(server.engine, BOOK, *range(batch * 50, batch * 50 + 50), text=4_000 * "x")
            assert len(quick.receive_updates(50)) == 50
        frames = [slow.read_frame()]
        while frames[-1]["type"] == "update":
            frames.append(slow.read_frame())
        assert sequences(frames[:-1]) == list(range(1, len(frames)))
        assert frames[-1] == {"type": "resync", "topic": "book", "sequence": 1_200}
        tell(server.engine, BOOK, 0)
        assert slow.read_frame()["sequence"] == 1_201


def test_a_client_that_pings_and_takes_no_answer_is_broken_off(server):
    ada = server.member()
    raw = RawSocket(server.url)
    raw.send(type="authenticate", token=ada.api_key)
    with pytest.raises(OSError):
        for _ in range(20_000):
            raw.ping()
    raw.close()


def test_a_client_that_sends_and_takes_no_answer_is_broken_off(server):
    """A thousand messages in one packet are not kept in memory until somebody has time for them."""
    ada = server.member()
    with contextlib.closing(RawSocket(server.url)) as raw:
        raw.send(type="authenticate", token=ada.api_key)
        raw.read_frame()
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                raw.send(type="ping")
        answers = []
        with contextlib.suppress(OSError, EOFError):
            while True:
                answers.append(raw.read_frame())
    assert len(answers) < 200


def test_hundreds_of_sockets_hear_the_same_thing(server):
    operators = [server.member(Role.OPERATOR) for _ in range(15)]

    async def hear(number: int, opening: asyncio.Semaphore, ready: asyncio.Barrier) -> list[int]:
        url = server.url.replace("http://", "ws://") + "/live"
        async with contextlib.AsyncExitStack() as stack:
            async with opening:
                client = await stack.enter_async_context(connect(url, compression=None, open_timeout=DEADLINE_S))
                await client.send(json.dumps({"type": "authenticate", "token": operators[number % 15].api_key}))
                await client.recv()
                await client.send(json.dumps({"type": "subscribe", "topic": "alerts"}))
                await client.recv()
            await ready.wait()
            return [json.loads(await client.recv())["sequence"] for _ in range(10)]

    async def run() -> list[list[int]]:
        opening, ready = asyncio.Semaphore(50), asyncio.Barrier(251)
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(hear(number, opening, ready)) for number in range(250)]
            await ready.wait()
            for number in range(10):
                await asyncio.to_thread(tell, server.engine, "alerts", number)
        return [task.result() for task in listening]

    assert asyncio.run(run()) == [list(range(1, 11))] * 250


def test_nothing_stays_behind_when_all_have_left(server):
    ada = server.member()
    for _ in range(30):
        with following(server.url, ada.api_key, orders=None, book=None):
            tell(server.engine, orders_of(ada), 1)
    figures = server.anonymous.get("/metrics").text
    until("all are gone", lambda: "commonwatt_live_sockets 0.0" in server.anonymous.get("/metrics").text)
    with psycopg.connect(server.settings.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'commonwatt-live-%'"
        ).fetchone()
    assert row == (3,), figures


def test_a_process_takes_as_many_sockets_as_it_can_and_refuses_the_next_by_name(settings, tmp_path, server):
    """With 600 files: 88 sockets; and however many it could take, a hundred strangers of one address."""
    with running_process(settings, tmp_path / "api.log", files=600) as api, contextlib.ExitStack() as stack:
        for _ in range(88):
            stack.enter_context(contextlib.closing(RawSocket(api.url)))
        assert refusal_of(api.url) == (503, "live_full")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(contextlib.closing(RawSocket(server.url)))
        assert refusal_of(server.url) == (429, "too_many_sockets")
    ada = server.member()
    until("they are forgotten", lambda: "commonwatt_live_sockets 0.0" in server.anonymous.get("/metrics").text)
    with following(server.url, ada.api_key) as client:
        assert client.ask(type="ping") == {"type": "pong"}


def refusal_of(url: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused, opening(url):
        pass
    response = refused.value.response
    return response.status_code, json.loads(response.body)["code"]
