"""What is wrong with the cluster at this moment: a file that may be changed while it runs.

`faults.json` in its directory, an object with any of these keys; without the file nothing is wrong:

    answer_delay_s        seconds before every answer, after what was asked is done
    execution_delay_s     seconds between taking a transaction and executing it; SIGKILL in between loses it
    dropped_transactions  so many transactions are taken, their signatures returned, and never executed
    lost_answers          so many transactions are executed, and the connection cut instead of an answer
    expired_blockhashes   true: once, so many slots pass at one blow that no blockhash handed out before can land
    lag_slots             answer as a node that is so many slots behind, 500 at most
    history_slots         answer as a node that has only so many slots of history
    refused_s             for so many seconds every connection is cut, WebSockets too
    genesis_hash          say that this is the genesis hash
    duration_s            after so many seconds all of this is over

Counting, and time, begin anew whenever the file's content changes. What was counted is in the ledger's file before it
happens, so a SIGKILL in between never makes a fault happen more often than asked.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulators.solana.storage import Storage

FILE = "faults.json"
FACT = "faults"


class FaultsInvalid(ValueError):
    """The file does not describe faults."""


@dataclass(frozen=True)
class Faults:
    """What the file says."""

    answer_delay_s: float = 0.0
    execution_delay_s: float = 0.0
    dropped_transactions: int = 0
    lost_answers: int = 0
    expired_blockhashes: bool = False
    lag_slots: int = 0
    history_slots: int | None = None
    refused_s: float = 0.0
    genesis_hash: str = ""
    duration_s: float | None = None


NUMBER = (int, float)
MOST = {"lag_slots": 500}
"""Accounts are remembered a little longer than this."""
KINDS: dict[str, type | tuple[type, ...]] = {
    "answer_delay_s": NUMBER,
    "execution_delay_s": NUMBER,
    "dropped_transactions": int,
    "lost_answers": int,
    "expired_blockhashes": bool,
    "lag_slots": int,
    "history_slots": int,
    "refused_s": NUMBER,
    "genesis_hash": str,
    "duration_s": NUMBER,
}


def parse(text: str) -> Faults:
    """The faults that a file's content describes. Raises FaultsInvalid."""
    try:
        table: Any = json.loads(text)
    except ValueError as error:
        raise FaultsInvalid(str(error)) from error
    if not isinstance(table, dict):
        raise FaultsInvalid("not an object")
    unknown = set(table) - set(KINDS)
    if unknown:
        raise FaultsInvalid(f"no such fault: {', '.join(sorted(unknown))}")
    for name, value in table.items():
        kind = KINDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise FaultsInvalid(f"{name}: {value!r}")
        if isinstance(value, int | float) and not 0 <= value <= MOST.get(name, value):
            raise FaultsInvalid(f"{name}: {value!r}")
    return Faults(**table)


class Switches:
    """The faults in force, and how often each has happened. A file that cannot be read leaves them as they were."""

    def __init__(self, directory: Path, storage: Storage, now_unix_ms: Callable[[], int]) -> None:
        self._file = directory / FILE
        self._storage = storage
        self._now_unix_ms = now_unix_ms
        kept = json.loads(storage.find_fact(FACT) or '{"text": "", "since_unix_ms": 0, "happened": {}}')
        self._text: str = kept["text"]
        self._since_unix_ms: int = kept["since_unix_ms"]
        self._happened: Counter[str] = Counter(kept["happened"])
        self._faults = parse(self._text) if self._text else Faults()
        self._refused_text = ""

    def now(self) -> Faults:
        """The faults of this moment."""
        try:
            text = self._file.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            text = ""
        if text not in {self._text, self._refused_text}:
            self._take(text)
        elapsed_s = (self._now_unix_ms() - self._since_unix_ms) / 1000
        if self._faults.duration_s is not None and elapsed_s >= self._faults.duration_s:
            return Faults()
        return self._faults

    def refuses(self) -> bool:
        """Whether connections are cut at this moment."""
        refused_s = self.now().refused_s
        return (self._now_unix_ms() - self._since_unix_ms) / 1000 < refused_s

    def drops_transaction(self) -> bool:
        """Whether this transaction is to be forgotten; counts that it was."""
        return self._happens("dropped_transactions", self.now().dropped_transactions)

    def loses_answer(self) -> bool:
        """Whether the answer to this transaction is to be lost; counts that it was."""
        return self._happens("lost_answers", self.now().lost_answers)

    def expires_blockhashes(self) -> bool:
        """Whether slots are to pass now; counts that they did."""
        return self._happens("expired_blockhashes", int(self.now().expired_blockhashes))

    def _take(self, text: str) -> None:
        try:
            faults = parse(text) if text else Faults()
        except FaultsInvalid as error:
            print(f"{self._file}: {error}", file=sys.stderr, flush=True)
            self._refused_text = text
            return
        self._faults, self._text, self._since_unix_ms = faults, text, self._now_unix_ms()
        self._happened.clear()
        self._keep()

    def _happens(self, fault: str, times: int) -> bool:
        if self._happened[fault] >= times:
            return False
        self._happened[fault] += 1
        self._keep()
        return True

    def _keep(self) -> None:
        kept = {"text": self._text, "since_unix_ms": self._since_unix_ms, "happened": dict(self._happened)}
        with self._storage.transaction():
            self._storage.put_fact(FACT, json.dumps(kept))
