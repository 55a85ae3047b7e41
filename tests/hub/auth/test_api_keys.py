"""A machine comes with a key: good for what was written on it, until its day, and never for making another."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import event, select, text

from hub.auth import api_keys_service as service
from hub.auth import members_service
from hub.auth.api_keys_store import api_keys
from hub.auth.authentication import authenticate
from hub.auth.forgetting import forget_ended_keys_once
from hub.auth.sessions_store import CHANNEL
from hub.db import transaction
from hub.errors import TooManyApiKeys, Unauthorized
from hub.permissions import GRANTS, KEY_SCOPES, Permission, Role
from tests.hub.auth.conftest import a_member, bearing, opened, problem

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECRET = b"\x33" * 32
_keys = itertools.count(1)


def post(server, path, tokens, body=None, key=None):
    headers = bearing(tokens) | {"Idempotency-Key": key or f"api-key-{next(_keys)}"}
    return server.anonymous.post(path, json=body, headers=headers)


def wanted(**changes):
    return {"name": "heat pump", "scopes": ["meters.read"], "expires_in_s": 86_400} | changes


def created(server, tokens, **changes):
    answer = post(server, "/me/api-keys", tokens, wanted(**changes))
    assert answer.status_code == 201, answer.text
    return answer.json()


def listed(server, tokens):
    answer = server.anonymous.get("/me/api-keys", headers=bearing(tokens))
    assert answer.status_code == 200, answer.text
    return answer.json()["api_keys"]


def asked(server, path, api_key):
    return server.anonymous.get(path, headers={"Authorization": f"Bearer {api_key}"})


def made(engine, member_id, scopes=(Permission.METERS_READ,), life=timedelta(days=1), at=NOW):
    with transaction(engine) as connection:
        key = service.create_api_key(connection, SECRET, member_id, "a test", scopes, life, "test", at)
    return key, service.api_key_text(SECRET, key.key_id)


def acting(engine, keys, api_key, now=NOW):
    with transaction(engine) as connection:
        return authenticate(connection, keys, f"Bearer {api_key}", now)


def last_use(engine, key_id):
    with engine.connect() as connection:
        return connection.execute(select(api_keys.c.last_used_at).where(api_keys.c.key_id == key_id)).scalar_one()


# ---- making, listing, revoking


def test_a_member_makes_a_key_and_a_machine_acts_with_it(server, signed_in):
    member_id = a_member(server.engine)
    tokens = signed_in(member_id=member_id)
    key = created(server, tokens)
    assert key.keys() == {"key_id", "api_key", "scopes", "expires_at"}
    assert re.fullmatch(rf"cwk_{key['key_id']}_[A-Za-z0-9_-]{{43}}", key["api_key"])
    assert asked(server, "/meters", key["api_key"]).status_code == 200
    [shown] = listed(server, tokens)
    assert shown.keys() == {"key_id", "name", "scopes", "created_at", "expires_at", "last_used_at"}
    assert (shown["key_id"], shown["name"], shown["scopes"]) == (key["key_id"], "heat pump", ["meters.read"])
    assert datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["created_at"]) == timedelta(
        days=1
    )
    with server.engine.connect() as connection:
        query = text("SELECT actor, detail FROM audit_log WHERE action = 'api_key.create' AND actor = :actor")
        [(_, detail)] = connection.execute(query, {"actor": f"member:{member_id}"})
    assert detail["key_id"] == key["key_id"]


def test_a_repeated_request_shows_the_same_key_and_nothing_keeps_it(server, signed_in):
    tokens = signed_in()
    first, again = (post(server, "/me/api-keys", tokens, wanted(), key="one") for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(listed(server, tokens)) == 1
    secret = first.json()["api_key"].split("_", 2)[2]
    with server.engine.connect() as connection:
        everything = [
            str(connection.execute(text(f"SELECT {table}::text FROM {table}")).all())
            for table in ("api_keys", "audit_log")
        ]
        everything += [str(connection.execute(text("SELECT response_body FROM idempotency_keys")).all())]
        [hashed] = connection.execute(
            select(api_keys.c.secret_hash).where(api_keys.c.key_id == first.json()["key_id"])
        ).scalars()
    assert all(first.json()["key_id"] in each for each in everything), "what was looked through tells of the key"
    assert all(secret not in each and secret.encode().hex() not in each for each in everything)
    assert hashed == hashlib.sha256(first.json()["api_key"].encode()).digest()


MALFORMED = [
    {"scopes": []},
    {"scopes": ["account"]},
    {"scopes": ["api_keys"]},
    {"scopes": ["meters.read", "api_keys"]},
    {"scopes": ["meters.read", "meters.read"]},
    {"scopes": ["everything"]},
    {"scopes": "meters.read"},
    {"scopes": None},
    {"expires_in_s": 59},
    {"expires_in_s": 366 * 86_400 + 1},
    {"expires_in_s": None},
    {"expires_in_s": "86400"},
    {"expires_in_s": 86_400.0},
    {"name": ""},
    {"name": "x" * 101},
    {"name": "two\nlines"},
    {"member_id": "00000000-0000-0000-0000-000000000001"},
]


def test_a_key_has_a_name_scopes_of_machines_and_an_end(server, signed_in):
    tokens = signed_in(Role.ADMIN)
    for changes in MALFORMED:
        problem(post(server, "/me/api-keys", tokens, wanted(**changes)), 422, "malformed_input")
    for name in wanted():
        missing = {other: value for other, value in wanted().items() if other != name}
        problem(post(server, "/me/api-keys", tokens, missing), 422, "malformed_input")
    assert listed(server, tokens) == []


def test_nobody_gives_a_key_what_it_may_not_do_itself(server, signed_in):
    member, auditor = signed_in(), signed_in(Role.AUDITOR)
    for tokens, role in ((member, Role.CONSUMER), (auditor, Role.AUDITOR)):
        for scope in sorted(KEY_SCOPES):
            answer = post(server, "/me/api-keys", tokens, wanted(scopes=[scope.value]))
            if scope in GRANTS[role]:
                assert answer.status_code == 201, answer.text
            else:
                problem(answer, 403, "forbidden")
                assert scope.value in answer.json()["detail"]


def test_a_session_that_was_left_open_makes_no_key_and_shows_none(server, token_keys):
    member_id = a_member(server.engine)
    fresh = opened(server.engine, token_keys, member_id)
    assert post(server, "/me/api-keys", fresh, wanted(), key="one").status_code == 201
    old = opened(server.engine, token_keys, member_id, datetime.now(UTC) - timedelta(minutes=15, seconds=5))
    now = refreshed(server, old)
    for key in ("one", "two"):
        refusal = problem(post(server, "/me/api-keys", now, wanted(), key=key), 401, "sign_in_too_old")
        assert 'error="insufficient_user_authentication"' in refusal.headers["WWW-Authenticate"]
        assert 'max_age="900"' in refusal.headers["WWW-Authenticate"]
    assert len(listed(server, now)) == 1
    assert timedelta(seconds=900) == service.SIGN_IN_AGE_MAX


def refreshed(server, tokens):
    answer = server.anonymous.post("/auth/refresh", json={"refresh_token": tokens.refresh_token}).json()
    return type(tokens)(
        answer["access_token"], answer["expires_in_s"], answer["refresh_token"], tokens.session_id, tokens.member_id
    )


def test_a_key_never_makes_lists_or_revokes_keys_whatever_its_member_may(server):
    """The hub's own admin key has every scope there is."""
    problem(server.post("/me/api-keys", wanted()), 403, "forbidden")
    problem(server.client.get("/me/api-keys"), 403, "forbidden")
    problem(server.post("/me/api-keys/00/revoke", {}), 403, "forbidden")
    assert KEY_SCOPES.isdisjoint({Permission.ACCOUNT, Permission.API_KEYS})


