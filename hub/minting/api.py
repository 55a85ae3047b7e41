"""HTTP for minting: where a meter's surplus is, what was minted by which transaction, and what is stuck."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.api_types import (
    MeterPath,
    Note,
    Page,
    Parameters,
    Strict,
    decode_cursor,
    encode_cursor,
    iso,
    iso_of,
    refusals,
)
from hub.auth import members_service
from hub.chain import mirrors
from hub.db import snapshot
from hub.dependencies import CurrentAccess, OnceOnly, TheHub, Transaction, refuse_query
from hub.dependencies import Now as TheTime
from hub.errors import MintingNotHeld
from hub.idempotency import Answer
from hub.minting import queries, service, store
from hub.minting.amounts import grid, units
from hub.minting.answers import (
    BlockedMetersAnswer,
    EarningsAnswer,
    MeterMintingAnswer,
    MintsAnswer,
    RetryAnswer,
    SupplyAnswer,
)
from hub.minting.queries import Balance
from hub.minting.rules import QUIET, Nothing, Present, Reason, Step
from hub.minting.store import Mint
from hub.registry import service as registry
from protocol.limits import METER_ID_BYTES_MAX

METERS_PER_PAGE_MAX = 100
"""Each is looked at as a round of minting would."""
NEWEST = 2**53 - 1

SEALS_SAY = frozenset({Reason.GAP, Reason.HELD_SEAL}) | QUIET - {Reason.KIND_NEVER_MINTS}
"""Reasons that concern some seals, or nothing at all: what lies before is still to be minted."""

router = APIRouter(tags=["minting"])


class Why(Strict):
    """Why an operator intervenes; goes to the audit log."""

    reason: Note


class MetersQuery(Parameters):
    """A page of meters, in the order of their ids; the cursor is the last id seen."""

    cursor: str = Field(default="", max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]*$")
    limit: int = Field(default=METERS_PER_PAGE_MAX, ge=1, le=METERS_PER_PAGE_MAX)


@router.get("/meters/{meter_id}/minting", response_model=MeterMintingAnswer)
def get_meter_minting(meter_id: MeterPath, page: Annotated[Page, Query()], hub: TheHub, now: TheTime) -> Response:
    """Where this meter's surplus is, in all and by day, newest first; and what is done next, or why nothing is."""
    [before] = decode_cursor(page.cursor, (NEWEST,))
    with snapshot(hub.engine) as connection:
        assessed = service.assess(connection, meter_id, now)
        meter, step = assessed.meter, assessed.step
        stopped = isinstance(step, Nothing) and step.reason not in SEALS_SAY
        balances = queries.list_balances(connection, meter.meter_no, stopped=stopped)
        position = queries.find_position(connection, meter.meter_no)
    total = sum(balances.values(), Balance())
    days = [each for each in sorted(balances, reverse=True) if each.toordinal() < before]
    shown = days[: page.limit]
    return JSONResponse(
        {
            "meter_id": meter_id,
            "minting_allowed": meter.minting_allowed,
            "presented_key_epoch": position.key_epoch,
            "presented_sequence": position.sequence,
            "next_step": _step_json(step),
            "total": _balance_json(total),
            "minted_units": units(total.minted_wh),
            "days": [{**_balance_json(balances[day]), "day": day.isoformat()} for day in shown],
            "next_cursor": encode_cursor(shown[-1].toordinal()) if len(days) > len(shown) else None,
        }
    )


@router.get("/meters/{meter_id}/mints", response_model=MintsAnswer)
def list_mints(meter_id: MeterPath, page: Annotated[Page, Query()], connection: Transaction) -> Response:
    """What was presented to the chain of this meter, newest first."""
    meter = registry.get_meter(connection, meter_id)
    [before] = decode_cursor(page.cursor, (NEWEST,))
    mints = store.list_mints(connection, meter.meter_no, before, page.limit + 1)
    shown = mints[: page.limit]
    return JSONResponse(
        {
            "mints": [_mint_json(mint) for mint in shown],
            "next_cursor": encode_cursor(shown[-1].mint_id) if len(mints) > page.limit else None,
        }
    )


@router.get("/me/tokens", response_model=EarningsAnswer, dependencies=[Depends(refuse_query)])
def get_my_tokens(access: CurrentAccess, connection: Transaction) -> dict[str, Any]:
    """What the member's own meters have earned, each and in all."""
    owners = members_service.wallets_of(connection, access.actor.member_id)
    lines = queries.list_tokens(connection, owners)
    total_wh = sum(line.minted_wh for line in lines)
    return {
        "amount_units": units(total_wh),
        "amount": grid(total_wh),
        "meters": [
            {
                "meter_id": line.meter_id,
                "amount_units": units(line.minted_wh),
                "amount": grid(line.minted_wh),
                "mints": line.mints,
            }
            for line in lines
        ],
    }


