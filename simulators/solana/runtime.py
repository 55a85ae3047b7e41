"""The accounts and the virtual machine that changes them: LiteSVM held to a slot's time, and what accounts were.

LiteSVM's own blockhash check and memory of transactions are off: the ledger owns both, durably.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from solders.account import Account
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, SimulatedTransactionInfo, TransactionMetadata

from simulators.solana.messages import Keys
from simulators.solana.slots import SLOTS_PER_EPOCH
from simulators.solana.storage import Change

SYSTEM_PROGRAM = Pubkey.default()
LOADERS = frozenset(
    Pubkey.from_string(name)
    for name in (
        "NativeLoader1111111111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
    )
)
LOADING_FAILURES = ("ProgramAccountNotFound", "InvalidProgramForExecution", "MaxLoadedAccountsDataSizeExceeded")
NONCE_ACCOUNT_BYTES = 80
NONCE_AT = slice(40, 72)
NONCE_PREFIX = b"DURABLE_NONCE"


@dataclass(frozen=True)
class Run:
    """What became of a transaction. `err` is the error's JSON, or None; without `changes` nothing landed."""

    err: Any
    meta: TransactionMetadata
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Simulated:
    """What would become of a transaction. `accounts` are those it would leave, if it succeeded."""

    err: Any
    meta: TransactionMetadata
    accounts: dict[Pubkey, Account]


def durable_nonce(blockhash: Hash) -> bytes:
    """What a nonce account is advanced to while this is the newest blockhash."""
    return hashlib.sha256(NONCE_PREFIX + bytes(blockhash)).digest()


def find_nonce(account: Account | None) -> bytes | None:
    """The nonce that an account holds, if it is an initialised nonce account."""
    if account is None or account.owner != SYSTEM_PROGRAM or len(account.data) != NONCE_ACCOUNT_BYTES:
        return None
    return account.data[NONCE_AT] if account.data[4:8] == b"\1\0\0\0" else None


