"""Requests of a device to the hub's API. What matters is what a failure means: refused, or nobody knows.

https only; http for this machine itself (`edge.uplink_settings` refuses anything else).
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from edge.connection import tls_context
from edge.errors import HubRefusedError, HubUnansweredError, SettingsError
from edge.uplink_settings import HubSettings

TIMEOUT_S = 20.0
"""For each wait, and for the whole answer."""
ANSWER_BYTES_MAX = 65_536
DEFINITIVE = (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY)
"""Answers by which the hub says that it did not and will not: anything else may come from something in between."""


def post(hub: HubSettings, path: str, body: Mapping[str, object]) -> dict[str, Any]:
    """The JSON object that the hub answers.

    Raises HubRefusedError, HubUnansweredError, IdentityError if `hub.ca_file` cannot be read, or SettingsError
    without a `hub.url`.
    """
    if not hub.url:
        raise SettingsError("settings_missing", "hub.url: where the hub's API is")
    verify = tls_context(hub.ca_file)
    try:
        with (
            httpx.Client(verify=verify, timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", hub.url + path, json=body, headers={"Accept-Encoding": "identity"}) as response,
        ):
            answer = _object_in(_content(response, time.monotonic() + TIMEOUT_S))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HubUnansweredError("hub_unanswered", f"{hub.url}: {error or type(error).__name__}") from None
    if response.is_success and answer is not None:
        return answer
    code = answer.get("code") if answer is not None else None
    if response.status_code in DEFINITIVE and isinstance(code, str):
        detail = ": ".join(str(answer[part]) for part in ("title", "detail") if answer and answer.get(part))
        raise HubRefusedError(code, detail)
    why = code if isinstance(code, str) else "is this a hub?"
    raise HubUnansweredError("hub_unanswered", f"{hub.url}: status {response.status_code}: {why}")


def _content(response: httpx.Response, deadline_s: float) -> bytes:
    """The body, if it is one of ours: short, and here in time. Raises httpx.HTTPError."""
    content = b""
    for part in response.iter_raw():
        content += part
        if len(content) > ANSWER_BYTES_MAX or time.monotonic() > deadline_s:
            raise httpx.ReadError(f"an answer of {len(content)} bytes and more that does not end")
    return content


def _object_in(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
