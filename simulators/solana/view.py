"""What a node shows of the ledger: the newest slot of each commitment, from when on it has history, which genesis.

A faultless node shows what is; one that lags, has pruned or lies does so everywhere alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from simulators.solana import errors
from simulators.solana.ledger import Ledger
from simulators.solana.slots import Levels
from simulators.solana.storage import Landed

API_VERSION = "3.1.0"
STATUS_CACHE_SLOTS = 300
"""How far back a node knows of transactions without searching its history."""


@dataclass(frozen=True)
class Reading:
    """What an answer about accounts is read at."""

    commitment: str = "finalized"
    min_context_slot: int | None = None


@dataclass(frozen=True)
class View:
    """One node at one moment."""

    ledger: Ledger
    land: Callable[[bytes, VersionedTransaction], None]
    """Takes a transaction that has passed all checks; what becomes of it then is the cluster's affair."""
    faucet: bool = True
    lag_slots: int = 0
    history_slots: int | None = None
    genesis_hash_lie: str | None = None

    @property
    def levels(self) -> Levels:
        """The newest slot of each commitment that this node knows."""
        return Levels.of(max(0, self.ledger.slot - self.lag_slots), self.ledger.pace.finalized_after_slots)

    @property
    def genesis_hash(self) -> str:
        """What this node says it is."""
        return self.genesis_hash_lie or str(self.ledger.genesis_hash)

    @property
    def first_slot(self) -> int:
        """The oldest block that it has."""
        return 0 if self.history_slots is None else max(0, self.levels.processed - self.history_slots)

    def slot_for(self, reading: Reading) -> int:
        """The slot to answer from. Raises RpcError: the caller wants a later one."""
        slot = self.levels.slot_at(reading.commitment)
        if reading.min_context_slot is not None and slot < reading.min_context_slot:
            raise errors.min_context_slot_not_reached(slot)
        return slot

    def accounts_at(self, slot: int) -> Callable[[Pubkey], Account | None]:
        """Looks accounts up as they were at the end of a slot."""
        return lambda address: self.ledger.account_at(address, slot)

    def shows(self, slot: int, commitment: str = "processed") -> bool:
        """Whether the node has this block, at this commitment."""
        return self.first_slot <= slot <= self.levels.slot_at(commitment)

    def find_landed(self, signature: bytes, commitment: str) -> Landed | None:
        """A transaction, if the node has its block at this commitment."""
        landed = self.ledger.storage.find_landed(signature)
        return landed if landed is not None and self.shows(landed.slot, commitment) else None


def in_context(slot: int, value: Any) -> dict[str, Any]:
    """An answer that says at which slot it was true."""
    return {"context": {"apiVersion": API_VERSION, "slot": slot}, "value": value}
