"""What people ask about minting: where each watt-hour of surplus is.

A meter's *line* is the seals that can be presented: of each key those up to where the next one took over, without what
came late of a range that was declared lost, and without what contradicts the meter's other seals, unless it was
presented. What a seal adds to the surplus falls on the UTC day of the last interval that it closes. Of every day, and
in all, at any moment:

    accepted + taken back = minted + written off + earned back + pending + held

`accepted` comes from the seals themselves; minted, written off and earned back from what was finalized; pending and
held from the seals that were not presented yet. `taken back` is what was presented of a key whose word was taken back
afterwards; taken back − earned back is what is to be earned before anything new is minted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import date

from sqlalchemy import Connection, text

from hub.minting.line import first_obstacle, read_runs
from hub.minting.rules import Run
from hub.registry import keys_service


@dataclass(frozen=True)
class Balance:
    """Where surplus is, in Wh."""

    accepted_wh: int = 0
    minted_wh: int = 0
    pending_wh: int = 0
    held_wh: int = 0
    written_off_wh: int = 0
    earned_back_wh: int = 0
    taken_back_wh: int = 0

    @property
    def over_minted_wh(self) -> int:
        """What was minted or written off for a key whose word was taken back, and is not earned yet."""
        return self.taken_back_wh - self.earned_back_wh

    def __add__(self, other: Balance) -> Balance:
        return Balance(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Balance)))


@dataclass(frozen=True)
class Position:
    """The last seal that was presented: key epoch and sequence; (1, 0) before the first."""

    key_epoch: int
    sequence: int


@dataclass(frozen=True)
class TokenLine:
    """What a meter has earned its owner in all."""

    meter_id: str
    minted_wh: int
    mints: int


def find_position(connection: Connection, meter_no: int) -> Position:
    """How far the finalized steps have come."""
    row = connection.execute(
        text(
            "SELECT key_epoch, last_sequence FROM mints WHERE meter_no = :meter_no AND state = 'finalized'"
            " ORDER BY mint_id DESC LIMIT 1"
        ),
        {"meter_no": meter_no},
    ).one_or_none()
    return Position(1, 0) if row is None else Position(row[0], row[1])


def list_balances(connection: Connection, meter_no: int, *, stopped: bool) -> dict[date, Balance]:
    """The meter's balance by UTC day, in order; `stopped`: nothing of it is minted for a reason that is not a seal's.

    Wants a snapshot: several statements that see one moment.
    """
    position = find_position(connection, meter_no)
    obstacle = _first_obstacle(connection, meter_no, position)
    bound = Position(0, 0) if stopped else obstacle or _END
    rows = connection.execute(
        _BY_DAY,
        {
            "meter_no": meter_no,
            "key_epoch": position.key_epoch,
            "sequence": position.sequence,
            "bound_epoch": bound.key_epoch,
            "bound_sequence": bound.sequence,
        },
    )
    return {row[0]: Balance(*(int(figure) for figure in row[1:])) for row in rows}


_END = Position(2**31 - 1, 0)


def _first_obstacle(connection: Connection, meter_no: int, position: Position) -> Position | None:
    for key in keys_service.list_keys(connection, meter_no):
        if key.key_epoch < position.key_epoch:
            continue
        sequence = position.sequence if key.key_epoch == position.key_epoch else 0
        run: Run | None = first_obstacle(read_runs(connection, meter_no, key, sequence))
        if run is not None:
            return Position(key.key_epoch, run.first)
    return None


_BY_DAY = text(
    """
    WITH presented AS (
        SELECT key_epoch, last_sequence FROM mints
        WHERE meter_no = :meter_no AND state = 'finalized' AND step IN ('submit', 'write_off')),
    seen AS (
        SELECT s.key_epoch, s.sequence, s.state,
               (to_timestamp(s.closed_until_unix_s - 1) AT TIME ZONE 'UTC')::date AS day,
               s.surplus_wh - lag(s.surplus_wh, 1, k.surplus_wh)
                   OVER (PARTITION BY s.key_epoch ORDER BY s.sequence) AS added_wh,
               k.superseded_after_sequence IS NULL OR s.sequence <= k.superseded_after_sequence AS on_line
        FROM seals AS s JOIN meter_keys AS k USING (meter_no, key_epoch)
        WHERE s.meter_no = :meter_no
          AND (s.sound OR EXISTS (
              SELECT FROM presented AS p WHERE (p.key_epoch, p.last_sequence) = (s.key_epoch, s.sequence)))
          AND NOT (s.state IN ('quarantined', 'rejected') AND EXISTS (
              SELECT FROM lost_gaps AS l WHERE l.meter_no = s.meter_no AND l.key_epoch = s.key_epoch
              AND s.sequence BETWEEN l.first_sequence AND l.last_sequence))),
    figures AS (
        SELECT day, added_wh AS accepted, 0 AS minted,
               CASE WHEN is_new AND state <> 'rejected' AND is_reached THEN added_wh ELSE 0 END AS pending,
               CASE WHEN is_new AND state <> 'rejected' AND NOT is_reached THEN added_wh ELSE 0 END AS held,
               CASE WHEN is_new AND state = 'rejected' THEN added_wh ELSE 0 END AS written_off,
               0 AS earned_back, 0 AS taken_back
        FROM (SELECT *, (key_epoch, sequence) > (:key_epoch, :sequence) AS is_new,
                     (key_epoch, sequence) < (:bound_epoch, :bound_sequence) AS is_reached
              FROM seen WHERE on_line) AS line
        UNION ALL
        SELECT day, 0, 0, 0, 0, 0, 0, added_wh FROM seen
        WHERE NOT on_line AND sequence <= (
            SELECT max(last_sequence) FROM presented AS p WHERE p.key_epoch = seen.key_epoch)
        UNION ALL
        SELECT d.day, 0, d.minted_wh, 0, 0, d.written_off_wh, d.earned_back_wh, 0
        FROM mint_days AS d JOIN mints AS m USING (mint_id)
        WHERE m.meter_no = :meter_no AND m.state = 'finalized')
    SELECT day, sum(accepted), sum(minted), sum(pending), sum(held), sum(written_off), sum(earned_back),
           sum(taken_back)
    FROM figures GROUP BY day ORDER BY day
    """
)


def list_tokens(connection: Connection, owners: Collection[bytes]) -> Sequence[TokenLine]:
    """What each meter of these owners has earned, by meter id."""
    rows = connection.execute(
        text(
            "SELECT m.meter_id, coalesce(sum(t.minted_wh), 0), count(t.mint_id) FILTER (WHERE t.minted_wh > 0)"
            " FROM meters AS m LEFT JOIN mints AS t ON t.meter_no = m.meter_no AND t.state = 'finalized'"
            " WHERE m.owner = ANY(:owners) GROUP BY m.meter_id ORDER BY m.meter_id"
        ),
        {"owners": list(owners)},
    )
    return [TokenLine(row[0], int(row[1]), int(row[2])) for row in rows]


def sum_minted_wh(connection: Connection) -> int:
    """What all finalized steps of all meters minted."""
    return int(
        connection.execute(text("SELECT coalesce(sum(minted_wh), 0) FROM mints WHERE state = 'finalized'")).scalar_one()
    )
