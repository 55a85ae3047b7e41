"""The newest updates of the followed topics, in memory once per process; and where each subscription is in them.

Pure: no database, no socket, no clock. A subscription holds no updates of its own but a *place* in its topic's tail, so
a thousand subscriptions cost a thousand numbers, and a slow one costs no more than a fast one:

    table:  … 14 15 16 17 18 19 20 21 22
    tail:                  18 19 20 21 22      first 18, head 22
                                 ▲
    a subscription:              next 20

What has left the tail is read from the table, a page at a time (`ReadPage`). Who cannot go on without a gap is told so
(`Resync`): after too long an absence, or because a socket that was up to date takes its updates too slowly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

BEHIND_MAX: Final = 1_000
"""Updates that a subscription may have before it, once it was up to date. This is its buffer."""
RESUME_MAX: Final = 10_000
"""Updates that a subscription may have before it until it is up to date for the first time."""
FRAME_OVERHEAD_BYTES: Final = 200
"""What a frame weighs besides its bytes."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """An update as it goes to every socket."""

    sequence: int
    wire: bytes


class Tail:
    """The newest updates of one topic, without a gap, up to `head`; perhaps none."""

    def __init__(self, name: str, head: int) -> None:
        self.name = name
        self.head = head
        self._frames: deque[Frame] = deque()

    @property
    def first(self) -> int:
        """The sequence of the oldest frame here; that of the next update if there is none."""
        return self.head - len(self._frames) + 1

    def append(self, frame: Frame) -> None:
        """Add the update behind `head`."""
        assert frame.sequence == self.head + 1, f"{frame.sequence} behind {self.head}"
        self._frames.append(frame)
        self.head = frame.sequence

    def skip_to(self, head: int) -> None:
        """Begin anew, empty, at this head: what lies between was not read, or the table is another."""
        self._frames.clear()
        self.head = head

    def drop(self, frame: Frame) -> None:
        """Let go of the oldest frame, if it is this one."""
        if self._frames and self._frames[0] is frame:
            self._frames.popleft()

    def frames_from(self, sequence: int, count_max: int) -> list[Frame]:
        """The frames from this one on, which is here."""
        start = sequence - self.first
        stop = min(start + count_max, len(self._frames))
        return [self._frames[place] for place in range(start, stop)]


class Memory:
    """How much all tails of a process hold together: the oldest frames go first, whosever they are."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: deque[tuple[Tail, Frame]] = deque()

    def keep(self, tail: Tail, frame: Frame) -> None:
        """Append a frame to its tail."""
        tail.append(frame)
        self._kept.append((tail, frame))
        self._bytes += len(frame.wire) + FRAME_OVERHEAD_BYTES
        while self._bytes > self._bytes_max:
            old_tail, old = self._kept.popleft()
            old_tail.drop(old)
            self._bytes -= len(old.wire) + FRAME_OVERHEAD_BYTES


class ReadPage(msgspec.Struct, frozen=True):
    """The next updates must be read from the table, from this sequence on."""

    sequence: int


class Resync(msgspec.Struct, frozen=True):
    """There is a gap before the next update: the client reads the state anew and goes on behind this sequence."""

    sequence: int


@dataclass(eq=False, slots=True)
class Subscription:
    """A place in a topic: `next` is the sequence of the update that is sent next."""

    tail: Tail
    next: int
    up_to_date: bool = True
    lost: bool = False
    waits_for_page: bool = False
    _page: deque[Frame] = field(default_factory=deque)

    @classmethod
    def begin(cls, tail: Tail, after: int | None) -> Subscription:
        """Behind `after`, or with what comes from now on."""
        if after is None:
            return cls(tail, tail.head + 1)
        return cls(tail, after + 1, up_to_date=after == tail.head)

    def take(self, count_max: int) -> Sequence[Frame] | ReadPage | Resync:
        """What to do next for the client: send these frames, read a page, tell of a gap.

        Frames that were given are taken to be sent, in order. None: it is up to date, or the page is not there yet.
        """
        if self.waits_for_page:
            return ()
        if self._page:
            return self._advance([self._page.popleft() for _ in range(min(count_max, len(self._page)))])
        behind = self.tail.head - self.next + 1
        if self.lost or behind < 0 or behind > (BEHIND_MAX if self.up_to_date else RESUME_MAX):
            self.next = self.tail.head + 1
            self.up_to_date, self.lost = True, False
            return Resync(self.tail.head)
        if not behind:
            return ()
        if self.next < self.tail.first:
            self.waits_for_page = True
            return ReadPage(self.next)
        return self._advance(self.tail.frames_from(self.next, count_max))

    @property
    def has_more(self) -> bool:
        """Whether `take` would do something now."""
        return not self.waits_for_page and (bool(self._page) or self.lost or self.next != self.tail.head + 1)

    def give_page(self, page: Sequence[Frame]) -> None:
        """Take in the page that was asked for: what the table has from there on. Without the first there is a gap."""
        assert self.waits_for_page, "nobody asked"
        self.waits_for_page = False
        if page and page[0].sequence == self.next:
            self._page.extend(frame for frame in page if frame.sequence <= self.tail.head)  # the rest comes by the tail
        else:
            self.lost = True

    def _advance(self, frames: list[Frame]) -> list[Frame]:
        self.next += len(frames)
        self.up_to_date |= self.next > self.tail.head
        return frames
