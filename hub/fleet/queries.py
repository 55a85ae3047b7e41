"""What operators ask about the fleet: SQL across meters, their streams and their statuses, one statement per function.

A page walks the meters in the order of their ids; everything about one of them is a look-up in an index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from hub.fleet import rules
from hub.fleet.rules import Sightings


@dataclass(frozen=True)
class Filters:
    """Which meters; None means any."""

    presence: str | None = None
    state: str | None = None
    problem: str | None = None
    firmware: str | None = None
    behind: bool | None = None
    meter_id: str | None = None


@dataclass(frozen=True)
class FleetLine:
    """A meter as an operator sees it. `missing_seals` over all its keys; what it stated is None until it did.

    `held_messages` ends at HELD_COUNTED_MAX.
    """

    meter_id: str
    kind: int
    state: str
    key_epoch: int
    highest_sequence: int | None
    missing_seals: int
    held_messages: int
    last_reading_unix_s: int | None
    seal_at: datetime | None
    stated: str | None
    stated_since: datetime | None
    status_at: datetime | None
    clock_skew_s: int | None
    firmware: str | None
    backlog_seals: int | None
    unsealed_readings: int | None
    clock: str | None
    transport: str | None
    problems: list[str]
    presence: str

    @property
    def sightings(self) -> Sightings:
        """What its presence is decided by."""
        return Sightings(self.stated, self.stated_since, self.status_at, self.seal_at)


@dataclass(frozen=True)
class Stated:
    """The rest of what a meter last said of itself, as it said it."""

    key_epoch: int | None
    sequence: int | None
    last_reading_unix_s: int | None
    journal_bytes: int | None
    journal_bytes_max: int | None
    meters: list[dict[str, str]] | None
    counts: dict[str, int] | None


@dataclass(frozen=True)
class Totals:
    """The fleet in figures, without retired meters except in `states`.

    Problems and versions by how many meters have them, the most frequent ones.
    """

    meters: int
    presences: dict[str, int]
    states: dict[str, int]
    meters_behind: int
    meters_with_problems: int
    problems: dict[str, int]
    firmware: dict[str, int]
    backlog_seals: int
    missing_seals: int
    held_messages: int


@dataclass(frozen=True)
class AlarmLine:
    """Something that an operator must look into."""

    alarm_id: int
    kind: str
    meter_id: str | None
    detail: dict[str, object]
    raised_at: datetime


NAMES_MAX = 100
"""Of problems and versions so many are named in a summary: what devices say has no other bound."""

SUM_MAX = 2**53 - 1
"""A sum of what devices state ends here: every JSON parser can hold it, and no device makes an answer impossible."""

HELD_COUNTED_MAX = 10_000
"""Of one meter so many held messages are counted: a suspended one in live mode makes 86,400 a day."""

FLEET = f"""
    SELECT m.meter_id, m.kind, m.state, m.key_epoch, t.highest_sequence, g.missing_seals, q.held_messages,
           l.last_reading_unix_s, l.received_at AS seal_at, s.state AS stated, s.state_at AS stated_since, s.status_at,
           s.clock_skew_s, s.agent AS firmware, s.backlog_seals, s.unsealed_readings, s.clock, s.transport,
           coalesce(s.problems, '{{}}') AS problems,
           CASE WHEN greatest(s.status_at, l.received_at) IS NULL THEN 'never'
                WHEN greatest(h.status_at, h.seal_at) IS NULL THEN 'offline'
                WHEN s.state = 'offline' AND s.state_at + :grace <= :now
                     AND greatest(h.status_at, h.seal_at) < s.state_at + :grace THEN 'offline'
                WHEN greatest(h.status_at, h.seal_at)
                     < :now - CASE WHEN h.status_at >= coalesce(h.seal_at, h.status_at) - :status_silence
                                   THEN :status_silence ELSE :seal_silence END THEN 'offline'
                ELSE 'online' END AS presence
    FROM meters AS m
    LEFT JOIN meter_status AS s ON s.meter_no = m.meter_no
    LEFT JOIN meter_streams AS t ON t.meter_no = m.meter_no AND t.key_epoch = m.key_epoch
    LEFT JOIN LATERAL (
        SELECT received_at, last_reading_unix_s FROM seals WHERE meter_no = m.meter_no
        ORDER BY key_epoch DESC, sequence DESC LIMIT 1) AS l ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN s.status_at <= :now + :ahead THEN s.status_at END AS status_at,
               CASE WHEN l.received_at <= :now + :ahead THEN l.received_at END AS seal_at) AS h
    CROSS JOIN LATERAL (
        SELECT least(coalesce(sum(last_sequence - first_sequence + 1), 0), {SUM_MAX})::bigint AS missing_seals
        FROM seal_gaps WHERE meter_no = m.meter_no) AS g
    CROSS JOIN LATERAL (
        SELECT count(*) AS held_messages FROM (
            SELECT FROM quarantine WHERE meter_no = m.meter_no AND state = 'held' LIMIT {HELD_COUNTED_MAX}) AS h) AS q
