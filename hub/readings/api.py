"""HTTP for what meters sent: a meter's progress, readings by range and bucket, seals and their bytes, gaps.

What operators decide is in `decisions_api.py`; what can be posted without a token is in `posted_api.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field
from sqlalchemy import Connection

from hub.api_types import (
    CURSOR_LENGTH_MAX,
    Instant,
    MeterPath,
    Page,
    Parameters,
    decode_cursor,
    encode_cursor,
    iso,
    iso_of,
    refusals,
)
from hub.db import snapshot, transaction
from hub.dependencies import Hub, TheHub, Transaction, refuse_query
from hub.errors import MalformedInput, SealNotFound
from hub.readings import exports, queries
from hub.readings.answers import (
    SEAL_BYTES,
    TABLES,
    EnergyAnswer,
    GapsAnswer,
    LatestReadingAnswer,
    MeterProgressAnswer,
    ReadingsAnswer,
    SealsAnswer,
)
from hub.readings.energy import DAY_S, HOUR_S, Energy
from hub.registry import onboarding_service as onboarding
from hub.registry import service as registry
from hub.registry.api import meter_json
from protocol.limits import KEY_EPOCH_MAX, SEQUENCE_MAX, SETTLEMENT_INTERVAL_S

ROWS_PER_PAGE_MAX = 10_000
ROWS_PER_PAGE_DEFAULT = 1_000
ENERGY_WINDOW_S = 366 * DAY_S
"""The longest stretch whose intervals are worked out at once: 35,136 of them."""

BUCKETS_S = {"15min": SETTLEMENT_INTERVAL_S, "hour": HOUR_S, "day": DAY_S}
SPANS_MAX_S = {"raw": 31 * DAY_S, "15min": 366 * DAY_S, "hour": 2 * 366 * DAY_S, "day": 20 * 366 * DAY_S}

router = APIRouter(tags=["readings"])


class ReadingsQuery(Parameters):
    """A half-open range, how to add it up, and in which form to answer."""

    start: Instant = Field(alias="from")
    end: Instant = Field(alias="to")
    bucket: Literal["raw", "15min", "hour", "day"] = "15min"
    format: Literal["json", "csv", "parquet"] | None = None
    limit: int | None = Field(default=None, ge=1, le=ROWS_PER_PAGE_MAX)
    cursor: str = Field(default="", max_length=CURSOR_LENGTH_MAX)


@router.get("/meters/{meter_id}", response_model=MeterProgressAnswer, dependencies=[Depends(refuse_query)])
def get_meter(meter_id: MeterPath, connection: Transaction) -> dict[str, Any]:
    """A meter: what is registered about it, and how far its sealed stream has come."""
    meter = registry.get_meter(connection, meter_id)
    progress = queries.get_progress(connection, meter.meter_no, meter.key_epoch)
    seal = queries.find_latest_seal(connection, meter.meter_no, meter.key_epoch)
    on_chain = onboarding.map_meter_accounts(connection, [meter_id]).get(meter_id)
    latest = None if seal is None else _seal_json(seal)
    return {**meter_json(meter, on_chain), **asdict(progress), "latest_seal": latest}


@router.get("/meters/{meter_id}/latest", response_model=LatestReadingAnswer, dependencies=[Depends(refuse_query)])
def get_latest_reading(meter_id: MeterPath, connection: Transaction) -> dict[str, Any]:
    """The newest accepted reading; null before the first."""
    meter = registry.get_meter(connection, meter_id)
    reading = queries.find_latest_reading(connection, meter.meter_no)
    shown = [] if reading is None else _readings_json(connection, meter.meter_no, [reading])
    return {"meter_id": meter_id, "reading": shown[0] if shown else None}


@router.get("/meters/{meter_id}/readings", response_model=ReadingsAnswer | EnergyAnswer, responses=TABLES)
def get_readings(
    meter_id: MeterPath,
    query: Annotated[ReadingsQuery, Query()],
    hub: TheHub,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Readings or energy in [from, to): JSON in pages, CSV and Parquet as one stream."""
    _check_range(query)
    kind = query.format or _kind_of(accept)
    with transaction(hub.engine) as connection:
        meter_no = registry.get_meter(connection, meter_id).meter_no
    if kind == "json":
        return JSONResponse(_json_page(hub, meter_id, meter_no, query))
    if query.limit is not None or query.cursor:
        raise MalformedInput(f"limit, cursor: {kind} is not paged, it holds the whole range")
    return _stream(hub, meter_id, meter_no, query, kind)


@router.get("/meters/{meter_id}/seals", response_model=SealsAnswer)
def list_seals(meter_id: MeterPath, page: Annotated[Page, Query()], connection: Transaction) -> Response:
    """Stored seals, whatever their state, by key epoch and sequence."""
    meter = registry.get_meter(connection, meter_id)
    key_epoch, sequence = decode_cursor(page.cursor, (0, 0))
    seals = queries.list_seals(connection, meter.meter_no, (key_epoch, sequence), page.limit + 1)
    shown = seals[: page.limit]
    more = len(seals) > page.limit
    return JSONResponse(
        {
            "seals": [_seal_json(seal) for seal in shown],
            "next_cursor": encode_cursor(shown[-1].key_epoch, shown[-1].sequence) if more else None,
        }
    )


