"""Slots by the wall clock: which slot it is now, and when a slot began. Every slot has a block.

A slot's number follows from the newest anchor before it. Slots that nobody served (the process was down) passed all the
same. A clock that is set back stops the slots until it has caught up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SLOTS_PER_EPOCH = 432_000


@dataclass(frozen=True)
class Anchor:
    """From this slot on, which began at this time, slots take so long."""

    slot: int
    unix_ms: int
    slot_ms: int


def slot_by_clock(newest: Anchor, now_unix_ms: int) -> int:
    """The slot of this moment."""
    return newest.slot + max(0, now_unix_ms - newest.unix_ms) // newest.slot_ms


def began_unix_ms(anchors: Sequence[Anchor], slot: int) -> int:
    """When a slot began. `anchors` are sorted and not empty; a slot before the first began with the first."""
    begun, limit = anchors[0], None
    for anchor in anchors:
        if anchor.slot > slot:
            limit = anchor.unix_ms
            break
        begun = anchor
    time_unix_ms = begun.unix_ms + max(0, slot - begun.slot) * begun.slot_ms
    return time_unix_ms if limit is None else min(time_unix_ms, limit)


@dataclass(frozen=True)
class Levels:
    """The newest slot of each commitment."""

    processed: int
    confirmed: int
    finalized: int

    @classmethod
    def of(cls, slot: int, finalized_after_slots: int) -> "Levels":
        """The levels while `slot` is being made."""
        return cls(slot, max(0, slot - 1), max(0, slot - finalized_after_slots))

    def slot_at(self, commitment: str) -> int:
        """The newest slot of a commitment, by its name."""
        return {"processed": self.processed, "confirmed": self.confirmed, "finalized": self.finalized}[commitment]

    def commitment_of(self, slot: int) -> str:
        """How far a slot has got."""
        if slot <= self.finalized:
            return "finalized"
        return "confirmed" if slot <= self.confirmed else "processed"
