"""The HTTP application: routes put together, limits, health, and what surrounds every request.

The rules of the domains are in their `api.py`; errors are turned into answers in `problems.py`.
"""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import uvicorn
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import Engine
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub import logs, metrics
from hub.db import create_database_engine, is_database_away
from hub.dependencies import API_CONNECTIONS, Hub, TheHub, authenticate
from hub.errors import BodyTooLarge, HubError
from hub.fleet import agent_api
from hub.fleet import api as fleet_api
from hub.problems import PROBLEM_RESPONSES, problem_of
from hub.readings import api as readings_api
from hub.readings import decisions_api, evidence_api, keys_api, posted_api
from hub.registry import api as registry_api
from hub.registry.service import BROKER_SECRET_BYTES
from hub.settings import Settings, read_secret, read_secret_bytes
from hub.signatures import SEED_BYTES, SigningKey
from protocol.limits import MESSAGE_BYTES_MAX

BODY_BYTES_MAX = 64 * 1024
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What may label a metric: a client may invent any other."""
SHUTDOWN_TIMEOUT_S = 10
WAITING_CONNECTIONS_MAX = 512

log = logs.get_logger()


def read_hub(settings: Settings, engine: Engine) -> Hub:
    """What the requests share, secrets included. Raises SettingsInvalid."""
    return Hub(
        settings,
        engine,
        read_secret(settings.admin_token_file).encode(),
        SigningKey(read_secret_bytes(settings.command_key_file, SEED_BYTES)),
        read_secret_bytes(settings.broker_secret_file, BROKER_SECRET_BYTES),
    )


def create_app(hub: Hub) -> FastAPI:
    """The application over one engine; the caller owns the engine."""
    app = FastAPI(title="Commonwatt hub", docs_url=None, redoc_url=None, openapi_url=None, responses=PROBLEM_RESPONSES)
    app.state.hub = hub
    app.add_middleware(Surroundings)
    for kind in (HubError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.include_router(registry_api.router)
    app.include_router(readings_api.router)
    app.include_router(evidence_api.router)
    app.include_router(decisions_api.router)
    app.include_router(posted_api.router)
    app.include_router(keys_api.router)
    app.include_router(agent_api.router)
    app.include_router(fleet_api.router)
    app.add_api_route("/health", get_health)
    app.add_api_route("/ready", get_ready)
    app.add_api_route("/metrics", get_metrics)
    app.add_api_route("/openapi.json", get_openapi, dependencies=[Depends(authenticate)])
    return app


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that are being answered are finished.

    Raises SettingsInvalid, or OSError if nothing can listen on that address.
    """
    engine = create_database_engine(settings.database_url, "commonwatt-api", API_CONNECTIONS)
    try:
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(read_hub(settings, engine)),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            )
        )
        # uvicorn stops at these signals and then raises them once more, for whoever handled them before it: us
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
        address = (settings.api_host, settings.api_port)
        with socket.create_server(address, family=family, backlog=WAITING_CONNECTIONS_MAX) as listener:
            host, port = listener.getsockname()[:2]
            log.info("api_listening", host=host, port=port, address=f"http://{host}:{port}")
            server.run(sockets=[listener])
    finally:
        engine.dispose()
    log.info("api_stopped")


async def get_health() -> JSONResponse:
    """The process lives. Says nothing about what it needs."""
    return JSONResponse({"status": "alive"})


def get_ready(hub: TheHub) -> JSONResponse:
    """Whether requests would be served: 503 with the reasons while not."""
    reasons = reasons_not_ready(hub.engine)
    return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


async def get_metrics() -> Response:
    """The figures of this process, for Prometheus."""
    return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def get_openapi(request: Request) -> JSONResponse:
    """The description of this interface (OpenAPI)."""
    return JSONResponse(request.app.openapi())


def reasons_not_ready(engine: Engine) -> list[str]:
    """Why this process could not serve: the database is away, or its schema is not the newest."""
    newest = ScriptDirectory(str(Path(__file__).parent / "migrations")).get_current_head()
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except Exception as fault:
        if not is_database_away(fault):
            raise
        return ["database_away"]
    return [] if current == newest else ["schema_not_current"]


class Surroundings:
    """Around every request: its id, the body limit, a last net for errors, a figure and a line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = logs.request_id_or_new(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        begun_s = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with logs.bound(request_id=request_id):
            try:
                await self.app(scope, _bounded(scope, receive), send_with_headers)
            except ClientDisconnect:
                log.info("client_left")
            except Exception as fault:
                answer = problem_of(fault, request_id)  # also writes the log
                if status:
                    raise  # the answer has begun: breaking the connection is all that is left to say
                await answer(scope, receive, send_with_headers)
            finally:
                self._note(scope, status, time.perf_counter() - begun_s)

    def _note(self, scope: Scope, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in METHODS else "other"
        metrics.API_REQUEST_DURATION.labels(method, route, str(status)).observe(duration_s)
        log.info(
            "request",
            method=scope["method"],
            route=route,
            path=scope["path"],
            status=status,
            duration_s=round(duration_s, 6),
        )


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """The request's body, of which nobody can take more than its route allows."""
    bytes_max = MESSAGE_BYTES_MAX if scope["path"] == posted_api.PATH else BODY_BYTES_MAX
    taken = 0

    async def receive_bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > bytes_max:
            raise HTTPException(BodyTooLarge.status)
        return message

    return receive_bounded


async def _answer_error(request: Request, error: Exception) -> Response:
    return problem_of(error, request.state.request_id)
