"""Errors as HTTP answers: every refusal leaves here as RFC 9457 problem details with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hub import logs
from hub.db import is_database_away
from hub.errors import BEARER, DatabaseAway, HubError, MalformedInput, RateLimited, RequestTooSlow

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
FIELDS_NAMED_MAX = 20
FIELDS_LENGTH_MAX = 1_000

FRAMEWORK_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
"""Refusals that no class of ours stands for: the framework's own, titled as HTTP does."""
INTERNAL_ERROR = "internal_error"
INTERNAL_ERROR_TITLE = "The hub failed"

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


def problem_document(request_id: str, status: int, code: str, title: str, detail: str) -> dict[str, Any]:
    """What every refusal says. `type` is a URN made of the code: stable, and nothing to fetch."""
    return {
        "type": f"urn:commonwatt:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }


def problem(
    request_id: str,
    status: int,
    code: str,
    title: str,
    detail: str = "",
    challenge: str = "",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document as an answer."""
    more = dict(headers or {})
    if challenge or status == HTTPStatus.UNAUTHORIZED:
        more["WWW-Authenticate"] = challenge or BEARER
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more["Retry-After"] = str(RETRY_AFTER_S)
    document = problem_document(request_id, status, code, title, detail)
    return JSONResponse(document, status, more, media_type=PROBLEM_TYPE)


def problem_of(error: Exception, request_id: str) -> JSONResponse:
    """The answer to an exception, whatever it is. What is not expected is our bug: logged, and not explained."""
    if is_database_away(error):
        log.warning("database_away", error=str(error).splitlines()[0])
        error = DatabaseAway()
    if isinstance(error, HTTPException) and isinstance(error.__cause__, HubError):
        error = error.__cause__  # what ended the reading of a body, in the framework's words
    if isinstance(error, HubError) and error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(
            request_id, error.status, error.code, error.title, error.detail, error.challenge, _headers_of(error)
        )
    if isinstance(error, RequestValidationError):
        return problem(request_id, MalformedInput.status, MalformedInput.code, MalformedInput.title, _fields(error))
    if isinstance(error, HTTPException) and error.status_code in FRAMEWORK_CODES:
        status = HTTPStatus(error.status_code)
        return problem(request_id, error.status_code, FRAMEWORK_CODES[status], status.phrase, headers=error.headers)
    log.error("request_failed", exc_info=error)
    return problem(request_id, 500, INTERNAL_ERROR, INTERNAL_ERROR_TITLE)


def _headers_of(error: HubError) -> Mapping[str, str]:
    if isinstance(error, RateLimited):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, RequestTooSlow):
        return {"Connection": "close"}  # nobody will read the rest of this body
    return {}


def _fields(error: RequestValidationError) -> str:
    """Which fields are wrong and how, without repeating what was sent."""
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    named = "; ".join(faults[:FIELDS_NAMED_MAX])[:FIELDS_LENGTH_MAX]
    return named.encode("utf-8", "backslashreplace").decode()  # names may hold what is no text at all
