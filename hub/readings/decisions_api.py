"""HTTP for the quarantine and for what is missing: what is held, and an operator's word on it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.api_types import MeterName, MeterPath, Note, Page, Strict, decode_cursor, encode_cursor, iso, refusals
from hub.dependencies import OnceOnly, Transaction, refuse_query
from hub.errors import (
    GapAlreadyLost,
    GapNotFound,
    QuarantineAlreadyDecided,
    QuarantineEntryNotFound,
    QuarantineNotReleasable,
)
from hub.idempotency import Answer
from hub.readings import queries, service
from hub.readings.answers import BacklogAnswer, DecisionAnswer, LostGapAnswer, QuarantineAnswer
from protocol.limits import KEY_EPOCH_MAX, SEQUENCE_MAX

router = APIRouter(tags=["quarantine"])

QuarantineId = Annotated[int, Path(ge=1, lt=2**63)]


class QuarantineQuery(Page):
    """Which entries; a filter left out means any."""

    state: Literal["held", "released", "rejected"] | None = None
    reason: str | None = Field(default=None, max_length=64, pattern="^[a-z_]+$")
    meter_id: MeterName | None = None


class Decision(Strict):
    """Why; goes to the audit log."""

    note: Note


@router.get("/quarantine", response_model=QuarantineAnswer)
def list_quarantine(query: Annotated[QuarantineQuery, Query()], connection: Transaction) -> Response:
    """Entries, oldest first."""
    [after_id] = decode_cursor(query.cursor, (0,))
    entries = queries.list_quarantine(connection, query.state, query.reason, query.meter_id, after_id, query.limit + 1)
    shown = entries[: query.limit]
    more = len(entries) > query.limit
    return JSONResponse(
        {
            "entries": [
                {
                    **asdict(entry),
                    "message_hash": entry.message_hash.hex(),
                    "received_at": iso(entry.received_at),
                    "decided_at": None if entry.decided_at is None else iso(entry.decided_at),
                }
                for entry in shown
            ],
            "next_cursor": encode_cursor(shown[-1].quarantine_id) if more else None,
        }
    )


@router.post(
    "/quarantine/{quarantine_id}/release",
    response_model=DecisionAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(QuarantineEntryNotFound, QuarantineAlreadyDecided, QuarantineNotReleasable),
)
def release_entry(quarantine_id: QuarantineId, body: Decision, once: OnceOnly) -> Response:
    """Let a held seal count after all."""

    def perform() -> Answer:
        service.release(once.connection, quarantine_id, once.actor, body.note, once.now)
        return {"quarantine_id": quarantine_id, "state": "released"}

    return once.answer(body, 200, perform)


@router.post(
    "/quarantine/{quarantine_id}/reject",
    response_model=DecisionAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(QuarantineEntryNotFound, QuarantineAlreadyDecided),
)
def reject_entry(quarantine_id: QuarantineId, body: Decision, once: OnceOnly) -> Response:
    """Decide that a held message never counts."""

    def perform() -> Answer:
        service.reject(once.connection, quarantine_id, once.actor, body.note, once.now)
        return {"quarantine_id": quarantine_id, "state": "rejected"}

    return once.answer(body, 200, perform)


@router.post("/meters/{meter_id}/backlog/release", response_model=BacklogAnswer, dependencies=[Depends(refuse_query)])
def release_backlog(meter_id: MeterPath, body: Decision, once: OnceOnly) -> Response:
    """Release all seals of a meter that are held only for their age, as far as their chain verifies."""

    def perform() -> Answer:
        released = service.release_backlog(once.connection, meter_id, once.actor, body.note, once.now)
        return {"meter_id": meter_id, "released": released}

    return once.answer(body, 200, perform)


@router.post(
    "/meters/{meter_id}/gaps/{key_epoch}/{first_sequence}/declare-lost",
    response_model=LostGapAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(GapNotFound, GapAlreadyLost),
)
def declare_gap_lost(
    meter_id: MeterPath,
    key_epoch: Annotated[int, Path(ge=1, le=KEY_EPOCH_MAX)],
    first_sequence: Annotated[int, Path(ge=1, le=SEQUENCE_MAX)],
    body: Decision,
    once: OnceOnly,
) -> Response:
    """Give up the missing seals that begin here, so that minting can go across them."""

    def perform() -> Answer:
        last = service.declare_gap_lost(
            once.connection, meter_id, key_epoch, first_sequence, once.actor, body.note, once.now
        )
        return {
            "meter_id": meter_id,
            "key_epoch": key_epoch,
            "first_sequence": first_sequence,
            "last_sequence": last,
        }

    return once.answer(body, 200, perform)
