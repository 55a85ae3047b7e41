"""The receiver takes what the standard allows and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from simulators.webhooks.signature import WebhookRefused, check, check_body

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER = "whsec_" + base64.b64encode(KEY[::-1]).decode()
NOW_UNIX_S = 1_795_000_000
BODY = json.dumps({"type": "meter.suspended", "timestamp": "2026-11-20T12:00:00Z", "data": {}}).encode()


def _signature(body=BODY, timestamp=NOW_UNIX_S, message_id="msg_1", key=KEY):
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mac).decode()


def _headers(**changes):
    given = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW_UNIX_S), "webhook-signature": _signature()}
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in (given | changed).items() if value is not None}


def test_the_example_of_the_standard_is_taken():
    """The figures are those of the specification's own libraries' tests."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - public
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert check(headers, body, [secret], 1_614_265_330) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@pytest.mark.parametrize(
    "headers",
    [
        _headers(),
        _headers(webhook_signature=f"v1,{'A' * 43}= {_signature()}"),
        _headers(webhook_signature=f"v1a,whatever {_signature()}"),
        _headers(webhook_signature=_signature(key=KEY[::-1])),
    ],
)
def test_one_good_signature_of_several_is_enough(headers):
    assert check(headers, BODY, [SECRET, OTHER], NOW_UNIX_S + 299) == "msg_1"


@pytest.mark.parametrize(
    "headers",
    [
        _headers(webhook_id=None),
        _headers(webhook_timestamp=None),
        _headers(webhook_signature=None),
        _headers(webhook_id=""),
        _headers(webhook_id="msg_2"),
        _headers(webhook_timestamp=str(NOW_UNIX_S + 1)),
        _headers(webhook_timestamp=f"0{NOW_UNIX_S}"),
        _headers(webhook_timestamp=f"{NOW_UNIX_S}.0"),
        _headers(webhook_timestamp="now"),
        _headers(webhook_timestamp="-1"),
        _headers(webhook_timestamp="٣"),
        _headers(webhook_timestamp=str(NOW_UNIX_S - 301), webhook_signature=_signature(timestamp=NOW_UNIX_S - 301)),
        _headers(webhook_timestamp=str(NOW_UNIX_S + 301), webhook_signature=_signature(timestamp=NOW_UNIX_S + 301)),
        _headers(webhook_signature=_signature(b"{}")),
        _headers(webhook_signature=_signature().replace("v1,", "v2,")),
        _headers(webhook_signature=_signature().removeprefix("v1,")),
        _headers(webhook_signature=_signature()[:-4]),
        _headers(webhook_signature="v1,"),
        _headers(webhook_signature="v1,*"),
        _headers(webhook_signature=_signature(key=b"another key")),
        _headers(webhook_signature=" ".join([_signature(b"{}")] * 10 + [_signature()])),
    ],
)
def test_what_nobody_we_trust_signed_now_is_refused(headers):
    with pytest.raises(WebhookRefused):
        check(headers, BODY, [SECRET], NOW_UNIX_S)


@pytest.mark.parametrize("secret", ["", SECRET.removeprefix("whsec_"), "whsec_", "whsec_***", "whsec_AAAA"])
def test_a_secret_that_is_none_is_noticed(secret):
    with pytest.raises(WebhookRefused):
        check(_headers(), BODY, [secret], NOW_UNIX_S)


def test_without_a_secret_nothing_is_taken():
    with pytest.raises(WebhookRefused):
        check(_headers(), BODY, [], NOW_UNIX_S)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"type":"a","timestamp":"2026-11-20T12:00:00Z"}',
        b'{"type":"a","timestamp":"2026-11-20T12:00:00Z","data":{},"more":1}',
        b'{"type":"A b","timestamp":"2026-11-20T12:00:00Z","data":{}}',
        b'{"type":7,"timestamp":"2026-11-20T12:00:00Z","data":{}}',
        b'{"type":"a","timestamp":"2026-11-20T12:00:00","data":{}}',
        b'{"type":"a","timestamp":1795000000,"data":{}}',
        b'{"type":"a","timestamp":"noon","data":{}}',
        b'{"type":"a","timestamp":"2026-11-20T12:00:00Z","data":[]}',
    ],
)
def test_a_body_of_another_form_is_refused(body):
    with pytest.raises(WebhookRefused):
        check_body({"content-type": "application/json"}, body)


def test_a_body_of_the_promised_form_is_taken():
    check_body({"content-type": "application/json"}, BODY)
    with pytest.raises(WebhookRefused):
        check_body({"content-type": "text/plain"}, BODY)
