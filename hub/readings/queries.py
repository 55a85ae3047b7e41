"""What people and programs ask about stored readings: the reading side's SQL, one statement per function.

Every range is half-open, every page follows a key; nothing here locks or writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from hub.errors import SealNotFound
from hub.readings.energy import Closing, Energy, Jump, interval_energies, sum_by_bucket


@dataclass(frozen=True)
class RawReading:
    """One reading as stored: cumulative Wh, and the instantaneous values if the meter sent them."""

    time: datetime
    production_wh: int
    consumption_wh: int
    power_w: int | None
    voltage_dv: int | None
    frequency_mhz: int | None
    flags: int


@dataclass(frozen=True)
class Progress:
    """How far the stream of a meter's key has come."""

    highest_sequence: int
    contiguous_sequence: int


@dataclass(frozen=True)
class SealLine:
    """A stored seal without its bytes."""

    key_epoch: int
    sequence: int
    state: str
    linked: bool
    seal_hash: bytes
    sealed_at_unix_s: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    first_reading_unix_s: int
    last_reading_unix_s: int
    reading_count: int
    received_at: datetime
    minted: bool
    transaction_signature: str | None


@dataclass(frozen=True)
class Evidence:
    """The bytes that the meter signed and sent, and what became of them."""

    message: bytes
    seal_hash: bytes
    state: str
    received_at: datetime


@dataclass(frozen=True)
class EvidenceLine:
    """A stored seal as an export carries it."""

    sequence: int
    state: str
    received_at: datetime
    message: bytes


@dataclass(frozen=True)
class Gap:
    """Sequences that no stored seal has, from first to last."""

    key_epoch: int
    first_sequence: int
    last_sequence: int
    detected_at: datetime
    asked_at: datetime | None
    lost_at: datetime | None
    lost_by: str | None
    lost_reason: str | None
    passed: bool


@dataclass(frozen=True)
class QuarantineLine:
    """An entry of the quarantine without its bytes."""

    quarantine_id: int
    meter_id: str | None
    key_epoch: int | None
    sequence: int | None
    topic: str
    reason: str
    detail: str
    verified: bool
    message_hash: bytes
    received_at: datetime
    state: str
    decided_by: str | None
    decided_at: datetime | None
    decision_note: str | None


def list_readings(
    connection: Connection, meter_no: int, start: datetime, end: datetime, limit: int
) -> list[RawReading]:
    """Readings in [start, end) in time order, at most `limit`."""
    rows = connection.execute(
        text(
            "SELECT time, production_wh, consumption_wh, power_w, voltage_dv, frequency_mhz, flags FROM readings"
            " WHERE meter_no = :meter_no AND time >= :start AND time < :end ORDER BY time LIMIT :limit"
        ),
        {"meter_no": meter_no, "start": start, "end": end, "limit": limit},
    )
    return [RawReading(*row) for row in rows]


def list_presented(
    connection: Connection, meter_no: int, first_unix_s: int, last_unix_s: int
) -> list[tuple[int, int, str]]:
    """(from, until, transaction) of the stretches of time that were presented and touch this one, the oldest first.

    The rows are minting's (`hub/minting/store.py`). A reading at `from` belongs to the stretch before.
    """
    rows = connection.execute(
        text(
            "SELECT closed_from_unix_s, closed_until_unix_s, signature FROM mints WHERE meter_no = :meter_no"
            " AND state = 'finalized' AND step IN ('submit', 'write_off') AND closed_until_unix_s >= :first"
            " AND closed_from_unix_s < :last ORDER BY mint_id"
        ),
        {"meter_no": meter_no, "first": first_unix_s, "last": last_unix_s},
    )
    return [(row[0], row[1], row[2]) for row in rows]


def find_latest_reading(connection: Connection, meter_no: int) -> RawReading | None:
    """The newest reading."""
    row = connection.execute(
        text(
            "SELECT time, production_wh, consumption_wh, power_w, voltage_dv, frequency_mhz, flags FROM readings"
            " WHERE meter_no = :meter_no ORDER BY time DESC LIMIT 1"
        ),
        {"meter_no": meter_no},
    ).one_or_none()
    return None if row is None else RawReading(*row)


