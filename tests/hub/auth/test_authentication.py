"""Whose request is it: decided by the database at each request, whatever a token says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text

from hub.auth import members_service
from hub.auth.authentication import authenticate
from hub.auth.security_schemes import declare_security
from hub.auth.tokens import ACCESS_LIFE, issue_access_token
from hub.db import transaction
from hub.errors import AccessTokenExpired, Unauthorized
from hub.permissions import OPEN_ROUTES, ROUTES, Role
from hub.token_keys import TokenKeys
from tests.hub.auth.conftest import a_member, bearing, opened, problem

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PLAIN = 'Bearer realm="commonwatt"'
INVALID = f'{PLAIN}, error="invalid_token"'


def asked(engine, keys, authorization, now=NOW):
    with transaction(engine) as connection:
        return authenticate(connection, keys, authorization, now)


def test_a_session_acts_as_its_member_with_the_roles_of_this_moment(engine, token_keys):
    member_id = a_member(engine, Role.OPERATOR, member_type=Role.PROSUMER)
    tokens = opened(engine, token_keys, member_id, NOW)
    actor = asked(engine, token_keys, f"Bearer {tokens.access_token}")
    assert (actor.member_id, actor.session_id, actor.key_id, actor.scopes) == (member_id, tokens.session_id, None, None)
    assert actor.roles == {Role.PROSUMER, Role.OPERATOR}
    with transaction(engine) as connection:
        members_service.give_role(connection, member_id, Role.AUDITOR, "a test", "test", NOW)
        connection.execute(text("DELETE FROM member_roles WHERE role = 'operator'"))
    assert asked(engine, token_keys, f"Bearer {tokens.access_token}").roles == {Role.PROSUMER, Role.AUDITOR}


def test_what_a_token_says_of_roles_gives_none(engine, token_keys):
    member_id = a_member(engine)
    session_id = opened(engine, token_keys, member_id, NOW).session_id
    boasting = issue_access_token(token_keys, member_id, session_id, [Role.ADMIN], NOW, NOW + ACCESS_LIFE)
    assert asked(engine, token_keys, f"Bearer {boasting}").roles == {Role.CONSUMER}


def test_a_session_speaks_for_its_own_member_only(engine, token_keys):
    mine, yours = a_member(engine), a_member(engine)
    session_id = opened(engine, token_keys, mine, NOW).session_id
    crossed = issue_access_token(token_keys, yours, session_id, [], NOW, NOW + ACCESS_LIFE)
    with pytest.raises(Unauthorized):
        asked(engine, token_keys, f"Bearer {crossed}")


def test_a_token_of_another_community_or_hub_is_none_here(engine, token_keys, settings):
    member_id = a_member(engine)
    session_id = opened(engine, token_keys, member_id, NOW).session_id
    seed = bytes.fromhex(settings.token_key_file.read_text())
    for issuer, audience in (
        (settings.public_url, "urn:commonwatt:another:hub"),
        ("https://another.example", token_keys.audience),
    ):
        keys = TokenKeys(issuer, audience, seed)
        token = issue_access_token(keys, member_id, session_id, [], NOW, NOW + ACCESS_LIFE)
        with pytest.raises(Unauthorized):
            asked(engine, token_keys, f"Bearer {token}")


def test_an_expired_token_is_told_apart_so_that_the_client_refreshes(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    with pytest.raises(AccessTokenExpired):
        asked(engine, token_keys, f"Bearer {tokens.access_token}", NOW + ACCESS_LIFE)


def test_the_scheme_may_be_written_in_any_case(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    for scheme in ("Bearer ", "bearer ", "BEARER ", "Bearer   "):
        assert asked(engine, token_keys, scheme + tokens.access_token).session_id == tokens.session_id


def test_any_other_header_is_refused(engine, token_keys):
    token = opened(engine, token_keys, a_member(engine), NOW).access_token
    for written in (
        "",
        token,
        "Bearer",
        "Bearer ",
        f"Bearer{token}",
        f"Bearer\t{token}",
        f" Bearer {token}",
        f"Bearer {token} ",
        f"Bearer {token}\n",
        f"Bearer {token}=",
        f"Bearer {token} {token}",
        f"Bearer {token}, Bearer {token}",
        f"Basic {token}",
        f"Token {token}",
        f"DPoP {token}",
        "Bearer x",
        "Bearer " + "A" * 3_000,
        "Bearer \xe4",
    ):
        with pytest.raises(Unauthorized) as refusal:
            asked(engine, token_keys, written)
        assert refusal.value.detail == ""


def test_who_sends_no_token_is_not_told_that_it_is_invalid(server, signed_in):
    for headers in ({}, {"Authorization": "Basic YWRtaW46"}):
        assert server.anonymous.get("/meters", headers=headers).headers["WWW-Authenticate"] == PLAIN
    expired = signed_in(at=datetime.now(UTC) - timedelta(minutes=11))
    told = {
        "Bearer nonsense": ("unauthorized", INVALID),
        "Bearer cwk_" + "0" * 18 + "_" + "A" * 43: ("unauthorized", INVALID),
        bearing(expired)["Authorization"]: (
            "access_token_expired",
            f'{INVALID}, error_description="The access token has expired"',
        ),
    }
    for authorization, (code, challenge) in told.items():
        answer = server.anonymous.get("/meters", headers={"Authorization": authorization})
        problem(answer, 401, code)
        assert answer.headers["WWW-Authenticate"] == challenge


def test_two_authorizations_are_none(server, signed_in):
    header = bearing(signed_in())["Authorization"]
    assert server.anonymous.get("/meters", headers=[("Authorization", header)]).status_code == 200
    twice = server.anonymous.get("/meters", headers=[("Authorization", header), ("Authorization", header)])
    problem(twice, 401, "unauthorized")


def test_a_meter_is_asked_for_its_password_and_not_for_a_token(server):
    answer = server.anonymous.post("/agent/report?meter_id=roof", content=b"{}")
    problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="commonwatt", charset="UTF-8"'


def test_an_api_key_without_the_scope_is_told_which_one_it_lacks(server):
    answer = server.client.get("/me/api-keys")
    problem(answer, 403, "forbidden")
    assert answer.headers["WWW-Authenticate"] == f'{PLAIN}, error="insufficient_scope", scope="api_keys"'


def test_a_member_without_the_role_is_refused_without_being_asked_for_another_token(server, signed_in):
    answer = server.anonymous.get("/quarantine", headers=bearing(signed_in()))
    problem(answer, 403, "forbidden")
    assert "WWW-Authenticate" not in answer.headers


def test_to_know_who_asks_takes_one_query(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine, Role.ADMIN), NOW)
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    asked(engine, token_keys, f"Bearer {tokens.access_token}")
    assert len(statements) == 1, statements


def test_the_description_says_of_every_route_what_it_asks_for(server):
    document = server.client.get("/openapi.json").json()
    said = {
        (method.upper(), path): operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert said.pop(("POST", "/agent/report")) == [{"meter_password": []}]
    for route, security in said.items():
        assert security == ([] if route in OPEN_ROUTES else [{"bearer": [ROUTES[route].value]}]), route
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["scheme"] for name, scheme in schemes.items()} == {
        "bearer": "bearer",
        "meter_password": "basic",
    }
    assert declare_security(document) == document
