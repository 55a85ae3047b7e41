"""What docs/webhooks.md shows is what happens."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

from hub.notifications import webhook_rules as rules
from hub.notifications.kinds import render

GUIDE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
MEMBER_SECRET = bytes(range(32))
ENDPOINT = uuid.UUID(int=7)


def test_the_code_in_the_guide_takes_what_we_send_and_nothing_else():
    [code] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    shown = {}
    exec(code, shown)  # noqa: S102 - the page is ours
    is_ours = shown["is_ours"]
    body, now = rules.encode_body("a.b", "2026-11-20T12:00:00Z", {"text": "Zähler"}).encode(), datetime.now(UTC)
    secret = rules.secret_text(rules.derive_secret(MEMBER_SECRET, ENDPOINT, 2))
    old = rules.secret_text(rules.derive_secret(MEMBER_SECRET, ENDPOINT, 1))
    headers = rules.headers_of(MEMBER_SECRET, ENDPOINT, 2, now + rules.OLD_SECRET_LIFE, uuid.uuid4(), body, now)
    assert is_ours(headers, body, secret) and is_ours(headers, body, old)
    assert not is_ours(headers, body + b" ", secret)
    assert not is_ours(headers | {"webhook-id": "msg_2"}, body, secret)
    assert not is_ours(headers, body, rules.secret_text(bytes(32)))
    late = rules.headers_of(MEMBER_SECRET, ENDPOINT, 2, None, uuid.uuid4(), body, datetime(2026, 1, 1, tzinfo=UTC))
    assert not is_ours(late, body, secret)


def test_the_pauses_in_the_guide_are_those_that_are_kept():
    units_s = {"s": 1, "min": 60, "h": 3_600}
    [told] = re.findall(r"try again after ([^(]*)\(", GUIDE)
    pauses_s = [int(number) * units_s[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", told)]
    assert tuple(pauses_s) == rules.PAUSES_S


def test_the_title_in_the_guide_is_the_one_that_is_sent():
    title, _ = render("meter.suspended", {"meter_id": "roof", "reason": "the cover was open"})
    assert f'"title":"{title}"' in GUIDE