def list_energies(
    connection: Connection, meter_no: int, start_unix_s: int, end_unix_s: int, bucket_s: int
) -> list[Energy]:
    """Energy per bucket in [start, end), both aligned to the bucket; buckets without a reading are absent."""
    times = {"meter_no": meter_no, "start": _utc(start_unix_s), "end": _utc(end_unix_s)}
    closings = [Closing(*row) for row in connection.execute(_CLOSINGS, times)]
    if not closings:
        return []
    base = Closing(*connection.execute(_BASE, times).one())
    jumps = [Jump(*row) for row in connection.execute(_JUMPS, times)]
    return sum_by_bucket(interval_energies(base, closings, jumps), bucket_s)


_BASE = text(
    """
    SELECT coalesce(extract(epoch FROM c.interval_end), k.base_reading_unix_s / 900 * 900)::bigint,
           coalesce(extract(epoch FROM c.last_reading_at), k.base_reading_unix_s)::bigint,
           coalesce(c.production_wh, k.base_production_wh), coalesce(c.consumption_wh, k.base_consumption_wh)
    FROM meter_keys AS k
    LEFT JOIN LATERAL (
        SELECT interval_end, last_reading_at, production_wh, consumption_wh FROM interval_closings
        WHERE meter_no = k.meter_no AND key_epoch = k.key_epoch AND interval_end <= :start
        ORDER BY interval_end DESC LIMIT 1) AS c ON true
    WHERE k.meter_no = :meter_no
    ORDER BY c.last_reading_at DESC NULLS LAST, k.key_epoch LIMIT 1
    """
)
"""The last closing up to the range, of whichever key; before any, where the first key began."""

_CLOSINGS = text(
    """
    SELECT DISTINCT ON (interval_end)
           extract(epoch FROM interval_end)::bigint, extract(epoch FROM last_reading_at)::bigint,
           production_wh, consumption_wh
    FROM interval_closings
    WHERE meter_no = :meter_no AND interval_end > :start AND interval_end <= :end
    ORDER BY interval_end, last_reading_at DESC
    """
)
"""Where the key changed within an interval, the closing of the later one: its counters go on from the earlier's."""

_JUMPS = text(
    """
    WITH uncounted AS (
        SELECT s.key_epoch, s.sequence, s.last_production_wh, s.last_consumption_wh,
               s.sequence - row_number() OVER (PARTITION BY s.key_epoch ORDER BY s.sequence) AS island
        FROM seals AS s JOIN meter_keys AS k USING (meter_no, key_epoch)
        WHERE s.meter_no = :meter_no AND s.state IN ('quarantined', 'rejected')
          AND (k.superseded_after_sequence IS NULL OR s.sequence <= k.superseded_after_sequence
               OR NOT EXISTS (
                   SELECT FROM quarantine AS q
                   WHERE (q.meter_no, q.key_epoch, q.sequence) = (s.meter_no, s.key_epoch, s.sequence)
                     AND q.reason = 'key_superseded'))
          AND NOT EXISTS (
              SELECT FROM quarantine AS q
              WHERE (q.meter_no, q.key_epoch, q.sequence) = (s.meter_no, s.key_epoch, s.sequence)
                AND q.reason = 'declared_lost')),
    islands AS (
        SELECT key_epoch, min(sequence) AS first, max(sequence) AS last,
               max(last_production_wh) AS production_wh, max(last_consumption_wh) AS consumption_wh
        FROM uncounted GROUP BY key_epoch, island),
    start AS (
        SELECT base_production_wh, base_consumption_wh FROM meter_keys
        WHERE meter_no = :meter_no ORDER BY key_epoch LIMIT 1)
    SELECT after.first_reading_unix_s - 1,
           greatest(0, least(max(i.production_wh), after.first_production_wh)
               - coalesce(before.last_production_wh, start.base_production_wh)),
           greatest(0, least(max(i.consumption_wh), after.first_consumption_wh)
               - coalesce(before.last_consumption_wh, start.base_consumption_wh))
    FROM start CROSS JOIN islands AS i
    JOIN LATERAL (
        SELECT key_epoch, sequence, first_reading_unix_s, first_production_wh, first_consumption_wh FROM seals
        WHERE meter_no = :meter_no AND (key_epoch, sequence) > (i.key_epoch, i.last)
          AND state IN ('accepted', 'released')
        ORDER BY key_epoch, sequence LIMIT 1) AS after ON true
    LEFT JOIN LATERAL (
        SELECT last_production_wh, last_consumption_wh FROM seals
        WHERE meter_no = :meter_no AND (key_epoch, sequence) < (i.key_epoch, i.first)
          AND state IN ('accepted', 'released')
        ORDER BY key_epoch DESC, sequence DESC LIMIT 1) AS before ON true
    WHERE after.first_reading_unix_s <= extract(epoch FROM CAST(:end AS timestamptz))
    GROUP BY after.key_epoch, after.sequence, after.first_reading_unix_s, after.first_production_wh,
             after.first_consumption_wh, before.last_production_wh, before.last_consumption_wh,
             start.base_production_wh, start.base_consumption_wh
    """
)
"""What the uncounted seals between two counted ones added to the counters, and the moment before the first reading of
the later one, be it of this key or of the next: when the uncounted themselves claim to be from is not believed. The
highest of them says how much, whatever others say beside it, but no more than the later one's first reading has. Energy
that only an uncounted seal vouches for, because the one before it is missing, does not count either; it does as soon as
that one arrives.

What an old key seals beyond the handover once another has taken over is in no counter of the new one, so it is no jump
either: otherwise whoever kept the old key could take energy away from the new. What came late of a range that was
declared lost changes nothing: the range is what it was, a stretch without readings."""


