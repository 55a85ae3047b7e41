"""What minting does when its intents end, and when the chain tells of a meter: in the transaction that says so.

All steps of a transaction happen together or not at all, so they are marked together. Which of several meters made one
fail is found out by letting each try alone; the one that fails alone is held for an operator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from hub import logs, metrics
from hub.auth import members_service
from hub.chain.accounts import MeterAccount
from hub.chain.inbox import EventReaction, StoredEvent
from hub.chain.instructions import SETTLE_METER_BALANCE
from hub.chain.intents import Ended, Reaction
from hub.chain.mirrors import Mirror
from hub.db import driver
from hub.errors import MeterNotFound
from hub.live.publishing import Update, publish
from hub.live.topics import tokens_of
from hub.minting import store
from hub.minting.amounts import grid
from hub.minting.rules import UNITS_PER_WH
from hub.minting.service import MINT
from hub.minting.store import Mint
from hub.notifications.alarms import insert_alarm
from hub.notifications.kinds import instant
from hub.notifications.service import OPERATORS, tell_later
from hub.readings import gaps_store
from hub.readings.live_updates import tell_of_alarm
from hub.readings.store import utc
from hub.registry import service as registry
from hub.registry.chain_notices import tell_of_unknown
from hub.registry.store import Meter

MINTING_HELD: Final = "minting_held"
MINTING_DIFFERS: Final = "minting_differs"
"""Kinds of alarms."""

_WHY: Final[Mapping[str, str]] = {
    MINTING_HELD: "The chain refused what a meter has earned; it is not tried again before an operator says so.",
    MINTING_DIFFERS: "The chain minted another amount than the hub had worked out: look at both before anything else.",
}

log = logs.get_logger()


def react_to_mint(connection: Connection, ended: Ended, now: datetime) -> None:
    """Mark exactly what the transaction covered, or take back what was planned."""
    steps = store.list_open_for_update(connection, ended.intent_id)
    if not steps:
        return
    meters = {
        step.meter_no: registry.get_meter(connection, registry.get_meter_id(connection, step.meter_no))
        for step in steps
    }
    if ended.outcome == "finalized":
        assert ended.signature is not None and ended.slot is not None
        store.set_finalized(connection, ended.intent_id, ended.signature, ended.slot, now)
        store.set_alone(connection, list(meters), False)
        _tell_of_mints(connection, steps, meters, ended.signature, now)
    elif ended.outcome == "unknown":
        tell_of_unknown(connection, ended, {meter.owner for meter in meters.values()}, now)
    else:
        _take_back(connection, steps, meters, ended, now)


def _take_back(
    connection: Connection, steps: Sequence[Mint], meters: Mapping[int, Meter], ended: Ended, now: datetime
) -> None:
    error_code = ended.error_code or ended.outcome
    store.set_failed(connection, ended.intent_id, error_code, now)
    for step in steps:
        gaps_store.unset_lost_gaps_passed(driver(connection), step.meter_no, step.key_epoch, step.planned_at)
    log.warning("mint_failed", meters=[meters[step.meter_no].meter_id for step in steps], error_code=error_code)
    if ended.outcome != "failed" or error_code == "paused":
        return  # nothing is wrong with the meters
    if len(steps) > 1:
        store.set_alone(connection, [step.meter_no for step in steps], True)
        return
    [step] = steps
    meter = meters[step.meter_no]
    store.insert_hold(connection, step, error_code, ended.error, now)
    metrics.MINTING_HELD.labels(error_code).inc()
    detail: dict[str, object] = {"error_code": error_code, "error": ended.error, "sequence": step.last_sequence}
    _raise_alarm(connection, MINTING_HELD, meter, detail, now)
    told = {"meter_id": meter.meter_id, "since": instant(now), "error": error_code}
    tell_later(connection, f"meter:{meter.meter_id}", "minting.held", told, now, owner=meter.owner)


def _tell_of_mints(
    connection: Connection, steps: Sequence[Mint], meters: Mapping[int, Meter], signature: str, now: datetime
) -> None:
    """One update for each meter that got something; of a day's mints a member is notified once."""
    minted = [step for step in steps if step.minted_wh]
    members = members_service.members_of_wallets(connection, {meters[step.meter_no].owner for step in minted})
    updates = []
    for step in minted:
        meter = meters[step.meter_no]
        metrics.MINTED_WH.inc(step.minted_wh)
        if meter.owner not in members:
            continue
        data = {
            "meter_id": meter.meter_id,
            "amount_units": str(step.minted_wh * UNITS_PER_WH),
            "amount": grid(step.minted_wh),
            "closed_until": utc(step.closed_until_unix_s),
            "transaction_signature": signature,
        }
        updates.append(Update(tokens_of(members[meter.owner]), "tokens.minted", data))
        told = {"meter_id": meter.meter_id, "day": f"{now:%Y-%m-%d}"}
        key = f"minted:{meter.meter_id}:{now:%Y-%m-%d}"
        tell_later(connection, f"meter:{meter.meter_id}", "tokens.minted", told, now, owner=meter.owner, key=key)
    publish(connection, updates, now)


def react_to_event(connection: Connection, stored: StoredEvent, _before: Mirror | None, now: datetime) -> None:
    """Hold what a settlement of ours minted against what was planned. They can only differ by somebody else's hand."""
    event = stored.event
    if event.instruction != SETTLE_METER_BALANCE or not isinstance(event.account, MeterAccount):
        return
    meter_id = event.account.meter_id
    planned = [] if event.business_id is None else store.list_of_intent(connection, event.business_id)
    for step in planned:
        if registry.get_meter_id(connection, step.meter_no) == meter_id:
            if (step.minted_wh * UNITS_PER_WH, step.settled_wh) == (event.amount_units, event.account.settled_wh):
                return
            break
    detail: dict[str, object] = {
        "signature": stored.signature,
        "amount_units": str(event.amount_units),
        "business_id": None if event.business_id is None else str(event.business_id),
    }
    log.error("minting_differs", meter_id=meter_id, **detail)
    metrics.MINTING_DIFFERS.inc()
    with contextlib.suppress(MeterNotFound):  # a meter of the chain that this hub does not know
        _raise_alarm(connection, MINTING_DIFFERS, registry.get_meter(connection, meter_id), detail, now)


def _raise_alarm(connection: Connection, kind: str, meter: Meter, detail: dict[str, object], now: datetime) -> None:
    alarm_id = insert_alarm(driver(connection), kind, meter.meter_no, detail, now)
    told = {
        "alarm": kind,
        "alarm_id": alarm_id,
        "meter_id": meter.meter_id,
        "raised_at": instant(now),
        "why": _WHY[kind],
    }
    tell_later(connection, f"meter:{meter.meter_id}", "alarm.raised", told, now, roles=OPERATORS)
    tell_of_alarm(connection, alarm_id, kind, meter.meter_id, _WHY[kind], now)


REACTIONS: Final[Mapping[str, Reaction]] = {MINT: react_to_mint}
EVENT_REACTIONS: Final[Sequence[EventReaction]] = (react_to_event,)
