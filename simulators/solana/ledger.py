"""The ledger: what has landed and what the accounts are, durably; slots that follow the clock; who may still land.

One thread. Everything that happens is kept before anybody is told, in one database transaction each; a
transaction is executed at most once, for ever, because what landed is never forgotten.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from simulators.solana import records
from simulators.solana.blockhashes import Blockhashes
from simulators.solana.facts import AccountChanged, Fact, SlotConfirmed, SlotMade, SlotRooted, TransactionProcessed
from simulators.solana.messages import Keys, find_nonce_account, keys_of, landed_keys, message_hash, message_of
from simulators.solana.runtime import SYSTEM_PROGRAM, Runtime, Simulated, account_from, durable_nonce, find_nonce
from simulators.solana.slots import Anchor, Levels, began_unix_ms, slot_by_clock
from simulators.solana.storage import Change, Landed, Storage

BLOCKHASH_SLOTS = 150
"""How many slots after its own a blockhash may still be used."""
REMEMBERED_SLOTS = 512
"""How many slots before the newest finalized one accounts can still be read: for a node that lags."""
FORGET_EVERY_SLOTS = 64
FAUCET_LAMPORTS = 500_000_000 * 10**9

Listener = Callable[[Fact], None]


@dataclass(frozen=True)
class Pace:
    """How fast the cluster is."""

    slot_ms: int = 400
    finalized_after_slots: int = 32


@dataclass(frozen=True)
class Status:
    """Where a transaction landed and how it ended."""

    slot: int
    err: Any


class Ledger:
    """A cluster's whole state."""

    def __init__(self, directory: Path, pace: Pace, now_unix_ms: Callable[[], int]) -> None:
        self.pace = pace
        self._now_unix_ms = now_unix_ms
        self._listeners: list[Listener] = []
        self.storage = Storage(directory)
        seed = self.storage.find_fact("seed")
        if seed is None:
            seed = self._begin()
        self._seed: bytes = seed
        self.blockhashes = Blockhashes(seed)
        self.faucet = Keypair.from_bytes(self.storage.find_fact("faucet"))
        self.slot = self._keep_pace()
        self._number = self.storage.newest_number()
        self.blockhashes.reach(self.slot)
        self._run_at = -1
        self.runtime = Runtime()
        self._set_runtime()
        self.runtime.restore(self.storage.accounts(), self.storage.versions())
        self._pending = self._facts_not_final()

    # ---- what it is

    @property
    def genesis_hash(self) -> Hash:
        """Of this ledger and no other."""
        return Hash(hashlib.sha256(self._seed + b"genesis").digest())

    @property
    def levels(self) -> Levels:
        """The newest slot of each commitment."""
        return Levels.of(self.slot, self.pace.finalized_after_slots)

    def slot_at(self, commitment: str) -> int:
        """The newest slot of a commitment."""
        return self.levels.slot_at(commitment)

    def began_unix_ms(self, slot: int) -> int:
        """When a slot began."""
        return began_unix_ms(self._anchors, slot)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call this with everything that happens; call what is returned to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        """Close the file."""
        self.storage.close()

    # ---- time

    def advance(self) -> None:
        """Let the slots come that time has brought."""
        slot = slot_by_clock(self._anchors[-1], self._now_unix_ms())
        if slot > self.slot:
            self._go_to(slot)

    def skip(self, slots: int) -> None:
        """Let so many slots pass at once; blockhashes age by them, the clock does not."""
        self.advance()
        target = self.slot + slots
        anchor = Anchor(target, max(self._now_unix_ms(), self.began_unix_ms(self.slot)), self.pace.slot_ms)
        with self.storage.transaction():
            self.storage.add_anchor(anchor)
            self.storage.put_fact("slot", target)
        self._anchors.append(anchor)
        self._go_to(target)

    def _go_to(self, slot: int) -> None:
        before = self.levels
        self.slot = slot
        self.blockhashes.reach(slot)
        now = self.levels
        forget = slot // FORGET_EVERY_SLOTS != before.processed // FORGET_EVERY_SLOTS
        if forget:
            oldest = now.finalized - REMEMBERED_SLOTS
            with self.storage.transaction():
                self.storage.put_fact("slot", slot)
                self.storage.forget_versions(oldest)
            self.runtime.forget(oldest)
        self._tell(SlotMade(slot, slot - 1, now.finalized))
        for confirmed in self._worth_telling(before.confirmed, now.confirmed):
            self._tell(SlotConfirmed(confirmed, tuple(self._pending.get(confirmed, ()))))
        for rooted in self._worth_telling(before.finalized, now.finalized):
            self._tell(SlotRooted(rooted, tuple(self._pending.pop(rooted, ()))))

    def _worth_telling(self, after: int, up_to: int) -> list[int]:
        """Of the slots that have reached a level: those with transactions, and the newest."""
        if up_to <= after:
            return []
        return sorted({slot for slot in self._pending if after < slot <= up_to} | {up_to})

    def _set_runtime(self, slot: int | None = None) -> None:
        """Set the sysvars to a slot, the present one if not said."""
        slot = self.slot if slot is None else slot
        if slot != self._run_at:
            self.runtime.be_at(slot, self.began_unix_ms(slot) // 1000, self.blockhashes.before(slot))
            self._run_at = slot

    # ---- accounts

    def account_at(self, address: Pubkey, slot: int) -> Account | None:
        """The account at the end of a slot (the present slot: now)."""
        self._set_runtime()
        return self.runtime.account_at(address, slot)

    def owned_at(self, program: Pubkey, slot: int) -> list[tuple[Pubkey, Account]]:
        """All accounts of a program at the end of a slot."""
        self._set_runtime()
        return self.runtime.owned_at(program, slot)

    # ---- transactions

    def has_valid_blockhash(self, blockhash: Hash, at_slot: int) -> bool:
        """Whether a node whose newest block is `at_slot` takes transactions with this blockhash."""
        slot = self.blockhashes.find_slot(blockhash)
        return slot is not None and at_slot - BLOCKHASH_SLOTS <= slot <= at_slot

    def find_usable_nonce(self, transaction: VersionedTransaction) -> Pubkey | None:
        """The nonce account whose nonce stands for the transaction's blockhash, if it does."""
        address = find_nonce_account(message_of(transaction))
        nonce = find_nonce(self.runtime.account_now(address)) if address is not None else None
        if nonce is None or nonce != bytes(transaction.message.recent_blockhash):
            return None
        return address if nonce != durable_nonce(self.blockhashes.of(self.slot)) else None

    def find_refusal(self, transaction: VersionedTransaction, at_slot: int) -> str | None:
        """Why a node at `at_slot` does not run a transaction: its blockhash is too old or unknown, or it has landed."""
        if not self.has_valid_blockhash(transaction.message.recent_blockhash, at_slot):  # noqa: SIM102 - two facts
            if self.find_usable_nonce(transaction) is None:
                return "BlockhashNotFound"
        landed_in = self.storage.find_slot_of(bytes(transaction.signatures[0]), message_hash(transaction))
        return "AlreadyProcessed" if landed_in is not None and landed_in <= at_slot else None

    def execute(self, wire: bytes, transaction: VersionedTransaction) -> TransactionProcessed | None:
        """Land a transaction in the present slot, or, if it may not or nobody pays for it, drop it: None."""
        self.advance()
        if self.find_refusal(transaction, self.slot) is not None:
            return None
        self._set_runtime()
        by_blockhash = self.has_valid_blockhash(transaction.message.recent_blockhash, self.slot)
        nonce = None if by_blockhash else self.find_usable_nonce(transaction)
        keys = keys_of(message_of(transaction), self.runtime.account_now)
        before = records.balances(keys.all, self.runtime.account_now)
        run = self.runtime.run(transaction, keys, self.blockhashes.of(self.slot), nonce)
        if not run.changes:
            return None
        after = records.balances(keys.all, self.runtime.account_now)
        record = records.record_of(run.err, run.meta, keys, before, after)
        landed = Landed(self._number + 1, bytes(transaction.signatures[0]), self.slot, wire, record)
        with self.storage.transaction():
            self.storage.add_landed(landed, message_hash(transaction), map(bytes, keys.all))
            self.storage.add_changes(self.slot, run.changes)
            self.storage.put_fact("slot", self.slot)
        self._number += 1
        self.runtime.remember(self.slot, run.changes)
        fact = TransactionProcessed(
            self.slot,
            str(transaction.signatures[0]),
            run.err,
            tuple(run.meta.logs()),
            tuple(map(str, keys.all)),
            tuple(AccountChanged(Pubkey.from_bytes(each.address), account_from(each.after)) for each in run.changes),
        )
        self._pending.setdefault(self.slot, []).append(fact)
        self._tell(fact)
        return fact

    def simulate(self, transaction: VersionedTransaction, at_slot: int, *, verify: bool) -> tuple[Keys, Simulated]:
        """What a node at `at_slot` would make of a transaction, and its accounts."""

        def account_of(address: Pubkey) -> Account | None:
            return self.runtime.account_at(address, at_slot)

        keys = keys_of(message_of(transaction), account_of)
        tables = getattr(transaction.message, "address_table_lookups", ())
        with self.runtime.as_of(at_slot, {*keys.all, *(each.account_key for each in tables)}):
            self._set_runtime(at_slot)
            return keys, self.runtime.simulate(transaction, verify=verify)

    def find_status(self, signature: str) -> Status | None:
        """Where a transaction landed and how it ended; None: it has not landed. Raises ValueError."""
        landed = self.storage.find_landed(bytes(Signature.from_string(signature)))
        return None if landed is None else Status(landed.slot, landed.record["err"])

    # ---- beginning

    def _begin(self) -> bytes:
        """A new cluster, whose hashes are no other's. What was there at genesis is finalized."""
        seed, faucet = secrets.token_bytes(32), Keypair()
        slot = self.pace.finalized_after_slots + 1
        account = bytes(Account(FAUCET_LAMPORTS, b"", SYSTEM_PROGRAM))
        with self.storage.transaction():
            self.storage.put_fact("seed", seed)
            self.storage.put_fact("faucet", bytes(faucet))
            self.storage.put_fact("slot", slot)
            self.storage.add_anchor(Anchor(slot, self._now_unix_ms(), self.pace.slot_ms))
            self.storage.add_changes(0, [Change(bytes(faucet.pubkey()), None, account)])
        return seed

    def _keep_pace(self) -> int:
        """Read the anchors, and set another if slots take another time than before; the slot of this moment."""
        self._anchors = self.storage.anchors()
        now_unix_ms = self._now_unix_ms()
        slot = max(int(self.storage.find_fact("slot")), slot_by_clock(self._anchors[-1], now_unix_ms))
        if self._anchors[-1].slot_ms != self.pace.slot_ms:
            anchor = Anchor(slot, max(now_unix_ms, self.began_unix_ms(slot)), self.pace.slot_ms)
            with self.storage.transaction():
                self.storage.add_anchor(anchor)
            self._anchors = self.storage.anchors()
        return slot

    def _facts_not_final(self) -> dict[int, list[TransactionProcessed]]:
        """The transactions whose slots are not rooted yet, as facts."""
        pending = {}
        for slot in self.storage.slots_with_transactions(self.levels.finalized, self.slot):
            pending[slot] = [self._fact_of(landed) for landed in self.storage.landed_in(slot)]
        return pending

    def _fact_of(self, landed: Landed) -> TransactionProcessed:
        transaction = VersionedTransaction.from_bytes(landed.wire)
        keys = landed_keys(message_of(transaction), landed.record["loadedAddresses"])
        accounts = tuple(AccountChanged(key, self.runtime.account_at(key, landed.slot)) for key in keys.writable)
        mentions = tuple(map(str, keys.all))
        record = landed.record
        signature = str(Signature.from_bytes(landed.signature))
        return TransactionProcessed(
            landed.slot, signature, record["err"], tuple(record["logMessages"]), mentions, accounts
        )

    def _tell(self, fact: Fact) -> None:
        for listener in list(self._listeners):
            listener(fact)
