"""Errors as HTTP answers: every refusal leaves here as RFC 9457 problem details with a stable `code`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hub import logs
from hub.db import is_database_away
from hub.errors import DatabaseAway, HubError, MalformedInput

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
FIELDS_NAMED_MAX = 20

_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A refusal: RFC 9457 problem details, whose `code` is stable.",
        "content": {
            PROBLEM_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "code", "request_id"],
                    "properties": {
                        "status": {"type": "integer"},
                        **{name: {"type": "string"} for name in ("type", "title", "detail", "code", "request_id")},
                    },
                }
            }
        },
    }
}
"""How the description of the interface (OpenAPI) tells of refusals."""

log = logs.get_logger()


def problem(request_id: str, status: int, code: str, title: str, detail: str = "") -> JSONResponse:
    """A problem document. `type` is a URN made of the code: stable, and nothing to fetch."""
    document: dict[str, Any] = {
        "type": f"urn:commonwatt:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(document, status, headers, media_type=PROBLEM_TYPE)


def problem_of(error: Exception, request_id: str) -> JSONResponse:
    """The answer to an exception, whatever it is. What is not expected is our bug: logged, and not explained."""
    if is_database_away(error):
        log.warning("database_away", error=str(error).splitlines()[0])
        error = DatabaseAway()
    if isinstance(error, HubError) and error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(request_id, error.status, error.code, error.title, error.detail)
    if isinstance(error, RequestValidationError):
        return problem(request_id, MalformedInput.status, MalformedInput.code, MalformedInput.title, _fields(error))
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        return problem(request_id, status, _CODES.get(status, "refused"), status.phrase)
    log.error("request_failed", exc_info=error)
    return problem(request_id, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The hub failed")


def _fields(error: RequestValidationError) -> str:
    """Which fields are wrong and how, without repeating what was sent."""
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return "; ".join(faults[:FIELDS_NAMED_MAX])
