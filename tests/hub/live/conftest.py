"""Clients of the live updates, over real WebSockets."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from hub.db import create_database_engine, transaction
from hub.dependencies import API_CONNECTIONS
from hub.live.publishing import Update, publish
from hub.live.topics import ORDERS, own_topic
from infra.local.postgres import Postgres
from tests.hub.conftest import Server, TestMember, running, settings_in

ANSWER_TIMEOUT_S = 15.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_server(
    postgres: Postgres, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """An API for all tests of a file. Each has members, and so topics, of its own."""
    name = f"live_{next(_numbers)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    engine = create_database_engine(postgres.url(name), "tests", API_CONNECTIONS)
    with running(settings_in(tmp_path_factory.mktemp("live"), postgres.url(name)), engine) as server:
        yield server
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class Client:
    """What a client's author would write first."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **message: object) -> None:
        self.socket.send(json.dumps(message))

    def receive(self, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        frame = self.socket.recv(timeout_s)
        assert isinstance(frame, str), "every frame is text"
        return json.loads(frame)

    def ask(self, **message: object) -> dict[str, Any]:
        self.send(**message)
        return self.receive()

    def authenticate(self, token: str) -> dict[str, Any]:
        answer = self.ask(type="authenticate", token=token)
        assert answer["type"] == "authenticated", answer
        return answer

    def subscribe(self, topic: str, after: int | None = None) -> int:
        more = {} if after is None else {"after": after}
        answer = self.ask(type="subscribe", topic=topic, **more)
        assert (answer["type"], answer["topic"]) == ("subscribed", topic), answer
        return answer["sequence"]

    def receive_updates(self, count: int, timeout_s: float = ANSWER_TIMEOUT_S) -> list[dict[str, Any]]:
        updates = [self.receive(timeout_s) for _ in range(count)]
        assert {each["type"] for each in updates} <= {"update"}, updates
        return updates

    def is_silent(self, for_s: float = 0.3) -> bool:
        try:
            frame = self.socket.recv(for_s)
        except TimeoutError:
            return True
        raise AssertionError(f"it says {frame!r}")

    def closing(self) -> tuple[list[dict[str, Any]], int]:
        """What was said until the server closed the socket, and the code of the closing."""
        frames = []
        try:
            while True:
                frames.append(self.receive())
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "closed without a word"
            return frames, closed.rcvd.code


@contextlib.contextmanager
def opening(url: str, path: str = "/live", **options: Any) -> Iterator[Client]:
    address = url.replace("http://", "ws://") + path
    with connect(address, compression=None, max_queue=None, open_timeout=ANSWER_TIMEOUT_S, **options) as socket:
        yield Client(socket)


@contextlib.contextmanager
def following(url: str, token: str, **topics: int | None) -> Iterator[Client]:
    """A socket that follows topics, each behind a sequence or from now on."""
    with opening(url) as client:
        client.authenticate(token)
        for topic, after in topics.items():
            client.subscribe(topic, after)
        yield client


def tell(engine: Engine, topic: str, *numbers: int, text: str = "") -> None:
    """Commit updates that carry these numbers, in one transaction."""
    with transaction(engine) as connection:
        now = datetime.now(UTC)
        publish(connection, [Update(topic, "test.told", {"number": each, "text": text}) for each in numbers], now)


def numbers_of(updates: list[dict[str, Any]]) -> list[int]:
    return [each["data"]["number"] for each in updates]


def orders_of(member: TestMember) -> str:
    """The member's own topic `orders`, in which nobody else publishes yet."""
    return own_topic(ORDERS, member.member_id)
