"""Which meters are silent for long, and who was told: one row for each silence, deleted when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    TIMESTAMP,
    Column,
    Connection,
    ForeignKey,
    Integer,
    PrimaryKeyConstraint,
    Table,
    func,
    select,
    text,
)

from hub.db import metadata
from hub.fleet import queries

_LOCK = "commonwatt silences"

meter_silences = Table(
    "meter_silences",
    metadata,
    Column("meter_no", Integer, ForeignKey("meters.meter_no", name="meter_silences_meter_no_fk"), autoincrement=False),
    Column("silent_since", TIMESTAMP(timezone=True), nullable=False),
    Column("noticed_at", TIMESTAMP(timezone=True), nullable=False),
    Column("operators_told_at", TIMESTAMP(timezone=True)),
    Column("owner_told_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("meter_no", name="meter_silences_pk"),
)


@dataclass(frozen=True)
class SilentMeter:
    """An active meter that was heard once, and not for long."""

    meter_no: int
    meter_id: str
    owner: bytes
    silent_since: datetime


@dataclass(frozen=True)
class Silence:
    """A silence that was noticed, of a meter that may have been suspended or retired meanwhile."""

    meter_no: int
    meter_id: str
    owner: bytes
    active: bool
    silent_since: datetime
    noticed_at: datetime
    operators_told_at: datetime | None
    owner_told_at: datetime | None


def lock_silences(connection: Connection) -> None:
    """Let two processes that look for silences take turns."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(_LOCK))))


def list_silent_meters(connection: Connection, now: datetime, silent_for: timedelta) -> list[SilentMeter]:
    """The active meters that are offline and were last heard that long ago, in the order of their numbers."""
    rows = connection.execute(
        text(
            f"SELECT m.meter_no, m.meter_id, m.owner, greatest(f.status_at, f.seal_at) FROM ({queries.FLEET}) AS f"  # noqa: S608
            " JOIN meters AS m USING (meter_id) WHERE f.state = 'active' AND f.presence = 'offline'"
            " AND greatest(f.status_at, f.seal_at) <= :now - CAST(:silent_for AS interval) ORDER BY m.meter_no"
        ),
        {**queries.presence_limits(now), "silent_for": silent_for},
    )
    return [SilentMeter(*row) for row in rows]


def count_active_meters(connection: Connection) -> int:
    """How many meters could be heard."""
    return int(connection.execute(text("SELECT count(*) FROM meters WHERE state = 'active'")).scalar_one())


def insert_silences(connection: Connection, silent: Sequence[SilentMeter], now: datetime) -> None:
    """Note silences that are not noted yet."""
    connection.execute(
        text(
            "INSERT INTO meter_silences (meter_no, silent_since, noticed_at)"
            " SELECT n.meter_no, n.silent_since, :now"
            " FROM unnest(CAST(:meter_nos AS int[]), CAST(:sinces AS timestamptz[])) AS n (meter_no, silent_since)"
            " ON CONFLICT DO NOTHING"
        ),
        {
            "now": now,
            "meter_nos": [each.meter_no for each in silent],
            "sinces": [each.silent_since for each in silent],
        },
    )


def list_silences(connection: Connection) -> list[Silence]:
    """All silences that were noted."""
    rows = connection.execute(
        text(
            "SELECT m.meter_no, m.meter_id, m.owner, m.state = 'active', s.silent_since, s.noticed_at,"
            " s.operators_told_at, s.owner_told_at"
            " FROM meter_silences AS s JOIN meters AS m USING (meter_no) ORDER BY m.meter_no"
        )
    )
    return [Silence(*row) for row in rows]


def set_operators_told(connection: Connection, meter_nos: Collection[int], now: datetime) -> None:
    """Note that operators know of these silences."""
    connection.execute(
        meter_silences.update().where(meter_silences.c.meter_no.in_(meter_nos)).values(operators_told_at=now)
    )


def set_owners_told(connection: Connection, meter_nos: Collection[int], now: datetime) -> None:
    """Note that the owners know of these silences."""
    connection.execute(
        meter_silences.update().where(meter_silences.c.meter_no.in_(meter_nos)).values(owner_told_at=now)
    )


def delete_silences(connection: Connection, meter_nos: Collection[int]) -> None:
    """Forget silences that are over."""
    connection.execute(meter_silences.delete().where(meter_silences.c.meter_no.in_(meter_nos)))
