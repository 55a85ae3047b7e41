"""Whatever happens to memory, table and client: each update once and in order, or a word that some are missing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hub.live import tails
from hub.live.tails import BEHIND_MAX, RESUME_MAX, Frame, Memory, ReadPage, Resync, Subscription, Tail

PAGE = 20


def frame(sequence: int) -> Frame:
    return Frame(sequence, b"update %d" % sequence)


def filled(head: int, bytes_max: int = 1_000_000) -> tuple[Tail, Memory]:
    tail, memory = Tail("book", 0), Memory(bytes_max)
    for sequence in range(1, head + 1):
        memory.keep(tail, frame(sequence))
    return tail, memory


def sequences(taken: object) -> list[int]:
    assert isinstance(taken, (list, tuple)), taken
    return [each.sequence for each in taken]


class Table:
    """What PostgreSQL has of the topic: some of the newest updates, without a gap."""

    def __init__(self) -> None:
        self.head = 0
        self.oldest = 1

    def page(self, first: int) -> list[Frame]:
        start = max(first, self.oldest)
        return [frame(sequence) for sequence in range(start, min(start + PAGE, self.head + 1))]


class Following(RuleBasedStateMachine):
    """A client follows one topic through everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.tail = Tail("book", 0)
        self.memory = Memory(2_000)  # about nine frames
        self.expected = 1
        self.subscription: Subscription | None = None
        self.wants_page = False
        self.excuse = ""
        self.was_up_to_date = True

    @initialize(head=st.integers(0, 30))
    def begin(self, head: int) -> None:
        self.table.head = head
        self.tail.skip_to(head)
        self.expected = head + 1
        self.subscription = Subscription.begin(self.tail, None)

    @rule(count=st.integers(1, 12))
    def transactions_commit(self, count: int) -> None:
        self.table.head += count

    @rule()
    def burst_commits(self) -> None:
        self.table.head += BEHIND_MAX + 1

    @rule()
    def the_feed_reads(self) -> None:
        if self.table.head - self.tail.head > BEHIND_MAX:
            self.tail.skip_to(self.table.head)
            return
        first = self.tail.head + 1
        if first < self.table.oldest:
            self.tail.skip_to(self.table.oldest - 1)
        for sequence in range(self.tail.head + 1, self.table.head + 1):
            self.memory.keep(self.tail, frame(sequence))

    @rule(count=st.integers(0, 20))
    def old_updates_are_forgotten(self, count: int) -> None:
        self.table.oldest = min(self.table.oldest + count, self.table.head + 1)

    @precondition(lambda self: self.subscription is not None)
    @rule(room=st.integers(1, 9))
    def the_client_reads(self, room: int) -> None:
        subscription = self.subscription
        behind = self.tail.head + 1 - self.expected
        has_more = subscription.has_more
        taken = subscription.take(room)
        assert has_more == (taken != ()), "somebody asks too often, or too seldom"
        if self.wants_page:
            assert taken == ()
        elif isinstance(taken, ReadPage):
            assert taken.sequence == self.expected
            self.wants_page = True
        elif isinstance(taken, Resync):
            behind_max = BEHIND_MAX if self.was_up_to_date else RESUME_MAX
            assert self.excuse or behind > behind_max, "a gap without a reason"
            assert taken.sequence == self.tail.head
            self.expected, self.excuse, self.was_up_to_date = taken.sequence + 1, "", True
        else:
            assert len(taken) <= room
            assert sequences(taken) == list(range(self.expected, self.expected + len(taken)))
            assert taken or behind == 0, "nothing was sent, though there was something"
            self.expected += len(taken)
            self.was_up_to_date |= self.expected == self.tail.head + 1

    @precondition(lambda self: self.wants_page)
    @rule()
    def the_page_comes(self) -> None:
        self.wants_page = False
        page = self.table.page(self.expected)
        if self.expected < self.table.oldest:
            self.excuse = "forgotten"
        self.subscription.give_page(page)

    @precondition(lambda self: self.subscription is not None)
    @rule()
    def the_client_leaves(self) -> None:
        self.subscription, self.wants_page = None, False

    @precondition(lambda self: self.subscription is None)
    @rule(forgot=st.integers(0, 5), other_process=st.booleans())
    def the_client_comes_back(self, forgot: int, other_process: bool) -> None:
        if other_process:
            self.tail = Tail("book", self.table.head)
        after = max(0, self.expected - 1 - forgot)
        self.expected = after + 1
        self.was_up_to_date = after == self.tail.head
        self.excuse = "from the future" if after > self.tail.head else ""
        self.subscription = Subscription.begin(self.tail, after)

    @invariant()
    def the_memory_is_bounded(self) -> None:
        assert self.tail.head - self.tail.first + 1 <= 9

    def teardown(self) -> None:
        """In the end, when nothing more happens, the client has everything up to the head."""
        if self.subscription is None:
            return
        self.the_feed_reads()
        for _ in range(RESUME_MAX):
            if self.wants_page:
                self.the_page_comes()
            before = self.expected
            self.the_client_reads(9)
            if not self.wants_page and self.expected == before == self.table.head + 1:
                return
        raise AssertionError("it never came to the end")


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_subscription_without_a_past_begins_with_the_next_update():
    tail, memory = filled(5)
    subscription = Subscription.begin(tail, None)
    assert subscription.take(10) == ()
    memory.keep(tail, frame(6))
    assert sequences(subscription.take(10)) == [6]
    assert subscription.take(10) == ()