"""  # noqa: S608
"""The seal with the highest sequence stands for the last one received: live seals go before a backlog. `h` is what is
believed of the sightings (`rules.presence`)."""

_BEHIND = "(missing_seals > 0 OR coalesce(backlog_seals, 0) > :backlog_normal)"

_CONDITIONS = {
    "presence": "f.presence = :presence",
    "state": "f.state = :state",
    "problem": "f.problems @> ARRAY[CAST(:problem AS text)]",
    "firmware": "f.firmware = :firmware",
    "behind": f"{_BEHIND} = :behind",
    "meter_id": "f.meter_id = :meter_id",
}


def list_fleet(
    connection: Connection, filters: Filters, after_meter_id: str, limit: int, now: datetime
) -> list[FleetLine]:
    """Meters in the order of their ids, beginning behind `after_meter_id`."""
    given = {name: value for name, value in vars(filters).items() if value is not None}
    conditions = " AND ".join(["f.meter_id > :after", *(_CONDITIONS[name] for name in given)])
    rows = connection.execute(
        text(f"SELECT * FROM ({FLEET}) AS f WHERE {conditions} ORDER BY f.meter_id LIMIT :limit"),  # noqa: S608
        {**given, **_limits(now, behind="behind" in given), "after": after_meter_id, "limit": limit},
    )
    return [FleetLine(*row) for row in rows]


def find_stated(connection: Connection, meter_id: str) -> Stated | None:
    """What a meter last said of itself, beyond its FleetLine."""
    row = connection.execute(
        text(
            "SELECT s.key_epoch, s.sequence, s.last_reading_unix_s, s.journal_bytes, s.journal_bytes_max, s.meters,"
            " s.counts FROM meter_status AS s JOIN meters AS m USING (meter_no) WHERE m.meter_id = :meter_id"
        ),
        {"meter_id": meter_id},
    ).one_or_none()
    return None if row is None else Stated(*row)


def sum_up_fleet(connection: Connection, now: datetime) -> Totals:
    """The whole fleet in figures; one look-up in each index for each meter."""
    row = connection.execute(
        text(
            f"""
            WITH fleet AS MATERIALIZED (SELECT * FROM ({FLEET}) AS f WHERE f.state <> 'retired'),
            by_problem AS (
                SELECT name, count(*) FROM fleet CROSS JOIN LATERAL (SELECT DISTINCT unnest(problems) AS name) AS p
                GROUP BY name ORDER BY count(*) DESC, name LIMIT :names_max),
            by_firmware AS (
                SELECT firmware AS name, count(*) FROM fleet WHERE firmware IS NOT NULL
                GROUP BY firmware ORDER BY count(*) DESC, name LIMIT :names_max),
            by_presence AS (SELECT presence AS name, count(*) FROM fleet GROUP BY presence),
            by_state AS (SELECT state AS name, count(*) FROM meters GROUP BY state)
            SELECT count(*) AS meters,
                   count(*) FILTER (WHERE {_BEHIND}) AS meters_behind,
                   count(*) FILTER (WHERE cardinality(problems) > 0) AS meters_with_problems,
                   least(coalesce(sum(backlog_seals), 0), {SUM_MAX})::bigint AS backlog_seals,
                   least(coalesce(sum(missing_seals), 0), {SUM_MAX})::bigint AS missing_seals,
                   coalesce(sum(held_messages), 0)::bigint AS held_messages,
                   (SELECT jsonb_object_agg(name, count) FROM by_presence) AS presences,
                   (SELECT jsonb_object_agg(name, count) FROM by_state) AS states,
                   (SELECT jsonb_object_agg(name, count) FROM by_problem) AS problems,
                   (SELECT jsonb_object_agg(name, count) FROM by_firmware) AS firmware
            FROM fleet
            """  # noqa: S608
        ),
        {**_limits(now, behind=True), "names_max": NAMES_MAX},
    ).one()
    return Totals(
        meters=row.meters,
        presences=dict.fromkeys(rules.PRESENCES, 0) | (row.presences or {}),
        states=row.states or {},
        meters_behind=row.meters_behind,
        meters_with_problems=row.meters_with_problems,
        problems=by_count(row.problems or {}),
        firmware=by_count(row.firmware or {}),
        backlog_seals=row.backlog_seals,
        missing_seals=row.missing_seals,
        held_messages=row.held_messages,
    )


def by_count(found: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first, equals by name."""
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def list_alarms(connection: Connection, before_alarm_id: int, limit: int) -> list[AlarmLine]:
    """Alarms, newest first, beginning before `before_alarm_id`."""
    rows = connection.execute(
        text(
            "SELECT a.alarm_id, a.kind, m.meter_id, a.detail, a.raised_at FROM alarms AS a"
            " LEFT JOIN meters AS m USING (meter_no) WHERE a.alarm_id < :before ORDER BY a.alarm_id DESC LIMIT :limit"
        ),
        {"before": before_alarm_id, "limit": limit},
    )
    return [AlarmLine(*row) for row in rows]


def presence_limits(now: datetime) -> dict[str, object]:
    """The parameters of FLEET."""
    return _limits(now, behind=False)


def _limits(now: datetime, *, behind: bool) -> dict[str, object]:
    limits: dict[str, object] = {
        "now": now,
        "ahead": rules.AHEAD_MAX,
        "grace": rules.OFFLINE_GRACE,
        "seal_silence": rules.SEAL_SILENCE_MAX,
        "status_silence": rules.STATUS_SILENCE_MAX,
    }
    return limits | ({"backlog_normal": rules.BACKLOG_SEALS_NORMAL} if behind else {})
