"""HTTP for a member's webhook endpoints and their deliveries. What receivers must know is in `docs/webhooks.md`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AfterValidator, Field

from hub.api_types import (
    NOTHING,
    AnswerBody,
    Count,
    Instant,
    Moment,
    NextCursor,
    Nothing,
    Page,
    Strict,
    check_line,
    decode_cursor,
    encode_cursor,
    iso,
    refusals,
)
from hub.dependencies import CurrentActor, OnceOnly, TheGuard, TheHub, Transaction, refuse_query
from hub.errors import (
    WebhookDeliveryNotFound,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
    WebhookEndpointsTooMany,
    WebhookUrlRefused,
)
from hub.idempotency import Answer
from hub.integrations.web_targets import URL_LENGTH_MAX
from hub.integrations.webhooks import Outcome
from hub.limits import policies
from hub.notifications import deliveries_store, webhook_rules, webhooks_service
from hub.notifications.deliveries_store import Delivery
from hub.notifications.endpoints_store import ACTIVE, DISABLED, Endpoint

NEWEST = 2**53 - 1
"""Before every delivery."""
DESCRIPTION_LENGTH_MAX = 100

router = APIRouter(tags=["webhooks"])

DeliveryState = Literal["queued", "waiting", "delivered", "given_up"]


class NewEndpoint(Strict):
    """Where notifications are to be posted: https, port 443 or 8443, a public name; and what the member calls it."""

    url: str = Field(min_length=1, max_length=URL_LENGTH_MAX)
    description: Annotated[str, Field(min_length=1, max_length=DESCRIPTION_LENGTH_MAX), AfterValidator(check_line)]


class Replay(Strict):
    """From when on; earlier deliveries are left as they are."""

    since: Instant


class DeliveriesQuery(Page):
    """A page of deliveries, newest first; of one state, or of all."""

    state: DeliveryState | None = None


class EndpointAnswer(AnswerBody):
    """An endpoint and how it does. `failing_since`: everything has failed since; after five days it is disabled."""

    endpoint_id: UUID
    url: str
    description: str
    state: Literal["active", "disabled"]
    disabled_because: Literal["member", "gone", "failing"] | None
    secret_generation: int = Field(ge=1)
    previous_secret_until: Moment | None = Field(description="Until then the secret before this one signs as well.")
    failing_since: Moment | None
    failures: Count = Field(description="Tries in a row that failed.")
    created_at: Moment


class EndpointsAnswer(AnswerBody):
    """The member's endpoints, newest first."""

    endpoints: list[EndpointAnswer]


class EndpointStateAnswer(AnswerBody):
    """The endpoint is so now."""

    endpoint_id: UUID
    state: Literal["active", "disabled"]


class EndpointSecretAnswer(AnswerBody):
    """The endpoint and the secret that was made for it now, which is shown only here."""

    endpoint_id: UUID
    secret: str = Field(pattern="^whsec_[A-Za-z0-9+/]{43}=$")


class DeliveryAnswer(AnswerBody):
    """A delivery. `webhook_id` is in the header of every try; `unknown`: the receiver may have it."""

    delivery_id: UUID
    webhook_id: str
    kind: str
    state: DeliveryState
    attempts: Count
    created_at: Moment
    last_try_at: Moment | None
    last_outcome: Outcome | None
    last_status: int | None
    last_error: str | None
    last_duration_ms: Count | None
    next_try_at: Moment | None
    ended_at: Moment | None


class DeliveriesAnswer(AnswerBody):
    """A page of deliveries."""

    deliveries: list[DeliveryAnswer]
    next_cursor: NextCursor


class QueuedAnswer(AnswerBody):
    """A delivery that is on its way."""

    delivery_id: UUID
    webhook_id: str
    state: DeliveryState


class ReplayedAnswer(AnswerBody):
    """How many deliveries are on their way again; ask again if it is as many as go at once."""

    queued: Count
    at_once_max: Count


def count_sending(actor: CurrentActor, guard: TheGuard) -> None:
    """Count what a member has sent by hand, before anything else is done. Raises RateLimited."""
    guard.count(policies.WEBHOOK_BY_MEMBER, str(actor.member_id))