def test_a_revoked_key_is_good_for_nothing_at_once(server, signed_in):
    tokens = signed_in()
    key, other = created(server, tokens), created(server, tokens, name="another")
    assert asked(server, "/meters", key["api_key"]).status_code == 200
    answer = post(server, f"/me/api-keys/{key['key_id']}/revoke", tokens)
    assert (answer.status_code, answer.json()) == (200, {"key_id": key["key_id"], "revoked": True})
    problem(asked(server, "/meters", key["api_key"]), 401, "unauthorized")
    assert asked(server, "/meters", other["api_key"]).status_code == 200
    assert [each["name"] for each in listed(server, tokens)] == ["another"]
    problem(post(server, f"/me/api-keys/{key['key_id']}/revoke", tokens), 404, "api_key_not_found")


def test_nobody_revokes_the_key_of_somebody_else(server, signed_in):
    mine, yours = signed_in(Role.ADMIN), signed_in()
    key = created(server, yours)
    problem(post(server, f"/me/api-keys/{key['key_id']}/revoke", mine), 404, "api_key_not_found")
    assert asked(server, "/meters", key["api_key"]).status_code == 200


def test_a_member_has_twenty_keys_at_most_also_if_it_asks_for_two_at_once(engine, token_keys):
    member_id = a_member(engine)
    tokens = opened(engine, token_keys, member_id, NOW)
    for _ in range(service.KEYS_PER_MEMBER_MAX - 1):
        made(engine, member_id)
    barrier = threading.Barrier(3)

    def ask():
        with transaction(engine) as connection:
            actor = authenticate(connection, token_keys, f"Bearer {tokens.access_token}", NOW)
            barrier.wait()
            return service.create_own_api_key(
                connection, SECRET, actor, "one more", [Permission.METERS_READ], timedelta(days=1), NOW
            )

    with ThreadPoolExecutor(3) as pool:
        faults = [future.exception() for future in [pool.submit(ask) for _ in range(3)]]
    assert [type(fault) for fault in faults if fault] == [TooManyApiKeys] * 2
    with transaction(engine) as connection:
        held = service.list_api_keys(connection, member_id)
        assert len(held) == service.KEYS_PER_MEMBER_MAX
        service.revoke_api_key(connection, member_id, held[0].key_id, "test", NOW)
    barrier = threading.Barrier(1)
    assert ask().name == "one more"


