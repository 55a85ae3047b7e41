"""Whether a webhook is signed as Standard Webhooks 1.0 says, as strictly as a careful receiver looks.

Written from the specification and sharing no code with the hub.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

TOLERANCE_S = 300
SECRET_PREFIX = "whsec_"  # noqa: S105 - the mark of such secrets
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
SIGNATURES_MAX = 10
BODY_KEYS = {"type", "timestamp", "data"}
TYPE_PATTERN = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


class WebhookRefused(Exception):
    """Not a webhook that this receiver would act on."""


def decode_secret(text: str) -> bytes:
    """The key behind a secret as the sender shows it. Raises WebhookRefused."""
    if not text.startswith(SECRET_PREFIX):
        raise WebhookRefused("the secret does not begin with whsec_")
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise WebhookRefused("the secret is not base64") from error
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise WebhookRefused(f"the secret has {len(key)} bytes")
    return key


def check(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now_unix_s: int) -> str:
    """The webhook-id of a webhook that one of these secrets signed. Header names in small letters.

    Raises WebhookRefused with the reason.
    """
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not headers.get(name)]
    if missing:
        raise WebhookRefused(f"without {', '.join(missing)}")
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if not re.fullmatch(r"[1-9][0-9]{0,11}", timestamp):
        raise WebhookRefused("the timestamp is not in unix seconds")
    if abs(int(timestamp) - now_unix_s) > TOLERANCE_S:
        raise WebhookRefused("the timestamp is too far from now: a replay by somebody else?")
    given = headers["webhook-signature"].split(" ")
    if len(given) > SIGNATURES_MAX:
        raise WebhookRefused("too many signatures")
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    wanted = [hmac.new(decode_secret(secret), signed, hashlib.sha256).digest() for secret in secrets]
    found = [_decode_signature(entry) for entry in given]
    if not any(mac is not None and hmac.compare_digest(mac, each) for mac in found for each in wanted):
        raise WebhookRefused("no signature is by a secret of ours")
    return message_id


def check_body(headers: Mapping[str, str], body: bytes) -> None:
    """Whether the body has the form that receivers are promised. Raises WebhookRefused."""
    if headers.get("content-type") != "application/json":
        raise WebhookRefused("the content is not application/json")
    try:
        payload = json.loads(body)
    except ValueError as error:
        raise WebhookRefused("the body is not JSON") from error
    if not isinstance(payload, dict) or set(payload) != BODY_KEYS:
        raise WebhookRefused(f"the body is not an object of {', '.join(sorted(BODY_KEYS))}")
    if not isinstance(payload["type"], str) or not TYPE_PATTERN.fullmatch(payload["type"]):
        raise WebhookRefused("the type is not a dotted name")
    try:
        at = datetime.fromisoformat(payload["timestamp"])
    except (TypeError, ValueError) as error:
        raise WebhookRefused("the timestamp of the event is not ISO 8601") from error
    if at.tzinfo is None:
        raise WebhookRefused("the timestamp of the event has no offset")
    if not isinstance(payload["data"], dict):
        raise WebhookRefused("the data is not an object")


def _decode_signature(entry: str) -> bytes | None:
    """The MAC of an entry of version 1; None for another version, which is passed over."""
    version, _, encoded = entry.partition(",")
    if version != "v1":
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise WebhookRefused("a signature is not base64") from error
