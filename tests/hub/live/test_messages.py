"""Whatever a client says, it is understood or refused; whatever it gets is a frame that any client can read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from hub.errors import Forbidden, MalformedInput
from hub.live import messages
from hub.live.messages import Authenticate, Ping, Subscribe, Unsubscribe, parse_message
from hub.live.store import StoredUpdate
from hub.live.switchboard import SOCKETS_MAX, sockets_for_files

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
ADA = UUID("00000000-0000-4000-8000-0000000000ad")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(["type", "topic", "after", "token", "authenticate", "subscribe", "unsubscribe", "ping", "book"])


@given(st.text() | st.dictionaries(words, words | json_values, max_size=4).map(json.dumps))
def test_a_message_is_understood_or_refused_and_nothing_else(text):
    try:
        message = parse_message(text)
    except MalformedInput:
        return
    assert isinstance(message, Authenticate | Subscribe | Unsubscribe | Ping)
    assert json.loads(text)["type"] in ("authenticate", "subscribe", "unsubscribe", "ping")


def test_messages_say_what_they_say():
    assert parse_message('{"type":"subscribe","topic":"book"}') == Subscribe("book", None)
    assert parse_message('{"topic":"book","after":0,"type":"subscribe"}') == Subscribe("book", 0)
    assert parse_message('{"type":"unsubscribe","topic":"book"}') == Unsubscribe("book")
    assert parse_message(' {"type":"authenticate","token":"x"} ') == Authenticate("x")
    with pytest.raises(MalformedInput):
        parse_message('{"type":"authenticate","token":""}')


@given(st.text(max_size=70_000) | st.integers(100, 66_000).map("x".__mul__))
def test_any_client_can_read_what_the_hub_says(text):
    update = StoredUpdate("book", 17, NOW, "test.told", json.dumps({"text": text}))
    client = ClientProtocol(parse_uri("ws://localhost/live"), state=State.OPEN)
    frames = [
        messages.update_frame(update),
        messages.authenticated_frame(ADA, NOW, ["book"]),
        messages.resync_frame("book", 17),
        messages.error_frame(Forbidden(text), "book"),
    ]
    client.receive_data(b"".join(frames))
    received = client.events_received()
    assert [frame.opcode for frame in received] == [Opcode.TEXT] * 4
    told, authenticated, resync, error = (json.loads(frame.data) for frame in received)
    assert told == {
        "type": "update",
        "topic": "book",
        "sequence": 17,
        "at": "2026-11-20T06:00:00Z",
        "kind": "test.told",
        "data": {"text": text},
    }
    assert authenticated["expires_at"] == "2026-11-20T06:00:00Z"
    assert resync == {"type": "resync", "topic": "book", "sequence": 17}
    assert (error["code"], error["detail"], error["topic"]) == ("forbidden", text, "book")


def test_so_many_sockets_fit_as_there_are_files(monkeypatch):
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: taken.append(limits))
    assert sockets_for_files(100_000, 100_000) == SOCKETS_MAX
    assert sockets_for_files(1_024, 524_288) == SOCKETS_MAX
    assert sockets_for_files(1_024, 1_024) == 512
    assert sockets_for_files(256, 256) == 1
    assert taken == [(SOCKETS_MAX + 512, 524_288), (1_024, 1_024), (256, 256)]
