"""What surrounds every request: limits, headers, other origins, who is asking; none of it can be talked away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from ipaddress import ip_network

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hub.errors import HubError
from hub.limits import policies
from hub.limits.bodies import BODY_BYTES_MAX, bounded_body
from hub.limits.buckets import Buckets
from hub.limits.requests import monotonic_us
from hub.problems import problem_of
from hub.surroundings import HEADERS, MACHINE_PATHS, PATH_LOGGED_MAX, Bounds, Surroundings
from hub.web import create_app, read_hub, server_config

APP = "https://app.example"
GIVE_UP_S = 20.0


@contextlib.contextmanager
def _serving(app):
    config = server_config(app)
    config.port = 0
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def hub(settings, engine):
    return read_hub(settings, engine)


@pytest.fixture
def changed_hub(settings, engine, running_hub):
    """A running hub whose settings differ."""
    return lambda **changes: running_hub(settings.model_copy(update=changes), engine)


def _problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_answer_tells_a_browser_to_do_nothing_with_it(server, new_meter):
    answers = {
        200: server.client.get("/meters"),
        201: server.register(new_meter("roof")),
        401: server.anonymous.get("/meters"),
        404: server.client.get("/nothing"),
        405: server.client.delete("/meters"),
        413: server.client.post("/meters", content=b" " * (BODY_BYTES_MAX + 1), headers={"Idempotency-Key": "k"}),
        422: server.client.get("/meters?colour=green"),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, f"{status}: {name}"
        assert "Strict-Transport-Security" not in answer.headers, "this hub is not reached by https"
        assert "server" not in answer.headers


def test_a_bug_of_ours_is_answered_with_the_same_headers(hub):
    async def fail(scope, receive, send):
        raise RuntimeError

    surrounded = Surroundings(Bounds(fail, Buckets()), hub.settings.public_url, [])
    with httpx.Client(transport=_Here(surrounded), base_url="http://hub") as client:
        answer = client.get("/meters")
    _problem(answer, 500, "internal_error")
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


class _Here(httpx.BaseTransport):
    """Calls an application in this process, as from an address."""

    def __init__(self, app, address="198.51.100.7"):
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))

    def handle_request(self, request):
        async def ask():
            answer = await self._inner.handle_async_request(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            )
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(ask())


def test_where_people_come_by_https_browsers_are_told_to_stay_with_it(changed_hub):
    with changed_hub(public_url="https://hub.example") as server:
        assert server.anonymous.get("/health").headers["Strict-Transport-Security"] == "max-age=31536000"
        assert server.anonymous.get("/nothing").headers["Strict-Transport-Security"] == "max-age=31536000"


def test_an_answer_may_say_itself_how_long_it_is_kept(server):
    assert "max-age" in server.anonymous.get("/.well-known/jwks.json").headers["Cache-Control"]


def test_the_methods_of_a_path_are_told_to_whoever_tries_another(server):
    for path, methods in {"/meters": "GET, POST", "/health": "GET", "/readings/seals": "POST"}.items():
        for method in ("DELETE", "OPTIONS", "PUT"):
            answer = server.client.request(method, path)
            _problem(answer, 405, "method_not_allowed")
            assert answer.headers["Allow"] == methods


def test_field_names_of_a_stranger_are_neither_repeated_without_end_nor_a_bug(server, new_meter):
    server.register(new_meter("roof"))
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    for body in (b'{"\\ud800": 1}', b'{"\\u0000": 1, "reason": 2}', json.dumps({"x" * 60_000: 1}).encode()):
        answer = server.client.post("/meters/roof/suspend", content=body, headers=headers)
        _problem(answer, 422, "malformed_input")
        assert len(answer.content) < 2_000


# ── pages of other origins ───────────────────────────────────────────────────────────────────────────────────


def _preflight(client, origin, method="POST", headers="authorization,content-type,idempotency-key"):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/meters", headers=asked)


def _cors(answer):
    return {name for name in answer.headers if name.startswith("access-control-")}


def test_without_configured_origins_no_page_elsewhere_may_use_the_hub(server):
    _problem(_preflight(server.client, APP), 405, "method_not_allowed")
    for answer in (_preflight(server.client, APP), server.client.get("/meters", headers={"Origin": APP})):
        assert not _cors(answer)


def test_a_configured_page_may_ask_and_read_what_it_needs(changed_hub):
    with changed_hub(cors_origins=[APP]) as server:
        preflight = _preflight(server.anonymous, APP)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == APP
        assert "Origin" in preflight.headers["Vary"]
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        for answer in (
            server.client.get("/meters", headers={"Origin": APP}),
            server.anonymous.get("/meters", headers={"Origin": APP}),
            server.client.get("/nothing", headers={"Origin": APP}),
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == APP
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID", "Idempotency-Replayed"} <= set(
                exposed
            )
            assert "Access-Control-Allow-Credentials" not in answer.headers


def test_any_other_page_may_not(changed_hub):
    others = [
        "https://app.example.evil.example",
        "https://evil-app.example",
        "http://app.example",
        "https://app.example:8443",
        "https://APP.example",
        "null",
        "*",
        "",
    ]
    with changed_hub(cors_origins=[APP]) as server:
        for origin in others:
            preflight = _preflight(server.anonymous, origin)
            _problem(preflight, 403, "origin_refused")
            assert not _cors(preflight), origin
            assert "Origin" in preflight.headers["Vary"]
            answer = server.client.get("/meters", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Origin" in answer.headers["Vary"]


def test_no_page_may_send_what_it_was_not_allowed(changed_hub):
    with changed_hub(cors_origins=[APP]) as server:
        for preflight, which in (
            (_preflight(server.anonymous, APP, method="DELETE"), "method"),
            (_preflight(server.anonymous, APP, headers="x-forwarded-for"), "headers"),
        ):
            _problem(preflight, 403, "origin_refused")
            assert preflight.json()["detail"].endswith(which)


# ── who is asking ────────────────────────────────────────────────────────────────────────────────────────────


def _clients_logged(log_lines, count):
    deadline_s = time.monotonic() + GIVE_UP_S  # a line is written once its answer is sent
    while len(found := [entry["client"] for entry in log_lines() if entry["event"] == "request"]) < count:
        assert time.monotonic() < deadline_s
    return found


def test_a_stranger_cannot_say_that_it_is_somebody_else(log_lines, server):
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP"):
        value = "for=198.51.100.9" if name == "Forwarded" else "198.51.100.9"
        server.anonymous.get("/health", headers={name: value})
    assert _clients_logged(log_lines, 5) == ["127.0.0.1"] * 5


def test_a_proxy_of_ours_says_who_is_asking(log_lines, changed_hub):
    with changed_hub(trusted_proxies=[ip_network("127.0.0.0/8")]) as server:
        server.anonymous.get("/health", headers={"X-Forwarded-For": "203.0.113.99, 198.51.100.9"})
        several = [("X-Forwarded-For", "203.0.113.99"), ("X-Forwarded-For", "2001:db8::9")]
        server.anonymous.get("/health", headers=several)
        server.anonymous.get("/health", headers={"X-Forwarded-For": "nonsense"})
    assert _clients_logged(log_lines, 3) == ["198.51.100.9", "2001:db8::9", "127.0.0.1"]


def test_lines_of_the_log_stay_short_whatever_is_asked(log_lines, server):
    server.anonymous.get("/" + "x" * 5_000)
    server.anonymous.request("Y" * 5_000, "/health")
    _clients_logged(log_lines, 2)
    first, second = (entry for entry in log_lines() if entry["event"] == "request")
    assert len(first["path"]) == PATH_LOGGED_MAX
    assert (first["route"], second["method"]) == ("unknown", "other")


# ── what two readers would read as two things ────────────────────────────────────────────────────────────────


def _said(server, request):
    """All that is answered to these bytes until the connection is closed."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=GIVE_UP_S) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return answer


