import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.connection import BACK_OFF_MAX_S, back_off_s
from edge.outbox import (
    BACKLOG_AWAITING_MAX,
    BACKLOG_AWAITING_MIN,
    LIVE_AWAITING,
    RECEIPT_QUICK_S,
    WINDOW,
    Outbox,
)
from edge.receipts import BELIEVED, HASH_DIFFERS, HUB_IS_AHEAD, OTHER_EPOCH, STALE, judge_receipt
from protocol.committed import Committed


def outbox_with(backlog: int) -> Outbox:
    outbox = Outbox(30, lambda: 0.5)
    outbox.load(range(1, backlog + 1))
    outbox.connected()
    return outbox


def receipt(contiguous: int, *ranges: tuple[int, int]) -> Committed:
    return Committed(1, contiguous, b"h" * 32 if contiguous else None, list(ranges))


def test_live_seals_go_before_the_backlog_and_each_in_order() -> None:
    outbox = outbox_with(backlog=100)
    outbox.add(101)
    outbox.add(102)
    assert outbox.take(0)[:4] == [101, 102, 1, 2]


def test_only_so_many_are_on_their_way_at_once() -> None:
    outbox = outbox_with(backlog=100)
    assert outbox.take(0) == list(range(1, WINDOW + 1))
    assert outbox.take(0) == []
    outbox.finished(3, 1)
    assert outbox.take(1) == [WINDOW + 1]


def test_an_acknowledgement_of_the_broker_is_not_enough_and_the_pause_doubles() -> None:
    outbox = outbox_with(backlog=1)
    now, pauses = 0.0, []
    for _ in range(8):
        assert outbox.take(now) == [1]
        outbox.finished(1, now)
        assert outbox.take(now) == []
        due = outbox.next_due_s()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [45, 90, 180, 360, 720, 1_440, 1_440, 1_440]
    assert len(outbox) == 1


def test_only_a_receipt_lets_a_seal_go() -> None:
    outbox = outbox_with(backlog=5)
    for sequence in outbox.take(0):
        outbox.finished(sequence, 0)
    assert outbox.forget(receipt(2, (4, 4))) == 3
    assert outbox.take(10_000) == [3, 5]


def test_a_new_connection_publishes_again_what_the_broker_may_have_lost() -> None:
    outbox = outbox_with(backlog=2)
    for sequence in outbox.take(0):
        outbox.finished(sequence, 0)
    outbox.add(3)
    assert outbox.take(1) == [3]
    outbox.connected()
    assert outbox.take(1) == [1, 2, 3]


def publish_all(outbox: Outbox, now: float) -> list[int]:
    """Until nothing more may go: the broker acknowledges at once, the hub says nothing."""
    published = []
    while taken := outbox.take(now):
        published += taken
        for sequence in taken:
            outbox.finished(sequence, now)
    return published


def test_while_the_hub_is_away_the_backlog_does_not_flood_the_broker_but_live_seals_go() -> None:
    outbox = outbox_with(backlog=1_000)
    assert publish_all(outbox, 0) == list(range(1, BACKLOG_AWAITING_MIN + 1))
    outbox.add(1_001)
    assert outbox.take(0) == [1_001]


def test_while_the_hub_is_away_live_seals_do_not_flood_the_broker_either_and_the_newest_go_first_afterwards() -> None:
    outbox = outbox_with(backlog=0)
    published = []
    for sequence in range(1, 1_001):
        outbox.add(sequence)
        published += publish_all(outbox, 0)
    assert published == list(range(1, LIVE_AWAITING + BACKLOG_AWAITING_MIN + 1))
    outbox.forget(receipt(published[-1]))
    newest = list(range(1_001 - LIVE_AWAITING, 1_001))
    assert publish_all(outbox, 1)[: LIVE_AWAITING + 1] == [*newest, published[-1] + 1]


def test_of_the_backlog_no_more_is_on_its_way_than_the_hub_takes_quickly() -> None:
    outbox, now, published, allowances = outbox_with(backlog=10_000), 0.0, 0, []
    for delay_s in (1, 1, 1, 1, 1, RECEIPT_QUICK_S + 1, 1, 1):
        allowances.append(len(publish_all(outbox, now)))
        published += allowances[-1]
        now += delay_s
        outbox.forget(receipt(published))
    assert allowances == [64, 128, 256, 512, BACKLOG_AWAITING_MAX, 512, 64, 128]
    silence = [len(publish_all(outbox, now + 100 * i)) for i in range(3)]
    assert silence == [256, 256, 256]  # no receipt: nothing new, and what was sent is sent again


