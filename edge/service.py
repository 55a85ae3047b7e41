"""Running the agent as a process: until it is stopped, or through a replayed stretch of time."""

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from edge.agent import Agent
from edge.bus_budget import check_buses
from edge.clock import KernelClock, LaboratoryClock
from edge.errors import ModbusError, ReplayError, SettingsError
from edge.home_assistant import HomeAssistant
from edge.home_reader import HomeReader
from edge.journal import Journal
from edge.notify import ALIVE, READY, STOPPING, notify, watchdog_pause_s
from edge.rotation import open_identity
from edge.settings import Settings
from edge.threads import UnawaitedThreads

FOLLOW_REAL_CLOCK = 0
COMMITMENT_CHECK_S = 0.05
CANCEL_AGAIN_S = 5.0
"""Longer than saying farewell takes."""

log = logging.getLogger(__name__)


async def run_agent(settings: Settings) -> None:
    """Run until SIGTERM, SIGINT or a restart command. Raises EdgeError if it cannot start.

    Stopping seals nothing early: what is journaled is continued by the next start.
    """
    check_buses(settings.buses, settings.sampling.interval_s)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    reader = HomeReader(settings.buses)
    try:
        identity = open_identity(settings, journal)
        clock = KernelClock(settings.sampling.clock_check)
        agent = Agent(settings, identity, journal, clock=clock, reader=reader, random=random.SystemRandom().random)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(UnawaitedThreads())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop.set)
        work = [
            asyncio.create_task(agent.sample_forever()),
            asyncio.create_task(agent.transport.run()),
            asyncio.create_task(_say_alive(agent)),
        ]
        stop = asyncio.create_task(agent.stop.wait())
        notify(READY)
        async with _home_assistant(settings, agent):
            await _first_of(stop, work)
        notify(STOPPING)
    finally:
        reader.close()
        journal.close()


@asynccontextmanager
async def _home_assistant(settings: Settings, agent: Agent) -> AsyncIterator[None]:
    """Meanwhile, tell the member's Home Assistant, if there is one. Its end is logged; metering goes on."""
    home = settings.home_assistant
    if home is None:
        yield
        return
    link = HomeAssistant(settings, home, agent.status, random.SystemRandom().random)
    agent.on_reading = link.tell
    telling = asyncio.create_task(link.run())
    telling.add_done_callback(_log_end)
    try:
        yield
    finally:
        await _end(telling)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("home_assistant_ended", exc_info=task.exception())


async def _first_of(stop: asyncio.Task[bool], work: list[asyncio.Task[None]]) -> None:
    """Wait for `stop` or for the first task to end, end all, and raise what one of them raised."""
    await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in work if task.done()]
    await _end(stop, *work)
    for task in ended:
        task.result()


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel until all have ended: what awaits `asyncio.wait_for` may miss the first time."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _say_alive(agent: Agent) -> None:
    pause_s = watchdog_pause_s()
    while pause_s is not None:
        if agent.came_round_lately():
            notify(ALIVE)
        else:
            log.error("sampling_stalled")
        await asyncio.sleep(pause_s)
    await asyncio.Event().wait()


async def replay(settings: Settings, from_unix_s: int, to_unix_s: int, timeout_s: float) -> dict[str, object]:
    """Read, seal and publish a stretch of a simulated home's time, readings from `from` to `to` inclusive.

    Returns the agent's last status once everything is seen committed. Raises ReplayError if a reading fails
    or the receipts do not come within `timeout_s`; repeating it continues where it ended.
    """
    unit = settings.laboratory_clock_unit
    if unit is None:
        raise SettingsError("settings_missing", "laboratory.clock_unit: only a simulated home can be replayed")
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    reader = HomeReader(settings.buses)
    try:
        identity = open_identity(settings, journal)

        async def tell(time_unix_s: int) -> None:
            await reader.set_laboratory_time(unit, time_unix_s)

        clock = LaboratoryClock(from_unix_s - 1, tell)
        agent = Agent(settings, identity, journal, clock=clock, reader=reader, random=random.SystemRandom().random)
        transport = asyncio.create_task(agent.transport.run())
        try:
            if agent.last_reading_unix_s >= from_unix_s:
                await clock.wait_until(agent.last_reading_unix_s)
            while (scheduled := agent.next_reading_time()) <= to_unix_s:
                await clock.wait_until(scheduled)
                if not await agent.sample_once(scheduled):
                    raise ReplayError("replay_reading_failed", f"at {scheduled}: {dict(agent.counts)}")
            while agent.seal_once(early=True):
                await clock.wait_until(clock.now_unix_s() + 1)
            if (unsealed := journal.find_unsealed()) is not None:
                raise ReplayError("replay_not_sealed", f"{unsealed.count} readings; problems: {sorted(agent.problems)}")
            await _committed(agent, transport, timeout_s)
            return agent.status()
        finally:
            await _end(transport)
            await release_laboratory(reader, unit)
    finally:
        reader.close()
        journal.close()


async def release_laboratory(reader: HomeReader, unit: int) -> None:
    """Let a simulated home follow the real clock again. A failure is logged: the outcome stands without it."""
    try:
        await reader.set_laboratory_time(unit, FOLLOW_REAL_CLOCK)
    except ModbusError as error:
        log.warning(error.code, extra={"why": error.detail})


async def _committed(agent: Agent, transport: asyncio.Task[None], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while len(agent.outbox):
                if transport.done():
                    transport.result()
                await asyncio.sleep(COMMITMENT_CHECK_S)
    except TimeoutError:
        why = agent.transport.last_problem or f"connected; problems: {sorted(agent.problems)}"
        raise ReplayError("replay_not_committed", f"{len(agent.outbox)} seals have no receipt; {why}") from None
