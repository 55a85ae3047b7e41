"""What follows from what a node says of a transaction. Pure; the policy is that of DESIGN section 4, to the letter.

A transaction names a blockhash, and can land only in a block whose height is at most the last one for which that hash
is valid. So it has lapsed, for ever, once the *finalized* height is beyond that, and a history-searching node that
has kept everything since it was signed does not know it. The height is asked for before the status: in this order
nothing can land between the two answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hub.chain.intent import Attempt
from hub.chain.rpc import BLOCKS_AHEAD_MAX, Blockhash, Finalized, Status
from hub.errors import ChainAnswersNonsense, ChainLags

RETRY_PAUSES_S: Final = (1, 2, 4)
"""After the first try the same bytes are sent again, after such pauses."""
TRIES_MAX: Final = 1 + len(RETRY_PAUSES_S)
LAST_PAUSE_S: Final = 8
"""Behind the last try: then it is known, or UNKNOWN."""

SEEN_PAUSE_S: Final = 1
"""Between looks at a transaction that is in a block and not yet final."""
REFUSED_PAUSE_S: Final = 5
WALLET_PAUSE_S: Final = 10
UNKNOWN_PAUSE_S: Final = 5
PRUNED_PAUSE_S: Final = 60
SETBACK_PAUSE_S_MAX: Final = 60


class Verdict(StrEnum):
    """What is known of a signed transaction."""

    LANDED = "landed"
    """Finalized; with a fault it did nothing but pay its fee."""
    ON_ITS_WAY = "on_its_way"
    """In a block that may still be dropped."""
    MAY_LAND = "may_land"
    """Unknown to the node, and its blockhash is not provably over."""
    LAPSED = "lapsed"
    """It has not landed and never will."""
    HISTORY_PRUNED = "history_pruned"
    """Its blockhash is over, but the node has forgotten blocks in which it may have landed."""


@dataclass(frozen=True)
class Evidence:
    """A node's answers, in the order in which they were asked for."""

    finalized: Finalized
    status: Status | None
    first_available_slot: int | None = None
    """Asked for only where it matters."""


def judge(attempt: Attempt, evidence: Evidence) -> Verdict:
    """What these answers prove. `first_available_slot` is needed where `needs_history` says so."""
    status = evidence.status
    if status is not None:
        return Verdict.LANDED if status.level == "finalized" else Verdict.ON_ITS_WAY
    if not needs_history(attempt, evidence.finalized, status):
        return Verdict.MAY_LAND
    assert evidence.first_available_slot is not None
    if evidence.first_available_slot > attempt.signed_at_slot:
        return Verdict.HISTORY_PRUNED
    return Verdict.LAPSED


def needs_history(attempt: Attempt, finalized: Finalized, status: Status | None) -> bool:
    """Whether all depends on how far back the node remembers."""
    return status is None and finalized.block_height > attempt.last_valid_block_height


def check_blockhash(blockhash: Blockhash, finalized: Finalized, read_slot: int) -> None:
    """Whether to sign for this blockhash; `finalized` was asked for before it, the hub has read up to `read_slot`.

    Raises ChainLags: the node is behind, so what it refuses proves nothing. Raises ChainAnswersNonsense: a height or
    slot that the chain will not come to, so that nobody could ever say that the transaction has lapsed.
    """
    if blockhash.slot < max(finalized.slot, read_slot):
        known = max(finalized.slot, read_slot)
        raise ChainLags(f"a blockhash of slot {blockhash.slot}, and slot {known} is finalized")
    if blockhash.slot > finalized.slot + BLOCKS_AHEAD_MAX:
        raise ChainAnswersNonsense(f"a blockhash of slot {blockhash.slot}, and slot {finalized.slot} is finalized")
    if blockhash.last_valid_block_height > finalized.block_height + BLOCKS_AHEAD_MAX:
        raise ChainAnswersNonsense(f"a blockhash until block height {blockhash.last_valid_block_height}")


def pause_after_send_s(sends: int) -> int:
    """How long to wait after so many tries (1 is the first)."""
    assert sends >= 1
    return RETRY_PAUSES_S[sends - 1] if sends <= len(RETRY_PAUSES_S) else LAST_PAUSE_S


def pause_after_setback_s(setbacks: int) -> int:
    """How long to wait after so many setbacks in a row (1 is the first): 1, 2, 4, … seconds."""
    assert setbacks >= 1
    return min(SETBACK_PAUSE_S_MAX, 1 << min(setbacks - 1, 16))
