"""Whether a request may be served: who asks, what the route asks for, and whose thing it is about.

Decided before a byte of the body is read and before anything of a route runs, so that a stranger learns nothing from a
malformed body or an unknown id. The tables are in `hub/permissions.py`; a route in none of them is served to nobody.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import iter_route_contexts
from sqlalchemy import Connection
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.actor import Actor
from hub.auth import members_service
from hub.auth.authentication import authenticate
from hub.db import transaction
from hub.dependencies import Access, Hub, get_hub, get_now
from hub.errors import BEARER_TOO_LITTLE, Forbidden, MeterNotFound, Unauthorized
from hub.limits import policies
from hub.limits.requests import count_request
from hub.permissions import OPEN_ROUTES, REPEATABLE_ROUTES, ROUTES, Permission, Reach, Route
from hub.registry import service as registry
from protocol.limits import METER_ID_BYTES_MAX

DECISION_LIFE_S = 1.0
"""Nearly every body is there by then, and costs no second look."""

WEBSOCKET = "WS"
"""The method under which the tables name a WebSocket, which authenticates in its first message."""

_METER_ID = re.compile(rf"[a-z0-9-]{{1,{METER_ID_BYTES_MAX}}}")


@dataclass(frozen=True)
class Gate:
    """What the tables say of a route, and the router's own word on whether a request is for it."""

    route: Route
    permission: Permission | None
    """None if the route is open."""
    matches: Callable[[Scope], tuple[Match, Scope]]

    @property
    def path(self) -> str:
        """The route's template."""
        return self.route[1]


class Authorisation:
    """Lets a request pass to its route, and leaves its Access where routes find it.

    Raises Unauthorized, AccessTokenExpired, Forbidden, or MeterNotFound for a meter that is not the member's. What
    no route serves passes too: the router refuses it, to everybody alike; but for a WebSocket, of which it would only
    close the connection. Raises HTTPException for that.
    """

    def __init__(self, app: ASGIApp, gates: Iterable[Gate]) -> None:
        self.app = app
        self._gates: Mapping[tuple[str, str], list[Gate]] = defaultdict(list)
        for gate in gates:
            method, path = gate.route
            self._gates[method, _first_segment(path)].append(gate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide about one request."""
        if scope["type"] != "lifespan":
            state = scope.setdefault("state", {})
            state["access"] = state["gate"] = None
            gate, path_params = self._find(scope)
            if gate is not None:
                state["gate"] = gate.route
                scope["route"] = gate  # so that figures and log name the route of a refusal too
                if gate.permission is not None:
                    state["decided_s"] = time.monotonic()
                    connection = HTTPConnection(scope)
                    hub = get_hub(connection)
                    state["access"] = access = await run_in_threadpool(
                        _decide, hub, gate.permission, path_params, _authorization(scope)
                    )
                    count_request(scope, hub.buckets, policies.MEMBER, str(access.actor.member_id))
            elif scope["type"] == "websocket":
                raise HTTPException(HTTPStatus.NOT_FOUND)
        await self.app(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Gate | None, Mapping[str, str]]:
        """The gate before the route that the router will choose: the first that matches in full."""
        for gate in self._gates.get((_method_of(scope), _first_segment(scope["path"])), []):
            match, child_scope = gate.matches(scope)
            if match is Match.FULL:
                return gate, child_scope["path_params"]
        return None, {}


async def confirm(request: HTTPConnection) -> None:
    """The second lock, inside every route: it is this route that was decided about, and not long ago.

    The body has come by now, which its sender may have held back for as long as it is let (`hub/limits/bodies.py`), to
    act with a session, key or role that was taken away meanwhile. Raises Forbidden, and what `Authorisation` raises.
    """
    chosen = request.scope["route"]
    if isinstance(chosen, Gate) or request.state.gate != (_method_of(request.scope), chosen.path):
        raise Forbidden
    permission = ROUTES.get(request.state.gate)
    if permission is not None and time.monotonic() - request.state.decided_s > DECISION_LIFE_S:
        request.state.access = await run_in_threadpool(
            _decide, get_hub(request), permission, request.path_params, _authorization(request.scope)
        )


def gates_of(app: FastAPI) -> list[Gate]:
    """A gate for each route. Refuses a route that is in no table or in two, and a line that names no route."""
    assert not ROUTES.keys() & OPEN_ROUTES.keys(), f"both open and not: {sorted(ROUTES.keys() & OPEN_ROUTES.keys())}"
    gates = [
        Gate((method, route.path or ""), ROUTES.get((method, route.path or "")), route.matches)
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or {WEBSOCKET})
    ]
    served, listed = {gate.route for gate in gates}, ROUTES.keys() | OPEN_ROUTES.keys()
    assert served == listed, f"not in the tables: {sorted(served - listed)}; no such route: {sorted(listed - served)}"
    assert len(served) == len(gates), "two routes for one method and path"
    assert REPEATABLE_ROUTES.keys() <= served, f"no such route: {sorted(REPEATABLE_ROUTES.keys() - served)}"
    return gates


def permit(connection: Connection, actor: Actor, permission: Permission, path_params: Mapping[str, str]) -> Reach:
    """How far the actor may go. Raises Forbidden, or MeterNotFound for a meter of somebody else."""
    reach = actor.reach(permission)
    if reach is None:
        scope_is_missing = actor.scopes is not None and permission not in actor.scopes
        raise Forbidden(challenge=f'{BEARER_TOO_LITTLE}, scope="{permission}"' if scope_is_missing else "")
    meter_id = path_params.get("meter_id")
    if reach is Reach.OWN and meter_id is not None:
        if not _METER_ID.fullmatch(meter_id):
            raise MeterNotFound
        meter = registry.get_meter(connection, meter_id)
        if meter.owner not in members_service.wallets_of(connection, actor.member_id):
            raise MeterNotFound(meter_id)
    return reach


def _decide(hub: Hub, permission: Permission, path_params: Mapping[str, str], authorization: str) -> Access:
    if not authorization:  # who shows nothing costs no connection
        raise Unauthorized
    with transaction(hub.engine) as connection:
        actor = authenticate(connection, hub.token_keys, authorization, get_now())
        return Access(actor, permit(connection, actor, permission, path_params))


def _authorization(scope: Scope) -> str:
    """The header's value; nothing if it came twice, since nobody can say which one was meant."""
    values = Headers(scope=scope).getlist("authorization")
    return values[0] if len(values) == 1 else ""


def _method_of(scope: Scope) -> str:
    return WEBSOCKET if scope["type"] == "websocket" else str(scope["method"])


def _first_segment(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]
