"""Alarms: what operators must look into, whichever domain noticed it. A row that stays, and whom it is told.

Alarms about meters are raised in `hub/readings/notices.py`; here are the table, and the alarms about the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from psycopg.types.json import Jsonb
from sqlalchemy import TIMESTAMP, BigInteger, Column, Connection, Identity, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from hub.db import Driver, driver, metadata
from hub.live.publishing import Update, publish
from hub.live.topics import ALERTS
from hub.notifications.kinds import instant
from hub.notifications.service import OPERATORS, tell_later

alarms = Table(
    "alarms",
    metadata,
    Column("alarm_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("meter_no", Integer),
    Column("detail", JSONB, nullable=False),
    Column("raised_at", TIMESTAMP(timezone=True), nullable=False),
)


def insert_alarm(db: Driver, kind: str, meter_no: int | None, detail: Mapping[str, object], now: datetime) -> int:
    """Write an alarm; returns its number."""
    row = db.execute(
        "INSERT INTO alarms (kind, meter_no, detail, raised_at) VALUES (%s, %s, %s, %s) RETURNING alarm_id",
        [kind, meter_no, Jsonb(dict(detail)), now],
    ).fetchone()
    assert row is not None
    return int(row[0])


def raise_chain_alarm(connection: Connection, kind: str, why: str, detail: Mapping[str, object], now: datetime) -> int:
    """Raise an alarm about the chain, and tell operators and admins of it; returns its number.

    `why` is a sentence, or several; `detail` is JSON for the list of alarms.
    """
    alarm_id = insert_alarm(driver(connection), kind, None, detail, now)
    data = {"alarm": kind, "alarm_id": alarm_id, "raised_at": instant(now), "why": why}
    tell_later(connection, f"alarm:{kind}", "alarm.chain", data, now, roles=OPERATORS)
    update = {"alarm_id": alarm_id, "alarm": kind, "meter_id": None, "raised_at": now, "why": why}
    publish(connection, [Update(ALERTS, "alarm.raised", update)], now)
    return alarm_id
