"""A member's webhook endpoints, and how deliveries to them go on. The network is in `jobs.py`, between two of these."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from hub import metrics
from hub.audit import append_audit
from hub.auth import members_service
from hub.auth.members_store import ACTIVE as MEMBER_ACTIVE
from hub.errors import (
    WebhookDeliveryNotFound,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
    WebhookEndpointsTooMany,
)
from hub.integrations.web_targets import Network, parse_target
from hub.integrations.webhooks import Answer
from hub.notifications import deliveries_store, endpoints_store, webhook_rules
from hub.notifications.deliveries_store import Delivery
from hub.notifications.endpoints_store import ACTIVE, DISABLED, Endpoint
from hub.notifications.kinds import Channel
from hub.notifications.service import notify, queue_delivery, queue_job
from hub.notifications.webhook_rules import BY_MEMBER, FAILING, FIRST_GENERATION, GONE, OLD_SECRET_LIFE, TEST

ACTIVE_ENDPOINTS_MAX: Final = 5
ENDPOINTS_MAX: Final = 50
"""Of one member, disabled ones included."""
REPLAYED_AT_ONCE_MAX: Final = 500
QUEUED_AT_ONCE_MAX: Final = 100
"""Of what waits for one endpoint, in one go; the next when these are done."""

WHY_DISABLED: Final = {
    GONE: "it answered 410, which means that nothing more is wanted there.",
    FAILING: f"everything sent to it has failed for {webhook_rules.FAILING_MAX.days} days.",
}


@dataclass(frozen=True)
class Errand:
    """A try that may be made now."""

    delivery: Delivery
    endpoint: Endpoint


def create_endpoint(
    connection: Connection,
    member_id: UUID,
    url: str,
    description: str,
    networks_allowed: Sequence[Network],
    actor: str,
    now: datetime,
) -> Endpoint:
    """Have a member's notifications posted to this address from now on; a test goes there at once. Audited.

    Only the form of the address is judged here; what its name leads to is looked at in every try, the test's first.
    Raises WebhookUrlRefused, WebhookEndpointsTooMany.
    """
    target = parse_target(url, networks_allowed)
    endpoints_store.lock_endpoints_of_member(connection, member_id)
    if endpoints_store.count_endpoints(connection, member_id) >= ENDPOINTS_MAX:
        raise WebhookEndpointsTooMany(f"{ENDPOINTS_MAX}, disabled ones included")
    _check_active(connection, member_id)
    endpoint = Endpoint(
        endpoint_id=uuid.uuid4(),
        member_id=member_id,
        url=target.url,
        description=description,
        state=ACTIVE,
        disabled_because=None,
        secret_generation=FIRST_GENERATION,
        previous_secret_until=None,
        failing_since=None,
        failures=0,
        rests_until=None,
        created_at=now,
    )
    endpoints_store.insert_endpoint(connection, endpoint)
    _audit(connection, endpoint, "create", actor, now, {"host": target.authority})
    data = {"endpoint_id": str(endpoint.endpoint_id), "host": target.authority}
    notify(connection, member_id, "webhook.endpoint_added", data, now)
    _queue_test(connection, endpoint.endpoint_id, now)
    return endpoint


def list_endpoints(connection: Connection, member_id: UUID) -> list[Endpoint]:
    """A member's endpoints, newest first."""
    return endpoints_store.list_endpoints(connection, member_id, ENDPOINTS_MAX)


def get_endpoint(connection: Connection, member_id: UUID, endpoint_id: UUID) -> Endpoint:
    """This endpoint. Raises WebhookEndpointNotFound, also if it is another member's."""
    endpoint = endpoints_store.find_endpoint(connection, member_id, endpoint_id)
    if endpoint is None:
        raise WebhookEndpointNotFound(str(endpoint_id))
    return endpoint


def disable_endpoint(connection: Connection, member_id: UUID, endpoint_id: UUID, actor: str, now: datetime) -> None:
    """Send nothing more there; what is on its way is given up. Harmless to repeat. Audited.

    Raises WebhookEndpointNotFound.
    """
    endpoint = _get_for_update(connection, member_id, endpoint_id)
    if endpoints_store.set_endpoint_state(connection, endpoint_id, DISABLED, BY_MEMBER):
        deliveries_store.give_up_deliveries(connection, endpoint_id, now)
        _audit(connection, endpoint, "disable", actor, now, {})


