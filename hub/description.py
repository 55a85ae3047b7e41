"""How the interface describes itself (OpenAPI): what FastAPI reads off the routes, and what it cannot see.

A route names its own refusals (`hub.api_types.refusals`). Those that come from what stands around every route, which
headers an answer has and what a route asks for are written in here, from the same tables by which they are decided, so
that nobody has to repeat them and they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from hub import errors
from hub.api_types import CODES
from hub.auth.security_schemes import declare_security
from hub.errors import HubError
from hub.idempotency import KEY_LENGTH_MAX
from hub.permissions import OPEN_ROUTES, REPEATABLE_ROUTES, Route
from hub.problems import FRAMEWORK_CODES, PROBLEM_TYPE

Document = dict[str, Any]

ABOUT: Final = """The hub of an energy community: meters, their sealed readings, members, and what they are told.

Instants are ISO 8601 in UTC, energy is in watt-hours, and amounts of money are strings. An answer may gain fields in a
later version: a client must bear what it does not know. A refusal is a problem document (RFC 9457), whose `code` is
stable. A POST that changes something needs an `Idempotency-Key` and can then be repeated safely."""

TAGS: Final = {
    "e-mail and password": "Accounts by e-mail address and password.",
    "wallets": "Signing in with a wallet, and the wallets of a member.",
    "sessions": "Tokens and where a member is signed in.",
    "api keys": "How machines act in a member's name.",
    "members": "Who takes part, and what each may do.",
    "meters": "The registry: which meters there are, whose they are, what is decided about them.",
    "readings": "What meters sent: readings, energy, seals, evidence.",
    "keys": "The keys under which meters sign.",
    "minting": "What became of surplus energy, and how much GRID there is.",
    "tokens": "What is behind a token.",
    "quarantine": "What is held, and an operator's word on it.",
    "agents": "What meters ask and send over HTTPS.",
    "fleet": "How the meters are.",
    "notifications": "What members are told, and how.",
    "webhooks": "Where members are told.",
    "live": "What is going on at this moment.",
    "audit": "Who did what.",
    "service": "How the hub itself is.",
}

NO_DATABASE: Final = frozenset({("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics")})
"""These never say that the database is away: one says it in its own words, the others do not ask it."""

UNDESCRIBED: Final = "Successful Response"

_EVERYWHERE: Final[tuple[type[HubError], ...]] = (errors.RateLimited, errors.TooManyConnections)
_GUARDED: Final = (errors.Unauthorized, errors.AccessTokenExpired, errors.Forbidden)
_ONCE: Final = (errors.IdempotencyKeyMissing, errors.IdempotencyKeyInFlight, errors.IdempotencyKeyReused)

_PROBLEM: Final[Document] = {
    "title": "Problem",
    "description": "Why a request was refused (RFC 9457). Programs look at `code`; `detail` is for people.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "A URN made of the code; nothing to fetch."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^[a-z_]+$"},
        "request_id": {"type": "string"},
    },
}
_PROBLEM_REF: Final = "#/components/schemas/Problem"

_HEADERS: Final[Document] = {
    "X-Request-ID": {
        "description": "Names the request in our log: as sent, if it is fit for that.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true` if the request was performed before and this is its answer again.",
        "schema": {"const": "true"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WWW-Authenticate": {
        "description": "What to authenticate with (RFC 6750, RFC 7617).",
        "required": True,
        "schema": {"type": "string"},
    },
}


def describe(app: FastAPI) -> Document:
    """The document, made once for each application."""
    if app.openapi_schema is None:
        document = app.openapi()
        document["info"] |= {"version": version("commonwatt"), "description": ABOUT}
        document["components"]["schemas"]["Problem"] = _PROBLEM
        document["components"]["headers"] = _HEADERS
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete((method.upper(), path), operation)
                _describe_success(operation, document["components"]["schemas"])
        document["tags"] = [{"name": name, "description": about} for name, about in TAGS.items()]
        declare_security(document)
    return app.openapi_schema or document


def operation_id(route: APIRoute) -> str:
    """What client generators call an operation: the name of its function."""
    return route.name


def _complete(route: Route, operation: Document) -> None:
    """Write into one operation what every route has in common with others of its kind."""
    operation.setdefault("tags", ["service"])
    method, _ = route
    once = method == "POST" and route not in REPEATABLE_ROUTES
    for parameter in operation.get("parameters", []):
        if once and parameter["name"].lower() == "idempotency-key":
            parameter |= {
                "name": "Idempotency-Key",
                "required": True,
                "description": "Names this act: sent again, it is not performed again, but answered alike.",
                "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX, "pattern": "^[!-~]+$"},
            }
    responses: Document = operation["responses"]
    for refused_as, code in _common_refusals(route, operation, once=once):
        response = responses.setdefault(str(refused_as), {})
        response[CODES] = [*response.get(CODES, []), code]
    for status, response in responses.items():
        if CODES in response:
            _describe_refusal(response)
        elif status == "default":
            response["content"] = {PROBLEM_TYPE: {"schema": {"$ref": _PROBLEM_REF}}}
        response["headers"] = {**response.get("headers", {}), **_headers_of(status, once=once)}
    operation["responses"] = {status: responses[status] for status in sorted(responses)}


def _common_refusals(route: Route, operation: Document, *, once: bool) -> Iterator[tuple[int, str]]:
    """What is refused around the route, or by what it asks for before it begins: statuses and codes."""
    common = [*_EVERYWHERE]
    if route not in OPEN_ROUTES:
        common += _GUARDED
    if route not in NO_DATABASE:
        common += [errors.DatabaseAway]
    if once:
        common += _ONCE
    if operation["tags"] != ["service"]:
        common += [errors.MalformedInput]
    if "requestBody" in operation:
        common += [errors.BodyTooLarge, errors.RequestTooSlow]
        yield HTTPStatus.BAD_REQUEST.value, FRAMEWORK_CODES[HTTPStatus.BAD_REQUEST]
    if "{meter_id}" in route[1]:
        common += [errors.MeterNotFound]
    for error in common:
        yield error.status, error.code


def _headers_of(status: str, *, once: bool) -> Document:
    names = ["X-Request-ID"]
    if once and status.startswith("2"):
        names.append("Idempotency-Replayed")
    if status in ("429", "503"):
        names.append("Retry-After")
    if status == "401":
        names.append("WWW-Authenticate")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _describe_success(operation: Document, schemas: Document) -> None:
    """In place of FastAPI's two words, what the answer's model says of itself."""
    for response in operation["responses"].values():
        if response["description"] == UNDESCRIBED:
            schema = next(iter(response["content"].values()))["schema"]
            model = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
            response["description"] = model.get("description", operation["summary"])


def _describe_refusal(response: Document) -> None:
    codes = list(dict.fromkeys(response.pop(CODES)))
    response["description"] = " ".join(f"`{code}`: {_TITLES[code]}." for code in codes)
    schema = {"allOf": [{"$ref": _PROBLEM_REF}, {"properties": {"code": {"enum": codes}}}]}
    response.setdefault("content", {})[PROBLEM_TYPE] = {"schema": schema}


def _every_error(kind: type[HubError]) -> Iterable[type[HubError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _every_error(each)


_TITLES: Final = {each.code: each.title for each in _every_error(HubError)} | {
    code: status.phrase for status, code in FRAMEWORK_CODES.items()
}