def test_a_request_that_states_its_length_in_two_ways_is_refused_and_nothing_behind_it_is_read(server):
    """Where a proxy believes the other length, what follows would be a request that it never saw."""
    smuggled = b"GET /health HTTP/1.1\r\nHost: hub\r\n\r\n"
    for path in (b"/auth/sign-in", b"/readings/seals", b"/nothing"):
        head = b"POST " + path + b" HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = _said(server, head + b"0\r\n\r\n" + smuggled)
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert b'"code":"bad_request"' in answer
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("path", ["/health", "/meters", "/meters/roof", "/auth/sign-in", "/nothing"])
def test_a_path_with_a_line_end_is_not_the_path_without_it(server, path):
    _problem(server.anonymous.get(f"{path}%0A"), 404, "not_found")
    _problem(server.client.post(f"{path}%0A", json={}), 404, "not_found")


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────


def _use_up(hub, policy, subject):
    """As if it had been done in the future, so that nothing has come back when we look."""
    while hub.buckets.count(policy, subject, monotonic_us() + 3_600_000_000).allowed:
        pass


def _limits(answer):
    """The policies of an answer and what is left of each, read as structured fields."""
    named = [item.partition(";")[0].strip('"') for item in answer.headers["RateLimit-Policy"].split(", ")]
    left = {}
    for item in answer.headers["RateLimit"].split(", "):
        name, *parameters = item.split(";")
        left[name.strip('"')] = dict(parameter.split("=") for parameter in parameters)
    assert named == list(left)
    return {name: int(parameters["r"]) for name, parameters in left.items()}