def enable_endpoint(connection: Connection, member_id: UUID, endpoint_id: UUID, actor: str, now: datetime) -> None:
    """Send there again. What it missed is not sent by itself: replay it. Harmless to repeat. Audited.

    Raises WebhookEndpointNotFound, WebhookEndpointsTooMany.
    """
    endpoints_store.lock_endpoints_of_member(connection, member_id)
    endpoint = _get_for_update(connection, member_id, endpoint_id)
    if endpoint.state == ACTIVE:
        return
    _check_active(connection, member_id)
    endpoints_store.set_endpoint_state(connection, endpoint_id, ACTIVE, None)
    _audit(connection, endpoint, "enable", actor, now, {})


def rotate_secret(connection: Connection, member_id: UUID, endpoint_id: UUID, actor: str, now: datetime) -> Endpoint:
    """Sign with another secret; for OLD_SECRET_LIFE the old one signs too. Audited. Raises WebhookEndpointNotFound."""
    endpoint = _get_for_update(connection, member_id, endpoint_id)
    generation = endpoint.secret_generation + 1
    endpoints_store.set_secret(connection, endpoint_id, generation, now + OLD_SECRET_LIFE)
    _audit(connection, endpoint, "rotate_secret", actor, now, {"generation": generation})
    data = {"endpoint_id": str(endpoint_id), "description": endpoint.description}
    notify(connection, member_id, "webhook.secret_rotated", data, now)
    return get_endpoint(connection, member_id, endpoint_id)


def send_test(connection: Connection, member_id: UUID, endpoint_id: UUID, now: datetime) -> Delivery:
    """Queue a test, which is tried once. Raises WebhookEndpointNotFound, WebhookEndpointDisabled."""
    _get_active_for_update(connection, member_id, endpoint_id)
    return _queue_test(connection, endpoint_id, now)


def replay(connection: Connection, member_id: UUID, endpoint_id: UUID, delivery_id: UUID, now: datetime) -> Delivery:
    """Send a delivery again, delivered or not, with its own webhook-id and body; its tries begin anew.

    Raises WebhookEndpointNotFound, WebhookEndpointDisabled, WebhookDeliveryNotFound.
    """
    _get_active_for_update(connection, member_id, endpoint_id)
    delivery = get_delivery(connection, endpoint_id, delivery_id)
    if deliveries_store.queue_again(connection, delivery.delivery_no):
        queue_job(connection, endpoint_id, delivery.delivery_no, now)
    return get_delivery(connection, endpoint_id, delivery_id)


def replay_given_up(connection: Connection, member_id: UUID, endpoint_id: UUID, since: datetime, now: datetime) -> int:
    """Send again what was made since then and given up, oldest first, at most REPLAYED_AT_ONCE_MAX; how many.

    Raises WebhookEndpointNotFound, WebhookEndpointDisabled.
    """
    _get_active_for_update(connection, member_id, endpoint_id)
    numbers = deliveries_store.queue_given_up(connection, endpoint_id, since, REPLAYED_AT_ONCE_MAX)
    for delivery_no in numbers:
        queue_job(connection, endpoint_id, delivery_no, now)
    return len(numbers)


def get_delivery(connection: Connection, endpoint_id: UUID, delivery_id: UUID) -> Delivery:
    """This delivery to this endpoint. Raises WebhookDeliveryNotFound."""
    delivery = deliveries_store.find_delivery(connection, endpoint_id, delivery_id)
    if delivery is None:
        raise WebhookDeliveryNotFound(str(delivery_id))
    return delivery


# --- on the way ------------------------------------------------------------------------------------------------


def begin_errand(connection: Connection, endpoint_id: UUID, delivery_no: int, now: datetime) -> Errand | None:
    """Decide whether this delivery may be tried now, and count the try before it is made; None if it may not.

    What may not be tried now waits, or has ended: then nothing is left for the job to do.
    """
    endpoint = endpoints_store.get_endpoint(connection, endpoint_id)
    if endpoint.state != ACTIVE:
        deliveries_store.give_up_delivery(connection, delivery_no, "the endpoint is disabled", now)
        return None
    if members_service.get_member(connection, endpoint.member_id).state != MEMBER_ACTIVE:
        deliveries_store.give_up_delivery(connection, delivery_no, "the member is suspended", now)
        return None
    if endpoint.rests_until is not None and endpoint.rests_until > now:
        deliveries_store.postpone_delivery(connection, delivery_no, endpoint.rests_until)
        return None
    delivery = deliveries_store.begin_try(connection, delivery_no, now)
    if delivery is not None and delivery.tries > webhook_rules.TRIES_MAX:  # each of them ended with the process
        deliveries_store.give_up_delivery(connection, delivery_no, None, now)
        return None
    return None if delivery is None else Errand(delivery, endpoint)


