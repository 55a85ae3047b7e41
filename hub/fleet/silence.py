"""Telling that a meter is not heard for long, once, and once that it is heard again.

What a meter says of itself is unsigned, and a hub that was away has heard nobody: so a silence is told only when it was
looked at twice with some time between, and when half of the community is silent at once its owners are left in peace,
because then it is the hub, the broker or the network that somebody must look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from hub.db import transaction
from hub.fleet import silences_store as store
from hub.fleet.silences_store import Silence
from hub.notifications.kinds import instant
from hub.notifications.service import OPERATORS, tell_later

SILENT_FOR: Final = timedelta(hours=3)
NOTICED_FOR: Final = timedelta(minutes=15)
"""Who was only not listened to is heard within this time: agents speak every minute, or seal every quarter hour."""
WIDESPREAD_METERS_MIN: Final = 10
METERS_NAMED_MAX: Final = 20

ADVICE: Final = "Their owners are told too."
ADVICE_WIDESPREAD: Final = (
    "That is half of the community or more, so their owners are not told: look at the hub, the broker and the network."
)
SUBJECT: Final = "fleet silences"


def is_widespread(silent_meters: int, active_meters: int) -> bool:
    """Whether so many are silent that the meters are hardly the cause."""
    return silent_meters >= WIDESPREAD_METERS_MIN and 2 * silent_meters >= active_meters


def tell_silences_once(engine: Engine, now: datetime) -> int:
    """Note silences that began, tell those that last and those that ended; returns how many were told of."""
    with transaction(engine) as connection:
        store.lock_silences(connection)
        silent = store.list_silent_meters(connection, now, SILENT_FOR)
        store.insert_silences(connection, silent, now)
        still_silent = {each.meter_no for each in silent}
        widespread = is_widespread(len(silent), store.count_active_meters(connection))
        known = store.list_silences(connection)
        lasting = [each for each in known if each.meter_no in still_silent and each.noticed_at <= now - NOTICED_FOR]
        ended = [each for each in known if each.meter_no not in still_silent]
        store.delete_silences(connection, [each.meter_no for each in ended])
        return _tell_lasting(connection, lasting, now, widespread=widespread) + _tell_ended(connection, ended, now)


def _tell_lasting(connection: Connection, lasting: Sequence[Silence], now: datetime, *, widespread: bool) -> int:
    for_operators = [each for each in lasting if each.operators_told_at is None]
    if for_operators:
        data = _named(for_operators) | {"advice": ADVICE_WIDESPREAD if widespread else ADVICE}
        tell_later(connection, SUBJECT, "fleet.meters_silent", data, now, roles=OPERATORS)
        store.set_operators_told(connection, [each.meter_no for each in for_operators], now)
    for_owners = [] if widespread else [each for each in lasting if each.owner_told_at is None]
    for each in for_owners:
        _tell_owner(connection, each, "meter.silent", now)
    store.set_owners_told(connection, [each.meter_no for each in for_owners], now)
    return len(for_operators) + len(for_owners)


def _tell_ended(connection: Connection, ended: Sequence[Silence], now: datetime) -> int:
    heard = [each for each in ended if each.active]
    for_operators = [each for each in heard if each.operators_told_at is not None]
    if for_operators:
        tell_later(connection, SUBJECT, "fleet.meters_heard_again", _named(for_operators), now, roles=OPERATORS)
    for_owners = [each for each in heard if each.owner_told_at is not None]
    for each in for_owners:
        _tell_owner(connection, each, "meter.heard_again", now)
    return len(for_operators) + len(for_owners)


def _tell_owner(connection: Connection, silence: Silence, kind: str, now: datetime) -> None:
    data = {"meter_id": silence.meter_id, "silent_since": instant(silence.silent_since)}
    tell_later(connection, f"meter:{silence.meter_id}", kind, data, now, owner=silence.owner)


def _named(silences: Sequence[Silence]) -> dict[str, object]:
    return {"count": len(silences), "meter_ids": [each.meter_id for each in silences[:METERS_NAMED_MAX]]}
