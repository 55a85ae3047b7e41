"""The agent's clocks: the kernel's, which may not know the time yet, and the laboratory's, which is told it."""

import asyncio
import ctypes
import math
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

TIME_ERROR = 5
"""adjtimex: the clock is not synchronised."""
STA_UNSYNC = 0x40
TIMEX_BYTES = 512
"""More than any kernel's struct timex."""
STATUS_OFFSET = 5 * ctypes.sizeof(ctypes.c_long)
"""modes (an int, padded), offset, freq, maxerror and esterror come before it."""


class Clock(Protocol):
    """What time it is, and waiting for a time."""

    def now_unix_s(self) -> int:
        """Whole seconds since 1970 UTC."""

    def synchronised(self) -> bool:
        """Whether that can be vouched for."""

    async def wait_until(self, time_unix_s: int) -> None:
        """Return at that instant, or at once if it has passed."""


class KernelClock:
    """The device's own clock. `check` is "kernel" (ask adjtimex) or "trust" (somebody else keeps it right)."""

    def __init__(self, check: str) -> None:
        self._check = check

    def now_unix_s(self) -> int:
        """Whole seconds since 1970 UTC."""
        return math.floor(time.time())

    def synchronised(self) -> bool:
        """Whether the kernel says that a time source disciplines the clock."""
        return self._check == "trust" or kernel_clock_synchronised()

    async def wait_until(self, time_unix_s: int) -> None:
        """Sleep in short steps: a clock that is stepped meanwhile must not leave us asleep."""
        while (left_s := time_unix_s - time.time()) > 0:
            await asyncio.sleep(min(left_s, 1.0))


class LaboratoryClock:
    """A simulated home's clock: instead of waiting for a time, tell the simulator that it is that time."""

    def __init__(self, start_unix_s: int, tell: Callable[[int], Awaitable[None]]) -> None:
        self._now_unix_s = start_unix_s
        self._tell = tell

    def now_unix_s(self) -> int:
        """The simulated time."""
        return self._now_unix_s

    def synchronised(self) -> bool:
        """Always: it is given."""
        return True

    async def wait_until(self, time_unix_s: int) -> None:
        """Make it that time."""
        await self._tell(time_unix_s)
        self._now_unix_s = time_unix_s


def kernel_clock_synchronised() -> bool:
    """Ask adjtimex without changing anything. A kernel that does not answer cannot vouch for its clock."""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return False
    if state in (-1, TIME_ERROR):
        return False
    status = ctypes.c_int.from_buffer(timex, STATUS_OFFSET).value
    return not status & STA_UNSYNC
