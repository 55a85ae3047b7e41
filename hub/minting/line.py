"""Reading a meter's line of seals as the rules want it: what lies behind the seal that the chain saw last.

Little is loaded, however much is stored: what does not count, the edges of gaps, and the seals that a rule asks for.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from hub.db import Driver, driver
from hub.minting.rules import Line, NextKey, Run, RunKind, runs_of
from hub.readings import gaps_store, store
from hub.readings.rules import SealFacts, State
from hub.registry.keys_store import MeterKey
from protocol.seal import NO_PREDECESSOR
from protocol.settlement import first_closed_until

LOOKED_AHEAD_MAX: Final = 1_000
"""So many seals that do not count, or gaps, are looked at behind the last one presented; the rest is for later."""


def read_line(connection: Connection, meter_no: int, key_epoch: int, sequence: int, keys: list[MeterKey]) -> Line:
    """The line of one key epoch behind a sequence (0: from its beginning). The snapshot is the caller's transaction."""
    key = next(each for each in keys if each.key_epoch == key_epoch)
    found: dict[int, SealFacts] = {}

    def find(wanted: int) -> SealFacts:
        if wanted not in found:
            [(_, _, _, found[wanted])] = store.list_seal_facts(driver(connection), [(meter_no, key_epoch, wanted)])
        return found[wanted]

    return Line(
        runs=read_runs(connection, meter_no, key, sequence),
        find=find,
        presented=_find_stored(connection, meter_no, key_epoch, sequence),
        next_key=_next_key(connection, meter_no, key_epoch, keys),
    )


def _find_stored(connection: Connection, meter_no: int, key_epoch: int, sequence: int) -> SealFacts | None:
    """A seal that the chain has seen; a hub whose database was restored may lack it."""
    rows = store.list_seal_facts(driver(connection), [(meter_no, key_epoch, sequence)])
    return rows[0][3] if rows else None


def read_runs(connection: Connection, meter_no: int, key: MeterKey, sequence: int) -> list[Run]:
    """The runs of a key's seals behind a sequence, up to the last that can count."""
    db: Driver = driver(connection)
    row = db.execute(
        "SELECT highest_sequence FROM meter_streams WHERE meter_no = %s AND key_epoch = %s", [meter_no, key.key_epoch]
    ).fetchone()
    assert row is not None
    end = int(row[0]) if key.superseded_after_sequence is None else min(int(row[0]), key.superseded_after_sequence)
    if end <= sequence:
        return []
    uncounted = db.execute(
        "SELECT s.sequence, s.state, coalesce(q.reason, '') FROM seals AS s LEFT JOIN ("
        "  SELECT sequence, message_hash, max(reason) AS reason FROM quarantine"
        "  WHERE meter_no = %s AND key_epoch = %s AND sequence > %s AND sequence <= %s GROUP BY sequence, message_hash"
        " ) AS q ON q.sequence = s.sequence AND q.message_hash = s.seal_hash"
        " WHERE s.meter_no = %s AND s.key_epoch = %s AND s.sequence > %s AND s.sequence <= %s"
        " AND s.state IN ('quarantined', 'rejected') ORDER BY s.sequence LIMIT %s",
        [meter_no, key.key_epoch, sequence, end] * 2 + [LOOKED_AHEAD_MAX],
    ).fetchall()
    gaps = db.execute(
        "SELECT first_sequence, last_sequence FROM seal_gaps WHERE meter_no = %s AND key_epoch = %s"
        " AND last_sequence > %s AND first_sequence <= %s ORDER BY first_sequence LIMIT %s",
        [meter_no, key.key_epoch, sequence, end, LOOKED_AHEAD_MAX],
    ).fetchall()
    if len(uncounted) == LOOKED_AHEAD_MAX:
        end = min(end, int(uncounted[-1][0]))
    if len(gaps) == LOOKED_AHEAD_MAX:
        end = min(end, int(gaps[-1][1]))
    lost = gaps_store.list_lost_gaps(db, meter_no, key.key_epoch, sequence)
    return runs_of(
        sequence,
        end,
        [(int(each[0]), State(each[1]), str(each[2])) for each in uncounted],
        [(int(first), int(last)) for first, last in gaps],
        lost,
    )


def first_obstacle(runs: list[Run]) -> Run | None:
    """The first run that minting cannot pass until somebody or something else comes."""
    return next((run for run in runs if run.kind in (RunKind.HELD, RunKind.MISSING)), None)


def _next_key(connection: Connection, meter_no: int, key_epoch: int, keys: list[MeterKey]) -> NextKey | None:
    key = next((each for each in keys if each.key_epoch == key_epoch + 1), None)
    if key is None:
        return None
    statement = key.decoded
    base = None
    if statement.last_seal_hash != NO_PREDECESSOR:
        db: Driver = driver(connection)
        base = db.execute(
            "SELECT max(sequence) FROM seals WHERE meter_no = %s AND key_epoch = %s AND seal_hash = %s",
            [meter_no, key_epoch, statement.last_seal_hash],
        ).fetchone()
    return NextKey(
        key.key_epoch,
        first_closed_until(statement.valid_from_unix_s),
        statement.production_wh,
        statement.consumption_wh,
        statement.surplus_wh,
        None if base is None or base[0] is None else int(base[0]),
    )
