"""Reads the program's finalized transactions into the inbox, the oldest first, each once, none left out silently.

Polling is what carries it: it begins behind the last transaction that was read, so it does not matter for how long the
hub, the node or the way between them was away. The node's WebSocket only says that polling now would be worth while.

What was read and how far is one database transaction; so a crash at any line reads something twice at most, which the
inbox does not mind. If a node has forgotten what the hub has not read, that is a hole: it is counted, operators are
told, what the node still has is read, and the accounts themselves are compared (`reconcile.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from solders.pubkey import Pubkey
from sqlalchemy import Engine

from hub import logs, metrics
from hub.chain import inbox_store
from hub.chain.events import Printed, read_logs
from hub.chain.history import Unread, read_history
from hub.chain.inbox import Alarm, Trouble, new_events, open_cursor
from hub.chain.inbox_store import Cursor, NewEvent
from hub.chain.rpc import BLOCKS_AHEAD_MAX, Landed, Node
from hub.db import transaction
from hub.errors import ChainAnswersNonsense, ChainDiffers, ChainLags, ChainRefuses

CHUNK_TRANSACTIONS_MAX: Final = 64
"""Read, and written together."""
REQUESTS_AT_ONCE_MAX: Final = 8
PATIENCE_S: Final = 60.0
"""For so long a node may not know what it must know, or fail to tell it, before that counts as a hole."""
BLOCK_TIME_MAX_UNIX_S: Final = 2**40

HISTORY_HOLE: Final = "chain_history_hole"
"""Kind of an alarm."""
PRUNED: Final = "pruned"
UNKNOWN: Final = "unknown"
UNREADABLE: Final = "unreadable"
"""Reasons of a hole: the node has forgotten; it does not know what it should; it does not tell a transaction's logs."""
INCOMPLETE_LOGS: Final = "incomplete_logs"

Clock = Callable[[], datetime]

log = logs.get_logger()


@dataclass(frozen=True)
class Deployment:
    """Which chain, and which program on it."""

    genesis_hash: bytes
    program_id: Pubkey


@dataclass(frozen=True)
class _Hole:
    reason: str
    after_slot: int
    before_slot: int | None


