"""Who may do what, for every route and everybody who could ask.

`WHO_MAY` is written by hand, from what people in a community ought to be able to do, and shares nothing with
`hub/permissions.py`: the two are compared at a running server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import text

from hub import permissions
from hub.auth import api_keys_service, sessions_service
from hub.authorisation import WEBSOCKET, gates_of
from hub.db import transaction
from hub.permissions import KEY_SCOPES, Permission, Role
from hub.settings import MEMBER_SECRET_BYTES, read_secret_bytes
from hub.web import create_app, read_hub

SIGNATURE = "5" * 88
"""Of no transaction."""

WHO_MAY = """
GET  /health                                            anybody
GET  /ready                                             anybody
GET  /metrics                                           anybody
GET  /.well-known/jwks.json                             anybody
POST /auth/refresh                                      anybody
POST /auth/sign-out                                     anybody
POST /auth/wallet/challenge                             anybody
POST /auth/wallet/sign-in                               anybody
POST /auth/wallet/register                              anybody
GET  /auth/verify                                       anybody
GET  /auth/reset                                        anybody
POST /auth/register                                     anybody
POST /auth/verify                                       anybody
POST /auth/sign-in                                      anybody
POST /auth/password/forgot                              anybody
POST /auth/password/reset                               anybody
POST /readings/seals                                    anybody
POST /meters/{meter_id}/keys                            anybody
POST /agent/credentials                                 anybody
POST /agent/report                                      meters
WS   /live                                              anybody

GET  /me                                                session
POST /me                                                session
GET  /me/sessions                                       session
POST /me/sessions/{session_id}/end                      session
POST /me/sessions/end-others                            session
GET  /me/wallets                                        session
POST /me/wallets                                        session
POST /me/wallets/challenge                              session
POST /me/wallets/unlink                                 session
POST /me/proofs/challenge                               session
GET  /me/api-keys                                       session
POST /me/api-keys                                       session
POST /me/api-keys/{key_id}/revoke                       session
POST /me/password                                       session
POST /me/email                                          session
POST /me/email/verify                                   session
POST /me/registrations/user                             session
POST /me/registrations/meter                            session
GET  /me/registrations                                  session
GET  /me/registrations/{registration_id}                session
POST /me/registrations/{registration_id}/signature      session

GET  /me/notifications                                  member
POST /me/notifications/read                             member
GET  /me/notification-preferences                       member
POST /me/notification-preferences                       member
GET  /me/webhooks                                       member
POST /me/webhooks                                       member
POST /me/webhooks/{endpoint_id}/disable                 member
POST /me/webhooks/{endpoint_id}/enable                  member
POST /me/webhooks/{endpoint_id}/rotate-secret           member
POST /me/webhooks/{endpoint_id}/test                    member
GET  /me/webhooks/{endpoint_id}/deliveries              member
POST /me/webhooks/{endpoint_id}/deliveries/{delivery_id}/replay  member
POST /me/webhooks/{endpoint_id}/replay                  member
GET  /me/tokens                                         member
GET  /tokens/supply                                     member
GET  /tokens/provenance/{signature}                     member
GET  /live/topics                                       member
GET  /openapi.json                                      member
GET  /meters                                            member

GET  /meters/{meter_id}                                 owner operator auditor admin
GET  /meters/{meter_id}/latest                          owner operator auditor admin
GET  /meters/{meter_id}/readings                        owner operator auditor admin
GET  /meters/{meter_id}/seals                           owner operator auditor admin
GET  /meters/{meter_id}/seals/{key_epoch}/{sequence}/evidence  owner operator auditor admin
GET  /meters/{meter_id}/gaps                            owner operator auditor admin
GET  /meters/{meter_id}/evidence                        owner operator auditor admin
GET  /meters/{meter_id}/keys                            owner operator auditor admin
GET  /meters/{meter_id}/minting                         owner operator auditor admin
GET  /meters/{meter_id}/mints                           owner operator auditor admin
GET  /meters/{meter_id}/status                          owner operator auditor admin