class Runtime:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self._svm = LiteSVM().with_blockhash_check(False).with_transaction_history(0)
        self._svm.set_epoch_schedule(EpochSchedule.without_warmup())
        self._versions: dict[Pubkey, list[tuple[int, Account | None]]] = {}

    def be_at(self, slot: int, unix_s: int, slot_hashes: Sequence[tuple[int, Hash]]) -> None:
        """Set the sysvars to a slot: Clock and, newest first, SlotHashes."""
        epoch = slot // SLOTS_PER_EPOCH
        self._svm.set_clock(Clock(slot, 0, epoch, epoch + 1, unix_s))
        self._svm.set_slot_hashes(slot_hashes)
        self._svm.expire_blockhash()  # a nonce of this slot is none of the last

    def restore(
        self, accounts: Iterable[tuple[bytes, bytes]], versions: Iterable[tuple[bytes, int, bytes | None]]
    ) -> None:
        """Put everything where it was. Call `be_at` before: a program is seen from the slot on at which it is put."""
        known = [(Pubkey.from_bytes(address), Account.from_bytes(raw)) for address, raw in accounts]
        for address, account in sorted(known, key=lambda pair: pair[1].executable):  # a program needs its data before
            self._svm.set_account(address, account)
        for raw_address, slot, before in versions:
            self._remember(Pubkey.from_bytes(raw_address), slot, before)

    def account_now(self, address: Pubkey) -> Account | None:
        """The account, or None if there is none."""
        account = self._svm.get_account(address)
        return account if account is not None and account.lamports else None

    def account_at(self, address: Pubkey, slot: int) -> Account | None:
        """The account at the end of a slot not older than is remembered."""
        for changed_at, before in self._versions.get(address, ()):
            if changed_at > slot:
                return before
        return self.account_now(address)

    def owned_at(self, program: Pubkey, slot: int) -> list[tuple[Pubkey, Account]]:
        """All accounts of a program at the end of a slot, by address."""
        owned = dict(self._svm.get_program_accounts(program))
        for address, versions in self._versions.items():
            if versions[-1][0] > slot:
                account = self.account_at(address, slot)
                owned.pop(address, None)
                if account is not None and account.owner == program:
                    owned[address] = account
        return sorted(((address, account) for address, account in owned.items() if account.lamports), key=_by_address)

    def rent_exempt_lamports(self, data_bytes: int) -> int:
        """What an account of this size must hold."""
        return self._svm.minimum_balance_for_rent_exemption(data_bytes)

    def simulate(self, transaction: VersionedTransaction, *, verify: bool) -> Simulated:
        """Run a transaction and change nothing."""
        self._svm.with_sigverify(verify)
        try:
            result = self._svm.simulate_transaction(transaction)
        finally:
            self._svm.with_sigverify(True)
        if isinstance(result, SimulatedTransactionInfo):
            return Simulated(None, result.meta(), dict(result.post_accounts()))
        return Simulated(self._err(result, transaction), result.meta(), {})

    @contextmanager
    def as_of(self, slot: int, addresses: Iterable[Pubkey]) -> Iterator[None]:
        """For a simulation: these accounts as they were at the end of a slot. Programs stay as they are."""
        now: list[tuple[Pubkey, Account | None]] = []
        for address in addresses:
            versions = self._versions.get(address)
            if versions is None or versions[-1][0] <= slot:
                continue
            present, then = self.account_now(address), self.account_at(address, slot)
            if any(each is not None and each.owner in LOADERS for each in (present, then)):
                continue
            now.append((address, present))
            self._put(address, then)
        try:
            yield
        finally:
            for address, present in now:
                self._put(address, present)

    def run(self, transaction: VersionedTransaction, keys: Keys, blockhash: Hash, nonce: Pubkey | None) -> Run:
        """Execute a transaction. `blockhash` is the newest; `nonce` the account whose nonce stands for its own."""
        before = {address: self.account_now(address) for address in keys.writable}
        result = self._svm.send_transaction(transaction)
        if isinstance(result, TransactionMetadata):
            err, meta = None, result
        else:
            err, meta = self._err(result, transaction), result.meta()
        payer = keys.all[0]
        if err in LOADING_FAILURES:
            self._take_fee(payer, meta.fee())
        landed = err is None or self.account_now(payer) != before[payer]  # the fee was taken
        if landed:
            self._advance_nonces(before, blockhash, nonce)
        changes = [
            Change(bytes(address), _raw(was), _raw(now))
            for address, was in before.items()
            if (now := self.account_now(address)) != was
        ]
        return Run(err, meta, tuple(changes))

    def remember(self, slot: int, changes: Iterable[Change]) -> None:
        """Accounts changed in this slot; call it once that is kept."""
        for change in changes:
            self._remember(Pubkey.from_bytes(change.address), slot, change.before)

    def forget(self, up_to_slot: int) -> None:
        """Nobody will ask any more for slots before this one."""
        for address in list(self._versions):
            kept = [version for version in self._versions[address] if version[0] > up_to_slot]
            if kept:
                self._versions[address] = kept
            else:
                del self._versions[address]

    def _remember(self, address: Pubkey, slot: int, before: bytes | None) -> None:
        versions = self._versions.setdefault(address, [])
        if not versions or versions[-1][0] < slot:
            versions.append((slot, account_from(before)))

    def _advance_nonces(self, before: dict[Pubkey, Account | None], blockhash: Hash, used: Pubkey | None) -> None:
        """A nonce becomes what this slot's blockhash makes it, and the one that was used also if the rest failed.

        LiteSVM derives nonces from a blockhash of its own, and leaves the nonce of a failed transaction as it was.
        """
        for address, was in before.items():
            account = self.account_now(address)
            nonce = find_nonce(account)
            if account is None or nonce is None or (nonce == find_nonce(was) and address != used):
                continue
            data = bytearray(account.data)
            data[NONCE_AT] = durable_nonce(blockhash)
            self._put(address, Account(account.lamports, bytes(data), account.owner, False, account.rent_epoch))

    def _take_fee(self, payer: Pubkey, fee_lamports: int) -> None:
        """Clusters charge also for what could not be loaded; LiteSVM does not."""
        account = self.account_now(payer)
        if account is not None and account.lamports >= fee_lamports:
            left = account.lamports - fee_lamports
            self._put(payer, Account(left, account.data, account.owner, account.executable, account.rent_epoch))

    def _err(self, result: FailedTransactionMetadata, transaction: VersionedTransaction) -> Any:
        """The error's JSON. LiteSVM tells a program that is not there from one that is none no better than this."""
        err = json.loads(result.to_json())["err"]
        keys = transaction.message.account_keys
        if err == "InvalidProgramForExecution" and any(
            self.account_now(keys[each.program_id_index]) is None for each in transaction.message.instructions
        ):
            return "ProgramAccountNotFound"
        return err

    def _put(self, address: Pubkey, account: Account | None) -> None:
        self._svm.set_account(address, account or Account(0, b"", SYSTEM_PROGRAM))


def account_from(raw: bytes | None) -> Account | None:
    """An account as it is stored."""
    return None if raw is None else Account.from_bytes(raw)


def _raw(account: Account | None) -> bytes | None:
    return None if account is None else bytes(account)


def _by_address(pair: tuple[Pubkey, Account]) -> bytes:
    return bytes(pair[0])
