"""A bare LiteSVM with the program deployed as on any cluster, its clock in our hand, and a way back at little cost."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from solders.account import Account
from solders.clock import Clock
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountParams, create_account
from solders.transaction import Transaction, VersionedTransaction
from solders.transaction_metadata import TransactionMetadata

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
RENT_SYSVAR = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
CLOCK_SYSVAR = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
BUFFER_HEAD_BYTES, PROGRAM_BYTES = 37, 36
CHUNK_BYTES = 900
LAMPORTS = 10**12
START_UNIX_S = 1_800_000_000
"""A quarter of an hour begins here, in 2027."""


KEYPAIRS: dict[Pubkey, Keypair] = {}
"""All that tests can sign with."""


def keypair(name: str) -> Keypair:
    """The same key for the same name in every run, so that addresses and their bumps are constant."""
    made = Keypair.from_seed(hashlib.sha256(b"commonwatt test " + name.encode()).digest())
    return KEYPAIRS.setdefault(made.pubkey(), made)


PAYER = keypair("payer")
"""Pays every fee and is nobody to the program: what else changes, the program has changed."""


@dataclass(frozen=True)
class Outcome:
    """What became of a transaction. `error` is empty if it was accepted; `custom` is a program's own number."""

    error: str
    index: int | None
    custom: int | None
    compute_units: int
    logs: tuple[str, ...]
    per_instruction: tuple[int, ...] = field(default=())

    @property
    def accepted(self) -> bool:
        return not self.error

    @property
    def events(self) -> list[bytes]:
        """What the program told, in order; nothing else in a test's transaction writes such lines."""
        return [base64.b64decode(line[14:]) for line in self.logs if line.startswith("Program data: ")]


def consumed_per_call(logs: Sequence[str], program: Pubkey) -> tuple[int, ...]:
    """Compute units of each call of the program in a transaction, with what it called."""
    begins = f"Program {program} consumed "
    return tuple(int(line[len(begins) :].split()[0]) for line in logs if line.startswith(begins))


SHIPPED = LiteSVM()
"""What LiteSVM brings itself: sysvars and the usual programs."""
NOTHING = Account(0, b"", SYSTEM, False, 0)


@dataclass(frozen=True)
class Saved:
    """A ledger at one moment."""

    clock: Clock
    accounts: dict[Pubkey, Account]


class Ledger:
    """All accounts that ever took part are known, so that it can be brought back to where it was."""

    def __init__(self, program: Pubkey) -> None:
        self.program = program
        self.svm = LiteSVM()
        self.keys: set[Pubkey] = set()
        self.set_time(START_UNIX_S)

    # -- time, lamports, accounts

    def set_time(self, unix_s: int) -> None:
        clock = self.svm.get_clock()
        self.svm.set_clock(
            Clock(clock.slot, clock.epoch_start_timestamp, clock.epoch, clock.leader_schedule_epoch, unix_s)
        )

    def time(self) -> int:
        return self.svm.get_clock().unix_timestamp

    def airdrop(self, key: Pubkey, lamports: int = LAMPORTS) -> None:
        self.keys.add(key)
        self.svm.airdrop(key, lamports)

    def find(self, key: Pubkey) -> Account | None:
        return self.svm.get_account(key)

    def data(self, key: Pubkey) -> bytes:
        account = self.svm.get_account(key)
        assert account is not None, key
        return bytes(account.data)

    def put(self, key: Pubkey, data: bytes, owner: Pubkey, lamports: int = 10**9, executable: bool = False) -> None:
        """An account that no transaction could make."""
        self.keys.add(key)
        self.svm.set_account(key, Account(lamports, data, owner, executable, 0))

    def ours(self) -> dict[Pubkey, bytes]:
        """All accounts of the program."""
        return {key: bytes(account.data) for key, account in self.svm.get_program_accounts(self.program)}

    def rent(self, length: int) -> int:
        return self.svm.minimum_balance_for_rent_exemption(length)

    # -- transactions

    def send(self, instructions: Sequence[Instruction], payer: Keypair = PAYER) -> Outcome:
        """Send one transaction, signed by all that it names as signers.

        If it is refused, nothing but the fee may have changed: that is checked each time.
        """
        signers = {meta.pubkey for each in instructions for meta in each.accounts if meta.is_signer}
        others = [KEYPAIRS[key] for key in sorted(signers - {payer.pubkey()}, key=bytes)]
        blockhash = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(list(instructions), payer.pubkey(), blockhash)
        return self.send_signed(Transaction([payer, *others], message, blockhash))

    def send_signed(self, transaction: Transaction | VersionedTransaction) -> Outcome:
        keys = list(transaction.message.account_keys)
        self.keys.update(keys)
        before = [self._account(key) for key in keys]
        result = self.svm.send_transaction(transaction)
        self.svm.expire_blockhash()
        if isinstance(result, TransactionMetadata):
            logs = tuple(result.logs())
            units = result.compute_units_consumed()
            return Outcome("", None, None, units, logs, consumed_per_call(logs, self.program))
        after = [self._account(key) for key in keys]
        meta = result.meta()
        paid, *rest = after
        assert rest == before[1:], "a refused transaction changed an account"
        assert paid[1:] == before[0][1:]
        assert before[0][0] - paid[0] in (0, meta.fee())
        error = json.loads(result.to_json())["err"]
        index, custom = None, None
        if isinstance(error, dict) and "InstructionError" in error:
            index, cause = error["InstructionError"]
            custom = cause.get("Custom") if isinstance(cause, dict) else None
        return Outcome(str(error), index, custom, meta.compute_units_consumed(), tuple(meta.logs()))

    def _account(self, key: Pubkey) -> tuple[int, bytes, Pubkey, bool]:
        account = self.svm.get_account(key)
        if account is None:
            return (0, b"", SYSTEM, False)
        return (account.lamports, bytes(account.data), account.owner, account.executable)

    # -- the way back

    def save(self) -> Saved:
        """All accounts that ever took part, and the time."""
        accounts = {key: account for key in self.keys if (account := self.svm.get_account(key)) is not None}
        return Saved(self.svm.get_clock(), accounts)

    def restore(self, saved: Saved) -> None:
        """As it was. The program's code stays loaded, which is what makes this quick."""
        self.svm.set_clock(saved.clock)
        for key in self.keys:
            account, now = saved.accounts.get(key), self.svm.get_account(key)
            if account == now or SHIPPED.get_account(key) is not None:
                continue
            self.svm.set_account(key, account or NOTHING)
        self.svm.expire_blockhash()


