"""Whatever is asked, the answer is an answer: never a 500, always a named code."""

from __future__ import annotations

import contextlib
import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 60

fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["roof", "x" * 33, "-", "%00", "..", "ROOF", "roof ", "%2f", "é"]) | st.text(max_size=40)
words = st.text(max_size=40) | st.sampled_from(
    ["json", "raw", "day", "2026-11-20T00:00:00Z", "0", "-1", "9" * 30, "NaN"]
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "enrolment": st.text("0123456789abcdef", min_size=488, max_size=488) | anything,
        "production_capacity_w": st.integers(0, 10_000_000) | anything,
        "connection_capacity_w": st.integers(1, 10_000_000) | anything,
        "register_quantum_wh": anything,
        "reason": st.text(min_size=1, max_size=600) | anything,
        "note": st.text(min_size=1, max_size=600) | anything,
        "kind": st.sampled_from(["set_interval", "resend", "restart"]) | anything,
        "first": st.integers(0, 2**53 - 1) | anything,
        "last": st.integers(0, 2**53 - 1) | anything,
        "expires_in_s": st.integers(1, 86_400) | anything,
        "allowed": st.booleans() | anything,
        "from": words,
        "rotation": st.text("0123456789abcdef", min_size=616, max_size=616) | anything,
        "replacements": anything,
        "request": st.text("0123456789abcdef", min_size=272, max_size=272) | anything,
    },
)
ROUTES = [
    "/meters",
    "/meters/{}/suspend",
    "/meters/{}/resume",
    "/meters/{}/commands",
    "/meters/{}/retire",
    "/meters/{}/minting",
    "/meters/{}/broker-password",
    "/meters/{}/keys",
    "/meters/{}/keys/1/revoke",
    "/agent/credentials",
    "/meters/{}/backlog/release",
    "/quarantine/{}/release",
    "/quarantine/{}/reject",
]
READ_ROUTES = [
    "/meters",
    "/meters/{}",
    "/meters/{}/readings",
    "/meters/{}/latest",
    "/meters/{}/seals",
    "/meters/{}/seals/{}/{}/evidence",
    "/meters/{}/gaps",
    "/meters/{}/keys",
    "/quarantine",
    "/fleet",
    "/fleet/summary",
    "/meters/{}/status",
    "/alarms",
]


def _check(answer):
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"]


def _path(route, parts):
    return route.format(*(quote(part, safe="%") for part in parts))


@pytest.fixture
def roof(server, new_meter):
    server.register(new_meter("roof"))
    return server


@fuzz
@given(route=st.sampled_from(ROUTES), name=st.just("roof") | names, body=likely | anything, key=st.integers())
def test_no_json_body_breaks_the_hub(roof, route, name, body, key):
    content = json.dumps(body)
    headers = {"Idempotency-Key": str(key), "Content-Type": "application/json"}
    _check(roof.client.post(_path(route, [name]), content=content, headers=headers))


@fuzz
@given(
    route=st.sampled_from(ROUTES),
    body=st.binary(max_size=200),
    content_type=st.sampled_from(["application/json", "text/plain", ""]),
)
def test_no_bytes_break_the_hub(roof, route, body, content_type):
    headers = {"Idempotency-Key": "k", "Content-Type": content_type}
    _check(roof.client.post(_path(route, ["roof"]), content=body, headers=headers))


@fuzz
@given(
    route=st.sampled_from(READ_ROUTES),
    parts=st.tuples(st.just("roof") | names, names, words),
    query=st.dictionaries(
        st.sampled_from(["from", "to", "bucket", "format", "limit", "cursor", "state", "reason", "meter_id"])
        | st.text(max_size=5),
        words,
        max_size=5,
    ),
)
def test_no_question_breaks_the_hub(roof, route, parts, query):
    encodable = {}
    for name, value in query.items():
        with contextlib.suppress(UnicodeEncodeError):
            encodable[name.encode().decode()] = value.encode().decode()
    _check(roof.client.get(_path(route, parts), params=encodable))


@fuzz
@given(
    starts=st.tuples(st.integers(1_577_836_800 // 900, 4_102_444_800 // 900), st.integers(-3, 40_000)),
    bucket=st.sampled_from(["raw", "15min", "hour", "day"]),
    form=st.sampled_from(["json", "csv", "parquet"]),
    limit=st.none() | st.integers(1, 10_000),
)
def test_no_range_breaks_the_hub(roof, starts, bucket, form, limit):
    from hub.api_types import iso_of

    start_unix_s = starts[0] * 900
    parameters = {"from": iso_of(start_unix_s), "to": iso_of(min(4_102_444_800, start_unix_s + starts[1] * 900))}
    more = {} if limit is None else {"limit": limit}
    _check(roof.client.get("/meters/roof/readings", params={**parameters, "bucket": bucket, "format": form, **more}))


@fuzz
@given(meter_id=st.just("roof") | st.text(max_size=40), message=st.binary(max_size=400))
def test_no_posted_bytes_break_the_hub(roof, meter_id, message):
    with contextlib.suppress(UnicodeEncodeError):
        query = quote(meter_id.encode())
        _check(roof.anonymous.post(f"/readings/seals?meter_id={query}", content=message))


@fuzz
@given(key=st.binary(min_size=1, max_size=300), request_id=st.binary(max_size=100))
def test_no_header_breaks_the_hub(roof, key, request_id):
    clean = [bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).strip() for value in (key, request_id)]
    headers = [(b"Idempotency-Key", clean[0]), (b"X-Request-ID", clean[1]), (b"Authorization", b"Bearer \xff")]
    answer = roof.anonymous.post("/meters/roof/suspend", json={"reason": "x"}, headers=headers)
    _check(answer)
