"""What to publish next, and what a receipt lets us forget. Decisions only: no network, no disk; time is an
argument.

Seals made during this connection ("live") go first, then those whose pause is over, then the backlog, oldest
first. At most WINDOW are on their way at once, and no more backlog is begun while AWAITING_RECEIPT_MAX seals
are with the broker and without a receipt from the hub: while the hub is away, the broker's queue is not ours
to fill. What stays without a receipt is published again after a pause that doubles, with jitter. Times are
monotonic seconds.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable

from protocol.committed import Committed

WINDOW = 20
AWAITING_RECEIPT_MAX = 500
REPUBLISH_DOUBLINGS_MAX = 5


class Outbox:
    """The unconfirmed seals. `random` gives numbers in [0, 1); `republish_after_s` is the first pause."""

    def __init__(self, republish_after_s: float, random: Callable[[], float]) -> None:
        self._republish_after_s = republish_after_s
        self._random = random
        self._tries: dict[int, int] = {}
        self._live: deque[int] = deque()
        self._backlog: deque[int] = deque()
        self._pauses: list[tuple[float, int]] = []
        self._pause_ends: dict[int, float] = {}
        self._in_flight: set[int] = set()
        self._awaiting: set[int] = set()  # published during this connection, no receipt yet

    def __len__(self) -> int:
        return len(self._tries)

    def load(self, sequences: Iterable[int]) -> None:
        """Start from the journal's unconfirmed seals."""
        for sequence in sequences:
            self._tries[sequence] = 0
            self._backlog.append(sequence)

    def add(self, sequence: int) -> None:
        """A seal was just journaled."""
        self._tries[sequence] = 0
        self._live.append(sequence)

    def connected(self) -> None:
        """A new connection: what the broker acknowledged before may be lost, so everything is to be published again."""
        self._in_flight.clear()
        self._awaiting.clear()
        self._pauses.clear()
        self._pause_ends.clear()
        self._live.clear()
        self._backlog = deque(sorted(self._tries))
        self._tries = dict.fromkeys(self._backlog, 0)

    def take(self, now_s: float) -> list[int]:
        """The seals to publish now, in order. Each counts as on its way until `finished`."""
        taken: list[int] = []
        while len(self._in_flight) < WINDOW:
            if self._live:
                sequence = self._live.popleft()
            elif self._pauses and self._pauses[0][0] <= now_s:
                end_s, sequence = heapq.heappop(self._pauses)
                if self._pause_ends.get(sequence) != end_s:
                    continue
                del self._pause_ends[sequence]
            elif self._backlog and len(self._awaiting) < AWAITING_RECEIPT_MAX:
                sequence = self._backlog.popleft()
            else:
                break
            if sequence in self._tries and sequence not in self._in_flight:
                self._in_flight.add(sequence)
                self._awaiting.add(sequence)
                taken.append(sequence)
        return taken

    def next_due_s(self) -> float | None:
        """When the next pause is over; None if none runs, or nothing more may be on its way."""
        return self._pauses[0][0] if self._pauses and len(self._in_flight) < WINDOW else None

    def finished(self, sequence: int, now_s: float) -> None:
        """The broker answered, or did not in time: without a receipt, publish again after a pause."""
        self._in_flight.discard(sequence)
        if sequence not in self._tries:
            return
        doublings = min(self._tries[sequence], REPUBLISH_DOUBLINGS_MAX)
        self._tries[sequence] += 1
        self._pause(sequence, now_s + self._republish_after_s * 2**doublings * (1 + self._random()))

    def _pause(self, sequence: int, end_s: float) -> None:
        self._pause_ends[sequence] = end_s
        heapq.heappush(self._pauses, (end_s, sequence))

    def forget(self, receipt: Committed) -> int:
        """Drop what a believed receipt covers. Returns how many."""
        covered = [sequence for sequence in self._tries if receipt.covers(sequence)]
        for sequence in covered:
            del self._tries[sequence]
            self._awaiting.discard(sequence)
            self._pause_ends.pop(sequence, None)
        return len(covered)

    def resend(self, first: int, last: int, now_s: float) -> int:
        """Publish the held seals of a range again now. Returns how many are held."""
        held = [sequence for sequence in self._tries if first <= sequence <= last]
        for sequence in held:
            self._pause(sequence, now_s)
        return len(held)