def get_progress(connection: Connection, meter_no: int, key_epoch: int) -> Progress:
    """How far the stream of this key has come."""
    row = connection.execute(
        text(
            "SELECT highest_sequence, contiguous_sequence FROM meter_streams"
            " WHERE meter_no = :meter_no AND key_epoch = :key_epoch"
        ),
        {"meter_no": meter_no, "key_epoch": key_epoch},
    ).one()
    return Progress(*row)


_SEAL_LINE = (
    "key_epoch, sequence, state, linked, seal_hash, sealed_at_unix_s, closed_until_unix_s, production_wh,"
    " consumption_wh, surplus_wh, first_reading_unix_s, last_reading_unix_s, reading_count, received_at,"
    " state IN ('accepted', 'released') AND signature IS NOT NULL, signature"
)
_PRESENTED = (
    "(SELECT s.*, (SELECT t.signature FROM mints AS t WHERE t.meter_no = s.meter_no AND t.key_epoch = s.key_epoch"
    "  AND t.state = 'finalized' AND t.step <> 'make_way' AND t.first_sequence <= s.sequence"
    "  AND t.last_sequence >= s.sequence AND NOT (s.state IN ('quarantined', 'rejected') AND EXISTS ("
    "   SELECT FROM lost_gaps AS l WHERE l.meter_no = s.meter_no AND l.key_epoch = s.key_epoch"
    "   AND s.sequence BETWEEN l.first_sequence AND l.last_sequence))"
    "  ORDER BY t.last_sequence LIMIT 1) AS signature FROM seals AS s) AS s"
)
"""Seals with the transaction that covered them (the rows are minting's, `hub/minting/store.py`); what comes late of a
range that was declared lost is not covered by what went across it."""


def list_seals(connection: Connection, meter_no: int, after: tuple[int, int], limit: int) -> Sequence[SealLine]:
    """Seals in the order of (key epoch, sequence), beginning behind `after`."""
    rows = connection.execute(
        text(
            f"SELECT {_SEAL_LINE} FROM {_PRESENTED} WHERE meter_no = :meter_no"  # noqa: S608
            " AND (key_epoch, sequence) > (:key_epoch, :sequence) ORDER BY key_epoch, sequence LIMIT :limit"
        ),
        {"meter_no": meter_no, "key_epoch": after[0], "sequence": after[1], "limit": limit},
    )
    return [SealLine(*row) for row in rows]


