"""How the chain process's loops are paced, what they survive, and how they end together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hub import logs, metrics
from hub.db import is_database_away
from hub.errors import HubError

BACK_OFF_MAX_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
"""A loop that has not come to the end of its round by then is broken off: nothing it does minds that."""
TOLD_EVERY_FAILURES: Final = 10

log = logs.get_logger()

Once = Callable[[], Awaitable[object]]


async def run_loops(loops: Mapping[str, Callable[[], Awaitable[None]]], stop: asyncio.Event) -> None:
    """Run these until `stop` is set or one of them ends; then have all end, and raise what failed."""
    tasks = {asyncio.ensure_future(loop()): name for name, loop in loops.items()}
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        await stopped
        _, late = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for task in late:
            log.warning("chain_loop_broken_off", loop=tasks[task])
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task, name in tasks.items():
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("chain_loop_failed", loop=name, error=repr(fault))
            raise fault


async def repeat(
    name: str, pause_s: Callable[[], float], once: Once, stop: asyncio.Event, wake: asyncio.Event | None = None
) -> None:
    """Do this again and again until `stop`, a pause between, or sooner when `wake` is set.

    What passes by itself (the node or the database is away, or tells nonsense) makes it wait longer each time.
    """
    failures = 0
    while not stop.is_set():
        try:
            await once()
        except Exception as fault:
            if not isinstance(fault, HubError) and not is_database_away(fault):
                raise
            failures += 1
            metrics.CHAIN_LOOP_FAILURES.labels(name).inc()
            code = fault.code if isinstance(fault, HubError) else "database_away"
            reason = str(fault).strip().partition("\n")[0]
            if failures % TOLD_EVERY_FAILURES == 1:
                log.warning("chain_round_failed", loop=name, code=code, error=reason, failures=failures)
            await wait_for(stop, back_off_s(failures))
            continue
        if failures:
            log.info("chain_round_works_again", loop=name, failures=failures)
        failures = 0
        await _pause(stop, wake, pause_s())


def back_off_s(failures: int) -> float:
    """The pause after so many failures in a row: about 0.5, 1, 2, 4, … seconds, at most BACK_OFF_MAX_S."""
    return min(BACK_OFF_MAX_S, 0.5 * (1 << min(failures - 1, 16))) * random.uniform(0.75, 1.0)  # noqa: S311


async def wait_for(event: asyncio.Event, pause_s: float) -> bool:
    """Wait until the event is set, at most so long; whether it is."""
    try:
        await asyncio.wait_for(event.wait(), pause_s)
    except TimeoutError:
        return False
    return True


async def _pause(stop: asyncio.Event, wake: asyncio.Event | None, pause_s: float) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in (stop, wake) if each is not None]
    try:
        await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