POST /meters                                            operator admin
POST /meters/{meter_id}/suspend                         operator admin
POST /meters/{meter_id}/resume                          operator admin
POST /meters/{meter_id}/retire                          operator admin
POST /meters/{meter_id}/minting                         operator admin
POST /meters/{meter_id}/broker-password                 operator admin
POST /meters/{meter_id}/commands                        operator admin
POST /meters/{meter_id}/keys/{key_epoch}/revoke         operator admin
POST /meters/{meter_id}/minting/retry                   operator admin
POST /meters/{meter_id}/gaps/{key_epoch}/{first_sequence}/declare-lost  operator admin
POST /meters/{meter_id}/backlog/release                 operator admin
GET  /quarantine                                        operator auditor admin
POST /quarantine/{quarantine_id}/release                operator admin
POST /quarantine/{quarantine_id}/reject                 operator admin
GET  /minting                                           operator auditor admin
GET  /fleet                                             operator auditor admin
GET  /fleet/summary                                     operator auditor admin
GET  /alarms                                            operator auditor admin

GET  /members                                           operator auditor admin
GET  /members/{member_id}                               operator auditor admin
GET  /registrations                                     operator auditor admin
POST /members/{member_id}/roles/give                    admin
POST /members/{member_id}/roles/take                    admin
POST /members/{member_id}/suspend                       admin
POST /members/{member_id}/reinstate                     admin

