"""What domains do with intents: plan, look, hand in a wallet's signature, and end them by an event that was seen.

No network, ever: this runs in requests and in business transactions. The sending is `sender.py`'s.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import base58
from sqlalchemy import Connection

from hub import logs, metrics, signatures
from hub.chain import intents_store as store
from hub.chain.intent import (
    ENDED,
    NEXT_STATES,
    Attempt,
    Ended,
    Intent,
    IntentState,
    Plan,
    Reaction,
    Reactions,
)
from hub.errors import (
    IntentNotAwaiting,
    IntentNotFound,
    TransactionExpired,
    TransactionNotOurs,
    WalletSignatureInvalid,
)

__all__ = [
    "Attempt",
    "Ended",
    "Intent",
    "IntentState",
    "Plan",
    "Reaction",
    "Reactions",
    "end_intent_by_event",
    "find_intent_id_of",
    "find_open_intent",
    "get_intent",
    "plan_intent",
    "take_wallet_signature",
]

COMPUTE_UNITS_MAX: Final = 1_400_000
"""Of one transaction, by the chain's own rule."""

log = logs.get_logger()


def plan_intent(connection: Connection, plan: Plan, now: datetime) -> None:
    """Write down what is to happen. Nothing is signed or sent before the caller's transaction commits."""
    assert plan.instructions and 0 < plan.compute_units <= COMPUTE_UNITS_MAX, plan
    assert (plan.wallet is None) == (plan.valid_for_s is None), "a wallet has so long, and nobody else has to hurry"
    valid_until = None if plan.valid_for_s is None else now + timedelta(seconds=plan.valid_for_s)
    store.insert_intent(connection, plan, valid_until, now)


def get_intent(connection: Connection, intent_id: UUID) -> Intent:
    """An intent with its attempts. Raises IntentNotFound."""
    intent = store.find_intent(connection, intent_id)
    if intent is None:
        raise IntentNotFound(str(intent_id))
    return intent


def find_open_intent(connection: Connection, kind: str, subject: str) -> Intent | None:
    """The newest intent of this kind and subject that has not ended."""
    return store.find_unended(connection, kind, subject)


def find_intent_id_of(connection: Connection, signature: str) -> UUID | None:
    """Whose transaction this is, if it is one that this hub signed. The signature is in Base58."""
    return store.find_intent_id_of(connection, base58.b58decode(signature))


def take_wallet_signature(
    connection: Connection, intent_id: UUID, message: bytes, signature: bytes, now: datetime
) -> Intent:
    """Take the wallet's 64 bytes over the message that the hub built; from then on it is being sent.

    Raises IntentNotFound, TransactionNotOurs, TransactionExpired, IntentNotAwaiting, WalletSignatureInvalid.
    """
    intent = store.find_intent_for_update(connection, intent_id)
    if intent is None:
        raise IntentNotFound(str(intent_id))
    newest = intent.newest
    if newest is None or all(message != each.message for each in intent.attempts):
        raise TransactionNotOurs(str(intent_id))
    if message != newest.message or intent.state in (IntentState.PLANNED, IntentState.EXPIRED):
        raise TransactionExpired(str(intent_id))
    if intent.state != IntentState.AWAITING_WALLET:
        raise IntentNotAwaiting(f"{intent_id} is {intent.state}")
    assert intent.wallet is not None
    if not signatures.verify(intent.wallet, message, signature):
        raise WalletSignatureInvalid(str(intent_id))
    store.set_wallet_signature(connection, newest, signature)
    moved = store.change_state(connection, intent, IntentState.OPEN, None, next_at=now)
    assert moved, "the row is locked"
    return get_intent(connection, intent_id)


def end_intent_by_event(
    connection: Connection, intent_id: UUID, signature: str, slot: int, reactions: Reactions, now: datetime
) -> bool:
    """An event with this business id was seen finalized: the intent has happened. False if it was known, or is no
    intent of this hub's (anybody who holds the hub's key may write any business id)."""
    intent = store.find_intent_for_update(connection, intent_id)
    if intent is None or intent.state == IntentState.FINALIZED:
        return False
    if intent.state in ENDED:  # some node told us an untruth that it must not tell
        log.error("chain_intent_contradicted", intent_id=str(intent_id), state=intent.state, signature=signature)
        metrics.CHAIN_INTENTS_CONTRADICTED.inc()
        return False
    ended_by = base58.b58decode(signature)
    return end_intent(
        connection, intent, None, IntentState.FINALIZED, reactions, now, ended_by=ended_by, slot=slot, error_code=None
    )


def end_intent(
    connection: Connection,
    intent: Intent,
    lease_token: int | None,
    state: IntentState,
    reactions: Reactions,
    now: datetime,
    *,
    error_code: str | None,
    error: str = "",
    ended_by: bytes | None = None,
    slot: int | None = None,
) -> bool:
    """Write how an intent ended and let its domain react, in this transaction. False if it was not ours to end."""
    assert state in ENDED
    ended = store.change_state(
        connection,
        intent,
        state,
        lease_token,
        error_code=error_code,
        error=error,
        ended_by=ended_by,
        slot=slot,
        ended_at=now,
    )
    if ended:
        metrics.CHAIN_INTENTS_ENDED.labels(intent.kind, state.value).inc()
        shown = base58.b58encode(ended_by).decode() if ended_by is not None else intent.signature
        outcome: Literal["finalized", "failed", "expired"] = state.value  # type: ignore[assignment]
        log.info(
            "chain_intent_ended", intent_id=str(intent.intent_id), kind=intent.kind, outcome=outcome,
            signature=shown, error_code=error_code,
        )  # fmt: skip
        react(connection, intent, outcome, shown, slot, error_code, error, reactions, now)
    return ended


def react(
    connection: Connection,
    intent: Intent,
    outcome: Literal["finalized", "failed", "expired", "unknown"],
    signature: str | None,
    slot: int | None,
    error_code: str | None,
    error: str,
    reactions: Reactions,
    now: datetime,
) -> None:
    """Tell the domain, if it wants to know."""
    reaction = reactions.get(intent.kind)
    if reaction is not None:
        ended = Ended(
            intent.intent_id, intent.kind, intent.subject, intent.data, outcome, signature, slot, error_code, error
        )
        reaction(connection, ended, now)


assert NEXT_STATES[IntentState.UNKNOWN] >= ENDED, "what is unknown may end in any way"