@router.get(
    "/meters/{meter_id}/seals/{key_epoch}/{sequence}/evidence",
    response_class=Response,
    responses=SEAL_BYTES | refusals(SealNotFound),
    dependencies=[Depends(refuse_query)],
)
def get_seal_evidence(
    meter_id: MeterPath,
    key_epoch: Annotated[int, Path(ge=1, le=KEY_EPOCH_MAX)],
    sequence: Annotated[int, Path(ge=1, le=SEQUENCE_MAX)],
    connection: Transaction,
) -> Response:
    """The message of a seal, byte for byte as the meter signed it; the ETag is the seal's hash."""
    meter = registry.get_meter(connection, meter_id)
    evidence = queries.get_evidence(connection, meter.meter_no, key_epoch, sequence)
    return Response(
        evidence.message,
        media_type="application/octet-stream",
        headers={
            "ETag": f'"{evidence.seal_hash.hex()}"',
            "X-Seal-State": evidence.state,
            "X-Seal-Received-At": iso(evidence.received_at),
            "Content-Disposition": f'attachment; filename="{meter_id}-{key_epoch}-{sequence}.seal"',
        },
    )


@router.get("/meters/{meter_id}/gaps", response_model=GapsAnswer)
def list_gaps(meter_id: MeterPath, page: Annotated[Page, Query()], connection: Transaction) -> Response:
    """Ranges of sequences that are missing below the highest stored one."""
    meter = registry.get_meter(connection, meter_id)
    key_epoch, first = decode_cursor(page.cursor, (0, 0))
    gaps = queries.list_gaps(connection, meter.meter_no, (key_epoch, first), page.limit + 1)
    shown = gaps[: page.limit]
    more = len(gaps) > page.limit
    return JSONResponse(
        {
            "gaps": [
                {
                    **asdict(gap),
                    "detected_at": iso(gap.detected_at),
                    "asked_at": None if gap.asked_at is None else iso(gap.asked_at),
                    "lost_at": None if gap.lost_at is None else iso(gap.lost_at),
                }
                for gap in shown
            ],
            "next_cursor": encode_cursor(shown[-1].key_epoch, shown[-1].first_sequence) if more else None,
        }
    )


def _check_range(query: ReadingsQuery) -> None:
    start_unix_s, end_unix_s = _bounds(query)
    if start_unix_s >= end_unix_s:
        raise MalformedInput("from, to: the range is empty")
    if end_unix_s - start_unix_s > SPANS_MAX_S[query.bucket]:
        raise MalformedInput(f"from, to: at most {SPANS_MAX_S[query.bucket] // DAY_S} days of {query.bucket}")
    bucket_s = BUCKETS_S.get(query.bucket, 1)
    if start_unix_s % bucket_s or end_unix_s % bucket_s:
        raise MalformedInput(f"from, to: {query.bucket} buckets begin at multiples of {bucket_s} s in UTC")


def _bounds(query: ReadingsQuery) -> tuple[int, int]:
    return int(query.start.timestamp()), int(query.end.timestamp())


def _kind_of(accept: str) -> str:
    """The first of our forms that the Accept header names; JSON if it names none."""
    for offered in accept.lower().split(","):
        media_type = offered.partition(";")[0].strip()
        if media_type in ("text/csv", exports.PARQUET_TYPE):
            return "csv" if media_type == "text/csv" else "parquet"
        if media_type == "application/json":
            break
    return "json"


def _json_page(hub: Hub, meter_id: str, meter_no: int, query: ReadingsQuery) -> dict[str, Any]:
    start_unix_s, end_unix_s = _bounds(query)
    limit = query.limit or ROWS_PER_PAGE_DEFAULT
    [position_unix_s] = decode_cursor(query.cursor, (start_unix_s,))
    if not start_unix_s <= position_unix_s < end_unix_s:
        raise MalformedInput("cursor: not of this range")
    if query.bucket == "raw":
        readings = _raw_page(hub, meter_no, position_unix_s, end_unix_s, limit)
        with transaction(hub.engine) as connection:
            rows = _readings_json(connection, meter_no, readings)
        full = len(readings) == limit
        next_unix_s = int(readings[-1].time.timestamp()) + 1 if full else end_unix_s
        name = "readings"
    else:
        bucket_s = BUCKETS_S[query.bucket]
        if position_unix_s % bucket_s:
            raise MalformedInput("cursor: not of this range")
        next_unix_s = min(end_unix_s, position_unix_s + min(limit * bucket_s, ENERGY_WINDOW_S))
        energies = _energy_page(hub, meter_no, position_unix_s, next_unix_s, bucket_s)
        rows = [_energy_json(energy, bucket_s) for energy in energies]
        name = "buckets"
    return {
        "meter_id": meter_id,
        "bucket": query.bucket,
        "from": iso(query.start),
        "to": iso(query.end),
        name: rows,
        "next_cursor": encode_cursor(next_unix_s) if next_unix_s < end_unix_s else None,
    }


