"""Signatures that any library of Standard Webhooks takes, pauses that grow, endpoints that have had enough."""

from __future__ import annotations

import base64
import itertools
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from hub.integrations.webhooks import Answer, Outcome
from hub.notifications import webhook_rules as rules
from hub.notifications.webhook_rules import Health
from simulators.webhooks import signature

MEMBER_SECRET = bytes(range(32))
ENDPOINT = uuid.UUID(int=7)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRETS = st.binary(min_size=24, max_size=64)
BODIES = st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4).map(
    lambda data: rules.encode_body("meter.suspended", "2026-11-20T12:00:00Z", data).encode()
)
JITTERS = st.floats(min_value=0, max_value=1, exclude_max=True)


def _now():
    """The library compares with the clock of the machine."""
    return datetime.now(UTC)


def _headers(delivery_id, body, now, generation=1, previous_until=None, endpoint_id=ENDPOINT):
    return rules.headers_of(MEMBER_SECRET, endpoint_id, generation, previous_until, delivery_id, body, now)


def _secret(generation=1, endpoint_id=ENDPOINT):
    return rules.secret_text(rules.derive_secret(MEMBER_SECRET, endpoint_id, generation))


@given(st.uuids(), BODIES)
def test_the_library_of_the_standard_takes_what_we_sign(delivery_id, body):
    payload = Webhook(_secret()).verify(body, _headers(delivery_id, body, _now()))
    assert set(payload) == {"type", "timestamp", "data"}


@given(SECRETS, st.uuids(), BODIES)
def test_our_signature_is_the_one_that_the_library_makes(secret, delivery_id, body):
    message_id, now = rules.webhook_id(delivery_id), _now()
    ours = rules.sign(secret, message_id, int(now.timestamp()), body)
    assert ours == Webhook(rules.secret_text(secret)).sign(message_id, now, body.decode())


@given(SECRETS, st.uuids(), BODIES)
def test_the_receiver_in_our_tests_takes_what_the_library_signs(secret, delivery_id, body):
    """So it is no friend of the hub's: it knows the standard from elsewhere."""
    text, message_id, now = rules.secret_text(secret), rules.webhook_id(delivery_id), _now()
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(text).sign(message_id, now, body.decode()),
    }
    assert signature.check(headers, body, [text], int(now.timestamp())) == message_id


@given(st.uuids(), BODIES, st.data())
def test_whatever_is_changed_on_the_way_neither_takes_it(delivery_id, body, data):
    now = _now()
    headers = _headers(delivery_id, body, now)
    name = data.draw(st.sampled_from(["body", "webhook-id", "webhook-timestamp", "webhook-signature"]))
    if name == "body":
        place = data.draw(st.integers(0, len(body) - 1))
        body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    elif name == "webhook-signature":
        mac = bytearray(base64.b64decode(headers[name].removeprefix("v1,")))
        mac[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
        headers[name] = "v1," + base64.b64encode(mac).decode()
    elif name == "webhook-timestamp":
        headers[name] = str(int(headers[name]) + data.draw(st.sampled_from([-1, 1])))
    else:
        headers[name] = headers[name][:-1] + ("0" if headers[name][-1] != "0" else "1")
    with pytest.raises(WebhookVerificationError):
        Webhook(_secret()).verify(body, headers)
    with pytest.raises(signature.WebhookRefused):
        signature.check(headers, body, [_secret()], int(now.timestamp()))


def test_after_a_change_both_secrets_sign_for_a_day():
    body, now = b'{"type":"a","timestamp":"2026-11-20T12:00:00Z","data":{}}', _now()
    until = now + rules.OLD_SECRET_LIFE
    headers = _headers(uuid.uuid4(), body, now, 2, until)
    for generation in (1, 2):
        Webhook(_secret(generation)).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(_secret(3)).verify(body, headers)
    later = _headers(uuid.uuid4(), body, now, 2, now)
    Webhook(_secret(2)).verify(body, later)
    with pytest.raises(WebhookVerificationError):
        Webhook(_secret(1)).verify(body, later)


def test_no_two_endpoints_or_generations_share_a_secret():
    secrets = {_secret(generation, uuid.UUID(int=number)) for generation in range(1, 12) for number in range(50)}
    assert len(secrets) == 11 * 50
    other = rules.derive_secret(bytes(32), ENDPOINT, 1)
    assert rules.secret_text(other) != _secret()


def test_letters_of_every_kind_are_sent_as_themselves():
    body = rules.encode_body("a.b", "2026-11-20T12:00:00Z", {"text": "Zähler № 7 ☀"})
    assert "Zähler № 7 ☀" in body


# --- tries ------------------------------------------------------------------------------------------------------


def test_the_pauses_are_those_of_the_standard():
    pauses = [rules.pause_after("meter.suspended", tries, 0.0) for tries in range(1, 11)]
    assert pauses == [
        timedelta(seconds=5),
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=2),
        timedelta(hours=5),
        timedelta(hours=10),
        timedelta(hours=14),
        timedelta(hours=20),
        timedelta(hours=24),
        None,
    ]


