"""Tables of the readings domain, and the statements that write them.

The hot path speaks to psycopg directly: arrays in, COPY for what is new. Reading for people is in `queries.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from psycopg.rows import TupleRow
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from hub.db import Driver, metadata
from hub.readings.envelope import MeterKeys, Readings
from hub.readings.rules import SealFacts, State, Stream, base_facts
from protocol.settlement import first_closed_until

_BIG = BigInteger
_TIME = DateTime(timezone=True)

meter_streams = Table(
    "meter_streams",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("key_epoch", Integer, primary_key=True, autoincrement=False),
    Column("highest_sequence", _BIG, nullable=False),
    Column("contiguous_sequence", _BIG, nullable=False),
    Column("contiguous_seal_hash", LargeBinary),
    ForeignKeyConstraint(["meter_no", "key_epoch"], ["meter_keys.meter_no", "meter_keys.key_epoch"]),
    CheckConstraint("contiguous_sequence <= highest_sequence", name="order"),
)

seals = Table(
    "seals",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("key_epoch", Integer, primary_key=True, autoincrement=False),
    Column("sequence", _BIG, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("linked", Boolean, nullable=False),
    Column("sound", Boolean, nullable=False),
    Column("seal_hash", LargeBinary, nullable=False),
    Column("previous_seal_hash", LargeBinary, nullable=False),
    Column("sealed_at_unix_s", _BIG, nullable=False),
    Column("closed_until_unix_s", _BIG, nullable=False),
    Column("production_wh", _BIG, nullable=False),
    Column("consumption_wh", _BIG, nullable=False),
    Column("surplus_wh", _BIG, nullable=False),
    Column("first_reading_unix_s", _BIG, nullable=False),
    Column("first_production_wh", _BIG, nullable=False),
    Column("first_consumption_wh", _BIG, nullable=False),
    Column("last_reading_unix_s", _BIG, nullable=False),
    Column("last_production_wh", _BIG, nullable=False),
    Column("last_consumption_wh", _BIG, nullable=False),
    Column("production_excess_ws", _BIG, nullable=False),
    Column("consumption_excess_ws", _BIG, nullable=False),
    Column("reading_count", Integer, nullable=False),
    Column("received_at", _TIME, nullable=False),
    Index(
        "seals_not_accepted_idx",
        "meter_no",
        "key_epoch",
        "sequence",
        postgresql_where=text("state IN ('quarantined', 'rejected')"),
    ),
)

seal_gaps = Table(
    "seal_gaps",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("key_epoch", Integer, primary_key=True, autoincrement=False),
    Column("first_sequence", _BIG, primary_key=True, autoincrement=False),
    Column("last_sequence", _BIG, nullable=False),
    Column("detected_at", _TIME, nullable=False),
    Column("asked_at", _TIME),
    CheckConstraint("first_sequence <= last_sequence", name="order"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("key_epoch", Integer, primary_key=True, autoincrement=False),
    Column("sequence", _BIG, primary_key=True, autoincrement=False),
    Column("received_at", _TIME, primary_key=True),
    Column("message", LargeBinary, nullable=False),
    postgresql_partition_by="RANGE (received_at)",
)

readings = Table(
    "readings",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("time", _TIME, primary_key=True),
    Column("production_wh", _BIG, nullable=False),
    Column("consumption_wh", _BIG, nullable=False),
    Column("power_w", Integer),
    Column("voltage_dv", Integer),
    Column("frequency_mhz", Integer),
    Column("flags", SmallInteger, nullable=False),
    postgresql_partition_by="RANGE (time)",
)

interval_closings = Table(
    "interval_closings",
    metadata,
    Column("meter_no", Integer, primary_key=True, autoincrement=False),
    Column("key_epoch", Integer, primary_key=True, autoincrement=False),
    Column("interval_end", _TIME, primary_key=True),
    Column("last_reading_at", _TIME, nullable=False),
    Column("production_wh", _BIG, nullable=False),
    Column("consumption_wh", _BIG, nullable=False),
    postgresql_partition_by="RANGE (interval_end)",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", _BIG, Identity(always=True), primary_key=True),
    Column("meter_no", Integer, ForeignKey("meters.meter_no")),
    Column("key_epoch", Integer),
    Column("sequence", _BIG),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("message", LargeBinary),
    Column("message_hash", LargeBinary, nullable=False),
    Column("received_at", _TIME, nullable=False),
    Column("state", Text, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", _TIME),
    Column("decision_note", Text),
    UniqueConstraint("topic", "message_hash"),
    Index("quarantine_held_idx", "quarantine_id", postgresql_where=text("state = 'held'")),
    Index("quarantine_held_meter_no_idx", "meter_no", postgresql_where=text("state = 'held'")),
    Index("quarantine_meter_no_idx", "meter_no", "quarantine_id"),
)

bad_signatures = Table(
    "bad_signatures",
    metadata,
    Column("meter_no", Integer, ForeignKey("meters.meter_no"), primary_key=True, autoincrement=False),
    Column("day", Date, primary_key=True),
    Column("messages", _BIG, nullable=False),
)
"""Messages on a meter's topic that no key of it signed, per UTC day."""

