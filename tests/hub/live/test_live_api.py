"""The protocol of the socket, as a client sees it."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hub.auth import api_keys_service
from hub.auth.sessions_rules import Client as SessionClient
from hub.auth.sessions_service import end_session, open_session
from hub.auth.tokens import issue_access_token
from hub.db import transaction
from hub.live.sockets import MESSAGES
from hub.live.switchboard import SOCKETS_PER_MEMBER_MAX
from hub.live.topics import ALERTS, TOPICS, meters_of
from hub.live.wire import FRAGMENTS_MAX, MESSAGE_BYTES_MAX
from hub.permissions import Permission, Role
from hub.settings import read_secret_bytes
from hub.token_keys import read_token_keys
from tests.hub.live.conftest import following, numbers_of, opening, orders_of, tell

CLIENT = SessionClient("127.0.0.1", "tests")


@pytest.fixture(scope="module")
def server(shared_server):
    return shared_server


@pytest.fixture(scope="module", autouse=True)
def silent(server):
    """A socket that says nothing while the tests of this file run."""
    with opening(server.url) as client:
        yield client


@pytest.fixture
def ada(server):
    return server.member(member_type=Role.PROSUMER)


def session_of(server, member):
    keys = read_token_keys(server.settings)
    with transaction(server.engine) as connection:
        return open_session(connection, member.member_id, "test", CLIENT, keys, datetime.now(UTC))


def refused(frame, code, topic=None):
    assert frame["type"] == "error", frame
    assert (frame["code"], frame.get("topic")) == (code, topic)
    assert frame["title"]


def test_the_first_message_says_who_it_is(server, ada):
    with opening(server.url) as client:
        answer = client.authenticate(ada.api_key)
    assert answer == {
        "type": "authenticated",
        "member_id": str(ada.member_id),
        "expires_at": None,
        "topics": ["meters", "transactions", "tokens", "notifications", "orders", "book", "invoices", "portfolio"],
    }


def test_an_access_token_is_good_until_it_ends(server, ada):
    tokens = session_of(server, ada)
    with opening(server.url) as client:
        answer = client.authenticate(tokens.access_token)
        left = datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=9) < left <= timedelta(seconds=tokens.access_expires_in_s)


@pytest.mark.parametrize("token", ["nonsense", "cwk_00000000_00000000", "eyJhbGciOiJub25lIn0.e30.", "Bearer x", "ü"])
def test_who_is_nobody_is_told_so_and_closed(server, token):
    with opening(server.url) as client:
        client.send(type="authenticate", token=token)
        [frame], code = client.closing()
    refused(frame, "unauthorized")
    assert code == 4401


@pytest.mark.parametrize(
    "message",
    [{"type": "subscribe", "topic": "orders"}, {"type": "ping"}, {"type": "unsubscribe", "topic": "orders"}],
)
def test_nothing_comes_before_authentication(server, message):
    with opening(server.url) as client:
        client.send(**message)
        [frame], code = client.closing()
    refused(frame, "unauthorized")
    assert code == 4401


@pytest.mark.parametrize("name", ["token", "access_token", "API_KEY", "ticket"])
def test_a_token_in_the_address_is_refused_by_name(server, ada, name):
    with opening(server.url, f"/live?{name}={ada.api_key}") as client:
        [frame], code = client.closing()
    refused(frame, "token_in_url")
    assert code == 4400


def test_any_other_parameter_of_the_address_is_refused_too(server):
    with opening(server.url, "/live?topic=book") as client:
        [frame], code = client.closing()
    refused(frame, "malformed_input")
    assert code == 4400


def test_updates_come_numbered_and_in_order(server, ada):
    with following(server.url, ada.api_key) as client:
        assert client.subscribe("meters") == 0
        tell(server.engine, meters_of(ada.member_id), 1, 2)
        tell(server.engine, meters_of(ada.member_id), 3)
        updates = client.receive_updates(3)
    assert [(each["topic"], each["sequence"], each["kind"]) for each in updates] == [
        ("meters", number, "test.told") for number in (1, 2, 3)
    ]
    assert numbers_of(updates) == [1, 2, 3]
    assert datetime.now(UTC) - datetime.fromisoformat(updates[0]["at"]) < timedelta(minutes=1)


def test_who_comes_back_gets_what_was_missed_and_then_what_comes(server, ada):
    topic = meters_of(ada.member_id)
    tell(server.engine, topic, *range(1, 501))
    with following(server.url, ada.api_key) as client:
        assert client.subscribe("meters", after=17) == 500
        tell(server.engine, topic, 501)
        updates = client.receive_updates(484)
        assert client.is_silent()
    assert [each["sequence"] for each in updates] == list(range(18, 502))
    assert numbers_of(updates) == list(range(18, 502))


def test_without_a_sequence_only_what_comes_is_told(server, ada):
    tell(server.engine, orders_of(ada), 1, 2)
    with following(server.url, ada.api_key) as client:
        assert client.subscribe("orders") == 2
        assert client.is_silent()
        tell(server.engine, orders_of(ada), 3)
        assert numbers_of(client.receive_updates(1)) == [3]


def test_who_asks_for_what_is_forgotten_or_has_not_been_reads_the_state_anew(server, ada):
    tell(server.engine, orders_of(ada), *range(1, 11))
    with transaction(server.engine) as connection:
        connection.execute(
            text("DELETE FROM live_updates WHERE topic = :topic AND sequence <= 5"), {"topic": orders_of(ada)}
        )
    for after, expected in ((3, "resync"), (99, "resync"), (5, "update"), (10, None)):
        with following(server.url, ada.api_key) as client:
            assert client.subscribe("orders", after) == 10
            if expected == "resync":
                assert client.receive() == {"type": "resync", "topic": "orders", "sequence": 10}
            elif expected == "update":
                assert numbers_of(client.receive_updates(5)) == [6, 7, 8, 9, 10]
            assert client.is_silent(0.1)
    with following(server.url, ada.api_key) as client:
        client.subscribe("orders", 3)
        assert client.receive()["type"] == "resync"
        tell(server.engine, orders_of(ada), 11)
        assert client.receive_updates(1)[0]["sequence"] == 11


def test_nobody_can_follow_what_is_anothers_or_the_operators(server, ada):
    bob = server.member()
    with following(server.url, ada.api_key, meters=None) as client:
        refused(client.ask(type="subscribe", topic=ALERTS), "forbidden", ALERTS)
        for topic in (meters_of(bob.member_id), "x"):
            refused(client.ask(type="subscribe", topic=topic), "topic_not_found", topic)
        tell(server.engine, meters_of(bob.member_id), 1)
        tell(server.engine, meters_of(ada.member_id), 2)
        assert numbers_of(client.receive_updates(1)) == [2]
        assert client.is_silent(0.1)


def test_operators_follow_alerts(server):
    operator = server.member(Role.OPERATOR)
    with following(server.url, operator.api_key, alerts=None) as client:
        tell(server.engine, ALERTS, 1)
        assert client.receive_updates(1)[0]["topic"] == "alerts"


def test_an_api_key_follows_only_what_its_scopes_name(server, ada):
    now = datetime.now(UTC)
    secret = read_secret_bytes(server.settings.member_secret_file, 32)
    with transaction(server.engine) as connection:
        key = api_keys_service.create_api_key(
            connection, secret, ada.member_id, "a display", {Permission.METERS_READ}, timedelta(days=1), "test", now
        )
    token = api_keys_service.api_key_text(secret, key.key_id)
    with opening(server.url) as client:
        assert client.authenticate(token)["topics"] == ["meters", "tokens"]
        refused(client.ask(type="subscribe", topic="notifications"), "forbidden", "notifications")
        assert client.subscribe("meters") == 0


def test_a_topic_is_followed_once_and_left_once(server, ada):
    with following(server.url, ada.api_key, orders=None) as client:
        refused(client.ask(type="subscribe", topic="orders"), "already_subscribed", "orders")
        assert client.ask(type="unsubscribe", topic="orders") == {"type": "unsubscribed", "topic": "orders"}
        refused(client.ask(type="unsubscribe", topic="orders"), "not_subscribed", "orders")
        tell(server.engine, orders_of(ada), 1)
        assert client.is_silent(0.2)
        assert client.subscribe("orders", 0) == 1
        assert numbers_of(client.receive_updates(1)) == [1]


def test_a_client_that_cannot_ping_asks(server, ada):
    with following(server.url, ada.api_key) as client:
        assert client.ask(type="ping") == {"type": "pong"}


NO_MESSAGES = (
    "",
    "null",
    "[]",
    "{",
    '{"type":"subscribe"}',
    '{"type":"subscribe","topic":"orders","after":-1}',
    '{"type":"subscribe","topic":"orders","after":1.5}',
    '{"type":"subscribe","topic":"orders","after":"1"}',
    '{"type":"subscribe","topic":"orders","after":99999999999999999999999}',
    '{"type":"subscribe","topic":"orders","since":1}',
    '{"type":"subscribe","topic":"' + 65 * "x" + '"}',
    '{"type":"ping","ping":1}',
    '{"type":"shutdown"}',
    '{"topic":"orders"}',
    "[" * 2_000,
    '{"type":"ping"}' + "\x00",
    b'{"type":"ping"}',
)


def test_what_is_no_message_is_refused_and_the_socket_goes_on(server, ada):
    with following(server.url, ada.api_key) as client:
        for message in NO_MESSAGES:
            client.socket.send(message)
            refused(client.receive(), "malformed_input")
        assert client.ask(type="ping") == {"type": "pong"}


def test_a_first_message_that_is_none_closes_the_socket(server):
    with opening(server.url) as client:
        client.socket.send("hello")
        [frame], code = client.closing()
    refused(frame, "malformed_input")
    assert code == 4400


def test_a_message_that_is_too_large_closes_the_socket(server, ada):
    with following(server.url, ada.api_key) as client:
        client.send(type="authenticate", token="x" * MESSAGE_BYTES_MAX)
        frames, code = client.closing()
    assert (frames, code) == ([], 1009)


def test_a_message_in_countless_fragments_closes_the_socket(server, ada):
    with following(server.url, ada.api_key) as client, pytest.raises(ConnectionClosed) as closed:
        client.socket.send("" for _ in range(100 * FRAGMENTS_MAX))
        client.receive()
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1008  # its own messages may hide our word from it


def test_who_says_too_much_is_closed(server, ada):
    with following(server.url, ada.api_key) as client, pytest.raises(ConnectionClosed) as closed:
        for _ in range(MESSAGES.quota + 1):
            client.send(type="ping")
        while True:
            frame = client.receive()
            if frame["type"] == "error":
                refused(frame, "too_many_messages")
    assert closed.value.rcvd.code in (4429, 1008)


def test_a_member_has_so_many_sockets_and_no_more(server, ada):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(following(server.url, ada.api_key)) for _ in range(SOCKETS_PER_MEMBER_MAX)]
        with opening(server.url) as one_more:
            one_more.send(type="authenticate", token=ada.api_key)
            [frame], code = one_more.closing()
        refused(frame, "too_many_sockets")
        assert code == 4429
        clients[0].socket.close()
        with following(server.url, ada.api_key) as client:
            assert client.ask(type="ping") == {"type": "pong"}


def test_a_page_of_another_origin_gets_no_socket(server, ada):
    with opening(server.url, origin=server.settings.public_url) as client:
        client.authenticate(ada.api_key)
    for origin in ("https://evil.example", "null", server.settings.public_url + ".evil.example"):
        with pytest.raises(InvalidStatus) as refusal, opening(server.url, origin=origin):
            pass
        assert refusal.value.response.status_code == 403
        assert json.loads(refusal.value.response.body)["code"] == "origin_refused"


def test_the_next_token_prolongs_the_socket(server, ada):
    keys, now = read_token_keys(server.settings), datetime.now(UTC)
    tokens = session_of(server, ada)
    short = issue_access_token(keys, ada.member_id, tokens.session_id, [Role.PROSUMER], now, now + timedelta(seconds=3))
    with opening(server.url) as prolonged, opening(server.url) as forgotten:
        first = prolonged.authenticate(short)
        prolonged.subscribe("orders")
        forgotten.authenticate(short)
        second = prolonged.authenticate(tokens.access_token)
        assert second["expires_at"] > first["expires_at"]
        frames, code = forgotten.closing()
        refused(frames[-1], "access_token_expired")
        assert code == 4401
        tell(server.engine, orders_of(ada), 1)
        assert numbers_of(prolonged.receive_updates(1)) == [1]


def test_a_socket_stays_its_members(server, ada):
    bob = server.member()
    with following(server.url, ada.api_key, meters=None) as client:
        client.send(type="authenticate", token=bob.api_key)
        [frame], code = client.closing()
    refused(frame, "member_differs")
    assert code == 4409


def test_a_session_that_ends_closes_its_sockets_at_once_and_no_others(server, ada):
    ended, going_on = session_of(server, ada), session_of(server, ada)
    with opening(server.url) as first, opening(server.url) as second:
        first.authenticate(ended.access_token)
        second.authenticate(going_on.access_token)
        with transaction(server.engine) as connection:
            end_session(connection, ada.member_id, ended.session_id, "signed_out", "test", datetime.now(UTC))
        [frame], code = first.closing()
        refused(frame, "unauthorized")
        assert code == 4401
        assert second.ask(type="ping") == {"type": "pong"}


def test_a_key_that_is_revoked_closes_its_sockets_at_once(server, ada):
    with following(server.url, ada.api_key, orders=None) as client:
        with transaction(server.engine) as connection:
            key_id = api_keys_service.key_id_of(ada.api_key)
            api_keys_service.revoke_api_key(connection, ada.member_id, key_id, "test", datetime.now(UTC))
        [frame], code = client.closing()
    refused(frame, "unauthorized")
    assert code == 4401


def test_a_role_that_is_taken_ends_what_it_allowed_and_nothing_else(server):
    operator = server.member(Role.OPERATOR)
    with following(server.url, operator.api_key, alerts=None, orders=None) as client:
        answer = server.post(f"/members/{operator.member_id}/roles/take", {"role": "operator", "reason": "holidays"})
        assert answer.status_code == 200, answer.text
        refused(client.receive(), "forbidden", "alerts")
        assert client.receive() == {"type": "unsubscribed", "topic": "alerts"}
        tell(server.engine, ALERTS, 1)
        tell(server.engine, orders_of(operator), 2)
        assert numbers_of(client.receive_updates(1)) == [2]
        refused(client.ask(type="subscribe", topic="alerts"), "forbidden", "alerts")


def test_a_suspended_member_is_out_at_once(server, ada):
    with following(server.url, ada.api_key, orders=None) as client:
        answer = server.post(f"/members/{ada.member_id}/suspend", {"reason": "a test"})
        assert answer.status_code == 200, answer.text
        [frame], code = client.closing()
    refused(frame, "unauthorized")
    assert code == 4401


def test_over_http_a_client_learns_what_it_may_follow_and_how_far_each_topic_is(server, ada):
    tell(server.engine, meters_of(ada.member_id), 1, 2, 3)
    tell(server.engine, ALERTS, 1)
    with transaction(server.engine) as connection:
        connection.execute(
            text("DELETE FROM live_updates WHERE topic = :topic AND sequence = 1"), {"topic": meters_of(ada.member_id)}
        )
    with server.acting(ada) as http:
        answer = http.get("/live/topics")
        assert answer.status_code == 200, answer.text
        topics = {each["topic"]: each for each in answer.json()["topics"]}
        assert http.get("/live/topics?x=1").json()["code"] == "malformed_input"
    assert topics.keys() == TOPICS.keys() - {ALERTS}
    assert (topics["meters"]["sequence"], topics["meters"]["oldest_sequence"]) == (3, 2)
    assert (topics["book"]["sequence"], topics["orders"]["oldest_sequence"]) == (0, None)
    admin = {each["topic"]: each for each in server.client.get("/live/topics").json()["topics"]}
    assert admin["alerts"]["sequence"] >= admin["alerts"]["oldest_sequence"] >= 1
    assert server.anonymous.get("/live/topics").status_code == 401


def test_over_plain_http_the_socket_is_not_found(server):
    assert server.client.get("/live").status_code in (404, 426)


def test_a_handshake_that_is_none_is_refused(server):
    key = base64.b64encode(bytes(16)).decode()
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "7", "Sec-WebSocket-Key": key}
    assert server.anonymous.get("/live", headers=headers).status_code == 400


def test_who_says_nothing_is_closed_after_ten_seconds(silent):
    [frame], code = silent.closing()
    refused(frame, "authentication_timeout")
    assert code == 4401


def test_what_a_socket_costs_and_did_is_counted(server, ada):
    def figure(name):
        [line] = [each for each in server.anonymous.get("/metrics").text.splitlines() if each.startswith(name + " ")]
        return float(line.rpartition(" ")[2])

    def wait_until(name, value):
        deadline_s = time.monotonic() + 10
        while figure(name) != value:
            assert time.monotonic() < deadline_s, f"{name} is {figure(name)}, never {value}"

    wait_until("commonwatt_live_sockets", 0)
    sent = figure("commonwatt_live_updates_sent_total")
    with following(server.url, ada.api_key, orders=None) as client:
        tell(server.engine, orders_of(ada), 1)
        client.receive_updates(1)
        assert figure("commonwatt_live_sockets") == 1
        assert figure('commonwatt_live_subscriptions{topic="orders"}') == 1
        assert figure("commonwatt_live_listening") == 1
        wait_until("commonwatt_live_updates_sent_total", sent + 1)  # which is counted once a second
    wait_until("commonwatt_live_sockets", 0)
    assert figure('commonwatt_live_subscriptions{topic="orders"}') == 0
