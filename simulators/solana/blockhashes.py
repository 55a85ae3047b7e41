"""Blockhashes: each follows from the ledger's seed and the slot, so no other ledger has them and none is stored."""

import hashlib
from collections import deque

from solders.hash import Hash

REMEMBERED = 1_024
SLOT_HASHES = 512
"""So many the SlotHashes sysvar has."""


class Blockhashes:
    """Those of one ledger. The newest are remembered by their hash."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._newest_first: deque[tuple[int, Hash]] = deque()
        self._slots: dict[Hash, int] = {}

    def of(self, slot: int) -> Hash:
        """The hash of a slot's block."""
        return Hash(hashlib.sha256(self._seed + slot.to_bytes(8, "little")).digest())

    def reach(self, slot: int) -> None:
        """Remember the hashes up to a slot."""
        newest = self._newest_first[0][0] if self._newest_first else -1
        for number in range(max(newest + 1, slot + 1 - REMEMBERED), slot + 1):
            blockhash = self.of(number)
            self._newest_first.appendleft((number, blockhash))
            self._slots[blockhash] = number
        while self._newest_first[-1][0] <= slot - REMEMBERED:
            del self._slots[self._newest_first.pop()[1]]

    def find_slot(self, blockhash: Hash) -> int | None:
        """The slot of a remembered hash."""
        return self._slots.get(blockhash)

    def before(self, slot: int) -> list[tuple[int, Hash]]:
        """What the SlotHashes sysvar holds in a slot, newest first."""
        return [(number, each) for number, each in self._newest_first if number < slot][:SLOT_HASHES]
