"""The program's transactions that the hub has not read yet: which, in which order, and whether all of them are there.

A node answers from the newest back. It is asked for everything behind the transaction *before* the last one that was
read, so the last one itself must come at the end: only then is the answer known to join on to what was read. An empty
answer proves nothing: a node that lags, has forgotten, or is on another chain gives it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from hub.chain.inbox_store import Cursor
from hub.chain.rpc import SIGNATURES_MAX, Node
from hub.chain.rpc_answers import SignatureOfAddress
from hub.errors import ChainAnswersNonsense

TRANSACTIONS_AT_ONCE_MAX: Final = 50_000
"""Kept of one reading, the oldest; what is newer is paged through again by the next. So memory has a bound, and the
longest absence an end."""
TRANSACTIONS_LISTED_MAX: Final = 20_000_000
"""A node that goes on and on is not believed."""


@dataclass(frozen=True)
class Unread:
    """A transaction that is to be read. `position` counts those of its slot that concern the program."""

    signature: bytes
    slot: int
    position: int
    failed: bool


@dataclass(frozen=True)
class History:
    """What is unread, the oldest first. Not `joined`: there may be more between the cursor and the first of them. Not
    `complete`: there is more behind the last of them."""

    unread: tuple[Unread, ...]
    joined: bool
    complete: bool = True


async def read_history(
    node: Node,
    program_id: Pubkey,
    cursor: Cursor,
    page_max: int = SIGNATURES_MAX,
    kept_max: int = TRANSACTIONS_AT_ONCE_MAX,
) -> History:
    """Page back to the cursor. Raises ChainAway, ChainRefuses, ChainAnswersNonsense.

    While no transaction was read, the history begins where the node's does, and counts as joined: comparing the
    accounts is what makes up for what the node has forgotten.
    """
    newest_first: deque[SignatureOfAddress] = deque(maxlen=kept_max)
    listed = 0
    of_slot: set[bytes] = set()
    before: bytes | None = None

    def history(joined: bool) -> History:
        return History(number(newest_first, cursor), joined, complete=listed <= kept_max)

    while True:
        page = await node.signatures_of(program_id, before, cursor.previous_signature, page_max)
        for each in page:
            if each.signature == cursor.signature:
                if each.slot != cursor.slot:
                    raise ChainAnswersNonsense(f"a transaction of slot {cursor.slot} is now of slot {each.slot}")
                return history(joined=True)
            if each.slot < cursor.slot:  # the node does not know the cursor's transaction, and went past it
                return history(joined=cursor.signature is None)
            if newest_first and each.slot != newest_first[-1].slot:
                of_slot.clear()
            if each.signature in of_slot or (newest_first and each.slot > newest_first[-1].slot):
                raise ChainAnswersNonsense("getSignaturesForAddress: not from the newest to the oldest")
            of_slot.add(each.signature)
            newest_first.append(each)
            listed += 1
        if not page:
            return history(joined=cursor.signature is None)
        if listed > TRANSACTIONS_LISTED_MAX:
            raise ChainAnswersNonsense("getSignaturesForAddress: it does not end")
        before = page[-1].signature


def number(newest_first: Sequence[SignatureOfAddress], cursor: Cursor) -> tuple[Unread, ...]:
    """The same, the oldest first, each with its place in its slot, going on from the cursor's. Pure."""
    unread: list[Unread] = []
    slot, position = cursor.slot, cursor.position if cursor.signature is not None else -1
    for each in reversed(newest_first):
        position = position + 1 if each.slot == slot else 0
        slot = each.slot
        unread.append(Unread(each.signature, slot, position, each.err is not None))
    return tuple(unread)
