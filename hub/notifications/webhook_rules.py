"""How a webhook is signed, when it is tried again, and when its endpoint has had enough. Pure; time is an argument.

Signatures are those of Standard Webhooks 1.0 (symmetric), so that any of its libraries checks them: `docs/webhooks.md`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from hub.integrations.webhooks import Answer, Outcome

TEST: Final = "webhook.test"
"""The type of what a member sends to its own endpoint; it is tried once."""

PAUSES_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After the first try, the second, and so on; after the last there is no other."""
TRIES_MAX: Final = len(PAUSES_S) + 1
JITTER_PART_MAX: Final = 0.1
"""A pause is longer by up to this part, so that what failed together does not come back together."""

OLD_SECRET_LIFE: Final = timedelta(hours=24)
"""For so long after a change of the secret both sign."""
FAILING_MAX: Final = timedelta(days=5)
FAILURES_MIN: Final = TRIES_MAX
"""So long, and so often in a row, an endpoint fails before it is disabled: days without a try prove nothing."""
GONE_STATUS: Final = 410

REST_AFTER_FAILURES_MAX: Final = timedelta(seconds=60)
REST_PART: Final = 3
SLOW_S: Final = 1.0
"""An endpoint that took longer than this rests REST_PART times as long: no receiver, however slow, takes more than a
quarter of one worker's time."""
SLOW_REST_MAX: Final = timedelta(minutes=10)
"""One that took so long and failed rests twice as long each time, up to this: hundreds of them fill no lane."""

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the mark of such secrets, no secret
FIRST_GENERATION: Final = 1

GONE: Final = "gone"
FAILING: Final = "failing"
BY_MEMBER: Final = "member"
"""Why an endpoint is disabled."""


def derive_secret(member_secret: bytes, endpoint_id: UUID, generation: int) -> bytes:
    """The 32 bytes that sign for an endpoint: stored nowhere."""
    return hmac.new(member_secret, f"webhook\x00{endpoint_id}:{generation}".encode(), hashlib.sha256).digest()


def secret_text(secret: bytes) -> str:
    """A secret as the receiver is told it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def webhook_id(delivery_id: UUID) -> str:
    """What a receiver knows a delivery by: the same in every try and every replay."""
    return f"msg_{delivery_id.hex}"


def encode_body(kind: str, happened_at: str, data: Mapping[str, object]) -> str:
    """The body; written once, so that every try has the same bytes. `happened_at` is ISO 8601."""
    return json.dumps({"type": kind, "timestamp": happened_at, "data": data}, ensure_ascii=False, separators=(",", ":"))


def sign(secret: bytes, message_id: str, timestamp_unix_s: int, body: bytes) -> str:
    """One entry of the webhook-signature header."""
    signed = f"{message_id}.{timestamp_unix_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def headers_of(
    member_secret: bytes,
    endpoint_id: UUID,
    generation: int,
    previous_secret_until: datetime | None,
    delivery_id: UUID,
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    """The headers of one try, signed by the secret in force and, for a while after a change, by the one before."""
    generations = [generation]
    if previous_secret_until is not None and now < previous_secret_until:
        generations.append(generation - 1)
    message_id, timestamp_unix_s = webhook_id(delivery_id), int(now.timestamp())
    signatures = [
        sign(derive_secret(member_secret, endpoint_id, each), message_id, timestamp_unix_s, body)
        for each in generations
    ]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_unix_s),
        "webhook-signature": " ".join(signatures),
    }


def pause_after(kind: str, tries: int, jitter: float) -> timedelta | None:
    """How long to wait after so many tries that failed; None: no other try. `jitter` is in [0, 1)."""
    if kind == TEST or tries >= TRIES_MAX:
        return None
    return timedelta(seconds=PAUSES_S[tries - 1] * (1 + JITTER_PART_MAX * jitter))


@dataclass(frozen=True)
class Health:
    """How an endpoint does: since when everything failed, how often in a row, until when nothing is sent to it."""

    failing_since: datetime | None = None
    failures: int = 0
    rests_until: datetime | None = None


def judge(health: Health, answer: Answer, now: datetime) -> tuple[Health, str | None]:
    """The endpoint's health after a try, and why it must be disabled, if it must."""
    rest = timedelta(seconds=REST_PART * answer.duration_s) if answer.duration_s > SLOW_S else timedelta(0)
    if answer.outcome is Outcome.DELIVERED:
        return Health(rests_until=now + rest if rest else None), None
    failures = health.failures + 1
    failing_since = health.failing_since or now
    doubled = 1 << min(failures - 1, 16)
    rest = max(
        min(SLOW_REST_MAX, rest * doubled), min(REST_AFTER_FAILURES_MAX, timedelta(seconds=PAUSES_S[0] * doubled))
    )
    reason = None
    if answer.status == GONE_STATUS:
        reason = GONE
    elif now - failing_since >= FAILING_MAX and failures >= FAILURES_MIN:
        reason = FAILING
    return Health(failing_since, failures, now + rest), reason
