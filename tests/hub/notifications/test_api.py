"""What a member sees and decides over HTTP: its own notifications, its own preferences, its own endpoints."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from hub.db import transaction
from hub.integrations.webhooks import WebhookPost
from hub.limits import policies
from hub.notifications import service, webhooks_service
from hub.permissions import Role
from hub.settings import MEMBER_SECRET_BYTES, read_secret_bytes
from tests.hub.notifications.conftest import LOOPBACK
from tests.hub.notifications.telling import MEMBER_SECRET, Community, about

A_MOMENT = timedelta(seconds=30)
"""The jobs here run a little after the requests that wrote them."""
_keys = itertools.count(1)


class Acting:
    """A member at its keyboard."""

    def __init__(self, client, member_id):
        self.client, self.member_id = client, member_id

    def get(self, path, status=200, **query):
        answer = self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path, body=None, status=200, key=None):
        headers = {"Idempotency-Key": key or f"a-key-{next(_keys)}"}
        answer = (
            self.client.post(path, json=body, headers=headers)
            if body is not None
            else self.client.post(path, headers=headers)
        )
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def community(server):
    assert read_secret_bytes(server.settings.member_secret_file, MEMBER_SECRET_BYTES) == MEMBER_SECRET
    return Community(
        server.engine, now=datetime.now(UTC) + A_MOMENT, receivers_post=WebhookPost(LOOPBACK, timeout_s=1.0)
    )


@pytest.fixture
def ada(server):
    member = server.member()
    with server.acting(member) as client:
        yield Acting(client, member.member_id)


@pytest.fixture
def bob(server):
    member = server.member(name="Bob")
    with server.acting(member) as client:
        yield Acting(client, member.member_id)


# --- notifications ----------------------------------------------------------------------------------------------


def test_notifications_are_listed_newest_first_page_by_page(community, ada, bob):
    for number in range(5):
        community.notify(ada.member_id, data=about(f"meter-{number}"))
    community.notify(bob.member_id)
    pages, cursor = [], ""
    while cursor is not None:
        page = ada.get("/me/notifications", limit=2, cursor=cursor)
        assert page["unread_count"] == 5
        pages.append([each["details"]["meter_id"] for each in page["notifications"]])
        cursor = page["next_cursor"]
    assert pages == [["meter-4", "meter-3"], ["meter-2", "meter-1"], ["meter-0"]]


def test_a_notification_says_everything_in_words_and_in_facts(community, ada):
    community.notify(ada.member_id, key="k")
    community.notify(ada.member_id, key="k")
    [told] = ada.get("/me/notifications")["notifications"]
    assert told == {
        "notification_id": told["notification_id"],
        "kind": "meter.suspended",
        "group": "meters",
        "title": "Meter roof is suspended",
        "text": told["text"],
        "details": {"meter_id": "roof", "reason": "a test"},
        "times": 2,
        "created_at": f"{community.now:%Y-%m-%dT%H:%M:%SZ}",
        "last_at": f"{community.now:%Y-%m-%dT%H:%M:%SZ}",
        "read_at": None,
    }
    assert told["text"].startswith("Meter roof is suspended. The reason: a test.")


def test_reading_leaves_what_is_unread(community, ada, bob):
    for _ in range(3):
        community.notify(ada.member_id)
    newest, middle, oldest = [each["notification_id"] for each in ada.get("/me/notifications")["notifications"]]
    assert ada.post("/me/notifications/read", {"notification_id": newest}) == {"marked": 1, "unread_count": 2}
    unread = ada.get("/me/notifications", unread=True)
    assert [each["notification_id"] for each in unread["notifications"]] == [middle, oldest]
    assert ada.post("/me/notifications/read", {"notification_id": middle, "and_older": True}) == {
        "marked": 2,
        "unread_count": 0,
    }
    assert bob.post("/me/notifications/read", {"notification_id": newest}, 404)["code"] == "notification_not_found"


# --- preferences ------------------------------------------------------------------------------------------------


def _channels(acting):
    return {
        each["group"]: {channel["channel"]: (channel["enabled"], channel["changeable"]) for channel in each["channels"]}
        for each in acting.get("/me/notification-preferences")["groups"]
    }


def test_a_member_decides_by_which_ways_it_is_told(ada, bob):
    before = _channels(ada)
    assert before["meters"] == {"in_app": (True, False), "email": (True, True), "webhook": (True, True)}
    assert before["meter_keys"]["email"] == (True, False)
    assert before["endpoints"]["webhook"] == (False, False)
    answer = ada.post("/me/notification-preferences", {"group": "meters", "channel": "email", "enabled": False})
    assert answer == {"channel": "email", "enabled": False, "changeable": True}
    assert _channels(ada) == before | {"meters": before["meters"] | {"email": (False, True)}}
    assert _channels(bob) == before


def test_what_only_operators_are_told_is_shown_to_them_alone(server, ada):
    assert not {"fleet", "alarms"} & _channels(ada).keys()
    for role in (Role.OPERATOR, Role.ADMIN):
        member = server.member(role)
        with server.acting(member) as client:
            assert {"fleet", "alarms"} <= _channels(Acting(client, member.member_id)).keys()


def test_a_wish_that_cannot_be_is_refused(ada):
    for body, status, code in (
        ({"group": "meter_keys", "channel": "email", "enabled": False}, 409, "preference_fixed"),
        ({"group": "endpoints", "channel": "webhook", "enabled": True}, 409, "preference_fixed"),
        ({"group": "meters", "channel": "in_app", "enabled": False}, 422, "malformed_input"),
        ({"group": "meters", "channel": "pigeon", "enabled": False}, 422, "malformed_input"),
        ({"group": "weather", "channel": "email", "enabled": False}, 422, "malformed_input"),
        ({"group": "meters", "channel": "email", "enabled": 0}, 422, "malformed_input"),
        ({"group": "meters", "channel": "email"}, 422, "malformed_input"),
    ):
        assert ada.post("/me/notification-preferences", body, status)["code"] == code, body


# --- endpoints --------------------------------------------------------------------------------------------------


def _create(acting, receiver, key=None):
    created = acting.post("/me/webhooks", {"url": receiver.url, "description": "my house"}, 201, key)
    receiver.trust(created["secret"])
    return created


def test_an_endpoint_is_made_tested_and_shown_without_its_secret(community, ada, bob, receiver):
    created = _create(ada, receiver)
    [endpoint] = ada.get("/me/webhooks")["endpoints"]
    assert endpoint == {
        "endpoint_id": created["endpoint_id"],
        "url": receiver.url,
        "description": "my house",
        "state": "active",
        "disabled_because": None,
        "secret_generation": 1,
        "previous_secret_until": None,
        "failing_since": None,
        "failures": 0,
        "created_at": endpoint["created_at"],
    }
    assert bob.get("/me/webhooks")["endpoints"] == []
    community.deliver()
    [test] = receiver.received()
    Webhook(created["secret"]).verify(test.body, test.headers)
    [delivery] = ada.get(f"/me/webhooks/{created['endpoint_id']}/deliveries")["deliveries"]
    assert (delivery["webhook_id"], delivery["kind"]) == (test.id, "webhook.test")
    assert (delivery["state"], delivery["attempts"], delivery["last_status"]) == ("delivered", 1, 204)
    assert (delivery["last_outcome"], delivery["last_error"]) == ("delivered", "")


def test_a_repeated_request_makes_one_endpoint_and_shows_the_secret_that_it_made(ada, receiver):
    first = _create(ada, receiver, "once")
    assert _create(ada, receiver, "once") == first
    assert len(ada.get("/me/webhooks")["endpoints"]) == 1
    rotated = ada.post(f"/me/webhooks/{first['endpoint_id']}/rotate-secret", key="rotate")
    assert rotated["secret"] != first["secret"]
    assert ada.post(f"/me/webhooks/{first['endpoint_id']}/rotate-secret", key="rotate") == rotated
    assert _create(ada, receiver, "once") == first, "not the one that another request made since"
    [endpoint] = ada.get("/me/webhooks")["endpoints"]
    assert endpoint["secret_generation"] == 2 and endpoint["previous_secret_until"] is not None


def test_what_a_member_sends_by_hand_is_counted_whatever_it_sends(community, ada, bob, receiver):
    """A row and a request for each press of a button: not fifty a second, for thirty days."""
    endpoint_id = _create(ada, receiver)["endpoint_id"]
    [delivery] = ada.get(f"/me/webhooks/{endpoint_id}/deliveries")["deliveries"]
    buttons = [
        (f"/me/webhooks/{endpoint_id}/test", {}),
        (f"/me/webhooks/{endpoint_id}/deliveries/{delivery['delivery_id']}/replay", {}),
        (f"/me/webhooks/{endpoint_id}/replay", {"since": "2026-11-20T00:00:00Z"}),
    ]
    for number in range(policies.WEBHOOK_BY_MEMBER.quota):
        ada.post(*buttons[number % 3], 202)
    for path, body in buttons:
        assert ada.post(path, body, 429)["code"] == "rate_limited"
    bob.post(f"/me/webhooks/{_create(bob, receiver)['endpoint_id']}/test", {}, 202)
    assert community.rows("SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = :id", id=endpoint_id) == [
        (1 + policies.WEBHOOK_BY_MEMBER.quota // 3,)
    ]


def test_an_address_that_leads_nowhere_public_is_refused(ada):
    for url in (
        "ftp://example.org/",
        "https://10.0.0.1/",
        "https://localhost/",
        "https://user@example.org/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
    ):
        refused = ada.post("/me/webhooks", {"url": url, "description": "x"}, 422)
        assert refused["code"] == "webhook_url_refused"
    assert ada.get("/me/webhooks")["endpoints"] == []


def test_the_form_of_a_request_is_strict(ada):
    for body in (
        {"url": "https://example.org/"},
        {"url": "https://example.org/", "description": ""},
        {"url": "https://example.org/", "description": "two\nlines"},
        {"url": "https://example.org/", "description": "x" * 101},
        {"url": "https://example.org/" + "x" * 2_000, "description": "x"},
        {"url": 7, "description": "x"},
        {"url": "https://example.org/", "description": "x", "secret": "whsec_mine"},
    ):
        assert ada.post("/me/webhooks", body, 422)["code"] == "malformed_input"


def test_endpoints_are_few(ada, receiver):
    created = [_create(ada, receiver) for _ in range(webhooks_service.ACTIVE_ENDPOINTS_MAX)]
    body = {"url": receiver.url, "description": "one more"}
    assert ada.post("/me/webhooks", body, 409)["code"] == "webhook_endpoints_too_many"
    first = created[0]["endpoint_id"]
    assert ada.post(f"/me/webhooks/{first}/disable") == {"endpoint_id": first, "state": "disabled"}
    another = ada.post("/me/webhooks", body, 201)["endpoint_id"]
    assert ada.post(f"/me/webhooks/{first}/enable", status=409)["code"] == "webhook_endpoints_too_many"
    ada.post(f"/me/webhooks/{another}/disable")
    assert ada.post(f"/me/webhooks/{first}/enable") == {"endpoint_id": first, "state": "active"}


def test_a_disabled_endpoint_gets_nothing_and_says_why(community, ada, receiver):
    endpoint_id = _create(ada, receiver)["endpoint_id"]
    for _ in range(2):
        ada.post(f"/me/webhooks/{endpoint_id}/disable")
    community.notify(ada.member_id)
    community.deliver()
    assert receiver.received() == []
    [endpoint] = ada.get("/me/webhooks")["endpoints"]
    assert (endpoint["state"], endpoint["disabled_because"]) == ("disabled", "member")
    assert ada.post(f"/me/webhooks/{endpoint_id}/test", status=409)["code"] == "webhook_endpoint_disabled"


def test_what_was_given_up_is_listed_and_replayed(community, ada, receiver):
    endpoint_id = _create(ada, receiver)["endpoint_id"]
    receiver.fail(status=503)
    community.notify(ada.member_id)
    ada.post(f"/me/webhooks/{endpoint_id}/disable")
    ada.post(f"/me/webhooks/{endpoint_id}/enable")
    receiver.fail()
    path = f"/me/webhooks/{endpoint_id}"
    given_up = ada.get(f"{path}/deliveries", state="given_up")["deliveries"]
    assert [each["kind"] for each in given_up] == ["meter.suspended", "webhook.test"]
    queued = ada.post(f"{path}/deliveries/{given_up[0]['delivery_id']}/replay", status=202)
    assert queued == {
        "delivery_id": given_up[0]["delivery_id"],
        "webhook_id": given_up[0]["webhook_id"],
        "state": "queued",
    }
    assert ada.post(f"{path}/replay", {"since": "2026-01-01T00:00:00Z"}, 202) == {"queued": 1, "at_once_max": 500}
    community.deliver()
    assert {each.id for each in receiver.received()} == {each["webhook_id"] for each in given_up}
    pages, cursor = [], ""
    while cursor is not None:
        page = ada.get(f"{path}/deliveries", limit=1, cursor=cursor)
        pages += [(each["kind"], each["state"]) for each in page["deliveries"]]
        cursor = page["next_cursor"]
    assert pages == [("meter.suspended", "delivered"), ("webhook.test", "delivered")]


def test_a_test_is_tried_once_and_says_how_it_went(community, ada, receiver):
    endpoint_id = _create(ada, receiver)["endpoint_id"]
    community.deliver()
    receiver.fail(status=500)
    queued = ada.post(f"/me/webhooks/{endpoint_id}/test", status=202)
    community.deliver()
    [delivery, _] = ada.get(f"/me/webhooks/{endpoint_id}/deliveries")["deliveries"]
    assert delivery["delivery_id"] == queued["delivery_id"]
    assert (delivery["state"], delivery["last_error"]) == ("given_up", "the receiver answered 500")
    [endpoint] = ada.get("/me/webhooks")["endpoints"]
    assert endpoint["failures"] == 1 and endpoint["failing_since"] is not None


def test_nobody_sees_or_touches_anothers_endpoint(community, ada, bob, receiver):
    endpoint_id = _create(ada, receiver)["endpoint_id"]
    community.deliver()
    [delivery] = ada.get(f"/me/webhooks/{endpoint_id}/deliveries")["deliveries"]
    path = f"/me/webhooks/{endpoint_id}"
    assert bob.get(f"{path}/deliveries", 404)["code"] == "webhook_endpoint_not_found"
    for verb in ("disable", "enable", "rotate-secret", "test", f"deliveries/{delivery['delivery_id']}/replay"):
        assert bob.post(f"{path}/{verb}", status=404)["code"] == "webhook_endpoint_not_found"
    assert bob.post(f"{path}/replay", {"since": "2026-01-01T00:00:00Z"}, 404)["code"] == "webhook_endpoint_not_found"
    [endpoint] = ada.get("/me/webhooks")["endpoints"]
    assert (endpoint["state"], endpoint["secret_generation"]) == ("active", 1)


def test_what_is_done_to_an_endpoint_is_in_the_audit_log(server, community, ada, receiver):
    endpoint_id = _create(ada, receiver)["endpoint_id"]
    for verb in ("rotate-secret", "disable", "enable"):
        ada.post(f"/me/webhooks/{endpoint_id}/{verb}")
    rows = community.rows(
        "SELECT action, actor, detail FROM audit_log WHERE subject = :subject ORDER BY audit_id",
        subject=f"webhook:{endpoint_id}",
    )
    assert [action for action, _, _ in rows] == [
        "webhook.create",
        "webhook.rotate_secret",
        "webhook.disable",
        "webhook.enable",
    ]
    assert all(actor.startswith(f"member:{ada.member_id}") for _, actor, _ in rows)
    assert "house=7" not in str(rows), "an address may hold a secret"


def test_what_was_told_in_a_transaction_is_seen_after_it(server, community, ada):
    with transaction(server.engine) as connection:
        service.notify(connection, ada.member_id, "meter.suspended", about(), community.now)
        assert ada.get("/me/notifications")["notifications"] == []
    assert len(ada.get("/me/notifications")["notifications"]) == 1
