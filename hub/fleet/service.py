"""Use cases of the fleet: note what meters say of themselves. Each takes a transaction; nothing here touches energy."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Connection

from hub import metrics
from hub.fleet import store
from hub.fleet.status import Status, StatusMalformed, parse_status
from hub.registry import service as registry

MALFORMED: Final = "malformed"


class Statement(msgspec.Struct, frozen=True):
    """A status, whose it is, and when the hub heard it. `live`: the meter says it now; else the broker had kept it."""

    meter_id: str
    status: Status
    received_at: datetime
    live: bool


def record_statuses(connection: Connection, statements: Iterable[Statement], now: datetime) -> set[str]:
    """Note statuses, at most one live and one kept of each meter; returns the ids of those that are registered."""
    live: list[store.StatusRow] = []
    kept: list[store.StatusRow] = []
    for each in statements:
        (live if each.live else kept).append(_row(each))
    registered: set[str] = set()
    if live:
        registered |= store.upsert_live(connection, live, now)
    if kept:
        registered |= store.upsert_retained(connection, kept, now)
    return registered


def record_status(
    connection: Connection, meter_no: int, status_bytes: bytes, received_at: datetime, live: bool
) -> bool:
    """Note one status of a registered meter; whether it was understood. One that was not is counted and dropped."""
    metrics.STATUSES_RECEIVED.labels("https").inc()
    try:
        status = parse_status(status_bytes)
    except StatusMalformed:
        metrics.STATUSES_DROPPED.labels(MALFORMED).inc()
        return False
    meter_id = registry.get_meter_id(connection, meter_no)
    record_statuses(connection, [Statement(meter_id, status, received_at, live)], received_at)
    return True


def _row(statement: Statement) -> store.StatusRow:
    stated_unix_s = statement.status.time_unix_s
    skew_s = None
    if statement.live and stated_unix_s is not None:
        skew_s = int(statement.received_at.timestamp()) - stated_unix_s
    return store.StatusRow(statement.meter_id, statement.received_at, skew_s, statement.status)
