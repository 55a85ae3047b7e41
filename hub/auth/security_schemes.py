"""How the description of the interface (OpenAPI) tells what a route asks for: from the tables, not beside them."""

from __future__ import annotations

from typing import Any, Final

from hub.permissions import OPEN_ROUTES, ROUTES, Route

BEARER_SCHEME: Final = "bearer"
METER_SCHEME: Final = "meter_password"

SCHEMES: Final = {
    BEARER_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "The access token of a session (a JWT, ten minutes), or an API key (`cwk_…`).",
    },
    METER_SCHEME: {
        "type": "http",
        "scheme": "basic",
        "description": "A meter's id and the password of its broker account.",
    },
}

BY_METER_PASSWORD: Final = frozenset({("POST", "/agent/report")})
"""Open routes, as members go: a meter identifies itself."""


def declare_security(document: dict[str, Any]) -> dict[str, Any]:
    """Write into an OpenAPI document what each of its routes asks for; gives it back.

    The name beside the scheme is the permission: an API key needs it as a scope, a session a role that has it.
    """
    document.setdefault("components", {})["securitySchemes"] = SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = _security_of((method.upper(), path))
    return document


def _security_of(route: Route) -> list[dict[str, list[str]]]:
    if route in BY_METER_PASSWORD:
        return [{METER_SCHEME: []}]
    return [] if route in OPEN_ROUTES else [{BEARER_SCHEME: [ROUTES[route]]}]