def test_one_that_resumes_gets_what_it_missed_from_memory():
    tail, _ = filled(9)
    subscription = Subscription.begin(tail, 5)
    assert sequences(subscription.take(3)) == [6, 7, 8]
    assert sequences(subscription.take(3)) == [9]
    assert subscription.take(3) == ()


def test_what_has_left_the_memory_is_read_from_the_table():
    tail, _ = filled(100, bytes_max=2_000)
    subscription = Subscription.begin(tail, 50)
    assert subscription.take(10) == ReadPage(51)
    subscription.give_page([frame(sequence) for sequence in range(51, 95)])
    taken = [sequence for _ in range(5) for sequence in sequences(subscription.take(10))]
    assert taken == list(range(51, 95))
    assert sequences(subscription.take(10)) == list(range(95, 101))


def test_one_that_was_up_to_date_and_falls_too_far_behind_is_told_of_the_gap():
    tail, memory = filled(5)
    subscription = Subscription.begin(tail, None)
    for sequence in range(6, 6 + BEHIND_MAX):
        memory.keep(tail, frame(sequence))
    assert sequences(subscription.take(1)) == [6]
    memory.keep(tail, frame(6 + BEHIND_MAX))
    memory.keep(tail, frame(7 + BEHIND_MAX))
    assert subscription.take(1) == Resync(7 + BEHIND_MAX)
    assert subscription.take(1) == ()


def test_one_that_resumes_may_be_further_behind_and_is_not_told_of_a_gap_while_it_catches_up():
    tail, _ = filled(RESUME_MAX + 5, bytes_max=10_000_000)
    assert Subscription.begin(tail, 4).take(1) == Resync(RESUME_MAX + 5)
    subscription = Subscription.begin(tail, 5)
    taken: list[int] = []
    while more := sequences(subscription.take(100)):
        taken += more
    assert taken == list(range(6, RESUME_MAX + 6))


def test_who_asks_for_a_future_that_never_was_is_told_so():
    tail, memory = filled(5)
    subscription = Subscription.begin(tail, 9)
    assert subscription.take(1) == Resync(5)
    memory.keep(tail, frame(6))
    assert sequences(subscription.take(1)) == [6]


def test_a_table_that_goes_back_in_time_is_a_gap_for_everybody():
    tail, _ = filled(5)
    subscription = Subscription.begin(tail, None)
    tail.skip_to(3)
    assert subscription.take(1) == Resync(3)


def test_a_page_that_begins_too_late_is_a_gap():
    tail, _ = filled(100, bytes_max=2_000)
    for page in ([], [frame(60)]):
        subscription = Subscription.begin(tail, 50)
        assert subscription.take(1) == ReadPage(51)
        subscription.give_page(page)
        assert subscription.take(1) == Resync(100)


def test_all_tails_share_one_memory_and_the_oldest_goes_first():
    memory = Memory(10 * (len("update 1") + tails.FRAME_OVERHEAD_BYTES))
    book, alerts = Tail("book", 0), Tail("alerts", 0)
    for sequence in range(1, 6):
        memory.keep(book, frame(sequence))
        memory.keep(alerts, frame(sequence))
    assert (book.first, alerts.first) == (1, 1)
    for sequence in range(6, 9):
        memory.keep(book, frame(sequence))
    assert (book.first, alerts.first) == (3, 2)
    alerts.skip_to(7)
    for sequence in range(9, 40):
        memory.keep(book, frame(sequence))
    assert book.head - book.first < 10
