"""Of every POST there is: it is done once however often it is asked for, it is audited, and leaves no secret behind."""

from __future__ import annotations

import base64
import json
from uuid import uuid4

import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import text

from hub.audit import store
from hub.db import transaction
from hub.dependencies import get_once
from hub.idempotency import _lock_or_refuse
from hub.permissions import OPEN_ROUTES, REPEATABLE_ROUTES, ROUTES
from hub.web import create_app, read_hub
from tests.hub.auth.mailing import Office, sending
from tests.hub.registry.chained import with_chain
from tests.hub.walking import Walk

AUDITED = {
    "/meters": "meter.register",
    "/meters/{meter_id}/suspend": "meter.suspend",
    "/meters/{meter_id}/resume": "meter.resume",
    "/meters/{meter_id}/retire": "meter.retire",
    "/meters/{meter_id}/minting": "meter.forbid_minting",
    "/meters/{meter_id}/broker-password": "meter.renew_password",
    "/meters/{meter_id}/commands": "meter.command",
    "/meters/{meter_id}/keys": "meter.rotate_key",
    "/meters/{meter_id}/keys/{key_epoch}/revoke": "meter.revoke_key",
    "/meters/{meter_id}/backlog/release": "quarantine.released",
    "/meters/{meter_id}/gaps/{key_epoch}/{first_sequence}/declare-lost": "gap.declare_lost",
    "/meters/{meter_id}/minting/retry": "minting.retry",
    "/quarantine/{quarantine_id}/release": "quarantine.released",
    "/quarantine/{quarantine_id}/reject": "quarantine.rejected",
    "/members/{member_id}/roles/give": "member.give_role",
    "/members/{member_id}/roles/take": "member.take_role",
    "/members/{member_id}/suspend": "member.suspend",
    "/members/{member_id}/reinstate": "member.reinstate",
    "/me": "member.change",
    "/me/api-keys": "api_key.create",
    "/me/api-keys/{key_id}/revoke": "api_key.revoke",
    "/me/email/verify": "member.link",
    "/me/password": "member.change_password",
    "/me/sessions/{session_id}/end": "session.end",
    "/me/sessions/end-others": "session.end",
    "/me/wallets": "member.link",
    "/me/wallets/unlink": "member.unlink",
    "/me/registrations/user": "user.register_on_chain",
    "/me/registrations/meter": "meter.register_on_chain",
    "/me/registrations/{registration_id}/signature": "registration.sign",
    "/me/webhooks": "webhook.create",
    "/me/webhooks/{endpoint_id}/disable": "webhook.disable",
    "/me/webhooks/{endpoint_id}/enable": "webhook.enable",
    "/me/webhooks/{endpoint_id}/rotate-secret": "webhook.rotate_secret",
    "/auth/password/reset": "member.reset_password",
    "/auth/sign-in": "session.open",
    "/auth/sign-out": "session.end",
    "/auth/verify": "member.create",
    "/auth/wallet/register": "member.create",
    "/auth/wallet/sign-in": "session.open",
}
NOT_AUDITED = {
    "/readings/seals": "a seal is evidence of itself, and is kept for ever",
    "/agent/report": "what a device says of itself, replaced by the next",
    "/agent/credentials": "tells the meter its own password",
    "/auth/refresh": "goes on with a session whose beginning and end are audited",
    "/auth/register": "nobody is a member before the mailed link is used, and that is audited",
    "/auth/password/forgot": "has a mail sent; nothing changes before its link is used",
    "/auth/wallet/challenge": "a text to sign",
    "/me/email": "has a mail sent; nothing changes before its code is used",
    "/me/proofs/challenge": "a text to sign",
    "/me/wallets/challenge": "a text to sign",
    "/me/notifications/read": "what a member has read is its own business",
    "/me/notification-preferences": "by which ways a member wants to be told is its own business",
    "/me/webhooks/{endpoint_id}/test": "sends what is listed with its delivery",
    "/me/webhooks/{endpoint_id}/replay": "sends again what is listed with its deliveries",
    "/me/webhooks/{endpoint_id}/deliveries/{delivery_id}/replay": "sends again what is listed with its delivery",
}

POSTS = {path for method, path in ROUTES.keys() | OPEN_ROUTES.keys() if method == "POST"}


@pytest.fixture
def office(settings, engine, running_hub, mail_server):
    with running_hub(with_chain(sending(settings, mail_server)), engine) as server:
        yield Office(server, mail_server)


def _headers(body, key=None):
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    return {"Content-Type": kind} | ({} if key is None else {"Idempotency-Key": key})


