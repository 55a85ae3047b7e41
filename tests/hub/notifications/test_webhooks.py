"""From what happened to a receiver that may be slow, broken or gone: the same delivery until it has arrived."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from hub.db import transaction
from hub.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled, WebhookEndpointNotFound
from hub.integrations.webhooks import Answer, Outcome, WebhookPost
from hub.notifications import deliveries_store, endpoints_store, jobs, webhook_rules, webhooks_service
from hub.notifications.webhook_rules import FAILING_MAX, PAUSES_S, TRIES_MAX
from hub.outbox.jobs import LEASE, run_jobs_once
from hub.outbox.store import lease_due_job
from tests.hub.notifications.conftest import LOOPBACK
from tests.hub.notifications.telling import MEMBER_SECRET, NOON, Community, an_address

DELIVERIES = (
    "SELECT state, attempts, last_outcome, last_status, next_try_at FROM webhook_deliveries ORDER BY delivery_no"
)


def _endpoint(community, member, receiver, tested=True):
    """An endpoint whose first test is out of the way."""
    with transaction(community.engine) as connection:
        endpoint = webhooks_service.create_endpoint(
            connection, member, receiver.url, "my house", LOOPBACK, "test", community.now
        )
    receiver.trust(_secret(endpoint.endpoint_id))
    if tested:
        community.deliver()
        community.execute("DELETE FROM webhook_deliveries")
        (receiver.directory / "received.jsonl").unlink()
    return endpoint.endpoint_id


def _secret(endpoint_id, generation=1):
    return webhook_rules.secret_text(webhook_rules.derive_secret(MEMBER_SECRET, endpoint_id, generation))


def _deliveries(community, endpoint_id):
    with transaction(community.engine) as connection:
        return deliveries_store.list_deliveries(connection, endpoint_id, None, 2**53, 1_000)[::-1]


def _replay(community, member, endpoint_id, delivery_id):
    with transaction(community.engine) as connection:
        return webhooks_service.replay(connection, member, endpoint_id, delivery_id, community.now)


@pytest.fixture
def community(engine):
    """At the true time: receivers compare it with their own clocks."""
    return Community(engine, now=datetime.now(UTC), receivers_post=WebhookPost(LOOPBACK, timeout_s=1.0))


@pytest.fixture
def member(community):
    return community.member(email=an_address())


def test_an_endpoint_is_tested_at_once_and_told_from_then_on(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver, tested=False)
    community.notify(member)
    assert community.deliver() == 2
    test, told = receiver.received()
    assert (test.refusal, told.refusal) == ("", "")
    assert test.payload["type"] == "webhook.test"
    added, stored = community.told(member)
    assert added.kind == "webhook.endpoint_added", "by the other channels: a thief's endpoint is not asked"
    assert told.payload == {
        "type": "meter.suspended",
        "timestamp": f"{community.now:%Y-%m-%dT%H:%M:%SZ}",
        "data": {
            "notification_id": stored.notification_id,
            "title": "Meter roof is suspended",
            "text": told.payload["data"]["text"],
            "details": {"meter_id": "roof", "reason": "a test"},
        },
    }
    Webhook(_secret(endpoint_id)).verify(told.body, told.headers)
    assert [row[:4] for row in community.rows(DELIVERIES)] == [("delivered", 1, "delivered", 204, None)[:4]] * 2


def test_what_is_turned_off_is_not_posted_nor_what_another_member_is_told(community, member, receiver):
    _endpoint(community, member, receiver)
    community.execute(
        "INSERT INTO notification_preferences VALUES (:member, 'meters', 'webhook', false, now())", member=member
    )
    community.notify(member)
    community.notify(community.member())
    assert community.deliver() == 0
    assert receiver.received() == []


def test_a_receiver_that_is_broken_gets_the_same_delivery_by_and_by(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(statuses=[500, 503, 302, 404, 200])
    community.notify(member)
    for tries in range(5):
        community.deliver()
        community.deliver()  # not before its time
        [delivery] = _deliveries(community, endpoint_id)
        assert delivery.attempts == tries + 1
        if tries < 4:
            assert delivery.state == "waiting"
            assert delivery.next_try_at == community.now + timedelta(seconds=PAUSES_S[tries])
            community.now = delivery.next_try_at
    assert delivery.state == "delivered"
    received = receiver.received()
    assert len({each.id for each in received}) == 1 and len({each.body for each in received}) == 1
    assert len({each.headers["webhook-timestamp"] for each in received}) == 5


def test_after_the_last_try_a_delivery_is_given_up_and_shown(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(status=500)
    community.notify(member)
    for _ in range(TRIES_MAX):
        assert community.deliver() == 1
        [delivery] = _deliveries(community, endpoint_id)
        community.now = delivery.next_try_at or community.now
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("given_up", 10, "the receiver answered 500")
    assert delivery.ended_at == community.now
    community.wait(days=30)
    assert community.deliver() == 0
    assert len(receiver.received()) == 10


def test_what_may_have_arrived_is_unknown_and_goes_again_under_its_id(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(cut=1)
    community.notify(member)
    community.deliver()
    [delivery] = _deliveries(community, endpoint_id)
    assert (delivery.state, delivery.last_outcome, delivery.last_status) == ("waiting", "unknown", None)
    community.now = delivery.next_try_at
    community.deliver()
    first, second = receiver.received()
    assert (first.id, first.body) == (second.id, second.body)
    assert (first.repeated, second.repeated) == (False, True)
    assert _deliveries(community, endpoint_id)[0].state == "delivered"


# --- workers that die -------------------------------------------------------------------------------------------


def test_a_worker_that_dies_between_posting_and_noting_posts_again_under_the_same_id(community, member, receiver):
    """The job is leased, the webhook posted, and then nothing is written: another worker takes the lease over."""
    endpoint_id = _endpoint(community, member, receiver)
    community.notify(member)
    with transaction(community.engine) as connection:
        job = lease_due_job(connection, ["webhook.deliver"], community.now, community.now + LEASE)
    with transaction(community.engine) as connection:
        errand = webhooks_service.begin_errand(connection, endpoint_id, job.payload["delivery_no"], community.now)
    body = errand.delivery.body.encode()
    headers = webhook_rules.headers_of(
        MEMBER_SECRET, endpoint_id, 1, None, errand.delivery.delivery_id, body, community.now
    )
    assert community.receivers_post.send(errand.endpoint.url, headers, body).outcome is Outcome.DELIVERED

    [delivery] = _deliveries(community, endpoint_id)
    assert (delivery.state, delivery.attempts, delivery.last_outcome) == ("queued", 1, "unknown")
    assert community.deliver() == 0, "the lease is another's"
    community.now += LEASE
    assert community.deliver() == 1
    first, second = receiver.received()
    assert (first.id, first.body) == (second.id, second.body)
    [delivery] = _deliveries(community, endpoint_id)
    assert (delivery.state, delivery.attempts) == ("delivered", 2)

    with transaction(community.engine) as connection:  # the dead one comes back, and is not believed
        late = Answer(Outcome.UNKNOWN, None, "no answer in time", 15.0)
        assert not webhooks_service.end_errand(connection, errand, late, 0.0, community.now)
    assert _deliveries(community, endpoint_id) == [delivery]


def test_a_worker_that_dies_after_noting_posts_nothing_again(community, member, receiver):
    _endpoint(community, member, receiver)
    community.notify(member)
    community.deliver()
    community.execute("UPDATE outbox_jobs SET state = 'running', leased_until = :now", now=community.now)
    assert community.deliver() > 0
    assert len(receiver.received()) == 1


def test_a_delivery_that_takes_every_worker_down_ends_too(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    community.notify(member)
    [(delivery_no,)] = community.rows("SELECT delivery_no FROM webhook_deliveries")
    for _ in range(TRIES_MAX):
        with transaction(community.engine) as connection:
            assert webhooks_service.begin_errand(connection, endpoint_id, delivery_no, community.now)
    with transaction(community.engine) as connection:
        assert webhooks_service.begin_errand(connection, endpoint_id, delivery_no, community.now) is None
    [delivery] = _deliveries(community, endpoint_id)
    assert (delivery.state, delivery.last_outcome) == ("given_up", "unknown")
    assert community.deliver() == 1
    assert receiver.received() == []


# --- many at once -----------------------------------------------------------------------------------------------


def test_one_endpoint_gets_one_delivery_at_a_time_in_their_order(community, member, receiver):
    """Four workers, twelve deliveries, a receiver that takes its time: never two on the way to it."""
    endpoint_id = _endpoint(community, member, receiver)
    for _ in range(12):
        community.notify(member)
    on_the_way, most, lock = 0, 0, threading.Lock()

    class Counting(WebhookPost):
        def send(self, url, headers, body):
            nonlocal on_the_way, most
            with lock:
                on_the_way += 1
                most = max(most, on_the_way)
            try:
                return super().send(url, headers, body)
            finally:
                with lock:
                    on_the_way -= 1

    handlers = jobs.webhook_handlers(
        community.engine, Counting(LOOPBACK), MEMBER_SECRET, lambda: community.now, lambda: 0.0
    )

    def work():
        for _ in range(100):
            run_jobs_once(community.engine, handlers, lambda: community.now)
            if not community.rows("SELECT 1 FROM outbox_jobs WHERE state <> 'done'"):
                return

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 1
    assert [each.id for each in receiver.received()] == [
        webhook_rules.webhook_id(each.delivery_id) for each in _deliveries(community, endpoint_id)
    ]


def test_a_dead_endpoint_rests_and_its_other_deliveries_wait_without_a_try(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(status=500)
    for _ in range(10):
        community.notify(member)
    community.deliver()
    deliveries = _deliveries(community, endpoint_id)
    assert [each.attempts for each in deliveries] == [1] + [0] * 9
    assert {each.state for each in deliveries} == {"waiting"}
    receiver.fail()
    community.wait(seconds=5)
    assert community.deliver() == 1, "whether it works again, one of them shows"
    community.deliver()
    assert {each.state for each in _deliveries(community, endpoint_id)} == {"delivered"}
    ids = [webhook_rules.webhook_id(each.delivery_id) for each in deliveries]
    assert [each.id for each in receiver.received()] == [ids[0], *ids]


def test_what_waits_for_a_dead_endpoint_costs_one_job_a_try_however_much_it_is(community, member, receiver):
    """Were each of them asked every minute whether it may go, one member could keep all workers busy, and the table of
    jobs would grow by thousands an hour.
    """
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(status=500)
    for _ in range(60):
        community.notify(member)
    community.deliver()
    for _ in range(20):
        with transaction(community.engine) as connection:
            community.now = endpoints_store.get_endpoint(connection, endpoint_id).rests_until
        jobs.queue_due_deliveries_once(community.engine, community.now)
        assert community.deliver() == 1
    receiver.fail(status=204)  # also of what is signed at the test's time
    community.wait(hours=1)
    while community.deliver():
        pass
    assert {each.state for each in _deliveries(community, endpoint_id)} == {"delivered"}


def test_what_waits_for_a_resting_endpoint_is_not_even_looked_at(community, member, receiver):
    """20,000 deliveries that wait, and one of another member that is due: a few pages, by index alone."""
    resting = _endpoint(community, member, receiver)
    due = _endpoint(community, community.member(), receiver)
    community.execute("UPDATE webhook_endpoints SET failures = 1, rests_until = :until", until=community.now)
    community.execute(
        "UPDATE webhook_endpoints SET rests_until = :until WHERE endpoint_id = :id",
        until=community.now + timedelta(minutes=1),
        id=resting,
    )
    for endpoint_id, count in ((resting, 20_000), (due, 1)):
        community.execute(
            "INSERT INTO webhook_deliveries (delivery_id, endpoint_id, kind, body, state, created_at, next_try_at)"
            " SELECT gen_random_uuid(), :id, 'x', '{}', 'waiting', :now, :now FROM generate_series(1, :count)",
            id=endpoint_id,
            now=community.now,
            count=count,
        )
    community.execute("ANALYZE webhook_deliveries")
    with transaction(community.engine) as connection:
        plan = list(
            connection.execute(
                text(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {deliveries_store.QUEUE_DUE}"),
                {"now": community.now, "at_once_max": 100, "limit": 500},
            ).scalars()
        )
        assert not [line for line in plan if "Seq Scan on webhook_deliveries" in line], plan
        [buffers, *_] = [line for line in plan if "Buffers: shared" in line]
        assert sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", buffers)) < 100, "\n".join(plan)
        assert re.search(r"actual rows=1\b", plan[0]), plan


def test_while_a_delivery_is_on_its_way_the_others_of_its_endpoint_stay_where_they_wait(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    for _ in range(5):
        community.notify(member)
    community.execute(
        "UPDATE webhook_deliveries SET state = 'waiting', next_try_at = :now"
        " WHERE delivery_no <> (SELECT min(delivery_no) FROM webhook_deliveries)",
        now=community.now,
    )
    assert jobs.queue_due_deliveries_once(community.engine, community.now) == 0
    community.run(jobs.webhook_handlers(community.engine, community.receivers_post, MEMBER_SECRET, lambda: NOON))
    assert jobs.queue_due_deliveries_once(community.engine, community.now) == 4
    community.deliver()
    assert {each.state for each in _deliveries(community, endpoint_id)} == {"delivered"}


def test_a_dead_endpoint_holds_up_no_other(community, member, receiver):
    _endpoint(community, member, receiver)
    other = community.member()
    with transaction(community.engine) as connection:
        dead = webhooks_service.create_endpoint(
            connection, other, "http://127.0.0.1:9/", "dead", LOOPBACK, "test", community.now
        )
    for _ in range(20):
        community.notify(other)
    community.notify(member)
    community.deliver()
    assert len(receiver.received()) == 1
    assert sum(each.attempts for each in _deliveries(community, dead.endpoint_id)) == 1


# --- the end of an endpoint -------------------------------------------------------------------------------------


def test_an_endpoint_that_is_gone_is_disabled_and_its_member_told_by_mail(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(statuses=[410])
    for _ in range(3):
        community.notify(member)
    community.deliver()
    with transaction(community.engine) as connection:
        endpoint = webhooks_service.get_endpoint(connection, member, endpoint_id)
    assert (endpoint.state, endpoint.disabled_because) == ("disabled", "gone")
    assert len(receiver.received()) == 1
    assert {each.state for each in _deliveries(community, endpoint_id)} == {"given_up"}
    assert community.kinds_told(member)[-1] == "webhook.endpoint_disabled"
    assert "410" in community.told(member)[-1].data["why"]
    assert community.rows("SELECT action, actor FROM audit_log ORDER BY audit_id DESC LIMIT 1") == [
        ("webhook.disable", "hub")
    ]
    community.notify(member)
    assert community.deliver() == 0


def test_an_endpoint_that_failed_for_five_days_is_disabled(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(status=500)
    begun = community.now
    while community.now < begun + FAILING_MAX + timedelta(days=1):
        community.notify(member)
        community.deliver()
        community.wait(hours=11)
    with transaction(community.engine) as connection:
        endpoint = webhooks_service.get_endpoint(connection, member, endpoint_id)
    assert (endpoint.state, endpoint.disabled_because) == ("disabled", "failing")
    assert community.kinds_told(member).count("webhook.endpoint_disabled") == 1
    last_try = max(each.last_try_at for each in _deliveries(community, endpoint_id) if each.last_try_at)
    assert begun + FAILING_MAX <= last_try < begun + FAILING_MAX + timedelta(hours=11)


def test_a_member_who_is_suspended_meanwhile_is_told_nothing(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    community.notify(member)
    community.execute("UPDATE members SET state = 'suspended' WHERE member_id = :member", member=member)
    community.deliver()
    assert receiver.received() == []
    [delivery] = _deliveries(community, endpoint_id)
    assert (delivery.state, delivery.last_error) == ("given_up", "the member is suspended")


def test_an_endpoint_disabled_while_a_delivery_is_on_its_way(community, member, receiver):
    """What arrived has arrived; what did not is not tried again."""
    endpoint_id = _endpoint(community, member, receiver)
    for _ in range(2):
        community.notify(member)
    numbers = [number for (number,) in community.rows("SELECT delivery_no FROM webhook_deliveries ORDER BY 1")]
    errands = []
    for number in numbers:
        with transaction(community.engine) as connection:
            errands.append(webhooks_service.begin_errand(connection, endpoint_id, number, community.now))
    with transaction(community.engine) as connection:
        webhooks_service.disable_endpoint(connection, member, endpoint_id, "test", community.now)
    answers = [Answer(Outcome.DELIVERED, 200, "", 0.1), Answer(Outcome.REFUSED, 500, "the receiver answered 500", 0.1)]
    for errand, answer in zip(errands, answers, strict=True):
        with transaction(community.engine) as connection:
            assert webhooks_service.end_errand(connection, errand, answer, 0.0, community.now)
    assert [(each.state, each.last_status, each.next_try_at) for each in _deliveries(community, endpoint_id)] == [
        ("delivered", 200, None),
        ("given_up", 500, None),
    ]


# --- replays ----------------------------------------------------------------------------------------------------


def test_a_replay_is_the_same_delivery_once_more(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    community.notify(member)
    community.deliver()
    [delivery] = _deliveries(community, endpoint_id)
    for _ in range(2):
        assert _replay(community, member, endpoint_id, delivery.delivery_id).state == "queued"
    community.deliver()
    first, second = receiver.received()
    assert (first.id, first.body, second.repeated, second.refusal) == (second.id, second.body, True, "")
    [delivery] = _deliveries(community, endpoint_id)
    assert (delivery.state, delivery.attempts, delivery.tries) == ("delivered", 2, 1)


def test_a_replay_of_what_waits_goes_at_once(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    receiver.fail(statuses=[500, 500])
    community.notify(member)
    for _ in range(2):
        community.deliver()
        community.wait(seconds=10)
    [delivery] = _deliveries(community, endpoint_id)
    assert delivery.state == "waiting" and delivery.next_try_at > community.now
    _replay(community, member, endpoint_id, delivery.delivery_id)
    community.deliver()
    assert _deliveries(community, endpoint_id)[0].state == "delivered"


def test_everything_that_was_given_up_since_then_goes_again_oldest_first(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    for _ in range(4):
        community.notify(member)
        community.wait(minutes=1)
    community.execute(
        "UPDATE webhook_deliveries SET state = 'given_up', ended_at = now()"
        " WHERE delivery_no <> (SELECT max(delivery_no) FROM webhook_deliveries)"
    )
    community.execute("UPDATE webhook_deliveries SET state = 'delivered', ended_at = now() WHERE state = 'queued'")
    deliveries = _deliveries(community, endpoint_id)
    with transaction(community.engine) as connection:
        queued = webhooks_service.replay_given_up(
            connection, member, endpoint_id, deliveries[1].created_at, community.now
        )
    assert queued == 2
    community.deliver()
    assert [each.id for each in receiver.received()] == [
        webhook_rules.webhook_id(each.delivery_id) for each in deliveries[1:3]
    ]


def test_nothing_is_replayed_for_another_member_or_to_a_disabled_endpoint(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    community.notify(member)
    [delivery] = _deliveries(community, endpoint_id)
    other = community.member()
    others = _endpoint(community, other, receiver, tested=False)
    with pytest.raises(WebhookEndpointNotFound):
        _replay(community, other, endpoint_id, delivery.delivery_id)
    with pytest.raises(WebhookDeliveryNotFound):
        _replay(community, other, others, delivery.delivery_id)
    with pytest.raises(WebhookDeliveryNotFound):
        _replay(community, member, endpoint_id, UUID(int=1))
    with transaction(community.engine) as connection:
        webhooks_service.disable_endpoint(connection, member, endpoint_id, "test", community.now)
    with pytest.raises(WebhookEndpointDisabled):
        _replay(community, member, endpoint_id, delivery.delivery_id)


def test_both_secrets_sign_for_a_day_and_then_the_new_one_alone(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    with transaction(community.engine) as connection:
        webhooks_service.rotate_secret(connection, member, endpoint_id, "test", community.now)
    for trusted in (1, 2):
        receiver.trust(_secret(endpoint_id, trusted))
        community.notify(member)
        community.deliver()
    community.execute("UPDATE webhook_endpoints SET previous_secret_until = :now", now=community.now)
    for trusted in (1, 2):
        receiver.trust(_secret(endpoint_id, trusted))
        community.notify(member)
        community.deliver()
        community.wait(seconds=5)
    refusals = [each.refusal for each in receiver.received()]
    assert refusals[:2] == ["", ""] and refusals[2] == "no signature is by a secret of ours"
    assert refusals[-1] == ""


def test_no_secret_is_in_the_database(community, member, receiver):
    endpoint_id = _endpoint(community, member, receiver)
    community.notify(member)
    secret = _secret(endpoint_id)
    tables = community.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        dump = json.dumps(community.rows(f"SELECT to_jsonb(t) FROM {table} AS t"))
        assert secret.removeprefix("whsec_") not in dump
