"""Statements about missing seals, for the job that asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hub.db import Driver


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
