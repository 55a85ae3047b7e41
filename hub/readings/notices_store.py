"""Which meters' owners were told in which hour that seals are held: so that it is told once, whatever a meter sends."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import TIMESTAMP, Column, ForeignKey, Integer, PrimaryKeyConstraint, Table

from hub.db import Driver, metadata

held_notices = Table(
    "held_notices",
    metadata,
    Column("meter_no", Integer, ForeignKey("meters.meter_no", name="held_notices_meter_no_fk"), nullable=False),
    Column("hour", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("meter_no", "hour", name="held_notices_pk"),
)


def insert_held_notices(db: Driver, meter_nos: Collection[int], hour: datetime) -> list[tuple[int, str, bytes]]:
    """Note that these meters' seals are held in this hour; meter_no, id and owner of those that are new in it."""
    rows = db.execute(
        "WITH added AS (INSERT INTO held_notices (meter_no, hour)"
        "   SELECT meter_no, %s FROM unnest(%s::int[]) AS n (meter_no) ORDER BY meter_no"
        "   ON CONFLICT DO NOTHING RETURNING meter_no)"
        " SELECT meter_no, m.meter_id, m.owner FROM added JOIN meters AS m USING (meter_no) ORDER BY meter_no",
        [hour, sorted(meter_nos)],
    )
    return [(int(row[0]), str(row[1]), bytes(row[2])) for row in rows]


def forget_held_notices(db: Driver, before: datetime) -> int:
    """Delete the notes of hours before then; returns how many."""
    return db.execute("DELETE FROM held_notices WHERE hour < %s", [before]).rowcount
