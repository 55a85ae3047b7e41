"""Statements behind an operator's decision, and behind taking back what a later seal disproved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hub.db import Driver
from hub.readings.rules import KEY_REVOKED, RELEASABLE, SealFacts, State
from hub.readings.store import list_seal_facts, utc
from protocol.limits import TIME_MAX_UNIX_S
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


def list_streams_of_entry(db: Driver, quarantine_id: int) -> list[tuple[int, int]]:
    """(meter_no, key_epoch) of the seal in this entry; empty if there is none."""
    rows = db.execute(
        "SELECT meter_no, key_epoch FROM quarantine WHERE quarantine_id = %s AND key_epoch IS NOT NULL",
        [quarantine_id],
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def find_entry_for_update(db: Driver, quarantine_id: int) -> Entry | None:
    """Lock one entry for its decision."""
    row = db.execute(
        f"SELECT {_ENTRY} FROM quarantine q WHERE quarantine_id = %s FOR UPDATE",  # noqa: S608
        [quarantine_id],
    ).fetchone()
    return Entry(*row) if row else None


def list_linked_for_update(db: Driver, meter_id: str, reason: str) -> list[Entry]:
    """Lock the held entries of a meter with one reason whose chain verifies, oldest first.

    That is: nothing is missing below the seal, it is linked to its predecessor, and no other key has taken over before.
    """
    rows = db.execute(
        f"SELECT {_ENTRY} FROM quarantine q"  # noqa: S608
        " JOIN meters m ON m.meter_no = q.meter_no"
        " JOIN seals s ON s.meter_no = q.meter_no AND s.key_epoch = q.key_epoch AND s.sequence = q.sequence"
        " JOIN meter_streams t ON t.meter_no = q.meter_no AND t.key_epoch = q.key_epoch"
        " JOIN meter_keys k ON k.meter_no = q.meter_no AND k.key_epoch = q.key_epoch"
        " WHERE m.meter_id = %s AND q.reason = %s AND q.state = 'held'"
        " AND s.linked AND q.sequence <= least(t.contiguous_sequence, k.superseded_after_sequence)"
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


def set_seal_unsound(db: Driver, meter_no: int, key_epoch: int, sequence: int) -> bool:
    """Quarantine a seal that was found to contradict its own readings: nothing is measured from it any more.

    Returns whether it had counted.
    """
    row = db.execute(
        "UPDATE seals AS s SET state = 'quarantined', sound = false FROM seals AS before"
        " WHERE (s.meter_no, s.key_epoch, s.sequence) = (%s, %s, %s)"
        " AND (before.meter_no, before.key_epoch, before.sequence) = (s.meter_no, s.key_epoch, s.sequence)"
        " RETURNING before.state IN ('accepted', 'released')",
        [meter_no, key_epoch, sequence],
    ).fetchone()
    return row is not None and bool(row[0])


def withdraw_readings(
    db: Driver, meter_no: int, key_epoch: int, first_reading_unix_s: int, last_reading_unix_s: int
) -> None:
    """Take the readings between two times out again and close the intervals they touched by what remains.

    The caller has marked their seals as not counting, and no other seal that counts has readings between those times.
    The bytes stay in the evidence; nothing that was signed is lost.
    """
    first, last = utc(first_reading_unix_s), utc(last_reading_unix_s)
    first_end, last_end = utc(interval_end(first_reading_unix_s)), utc(interval_end(last_reading_unix_s))
    db.execute("DELETE FROM readings WHERE meter_no = %s AND time BETWEEN %s AND %s", [meter_no, first, last])
    db.execute(
        "DELETE FROM interval_closings WHERE meter_no = %s AND key_epoch = %s AND interval_end BETWEEN %s AND %s",
        [meter_no, key_epoch, first_end, last_end],
    )
    db.execute(  # the readings of this key alone: another's may lie in the same interval
        "WITH counted AS MATERIALIZED ("
        "  SELECT to_timestamp(first_reading_unix_s) AS first, to_timestamp(last_reading_unix_s) AS last FROM seals"
        "  WHERE meter_no = %(meter_no)s AND key_epoch = %(key_epoch)s AND state IN ('accepted', 'released')"
        "  AND last_reading_unix_s > extract(epoch FROM %(first_end)s::timestamptz) - 900"
        "  AND first_reading_unix_s <= extract(epoch FROM %(last_end)s::timestamptz))"
        " INSERT INTO interval_closings"
        " (meter_no, key_epoch, interval_end, last_reading_at, production_wh, consumption_wh)"
        " SELECT DISTINCT ON (ends) r.meter_no, %(key_epoch)s, ends, r.time, r.production_wh, r.consumption_wh"
        " FROM counted AS c JOIN readings AS r ON r.time BETWEEN c.first AND c.last,"
        " LATERAL (SELECT to_timestamp(ceil(extract(epoch FROM r.time) / 900) * 900) AS ends) AS e"
        " WHERE r.meter_no = %(meter_no)s"
        " AND r.time > %(first_end)s - interval '900 seconds' AND r.time <= %(last_end)s"
        " ORDER BY ends, r.time DESC",
        {"meter_no": meter_no, "key_epoch": key_epoch, "first_end": first_end, "last_end": last_end},
    )


def find_last_counted(db: Driver, meter_no: int, key_epoch: int) -> SealFacts | None:
    """The highest seal of an epoch that is accepted or released."""
    row = db.execute(
        "SELECT sequence FROM seals WHERE meter_no = %s AND key_epoch = %s AND state IN ('accepted', 'released')"
        " ORDER BY sequence DESC LIMIT 1",
        [meter_no, key_epoch],
    ).fetchone()
    if row is None:
        return None
    [(_, _, _, facts)] = list_seal_facts(db, [(meter_no, key_epoch, row[0])])
    return facts


def withdraw_sealed(
    db: Driver, meter_no: int, key_epoch: int, since: datetime, before: datetime | None
) -> list[tuple[int, bytes]]:
    """Quarantine what counts of a key and says that it was sealed at `since` or later, and before `before`.

    Times of sealing grow with the sequence, so what is withdrawn is one stretch of time. Returns (sequence, hash).
    """
    rows = db.execute(
        "UPDATE seals SET state = 'quarantined' WHERE meter_no = %s AND key_epoch = %s"
        " AND state IN ('accepted', 'released') AND sealed_at_unix_s >= %s AND sealed_at_unix_s < %s"
        " RETURNING sequence, seal_hash, first_reading_unix_s, last_reading_unix_s",
        [
            meter_no,
            key_epoch,
            int(since.timestamp()),
            TIME_MAX_UNIX_S + 1 if before is None else int(before.timestamp()),
        ],
    ).fetchall()
    if rows:
        withdraw_readings(db, meter_no, key_epoch, min(row[2] for row in rows), max(row[3] for row in rows))
    return sorted((row[0], row[1]) for row in rows)


def hold_for_revocation(db: Driver, meter_no: int, key_epoch: int, since: datetime) -> None:
    """Let what is held of a key for something smaller, sealed since then, be held for the revocation too.

    Otherwise a release in bulk for age would let through what nobody looked at.
    """
    db.execute(
        "UPDATE quarantine AS q SET reason = %s, detail = 'the key is revoked; also ' || q.reason || ': ' || q.detail"
        " FROM seals AS s WHERE q.meter_no = %s AND q.key_epoch = %s AND q.state = 'held' AND q.reason = ANY(%s)"
        " AND (s.meter_no, s.key_epoch, s.sequence) = (q.meter_no, q.key_epoch, q.sequence)"
        " AND s.seal_hash = q.message_hash AND s.sealed_at_unix_s >= %s",
        [KEY_REVOKED, meter_no, key_epoch, sorted(RELEASABLE - {KEY_REVOKED}), int(since.timestamp())],
    )


def list_later_starts(db: Driver, meter_no: int, key_epoch: int) -> list[tuple[int | None, int | None, int | None]]:
    """Of each later key that may still seal, or has: time and counters of the first reading of its sound seal 1.

    None where that seal is not here.
    """
    rows = db.execute(
        "SELECT s.first_reading_unix_s, s.first_production_wh, s.first_consumption_wh FROM meter_keys k"
        " JOIN meter_streams t ON t.meter_no = k.meter_no AND t.key_epoch = k.key_epoch"
        " LEFT JOIN seals s ON s.meter_no = k.meter_no AND s.key_epoch = k.key_epoch AND s.sequence = 1 AND s.sound"
        " WHERE k.meter_no = %s AND k.key_epoch > %s"
        " AND (t.highest_sequence > 0 OR k.superseded_after_sequence IS NULL)",
        [meter_no, key_epoch],
    ).fetchall()
    return [(row[0], row[1], row[2]) for row in rows]
