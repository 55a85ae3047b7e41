"""A ledger in this process, whose clock a test sets, and the transactions that tests send to it."""

from __future__ import annotations

from pathlib import Path

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from simulators.solana.ledger import Ledger, Pace

BEGINNING_UNIX_MS = 1_795_000_000_000
SOL = 10**9
FEE_LAMPORTS = 5_000
PACE = Pace()


class LedgerAtHand:
    """One directory's ledger; `reopen` is what a new process does."""

    def __init__(self, directory: Path, pace: Pace = PACE) -> None:
        self.directory = directory
        self.pace = pace
        self.now_unix_ms = BEGINNING_UNIX_MS
        self.ledger = self._open()

    def _open(self) -> Ledger:
        return Ledger(self.directory, self.pace, lambda: self.now_unix_ms)

    def reopen(self, after_ms: int = 0, pace: Pace | None = None) -> Ledger:
        self.ledger.close()
        self.now_unix_ms += after_ms
        self.pace = pace or self.pace
        self.ledger = self._open()
        return self.ledger

    def pass_slots(self, slots: int) -> None:
        self.now_unix_ms += slots * self.pace.slot_ms
        self.ledger.advance()

    @property
    def blockhash(self) -> Hash:
        return self.ledger.blockhashes.of(self.ledger.slot)

    def signed(self, *instructions: Instruction, by: Keypair, also: tuple[Keypair, ...] = (), blockhash=None):
        message = Message.new_with_blockhash(list(instructions), by.pubkey(), blockhash or self.blockhash)
        return VersionedTransaction(message, [by, *also])

    def send(self, transaction: VersionedTransaction):
        return self.ledger.execute(bytes(transaction), transaction)

    def do(self, *instructions: Instruction, by: Keypair, also: tuple[Keypair, ...] = (), blockhash=None):
        """Send; what landed, or None."""
        return self.send(self.signed(*instructions, by=by, also=also, blockhash=blockhash))

    def rich(self, lamports: int = 10 * SOL) -> Keypair:
        """Somebody with this much."""
        somebody = Keypair()
        assert self.do(pay(self.ledger.faucet, somebody.pubkey(), lamports), by=self.ledger.faucet).err is None
        return somebody

    def lamports(self, address: Pubkey, commitment: str = "processed") -> int:
        account = self.ledger.account_at(address, self.ledger.slot_at(commitment))
        return account.lamports if account else 0


def pay(payer: Keypair, to: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
