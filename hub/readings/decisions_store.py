"""Statements behind an operator's decision, and behind taking back what a later seal disproved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hub.readings.rules import SealFacts, State
from hub.readings.store import Driver, utc
from protocol.settlement import interval_end


@dataclass(slots=True, frozen=True)
class Entry:
    """One line of the quarantine."""

    quarantine_id: int
    meter_no: int | None
    key_epoch: int | None
    sequence: int | None
    reason: str
    state: str


_ENTRY = "q.quarantine_id, q.meter_no, q.key_epoch, q.sequence, q.reason, q.state"


def find_entry_for_update(db: Driver, quarantine_id: int) -> Entry | None:
    """Lock one entry for its decision."""
    row = db.execute(
        f"SELECT {_ENTRY} FROM quarantine q WHERE quarantine_id = %s FOR UPDATE",  # noqa: S608
        [quarantine_id],
    ).fetchone()
    return Entry(*row) if row else None


def list_linked_for_update(db: Driver, meter_id: str, reason: str) -> list[Entry]:
    """Lock the held entries of a meter with one reason whose chain verifies, oldest first.

    That is: nothing is missing below the seal, and it is linked to its predecessor.
    """
    rows = db.execute(
        f"SELECT {_ENTRY} FROM quarantine q"  # noqa: S608
        " JOIN meters m ON m.meter_no = q.meter_no"
        " JOIN seals s ON s.meter_no = q.meter_no AND s.key_epoch = q.key_epoch AND s.sequence = q.sequence"
        " JOIN meter_streams t ON t.meter_no = q.meter_no AND t.key_epoch = q.key_epoch"
        " WHERE m.meter_id = %s AND q.reason = %s AND q.state = 'held'"
        " AND s.linked AND q.sequence <= t.contiguous_sequence"
        " ORDER BY q.key_epoch, q.sequence FOR UPDATE OF q",
        [meter_id, reason],
    ).fetchall()
    return [Entry(*row) for row in rows]


def set_decision(db: Driver, quarantine_id: int, state: str, actor: str, note: str, now: datetime) -> None:
    """Record who decided what, once."""
    db.execute(
        "UPDATE quarantine SET state = %s, decided_by = %s, decided_at = %s, decision_note = %s"
        " WHERE quarantine_id = %s AND state = 'held'",
        [state, actor, now, note, quarantine_id],
    )


def set_seal_state(db: Driver, meter_no: int, key_epoch: int, sequence: int, state: State) -> None:
    """Move a seal to another state; its evidence stays as it is."""
    db.execute(
        "UPDATE seals SET state = %s WHERE (meter_no, key_epoch, sequence) = (%s, %s, %s)",
        [state.value, meter_no, key_epoch, sequence],
    )


def set_seal_unsound(db: Driver, meter_no: int, key_epoch: int, sequence: int) -> None:
    """Quarantine a seal that was found to contradict its own readings: nothing is measured from it any more."""
    db.execute(
        "UPDATE seals SET state = 'quarantined', sound = false WHERE (meter_no, key_epoch, sequence) = (%s, %s, %s)",
        [meter_no, key_epoch, sequence],
    )


def withdraw_readings(db: Driver, meter_no: int, key_epoch: int, facts: SealFacts) -> None:
    """Take the readings of one seal out again and close the intervals they touched by what remains.

    The bytes stay in the evidence; nothing that was signed is lost.
    """
    first, last = utc(facts.first_reading_unix_s), utc(facts.last_reading_unix_s)
    first_end, last_end = (
        utc(interval_end(facts.first_reading_unix_s)),
        utc(interval_end(facts.last_reading_unix_s)),
    )
    db.execute("DELETE FROM readings WHERE meter_no = %s AND time BETWEEN %s AND %s", [meter_no, first, last])
    db.execute(
        "DELETE FROM interval_closings WHERE meter_no = %s AND key_epoch = %s AND interval_end BETWEEN %s AND %s",
        [meter_no, key_epoch, first_end, last_end],
    )
    db.execute(
        "INSERT INTO interval_closings"
        " (meter_no, key_epoch, interval_end, last_reading_at, production_wh, consumption_wh)"
        " SELECT DISTINCT ON (ends) %s, %s, ends, r.time, r.production_wh, r.consumption_wh FROM readings r,"
        " LATERAL (SELECT to_timestamp(ceil(extract(epoch FROM r.time) / 900) * 900) AS ends) e"
        " WHERE r.meter_no = %s AND r.time > %s - interval '900 seconds' AND r.time <= %s"
        " ORDER BY ends, r.time DESC",
        [meter_no, key_epoch, meter_no, first_end, last_end],
    )
