"""The agent's clocks: the kernel's, which may not know the time yet, and the laboratory's, which is told it."""

import asyncio
import ctypes
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

TIME_ERROR = 5
"""adjtimex: the clock is not synchronised."""
STA_UNSYNC = 0x40
TIMEX_BYTES = 512
"""More than any kernel's struct timex."""
STATUS_OFFSET = 5 * ctypes.sizeof(ctypes.c_long)
"""modes (an int, padded), offset, freq, maxerror and esterror come before it."""
STEP_MIN_S = 2
"""A clock set by so much has been stepped. A leap second is less, and so is what a time source corrects gently."""


def awake_or_asleep_s() -> float:
    """A clock that nobody sets, and that goes on while the device is suspended: meters do not sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Instant:
    """One moment by both clocks: the time of day, which may be set, and the one that only passes."""

    unix_s: float
    monotonic_s: float


def step_s(before: Instant, now: Instant) -> int:
    """By how many seconds the clock was set between two instants, forward or (negative) back; 0 if it was not."""
    step = (now.unix_s - before.unix_s) - (now.monotonic_s - before.monotonic_s)
    return round(step) if abs(step) >= STEP_MIN_S else 0


class Clock(Protocol):
    """What time it is, and waiting for a time."""

    def instant(self) -> Instant:
        """Now, by both clocks."""

    def now_unix_s(self) -> int:
        """Whole seconds since 1970 UTC."""

    def synchronised(self) -> bool:
        """Whether that can be vouched for."""

    async def wait_until(self, time_unix_s: int) -> None:
        """Return at that instant, or at once if it has passed; earlier only if the clock is set back meanwhile."""


class KernelClock:
    """The device's own clock. `check` is "kernel" (ask adjtimex) or "trust" (somebody else keeps it right)."""

    def __init__(
        self,
        check: str,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = awake_or_asleep_s,
    ) -> None:
        self._check = check
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s

    def now_unix_s(self) -> int:
        """Whole seconds since 1970 UTC."""
        return math.floor(self._wall_s())

    def instant(self) -> Instant:
        """Now, by both clocks."""
        return Instant(self._wall_s(), self._monotonic_s())

    def synchronised(self) -> bool:
        """Whether the kernel says that a time source disciplines the clock."""
        return self._check == "trust" or kernel_clock_synchronised()

    async def wait_until(self, time_unix_s: int) -> None:
        """Sleep in short steps, and never longer than it looked at first, wherever the clock is stepped meanwhile."""
        end_s = self._monotonic_s() + time_unix_s - self._wall_s()
        while (left_s := min(time_unix_s - self._wall_s(), end_s - self._monotonic_s())) > 0:
            await asyncio.sleep(min(left_s, 1.0))


class LaboratoryClock:
    """A simulated home's clock: instead of waiting for a time, tell the simulator that it is that time."""

    def __init__(self, start_unix_s: int, tell: Callable[[int], Awaitable[None]]) -> None:
        self._now_unix_s = start_unix_s
        self._waited_s = 0
        self._tell = tell

    def now_unix_s(self) -> int:
        """The simulated time."""
        return self._now_unix_s

    def instant(self) -> Instant:
        """Now; what passes is what was waited for."""
        return Instant(self._now_unix_s, self._waited_s)

    def synchronised(self) -> bool:
        """Always: it is given."""
        return True

    async def wait_until(self, time_unix_s: int) -> None:
        """Make it that time."""
        await self._tell(time_unix_s)
        self._waited_s += max(0, time_unix_s - self._now_unix_s)
        self._now_unix_s = time_unix_s


def kernel_clock_synchronised() -> bool:
    """Ask adjtimex without changing anything. A kernel that does not answer cannot vouch for its clock."""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return False
    return timex_synchronised(state, timex.raw)


def timex_synchronised(state: int, timex: bytes) -> bool:
    """What adjtimex's answer and its struct timex say."""
    status = ctypes.c_int.from_buffer_copy(timex, STATUS_OFFSET).value
    return state not in (-1, TIME_ERROR) and not status & STA_UNSYNC
