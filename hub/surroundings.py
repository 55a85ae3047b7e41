"""What surrounds every request, whatever its route: who asks, its id, limits, headers, a last net for errors, the log.

From the outside in: `Surroundings` gives the request its id and client and the answer its headers, and writes the line
of the log; then come the rules for pages of other origins (CORS); then `Bounds`, which counts, bounds and catches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub import logs, metrics
from hub.errors import OriginRefused, RateLimited
from hub.fleet import agent_api
from hub.limits import policies
from hub.limits.bodies import BODY_BYTES_MAX, BODY_TIMEOUT_S, bounded_body
from hub.limits.buckets import Buckets
from hub.limits.clients import Network, client_of, network_of
from hub.limits.requests import count_request, monotonic_us, note_verdict, refuse_if_over
from hub.limits.rules import Verdict, limit_field, policy_field
from hub.problems import problem_of
from hub.readings import posted_api
from hub.settings import Settings
from protocol.limits import MESSAGE_BYTES_MAX

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What may label a metric or stand in the log: a client may invent any other."""
PATH_LOGGED_MAX: Final = 200

MACHINE_PATHS: Final = frozenset({posted_api.PATH, agent_api.PATH, "/agent/credentials"})
"""Where meters speak: only what is refused is counted (`policies.REFUSALS`)."""
BODIES_BYTES_MAX: Final = {posted_api.PATH: MESSAGE_BYTES_MAX}

CROSS_ORIGIN_METHODS: Final = ("GET", "POST")
CROSS_ORIGIN_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID")
CROSS_ORIGIN_ANSWER_HEADERS: Final = (
    "Content-Disposition",
    "Idempotency-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
PREFLIGHT_KEPT_S: Final = 600

HTTPS_ONLY_S: Final = 365 * 86_400

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise itself: nothing here is a page, so a browser may do nothing with it."""

log = logs.get_logger()


def surround(app: FastAPI, settings: Settings, buckets: Buckets) -> None:
    """Put it all around the application."""
    app.add_middleware(Bounds, buckets=buckets)
    if settings.cors_origins:
        app.add_middleware(
            CrossOrigin,
            allow_origins=settings.cors_origins,
            allow_methods=CROSS_ORIGIN_METHODS,
            allow_headers=CROSS_ORIGIN_REQUEST_HEADERS,
            expose_headers=CROSS_ORIGIN_ANSWER_HEADERS,
            allow_credentials=False,  # tokens go in a header, by the page's own hand: there is no cookie to ride on
            max_age=PREFLIGHT_KEPT_S,
        )
    app.add_middleware(Surroundings, public_url=settings.public_url, trusted_proxies=settings.trusted_proxies)


class CrossOrigin(CORSMiddleware):
    """The rules for pages of other origins; what they refuse is a problem like every other refusal."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """What a browser is told before it sends what the page asks for."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refusal = problem_of(OriginRefused(bytes(answer.body).decode()), logs.bound_request_id())
        refusal.headers["Vary"] = answer.headers["Vary"]
        return refusal


class Surroundings:
    """Around every request: who asks, its id, the headers of its answer, a figure and a line in the log."""

    def __init__(self, app: ASGIApp, public_url: str, trusted_proxies: Iterable[Network]) -> None:
        self.app = app
        self._trusted = tuple(trusted_proxies)
        self._headers = dict(HEADERS)
        if public_url.startswith("https:"):
            self._headers["Strict-Transport-Security"] = f"max-age={HTTPS_ONLY_S}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else ""
        scope["client"] = (client_of(peer, headers.getlist("x-forwarded-for"), self._trusted), 0)
        request_id = logs.request_id_or_new(headers.get("x-request-id"))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["verdicts"] = []
        begun_s = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), request_id, state["verdicts"])
            await send(message)

        with logs.bound(request_id=request_id):
            if scope["type"] == "websocket":
                await self.app(scope, receive, send_with_headers)
                return
            try:
                await self.app(scope, receive, send_with_headers)
            finally:
                _note_request(scope, status, time.perf_counter() - begun_s)

    def _add_headers(self, headers: MutableHeaders, request_id: str, verdicts: list[Verdict]) -> None:
        headers["X-Request-ID"] = request_id
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        if verdicts:
            headers["RateLimit-Policy"] = policy_field(verdicts)
            headers["RateLimit"] = limit_field(verdicts)


class Bounds:
    """Counts the request, bounds its body, and lets no exception past without an answer."""

    def __init__(self, app: ASGIApp, buckets: Buckets, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self._buckets = buckets
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        by_machine = scope["path"] in MACHINE_PATHS
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if by_machine:
                    note_verdict(scope, self._count_refusal(scope, status))
            await send(message)

        try:
            self._admit(scope, by_machine)
            bytes_max = BODIES_BYTES_MAX.get(scope["path"], BODY_BYTES_MAX)
            await self.app(scope, bounded_body(receive, bytes_max, self._body_timeout_s), send_noting)
        except ClientDisconnect:
            log.info("client_left")
        except Exception as fault:
            answer = problem_of(fault, scope["state"]["request_id"])  # also writes the log
            if status:
                raise  # the answer has begun: breaking the connection is all that is left to say
            await answer(scope, receive, send_noting)

    def _admit(self, scope: Scope, by_machine: bool) -> None:
        """Count the request to its client. Raises RateLimited, or HTTPException for what can be read in two ways."""
        client = network_of(scope["client"][0])
        if by_machine:
            refuse_if_over(self._buckets.look(policies.REFUSALS, client, monotonic_us()))
        else:
            count_request(scope, self._buckets, policies.CLIENT, client)
        _refuse_ambiguity(scope)

    def _count_refusal(self, scope: Scope, status: int) -> Verdict:
        """Count the answer if it is a refusal. 409 tells of a state: what was signed was good."""
        count = self._buckets.count if 400 <= status < 500 and status not in (409, 429) else self._buckets.look
        return count(policies.REFUSALS, network_of(scope["client"][0]), monotonic_us())

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket is one request, counted when it is opened; once it is open, it tells its refusals itself."""
        try:
            self._admit(scope, by_machine=False)
            await self.app(scope, receive, send)
        except (RateLimited, HTTPException) as refusal:
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": 1008})
                return
            answer = problem_of(refusal, scope["state"]["request_id"])
            await answer(scope, receive, send)


def _refuse_ambiguity(scope: Scope) -> None:
    """Raises HTTPException for a request that somebody else on its way may take for another one."""
    if scope["path"].endswith("\n"):
        raise HTTPException(HTTPStatus.NOT_FOUND)  # the router's patterns would pass it as the path without
    headers = Headers(scope=scope)
    if "content-length" in headers and "transfer-encoding" in headers:
        raise HTTPException(HTTPStatus.BAD_REQUEST, headers={"Connection": "close"})  # RFC 9112, 6.3


def _note_request(scope: Scope, status: int, duration_s: float) -> None:
    route = getattr(scope.get("route"), "path", "unknown")
    method = scope["method"] if scope["method"] in METHODS else "other"
    metrics.API_REQUEST_DURATION.labels(method, route, str(status)).observe(duration_s)
    log.info(
        "request",
        method=method,
        route=route,
        path=scope["path"][:PATH_LOGGED_MAX],
        client=scope["client"][0],
        status=status,
        duration_s=round(duration_s, 6),
    )
