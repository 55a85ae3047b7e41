"""The journal: what the device must not forget, in one SQLite file.

Readings not yet sealed, seals not yet seen committed, and where counters and chain stand. A method that
returns has its effect on the disk: write-ahead log with synchronous=FULL, one fsync per commit (an append to
one file; a rollback journal would take two files and more syncs for the same promise). Several readings may
share a commit.

The file is locked for this process: two agents with one journal would fork its chain of seals.

Bounded: from `bytes_max` on no *new* readings are taken (`full`). Registers are cumulative, so the next
reading that is taken carries the energy of those that were not; the journal never drops a reading or a seal
to make room.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge.believing import Fall, Rebase, RegisterState
from edge.counters import CounterState
from edge.errors import JournalError
from edge.sealing import Chain, Sealed
from protocol.readings import Reading
from protocol.seal import NO_PREDECESSOR

SCHEMA_VERSION = 1
"""A later fact is one more row of `facts`: a journal of an older agent is continued as it is."""
LOCK_WAIT_S = 2.0
ROTATION_PENDING = "rotation_pending"
WAL_BYTES_MAX = 4 * 1024 * 1024
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE readings (
    time_unix_s INTEGER PRIMARY KEY, production_wh INTEGER NOT NULL, consumption_wh INTEGER NOT NULL,
    power_w INTEGER, voltage_dv INTEGER, frequency_mhz INTEGER, flags INTEGER NOT NULL
) STRICT;
CREATE TABLE seals (sequence INTEGER PRIMARY KEY, seal_hash BLOB NOT NULL, message BLOB) STRICT;
"""
# A seal whose commitment was seen loses its message, and its row once the contiguous sequence is beyond it.


@dataclass(frozen=True)
class Unsealed:
    """How many readings wait to be sealed, and the times of the first and the last."""

    count: int
    first_unix_s: int
    last_unix_s: int


@dataclass(frozen=True)
class Intervals:
    """What a command has set: seconds between readings and between seals."""

    reading_s: int
    seal_s: int


@dataclass(frozen=True)
class Exchange:
    """A register of a meter that a person exchanged, until the hub has taken its record. Registers in watt-hours."""

    register: str
    at_unix_s: int
    final_wh: int
    initial_wh: int
    old_serial: str
    new_serial: str


@dataclass(frozen=True)
class PendingRotation:
    """A rotation whose outcome is not known: what is, or will be, handed in to the hub."""

    message: bytes
    records: tuple[bytes, ...]


