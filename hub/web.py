"""The HTTP application: routes put together, limits, health, and what surrounds every request.

The rules of the domains are in their `api.py`; errors are turned into answers in `problems.py`.
"""

from __future__ import annotations

import functools
import signal
import socket
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import uvicorn
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from hub import logs, metrics
from hub.api_types import AnswerBody
from hub.audit import api as audit_api
from hub.auth import api_keys_api, email_api, sessions_api, wallets_api
from hub.authorisation import Authorisation, confirm, gates_of
from hub.db import create_database_engine, is_database_away
from hub.dependencies import API_CONNECTIONS, Hub, TheHub, refuse_doubled_query
from hub.description import describe, operation_id
from hub.errors import HubError
from hub.fleet import agent_api
from hub.fleet import api as fleet_api
from hub.limits.connections import HEAD_BYTES_MAX, BoundedConnection, allow_open_files
from hub.live import api as live_api
from hub.live.wire import UVICORN_OPTIONS
from hub.minting import api as minting_api
from hub.notifications import api as notifications_api
from hub.notifications import webhooks_api
from hub.problems import PROBLEM_RESPONSES, problem_of
from hub.provenance import api as provenance_api
from hub.readings import api as readings_api
from hub.readings import decisions_api, evidence_api, keys_api, posted_api
from hub.registry import api as registry_api
from hub.registry import members_api, onboarding_api
from hub.registry.service import BROKER_SECRET_BYTES
from hub.settings import MEMBER_SECRET_BYTES, Settings, read_secret_bytes
from hub.signatures import SEED_BYTES, SigningKey
from hub.surroundings import surround
from hub.token_keys import read_token_keys

SHUTDOWN_TIMEOUT_S = 10
WAITING_CONNECTIONS_MAX = 512

FIGURES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Figures in the text format of Prometheus.",
        "content": {CONTENT_TYPE_LATEST.partition(";")[0]: {"schema": {"type": "string"}}},
    }
}

log = logs.get_logger()


def read_hub(settings: Settings, engine: Engine) -> Hub:
    """What the requests share, secrets included. Raises SettingsInvalid."""
    return Hub(
        settings,
        engine,
        SigningKey(read_secret_bytes(settings.command_key_file, SEED_BYTES)),
        read_secret_bytes(settings.broker_secret_file, BROKER_SECRET_BYTES),
        read_secret_bytes(settings.member_secret_file, MEMBER_SECRET_BYTES),
        read_token_keys(settings),
    )


def create_app(hub: Hub) -> FastAPI:
    """The application over one engine; the caller owns the engine."""
    app = _application()
    app.router.routes.extend(_routes())
    app.state.hub = hub
    for kind in (HubError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.add_middleware(Authorisation, gates=gates_of(app))
    surround(app, settings=hub.settings, buckets=hub.buckets)  # around whatever was added before
    return app


def _application() -> FastAPI:
    """One without routes."""
    return FastAPI(
        title="Commonwatt hub",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        responses=PROBLEM_RESPONSES,
        dependencies=[Depends(confirm), Depends(refuse_doubled_query)],
        generate_unique_id_function=operation_id,
        lifespan=live_api.keep_live,
    )


@functools.cache
def _routes() -> tuple[BaseRoute, ...]:
    """All routes. They are the same in every application, and FastAPI takes its time to think each of them through."""
    app = _application()
    app.include_router(sessions_api.router)
    app.include_router(api_keys_api.router)
    app.include_router(wallets_api.router)
    app.include_router(email_api.router)
    app.include_router(members_api.router)
    app.include_router(onboarding_api.router)
    app.include_router(notifications_api.router)
    app.include_router(webhooks_api.router)
    app.include_router(registry_api.router)
    app.include_router(readings_api.router)
    app.include_router(evidence_api.router)
    app.include_router(decisions_api.router)
    app.include_router(posted_api.router)
    app.include_router(keys_api.router)
    app.include_router(minting_api.router)
    app.include_router(provenance_api.router)
    app.include_router(agent_api.router)
    app.include_router(fleet_api.router)
    app.include_router(audit_api.router)
    app.include_router(live_api.router)
    app.add_api_route("/health", get_health, response_model=HealthAnswer)
    app.add_api_route("/ready", get_ready, response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer}})
    app.add_api_route("/metrics", get_metrics, response_class=Response, responses=FIGURES)
    app.add_api_route("/openapi.json", get_openapi, response_model=dict[str, Any])
    return tuple(app.routes)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that are being answered are finished.

    Raises SettingsInvalid, or OSError if nothing can listen on that address.
    """
    allow_open_files()
    engine = create_database_engine(settings.database_url, "commonwatt-api", API_CONNECTIONS)
    try:
        server = uvicorn.Server(server_config(create_app(read_hub(settings, engine))))
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


def server_config(app: FastAPI) -> uvicorn.Config:
    """How the application is served, in tests too."""
    return uvicorn.Config(
        app,
        http=BoundedConnection,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `hub/surroundings.py` knows whom to believe
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        **UVICORN_OPTIONS,
    )


class HealthAnswer(AnswerBody):
    """The process lives."""

    status: Literal["alive"]


class ReadyAnswer(AnswerBody):
    """Whether requests would be served, and why not."""

    ready: bool
    reasons: list[Literal["database_away", "schema_not_current"]]


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
    return JSONResponse(describe(request.app))


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


async def _answer_error(request: Request, error: Exception) -> Response:
    answer = problem_of(error, request.state.request_id)
    if answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["Allow"] = ", ".join(sorted(_methods_of(request)))  # the router names those of one route only
    return answer


def _methods_of(request: Request) -> set[str]:
    """The methods that the request's path could be asked with."""
    contexts = iter_route_contexts(request.app.routes)
    matching = (route for route in contexts if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching for method in route.methods or ()}