class Watcher:
    """One reader of one program's history. Several may run: whoever comes second finds it read, and goes on there."""

    def __init__(
        self,
        engine: Engine,
        node: Node,
        deployment: Deployment,
        alarm: Alarm,
        clock: Clock,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._engine = engine
        self._node = node
        self._deployment = deployment
        self._alarm = alarm
        self._clock = clock
        self._patience_s = patience_s
        self._puzzled_since_s: dict[bytes, float] = {}

    async def watch_once(self) -> int:
        """Read all that is finalized; returns how many transactions were read.

        Raises ChainAway, ChainRefuses, ChainAnswersNonsense, ChainLags: try again later, nothing is lost. Raises
        ChainDiffers: this is another chain, and nothing of it was read.
        """
        cursor = await asyncio.to_thread(self._open_cursor)
        finalized = await self._node.finalized()
        metrics.CHAIN_WATCHER_LAG_SLOTS.set(max(0, finalized.slot - cursor.seen_through_slot))
        if finalized.slot < cursor.slot:
            raise ChainLags(f"finalized is slot {finalized.slot}, and slot {cursor.slot} was read already")
        if cursor.signature is None:
            await self._check_genesis()
        history = await read_history(self._node, self._deployment.program_id, cursor)
        newest = history.unread[-1].slot if history.unread else 0
        if newest > finalized.slot + BLOCKS_AHEAD_MAX:
            raise ChainAnswersNonsense(f"a transaction of slot {newest}, and slot {finalized.slot} is finalized")
        hole = None if history.joined else await self._hole_behind(cursor, history.unread)
        read = 0
        unread = history.unread
        while unread or hole is not None:
            chunk, unread = unread[:CHUNK_TRANSACTIONS_MAX], unread[CHUNK_TRANSACTIONS_MAX:]
            moved = await self._read_chunk(cursor, chunk, hole)
            if moved is None:  # another watcher was quicker; the next round begins where it is
                return read
            cursor, hole, read = moved, None, read + len(chunk)
        if not history.complete:  # the rest is the next round's
            return read
        self._puzzled_since_s.clear()
        await asyncio.to_thread(self._mark_seen_through, finalized.slot)
        metrics.CHAIN_WATCHER_LAG_SLOTS.set(0)
        metrics.CHAIN_WATCHER_READ.set(self._clock().timestamp())
        return read

    async def _check_genesis(self) -> None:
        found = await self._node.genesis_hash()
        if found != self._deployment.genesis_hash:
            raise ChainDiffers(f"it began with {found.hex()}, the settings say {self._deployment.genesis_hash.hex()}")

    def _open_cursor(self) -> Cursor:
        """The cursor of this deployment. Raises ChainDiffers if the database belongs to another one."""
        with transaction(self._engine) as connection:
            return open_cursor(connection, self._deployment.genesis_hash, self._deployment.program_id)

    def _mark_seen_through(self, slot: int) -> None:
        with transaction(self._engine) as connection:
            inbox_store.mark_seen_through(connection, slot, self._clock())

    # --- what is not there -------------------------------------------------------------------------------------

    async def _hole_behind(self, cursor: Cursor, unread: Sequence[Unread]) -> _Hole:
        """Why the node does not know what was read last: the chain differs, it forgot, or it is only slow to tell.

        Raises ChainDiffers; ChainLags for as long as there is patience.
        """
        assert cursor.signature is not None
        await self._check_genesis()
        before_slot = unread[0].slot if unread else None
        if await self._node.first_available_block() > cursor.slot:
            return _Hole(PRUNED, cursor.slot, before_slot)
        if self._is_patient(cursor.signature):
            raise ChainLags(f"the node does not know the transaction of slot {cursor.slot} that was read last")
        return _Hole(UNKNOWN, cursor.slot, before_slot)

    def _is_patient(self, signature: bytes) -> bool:
        now_s = asyncio.get_running_loop().time()
        return now_s - self._puzzled_since_s.setdefault(signature, now_s) < self._patience_s

    # --- reading -----------------------------------------------------------------------------------------------

    async def _read_chunk(self, cursor: Cursor, chunk: Sequence[Unread], hole: _Hole | None) -> Cursor | None:
        """Read these and write what they told; the cursor behind them, or None if it was moved by another.

        Raises what kept it from reading one of them, after those before it were written: a node that answers so many
        requests and no more would otherwise be asked for the same ones for ever.
        """
        gate = asyncio.Semaphore(REQUESTS_AT_ONCE_MAX)
        readings = await asyncio.gather(*(self._read(each, gate) for each in chunk), return_exceptions=True)
        fault = next((reading for reading in readings if isinstance(reading, BaseException)), None)
        if fault is None:
            return await self._keep(cursor, chunk, readings, hole)
        if read := readings.index(fault):
            await self._keep(cursor, chunk[:read], readings[:read], hole)
        raise fault

    async def _keep(
        self,
        cursor: Cursor,
        chunk: Sequence[Unread],
        readings: Sequence[tuple[Landed | None, Printed] | _Hole | BaseException],
        hole: _Hole | None,
    ) -> Cursor | None:
        """Write what these transactions told."""
        events: list[NewEvent] = []
        unreadable: list[_Hole] = []
        incomplete = 0
        for each, reading in zip(chunk, readings, strict=True):
            assert not isinstance(reading, BaseException)
            if isinstance(reading, _Hole):
                unreadable.append(reading)
                continue
            landed, printed = reading
            incomplete += not printed.complete
            block_time = None if landed is None else landed.block_time_unix_s
            if block_time is not None and not 0 <= block_time < BLOCK_TIME_MAX_UNIX_S:
                block_time = None
            events += new_events(each.signature, each.slot, each.position, block_time, printed)
        if incomplete:
            log.warning("chain_logs_incomplete", transactions=incomplete)
        return await asyncio.to_thread(self._write_chunk, cursor, chunk, events, hole, unreadable, incomplete > 0)

    async def _read(self, each: Unread, gate: asyncio.Semaphore) -> tuple[Landed | None, Printed] | _Hole:
        """What a transaction printed. Raises ChainLags or ChainAnswersNonsense for as long as there is patience."""
        if each.failed:  # whatever it printed did not happen
            return None, Printed((), complete=True)
        try:
            async with gate:
                landed = _checked(each, await self._node.find_transaction(each.signature))
        except (ChainLags, ChainAnswersNonsense, ChainRefuses) as fault:
            if await self._node.first_available_block() > each.slot:
                return _Hole(PRUNED, each.slot - 1, each.slot + 1)
            if isinstance(fault, ChainRefuses) or self._is_patient(each.signature):  # who refuses may be overloaded
                raise
            log.warning("chain_transaction_unreadable", slot=each.slot, error=str(fault))
            return _Hole(UNREADABLE, each.slot - 1, each.slot + 1)
        printed = read_logs(landed.logs, self._deployment.program_id)
        # a node may be run without keeping logs: then it has none of a transaction that certainly had some
        return landed, Printed(printed.payloads, printed.complete and bool(landed.logs))

    def _write_chunk(
        self,
        cursor: Cursor,
        chunk: Sequence[Unread],
        events: Sequence[NewEvent],
        hole: _Hole | None,
        unreadable: Sequence[_Hole],
        incomplete: bool,
    ) -> Cursor | None:
        now = self._clock()
        holes = [*([] if hole is None else [hole]), *unreadable]
        with transaction(self._engine) as connection:
            if inbox_store.get_cursor_for_update(connection).signature != cursor.signature:
                return None
            new = inbox_store.insert_events(connection, events, now)
            for each in holes:
                inbox_store.ask_to_reconcile(connection, each.reason)
                self._alarm(connection, _trouble_of(each), now)
            if incomplete:
                inbox_store.ask_to_reconcile(connection, INCOMPLETE_LOGS)
            if not chunk:
                inbox_store.forget_last_read(connection)
            else:
                last, before = chunk[-1], chunk[-2].signature if len(chunk) > 1 else cursor.signature
                inbox_store.move_cursor(connection, last.slot, last.position, last.signature, None if hole else before)
            moved = inbox_store.get_cursor_for_update(connection)
        metrics.CHAIN_EVENTS_READ.inc(new)
        for each in holes:
            metrics.CHAIN_HISTORY_HOLES.labels(each.reason).inc()
            log.error(
                "chain_history_hole", reason=each.reason, after_slot=each.after_slot, before_slot=each.before_slot
            )
        return moved


def _checked(each: Unread, landed: Landed | None) -> Landed:
    """The transaction, if it is what the list says."""
    if landed is None:
        raise ChainLags(f"the node lists a transaction of slot {each.slot} that it does not know")
    if landed.slot != each.slot or landed.fault is not None:
        raise ChainAnswersNonsense(f"a transaction of slot {each.slot} is told in two ways")
    return landed


def _trouble_of(hole: _Hole) -> Trouble:
    why = {
        PRUNED: "The node has forgotten transactions that the hub had not read.",
        UNKNOWN: "The node does not know a transaction that the hub has read from it.",
        UNREADABLE: "The node lists a transaction and does not tell what it did.",
    }[hole.reason]
    detail = {"reason": hole.reason, "after_slot": hole.after_slot, "before_slot": hole.before_slot}
    return Trouble(HISTORY_HOLE, f"{why} What the accounts hold is compared instead.", detail)