@router.get("/tokens/supply", response_model=SupplyAnswer, dependencies=[Depends(refuse_query)])
def get_supply(connection: Transaction) -> dict[str, Any]:
    """How much GRID there is: what this hub had minted, and what the chain says."""
    minted_wh = queries.sum_minted_wh(connection)
    supply = mirrors.find_grid_supply(connection)
    return {
        "minted_units": units(minted_wh),
        "minted": grid(minted_wh),
        "chain_units": None if supply is None else str(supply.units),
        "chain_slot": None if supply is None else supply.slot,
        "chain_read_at": None if supply is None else iso(supply.mirrored_at),
    }


@router.get("/minting", response_model=BlockedMetersAnswer)
def list_blocked_meters(query: Annotated[MetersQuery, Query()], connection: Transaction, now: TheTime) -> Response:
    """Meters of which nothing is minted although somebody could do something about it."""
    meters = registry.list_meters(connection, None, query.cursor, query.limit + 1)
    blocked = []
    for meter in meters[: query.limit]:
        step = service.assess(connection, meter.meter_id, now).step
        if isinstance(step, Nothing) and step.reason not in QUIET:
            hold = store.find_hold(connection, meter.meter_no)
            blocked.append(
                {
                    "meter_id": meter.meter_id,
                    "reason": step.reason.value,
                    "detail": step.detail,
                    "since": None if hold is None else iso(hold.held_at),
                }
            )
    more = len(meters) > query.limit
    return JSONResponse({"meters": blocked, "next_cursor": meters[query.limit - 1].meter_id if more else None})


@router.post(
    "/meters/{meter_id}/minting/retry",
    response_model=RetryAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MintingNotHeld),
)
def retry_minting(meter_id: MeterPath, body: Why, once: OnceOnly) -> Response:
    """Let minting of a meter go on that is held because the chain refused its last step."""

    def perform() -> Answer:
        service.retry(once.connection, meter_id, body.reason, once.actor, once.now)
        return {"meter_id": meter_id, "held": False}

    return once.answer(body, 200, perform)


def _step_json(step: Step) -> dict[str, Any]:
    if isinstance(step, Nothing):
        needs = step.reason not in QUIET
        return {"does": "nothing", "reason": step.reason.value, "detail": step.detail, "needs_somebody": needs}
    if isinstance(step, Present):
        does = store.WRITE_OFF if step.writes_off else store.SUBMIT if step.settles else store.MAKE_WAY
        detail = f"seal {step.seal.sequence}: {step.minted_wh} Wh to mint, {step.written_off_wh} Wh to write off"
    else:
        does, detail = store.ROTATE, f"key {step.key_epoch}"
    return {"does": does, "reason": None, "detail": detail, "needs_somebody": False}


def _balance_json(balance: Balance) -> dict[str, Any]:
    return {
        "accepted_wh": balance.accepted_wh,
        "minted_wh": balance.minted_wh,
        "pending_wh": balance.pending_wh,
        "held_wh": balance.held_wh,
        "written_off_wh": balance.written_off_wh,
        "earned_back_wh": balance.earned_back_wh,
        "taken_back_wh": balance.taken_back_wh,
        "over_minted_wh": balance.over_minted_wh,
    }


def _mint_json(mint: Mint) -> dict[str, Any]:
    return {
        "mint_id": mint.mint_id,
        "step": mint.step,
        "state": mint.state,
        "key_epoch": mint.key_epoch,
        "first_sequence": mint.first_sequence,
        "last_sequence": mint.last_sequence,
        "closed_from": iso_of(mint.closed_from_unix_s),
        "closed_until": iso_of(mint.closed_until_unix_s),
        "surplus_wh": mint.surplus_wh,
        "minted_wh": mint.minted_wh,
        "amount_units": units(mint.minted_wh),
        "written_off_wh": mint.written_off_wh,
        "earned_back_wh": mint.earned_back_wh,
        "planned_at": iso(mint.planned_at),
        "ended_at": None if mint.ended_at is None else iso(mint.ended_at),
        "transaction_signature": mint.signature,
        "slot": mint.slot,
        "error_code": mint.error_code,
    }
