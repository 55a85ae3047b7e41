"""What a node's answers prove, and what they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.chain.intent import ENDED, NEXT_STATES, UNENDED, Attempt, IntentState
from hub.chain.rpc import BLOCKS_AHEAD_MAX, Blockhash, Finalized, Status
from hub.chain.sending import (
    LAST_PAUSE_S,
    SETBACK_PAUSE_S_MAX,
    TRIES_MAX,
    Evidence,
    Verdict,
    check_blockhash,
    judge,
    needs_history,
    pause_after_send_s,
    pause_after_setback_s,
)
from hub.errors import ChainAnswersNonsense, ChainLags

numbers = st.integers(0, 2_000)
levels = st.sampled_from(["processed", "confirmed", "finalized"])


def attempt(last_valid_block_height=1_000, signed_at_slot=900):
    return Attempt(1, b"message", b"s" * 64, None, last_valid_block_height, signed_at_slot, 1, None, "")


def judged(height, status=None, first=0, **fields):
    each = attempt(**fields)
    finalized = Finalized(height, height)
    needed = needs_history(each, finalized, status)
    return judge(each, Evidence(finalized, status, first if needed else None))


def test_at_its_last_height_it_may_still_land_and_one_later_it_has_lapsed():
    assert judged(1_000) == Verdict.MAY_LAND
    assert judged(1_001) == Verdict.LAPSED


def test_a_node_that_began_to_remember_after_the_signing_proves_nothing():
    assert judged(1_001, first=900) == Verdict.LAPSED
    assert judged(1_001, first=901) == Verdict.HISTORY_PRUNED


def test_what_is_in_a_block_has_happened_only_when_final():
    assert judged(5_000, Status(950, "processed", None)) == Verdict.ON_ITS_WAY
    assert judged(5_000, Status(950, "confirmed", None)) == Verdict.ON_ITS_WAY
    assert judged(5_000, Status(950, "finalized", None)) == Verdict.LANDED


@given(
    height=numbers, last=numbers, signed=numbers, first=numbers,
    status=st.none() | st.builds(Status, numbers, levels, st.none()),
)  # fmt: skip
def test_a_new_transaction_may_be_signed_only_when_the_old_one_provably_never_landed(
    height, last, signed, first, status
):
    verdict = judged(height, status, first, last_valid_block_height=last, signed_at_slot=signed)
    assert (verdict == Verdict.LAPSED) == (status is None and height > last and first <= signed)


def test_it_is_tried_again_after_one_two_and_four_seconds():
    assert [pause_after_send_s(sends) for sends in range(1, TRIES_MAX + 1)] == [1, 2, 4, LAST_PAUSE_S]
    assert TRIES_MAX == 4


def test_setbacks_are_waited_out_longer_and_longer():
    assert [pause_after_setback_s(count) for count in (1, 2, 3, 100)] == [1, 2, 4, SETBACK_PAUSE_S_MAX]


def test_what_has_ended_stays_so_and_what_is_unknown_may_end_in_any_way():
    assert all(not NEXT_STATES[state] for state in ENDED)
    assert all(IntentState.FINALIZED in NEXT_STATES[state] for state in UNENDED)
    assert NEXT_STATES[IntentState.UNKNOWN] >= ENDED
    assert IntentState.OPEN not in NEXT_STATES[IntentState.UNKNOWN], "not without a new transaction"


def test_a_blockhash_is_signed_for_only_by_what_the_chain_can_have_said():
    finalized, ahead = Finalized(1_000, 900), BLOCKS_AHEAD_MAX
    check_blockhash(Blockhash(b"h" * 32, 900 + 150, 1_000), finalized, 0)
    check_blockhash(Blockhash(b"h" * 32, 900 + ahead, 1_000 + ahead), finalized, 1_000 + ahead)
    for behind, read_slot in ((999, 0), (1_005, 1_006)):
        with pytest.raises(ChainLags):
            check_blockhash(Blockhash(b"h" * 32, 1_050, behind), finalized, read_slot)
    for height, slot in ((901 + ahead, 1_000), (1_050, 1_001 + ahead)):
        with pytest.raises(ChainAnswersNonsense):
            check_blockhash(Blockhash(b"h" * 32, height, slot), finalized, 0)