# ---- acting with one


def test_a_key_does_what_its_scopes_and_its_members_roles_both_allow(engine, token_keys):
    member_id = a_member(engine, Role.OPERATOR)
    _, api_key = made(engine, member_id, [Permission.QUARANTINE_READ, Permission.AUDIT_READ])
    actor = acting(engine, token_keys, api_key)
    assert (actor.member_id, actor.session_id, actor.roles) == (member_id, None, {Role.CONSUMER, Role.OPERATOR})
    assert {each for each in Permission if actor.reach(each)} == {Permission.QUARANTINE_READ}
    with transaction(engine) as connection:
        connection.execute(text("DELETE FROM member_roles"))
        members_service.give_role(connection, member_id, Role.AUDITOR, "a test", "test", NOW)
    actor = acting(engine, token_keys, api_key)
    assert {each for each in Permission if actor.reach(each)} == {Permission.QUARANTINE_READ, Permission.AUDIT_READ}


def test_a_key_ends_on_its_day_and_with_its_members_suspension(engine, token_keys):
    member_id = a_member(engine)
    _, api_key = made(engine, member_id, life=timedelta(days=366))
    acting(engine, token_keys, api_key, NOW + timedelta(days=366) - timedelta(seconds=1))
    with pytest.raises(Unauthorized):
        acting(engine, token_keys, api_key, NOW + timedelta(days=366))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE members SET state = 'suspended'"))
    with pytest.raises(Unauthorized):
        acting(engine, token_keys, api_key)