@given(st.lists(JITTERS, min_size=9, max_size=9))
def test_whatever_the_dice_say_pauses_grow_and_are_never_shorter_than_told(jitters):
    pauses = [rules.pause_after("a", tries, jitter) for tries, jitter in enumerate(jitters, 1)]
    assert all(first < second for first, second in itertools.pairwise(pauses))
    for pause, told_s in zip(pauses, rules.PAUSES_S, strict=True):
        assert timedelta(seconds=told_s) <= pause <= timedelta(seconds=told_s) * 1.1


def test_a_test_is_tried_once():
    assert rules.pause_after(rules.TEST, 1, 0.5) is None


# --- endpoints --------------------------------------------------------------------------------------------------

GOOD = Answer(Outcome.DELIVERED, 204, "", 0.1)
BAD = Answer(Outcome.REFUSED, 500, "the receiver answered 500", 0.1)
AWAY = Answer(Outcome.UNKNOWN, None, "no answer in time", 15.0)


def test_an_endpoint_that_works_is_not_held_back():
    assert rules.judge(Health(), GOOD, NOON) == (Health(), None)


def test_one_success_ends_all_failing():
    failing = Health(NOON - timedelta(days=4), 40, NOON - timedelta(hours=1))
    assert rules.judge(failing, GOOD, NOON) == (Health(), None)


def test_an_endpoint_that_fails_rests_longer_each_time_but_a_minute_at_most():
    health, rests_s = Health(), []
    for _ in range(8):
        health, reason = rules.judge(health, BAD, NOON)
        assert reason is None and health.failing_since == NOON
        rests_s.append((health.rests_until - NOON).total_seconds())
    assert rests_s == [5, 10, 20, 40, 60, 60, 60, 60]
    assert health.failures == 8


@pytest.mark.parametrize("answer", [AWAY, Answer(Outcome.DELIVERED, 200, "", 14.0)])
def test_a_slow_endpoint_never_has_more_than_a_quarter_of_a_worker(answer):
    health, _ = rules.judge(Health(), answer, NOON)
    rest_s = (health.rests_until - NOON).total_seconds()
    assert answer.duration_s / (answer.duration_s + rest_s) <= 0.25


def test_of_endpoints_that_always_hang_it_takes_hundreds_to_fill_the_workers():
    """A quarter of a worker each would be two dozen, and anybody may have five."""
    health, rests_s = Health(), []
    for _ in range(8):
        health, _ = rules.judge(health, AWAY, NOON)
        rests_s.append((health.rests_until - NOON).total_seconds())
    assert rests_s == [45, 90, 180, 360, 600, 600, 600, 600]


def test_an_endpoint_that_says_it_is_gone_is_gone():
    assert rules.judge(Health(), Answer(Outcome.REFUSED, 410, "", 0.1), NOON)[1] == rules.GONE


@pytest.mark.parametrize("answer", [BAD, AWAY, Answer(Outcome.NOT_SENT, None, "no connection", 0.1)])
def test_an_endpoint_that_failed_for_five_days_is_disabled_and_not_before(answer):
    almost = Health(NOON - rules.FAILING_MAX + timedelta(seconds=1), 20)
    assert rules.judge(almost, answer, NOON)[1] is None
    assert rules.judge(Health(NOON - rules.FAILING_MAX, 20), answer, NOON)[1] == rules.FAILING


def test_an_endpoint_to_which_hardly_anything_was_sent_is_not_disabled_for_its_second_failure():
    """The first test came before the receiver was there; nothing happened for a year; then it stumbles once."""
    long_ago = NOON - timedelta(days=365)
    for failures in range(1, rules.TRIES_MAX - 1):
        assert rules.judge(Health(long_ago, failures), BAD, NOON)[1] is None
    assert rules.judge(Health(long_ago, rules.TRIES_MAX - 1), BAD, NOON)[1] == rules.FAILING


@given(st.lists(st.tuples(st.sampled_from([GOOD, BAD, AWAY]), st.integers(1, 200_000)), max_size=60))
def test_only_who_failed_without_pause_for_five_days_is_disabled(tries):
    health, now, since, failures = Health(), NOON, None, 0
    for answer, seconds in tries:
        now += timedelta(seconds=seconds)
        health, reason = rules.judge(health, answer, now)
        since, failures = (None, 0) if answer is GOOD else (since or now, failures + 1)
        assert (reason == rules.FAILING) == (failures >= 10 and now - since >= timedelta(days=5))
