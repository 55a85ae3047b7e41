"""HTTP for the registry: register, list, govern, command. What a meter sent is in `hub/readings/api.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.api_types import ITEMS_PER_PAGE_DEFAULT, ITEMS_PER_PAGE_MAX, MeterPath, Note, Parameters, Strict, iso, refusals
from hub.auth import members_service
from hub.dependencies import CurrentAccess, Hub, Once, OnceOnly, TheHub, Transaction, refuse_query
from hub.errors import (
    EnrolmentInvalid,
    MeterAlreadyRegistered,
    MeterKeyInUse,
    MeterNotActive,
    MeterNotSuspended,
    MeterRetired,
    MintingUnchanged,
)
from hub.idempotency import Answer
from hub.permissions import Reach
from hub.registry import onboarding_service, rules, service, store
from hub.registry.answers import (
    BrokerPasswordAnswer,
    CommandAnswer,
    MetersAnswer,
    MeterStateAnswer,
    MintingAnswer,
    RegisteredMeterAnswer,
)
from hub.registry.onboarding_api import on_chain_json
from hub.registry.onboarding_store import ChainAccount
from protocol import command
from protocol.enrolment import KIND_NAMES, MEASUREMENT_NAMES, STATEMENT_BYTES
from protocol.limits import METER_ID_BYTES_MAX, SEQUENCE_MAX
from protocol.seal import SIGNATURE_BYTES

COMMAND_LIFE_MAX_S = 86_400
ENROLMENT_HEX_LENGTH = 2 * (STATEMENT_BYTES + SIGNATURE_BYTES)

router = APIRouter(tags=["meters"])

COMMAND_KINDS = {name: kind for kind, name in command.KIND_NAMES.items()}
CapacityW = Annotated[int, Field(le=rules.CAPACITY_W_MAX)]


class NewMeter(Strict):
    """The meter's own signed statement, and what the operator knows of the installation."""

    enrolment: str = Field(min_length=ENROLMENT_HEX_LENGTH, max_length=ENROLMENT_HEX_LENGTH, pattern="^[0-9a-f]*$")
    production_capacity_w: CapacityW = Field(ge=0)
    connection_capacity_w: CapacityW = Field(ge=1)
    register_quantum_wh: int = Field(default=rules.REGISTER_QUANTUM_WH_DEFAULT, ge=1, le=rules.REGISTER_QUANTUM_WH_MAX)


class Reason(Strict):
    """Why an operator intervenes; goes to the audit log."""

    reason: Note


class Minting(Strict):
    """Whether what the meter measures may be minted, and why; goes to the audit log."""

    allowed: bool
    reason: Note


class NewCommand(Strict):
    """An order to a meter; what `first` and `last` mean depends on the kind (protocol/command.py)."""

    kind: Literal["set_interval", "resend", "restart"]
    first: int = Field(default=0, ge=0, le=SEQUENCE_MAX)
    last: int = Field(default=0, ge=0, le=SEQUENCE_MAX)
    expires_in_s: int = Field(default=3_600, ge=1, le=COMMAND_LIFE_MAX_S)


class MetersQuery(Parameters):
    """A page of meters, in the order of their ids; the cursor is the last id seen."""

    owner: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="The owner's public key.")
    cursor: str = Field(default="", max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]*$")
    limit: int = Field(default=ITEMS_PER_PAGE_DEFAULT, ge=1, le=ITEMS_PER_PAGE_MAX)


def meter_json(meter: store.Meter, on_chain: ChainAccount | None) -> dict[str, Any]:
    """A meter as the API shows it, with its account on the chain if it has one."""
    return {
        "meter_id": meter.meter_id,
        "shard": meter.shard,
        "kind": KIND_NAMES[meter.kind],
        "measurement": MEASUREMENT_NAMES[meter.measurement],
        "owner": meter.owner.hex(),
        "state": meter.state,
        "key_epoch": meter.key_epoch,
        "production_capacity_w": meter.production_capacity_w,
        "connection_capacity_w": meter.connection_capacity_w,
        "register_quantum_wh": meter.register_quantum_wh,
        "phases_netted": meter.phases_netted,
        "minting_allowed": meter.minting_allowed,
        "commands_issued": meter.command_counter,
        "broker_ready": meter.broker_ready_at is not None,
        "registered_at": iso(meter.registered_at),
        "chain": on_chain_json(on_chain),
    }


@router.post(
    "/meters",
    status_code=201,
    response_model=RegisteredMeterAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(EnrolmentInvalid, MeterAlreadyRegistered, MeterKeyInUse),
)
def register_meter(body: NewMeter, hub: TheHub, once: OnceOnly) -> Response:
    """Register a meter by its enrolment statement. 201 with what its agent needs to connect."""

    def perform() -> Answer:
        meter = service.register_meter(
            once.connection,
            bytes.fromhex(body.enrolment),
            service.Capacity(body.production_capacity_w, body.connection_capacity_w, body.register_quantum_wh),
            hub.settings.domain,
            hub.settings.backlog_age_max_s,
            once.actor,
            once.now,
        )
        return {
            "meter_id": meter.meter_id,
            "key_epoch": meter.key_epoch,
            "shard": meter.shard,
            "state": meter.state,
            "domain": hub.settings.domain.hex(),
            "community_id": hub.settings.community_id,
            "command_public_key": hub.command_key.public_key.hex(),
        }

    def with_password(stored: Answer) -> Answer:
        return {**stored, "broker": _broker_account(hub, once, str(stored["meter_id"]))}

    return once.answer(body, 201, perform, with_password)