def _content(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _entries(engine, after):
    with transaction(engine) as connection:
        return [json.loads(link.entry) for link in store.list_links(connection, after + 1, 2**53 - 1, 1_000)]


def _head(engine):
    with transaction(engine) as connection:
        return store.get_head(connection).position


# ── audited ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_every_post_it_is_said_whether_it_is_audited():
    assert AUDITED.keys() | NOT_AUDITED.keys() == POSTS
    assert not AUDITED.keys() & NOT_AUDITED.keys()


def test_every_post_that_changes_something_of_weight_is_in_the_audit_log(office):
    """Done once each by whoever may. The entry says who, and is there when the answer is."""
    done, engine = {}, office.server.engine

    def do(route, client, body=None, *, path=None, other=None, other_path=None):
        before = _head(engine)
        answer = client.post(path or route, content=_content(body), headers=_headers(body, str(uuid4())))
        assert answer.status_code < 300, f"{route}: {answer.text}"
        done[route] = _entries(engine, before)
        return answer

    Walk(office, do).go()
    assert done.keys() == POSTS, "the walk passes every route"
    for route, entries in done.items():
        actions = [entry["action"] for entry in entries]
        assert (AUDITED[route] in actions) if route in AUDITED else (actions == []), f"{route}: {actions}"
        for entry in entries:
            assert entry["actor"], route
            assert entry["actor"].startswith("member:") or route == "/meters/{meter_id}/keys", f"{route}: {entry}"
            assert "@" not in json.dumps(entry), f"{route}: an entry cannot be forgotten, an address must be"


# ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _calls(dependant):
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls(each)


def test_every_post_goes_through_its_key_or_says_why_a_repeat_does_no_harm(settings, engine):
    app = create_app(read_hub(settings, engine))
    keyed = {
        route.path
        for route in iter_route_contexts(app.routes)
        if "POST" in (route.methods or ()) and get_once in _calls(route.dependant)
    }
    repeatable = {path for method, path in REPEATABLE_ROUTES if method == "POST"}
    assert keyed == POSTS - repeatable
    assert {method for method, _ in REPEATABLE_ROUTES} == {"POST"}


def test_whatever_is_asked_for_twice_under_one_key_is_done_once(office):
    """For each route: no key, a malformed one, one in flight, done, done again, another request under the same key."""
    engine, seen = office.server.engine, set()

    def refused(answer, status, code):
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text

    def do(route, client, body=None, *, path=None, other=None, other_path=None):
        path, content = path or route, _content(body)
        if ("POST", route) in REPEATABLE_ROUTES:
            answer = client.post(path, content=content, headers=_headers(body))
            assert answer.status_code < 300, f"{route}: {answer.text}"
            return answer
        key, seen_before = str(uuid4()), len(seen)
        for malformed in (None, "with space", "x" * 256, "ü"):
            headers = _headers(body) | ({} if malformed is None else {"Idempotency-Key": malformed.encode()})
            refused(client.post(path, content=content, headers=headers), 400, "idempotency_key_missing")
        with transaction(engine) as connection:
            member_id = _member_of(connection, client)
            _lock_or_refuse(connection, f"POST {route} {member_id}", key)
            refused(client.post(path, content=content, headers=_headers(body, key)), 409, "idempotency_key_in_flight")
        answer = client.post(path, content=content, headers=_headers(body, key))
        assert answer.status_code < 300, f"{route}: {answer.text}"
        assert "Idempotency-Replayed" not in answer.headers
        before = _head(engine), _counts(engine)
        again = client.post(path, content=content, headers=_headers(body, key))
        assert (again.status_code, again.json()) == (answer.status_code, answer.json()), route
        assert again.headers["Idempotency-Replayed"] == "true"
        if other is not None or other_path is not None:
            changed = _content(body if other is None else other)
            refused(
                client.post(other_path or path, content=changed, headers=_headers(body, key)),
                422,
                "idempotency_key_reused",
            )
        assert (_head(engine), _counts(engine)) == before, route
        seen.add(route)
        assert len(seen) == seen_before + 1
        return answer

    walk = Walk(office, do)
    walk.go()
    assert seen == POSTS - {path for _, path in REPEATABLE_ROUTES}
    _check_no_secret_is_stored(engine, walk.secrets)


def _member_of(connection, client):
    token = client.headers["Authorization"].split()[1]
    if not token.startswith("cwk_"):
        payload = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
    found = text("SELECT member_id FROM api_keys WHERE key_id = :key_id")
    return connection.execute(found, {"key_id": token.split("_")[1]}).scalar_one()


def _counts(engine):
    """How much there is of what a second performance would leave more of."""
    tables = ["outbox_jobs", "members", "sessions", "api_keys", "meters", "meter_commands", "notifications"]
    with transaction(engine) as connection:
        return [connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in tables]


def _check_no_secret_is_stored(engine, secrets):
    """Not in any row of any table: not as it is, not as bytes, not inside something else."""
    assert len(secrets) > 15
    with transaction(engine) as connection:
        tables = connection.execute(
            text(
                "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'alembic_version'"
            )
        ).scalars()
        rows = {
            table: "\n".join(connection.execute(text(f'SELECT t::text FROM "{table}" AS t')).scalars())
            for table in list(tables)
        }
    for secret in secrets:
        assert len(secret) >= 20, "too short to look for"
        for table, stored in rows.items():
            assert secret not in stored, f"a secret is in {table}"
            assert secret.encode().hex() not in stored, f"a secret is in {table}, as bytes"