def find_latest_seal(connection: Connection, meter_no: int, key_epoch: int) -> SealLine | None:
    """The stored seal with the highest sequence."""
    row = connection.execute(
        text(
            f"SELECT {_SEAL_LINE} FROM {_PRESENTED} WHERE meter_no = :meter_no AND key_epoch = :key_epoch"  # noqa: S608
            " ORDER BY sequence DESC LIMIT 1"
        ),
        {"meter_no": meter_no, "key_epoch": key_epoch},
    ).one_or_none()
    return None if row is None else SealLine(*row)


def get_evidence(connection: Connection, meter_no: int, key_epoch: int, sequence: int) -> Evidence:
    """The message of a stored seal, byte for byte. Raises SealNotFound."""
    row = connection.execute(
        text(
            "SELECT e.message, s.seal_hash, s.state, s.received_at FROM seals AS s"
            " JOIN evidence AS e USING (meter_no, key_epoch, sequence, received_at)"
            " WHERE s.meter_no = :meter_no AND s.key_epoch = :key_epoch AND s.sequence = :sequence"
        ),
        {"meter_no": meter_no, "key_epoch": key_epoch, "sequence": sequence},
    ).one_or_none()
    if row is None:
        raise SealNotFound(f"key epoch {key_epoch}, sequence {sequence}")
    return Evidence(*row)


def list_evidence(
    connection: Connection, meter_no: int, key_epoch: int, first: int, last: int, limit: int
) -> Sequence[EvidenceLine]:
    """Messages of the stored seals with sequences first … last, in order, at most `limit`."""
    rows = connection.execute(
        text(
            "SELECT s.sequence, s.state, s.received_at, e.message FROM seals AS s"
            " JOIN evidence AS e USING (meter_no, key_epoch, sequence, received_at)"
            " WHERE s.meter_no = :meter_no AND s.key_epoch = :key_epoch AND s.sequence BETWEEN :first AND :last"
            " ORDER BY s.sequence LIMIT :limit"
        ),
        {"meter_no": meter_no, "key_epoch": key_epoch, "first": first, "last": last, "limit": limit},
    )
    return [EvidenceLine(*row) for row in rows]


def list_gaps(connection: Connection, meter_no: int, after: tuple[int, int], limit: int) -> Sequence[Gap]:
    """Missing ranges in order, beginning behind `after` (key epoch, first sequence)."""
    rows = connection.execute(
        text(
            "SELECT g.key_epoch, g.first_sequence, g.last_sequence, g.detected_at, g.asked_at,"
            " l.declared_at, l.declared_by, l.reason, l.passed_at IS NOT NULL"
            " FROM seal_gaps g LEFT JOIN lost_gaps l ON l.meter_no = g.meter_no AND l.key_epoch = g.key_epoch"
            "  AND g.first_sequence BETWEEN l.first_sequence AND l.last_sequence"
            " WHERE g.meter_no = :meter_no AND (g.key_epoch, g.first_sequence) > (:key_epoch, :sequence)"
            " ORDER BY g.key_epoch, g.first_sequence LIMIT :limit"
        ),
        {"meter_no": meter_no, "key_epoch": after[0], "sequence": after[1], "limit": limit},
    )
    return [Gap(*row) for row in rows]


def list_quarantine(
    connection: Connection,
    state: str | None,
    reason: str | None,
    meter_id: str | None,
    after_id: int,
    limit: int,
) -> Sequence[QuarantineLine]:
    """Entries by id, beginning behind `after_id`; None means any."""
    rows = connection.execute(
        text(
            """
            SELECT q.quarantine_id, m.meter_id, q.key_epoch, q.sequence, q.topic, q.reason, q.detail, q.verified,
                   q.message_hash, q.received_at, q.state, q.decided_by, q.decided_at, q.decision_note
            FROM quarantine AS q LEFT JOIN meters AS m USING (meter_no)
            WHERE q.quarantine_id > :after_id
              AND (CAST(:state AS text) IS NULL OR q.state = :state)
              AND (CAST(:reason AS text) IS NULL OR q.reason = :reason)
              AND (CAST(:meter_id AS text) IS NULL OR m.meter_id = :meter_id)
            ORDER BY q.quarantine_id LIMIT :limit
            """
        ),
        {"state": state, "reason": reason, "meter_id": meter_id, "after_id": after_id, "limit": limit},
    )
    return [QuarantineLine(*row) for row in rows]


def _utc(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