GET  /audit                                             auditor admin
GET  /audit/export                                      auditor admin
"""
"""`anybody` needs no token; `session` is a member who is signed in, but no API key; `member` is either. `meters` prove
who they are by their broker password. `owner` is a member with the wallet that the meter names."""

PLAIN_ROLES = (Role.PROSUMER, Role.CONSUMER, Role.INVESTOR, Role.ASSET_MANAGER)
ROLES = (*PLAIN_ROLES, Role.OPERATOR, Role.AUDITOR, Role.ADMIN)
WALLET = bytes(range(32))
OWN, FOREIGN = "own-roof", "foreign-roof"

Route = tuple[str, str]


def _expected() -> dict[Route, frozenset[str]]:
    lines = [line.split() for line in WHO_MAY.splitlines() if line]
    return {(method, path): frozenset(who) for method, path, *who in lines}


EXPECTED = _expected()


@dataclass
class Caller:
    """Somebody who asks, from an address of its own. `may` is who it is, in the words of WHO_MAY."""

    name: str
    client: httpx.Client
    may: frozenset[str]
    refusal: tuple[int, str] = (403, "forbidden")
    routes: frozenset[Route] | None = field(default=None)
    """If set, the only routes that its scopes reach."""

    def is_let_in(self, route: Route) -> bool:
        who = EXPECTED[route]
        if "anybody" in who or "meters" in who:
            return True
        within = self.routes is None or route in self.routes
        return within and not who.isdisjoint(self.may)

    def may_read_its_own(self, route: Route) -> bool:
        """Whether a member without a meter asks for one: that has a test of its own."""
        return "owner" in EXPECTED[route] and "member" in self.may and self.routes is None


class House:
    """A running hub with a member of every role, two meters and what there is to be read of them."""

    def __init__(self, server, new_meter, stack):
        self.server = server
        self.stack = stack
        self.secret = read_secret_bytes(server.settings.member_secret_file, MEMBER_SECRET_BYTES)
        self.numbers = iter(range(1, 250))
        self.subject = server.member(name="Somebody")
        for meter_id, owner in ((OWN, WALLET), (FOREIGN, bytes(reversed(WALLET)))):
            meter = new_meter(meter_id)
            server.register(meter, enrolment=meter.enrolment(owner=owner).hex())
            assert server.post_seal(meter, meter.seal([(meter.valid_from_unix_s + 60, 1, 0)])).status_code == 200

    def member(self, role, wallet=None):
        given = () if role in permissions.MEMBER_TYPES else (role,)
        kind = role if role in permissions.MEMBER_TYPES else Role.CONSUMER
        return self.server.member(*given, member_type=kind, wallet=wallet, name=role)

    def client(self, authorization):
        """A client with an address of its own, so that no rate limit of many callers together is met."""
        headers = {"X-Forwarded-For": f"198.51.100.{next(self.numbers)}"}
        if authorization is not None:
            headers["Authorization"] = authorization
        return self.stack.enter_context(httpx.Client(base_url=self.server.url, headers=headers, timeout=60))

    def by_session(self, member):
        return self.client(f"Bearer {self.server.access_token(member.member_id)}")

    def by_key(self, member):
        return self.client(f"Bearer {member.api_key}")

    def key(self, member, scopes, life):
        with transaction(self.server.engine) as connection:
            key = api_keys_service.create_api_key(
                connection, self.secret, member.member_id, "a test", scopes, life, "test", datetime.now(UTC)
            )
        return api_keys_service.api_key_text(self.secret, key.key_id)

    def digest(self):
        """Of every row of every table, but for the counters of rate limits."""
        with self.server.engine.connect() as connection:
            names = connection.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'rate_limits'")
            ).scalars()
            return {
                name: connection.execute(
                    text(f'SELECT md5(string_agg(t::text, $$;$$ ORDER BY t::text)) FROM "{name}" t')
                ).scalar_one()
                for name in names
            }

    def ask(self, caller, route, meter_id=OWN):
        """Ask with everything wrong that can be: an unknown thing, a body that is no JSON, no Idempotency-Key."""
        method, template = route
        path = template.format(
            meter_id=meter_id,
            key_epoch="1",
            sequence="1",
            first_sequence="1",
            quarantine_id="999999",
            member_id=self.subject.member_id if method == "GET" else uuid4(),
            session_id=uuid4(),
            key_id="0" * 18,
            endpoint_id=uuid4(),
            delivery_id=uuid4(),
            registration_id=uuid4(),
            signature=SIGNATURE,
        )
        if method == "GET":
            return caller.client.get(path)
        return caller.client.post(path, content=b"{", headers={"Content-Type": "application/json"})


@pytest.fixture
def house(settings, engine, running_hub, new_meter) -> Iterator[House]:
    behind_proxy = settings.model_copy(update={"trusted_proxies": [ip_network("127.0.0.1/32")]})
    with running_hub(behind_proxy, engine) as server, ExitStack() as stack:
        yield House(server, new_meter, stack)


def _strangers(house) -> list[Caller]:
    """Nobody, and those whom nothing lets in any more."""
    server, refusal = house.server, (401, "unauthorized")
    suspended, ended, revoked, expired = (house.member(Role.ADMIN) for _ in range(4))
    suspended_session, ended_session = house.by_session(suspended), house.by_session(ended)
    suspended_key = house.by_key(suspended)
    assert server.post(f"/members/{suspended.member_id}/suspend", {"reason": "x"}).status_code == 200
    now = datetime.now(UTC)
    with transaction(server.engine) as connection:
        sessions_service.end_sessions_of_member(connection, ended.member_id, "test", "test", now)
        connection.execute(
            text("UPDATE api_keys SET revoked_at = :now WHERE member_id = :member_id"),
            {"now": now, "member_id": revoked.member_id},
        )
    expired_key = house.key(expired, KEY_SCOPES, timedelta(seconds=-1))
    good = house.member(Role.ADMIN).api_key
    clients = {
        "nobody": house.client(None),
        "an empty header": house.client("Bearer"),
        "an invented token": house.client("Bearer cwk_000000000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        "a good key with a letter changed": house.client(
            f"Bearer {good[:-2]}{'A' if good[-2] != 'A' else 'B'}{good[-1]}"
        ),
        "a good key by another scheme": house.client(f"Basic {good}"),
        "a suspended member's session": suspended_session,
        "a suspended member's key": suspended_key,
        "an ended session": ended_session,
        "a revoked key": house.by_key(revoked),
        "an expired key": house.client(f"Bearer {expired_key}"),
    }
    return [Caller(name, client, frozenset(), refusal) for name, client in clients.items()]


def _members(house) -> list[Caller]:
    callers = []
    for role in ROLES:
        member = house.member(role, WALLET if role is Role.PROSUMER else None)
        words = {str(role), "member"} | ({"owner"} if role is Role.PROSUMER else set())
        callers.append(Caller(f"{role} by session", house.by_session(member), frozenset(words | {"session"})))
        callers.append(Caller(f"{role} by key", house.by_key(member), frozenset(words)))
    return callers


def _scoped(house) -> list[Caller]:
    """An admin's keys that are good for one thing each."""
    admin = house.member(Role.ADMIN)
    reading = frozenset(
        route
        for route, who in EXPECTED.items()
        if "owner" in who or route[1].startswith("/tokens") or route in {("GET", "/meters"), ("GET", "/me/tokens")}
    )
    deciding = frozenset(
        route
        for route in EXPECTED
        if route[0] == "POST" and any(word in route[1] for word in ("quarantine", "backlog", "declare-lost"))
    )
    managing = frozenset(route for route in EXPECTED if route[0] == "POST" and route[1].startswith("/members"))
    return [
        Caller(
            f"an admin's key for {scope}",
            house.client(f"Bearer {house.key(admin, [scope], timedelta(days=1))}"),
            frozenset({"admin", "member"}),
            routes=routes,
        )
        for scope, routes in (
            (Permission.METERS_READ, reading),
            (Permission.QUARANTINE_DECIDE, deciding),
            (Permission.MEMBERS_MANAGE, managing),
            (Permission.DESCRIPTION_READ, frozenset({("GET", "/openapi.json")})),
        )
    ]


