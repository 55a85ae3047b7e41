"""Statements about missing seals: for the job that asks for them, and for those that are declared lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, ForeignKeyConstraint, Integer, Table, Text

from hub.db import Driver, metadata

lost_gaps = Table(
    "lost_gaps",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("key_epoch", Integer, primary_key=True, autoincrement=False),
    Column("first_sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("declared_by", Text, nullable=False),
    Column("declared_at", DateTime(timezone=True), nullable=False),
    Column("reason", Text, nullable=False),
    Column("passed_at", DateTime(timezone=True)),
    ForeignKeyConstraint(["meter_no", "key_epoch"], ["meter_keys.meter_no", "meter_keys.key_epoch"]),
    CheckConstraint("first_sequence <= last_sequence", name="order"),
)
"""Ranges that an operator has given up. `passed_at`: minting has gone across, so what comes late can count no more."""


@dataclass(slots=True, frozen=True)
class Gap:
    """An inclusive range of sequences that a meter's stream lacks."""

    meter_no: int
    meter_id: str
    key_epoch: int
    first_sequence: int
    last_sequence: int


def list_silent_gaps_for_update(db: Driver, detected_before: datetime, asked_before: datetime, limit: int) -> list[Gap]:
    """Lock the first old gaps of active meters, in their current key epoch, that were not asked for lately.

    One a meter, so that a meter with many leaves room for the others.
    """
    rows = db.execute(
        "SELECT g.meter_no, m.meter_id, g.key_epoch, g.first_sequence, g.last_sequence"
        " FROM seal_gaps g JOIN meters m ON m.meter_no = g.meter_no AND m.key_epoch = g.key_epoch"
        " WHERE m.state = 'active' AND g.detected_at < %s AND (g.asked_at IS NULL OR g.asked_at < %s)"
        " AND NOT EXISTS (SELECT FROM lost_gaps l WHERE l.meter_no = g.meter_no AND l.key_epoch = g.key_epoch"
        "  AND g.first_sequence BETWEEN l.first_sequence AND l.last_sequence)"
        " AND NOT EXISTS (SELECT FROM seal_gaps e WHERE e.meter_no = g.meter_no AND e.key_epoch = g.key_epoch"
        "  AND e.first_sequence < g.first_sequence AND (e.asked_at IS NULL OR e.asked_at < %s))"
        " ORDER BY g.detected_at LIMIT %s FOR UPDATE OF g SKIP LOCKED",
        [detected_before, asked_before, asked_before, limit],
    )
    return [Gap(*row) for row in rows]


def mark_gaps_asked(db: Driver, gaps: Sequence[Gap], now: datetime) -> None:
    """Remember that these gaps were asked for."""
    with db.cursor() as cursor:
        cursor.executemany(
            "UPDATE seal_gaps SET asked_at = %s WHERE (meter_no, key_epoch, first_sequence) = (%s, %s, %s)",
            [(now, gap.meter_no, gap.key_epoch, gap.first_sequence) for gap in gaps],
        )


def find_gap_last(db: Driver, meter_no: int, key_epoch: int, first_sequence: int) -> int | None:
    """Where the gap ends that begins with this sequence."""
    row = db.execute(
        "SELECT last_sequence FROM seal_gaps WHERE (meter_no, key_epoch, first_sequence) = (%s, %s, %s)",
        [meter_no, key_epoch, first_sequence],
    ).fetchone()
    return None if row is None else int(row[0])


def find_lost_gap_for_update(db: Driver, meter_no: int, key_epoch: int, sequence: int) -> tuple[int, int, bool] | None:
    """The declared range that this sequence is in, locked: first, last, and whether minting has gone across."""
    row = db.execute(
        "SELECT first_sequence, last_sequence, passed_at IS NOT NULL FROM lost_gaps"
        " WHERE meter_no = %s AND key_epoch = %s AND %s BETWEEN first_sequence AND last_sequence FOR UPDATE",
        [meter_no, key_epoch, sequence],
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]), bool(row[2]))


def insert_lost_gap(
    db: Driver, meter_no: int, key_epoch: int, first: int, last: int, actor: str, reason: str, now: datetime
) -> None:
    """Keep who gave which sequences up, and why. A range is declared once; ranges never overlap."""
    db.execute(
        "INSERT INTO lost_gaps (meter_no, key_epoch, first_sequence, last_sequence, declared_by, declared_at, reason)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [meter_no, key_epoch, first, last, actor, now, reason],
    )


def list_lost_gaps(db: Driver, meter_no: int, key_epoch: int, after: int) -> list[tuple[int, int]]:
    """Declared ranges of an epoch that reach beyond a sequence, ascending."""
    rows = db.execute(
        "SELECT first_sequence, last_sequence FROM lost_gaps WHERE meter_no = %s AND key_epoch = %s"
        " AND last_sequence > %s ORDER BY first_sequence",
        [meter_no, key_epoch, after],
    ).fetchall()
    return [(int(row[0]), int(row[1])) for row in rows]


def set_lost_gaps_passed(db: Driver, meter_no: int, key_epoch: int, before: int, now: datetime) -> None:
    """Note that minting goes across the declared ranges below a sequence."""
    db.execute(
        "UPDATE lost_gaps SET passed_at = %s WHERE meter_no = %s AND key_epoch = %s AND last_sequence < %s"
        " AND passed_at IS NULL",
        [now, meter_no, key_epoch, before],
    )


def unset_lost_gaps_passed(db: Driver, meter_no: int, key_epoch: int, at: datetime) -> None:
    """Take that note back: what was planned then has not happened."""
    db.execute(
        "UPDATE lost_gaps SET passed_at = NULL WHERE meter_no = %s AND key_epoch = %s AND passed_at = %s",
        [meter_no, key_epoch, at],
    )