def test_every_answer_tells_what_is_left(server):
    first, second = (_limits(server.client.get("/meters")) for _ in range(2))
    assert first.keys() == {"client", "member"}
    assert first["client"] == policies.CLIENT.quota - 1
    assert second["client"] < policies.CLIENT.quota
    assert _limits(server.anonymous.get("/meters")).keys() == {"client"}


def test_an_address_that_asks_too_much_is_told_when_to_come_again_and_others_are_served(hub):
    app = create_app(hub)
    _use_up(hub, policies.CLIENT, "198.51.100.7")
    with httpx.Client(transport=_Here(app), base_url="http://hub") as client:
        answer = client.get("/health")
    _problem(answer, 429, "rate_limited")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["RateLimit-Policy"] == '"client";q=6000;w=60'
    assert answer.headers["RateLimit"] == '"client";r=0;t=1'
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    with httpx.Client(transport=_Here(app, "198.51.100.8"), base_url="http://hub") as client:
        assert client.get("/health").status_code == 200


def test_the_addresses_of_one_ipv6_customer_share_what_they_may(hub):
    app = create_app(hub)
    _use_up(hub, policies.CLIENT, "2001:db8:0:7::/64")
    for address, status in {"2001:db8:0:7::1": 429, "2001:db8:0:7:ffff::9": 429, "2001:db8:0:8::1": 200}.items():
        with httpx.Client(transport=_Here(app, address), base_url="http://hub") as client:
            assert client.get("/health").status_code == status


def test_a_member_has_one_allowance_whatever_it_comes_with(server):
    """Counted by the member, not by the key; a stranger's requests with no good key cost it nothing."""
    ada, bo = server.member(), server.member()
    with server.acting(ada) as client:
        left = [_limits(client.get("/meters"))["member"] for _ in range(3)]
    with server.acting(bo) as client:
        assert _limits(client.get("/meters"))["member"] == policies.MEMBER.quota - 1
    assert left[2] < policies.MEMBER.quota


def test_a_member_that_asks_too_much_is_told_so(hub, server):
    ada = server.member()
    _use_up(hub, policies.MEMBER, str(ada.member_id))
    headers = {"Authorization": f"Bearer {ada.api_key}"}
    with httpx.Client(transport=_Here(create_app(hub)), base_url="http://hub", headers=headers) as client:
        answer = client.get("/meters")
    _problem(answer, 429, "rate_limited")
    assert _limits(answer)["member"] == 0


def test_a_gateway_may_deliver_as_fast_as_the_hub_can_store(server, new_meter):
    """What is accepted costs nothing, nor do repeats; what cannot be accepted does."""
    meter = new_meter()
    server.register(meter)
    message = meter.seal([(meter.valid_from_unix_s + 60, 1, 1)])
    for _ in range(5):
        answer = server.post_seal(meter, message)
        assert answer.status_code == 200
        assert _limits(answer) == {"refusals": policies.REFUSALS.quota}
    assert _limits(server.post_seal(meter, b"no seal"))["refusals"] == policies.REFUSALS.quota - 1
    assert _limits(server.anonymous.post("/agent/report?meter_id=x"))["refusals"] <= policies.REFUSALS.quota - 1