def test_every_route_is_in_the_table_by_hand_and_every_line_is_a_route(settings, engine):
    app = create_app(read_hub(settings, engine))
    served = {
        (method, route.path) for route in iter_route_contexts(app.routes) for method in (route.methods or {WEBSOCKET})
    }
    assert served == EXPECTED.keys()


@pytest.mark.parametrize("group", [_strangers, _members, _scoped])
def test_everybody_may_what_the_table_says_and_nothing_else(house, group):
    callers = group(house)
    routes = [route for route in EXPECTED if route[0] != WEBSOCKET]
    before = house.digest()
    for caller in callers:
        for route in routes:
            if not caller.is_let_in(route) and not caller.may_read_its_own(route):
                answer = house.ask(caller, route)
                told = (answer.status_code, answer.json()["code"])
                assert told == caller.refusal, f"{caller.name}: {route}"
    after = house.digest()
    assert {name for name in before if before[name] != after[name]} == set(), "a refused caller changed something"
    for caller in callers if group is not _strangers else callers[:1]:
        for route in routes:
            if caller.is_let_in(route):
                answer = house.ask(caller, route)
                assert answer.status_code in _let_in(route), f"{caller.name}: {route}: {answer.text}"


def _let_in(route: Route) -> set[int]:
    """What `House.ask` is told by a route that is not closed to it."""
    method, path = route
    if path.endswith("/readings"):
        return {422}  # no range is asked for
    if path.endswith(("/deliveries", "/{signature}", "/{registration_id}")):
        return {404}  # nobody has such an endpoint or registration, and nothing was minted
    if "meters" in EXPECTED[route]:
        return {401, 422}
    return {200} if method == "GET" else {400, 422}


def test_a_meter_of_somebody_else_is_as_unknown_as_one_that_is_not_there(house):
    owned = [route for route, who in EXPECTED.items() if "owner" in who]
    assert len(owned) == 11
    callers = [caller for caller in _members(house) if caller.may.isdisjoint({"operator", "auditor", "admin"})]
    assert len(callers) == 2 * len(PLAIN_ROLES)
    for caller in callers:
        for route in owned:
            told = []
            for meter_id in (FOREIGN, "no-such-roof"):
                problem = house.ask(caller, route, meter_id).json()
                del problem["request_id"]
                assert problem.pop("detail") == meter_id
                told.append(problem)
            assert told[0] == told[1], "nothing tells that the meter is there"
            assert (told[0]["status"], told[0]["code"]) == (404, "meter_not_found"), f"{caller.name}: {route}"
            if "owner" in caller.may:
                assert house.ask(caller, route, OWN).status_code in (200, 422)


def test_an_auditor_reads_everything_and_changes_nothing_but_its_own_account():
    for (method, path), who in EXPECTED.items():
        if method == "GET":
            assert who & {"anybody", "session", "member", "auditor"}, path
        elif "auditor" in who or (method == "POST" and "member" in who) or "session" in who:
            assert path == "/me" or path.startswith("/me/"), path


def test_a_type_of_member_is_no_permission():
    grants = [permissions.GRANTS[role] for role in PLAIN_ROLES]
    assert all(each == grants[0] for each in grants)


def test_a_key_can_never_be_made_to_change_who_its_member_is(house):
    assert {Permission.ACCOUNT, Permission.API_KEYS}.isdisjoint(KEY_SCOPES)
    admin = house.member(Role.ADMIN)
    key = house.client(f"Bearer {house.key(admin, KEY_SCOPES, timedelta(days=1))}")
    for route, who in EXPECTED.items():
        if "session" in who:
            answer = house.ask(Caller("key", key, frozenset()), route)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), route


