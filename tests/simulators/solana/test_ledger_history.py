"""What an account was at the end of any slot, after any history of payments, pauses and restarts."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from solders.keypair import Keypair

from simulators.solana.ledger import Pace
from tests.simulators.solana.ledger_at_hand import FEE_LAMPORTS, SOL, LedgerAtHand, pay

PEOPLE = 3
EVERYTHING = "everything"
people = st.integers(0, PEOPLE - 1)
acts = st.one_of(
    st.tuples(st.just("pay"), people, people, st.integers(1, 3)),
    st.tuples(st.just("pay"), people, people, st.just(EVERYTHING)),
    st.tuples(st.just("pass"), st.integers(1, 40)),
    st.just(("restart",)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(acts, max_size=14))
def test_every_slot_shows_what_everybody_had_at_its_end(history):
    with tempfile.TemporaryDirectory() as directory, _opened(Path(directory)) as hand:
        purses = [hand.rich() for _ in range(PEOPLE)]
        held = dict.fromkeys(range(PEOPLE), 10 * SOL)
        at_end_of = {hand.ledger.slot - 1: dict.fromkeys(range(PEOPLE), 0), hand.ledger.slot: dict(held)}
        for act in history:
            if act[0] == "pay":
                _pay(hand, purses, held, *act[1:])
            elif act[0] == "pass":
                hand.pass_slots(act[1])
            else:
                hand.reopen()
            at_end_of[hand.ledger.slot] = dict(held)
        for slot, expected in _every_slot(at_end_of, hand.ledger.slot):
            seen = [hand.ledger.account_at(purse.pubkey(), slot) for purse in purses]
            assert [account.lamports if account else 0 for account in seen] == list(expected.values()), slot


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[LedgerAtHand]:
    hand = LedgerAtHand(directory, Pace(finalized_after_slots=4))
    try:
        yield hand
    finally:
        hand.ledger.close()


def _pay(hand: LedgerAtHand, purses: list[Keypair], held: dict[int, int], payer: int, payee: int, sol: object) -> None:
    lamports = max(0, held[payer] - FEE_LAMPORTS) if sol == EVERYTHING else int(str(sol)) * SOL
    landed = hand.do(pay(purses[payer], purses[payee].pubkey(), lamports), by=purses[payer])
    if landed is None:  # the payer has nothing, or has said this before in this slot
        return
    held[payer] -= FEE_LAMPORTS
    if landed.err is None:
        held[payer] -= lamports
        held[payee] += lamports


def _every_slot(at_end_of: dict[int, dict[int, int]], newest: int) -> list[tuple[int, dict[int, int]]]:
    known, shown = at_end_of[min(at_end_of)], []
    for slot in range(min(at_end_of), newest + 1):
        known = at_end_of.get(slot, known)
        shown.append((slot, known))
    return shown
