"""The status of each meter: one row per meter that ever had one, and the statements that write it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from hub.db import metadata
from hub.fleet.rules import AHEAD_MAX, STATUS_SILENCE_MAX
from hub.fleet.status import Status

meter_status = Table(
    "meter_status",
    metadata,
    Column("meter_no", Integer, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("state_at", TIMESTAMP(timezone=True), nullable=False),
    Column("status_at", TIMESTAMP(timezone=True)),
    Column("clock_skew_s", BigInteger),
    Column("agent", Text),
    Column("key_epoch", Integer),
    Column("sequence", BigInteger),
    Column("backlog_seals", BigInteger),
    Column("unsealed_readings", BigInteger),
    Column("last_reading_unix_s", BigInteger),
    Column("journal_bytes", BigInteger),
    Column("journal_bytes_max", BigInteger),
    Column("clock", Text),
    Column("transport", Text),
    Column("meters", JSONB),
    Column("problems", ARRAY(Text), nullable=False),
    Column("counts", JSONB),
    PrimaryKeyConstraint("meter_no", name="meter_status_pk"),
    ForeignKeyConstraint(["meter_no"], ["meters.meter_no"], name="meter_status_meter_no_fk"),
    CheckConstraint("state IN ('online', 'offline')", name="state"),
)
"""`state_at` is since when the meter is in the state it stated, `status_at` when it was last heard saying `online`,
both by the hub's clock. The other columns are its words in the last `online`."""

_STATED = (
    "agent", "key_epoch", "sequence", "backlog_seals", "unsealed_readings", "last_reading_unix_s", "journal_bytes",
    "journal_bytes_max", "clock", "transport", "meters", "problems", "counts",
)  # fmt: skip


class StatusRow(msgspec.Struct, frozen=True):
    """A status on its way into the table. `clock_skew_s` is the hub's clock less the meter's."""

    meter_id: str
    received_at: datetime
    clock_skew_s: int | None
    status: Status


def upsert_live(connection: Connection, rows: Sequence[StatusRow], now: datetime) -> set[str]:
    """Write what meters are saying now, at most one row of each; returns the ids of those that are registered.

    What was received before that which is stored changes nothing, unless the latter comes from the future: then the
    hub's clock was wrong.
    """
    return _write(connection, rows, now, "CASE WHEN state = 'online' THEN received_at END", _LIVE)


def upsert_retained(connection: Connection, rows: Sequence[StatusRow], now: datetime) -> set[str]:
    """Write what meters said some time before the hub listened, as `upsert_live`.

    It fills in for a meter that was never heard, and says that a silent one had gone; nothing else.
    """
    return _write(connection, rows, now, "NULL::timestamptz", _RETAINED)


def _write(
    connection: Connection, rows: Sequence[StatusRow], now: datetime, status_at: str, on_conflict: str
) -> set[str]:
    columns = ", ".join(_STATED)
    statement = f"""
        WITH given AS (
            SELECT m.meter_no, m.meter_id, g.received_at, g.clock_skew_s, r.*
            FROM json_to_recordset(CAST(:rows AS json))
                AS g (meter_id text, received_at timestamptz, clock_skew_s bigint, status json)
            JOIN meters AS m USING (meter_id)
            CROSS JOIN LATERAL json_to_record(g.status)
                AS r (state text, agent text, key_epoch int, sequence bigint, backlog_seals bigint,
                    unsealed_readings bigint, last_reading_unix_s bigint, journal_bytes bigint,
                    journal_bytes_max bigint, clock text, transport text, meters jsonb, problems text[],
                    counts jsonb)),
        written AS (
            INSERT INTO meter_status AS s (meter_no, state, state_at, status_at, clock_skew_s, {columns})
            SELECT meter_no, state, received_at, {status_at}, clock_skew_s, {columns} FROM given ORDER BY meter_no
            ON CONFLICT (meter_no) DO UPDATE SET {on_conflict})
        SELECT meter_id FROM given
        """  # noqa: S608
    parameters = {
        "rows": msgspec.json.encode(rows).decode(),
        "silence": STATUS_SILENCE_MAX,
        "latest": now + AHEAD_MAX,
    }
    return set(connection.execute(text(statement), parameters).scalars())


def _set(condition: str, columns: Sequence[str]) -> str:
    return ", ".join(f"{name} = CASE WHEN {condition} THEN excluded.{name} ELSE s.{name} END" for name in columns)


_STATE = (
    "state = excluded.state, state_at = CASE WHEN s.state = excluded.state"
    " THEN least(s.state_at, excluded.state_at) ELSE excluded.state_at END"
)
_LIVE = (
    f"{_STATE}, status_at = coalesce(excluded.status_at, s.status_at), "
    + _set("excluded.state = 'online'", ("clock_skew_s", *_STATED))
    + " WHERE excluded.state_at >= greatest(s.state_at, s.status_at)"
    " OR greatest(s.state_at, s.status_at) > CAST(:latest AS timestamptz)"
)
_HEARD_LATELY = (
    "s.status_at IS NOT NULL AND s.status_at >= excluded.state_at - CAST(:silence AS interval)"
    " AND s.status_at <= CAST(:latest AS timestamptz)"
)
_RETAINED = (
    f"{_STATE}, "
    + _set("excluded.state = 'online'", _STATED)
    + f" WHERE CASE excluded.state WHEN 'online' THEN s.status_at IS NULL ELSE NOT ({_HEARD_LATELY}) END"
)