# -- deployment


def program_bytes() -> bytes:
    return files("programs.energy").joinpath("energy.so").read_bytes()


def program_data_of(program: Pubkey) -> Pubkey:
    return Pubkey.find_program_address([bytes(program)], LOADER)[0]


def deploy(ledger: Ledger, program: Pubkey, authority: Keypair, code: bytes) -> None:
    """By ordinary transactions of the upgradeable loader: buffer, writes, deployment. It runs from the next slot on."""
    buffer = keypair("buffer")
    payer, at = authority.pubkey(), buffer.pubkey()
    signed = AccountMeta(payer, True, False)
    space = BUFFER_HEAD_BYTES + len(code)
    _must(ledger.send(
        [
            create_account(CreateAccountParams(
                from_pubkey=payer, to_pubkey=at, lamports=ledger.rent(space), space=space, owner=LOADER)),
            Instruction(LOADER, struct.pack("<I", 0), [AccountMeta(at, False, True), AccountMeta(payer, False, False)]),
        ],
    ))  # fmt: skip
    for offset in range(0, len(code), CHUNK_BYTES):
        chunk = code[offset : offset + CHUNK_BYTES]
        write = struct.pack("<IIQ", 1, offset, len(chunk)) + chunk
        _must(ledger.send([Instruction(LOADER, write, [AccountMeta(at, False, True), signed])]))
    metas = [
        AccountMeta(payer, True, True),
        AccountMeta(program_data_of(program), False, True),
        AccountMeta(program, False, True),
        AccountMeta(at, False, True),
        AccountMeta(RENT_SYSVAR, False, False),
        AccountMeta(CLOCK_SYSVAR, False, False),
        AccountMeta(SYSTEM, False, False),
        signed,
    ]
    _must(ledger.send(
        [
            create_account(CreateAccountParams(
                from_pubkey=payer, to_pubkey=program, lamports=ledger.rent(PROGRAM_BYTES),
                space=PROGRAM_BYTES, owner=LOADER)),
            Instruction(LOADER, struct.pack("<IQ", 2, 2 * len(code)), metas),
        ],
    ))  # fmt: skip
    ledger.svm.warp_to_slot(ledger.svm.get_clock().slot + 1)


def set_upgrade_authority(program: Pubkey, authority: Pubkey, successor: Pubkey | None) -> Instruction:
    """Hand the right to upgrade to somebody else, or to nobody for ever."""
    metas = [AccountMeta(program_data_of(program), False, True), AccountMeta(authority, True, False)]
    if successor is not None:
        metas.append(AccountMeta(successor, False, False))
    return Instruction(LOADER, struct.pack("<I", 4), metas)


def _must(outcome: Outcome) -> None:
    assert outcome.accepted, (outcome.error, outcome.logs)