def test_whoever_sends_only_what_cannot_be_accepted_is_stopped_before_it_is_read(hub, server, new_meter):
    meter = new_meter()
    server.register(meter)
    message = meter.seal([(meter.valid_from_unix_s + 60, 1, 1)])
    app = create_app(hub)
    _use_up(hub, policies.REFUSALS, "198.51.100.7")
    with httpx.Client(transport=_Here(app), base_url="http://hub") as client:
        for path in sorted(MACHINE_PATHS):
            answer = client.post(f"{path}?meter_id={meter.meter_id}", content=message)
            _problem(answer, 429, "rate_limited")
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/health").status_code == 200, "the address may still ask for other things"
    with httpx.Client(transport=_Here(app, "198.51.100.8"), base_url="http://hub") as client:
        assert client.post(f"/readings/seals?meter_id={meter.meter_id}", content=message).status_code == 200


def test_the_paths_of_machines_are_routes(server):
    served = server.client.get("/openapi.json").json()["paths"]
    assert served.keys() >= MACHINE_PATHS


def test_opening_a_websocket_is_a_request_too(hub):
    with _serving(create_app(hub)) as client:
        url = f"ws://{client.base_url.host}:{client.base_url.port}/live"
        with connect(url, proxy=None) as connection:
            assert connection.response.status_code == 101
        _use_up(hub, policies.CLIENT, "127.0.0.1")
        with pytest.raises(InvalidStatus) as refusal, connect(url, proxy=None):
            pass
    assert refusal.value.response.status_code == 429
    assert json.loads(refusal.value.response.body)["code"] == "rate_limited"
    assert refusal.value.response.headers["RateLimit"] == '"client";r=0;t=1'


@pytest.mark.parametrize(
    ("path", "origin", "status", "code"),
    [
        ("/live", "https://evil.example", 403, "origin_refused"),
        ("/live%0A", None, 404, "not_found"),
        ("/live/", None, 404, "not_found"),
        ("/meters", None, 404, "not_found"),
    ],
)
def test_a_socket_that_is_refused_is_told_so_like_everybody_else(server, path, origin, status, code):
    with pytest.raises(InvalidStatus) as refusal, connect(f"ws{server.url[4:]}{path}", origin=origin, proxy=None):
        pass
    answer = refusal.value.response
    _problem(httpx.Response(answer.status_code, headers=answer.headers, content=bytes(answer.body)), status, code)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_that_drips_is_ended_and_so_is_its_connection():
    app = FastAPI()

    @app.post("/")
    async def read(request: Request):
        return {"bytes": len(await request.body())}

    async def answer_error(request, error):
        return problem_of(error, request.state.request_id)

    for kind in (HubError, HTTPException):
        app.add_exception_handler(kind, answer_error)
    app.add_middleware(Bounds, buckets=Buckets(), body_timeout_s=0.3)
    app.add_middleware(Surroundings, public_url="http://127.0.0.1", trusted_proxies=[])
    with _serving(app) as client:
        assert client.post("/", content=b"x" * 100).json() == {"bytes": 100}
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=GIVE_UP_S) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 100\r\n\r\nx")
            answer = b""
            while part := connection.recv(10_000):
                answer += part
            assert answer.startswith(b"HTTP/1.1 408")
            assert b'"code":"request_too_slow"' in answer


def test_waiting_for_the_client_to_leave_is_not_waiting_for_a_body():
    async def run():
        messages = iter([{"type": "http.request", "body": b"x", "more_body": False}])

        async def receive():
            message = next(messages, None)
            if message is None:
                await asyncio.sleep(0.3)
                return {"type": "http.disconnect"}
            return message

        bounded = bounded_body(receive, 10, 0.1)
        return [await bounded(), await bounded()]

    body, left = asyncio.run(run())
    assert (body["body"], left["type"]) == (b"x", "http.disconnect")