shard_leases = Table(
    "shard_leases",
    metadata,
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("holder", Text),
    Column("token", _BIG, nullable=False),
    Column("expires_at", _TIME, nullable=False),
)

ingest_workers = Table(
    "ingest_workers",
    metadata,
    Column("worker_id", Text, primary_key=True),
    Column("expires_at", _TIME, nullable=False),
)

_SEAL_COLUMNS = [column.name for column in seals.columns]
_FACTS = (
    "sequence, state, linked, seal_hash, previous_seal_hash, sealed_at_unix_s, closed_until_unix_s, production_wh,"
    " consumption_wh, surplus_wh, first_reading_unix_s, first_production_wh, first_consumption_wh,"
    " last_reading_unix_s, last_production_wh, last_consumption_wh, reading_count,"
    " production_excess_ws, consumption_excess_ws, sound"
)


# --- what a batch needs to know --------------------------------------------------------------------------------


def list_meter_keys(db: Driver, meter_ids: Sequence[str]) -> list[MeterKeys]:
    """The keys of these meters, newest epoch first; meters that are not registered are absent."""
    rows = db.execute(
        "SELECT m.meter_no, m.meter_id, array_agg(k.key_epoch ORDER BY k.key_epoch DESC),"
        " array_agg(k.public_key ORDER BY k.key_epoch DESC)"
        " FROM meters m JOIN meter_keys k USING (meter_no) WHERE m.meter_id = ANY(%s) GROUP BY m.meter_no",
        [list(meter_ids)],
    ).fetchall()
    return [MeterKeys(row[0], row[1], tuple(zip(row[2], row[3], strict=True))) for row in rows]


def lock_streams_for_update(db: Driver, streams: Sequence[tuple[int, int]]) -> None:
    """Lock the stream rows of (meter_no, key_epoch) pairs, in one order everywhere, until the transaction ends.

    A statement of its own: what is read after it sees what the former holder of the locks has committed.
    """
    db.execute(
        "SELECT FROM meter_streams WHERE (meter_no, key_epoch) IN (SELECT * FROM unnest(%s::int[], %s::int[]))"
        " ORDER BY meter_no, key_epoch FOR UPDATE",
        _columns(streams, 2),
    )


