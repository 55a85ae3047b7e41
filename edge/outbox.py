"""What to publish next, and what a receipt lets us forget. Decisions only: no network, no disk; time is an
argument.

Seals made during this connection ("live") go first, then those whose pause is over, then the backlog, oldest
first. At most WINDOW are on their way at once. Of the backlog no more is with the broker and without a receipt
than the hub takes within RECEIPT_QUICK_S: a seal made now waits behind that much and no more, however long the
outage was. That allowance begins at BACKLOG_AWAITING_MIN, doubles with each receipt that comes quickly, up to
BACKLOG_AWAITING_MAX, and starts again after a slow one. A few live seals more may wait (LIVE_AWAITING); beyond
them they join the backlog: while the hub is away, the broker's queue is not ours to fill. What stays without a
receipt is published again after a pause that doubles, with jitter. Times are monotonic seconds.

Nothing here looks at the whole backlog, except a new connection, once: 43,200 seals (30 days of live mode) drain in
time that grows with their number, not with its square.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable

from protocol.committed import Committed

WINDOW = 20
BACKLOG_AWAITING_MIN = 64
BACKLOG_AWAITING_MAX = 512
LIVE_AWAITING = 16
RECEIPT_QUICK_S = 3.0
"""The hub tells a meter once a second what it has: an answer within this found no queue worth the name."""
REPUBLISH_DOUBLINGS_MAX = 5


class Outbox:
    """The unconfirmed seals. `random` gives numbers in [0, 1); `republish_after_s` is the first pause."""

    def __init__(self, republish_after_s: float, random: Callable[[], float]) -> None:
        self._republish_after_s = republish_after_s
        self._random = random
        self._held: list[int] = []  # ascending
        self._live: deque[int] = deque()
        self._backlog: deque[int] = deque()
        self._pauses: list[tuple[float, int]] = []
        self._pause_ends: dict[int, float] = {}
        self._in_flight: set[int] = set()
        self._awaiting: dict[int, tuple[float, int]] = {}  # published during this connection: when first, tries
        self._live_awaiting: set[int] = set()
        self._backlog_max = BACKLOG_AWAITING_MIN
        self._answered_s: float | None = None  # when the newest seal of the last receipt was published

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, sequence: int) -> bool:
        index = bisect_left(self._held, sequence)
        return index < len(self._held) and self._held[index] == sequence

    def load(self, sequences: Iterable[int]) -> None:
        """Start from the journal's unconfirmed seals, ascending."""
        self._held.extend(sequences)
        self._backlog.extend(self._held)

    def add(self, sequence: int) -> None:
        """A seal was just journaled; its number is the highest."""
        self._held.append(sequence)
        self._live.append(sequence)
        while len(self._live) > LIVE_AWAITING:  # the hub is away: the newest are the ones worth hurrying
            self._backlog.append(self._live.popleft())

    def connected(self) -> None:
        """A new connection: what the broker acknowledged before may be lost, so everything is to be published again."""
        self._in_flight.clear()
        self._awaiting.clear()
        self._live_awaiting.clear()
        self._pauses.clear()
        self._pause_ends.clear()
        self._live.clear()
        self._backlog = deque(self._held)
        self._backlog_max = BACKLOG_AWAITING_MIN
        self._answered_s = None

    def take(self, now_s: float, window: int = WINDOW) -> list[int]:
        """The seals to publish now, in order. Each counts as on its way until `finished`."""
        self._adapt(now_s)
        taken: list[int] = []
        while len(self._in_flight) < window:
            if self._live and len(self._live_awaiting) < LIVE_AWAITING:
                sequence = self._live.popleft()
                if sequence in self:
                    self._live_awaiting.add(sequence)
            elif self._pauses and self._pauses[0][0] <= now_s:
                end_s, sequence = heapq.heappop(self._pauses)
                if self._pause_ends.get(sequence) != end_s:
                    continue
                del self._pause_ends[sequence]
            elif self._backlog and len(self._awaiting) - len(self._live_awaiting) < self._backlog_max:
                sequence = self._backlog.popleft()
                if sequence in self._awaiting:
                    continue
            else:
                break
            if sequence not in self._in_flight and sequence in self:
                self._in_flight.add(sequence)
                self._awaiting.setdefault(sequence, (now_s, 0))
                taken.append(sequence)
        return taken

    def _adapt(self, now_s: float) -> None:
        if self._answered_s is not None:
            quick = now_s - self._answered_s <= RECEIPT_QUICK_S
            self._backlog_max = min(2 * self._backlog_max, BACKLOG_AWAITING_MAX) if quick else BACKLOG_AWAITING_MIN
            self._answered_s = None

    def next_due_s(self, window: int = WINDOW) -> float | None:
        """When the next pause is over; None if none runs, or nothing more may be on its way."""
        while self._pauses and self._pause_ends.get(self._pauses[0][1]) != self._pauses[0][0]:
            heapq.heappop(self._pauses)  # of a seal that is forgotten, or paused anew
        return self._pauses[0][0] if self._pauses and len(self._in_flight) < window else None

    def finished(self, sequence: int, now_s: float) -> None:
        """The broker answered, or did not in time: without a receipt, publish again after a pause."""
        self._in_flight.discard(sequence)
        if sequence not in self._awaiting:
            return
        published_s, tries = self._awaiting[sequence]
        self._awaiting[sequence] = published_s, tries + 1
        if tries:
            self._backlog_max = BACKLOG_AWAITING_MIN
        pause_s = self._republish_after_s * 2 ** min(tries, REPUBLISH_DOUBLINGS_MAX)
        self._pause(sequence, now_s + pause_s * (1 + self._random()))

    def _pause(self, sequence: int, end_s: float) -> None:
        self._pause_ends[sequence] = end_s
        heapq.heappush(self._pauses, (end_s, sequence))

    def forget(self, receipt: Committed) -> int:
        """Drop what a believed receipt covers. Returns how many."""
        forgotten = 0
        for first, last in [(0, receipt.contiguous_sequence), *receipt.ranges]:
            begin, end = bisect_left(self._held, first), bisect_right(self._held, last)
            for sequence in self._held[begin:end]:
                self._pause_ends.pop(sequence, None)
                self._live_awaiting.discard(sequence)
                if (awaiting := self._awaiting.pop(sequence, None)) is not None:
                    self._answered_s = max(awaiting[0], self._answered_s or 0.0)
            del self._held[begin:end]
            forgotten += end - begin
        return forgotten

    def resend(self, first: int, last: int, now_s: float) -> int:
        """Publish the held seals of a range again now, those of the backlog before the rest of it. Returns how many
        are held."""
        held = self._held[bisect_left(self._held, first) : bisect_right(self._held, last)]
        live = set(self._live)
        waiting = []
        for sequence in held:
            if sequence in self._awaiting:
                self._pause(sequence, now_s)
            elif sequence not in live:
                waiting.append(sequence)
        self._backlog.extendleft(reversed(waiting))
        return len(held)
