"""What happens on the cluster, told to whoever listens: made slots, processed transactions, confirmed and rooted slots.

A listener is called in the ledger's thread, in the order in which things happened and after they are on disk, and must
return at once; `node.Node.listen` carries facts over to an event loop.
"""

from dataclasses import dataclass
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey


@dataclass(frozen=True)
class AccountChanged:
    """A writable account of a transaction and what it is now; None: it is gone."""

    address: Pubkey
    account: Account | None


@dataclass(frozen=True)
class TransactionProcessed:
    """A transaction that landed in a block, whether it succeeded or not (`err` is None or the error's JSON)."""

    slot: int
    signature: str
    err: Any
    logs: tuple[str, ...]
    mentions: tuple[str, ...]
    """All its accounts, those of lookup tables too, as base58."""
    accounts: tuple[AccountChanged, ...]


@dataclass(frozen=True)
class SlotMade:
    """A slot has begun; transactions land in it until the next is made. `root` is the newest finalized slot."""

    slot: int
    parent: int
    root: int


@dataclass(frozen=True)
class SlotConfirmed:
    """No transaction will land in this slot any more, and two thirds would have voted for it."""

    slot: int
    transactions: tuple[TransactionProcessed, ...]


@dataclass(frozen=True)
class SlotRooted:
    """This slot is finalized. After a restart its transactions carry the accounts as they were at its end."""

    slot: int
    transactions: tuple[TransactionProcessed, ...]


Fact = TransactionProcessed | SlotMade | SlotConfirmed | SlotRooted