def list_stream_epochs(db: Driver, meter_no: int) -> list[tuple[int, int]]:
    """(meter_no, key_epoch) of all streams that the meter ever had, oldest first."""
    rows = db.execute(
        "SELECT meter_no, key_epoch FROM meter_streams WHERE meter_no = %s ORDER BY key_epoch", [meter_no]
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def list_streams(db: Driver, streams: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Stream]:
    """The streams by (meter_no, key_epoch), with the base of the epoch as seal 0 and, of the rest, nothing known."""
    rows = db.execute(
        "SELECT s.meter_no, s.key_epoch, m.meter_id, m.state, m.production_capacity_w, m.connection_capacity_w,"
        " m.register_quantum_wh, s.highest_sequence, s.contiguous_sequence, s.contiguous_seal_hash,"
        " m.key_epoch, k.state = 'revoked', k.superseded_after_sequence,"
        " extract(epoch FROM k.valid_from)::bigint, k.production_wh, k.consumption_wh, k.surplus_wh,"
        " k.base_sealed_at_unix_s, k.base_reading_unix_s, k.base_production_wh, k.base_consumption_wh,"
        " k.base_production_excess_ws, k.base_consumption_excess_ws,"
        " CASE WHEN s.contiguous_sequence < s.highest_sequence THEN"
        "  (SELECT array_agg(ARRAY[g.first_sequence, g.last_sequence] ORDER BY g.first_sequence) FROM seal_gaps g"
        "    WHERE g.meter_no = s.meter_no AND g.key_epoch = s.key_epoch) END, m.owner,"
        " CASE WHEN s.contiguous_sequence < s.highest_sequence THEN"
        "  (SELECT array_agg(ARRAY[l.first_sequence, l.last_sequence] ORDER BY l.first_sequence) FROM lost_gaps l"
        "    WHERE l.meter_no = s.meter_no AND l.key_epoch = s.key_epoch) END"
        " FROM meter_streams s JOIN meters m ON m.meter_no = s.meter_no"
        " JOIN meter_keys k ON k.meter_no = s.meter_no AND k.key_epoch = s.key_epoch"
        " WHERE (s.meter_no, s.key_epoch) IN (SELECT * FROM unnest(%s::int[], %s::int[]))",
        _columns(streams, 2),
    ).fetchall()
    found = {}
    for row in rows:
        current_key_epoch, key_revoked, superseded_after, valid_from_unix_s = row[10:14]
        stream = Stream(
            *row[:10],
            gaps=[(first, last) for first, last in row[23] or ()],
            lost=[(first, last) for first, last in row[25] or ()],
            current_key_epoch=current_key_epoch,
            key_revoked=key_revoked,
            superseded_after=superseded_after,
            owner=bytes(row[24]),
        )
        stream.known[0] = base_facts(
            closed_until_unix_s=first_closed_until(valid_from_unix_s),
            production_wh=row[14],
            consumption_wh=row[15],
            surplus_wh=row[16],
            sealed_at_unix_s=row[17],
            last_reading_unix_s=row[18],
            last_production_wh=row[19],
            last_consumption_wh=row[20],
            production_excess_ws=row[21],
            consumption_excess_ws=row[22],
        )
        found[stream.meter_no, stream.key_epoch] = stream
    return found


def list_seal_facts(db: Driver, wanted: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, datetime, SealFacts]]:
    """Facts of stored seals by (meter_no, key_epoch, sequence); absent ones are not in the answer."""
    rows = db.execute(
        f"SELECT meter_no, key_epoch, received_at, {_FACTS} FROM seals WHERE (meter_no, key_epoch, sequence)"  # noqa: S608
        " IN (SELECT * FROM unnest(%s::int[], %s::int[], %s::bigint[]))",
        _columns(wanted, 3),
    ).fetchall()
    return [(row[0], row[1], row[2], SealFacts(row[3], State(row[4]), *row[5:])) for row in rows]


def list_sound_neighbours(
    db: Driver, around: Sequence[tuple[int, int, int]]
) -> list[tuple[int, int, datetime, SealFacts]]:
    """The nearest sound seals below and above these (meter_no, key_epoch, sequence), where there are any."""
    rows = db.execute(
        f"SELECT s.meter_no, s.key_epoch, s.received_at, {_FACTS} FROM unnest(%s::int[], %s::int[], %s::bigint[])"  # noqa: S608
        " AS a (m, e, n), LATERAL ("
        "(SELECT * FROM seals WHERE meter_no = m AND key_epoch = e AND sequence < n AND sound"
        "  ORDER BY sequence DESC LIMIT 1) UNION ALL"
        " (SELECT * FROM seals WHERE meter_no = m AND key_epoch = e AND sequence > n AND sound"
        "  ORDER BY sequence LIMIT 1)) AS s",
        _columns(around, 3),
    ).fetchall()
    return [(row[0], row[1], row[2], SealFacts(row[3], State(row[4]), *row[5:])) for row in rows]


def find_evidence(db: Driver, meter_no: int, key_epoch: int, sequence: int, received_at: datetime) -> bytes | None:
    """The message of a stored seal, byte for byte; `received_at` names the partition."""
    row = db.execute(
        "SELECT message FROM evidence WHERE (meter_no, key_epoch, sequence, received_at) = (%s, %s, %s, %s)",
        [meter_no, key_epoch, sequence, received_at],
    ).fetchone()
    return bytes(row[0]) if row else None


# --- what a batch writes ---------------------------------------------------------------------------------------