def _stream(hub: Hub, meter_id: str, meter_no: int, query: ReadingsQuery, kind: str) -> Response:
    start_unix_s, end_unix_s = _bounds(query)
    if query.bucket == "raw":
        schema, pages = exports.RAW_SCHEMA, _raw_pages(hub, meter_no, start_unix_s, end_unix_s)
    else:
        schema = exports.ENERGY_SCHEMA
        pages = _energy_pages(hub, meter_no, start_unix_s, end_unix_s, BUCKETS_S[query.bucket])
    if kind == "csv":
        chunks, media_type = exports.csv_chunks(schema, pages), exports.CSV_TYPE
    else:
        chunks, media_type = exports.parquet_chunks(schema, pages), exports.PARQUET_TYPE
    first = next(chunks)  # a database that is away is still told in the status
    name = f"{meter_id}-{query.bucket}-{query.start:%Y%m%dT%H%M%SZ}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chain([first], chunks), media_type=media_type, headers=headers)


def _raw_pages(hub: Hub, meter_no: int, start_unix_s: int, end_unix_s: int) -> Iterator[exports.Table]:
    """Each page is a transaction of its own, so that a slow reader holds no connection."""
    while start_unix_s < end_unix_s:
        readings = _raw_page(hub, meter_no, start_unix_s, end_unix_s, ROWS_PER_PAGE_MAX)
        yield exports.raw_rows(readings)
        full = len(readings) == ROWS_PER_PAGE_MAX
        start_unix_s = int(readings[-1].time.timestamp()) + 1 if full else end_unix_s


def _energy_pages(
    hub: Hub, meter_no: int, start_unix_s: int, end_unix_s: int, bucket_s: int
) -> Iterator[exports.Table]:
    while start_unix_s < end_unix_s:
        window_end_unix_s = min(end_unix_s, start_unix_s + ENERGY_WINDOW_S)
        energies = _energy_page(hub, meter_no, start_unix_s, window_end_unix_s, bucket_s)
        yield exports.energy_rows(energies, bucket_s)
        start_unix_s = window_end_unix_s


def _raw_page(hub: Hub, meter_no: int, start_unix_s: int, end_unix_s: int, limit: int) -> list[queries.RawReading]:
    start, end = datetime.fromtimestamp(start_unix_s, UTC), datetime.fromtimestamp(end_unix_s, UTC)
    with transaction(hub.engine) as connection:
        return queries.list_readings(connection, meter_no, start, end, limit)


def _energy_page(hub: Hub, meter_no: int, start_unix_s: int, end_unix_s: int, bucket_s: int) -> list[Energy]:
    with snapshot(hub.engine) as connection:
        return queries.list_energies(connection, meter_no, start_unix_s, end_unix_s, bucket_s)


def _readings_json(
    connection: Connection, meter_no: int, readings: Sequence[queries.RawReading]
) -> list[dict[str, Any]]:
    """Readings in time order, each with the transaction that its interval was presented by, the newest if several."""
    if not readings:
        return []
    times = [int(reading.time.timestamp()) for reading in readings]
    signatures: list[str | None] = [None] * len(readings)
    for start, until, signature in queries.list_presented(connection, meter_no, times[0], times[-1] + 1):
        first, behind = bisect_right(times, start), bisect_right(times, until)
        signatures[first:behind] = [signature] * (behind - first)
    return [
        {
            **asdict(reading),
            "time": iso(reading.time),
            "minted": signature is not None,
            "transaction_signature": signature,
        }
        for reading, signature in zip(readings, signatures, strict=True)
    ]


def _energy_json(energy: Energy, bucket_s: int) -> dict[str, Any]:
    return {
        "from": iso_of(energy.start_unix_s),
        "to": iso_of(energy.start_unix_s + bucket_s),
        "production_wh": energy.production_wh,
        "consumption_wh": energy.consumption_wh,
        "surplus_wh": energy.surplus_wh,
    }


def _seal_json(seal: queries.SealLine) -> dict[str, Any]:
    return {
        "key_epoch": seal.key_epoch,
        "sequence": seal.sequence,
        "state": seal.state,
        "linked": seal.linked,
        "seal_hash": seal.seal_hash.hex(),
        "sealed_at": iso_of(seal.sealed_at_unix_s),
        "closed_until": iso_of(seal.closed_until_unix_s),
        "production_wh": seal.production_wh,
        "consumption_wh": seal.consumption_wh,
        "surplus_wh": seal.surplus_wh,
        "first_reading_at": iso_of(seal.first_reading_unix_s),
        "last_reading_at": iso_of(seal.last_reading_unix_s),
        "reading_count": seal.reading_count,
        "received_at": iso(seal.received_at),
        "minted": seal.minted,
        "transaction_signature": seal.transaction_signature,
    }
