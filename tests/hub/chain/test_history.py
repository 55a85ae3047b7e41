"""The place of a transaction: its slot, and how many of the program's came before it in that slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.chain.history import number
from hub.chain.inbox_store import Cursor
from hub.chain.rpc_answers import SignatureOfAddress


def _cursor(slot: int = 0, position: int = 0, signature: bytes | None = None) -> Cursor:
    return Cursor(bytes(32), bytes(32), slot, position, signature, None, 0, None, None, None, None)


def _listed(slots: list[int]) -> list[SignatureOfAddress]:
    """As a node answers: the newest first."""
    listed = [
        SignatureOfAddress.model_construct(signature=index.to_bytes(64, "big"), slot=slot, err=None)
        for index, slot in enumerate(slots)
    ]
    return listed[::-1]


def test_places_begin_anew_in_each_slot():
    unread = number(_listed([5, 5, 5, 6, 8, 8]), _cursor())
    assert [(each.slot, each.position) for each in unread] == [(5, 0), (5, 1), (5, 2), (6, 0), (8, 0), (8, 1)]


def test_what_comes_in_the_slot_that_was_read_last_goes_on_counting_there():
    unread = number(_listed([5, 5, 6]), _cursor(5, 3, b"\x01" * 64))
    assert [(each.slot, each.position) for each in unread] == [(5, 4), (5, 5), (6, 0)]


def test_what_failed_has_its_place_too():
    listed = _listed([5, 5])
    listed[1] = SignatureOfAddress.model_construct(signature=bytes(64), slot=5, err={"InstructionError": []})
    assert [(each.failed, each.position) for each in number(listed, _cursor())] == [(True, 0), (False, 1)]


@given(st.lists(st.integers(1, 6), max_size=20).map(sorted), st.integers(0, 20))
def test_however_the_history_is_cut_every_transaction_has_the_same_place_and_later_ones_later_places(slots, cut):
    whole = number(_listed(slots), _cursor())
    places = [(each.slot, each.position) for each in whole]
    assert places == sorted(set(places))
    first = whole[:cut]
    if first:
        last = first[-1]
        rest = number(_listed(slots[cut:]), _cursor(last.slot, last.position, last.signature))
        assert [(each.slot, each.position) for each in rest] == places[cut:]
