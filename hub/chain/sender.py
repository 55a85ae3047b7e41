"""The sender: builds, signs, sends and asks, so that each intent happens once, whatever breaks on the way.

Every step takes one intent (a lease with a fencing token), talks to the node outside any transaction, and writes what
came of it in one. A crash between any two lines loses nothing: a transaction is stored before it is sent, a try is
counted before it is made, and sending the same bytes again is harmless. Here are the steps and their loops; what they
do is in `building.py` and `delivering.py`. docs/decisions/sending.md tells why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from hub import logs, metrics
from hub.chain import intents_store as store
from hub.chain.building import build
from hub.chain.delivering import reconcile, send
from hub.chain.handling import LEASE, WALLET_TOO_LATE, Sender, set_back
from hub.chain.intent import IntentState
from hub.chain.intents_store import Leased
from hub.db import is_database_away

__all__ = [
    "LEASE",
    "WALLET_TOO_LATE",
    "Sender",
    "build_once",
    "measure_intents_once",
    "reconcile_once",
    "run_steps",
    "send_once",
]

OPEN_MAX: Final = 64
"""No more is signed while so many are being sent: what waits for its turn lapses meanwhile."""
IDLE_PAUSE_S: Final = 0.25
AWAY_PAUSE_S: Final = 2.0

log = logs.get_logger()


async def build_once(sender: Sender) -> bool:
    """Build and sign a transaction for one planned intent. False if there is none, or nothing may be signed."""
    if not sender.gate.usable or await sender.write(lambda connection: store.has_open(connection, OPEN_MAX)):
        return False
    return await _step(sender, [IntentState.PLANNED], build)


async def send_once(sender: Sender) -> bool:
    """Send one open intent's transaction, again if need be, or write how it ended. False if there is none."""
    return sender.gate.checked and await _step(sender, [IntentState.OPEN], send)


async def reconcile_once(sender: Sender) -> bool:
    """Ask what became of one transaction that is unknown, or that a wallet may have sent by itself. For ever."""
    return sender.gate.checked and await _step(sender, [IntentState.UNKNOWN, IntentState.AWAITING_WALLET], reconcile)


def measure_intents_once(connection: Connection, now: datetime) -> int:
    """Set the gauges of what has not ended. Returns how many intents those are."""
    backlogs = store.list_backlogs(connection)
    metrics.CHAIN_INTENTS.clear()
    metrics.CHAIN_OLDEST_INTENT.clear()
    oldest: dict[IntentState, datetime] = {}
    for each in backlogs:
        metrics.CHAIN_INTENTS.labels(each.kind, each.state.value).set(each.intents)
        oldest[each.state] = min(each.oldest_at, oldest.get(each.state, each.oldest_at))
    for state, at in oldest.items():
        metrics.CHAIN_OLDEST_INTENT.labels(state.value).set(max(0.0, (now - at).total_seconds()))
    return sum(each.intents for each in backlogs)


async def run_steps(step: Callable[[Sender], Awaitable[bool]], sender: Sender, stop: asyncio.Event) -> None:
    """Repeat a step until `stop` is set. The loop only paces; a database that is away is tried again."""
    while not stop.is_set():
        pause_s = 0.0
        try:
            worked = await step(sender)
        except Exception as fault:
            if not is_database_away(fault):
                raise
            log.warning("chain_database_away", error=str(fault).splitlines()[0])
            pause_s = AWAY_PAUSE_S
        else:
            pause_s = 0.0 if worked else IDLE_PAUSE_S
        if pause_s:
            await _wait(stop, pause_s)


async def _wait(stop: asyncio.Event, pause_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), pause_s)
    except TimeoutError:
        return


async def _step(
    sender: Sender, states: Collection[IntentState], work: Callable[[Sender, Leased], Awaitable[None]]
) -> bool:
    leased = await sender.lease(states)
    if leased is None:
        return False
    intent = leased.intent
    with logs.bound(intent_id=str(intent.intent_id), intent_kind=intent.kind, intent_subject=intent.subject):
        try:
            await work(sender, leased)
        except Exception as fault:  # noqa: BLE001 - one intent must not stop the others, whatever is wrong with it
            await set_back(sender, leased, fault)
    return True
