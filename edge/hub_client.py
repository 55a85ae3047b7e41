"""Requests of a device to the hub's API. What matters is what a failure means: refused, or nobody knows.

https only; http for this machine itself (`edge.uplink_settings` refuses anything else).
"""

from collections.abc import Mapping
from typing import Any

import httpx

from edge.connection import tls_context
from edge.errors import HubRefusedError, HubUnansweredError, SettingsError
from edge.uplink_settings import HubSettings

TIMEOUT_S = 20.0
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
        with httpx.Client(verify=verify, timeout=TIMEOUT_S, follow_redirects=False) as client:
            response = client.post(hub.url + path, json=body)
            answer = _object_in(response)
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


def _object_in(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
