"""HTTP for operators: how the fleet is, how one meter is, what alarms there are. Nothing is changed."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.api_types import (
    ITEMS_PER_PAGE_DEFAULT,
    ITEMS_PER_PAGE_MAX,
    MeterPath,
    Page,
    Parameters,
    decode_cursor,
    encode_cursor,
    iso,
    iso_of,
)
from hub.dependencies import Now, Transaction, refuse_query
from hub.fleet import queries, rules
from hub.fleet.answers import AlarmsAnswer, FleetAnswer, FleetSummaryAnswer, MeterStatusAnswer
from hub.registry import service as registry
from protocol.enrolment import KIND_NAMES
from protocol.limits import METER_ID_BYTES_MAX

NEWEST = 2**53 - 1
"""Before every alarm."""

router = APIRouter(tags=["fleet"])


class FleetQuery(Parameters):
    """Which meters, in the order of their ids; a filter left out means any, the cursor is the last id seen."""

    presence: Literal["online", "offline", "never"] | None = None
    state: Literal["active", "suspended", "retired"] | None = None
    problem: str | None = Field(default=None, pattern="^[a-z0-9_]{1,64}$")
    firmware: str | None = Field(default=None, pattern="^[ -~]{1,64}$")
    behind: bool | None = None
    cursor: str = Field(default="", max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]*$")
    limit: int = Field(default=ITEMS_PER_PAGE_DEFAULT, ge=1, le=ITEMS_PER_PAGE_MAX)


@router.get("/fleet", response_model=FleetAnswer)
def list_fleet(query: Annotated[FleetQuery, Query()], connection: Transaction, now: Now) -> Response:
    """Meters and how they are; `next_cursor` is null on the last page. `held_messages` of one ends at 10,000."""
    filters = queries.Filters(query.presence, query.state, query.problem, query.firmware, query.behind)
    meters = queries.list_fleet(connection, filters, query.cursor, query.limit + 1, now)
    page = meters[: query.limit]
    return JSONResponse(
        {
            "at": iso(now),
            "meters": [_line_json(line) for line in page],
            "next_cursor": page[-1].meter_id if len(meters) > query.limit else None,
        }
    )


@router.get("/fleet/summary", response_model=FleetSummaryAnswer, dependencies=[Depends(refuse_query)])
def sum_up_fleet(connection: Transaction, now: Now) -> dict[str, Any]:
    """The whole fleet in figures."""
    totals = queries.sum_up_fleet(connection, now)
    return {"at": iso(now), **asdict(totals)}


@router.get("/meters/{meter_id}/status", response_model=MeterStatusAnswer, dependencies=[Depends(refuse_query)])
def get_meter_status(meter_id: MeterPath, connection: Transaction, now: Now) -> Response:
    """How a meter is; `stated` is what it last said of itself, null if it never did."""
    meter = registry.get_meter(connection, meter_id)
    [line] = queries.list_fleet(connection, queries.Filters(meter_id=meter_id), "", 1, now)
    stated = queries.find_stated(connection, meter_id)
    return JSONResponse(
        {
            "at": iso(now),
            **_line_json(line),
            "phases_netted": meter.phases_netted,
            "minting_allowed": meter.minting_allowed,
            "stated": None if stated is None else _stated_json(line, stated),
        }
    )


@router.get("/alarms", response_model=AlarmsAnswer)
def list_alarms(page: Annotated[Page, Query()], connection: Transaction) -> Response:
    """What an operator must look into, newest first."""
    [before] = decode_cursor(page.cursor, (NEWEST,))
    alarms = queries.list_alarms(connection, before, page.limit + 1)
    shown = alarms[: page.limit]
    return JSONResponse(
        {
            "alarms": [{**asdict(alarm), "raised_at": iso(alarm.raised_at)} for alarm in shown],
            "next_cursor": encode_cursor(shown[-1].alarm_id) if len(alarms) > page.limit else None,
        }
    )


def _line_json(line: queries.FleetLine) -> dict[str, Any]:
    return {
        "meter_id": line.meter_id,
        "kind": KIND_NAMES[line.kind],
        "state": line.state,
        "presence": line.presence,
        "last_seen_at": _iso_or_null(line.sightings.last_seen_at),
        "status_at": _iso_or_null(line.status_at),
        "last_seal_at": _iso_or_null(line.seal_at),
        "last_reading_at": None if line.last_reading_unix_s is None else iso_of(line.last_reading_unix_s),
        "key_epoch": line.key_epoch,
        "highest_sequence": line.highest_sequence,
        "missing_seals": line.missing_seals,
        "held_messages": line.held_messages,
        "backlog_seals": line.backlog_seals,
        "behind": rules.is_behind(line.backlog_seals, line.missing_seals),
        "clock": line.clock,
        "clock_skew_s": line.clock_skew_s,
        "firmware": line.firmware,
        "transport": line.transport,
        "problems": line.problems,
    }


def _stated_json(line: queries.FleetLine, stated: queries.Stated) -> dict[str, Any]:
    last_reading = stated.last_reading_unix_s
    return {
        "state": line.stated,
        "since": _iso_or_null(line.stated_since),
        "key_epoch": stated.key_epoch,
        "sequence": stated.sequence,
        "backlog_seals": line.backlog_seals,
        "unsealed_readings": line.unsealed_readings,
        "last_reading_at": None if last_reading is None else iso_of(last_reading),
        "journal_bytes": stated.journal_bytes,
        "journal_bytes_max": stated.journal_bytes_max,
        "meters": stated.meters,
        "counts": stated.counts,
    }


def _iso_or_null(at: datetime | None) -> str | None:
    return None if at is None else iso(at)