class Journal:
    """One open journal. Every method raises JournalError when the disk refuses."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        try:
            path.touch(mode=0o600)  # before SQLite makes it readable to others
        except OSError as error:
            raise JournalError("journal_unreadable", f"{path}: {error.strerror}") from None
        try:
            self._db = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
            self._prepare()
        except sqlite3.Error as error:
            locked = "locked" in str(error)
            code = "journal_in_use" if locked else "journal_unreadable"
            raise JournalError(code, f"{path}: {'another agent holds it' if locked else error}") from None
        self._page_bytes: int = self._db.execute("PRAGMA page_size").fetchone()[0]

    def _prepare(self) -> None:
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise JournalError("journal_version", f"{self._path} has version {version}, not {SCHEMA_VERSION}")

    def close(self) -> None:
        """Write everything into the main file and let go of it."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if "locked" in str(error):
                raise
            raise JournalError("journal_write", f"{self._path}: {error}") from None

    # ── size ────────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise JournalError("journal_read", f"{self._path}: {error}") from None

    def used_bytes(self) -> int:
        """Bytes in use, without the pages that are free to be used again."""
        pages: int = self._rows("PRAGMA page_count")[0][0]
        free: int = self._rows("PRAGMA freelist_count")[0][0]
        return (pages - free) * self._page_bytes

    def full(self) -> bool:
        """Whether new readings are to be left out for now."""
        return self.used_bytes() >= self._bytes_max

    # ── facts ───────────────────────────────────────────────────────────────────────────────────────────

    def _fact(self, name: str) -> object:
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else None

    def _put(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def enrol(self, message: bytes, counters: CounterState, chain: Chain) -> None:
        """Remember the enrolment (`statement ‖ signature`) and where everything starts: no readings yet.

        Raises JournalError `rotation_pending`: what was handed in begins where the present one does.
        """
        with self._transaction():
            self._refuse_while_rotating()
            self._db.execute("DELETE FROM readings")
            self._put("enrolment", message.hex())
            self._put("counters", asdict(counters))
            self._put("chain", asdict(chain))

    def find_enrolment(self) -> bytes | None:
        """The enrolment's `statement ‖ signature`, or None before it."""
        value = self._fact("enrolment")
        return bytes.fromhex(value) if isinstance(value, str) else None

    def get_counters(self) -> CounterState:
        """The counters after the last journaled reading. Raises JournalError `not_enrolled`."""
        value = self._fact("counters")
        if not isinstance(value, dict):
            raise JournalError("not_enrolled", "run `commonwatt edge enrol` first")
        registers = {name: _register(state) for name, state in value.pop("registers").items()}
        return CounterState(registers=registers, **value)

    def get_chain(self) -> Chain:
        """Where the chain of seals stands. Raises JournalError `not_enrolled`."""
        value = self._fact("chain")
        if not isinstance(value, dict):
            raise JournalError("not_enrolled", "run `commonwatt edge enrol` first")
        return Chain(**value)

    def get_command_counter(self) -> int:
        """The counter of the last command that was followed; 0 before the first."""
        value = self._fact("command_counter")
        return value if isinstance(value, int) else 0

    def accept_command(self, counter: int, intervals: Intervals | None) -> None:
        """Never follow a command up to this counter again; keep the intervals that it set, if it did."""
        with self._transaction():
            self._put("command_counter", counter)
            if intervals is not None:
                self._put("intervals", asdict(intervals))

    def find_intervals(self) -> Intervals | None:
        """The intervals set by command; they outlive a restart and precede the configuration's."""
        value = self._fact("intervals")
        return Intervals(**value) if isinstance(value, dict) else None

    def hub_was_ahead(self) -> bool:
        """Whether the hub has shown seals that this journal never made, and has not taken it back."""
        return self._fact("hub_is_ahead") is True

    def set_hub_ahead(self, ahead: bool) -> None:
        """Remember it: a restart must not be a way to fork the chain."""
        with self._transaction():
            self._put("hub_is_ahead", ahead)

    # ── readings ────────────────────────────────────────────────────────────────────────────────────────

    def append_readings(self, readings: Iterable[Reading], counters: CounterState) -> None:
        """Add readings (or none), later than all before, and the counters that they leave: one commit, one fsync."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        r.time_unix_s,
                        r.production_wh,
                        r.consumption_wh,
                        r.power_w,
                        r.voltage_dv,
                        r.frequency_mhz,
                        r.flags,
                    )
                    for r in readings
                ),
            )
            self._put("counters", asdict(counters))

    def find_unsealed(self) -> Unsealed | None:
        """The extent of the readings that wait to be sealed; None if there are none."""
        row = self._rows("SELECT count(*), min(time_unix_s), max(time_unix_s) FROM readings")[0]
        return Unsealed(*row) if row[0] else None

    def unsealed_readings(self, limit: int) -> list[Reading]:
        """The oldest readings that wait to be sealed."""
        rows = self._rows("SELECT * FROM readings ORDER BY time_unix_s LIMIT ?", (limit,))
        return [Reading(*row) for row in rows]

    def discard_readings_after(self, time_unix_s: int, counters: CounterState) -> int:
        """Drop unsealed readings later than now, taken by a clock that was ahead. Returns how many.

        Their energy stays in the counters, so the next reading carries it.
        """
        with self._transaction():
            cursor = self._db.execute("DELETE FROM readings WHERE time_unix_s > ?", (time_unix_s,))
            self._put("counters", asdict(counters))
            return cursor.rowcount

    # ── seals ───────────────────────────────────────────────────────────────────────────────────────────

    def append_seal(self, sealed: Sealed) -> None:
        """Exchange the readings of a seal for the seal, and move the chain: all or nothing.

        Raises JournalError `rotation_pending` while it is not known which key is the meter's.
        """
        chain = sealed.chain
        with self._transaction():
            self._refuse_while_rotating()
            self._db.execute("INSERT INTO seals VALUES (?, ?, ?)", (chain.sequence, sealed.seal_hash, sealed.message))
            self._db.execute("DELETE FROM readings WHERE time_unix_s <= ?", (chain.last_reading_unix_s,))
            self._put("chain", asdict(chain))

    def unconfirmed_sequences(self) -> list[int]:
        """The seals whose commitment has not been seen, ascending."""
        rows = self._rows("SELECT sequence FROM seals WHERE message IS NOT NULL ORDER BY sequence")
        return [row[0] for row in rows]

    def find_message(self, sequence: int) -> bytes | None:
        """A seal's message, or None once it was forgotten."""
        rows = self._rows("SELECT message FROM seals WHERE sequence = ?", (sequence,))
        return rows[0][0] if rows else None

    def find_seal_hash(self, sequence: int) -> bytes | None:
        """The hash of a seal at or beyond the contiguous sequence."""
        rows = self._rows("SELECT seal_hash FROM seals WHERE sequence = ?", (sequence,))
        return rows[0][0] if rows else None

    def get_confirmed_sequence(self) -> int:
        """The contiguous sequence of the last receipt that was believed; 0 before the first."""
        value = self._fact("confirmed_sequence")
        return value if isinstance(value, int) else 0

    def forget_seals(self, contiguous_sequence: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Forget the messages that a receipt covers, keeping the hashes that later receipts may name."""
        with self._transaction():
            self._put("confirmed_sequence", contiguous_sequence)
            self._db.execute("DELETE FROM seals WHERE sequence < ?", (contiguous_sequence,))
            covered = [(contiguous_sequence, contiguous_sequence), *ranges]
            self._db.executemany(
                "UPDATE seals SET message = NULL WHERE sequence BETWEEN ? AND ? AND message IS NOT NULL",
                covered,
            )

    # ── the life of the key ─────────────────────────────────────────────────────────────────────────────

    def find_rotation(self) -> PendingRotation | None:
        """The rotation whose outcome is not known."""
        value = self._fact("rotation")
        if not isinstance(value, dict):
            return None
        return PendingRotation(bytes.fromhex(value["message"]), tuple(map(bytes.fromhex, value["records"])))

    def begin_rotation(self, rotation: PendingRotation) -> None:
        """Remember a rotation before anybody hears of it. From now on nothing is sealed until its outcome is known.

        Raises JournalError `rotation_pending` or `rotation_backlog`: the hub must have the last seal, its base.
        """
        with self._transaction():
            self._refuse_while_rotating()
            if backlog := self._rows("SELECT count(*) FROM seals WHERE message IS NOT NULL")[0][0]:
                raise JournalError("rotation_backlog", f"{backlog} seals have no receipt: let the agent run until then")
            records = [record.hex() for record in rotation.records]
            self._put("rotation", {"message": rotation.message.hex(), "records": records})

    def finish_rotation(self, enrolment: bytes) -> None:
        """The hub has the new key: its epoch begins where the last seal ended. Unsealed readings stay for it."""
        with self._transaction():
            chain = self.get_chain()
            self._put("enrolment", enrolment.hex())
            self._put("chain", asdict(next_epoch(chain)))
            self._db.execute("DELETE FROM seals")
            self._db.execute(
                "DELETE FROM facts WHERE name IN ('rotation', 'exchanges', 'confirmed_sequence', 'hub_is_ahead')"
            )

    def discard_rotation(self) -> None:
        """The hub refused it: the old key seals on. What is to be recorded of exchanged meters waits for the next."""
        with self._transaction():
            self._db.execute("DELETE FROM facts WHERE name = 'rotation'")

    def exchanges(self) -> list[Exchange]:
        """The exchanged registers that the hub has not been told of."""
        value = self._fact("exchanges")
        return [Exchange(**entry) for entry in value] if isinstance(value, list) else []

    def append_exchanges(self, exchanges: Iterable[Exchange], counters: CounterState) -> None:
        """Registers that go on from another meter, and the counters that this leaves: all or nothing."""
        with self._transaction():
            self._refuse_while_rotating()
            self._put("exchanges", [asdict(exchange) for exchange in [*self.exchanges(), *exchanges]])
            self._put("counters", asdict(counters))

    def _refuse_while_rotating(self) -> None:
        if self._fact("rotation") is not None:
            raise JournalError(ROTATION_PENDING, "the outcome of a rotation is not known: `commonwatt edge rotate`")


def next_epoch(chain: Chain) -> Chain:
    """The chain of the next key: numbered from 1 again, netting on from where the last seal left it."""
    return replace(chain, key_epoch=chain.key_epoch + 1, sequence=0, last_seal_hash=NO_PREDECESSOR.hex())


def _register(state: dict[str, Any]) -> RegisterState:
    rebase, fall = state.pop("rebase", None), state.pop("fall", None)
    return RegisterState(**state, rebase=rebase and Rebase(**rebase), fall=fall and Fall(**fall))
