"""What a route may ask for: the hub it belongs to, who is acting, a transaction, the time, and once-only answers.

Who may do what was decided before any of this runs (`hub/authorisation.py`).

A request that holds a transaction needs a thread to go on, so there may only be fewer of them (TRANSACTIONS_MAX) than
the engine has connections: a thread that waits for a connection then gets one from somebody who needs no other thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection, Engine
from starlette.requests import HTTPConnection

from hub import idempotency
from hub.actor import Actor
from hub.db import transaction
from hub.errors import MalformedInput
from hub.limits.buckets import Buckets
from hub.limits.guard import Guard
from hub.limits.requests import note_verdict
from hub.permissions import Reach
from hub.settings import Settings
from hub.signatures import SigningKey
from hub.token_keys import TokenKeys

TRANSACTIONS_MAX = 8
API_CONNECTIONS = TRANSACTIONS_MAX + 4


@dataclass(frozen=True)
class Hub:
    """What every request of one API process shares."""

    settings: Settings
    engine: Engine
    command_key: SigningKey
    broker_secret: bytes
    member_secret: bytes
    token_keys: TokenKeys
    buckets: Buckets = field(default_factory=Buckets)
    """Of the rate limits that this process counts by itself."""


def get_hub(request: HTTPConnection) -> Hub:
    """The hub that this application serves."""
    return cast(Hub, request.app.state.hub)


TheHub = Annotated[Hub, Depends(get_hub)]


@dataclass(frozen=True)
class Access:
    """Who is acting, and how far the permission goes that the route asks for."""

    actor: Actor
    reach: Reach


def get_access(request: Request) -> Access:
    """What `Authorisation` decided about this request. Asking for it on an open route is our mistake."""
    access = request.state.access
    assert isinstance(access, Access), "an open route has no actor"
    return access


CurrentAccess = Annotated[Access, Depends(get_access)]


def get_actor(access: CurrentAccess) -> Actor:
    """Who is acting."""
    return access.actor


CurrentActor = Annotated[Actor, Depends(get_actor)]


def client_address(request: HTTPConnection) -> str:
    """The address that the request comes from, behind our own proxies (`hub/surroundings.py` finds it)."""
    return request.client.host if request.client else ""


def get_transaction(hub: TheHub) -> Iterator[Connection]:
    """The request's one transaction: committed before the response is sent, rolled back by any error."""
    with transaction(hub.engine) as connection:
        yield connection


Transaction = Annotated[Connection, Depends(get_transaction, scope="function", max_concurrency=TRANSACTIONS_MAX)]


def get_now() -> datetime:
    """The hub's clock."""
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(get_now)]


def get_guard(request: Request, hub: TheHub, now: Now) -> Guard:
    """What counts tries at something guessable; its numbers are in `hub/limits/policies.py`."""
    address = client_address(request)
    return Guard(hub.engine, hub.member_secret, address, now, lambda verdict: note_verdict(request.scope, verdict))


TheGuard = Annotated[Guard, Depends(get_guard)]


def refuse_query(request: Request) -> None:
    """For routes without query parameters: an unknown one is a mistake, not something to ignore."""
    if request.query_params:
        raise MalformedInput(f"unknown query parameters: {', '.join(sorted(request.query_params))}")


async def refuse_doubled_query(request: HTTPConnection) -> None:
    """No parameter may come twice: which of the two counts would be anybody's guess. Raises MalformedInput."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names) and request.scope["type"] == "http":
        raise MalformedInput("a query parameter comes more than once")


@dataclass(frozen=True)
class Once:
    """Performs a change under the request's Idempotency-Key, in the request's transaction.

    `actor` is the reference for the audit log; the key is the member's, through whichever session it comes.
    """

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
    actor: CurrentActor,
    connection: Transaction,
    now: Now,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Once:
    """The request's once-only performer. Raises IdempotencyKeyMissing, also for two keys: neither is the one."""
    keys = request.headers.getlist("Idempotency-Key")
    key = idempotency.check_key(idempotency_key if len(keys) == 1 else None)
    scope = f"{request.method} {request.scope['route'].path} {actor.member_id}"
    return Once(connection, actor.reference, scope, key, request.url.path, request.url.query, now)


OnceOnly = Annotated[Once, Depends(get_once)]
