"""The commands that meters have not followed yet, for those that ask instead of listening: table and statements."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    select,
)

from hub.db import metadata

meter_commands = Table(
    "meter_commands",
    metadata,
    Column("meter_no", Integer, nullable=False),
    Column("counter", BigInteger, nullable=False, autoincrement=False),
    Column("expires_at", TIMESTAMP(timezone=True), nullable=False),
    Column("message", LargeBinary, nullable=False),
    PrimaryKeyConstraint("meter_no", "counter", name="meter_commands_pk"),
    ForeignKeyConstraint(["meter_no"], ["meters.meter_no"], name="meter_commands_meter_no_fk"),
)
_MINE = meter_commands.c


def insert_command(
    connection: Connection, meter_no: int, counter: int, expires_at: datetime, message: bytes, now: datetime
) -> None:
    """Keep a command (command ‖ signature) until it expires, and forget the meter's expired ones."""
    connection.execute(meter_commands.delete().where(_MINE.meter_no == meter_no, _MINE.expires_at <= now))
    connection.execute(
        meter_commands.insert().values(meter_no=meter_no, counter=counter, expires_at=expires_at, message=message)
    )


def list_pending(connection: Connection, meter_no: int, after_counter: int, now: datetime, limit: int) -> list[bytes]:
    """Unexpired commands with counters above `after_counter`, in their order, at most `limit`."""
    rows = connection.execute(
        select(_MINE.message)
        .where(_MINE.meter_no == meter_no, _MINE.counter > after_counter, _MINE.expires_at > now)
        .order_by(_MINE.counter)
        .limit(limit)
    )
    return [bytes(message) for message in rows.scalars()]