@router.get("/me/webhooks", dependencies=[Depends(refuse_query)])
def list_endpoints(actor: CurrentActor, connection: Transaction) -> EndpointsAnswer:
    """The member's endpoints."""
    found = webhooks_service.list_endpoints(connection, actor.member_id)
    return EndpointsAnswer(endpoints=[_endpoint_answer(each) for each in found])


@router.post(
    "/me/webhooks",
    dependencies=[Depends(refuse_query)],
    status_code=201,
    response_model=EndpointSecretAnswer,
    responses=refusals(WebhookUrlRefused, WebhookEndpointsTooMany),
)
def create_endpoint(body: NewEndpoint, actor: CurrentActor, hub: TheHub, once: OnceOnly) -> Response:
    """Have notifications posted to an address. A test goes there at once; its delivery tells whether it arrived."""

    def perform() -> Answer:
        endpoint = webhooks_service.create_endpoint(
            once.connection,
            actor.member_id,
            body.url,
            body.description,
            hub.settings.webhook_networks_allowed,
            once.actor,
            once.now,
        )
        return _without_secret(endpoint)

    return once.answer(body, 201, perform, lambda stored: _with_secret(hub.member_secret, stored))


@router.post(
    "/me/webhooks/{endpoint_id}/disable",
    dependencies=[Depends(refuse_query)],
    response_model=EndpointStateAnswer,
    responses=refusals(WebhookEndpointNotFound),
)
def disable_endpoint(endpoint_id: UUID, actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING) -> Response:
    """Send nothing more there; what is on its way is given up."""

    def perform() -> Answer:
        webhooks_service.disable_endpoint(once.connection, actor.member_id, endpoint_id, once.actor, once.now)
        return {"endpoint_id": str(endpoint_id), "state": DISABLED}

    return once.answer(body, 200, perform)


@router.post(
    "/me/webhooks/{endpoint_id}/enable",
    dependencies=[Depends(refuse_query)],
    response_model=EndpointStateAnswer,
    responses=refusals(WebhookEndpointNotFound, WebhookEndpointsTooMany),
)
def enable_endpoint(endpoint_id: UUID, actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING) -> Response:
    """Send there again. What was missed is replayed only when asked for."""

    def perform() -> Answer:
        webhooks_service.enable_endpoint(once.connection, actor.member_id, endpoint_id, once.actor, once.now)
        return {"endpoint_id": str(endpoint_id), "state": ACTIVE}

    return once.answer(body, 200, perform)


@router.post(
    "/me/webhooks/{endpoint_id}/rotate-secret",
    dependencies=[Depends(refuse_query)],
    response_model=EndpointSecretAnswer,
    responses=refusals(WebhookEndpointNotFound),
)
def rotate_secret(
    endpoint_id: UUID, actor: CurrentActor, hub: TheHub, once: OnceOnly, body: Nothing = NOTHING
) -> Response:
    """Sign with another secret; for 24 hours the old one signs too."""

    def perform() -> Answer:
        return _without_secret(
            webhooks_service.rotate_secret(once.connection, actor.member_id, endpoint_id, once.actor, once.now)
        )

    return once.answer(body, 200, perform, lambda stored: _with_secret(hub.member_secret, stored))


@router.post(
    "/me/webhooks/{endpoint_id}/test",
    dependencies=[Depends(refuse_query), Depends(count_sending)],
    status_code=202,
    response_model=QueuedAnswer,
    responses=refusals(WebhookEndpointNotFound, WebhookEndpointDisabled),
)
def send_test(endpoint_id: UUID, actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING) -> Response:
    """Send a test; it is tried once."""

    def perform() -> Answer:
        return _queued(webhooks_service.send_test(once.connection, actor.member_id, endpoint_id, once.now))

    return once.answer(body, 202, perform)


@router.get("/me/webhooks/{endpoint_id}/deliveries", responses=refusals(WebhookEndpointNotFound))
def list_deliveries(
    endpoint_id: UUID, query: Annotated[DeliveriesQuery, Query()], actor: CurrentActor, connection: Transaction
) -> DeliveriesAnswer:
    """What was sent to an endpoint, newest first, and how that went; for 30 days after it ended."""
    webhooks_service.get_endpoint(connection, actor.member_id, endpoint_id)
    [before] = decode_cursor(query.cursor, (NEWEST,))
    found = deliveries_store.list_deliveries(connection, endpoint_id, query.state, before, query.limit + 1)
    page = found[: query.limit]
    return DeliveriesAnswer(
        deliveries=[_delivery_answer(each) for each in page],
        next_cursor=encode_cursor(page[-1].delivery_no) if len(found) > query.limit else None,
    )


