"""When a slot began, over anchors that pace and skips have set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulators.solana.slots import Anchor, Levels, began_unix_ms, slot_by_clock

ANCHORS = [Anchor(33, 1_000_000, 400), Anchor(100, 1_030_000, 400), Anchor(260, 1_030_100, 50)]


@given(st.integers(0, 500))
def test_no_slot_begins_before_the_one_before_it(slot):
    assert began_unix_ms(ANCHORS, slot) <= began_unix_ms(ANCHORS, slot + 1)


@given(st.integers(1_030_100, 2_000_000))
def test_the_slot_of_a_moment_has_begun_and_the_next_has_not(now_unix_ms):
    slot = slot_by_clock(ANCHORS[-1], now_unix_ms)
    assert began_unix_ms(ANCHORS, slot) <= now_unix_ms < began_unix_ms(ANCHORS, slot + 1)


def test_a_moment_before_the_newest_anchor_is_at_it():
    assert slot_by_clock(ANCHORS[-1], 0) == 260


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 64))
def test_a_slot_never_becomes_less_sure(slot, newest, finalized_after_slots):
    order = ["processed", "confirmed", "finalized"]
    before = Levels.of(newest, finalized_after_slots).commitment_of(slot)
    after = Levels.of(newest + 1, finalized_after_slots).commitment_of(slot)
    assert order.index(before) <= order.index(after)