def test_no_other_text_opens_what_a_key_opens(engine, token_keys):
    key, api_key = made(engine, a_member(engine))
    other, _ = made(engine, a_member(engine))
    prefix, key_id, secret = api_key.split("_", 2)
    stranger = service.api_key_text(b"\x00" * 32, key_id).split("_", 2)[2]
    for forged in (
        f"{prefix}_{key_id}_{stranger}",
        f"{prefix}_{other.key_id}_{secret}",
        f"{prefix}_{key_id}_{secret[:-1]}",
        f"{prefix}_{key_id}_{secret}A",
        f"{prefix}_{key_id}_",
        f"{prefix}_{key_id.upper()}x_{secret}",
        f"{prefix}_{key_id}",
        f"CWK_{key_id}_{secret}",
        f"{prefix}__{secret}",
        f"{prefix}_{'0' * 18}_{secret}",
        f"{prefix}_{key.secret_hash.hex()}",
        secret,
    ):
        with pytest.raises(Unauthorized):
            acting(engine, token_keys, forged)
    acting(engine, token_keys, api_key)


def test_a_key_goes_on_when_the_hubs_member_secret_changes_but_is_not_shown_again(engine, token_keys):
    key, api_key = made(engine, a_member(engine))
    acting(engine, token_keys, api_key)
    with transaction(engine) as connection:
        assert service.show_api_key(connection, SECRET, key.key_id) == api_key
        with pytest.raises(service.ApiKeyNotFound):
            service.show_api_key(connection, b"\x44" * 32, key.key_id)


def test_a_scope_that_a_later_hub_has_dropped_is_ignored(engine, token_keys):
    _, api_key = made(engine, a_member(engine))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE api_keys SET scopes = '{meters.read,weather.make}'"))
    assert acting(engine, token_keys, api_key).scopes == {Permission.METERS_READ}


def test_the_use_of_a_key_is_noted_once_a_minute(engine, token_keys):
    key, api_key = made(engine, a_member(engine))
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert last_use(engine, key.key_id) is None
    for late_s, noted_s in ((0, 0), (1, 0), (59, 0), (60, 60), (119, 60), (600, 600)):
        acting(engine, token_keys, api_key, NOW + timedelta(seconds=late_s))
        assert last_use(engine, key.key_id) == NOW + timedelta(seconds=noted_s)
    assert len([each for each in statements if each.startswith("UPDATE")]) == 3


def test_noting_a_use_never_makes_a_request_wait(engine, token_keys):
    key, api_key = made(engine, a_member(engine))
    with transaction(engine) as busy:
        busy.execute(text("SELECT FROM api_keys WHERE key_id = :key_id FOR UPDATE"), {"key_id": key.key_id})
        assert acting(engine, token_keys, api_key).key_id == key.key_id
    assert last_use(engine, key.key_id) is None


def test_every_process_hears_of_a_revoked_key(engine, database_url):
    member_id = a_member(engine)
    key, _ = made(engine, member_id)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        with transaction(engine) as connection:
            service.revoke_api_key(connection, member_id, key.key_id, "test", NOW)
        assert [notice.payload for notice in listener.notifies(timeout=10, stop_after=1)] == [key.key_id]


def test_keys_that_are_over_are_forgotten_after_a_quarter(engine):
    member_id = a_member(engine)
    expired, _ = made(engine, member_id, life=timedelta(days=10))
    revoked, _ = made(engine, member_id, life=timedelta(days=366))
    live, _ = made(engine, member_id, life=timedelta(days=366))
    with transaction(engine) as connection:
        service.revoke_api_key(connection, member_id, revoked.key_id, "test", NOW)
    assert forget_ended_keys_once(engine, NOW + timedelta(days=90)) == 0
    assert forget_ended_keys_once(engine, NOW + timedelta(days=90, seconds=1)) == 1
    with transaction(engine) as connection:
        assert {each.key_id for each in service.list_api_keys(connection, member_id)} == {expired.key_id, live.key_id}
    assert forget_ended_keys_once(engine, NOW + timedelta(days=101)) == 1