@router.post(
    "/me/webhooks/{endpoint_id}/deliveries/{delivery_id}/replay",
    dependencies=[Depends(refuse_query), Depends(count_sending)],
    status_code=202,
    response_model=QueuedAnswer,
    responses=refusals(WebhookEndpointNotFound, WebhookEndpointDisabled, WebhookDeliveryNotFound),
)
def replay_delivery(
    endpoint_id: UUID, delivery_id: UUID, actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING
) -> Response:
    """Send a delivery again, whatever became of it: the same webhook-id, the same body."""

    def perform() -> Answer:
        return _queued(webhooks_service.replay(once.connection, actor.member_id, endpoint_id, delivery_id, once.now))

    return once.answer(body, 202, perform)


@router.post(
    "/me/webhooks/{endpoint_id}/replay",
    dependencies=[Depends(refuse_query), Depends(count_sending)],
    status_code=202,
    response_model=ReplayedAnswer,
    responses=refusals(WebhookEndpointNotFound, WebhookEndpointDisabled),
)
def replay_given_up(endpoint_id: UUID, body: Replay, actor: CurrentActor, once: OnceOnly) -> Response:
    """Send again everything since then that was given up, oldest first."""

    def perform() -> Answer:
        queued = webhooks_service.replay_given_up(once.connection, actor.member_id, endpoint_id, body.since, once.now)
        return {"queued": queued, "at_once_max": webhooks_service.REPLAYED_AT_ONCE_MAX}

    return once.answer(body, 202, perform)


def _without_secret(endpoint: Endpoint) -> Answer:
    """What is kept of an answer with a secret: which one it was. A repeat shows that one, and not a later one."""
    return {"endpoint_id": str(endpoint.endpoint_id), "generation": endpoint.secret_generation}


def _with_secret(member_secret: bytes, stored: Answer) -> Answer:
    endpoint_id, generation = UUID(str(stored["endpoint_id"])), int(str(stored["generation"]))
    secret = webhook_rules.derive_secret(member_secret, endpoint_id, generation)
    return {"endpoint_id": str(endpoint_id), "secret": webhook_rules.secret_text(secret)}


def _endpoint_answer(endpoint: Endpoint) -> EndpointAnswer:
    return EndpointAnswer.model_validate(
        {
            "endpoint_id": endpoint.endpoint_id,
            "url": endpoint.url,
            "description": endpoint.description,
            "state": endpoint.state,
            "disabled_because": endpoint.disabled_because,
            "secret_generation": endpoint.secret_generation,
            "previous_secret_until": endpoint.previous_secret_until and iso(endpoint.previous_secret_until),
            "failing_since": endpoint.failing_since and iso(endpoint.failing_since),
            "failures": endpoint.failures,
            "created_at": iso(endpoint.created_at),
        }
    )


def _delivery_answer(delivery: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer.model_validate(
        {
            "delivery_id": delivery.delivery_id,
            "webhook_id": webhook_rules.webhook_id(delivery.delivery_id),
            "kind": delivery.kind,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "created_at": iso(delivery.created_at),
            "last_try_at": delivery.last_try_at and iso(delivery.last_try_at),
            "last_outcome": None if delivery.last_outcome is None else Outcome(delivery.last_outcome),
            "last_status": delivery.last_status,
            "last_error": delivery.last_error,
            "last_duration_ms": delivery.last_duration_ms,
            "next_try_at": delivery.next_try_at and iso(delivery.next_try_at),
            "ended_at": delivery.ended_at and iso(delivery.ended_at),
        }
    )


def _queued(delivery: Delivery) -> Answer:
    return {
        "delivery_id": str(delivery.delivery_id),
        "webhook_id": webhook_rules.webhook_id(delivery.delivery_id),
        "state": delivery.state,
    }
