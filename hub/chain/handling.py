"""An intent in a sender's hands: what the steps are given, and the words in which they write what came of it.

Each writes in a transaction of its own, in another thread, and says nothing if the lease was lost meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from solders.keypair import Keypair
from sqlalchemy import Connection, Engine

from hub import logs
from hub.chain import intents_store as store
from hub.chain import sending
from hub.chain.chain_state import ChainGate
from hub.chain.intent import Attempt, Intent, IntentState, Reactions
from hub.chain.intents import end_intent
from hub.chain.intents_store import Leased
from hub.chain.messages import programs_of
from hub.chain.program_errors import TransactionFault
from hub.chain.rpc import Node
from hub.db import is_database_away, transaction
from hub.errors import HubError

STEP_TIMEOUT_S: Final = 12.0
"""For all that a step asks of the node."""
LEASE: Final = timedelta(seconds=15)
"""Longer than a step. Were it shorter, the same bytes would be sent twice, and the fence would hold all the same."""
ERROR_LENGTH_MAX: Final = 500

WALLET_TOO_LATE: Final = "wallet_too_late"

log = logs.get_logger()
T = TypeVar("T")


@dataclass(frozen=True)
class Sender:
    """What the steps need. `reactions` are the domains', by kind of intent; `clock` says what time it is."""

    engine: Engine
    node: Node
    key: Keypair
    genesis_hash: bytes
    gate: ChainGate
    reactions: Reactions
    compute_unit_price_micro_lamports: int
    clock: Callable[[], datetime]

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do this in a transaction of its own, in another thread."""

        def run() -> T:
            with transaction(self.engine) as connection:
                return work(connection)

        return await asyncio.to_thread(run)

    async def lease(self, states: Collection[IntentState]) -> Leased | None:
        """The intent in one of these states that has been due for longest."""
        now = self.clock()
        return await self.write(lambda connection: store.lease_due(connection, states, now, now + LEASE))


async def end(
    sender: Sender,
    leased: Leased,
    state: IntentState,
    code: str | None,
    error: str,
    ended_by: bytes | None = None,
    slot: int | None = None,
) -> None:
    """Write how it ended."""

    def write(connection: Connection) -> bool:
        return end_intent(
            connection,
            leased.intent,
            leased.lease_token,
            state,
            sender.reactions,
            sender.clock(),
            error_code=code,
            error=error[:ERROR_LENGTH_MAX],
            ended_by=ended_by,
            slot=slot,
        )

    if not await sender.write(write):
        log.warning("chain_lease_lost")


async def postpone(sender: Sender, leased: Leased, pause_s: float, **changes: object) -> None:
    """Look again then."""
    next_at = sender.clock() + timedelta(seconds=pause_s)
    await sender.write(lambda connection: store.postpone(connection, leased, next_at, setbacks=0, **changes))


async def set_back(sender: Sender, leased: Leased, fault: Exception) -> None:
    """Later again, and later each time."""
    if is_database_away(fault):
        raise fault
    setbacks = leased.intent.setbacks + 1
    pause_s = sending.pause_after_setback_s(setbacks)
    if isinstance(fault, (HubError, TimeoutError)):
        log.warning("chain_step_postponed", error=getattr(fault, "code", "chain_away"), detail=str(fault))
    else:
        log.error("chain_step_failed", exc_info=fault)
    next_at = sender.clock() + timedelta(seconds=pause_s)
    await sender.write(lambda connection: store.postpone(connection, leased, next_at, setbacks=setbacks))


def is_late(intent: Intent, now: datetime) -> bool:
    """Whether the time that its wallet had is over."""
    return intent.valid_until is not None and now >= intent.valid_until


def newest(intent: Intent) -> Attempt:
    """The attempt that counts."""
    assert intent.newest is not None, "only a planned intent has no attempt"
    return intent.newest


def refusal(message: bytes, fault: TransactionFault, lines: Collection[str]) -> tuple[str, str]:
    """The refusal's name, and what was logged at the end."""
    said = f"{fault}" + "".join(f"; {line}" for line in list(lines)[-3:])
    return fault.code(programs_of(message)), said[:ERROR_LENGTH_MAX].replace("\x00", "\ufffd")
