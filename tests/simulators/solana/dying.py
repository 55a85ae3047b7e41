"""Run as a program: a ledger that is killed at a chosen SQL statement of a payment, for each statement in turn.

`python -m tests.simulators.solana.dying DIRECTORY` prints a JSON object per death: at which statement, and what a
ledger that is opened afterwards says. The processes are forks of this one, so that LiteSVM is imported once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from solders.keypair import Keypair

from tests.simulators.solana.ledger_at_hand import SOL, LedgerAtHand, pay

KILLED_FIRST, KILLED_LAST = 1, 40


def pay_and_die(directory: Path, wires: list, at_statement: int) -> None:
    """In a process of its own: pay, and be killed before this SQL statement runs."""
    hand = LedgerAtHand(directory)
    statements = 0

    def count(_: str) -> None:
        nonlocal statements
        statements += 1
        if statements == at_statement:
            os.kill(os.getpid(), signal.SIGKILL)

    hand.ledger.storage._db.set_trace_callback(count)
    for transaction in wires:
        hand.send(transaction)
    os._exit(0)


def say_what_is_left(directory: Path, otto: Keypair, wires: list) -> dict[str, object]:
    hand = LedgerAtHand(directory)
    landed = [hand.ledger.find_status(str(each.signatures[0])) is not None for each in wires]
    lamports = hand.lamports(otto.pubkey())
    for transaction in wires:
        hand.send(transaction)
    again = hand.lamports(otto.pubkey())
    hand.ledger.close()
    return {"landed": landed, "lamports": lamports, "after_sending_again": again}


def main(directory: Path) -> None:
    whole = LedgerAtHand(directory / "whole")
    ada, otto = whole.rich(), Keypair()
    wires = [whole.signed(pay(ada, otto.pubkey(), SOL + number), by=ada) for number in range(2)]
    whole.ledger.close()
    for at_statement in range(KILLED_FIRST, KILLED_LAST):
        mine = directory / str(at_statement)
        shutil.copytree(directory / "whole", mine)
        child = os.fork()
        if child == 0:
            pay_and_die(mine, wires, at_statement)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        print(json.dumps({"statement": at_statement, "killed": killed, **say_what_is_left(mine, otto, wires)}))
        if not killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