def test_behind_any_backlog_a_live_seal_waits_for_no_more_than_what_was_sent_before_it() -> None:
    """The hub takes in what the broker has, in order, and says once a second what it has."""
    outbox, made = outbox_with(backlog=43_200), 43_200
    queue: list[int] = []
    stored: set[int] = set()
    waited, sealed_at = [], {}
    for second in range(400):
        made += 1
        outbox.add(made)
        sealed_at[made] = len(stored)
        queue += publish_all(outbox, second)
        stored |= set(queue[:300])
        del queue[:300]
        contiguous = next(sequence for sequence in range(1, made + 2) if sequence not in stored) - 1
        covered = sorted(sequence for sequence in stored if sequence > contiguous)
        ranges = [(covered[0], covered[-1])] if covered and covered[-1] - covered[0] < len(covered) else []
        for sequence in list(sealed_at):
            if sequence <= contiguous or (ranges and ranges[0][0] <= sequence <= ranges[0][1]):
                waited.append(len(stored) - sealed_at.pop(sequence))
        outbox.forget(Committed(1, contiguous, b"h" * 32 if contiguous else None, ranges))
        if len(outbox) < 100:
            break
    else:
        raise AssertionError(f"{len(outbox)} seals did not drain")
    assert len(waited) > 100
    assert max(waited) <= BACKLOG_AWAITING_MAX + LIVE_AWAITING + 300


def test_a_resend_publishes_the_held_seals_of_the_range_now() -> None:
    outbox = outbox_with(backlog=6)
    for sequence in outbox.take(0):
        outbox.finished(sequence, 0)
    outbox.forget(receipt(2))
    assert outbox.resend(1, 4, now_s=1) == 2
    assert outbox.take(1) == [3, 4]


def test_a_resend_brings_a_range_of_the_backlog_forward_and_floods_nobody() -> None:
    outbox = outbox_with(backlog=1_000)
    assert outbox.take(0) == list(range(1, 21))
    assert outbox.resend(500, 502, now_s=1) == 3
    for sequence in range(1, 21):
        outbox.finished(sequence, 1)
    assert outbox.take(1)[:4] == [500, 501, 502, 21]
    assert outbox.resend(1, 1_000, now_s=1) == 1_000
    assert len(publish_all(outbox, 1)) <= BACKLOG_AWAITING_MIN


events = st.lists(
    st.tuples(st.sampled_from(["add", "take", "finish", "receipt", "connect", "resend"]), st.integers(0, 30)),
    max_size=120,
)


@given(events)
def test_no_seal_is_lost_whatever_happens(history: list[tuple[str, int]]) -> None:
    outbox = Outbox(30, lambda: 0.0)
    held: set[int] = set()
    flying: list[int] = []
    made, now = 0, 0.0
    for event, number in history:
        now += number
        if event == "add":
            made += 1
            held.add(made)
            outbox.add(made)
        elif event == "take":
            taken = outbox.take(now)
            assert set(taken) <= held
            assert len(set(flying) | set(taken)) <= WINDOW + len(set(flying) - held)
            flying += taken
        elif event == "finish" and flying:
            outbox.finished(flying.pop(number % len(flying)), now)
        elif event == "receipt":
            covered = receipt(min(number, made))
            held -= {sequence for sequence in held if covered.covers(sequence)}
            outbox.forget(covered)
        elif event == "connect":
            flying.clear()
            outbox.connected()
        elif event == "resend":
            outbox.resend(1, max(1, number), now)
        assert len(outbox) == len(held)
    outbox.connected()
    assert publish_all(outbox, now) == sorted(held)[:BACKLOG_AWAITING_MIN]
    while held:
        outbox.forget(receipt(min(held)))
        held -= {min(held)}
        publish_all(outbox, now)
        assert len(outbox) == len(held)
    assert outbox.take(now + 1_000_000) == []


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_back_off_has_full_jitter_and_a_ceiling(failures: int, random: float) -> None:
    assert 0 <= back_off_s(failures, random) <= BACK_OFF_MAX_S


HASHES = {sequence: bytes([sequence]) * 32 for sequence in range(5, 11)}


@pytest.mark.parametrize(
    ("committed", "verdict"),
    [
        (Committed(2, 0, None, []), STALE),
        (Committed(2, 4, b"\4" * 32, []), STALE),
        (Committed(2, 5, HASHES[5], []), BELIEVED),
        (Committed(2, 7, HASHES[7], [(9, 10)]), BELIEVED),
        (Committed(2, 7, HASHES[8], []), HASH_DIFFERS),
        (Committed(2, 7, HASHES[7], [(9, 11)]), HUB_IS_AHEAD),
        (Committed(2, 11, b"\x0b" * 32, []), HUB_IS_AHEAD),
        (Committed(1, 5, HASHES[5], []), OTHER_EPOCH),
        (Committed(3, 0, None, []), HUB_IS_AHEAD),
    ],
)
def test_a_receipt_is_believed_only_if_it_names_our_own_seal(committed: Committed, verdict: str) -> None:
    judged = judge_receipt(committed, key_epoch=2, last_sequence=10, confirmed_sequence=5, seal_hash_of=HASHES.get)
    assert judged == verdict
