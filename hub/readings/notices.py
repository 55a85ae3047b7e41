"""What the readings domain tells people: that energy is held, and what operators must look into.

All of it is brought about by devices, so it is told by a job, and at most so often (`docs/decisions/notifications.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from hub.db import driver
from hub.notifications.alarms import insert_alarm
from hub.notifications.kinds import instant
from hub.notifications.service import OPERATORS, tell_later
from hub.readings import notices_store
from hub.readings.live_updates import tell_of_alarm
from hub.readings.rules import (
    CHAIN_MISMATCH,
    COUNTER_DECREASED,
    EQUIVOCATION,
    FROM_THE_FUTURE,
    NETTING_MISMATCH,
    OVER_CAPACITY,
    SURPLUS_OUT_OF_BOUNDS,
    TIME_ORDER,
    TOO_OLD,
)
from hub.registry import service as registry

STOLEN_NAME: Final = "stolen_name"

WHY_HELD: Final[Mapping[str, str]] = {
    FROM_THE_FUTURE: "the meter's clock is ahead of the time.",
    TOO_OLD: "they are older than the community takes without being asked.",
    OVER_CAPACITY: "they tell of more energy than the installation can produce or draw.",
    TIME_ORDER: "their times contradict each other.",
    COUNTER_DECREASED: "a counter of energy fell.",
    SURPLUS_OUT_OF_BOUNDS: "their surplus does not fit what was produced and drawn.",
    CHAIN_MISMATCH: "they do not follow from the batch before.",
    NETTING_MISMATCH: "their surplus is not the sum of the quarter hours.",
}
"""Reasons of which people are told. Of the others they know: a suspended or retired meter, an old or revoked key, and
a key that signed two histories, which is an alarm."""

WHY_ALARM: Final[Mapping[str, str]] = {
    EQUIVOCATION: "A key has signed two different batches under one number.",
    STOLEN_NAME: "Many messages under a meter's name are signed by none of its keys: somebody may use its account.",
}


def tell_of_held(connection: Connection, reasons: Mapping[int, str], now: datetime) -> None:
    """Tell owners and operators that seals are held, once for each meter and hour; `reasons` by meter_no."""
    told = {meter_no: reason for meter_no, reason in reasons.items() if reason in WHY_HELD}
    if not told:
        return
    hour = now.replace(minute=0, second=0, microsecond=0)
    for meter_no, meter_id, owner in notices_store.insert_held_notices(driver(connection), told, hour):
        data = {"meter_id": meter_id, "since": instant(now), "why": WHY_HELD[told[meter_no]]}
        key = f"held:{meter_id}:{instant(hour)}"
        subject = f"meter:{meter_id}"
        tell_later(connection, subject, "meter.seals_held", data, now, owner=owner, key=key)
        tell_later(connection, subject, "fleet.seals_held", data, now, roles=OPERATORS, key=f"fleet-{key}")


def raise_alarm(connection: Connection, kind: str, meter_no: int, detail: dict[str, object], now: datetime) -> None:
    """Raise an alarm about a meter, and tell operators and admins of it."""
    alarm_id = insert_alarm(driver(connection), kind, meter_no, detail, now)
    meter_id = registry.get_meter_id(connection, meter_no)
    data = {
        "alarm": kind,
        "alarm_id": alarm_id,
        "meter_id": meter_id,
        "raised_at": instant(now),
        "why": WHY_ALARM[kind],
    }
    tell_later(connection, f"meter:{meter_id}", "alarm.raised", data, now, roles=OPERATORS)
    tell_of_alarm(connection, alarm_id, kind, meter_id, WHY_ALARM[kind], now)