@router.get("/meters", response_model=MetersAnswer)
def list_meters(query: Annotated[MetersQuery, Query()], access: CurrentAccess, connection: Transaction) -> Response:
    """Meters by id. Who may not see all sees those that name one of its wallets as their owner."""
    owners = None if query.owner is None else {bytes.fromhex(query.owner)}
    if access.reach is Reach.OWN:
        wallets = set(members_service.wallets_of(connection, access.actor.member_id))
        owners = wallets if owners is None else wallets & owners
    meters = service.list_meters(connection, owners, query.cursor, query.limit + 1)
    page = meters[: query.limit]
    on_chain = onboarding_service.map_meter_accounts(connection, [meter.meter_id for meter in page])
    return JSONResponse(
        {
            "meters": [meter_json(meter, on_chain.get(meter.meter_id)) for meter in page],
            "next_cursor": page[-1].meter_id if len(meters) > query.limit else None,
        }
    )


@router.post(
    "/meters/{meter_id}/suspend",
    response_model=MeterStateAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterNotActive),
)
def suspend_meter(meter_id: MeterPath, body: Reason, once: OnceOnly) -> Response:
    """Hold everything that this meter sends from now on."""

    def perform() -> Answer:
        service.suspend_meter(once.connection, meter_id, body.reason, once.actor, once.now)
        return {"meter_id": meter_id, "state": rules.SUSPENDED}

    return once.answer(body, 200, perform)


@router.post(
    "/meters/{meter_id}/resume",
    response_model=MeterStateAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterNotSuspended),
)
def resume_meter(meter_id: MeterPath, body: Reason, once: OnceOnly) -> Response:
    """Accept this meter's seals again."""

    def perform() -> Answer:
        service.resume_meter(once.connection, meter_id, body.reason, once.actor, once.now)
        return {"meter_id": meter_id, "state": rules.ACTIVE}

    return once.answer(body, 200, perform)


@router.post(
    "/meters/{meter_id}/retire",
    response_model=MeterStateAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterRetired),
)
def retire_meter(meter_id: MeterPath, body: Reason, once: OnceOnly) -> Response:
    """End this meter's life for good: what it still sends is held, its broker account goes."""

    def perform() -> Answer:
        service.retire_meter(once.connection, meter_id, body.reason, once.actor, once.now)
        return {"meter_id": meter_id, "state": rules.RETIRED}

    return once.answer(body, 200, perform)


@router.post(
    "/meters/{meter_id}/minting",
    response_model=MintingAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterRetired, MintingUnchanged),
)
def decide_minting(meter_id: MeterPath, body: Minting, once: OnceOnly) -> Response:
    """Allow or forbid that what this meter measures is minted."""

    def perform() -> Answer:
        service.set_minting_allowed(once.connection, meter_id, body.allowed, body.reason, once.actor, once.now)
        return {"meter_id": meter_id, "minting_allowed": body.allowed}

    return once.answer(body, 200, perform)


@router.post(
    "/meters/{meter_id}/broker-password",
    response_model=BrokerPasswordAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterRetired),
)
def renew_broker_password(meter_id: MeterPath, body: Reason, hub: TheHub, once: OnceOnly) -> Response:
    """Give the meter another broker password. The old one ends as soon as the broker answers."""

    def perform() -> Answer:
        generation = service.renew_broker_password(once.connection, meter_id, body.reason, once.actor, once.now)
        return {"meter_id": meter_id, "password_generation": generation}

    def with_password(stored: Answer) -> Answer:
        return {**stored, "broker": _broker_account(hub, once, meter_id)}

    return once.answer(body, 200, perform, with_password)


@router.post(
    "/meters/{meter_id}/commands",
    status_code=202,
    response_model=CommandAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterNotActive),
)
def command_meter(meter_id: MeterPath, body: NewCommand, hub: TheHub, once: OnceOnly) -> Response:
    """Sign an order for this meter. 202: the broker gets it as soon as it answers."""

    def perform() -> Answer:
        return service.command_meter(
            once.connection,
            meter_id,
            hub.settings.domain,
            hub.command_key,
            COMMAND_KINDS[body.kind],
            body.first,
            body.last,
            body.expires_in_s,
            once.actor,
            once.now,
        )

    return once.answer(body, 202, perform)


def _broker_account(hub: Hub, once: Once, meter_id: str) -> dict[str, str]:
    """User name and password in force: a repeated answer tells no password of the past."""
    generation = service.get_meter(once.connection, meter_id).password_generation
    return {
        "username": meter_id,
        "password": service.broker_password(hub.broker_secret, meter_id, generation),
    }