def copy_seals(db: Driver, rows: Iterable[tuple[int, int, SealFacts, bytes]], received_at: datetime) -> None:
    """Store seals and their evidence: (meter_no, key_epoch, facts, message)."""
    received_us = _postgres_us(received_at)
    seal_rows, evidence_rows = [_COPY_HEADER], [_COPY_HEADER]
    for meter_no, key_epoch, facts, message in rows:
        seal_rows.append(_pack_seal(meter_no, key_epoch, facts, received_us))
        evidence_rows.append(
            _EVIDENCE_ROW.pack(5, 4, meter_no, 4, key_epoch, 8, facts.sequence, 8, received_us, len(message))
        )
        evidence_rows.append(message)
    with db.cursor() as cursor:
        with cursor.copy(f"COPY seals ({', '.join(_SEAL_COLUMNS)}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(b"".join([*seal_rows, _COPY_TRAILER]))
        with cursor.copy(
            "COPY evidence (meter_no, key_epoch, sequence, received_at, message) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.write(b"".join([*evidence_rows, _COPY_TRAILER]))


def _pack_seal(meter_no: int, key_epoch: int, facts: SealFacts, received_us: int) -> bytes:
    """A row of `seals` in binary COPY form, in the order of its columns: each value behind its length."""
    state = facts.state.value.encode()
    return _SEAL_ROWS[len(state)].pack(
        23,
        4, meter_no,
        4, key_epoch,
        8, facts.sequence,
        len(state), state,
        1, facts.linked,
        1, facts.sound,
        32, facts.seal_hash,
        32, facts.previous_seal_hash,
        8, facts.sealed_at_unix_s,
        8, facts.closed_until_unix_s,
        8, facts.production_wh,
        8, facts.consumption_wh,
        8, facts.surplus_wh,
        8, facts.first_reading_unix_s,
        8, facts.first_production_wh,
        8, facts.first_consumption_wh,
        8, facts.last_reading_unix_s,
        8, facts.last_production_wh,
        8, facts.last_consumption_wh,
        8, facts.production_excess_ws,
        8, facts.consumption_excess_ws,
        4, facts.reading_count,
        8, received_us,
    )  # fmt: skip


_SEAL_ROWS = {
    len(state.value): struct.Struct(f">h ii ii iq i{len(state.value)}s i? i? i32s i32s {'iq' * 13} ii iq")
    for state in State
}
_EVIDENCE_ROW = struct.Struct(">h ii ii iq iq i")

_POSTGRES_EPOCH_UNIX_S = 946_684_800
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"


def _postgres_us(moment: datetime) -> int:
    """Microseconds since 2000, which is what a timestamptz is."""
    return (moment - utc(_POSTGRES_EPOCH_UNIX_S)) // timedelta(microseconds=1)


def _reading_row(optional_present: tuple[bool, bool, bool]) -> np.dtype[np.void]:
    """The binary COPY form of a readings row, lengths inline; a null is a length of −1 and no value."""
    fields: list[tuple[str, str]] = [("columns", ">i2")]
    for name, form in (("meter_no", ">i4"), ("time", ">i8"), ("production", ">i8"), ("consumption", ">i8")):
        fields += [(f"{name}_length", ">i4"), (name, form)]
    for name, present in zip(("power", "voltage", "frequency"), optional_present, strict=True):
        fields.append((f"{name}_length", ">i4"))
        if present:
            fields.append((name, ">i4"))
    return np.dtype([*fields, ("flags_length", ">i4"), ("flags", ">i2")])


def pack_readings(meters: Iterable[tuple[int, Readings]]) -> bytes:
    """The body of a binary COPY into readings, packed column by column.

    Messages that carry the same optional columns share a row form, so each form is one numpy record array.
    """
    forms: dict[tuple[bool, bool, bool], list[tuple[int, Readings]]] = {}
    for meter_no, columns in meters:
        present = (
            columns.powers_w is not None,
            columns.voltages_dv is not None,
            columns.frequencies_mhz is not None,
        )
        forms.setdefault(present, []).append((meter_no, columns))
    parts = [_COPY_HEADER]
    for present, members in forms.items():
        counts = [len(columns) for _, columns in members]
        rows = np.zeros(sum(counts), _reading_row(present))
        rows["columns"] = 8
        rows["meter_no"] = np.repeat([meter_no for meter_no, _ in members], counts)
        rows["time"] = _flat(columns.times_unix_s for _, columns in members)
        rows["time"] -= _POSTGRES_EPOCH_UNIX_S
        rows["time"] *= 1_000_000
        rows["production"] = _flat(columns.productions_wh for _, columns in members)
        rows["consumption"] = _flat(columns.consumptions_wh for _, columns in members)
        for name, values in (
            ("power", [columns.powers_w for _, columns in members]),
            ("voltage", [columns.voltages_dv for _, columns in members]),
            ("frequency", [columns.frequencies_mhz for _, columns in members]),
        ):
            if values[0] is None:
                rows[f"{name}_length"] = -1
            else:
                rows[f"{name}_length"] = 4
                rows[name] = _flat(column for column in values if column is not None)
        rows["meter_no_length"] = 4
        rows["time_length"] = rows["production_length"] = rows["consumption_length"] = 8
        rows["flags_length"] = 2
        if any(columns.flags for _, columns in members):
            rows["flags"] = _flat(columns.flags or [0] * len(columns) for _, columns in members)
        parts.append(rows.tobytes())
    parts.append(_COPY_TRAILER)
    return b"".join(parts)


def _flat(columns: Iterable[list[int]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    joined: list[int] = []
    for column in columns:
        joined += column
    return np.array(joined, dtype=np.int64)


def copy_readings(db: Driver, meters: Iterable[tuple[int, Readings]]) -> None:
    """Store readings. A second row for a meter and instant raises UniqueViolation: the rules allow none."""
    with db.cursor().copy(
        "COPY readings (meter_no, time, production_wh, consumption_wh, power_w, voltage_dv, frequency_mhz, flags)"
        " FROM STDIN (FORMAT BINARY)"
    ) as copy:
        copy.write(pack_readings(meters))


def upsert_interval_closings(db: Driver, meters: Iterable[tuple[int, int, Readings]]) -> None:
    """Keep, per settlement interval, the counters of its last reading. Commutative, so late data needs no care."""
    newest: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    for meter_no, key_epoch, columns in meters:
        for end_unix_s, last in columns.closings:
            row = (columns.times_unix_s[last], columns.productions_wh[last], columns.consumptions_wh[last])
            key = (meter_no, key_epoch, end_unix_s)
            if key not in newest or newest[key] < row:
                newest[key] = row
    if newest:
        db.execute(
            "INSERT INTO interval_closings AS c"
            " (meter_no, key_epoch, interval_end, last_reading_at, production_wh, consumption_wh)"
            " SELECT m, e, to_timestamp(i), to_timestamp(t), p, c FROM"
            " unnest(%s::int[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " AS n (m, e, i, t, p, c)"
            " ON CONFLICT (meter_no, key_epoch, interval_end) DO UPDATE SET"
            " last_reading_at = excluded.last_reading_at, production_wh = excluded.production_wh,"
            " consumption_wh = excluded.consumption_wh WHERE excluded.last_reading_at > c.last_reading_at",
            _columns([(*key, *row) for key, row in sorted(newest.items())], 6),
        )


def update_streams(db: Driver, streams: Sequence[Stream]) -> None:
    """Write back how far the streams have come."""
    db.execute(
        "UPDATE meter_streams s SET highest_sequence = n.highest, contiguous_sequence = n.contiguous,"
        " contiguous_seal_hash = n.hash"
        " FROM unnest(%s::int[], %s::int[], %s::bigint[], %s::bigint[], %s::bytea[])"
        " AS n (meter_no, key_epoch, highest, contiguous, hash)"
        " WHERE s.meter_no = n.meter_no AND s.key_epoch = n.key_epoch",
        _columns(
            [
                (s.meter_no, s.key_epoch, s.highest_sequence, s.contiguous_sequence, s.contiguous_seal_hash)
                for s in streams
            ],
            5,
        ),
    )


def replace_gaps(db: Driver, streams: Sequence[Stream], now: datetime) -> None:
    """Make the stored gaps of these streams those they have now; what is left of a gap keeps when it was asked for."""
    wanted = [(s.meter_no, s.key_epoch, first, last) for s in streams for first, last in s.gaps]
    db.execute(
        "WITH wanted AS (SELECT * FROM unnest(%s::int[], %s::int[], %s::bigint[], %s::bigint[])"
        "   AS w (meter_no, key_epoch, first_sequence, last_sequence)),"
        " closed AS (DELETE FROM seal_gaps g USING unnest(%s::int[], %s::int[]) AS s (meter_no, key_epoch)"
        "   WHERE g.meter_no = s.meter_no AND g.key_epoch = s.key_epoch"
        "   AND NOT EXISTS (SELECT FROM wanted w WHERE w.meter_no = g.meter_no AND w.key_epoch = g.key_epoch"
        "     AND w.first_sequence = g.first_sequence))"
        " INSERT INTO seal_gaps AS g (meter_no, key_epoch, first_sequence, last_sequence, detected_at, asked_at)"
        " SELECT w.*, coalesce(o.detected_at, %s), o.asked_at FROM wanted w LEFT JOIN seal_gaps o"
        "   ON o.meter_no = w.meter_no AND o.key_epoch = w.key_epoch"
        "   AND w.first_sequence BETWEEN o.first_sequence AND o.last_sequence"
        " ON CONFLICT (meter_no, key_epoch, first_sequence) DO UPDATE SET last_sequence = excluded.last_sequence"
        " WHERE g.last_sequence <> excluded.last_sequence",
        [*_columns(wanted, 4), *_columns([(s.meter_no, s.key_epoch) for s in streams], 2), now],
    )


def link_seals(db: Driver, linked: Sequence[tuple[int, int, int]]) -> None:
    """Mark seals whose predecessor has come and agrees: (meter_no, key_epoch, sequence)."""
    db.execute(
        "UPDATE seals SET linked = true WHERE (meter_no, key_epoch, sequence)"
        " IN (SELECT * FROM unnest(%s::int[], %s::int[], %s::bigint[]))",
        _columns(linked, 3),
    )


def insert_quarantine(db: Driver, rows: Sequence[TupleRow]) -> int:
    """Keep what was not accepted; bytes seen before on that topic are not kept twice. Returns how many are kept.

    A seal that was held, or even released, and is now found to contradict itself is held again for that. One beyond the
    end of its key stays held for this: it is in nobody's counters, which energy must know (`queries.py`). A bare seal
    has the hash that its message is held under, and gives its place up: otherwise it could be sent first, to hide that.

    Rows: (meter_no, key_epoch, sequence, topic, reason, detail, verified, message, message_hash, received_at).
    """
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO quarantine (meter_no, key_epoch, sequence, topic, reason, detail, verified, message,"
            " message_hash, received_at, state) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'held')"
            " ON CONFLICT (topic, message_hash) DO UPDATE SET meter_no = excluded.meter_no,"
            " key_epoch = excluded.key_epoch, sequence = excluded.sequence, verified = true,"
            " message = excluded.message, reason = excluded.reason, detail = excluded.detail,"
            " state = 'held', decided_by = NULL, decided_at = NULL, decision_note = NULL"
            " WHERE excluded.verified AND quarantine.reason NOT IN (excluded.reason, 'key_superseded')",
            rows,
        )
        return cursor.rowcount


def count_unverified_quarantine(db: Driver, topics: Sequence[str]) -> dict[str, int]:
    """How many unverifiable messages are kept per topic."""
    rows = db.execute(
        "SELECT topic, count(*) FROM quarantine WHERE topic = ANY(%s) AND NOT verified GROUP BY topic",
        [list(topics)],
    )
    return {row[0]: row[1] for row in rows}


def count_quarantined(db: Driver, reason: str, meter_nos: Sequence[int]) -> dict[int, int]:
    """How many messages are kept for this reason, per meter."""
    rows = db.execute(
        "SELECT meter_no, count(*) FROM quarantine WHERE reason = %s AND meter_no = ANY(%s) GROUP BY meter_no",
        [reason, meter_nos],
    )
    return {row[0]: row[1] for row in rows}


def count_bad_signatures(db: Driver, messages: dict[int, int], now: datetime) -> dict[int, int]:
    """Add to the day's messages that no key of their meter signed; returns the day's sums, per meter_no."""
    rows = db.execute(
        "INSERT INTO bad_signatures AS b (meter_no, day, messages)"
        " SELECT n.meter_no, (%s AT TIME ZONE 'UTC')::date, n.messages"
        " FROM unnest(%s::int[], %s::bigint[]) AS n (meter_no, messages) ORDER BY n.meter_no"
        " ON CONFLICT (meter_no, day) DO UPDATE SET messages = b.messages + excluded.messages"
        " RETURNING meter_no, messages",
        [now, *_columns(sorted(messages.items()), 2)],
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    """Rows turned into as many arrays as they have columns, also when there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def utc(unix_s: int) -> datetime:
    """A time of the protocol as PostgreSQL takes it."""
    return datetime.fromtimestamp(unix_s, UTC)
