"""What a route may ask for: the hub it belongs to, who is acting, a transaction, the time, and once-only answers.

Who may do what is decided in `authenticate` and nowhere else.

A request that holds a transaction needs a thread to go on, so there may only be fewer of them (TRANSACTIONS_MAX) than
the engine has connections: a thread that waits for a connection then gets one from somebody who needs no other thread.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection, Engine

from hub import idempotency
from hub.db import transaction
from hub.errors import MalformedInput, Unauthorized
from hub.settings import Settings
from hub.signatures import SigningKey

TRANSACTIONS_MAX = 8
API_CONNECTIONS = TRANSACTIONS_MAX + 4

ADMIN = "admin"


@dataclass(frozen=True)
class Hub:
    """What every request of one API process shares."""

    settings: Settings
    engine: Engine
    admin_token: bytes
    command_key: SigningKey
    broker_secret: bytes


def get_hub(request: Request) -> Hub:
    """The hub that this application serves."""
    return cast(Hub, request.app.state.hub)


TheHub = Annotated[Hub, Depends(get_hub)]


def authenticate(hub: TheHub, authorization: Annotated[str, Header()] = "") -> str:
    """The actor behind a request. Raises Unauthorized, without telling what was wrong."""
    scheme, _, token = authorization.partition(" ")
    known = hmac.compare_digest(token.strip().encode(), hub.admin_token)
    if scheme.lower() != "bearer" or not known:
        raise Unauthorized
    return ADMIN


Actor = Annotated[str, Depends(authenticate)]


def get_transaction(hub: TheHub) -> Iterator[Connection]:
    """The request's one transaction: committed before the response is sent, rolled back by any error."""
    with transaction(hub.engine) as connection:
        yield connection


Transaction = Annotated[Connection, Depends(get_transaction, scope="function", max_concurrency=TRANSACTIONS_MAX)]


def get_now() -> datetime:
    """The hub's clock."""
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(get_now)]


def refuse_query(request: Request) -> None:
    """For routes without query parameters: an unknown one is a mistake, not something to ignore."""
    if request.query_params:
        raise MalformedInput(f"unknown query parameters: {', '.join(sorted(request.query_params))}")


@dataclass(frozen=True)
class Once:
    """Performs a change under the request's Idempotency-Key, in the request's transaction."""

    connection: Connection
    actor: str
    scope: str
    key: str
    path: str
    query: str
    now: datetime

    def answer(
        self,
        body: BaseModel,
        status: int,
        perform: Callable[[], idempotency.Answer],
        complete: Callable[[idempotency.Answer], idempotency.Answer] = lambda stored: stored,
    ) -> JSONResponse:
        """The response: performed now, or given again with `Idempotency-Replayed: true`."""
        answered = idempotency.answer_once(
            self.connection,
            self.scope,
            self.key,
            idempotency.hash_of_request(self.path, self.query, body.model_dump(mode="json")),
            self.now,
            status,
            perform,
            complete,
        )
        headers = {"Idempotency-Replayed": "true"} if answered.replayed else {}
        return JSONResponse(dict(answered.body), answered.status, headers)


def get_once(
    request: Request,
    actor: Actor,
    connection: Transaction,
    now: Now,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Once:
    """The request's once-only performer. Raises IdempotencyKeyMissing."""
    key = idempotency.check_key(idempotency_key)
    scope = f"{request.method} {request.scope['route'].path} {actor}"
    return Once(connection, actor, scope, key, request.url.path, request.url.query, now)


OnceOnly = Annotated[Once, Depends(get_once)]