def end_errand(connection: Connection, errand: Errand, answer: Answer, jitter: float, now: datetime) -> bool:
    """Note how a try ended, and what follows: another try, giving up, the end of the endpoint.

    False if somebody else has begun another try meanwhile: then that one counts. `jitter` is in [0, 1).
    """
    delivery = errand.delivery
    endpoint = endpoints_store.get_endpoint_for_update(connection, delivery.endpoint_id)  # before deliveries, as below
    pause = webhook_rules.pause_after(delivery.kind, delivery.tries, jitter)
    if answer.outcome == deliveries_store.DELIVERED:
        state, next_try_at = deliveries_store.DELIVERED, None
    elif pause is None:
        state, next_try_at = deliveries_store.GIVEN_UP, None
    else:
        state, next_try_at = deliveries_store.WAITING, now + pause
    if not deliveries_store.end_try(connection, delivery, answer, state, next_try_at, now):
        return False
    health, reason = webhook_rules.judge(endpoint.health, answer, now)
    endpoints_store.set_health(connection, endpoint.endpoint_id, health)
    if reason is not None:
        _disable_for(connection, endpoint, reason, now)
    metrics.NOTIFICATIONS.labels(Channel.WEBHOOK, state if state != deliveries_store.WAITING else answer.outcome).inc()
    return True


def queue_due_deliveries(connection: Connection, now: datetime, limit: int) -> int:
    """Write the jobs of deliveries that waited long enough; returns how many."""
    due = deliveries_store.queue_due(connection, now, QUEUED_AT_ONCE_MAX, limit)
    for delivery_no, endpoint_id in due:
        queue_job(connection, endpoint_id, delivery_no, now)
    return len(due)


def _disable_for(connection: Connection, endpoint: Endpoint, reason: str, now: datetime) -> None:
    """Disable an endpoint that asked for it or failed for days, and tell its member by the other channels."""
    if not endpoints_store.set_endpoint_state(connection, endpoint.endpoint_id, DISABLED, reason):
        return
    deliveries_store.give_up_deliveries(connection, endpoint.endpoint_id, now)
    _audit(connection, endpoint, "disable", "hub", now, {"reason": reason})
    data = {"endpoint_id": str(endpoint.endpoint_id), "description": endpoint.description, "why": WHY_DISABLED[reason]}
    notify(connection, endpoint.member_id, "webhook.endpoint_disabled", data, now)


def _queue_test(connection: Connection, endpoint_id: UUID, now: datetime) -> Delivery:
    return queue_delivery(connection, endpoint_id, TEST, {"text": "This is a test."}, now)


def _check_active(connection: Connection, member_id: UUID) -> None:
    if len(endpoints_store.list_active_endpoint_ids(connection, member_id)) >= ACTIVE_ENDPOINTS_MAX:
        raise WebhookEndpointsTooMany(f"{ACTIVE_ENDPOINTS_MAX} that are active")


def _get_for_update(connection: Connection, member_id: UUID, endpoint_id: UUID) -> Endpoint:
    endpoint = endpoints_store.find_endpoint_for_update(connection, member_id, endpoint_id)
    if endpoint is None:
        raise WebhookEndpointNotFound(str(endpoint_id))
    return endpoint


def _get_active_for_update(connection: Connection, member_id: UUID, endpoint_id: UUID) -> Endpoint:
    endpoint = _get_for_update(connection, member_id, endpoint_id)
    if endpoint.state != ACTIVE:
        raise WebhookEndpointDisabled(str(endpoint_id))
    return endpoint


def _audit(
    connection: Connection, endpoint: Endpoint, verb: str, actor: str, now: datetime, detail: dict[str, object]
) -> None:
    append_audit(connection, now, actor, f"webhook.{verb}", f"webhook:{endpoint.endpoint_id}", detail)
