"""What an intent is: a business act that must happen on the chain once, its states, its attempts and its end.

Which states follow which is the table below, complete by assertion. What can be done with intents is in `intents.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import base58
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from sqlalchemy import Connection


class IntentState(StrEnum):
    """Where an intent is. UNKNOWN is not failed: whether it happened is being asked for."""

    PLANNED = "planned"
    """Nothing of it can land: no transaction is signed, or the last one provably lapsed."""
    AWAITING_WALLET = "awaiting_wallet"
    """Built and signed by the hub; the wallet's signature is missing."""
    OPEN = "open"
    """Signed by all, being sent."""
    UNKNOWN = "unknown"
    """Sent, and the chain does not say what became of it."""
    FINALIZED = "finalized"
    FAILED = "failed"
    """The program refused it, provably for good."""
    EXPIRED = "expired"
    """The wallet did not sign in time, and what it was given can land no more."""


ENDED: Final = frozenset({IntentState.FINALIZED, IntentState.FAILED, IntentState.EXPIRED})
UNENDED: Final = frozenset(IntentState) - ENDED

NEXT_STATES: Final[Mapping[IntentState, frozenset[IntentState]]] = {
    IntentState.PLANNED: frozenset(
        {
            IntentState.AWAITING_WALLET,
            IntentState.OPEN,
            IntentState.FAILED,  # the simulation of a transaction that nobody has signed
            IntentState.EXPIRED,
            IntentState.FINALIZED,  # an event speaks louder than a node that said it lapsed
        }
    ),
    IntentState.AWAITING_WALLET: frozenset(
        {
            IntentState.OPEN,
            IntentState.PLANNED,  # lapsed without a signature: another is built
            IntentState.UNKNOWN,  # lapsed, and the node has forgotten too much to say that it never landed
            IntentState.EXPIRED,
            IntentState.FAILED,  # the wallet knows the hub's signature, and may have sent it by itself
            IntentState.FINALIZED,
        }
    ),
    IntentState.OPEN: frozenset(
        {IntentState.UNKNOWN, IntentState.PLANNED, IntentState.FINALIZED, IntentState.FAILED, IntentState.EXPIRED}
    ),
    IntentState.UNKNOWN: frozenset(
        {IntentState.PLANNED, IntentState.FINALIZED, IntentState.FAILED, IntentState.EXPIRED}
    ),
    IntentState.FINALIZED: frozenset(),
    IntentState.FAILED: frozenset(),
    IntentState.EXPIRED: frozenset(),
}
assert NEXT_STATES.keys() == set(IntentState)
assert all(not NEXT_STATES[state] for state in ENDED) and all(NEXT_STATES[state] for state in UNENDED)


@dataclass(frozen=True)
class Plan:
    """What is to happen. The 16 bytes of `intent_id` are the business id in instructions and events."""

    intent_id: UUID
    kind: str
    subject: str
    instructions: tuple[Instruction, ...]
    compute_units: int
    wallet: bytes | None = None
    """Whose signature is needed beside the hub's."""
    lookup_tables: tuple[Pubkey, ...] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    """JSON that the domain wants back when it ends."""
    valid_for_s: int | None = None
    """With a wallet: how long its owner may take, over several blockhashes."""


@dataclass(frozen=True)
class Attempt:
    """One transaction, signed by the hub. There is never a second while this one may still land."""

    attempt_no: int
    message: bytes
    hub_signature: bytes
    wallet_signature: bytes | None
    last_valid_block_height: int
    signed_at_slot: int
    sends: int
    refusal_code: str | None
    refusal: str
    """What the node's simulation said at the newest try to send it; None if it took it."""

    @property
    def signature(self) -> str:
        """The transaction's id, as explorers show it."""
        return base58.b58encode(self.hub_signature).decode()


@dataclass(frozen=True)
class Intent:
    """An intent with its attempts, the oldest first."""

    intent_id: UUID
    kind: str
    subject: str
    instructions: tuple[Instruction, ...]
    compute_units: int
    wallet: bytes | None
    lookup_tables: tuple[Pubkey, ...]
    data: Mapping[str, object]
    valid_until: datetime | None
    state: IntentState
    error_code: str | None
    error: str
    ended_by: bytes | None
    """The signature of the transaction that ended it."""
    slot: int | None
    setbacks: int
    """How often in a row it could not be built or looked at."""
    unknown_at: datetime | None
    created_at: datetime
    ended_at: datetime | None
    attempts: tuple[Attempt, ...] = ()

    @property
    def newest(self) -> Attempt | None:
        """The attempt that counts; None before the first is built."""
        return self.attempts[-1] if self.attempts else None

    @property
    def signature(self) -> str | None:
        """The id of the transaction that ended it, else of the newest one."""
        if self.ended_by is not None:
            return base58.b58encode(self.ended_by).decode()
        return None if self.newest is None else self.newest.signature


@dataclass(frozen=True)
class Ended:
    """How an intent ended, or that nobody knows yet (`unknown`: told once; another outcome follows some day)."""

    intent_id: UUID
    kind: str
    subject: str
    data: Mapping[str, object]
    outcome: Literal["finalized", "failed", "expired", "unknown"]
    signature: str | None
    slot: int | None
    error_code: str | None
    error: str


Reaction = Callable[[Connection, Ended, datetime], None]
"""What a domain does when its intent ended or became unknown: writes, in the transaction that says so."""

Reactions = Mapping[str, Reaction]
"""By kind of intent. A kind without one ends silently."""
