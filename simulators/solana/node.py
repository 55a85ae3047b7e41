"""The node: the ledger in a thread of its own, its faults, and JSON-RPC for an event loop."""

import asyncio
import os
import sqlite3
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from solders.transaction import VersionedTransaction

from simulators.solana import errors, methods
from simulators.solana.errors import INTERNAL_ERROR, RpcError
from simulators.solana.facts import Fact
from simulators.solana.faults import Switches
from simulators.solana.ledger import BLOCKHASH_SLOTS, Ledger, Pace
from simulators.solana.view import View

TICK_S_MAX = 0.1
VERSION = "2.0"

Result = TypeVar("Result")


class ConnectionCut(Exception):
    """Instead of an answer the connection is cut."""


@dataclass(frozen=True)
class Configuration:
    """Where a node keeps its ledger, and how it is."""

    directory: Path
    pace: Pace
    faucet: bool = True


def now_unix_ms() -> int:
    """The clock of this machine."""
    return time.time_ns() // 1_000_000


class Node:
    """Use it from one event loop. The ledger is touched in its own thread only."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Task[Any]] = set()
        self._listeners: list[Callable[[Fact], None]] = []
        self._untold: deque[tuple[int, Fact]] = deque()
        self.refusing = False

    async def start(self) -> None:
        """Open the ledger. Raises LedgerUnreadable, OSError, sqlite3.Error."""
        self._ledger, self._switches = await self._loop.run_in_executor(self._thread, self._open)
        self._ledger.listen(self._hear)

    async def stop(self) -> None:
        """Close the ledger; what had yet to be executed is lost."""
        for task in self._waiting:
            task.cancel()
        await self._loop.run_in_executor(self._thread, self._ledger.close)
        self._thread.shutdown()

    async def ask(self, function: Callable[[Ledger], Result]) -> Result:
        """Run a function in the ledger's thread, at this moment's slot, and return what it does."""

        def run() -> Result:
            try:
                self._ledger.advance()
                return function(self._ledger)
            except sqlite3.Error:  # memory and disk may differ now, and the disk is right
                traceback.print_exc()
                os._exit(1)

        return await self._loop.run_in_executor(self._thread, run)

    def listen(self, callback: Callable[[Fact], None]) -> Callable[[], None]:
        """Call this on the event loop with everything that happens, in its order; call what is returned to stop.

        A node that lags hears of it later.
        """
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def slot_at(self, commitment: str) -> int:
        """The newest slot of a commitment that this node knows: call it in `ask`."""
        return self._view().levels.slot_at(commitment)

    async def tick(self, cut_all: Callable[[], None]) -> None:
        """Let slots come and faults begin, until cancelled. `cut_all` ends all connections."""
        while True:
            self.refusing = await self.ask(self._begin_faults)
            if self.refusing:
                cut_all()
            await asyncio.sleep(min(TICK_S_MAX, self._configuration.pace.slot_ms / 1000))

    async def answer(self, request: object) -> Any:
        """Answer one JSON-RPC request; None: it wants none. Raises ConnectionCut."""
        if not isinstance(request, dict):
            return _refusal(None, errors.invalid_request())
        number = request.get("id")
        if isinstance(number, dict | list | bool | float) or not isinstance(request.get("method"), str):
            return _refusal(None, errors.invalid_request())
        if request.get("jsonrpc") != VERSION:
            return _refusal(number, RpcError(errors.INVALID_REQUEST, "Unsupported JSON-RPC protocol version"))
        if "id" not in request:
            return None
        try:
            result, delay_s = await self.ask(lambda _: self._call(request["method"], request.get("params")))
            answer = {"jsonrpc": VERSION, "result": result, "id": number}
        except RpcError as error:
            answer, delay_s = _refusal(number, error), (await self.ask(self._answer_delay_s))
        await asyncio.sleep(delay_s)
        return answer

    # ---- in the ledger's thread

    def _open(self) -> tuple[Ledger, Switches]:
        directory = self._configuration.directory
        ledger = Ledger(directory, self._configuration.pace, now_unix_ms)
        return ledger, Switches(directory, ledger.storage, now_unix_ms)

    def _begin_faults(self, ledger: Ledger) -> bool:
        if self._switches.expires_blockhashes():
            ledger.skip(BLOCKHASH_SLOTS + 1)
        self._tell()
        return self._switches.refuses()

    def _hear(self, fact: Fact) -> None:
        self._untold.append((self._ledger.slot, fact))
        self._tell()

    def _tell(self) -> None:
        """Let the event loop know what has happened, as far as the node knows it."""
        known = self._ledger.slot - self._switches.now().lag_slots
        while self._untold and self._untold[0][0] <= known:
            self._loop.call_soon_threadsafe(self._tell_listeners, self._untold.popleft()[1])

    def _view(self) -> View:
        faults = self._switches.now()
        lie = faults.genesis_hash or None
        faucet = self._configuration.faucet
        return View(self._ledger, self._land, faucet, faults.lag_slots, faults.history_slots, lie)

    def _answer_delay_s(self, _: Ledger) -> float:
        return self._switches.now().answer_delay_s

    def _call(self, method: str, params: Any) -> tuple[Any, float]:
        if self._begin_faults(self._ledger):
            raise ConnectionCut
        try:
            return methods.call(self._view(), method, params), self._switches.now().answer_delay_s
        except (RpcError, ConnectionCut, sqlite3.Error):
            raise
        except Exception as error:
            traceback.print_exc()
            raise RpcError(INTERNAL_ERROR, "Internal error") from error

    def _land(self, wire: bytes, transaction: VersionedTransaction) -> None:
        if self._switches.drops_transaction():
            return
        delay_s = self._switches.now().execution_delay_s
        if delay_s:
            self._loop.call_soon_threadsafe(self._land_later, delay_s, wire, transaction)
        else:
            self._ledger.execute(wire, transaction)
        if self._switches.loses_answer():
            raise ConnectionCut

    # ---- on the event loop

    def _tell_listeners(self, fact: Fact) -> None:
        for listener in list(self._listeners):
            listener(fact)

    def _land_later(self, delay_s: float, wire: bytes, transaction: VersionedTransaction) -> None:
        async def land() -> None:
            await asyncio.sleep(delay_s)
            await self.ask(lambda ledger: ledger.execute(wire, transaction))

        task = self._loop.create_task(land())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)


def _refusal(number: object, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": VERSION, "error": error.as_json(), "id": number}
