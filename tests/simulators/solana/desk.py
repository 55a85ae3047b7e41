"""A node that answers from a ledger in this process, whose clock a test sets."""

from __future__ import annotations

import base64

import pytest
from solders.pubkey import Pubkey

from simulators.solana import methods
from simulators.solana.errors import RpcError
from simulators.solana.view import View
from tests.simulators.solana.ledger_at_hand import LedgerAtHand

MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
PROCESSED, CONFIRMED = {"commitment": "processed"}, {"commitment": "confirmed"}
IN_BASE64 = {"encoding": "base64", "preflightCommitment": "processed"}
NOBODY = str(Pubkey.new_unique())
INVALID_PARAMS = -32602


class Desk(LedgerAtHand):
    """A ledger and a node that answers from it."""

    def __init__(self, directory):
        super().__init__(directory)
        self.faucet = True
        self.history_slots = None

    def ask(self, method, *params):
        def land(wire, transaction):
            self.ledger.execute(wire, transaction)

        view = View(self.ledger, land, self.faucet, history_slots=self.history_slots)
        return methods.call(view, method, list(params))

    def refused(self, method, *params):
        with pytest.raises(RpcError) as refusal:
            self.ask(method, *params)
        return refusal.value.code, refusal.value.message


def wire_of(transaction):
    """A transaction as requests have it."""
    return base64.b64encode(bytes(transaction)).decode()
