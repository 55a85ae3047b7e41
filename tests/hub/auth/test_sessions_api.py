"""Sessions over HTTP: refresh, sign out, see and end them, and the keys that others verify by."""

from __future__ import annotations

import base64
import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from nacl.signing import VerifyKey
from sqlalchemy import text

from hub.permissions import Role
from tests.hub.auth.conftest import a_member, bearing, opened, problem

_keys = itertools.count(1)


def post(server, path, tokens=None, body=None, key=None, **headers):
    if tokens is not None:
        headers |= bearing(tokens) | {"Idempotency-Key": key or f"session-key-{next(_keys)}"}
    return server.anonymous.post(path, json=body, headers=headers)


def refresh(server, refresh_token, **headers):
    return post(server, "/auth/refresh", body={"refresh_token": refresh_token}, **headers)


def sessions_of(server, tokens):
    answer = server.anonymous.get("/me/sessions", headers=bearing(tokens))
    assert answer.status_code == 200, answer.text
    return answer.json()["sessions"]


def is_let_in(server, access_token):
    answer = server.anonymous.get("/me/sessions", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


def test_a_refresh_token_brings_the_next_tokens_and_they_are_not_kept_by_anybody(server, signed_in):
    tokens = signed_in()
    answer = refresh(server, tokens.refresh_token)
    assert answer.status_code == 200
    assert answer.json().keys() == {
        "access_token",
        "token_type",
        "expires_in_s",
        "refresh_token",
        "session_id",
        "member_id",
    }
    assert (answer.json()["token_type"], answer.json()["expires_in_s"]) == ("Bearer", 600)
    assert answer.json()["session_id"] == str(tokens.session_id)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert is_let_in(server, answer.json()["access_token"])
    assert refresh(server, answer.json()["refresh_token"]).status_code == 200


def test_reuse_is_refused_and_all_the_same_committed(server, signed_in):
    tokens = signed_in()
    newest = refresh(server, tokens.refresh_token, **{"User-Agent": "a phone"}).json()
    assert is_let_in(server, newest["access_token"])
    refusal = problem(refresh(server, tokens.refresh_token), 401, "refresh_token_invalid")
    assert refusal.headers["WWW-Authenticate"] == 'Bearer realm="commonwatt"'
    assert refusal.headers["Content-Type"] == "application/problem+json"
    assert refusal.json()["request_id"] == refusal.headers["X-Request-ID"]
    assert not is_let_in(server, newest["access_token"])
    problem(refresh(server, newest["refresh_token"], **{"User-Agent": "a phone"}), 401, "refresh_token_invalid")


def test_a_refusal_says_the_same_whatever_the_reason(server, signed_in):
    unknown, used, ended = "cwr_" + "A" * 64, signed_in(), signed_in()
    for _ in range(2):
        assert refresh(server, used.refresh_token, **{"User-Agent": "a phone"}).status_code == 200
    assert post(server, "/auth/sign-out", body={"refresh_token": ended.refresh_token}).status_code == 200
    refusals = [refresh(server, token) for token in (unknown, "", used.refresh_token, ended.refresh_token)]
    assert {refusal.status_code for refusal in refusals} == {401}
    assert len({refusal.json()["detail"] + refusal.json()["title"] for refusal in refusals}) == 1


def test_the_same_client_asking_twice_at_once_is_told_the_same(server, signed_in):
    token = signed_in().refresh_token
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: refresh(server, token), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    [newest] = {answer.json()["refresh_token"] for answer in answers}
    assert refresh(server, newest).status_code == 200


def test_a_body_that_holds_no_refresh_token_is_malformed(server):
    tokens = [None, 7, True, [], "x" * 129]
    for body in (None, {}, [], {"token": "x"}, *({"refresh_token": token} for token in tokens)):
        for path in ("/auth/refresh", "/auth/sign-out"):
            problem(post(server, path, body=body), 422, "malformed_input")


def test_a_refresh_token_is_taken_from_the_body_alone(server, signed_in):
    token = signed_in().refresh_token
    problem(post(server, f"/auth/refresh?refresh_token={token}", body={"refresh_token": token}), 422, "malformed_input")
    problem(
        server.anonymous.post("/auth/refresh", headers={"Cookie": f"refresh_token={token}"}), 422, "malformed_input"
    )
    problem(server.anonymous.post("/auth/refresh", data={"refresh_token": token}), 422, "malformed_input")
    assert refresh(server, token).status_code == 200


def test_signing_out_needs_no_access_token_and_tells_a_stranger_nothing(server, signed_in):
    tokens = signed_in()
    for token in (tokens.refresh_token, tokens.refresh_token, "cwr_" + "A" * 64, "nonsense"):
        answer = post(server, "/auth/sign-out", body={"refresh_token": token})
        assert (answer.status_code, answer.json()) == (200, {"signed_out": True})
    assert not is_let_in(server, tokens.access_token)


def test_a_member_sees_where_it_is_signed_in(server, signed_in, token_keys):
    member_id = a_member(server.engine)
    here, there = signed_in(member_id=member_id), signed_in(member_id=member_id)
    signed_in()
    newest = refresh(server, there.refresh_token, **{"User-Agent": "a phone"}).json()
    first, second = sessions_of(server, here)
    assert [first["session_id"], second["session_id"]] == [str(there.session_id), str(here.session_id)]
    assert [first["current"], second["current"]] == [False, True]
    assert (first["user_agent"], first["client_address"]) == ("a phone", "127.0.0.1")
    assert (second["user_agent"], second["method"]) == ("a laptop", "test")
    assert first.keys() == {
        "session_id",
        "method",
        "created_at",
        "last_used_at",
        "expires_at",
        "client_address",
        "user_agent",
        "current",
    }
    assert datetime.fromisoformat(first["last_used_at"]) > datetime.fromisoformat(first["created_at"])
    assert newest["refresh_token"] not in str([first, second])


def test_a_member_ends_one_session_or_all_others(server, signed_in):
    member_id = a_member(server.engine)
    here, there, third, fourth = (signed_in(member_id=member_id) for _ in range(4))
    answer = post(server, f"/me/sessions/{there.session_id}/end", here, key="end-it")
    assert (answer.status_code, answer.json()) == (200, {"session_id": str(there.session_id), "ended": True})
    again = post(server, f"/me/sessions/{there.session_id}/end", here, key="end-it")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (answer.json(), "true")
    problem(post(server, f"/me/sessions/{there.session_id}/end", here), 404, "session_not_found")
    answer = post(server, "/me/sessions/end-others", here, {})
    assert (answer.status_code, answer.json()) == (200, {"ended": 2})
    assert [is_let_in(server, each.access_token) for each in (here, there, third, fourth)] == [
        True,
        False,
        False,
        False,
    ]
    assert post(server, f"/me/sessions/{here.session_id}/end", here).status_code == 200
    assert not is_let_in(server, here.access_token)


def test_nobody_ends_the_session_of_somebody_else(server, signed_in):
    mine, yours = signed_in(Role.ADMIN), signed_in()
    problem(post(server, f"/me/sessions/{yours.session_id}/end", mine), 404, "session_not_found")
    problem(post(server, "/me/sessions/nonsense/end", mine), 422, "malformed_input")
    assert post(server, "/me/sessions/end-others", mine).json() == {"ended": 0}
    assert is_let_in(server, yours.access_token)


def test_an_end_without_an_idempotency_key_is_refused(server, signed_in):
    tokens = signed_in()
    for path in (f"/me/sessions/{tokens.session_id}/end", "/me/sessions/end-others"):
        problem(server.anonymous.post(path, headers=bearing(tokens)), 400, "idempotency_key_missing")
    assert is_let_in(server, tokens.access_token)


def test_an_api_key_reaches_no_session(server, signed_in):
    tokens = signed_in()
    problem(server.client.get("/me/sessions"), 403, "forbidden")
    problem(server.post(f"/me/sessions/{tokens.session_id}/end", {}), 403, "forbidden")
    problem(server.post("/me/sessions/end-others", {}), 403, "forbidden")


def test_a_session_that_has_expired_is_in_no_list(server, token_keys):
    member_id = a_member(server.engine)
    opened(server.engine, token_keys, member_id, datetime.now(UTC) - timedelta(days=15))
    now = opened(server.engine, token_keys, member_id)
    assert [each["session_id"] for each in sessions_of(server, now)] == [str(now.session_id)]


def test_anybody_may_have_the_public_keys_and_keep_them_for_a_while(server, signed_in):
    answer = server.anonymous.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Content-Type"] == "application/json"
    [key] = answer.json()["keys"]
    content, signature = signed_in().access_token.rsplit(".", 1)

    def decoded(part):
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    VerifyKey(decoded(key["x"])).verify(content.encode(), decoded(signature))


def test_no_token_is_in_the_log_nor_in_the_audit_log(server, signed_in, log_lines):
    tokens = signed_in()
    newest = refresh(server, tokens.refresh_token).json()
    refresh(server, tokens.refresh_token, **{"User-Agent": "another"})
    with server.engine.connect() as connection:
        written = str(connection.execute(text("SELECT * FROM audit_log")).all()) + str(log_lines())
    assert "session.end" in written
    assert "refresh_token_reused" in written
    assert "/auth/refresh" in written
    for secret in (tokens.refresh_token, tokens.access_token, newest["refresh_token"], newest["access_token"]):
        assert secret not in written
        assert secret[10:40] not in written