def test_two_roles_together_may_what_either_may(house):
    both = house.server.member(Role.AUDITOR, Role.OPERATOR)
    client = house.by_key(both)
    assert client.get("/audit").status_code == 200
    assert client.post("/meters", json=[]).status_code in (400, 422)
    assert client.post(f"/members/{house.subject.member_id}/suspend", content=b"{").status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/members/",
        "//members",
        "/./members",
        "/Members",
        "/MEMBERS",
        "/members/.",
        "/members%2f",
        "/members;",
        "/members%20",
        "/%6dembers/",
        "/health/../members",
        "/health%2f..%2fmembers",
        "/meters/../members",
        "http:/members",
    ],
)
def test_no_other_spelling_of_a_path_slips_by(house, path):
    """Sent byte for byte: httpx would tidy such paths up."""
    for authorization in (None, f"Bearer {house.member(Role.CONSUMER).api_key}"):
        status = _raw(house.server, "GET", path, authorization)
        assert status in (400, 401, 403, 404), path


def test_an_encoded_letter_is_the_same_path_and_the_same_refusal(house):
    consumer = house.member(Role.CONSUMER)
    assert _raw(house.server, "GET", "/%6dembers", None) == 401
    assert _raw(house.server, "GET", "/%6dembers", f"Bearer {consumer.api_key}") == 403


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "get", "Get", "QUERY"])
def test_no_other_method_slips_by(house, method):
    for path in ("/members", "/audit", f"/meters/{FOREIGN}", "/me"):
        assert _raw(house.server, method, path, None) in (400, 401, 403, 404, 405), path


def test_a_method_override_is_only_a_header(house):
    consumer = house.by_key(house.member(Role.CONSUMER))
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = consumer.get("/members", headers={name: "POST"})
        assert answer.status_code == 403
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Path"):
        assert consumer.get("/members", headers={name: "/health"}).status_code == 403
        assert consumer.get("/health", headers={name: "/members"}).json() == {"status": "alive"}


def test_two_tokens_in_one_request_are_none(house):
    admin = house.member(Role.ADMIN)
    header = ("Authorization", f"Bearer {admin.api_key}")
    with httpx.Client(base_url=house.server.url) as client:
        assert client.get("/members", headers=[header]).status_code == 200
        assert client.get("/members", headers=[header, header]).status_code == 401
        assert client.get("/members", headers=[header, ("Authorization", "Bearer x")]).status_code == 401


def test_a_route_that_is_in_no_table_keeps_the_hub_from_starting(settings, engine):
    app = create_app(read_hub(settings, engine))
    app.add_api_route("/backdoor", lambda: "welcome", methods=["GET"])
    with pytest.raises(AssertionError, match="backdoor"):
        gates_of(app)


def test_a_socket_that_is_in_no_table_keeps_the_hub_from_starting(settings, engine):
    app = create_app(read_hub(settings, engine))
    app.add_api_websocket_route("/backdoor", lambda socket: None)
    with pytest.raises(AssertionError, match="backdoor"):
        gates_of(app)


def test_a_mounted_application_keeps_the_hub_from_starting(settings, engine):
    app = create_app(read_hub(settings, engine))
    app.mount("/files", FastAPI())
    with pytest.raises(AssertionError, match="files"):
        gates_of(app)


def test_a_line_that_names_no_route_keeps_the_hub_from_starting():
    with pytest.raises(AssertionError, match="no such route"):
        gates_of(FastAPI(openapi_url=None, docs_url=None, redoc_url=None))


def test_a_route_added_behind_the_tables_back_is_served_to_nobody(settings, engine):
    """After the tables were checked: no gate knows it, so the second lock holds."""
    app = create_app(read_hub(settings, engine))
    app.add_api_route("/backdoor", lambda: "welcome", methods=["GET"])

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as client:
            return await client.get("/backdoor")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def _raw(server, method: str, path: str, authorization: str | None) -> int:
    """The status of a request whose line is sent as it stands."""
    url = httpx.URL(server.url)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.host}", "Connection: close"]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    return int(answer.split()[1])
