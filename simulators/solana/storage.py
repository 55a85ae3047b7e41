"""The ledger's file: one SQLite database, one transaction for each thing that happens.

What is committed survives SIGKILL at any moment, for the system has it. A power cut may take the newest
transactions, never a part of one: waiting for the disk each time would make every test wait for its neighbours.
"""

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulators.solana.slots import Anchor

FILE = "ledger.sqlite"
LOCK_FILE = "lock"
VERSION = 1
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE anchors (slot INTEGER PRIMARY KEY, unix_ms INTEGER NOT NULL, slot_ms INTEGER NOT NULL);
CREATE TABLE accounts (address BLOB PRIMARY KEY, account BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE versions (address BLOB, slot INTEGER, before BLOB, PRIMARY KEY (address, slot)) WITHOUT ROWID;
CREATE INDEX versions_slot ON versions (slot);
CREATE TABLE transactions (
    number INTEGER PRIMARY KEY, signature BLOB NOT NULL UNIQUE, message_hash BLOB NOT NULL UNIQUE,
    slot INTEGER NOT NULL, wire BLOB NOT NULL, record TEXT NOT NULL);
CREATE INDEX transactions_slot ON transactions (slot);
CREATE TABLE mentions (address BLOB, number INTEGER, PRIMARY KEY (address, number)) WITHOUT ROWID;
"""


class LedgerUnreadable(Exception):
    """The file is not a ledger of this version."""


class LedgerInUse(Exception):
    """Another process has this ledger."""


@dataclass(frozen=True)
class Landed:
    """A transaction that is in a block. `number` orders them all."""

    number: int
    signature: bytes
    slot: int
    wire: bytes
    record: dict[str, Any]
    """The `meta` of getTransaction, and nothing that depends on when it is asked for."""


@dataclass(frozen=True)
class Change:
    """An account before and after a transaction, in solders' encoding; None: there is none."""

    address: bytes
    before: bytes | None
    after: bytes | None


class Storage:
    """One writer, one thread."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = (directory / LOCK_FILE).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise LedgerInUse(f"{directory}: this ledger is in use by another process") from error
        self._db = sqlite3.connect(directory / FILE, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise LedgerUnreadable(f"{directory / FILE}: {error}") from error
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=wal")
        self._db.execute("PRAGMA synchronous=normal")
        with self.transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise LedgerUnreadable(f"a ledger of version {version}, not {VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and SIGKILL changes nothing afterwards."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def find_fact(self, name: str) -> Any:
        """A value of the ledger as a whole, or None."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put_fact(self, name: str, value: bytes | str | int) -> None:
        """Keep a value of the ledger as a whole."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def anchors(self) -> list[Anchor]:
        """In the order of their slots."""
        return [Anchor(*row) for row in self._db.execute("SELECT slot, unix_ms, slot_ms FROM anchors ORDER BY slot")]

    def add_anchor(self, anchor: Anchor) -> None:
        """Slots follow another clock from here."""
        self._db.execute(
            "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?)", (anchor.slot, anchor.unix_ms, anchor.slot_ms)
        )

    def accounts(self) -> Iterator[tuple[bytes, bytes]]:
        """All accounts as they are now."""
        yield from self._db.execute("SELECT address, account FROM accounts")

    def versions(self) -> Iterator[tuple[bytes, int, bytes | None]]:
        """What accounts were before the slots that changed them, oldest first."""
        yield from self._db.execute("SELECT address, slot, before FROM versions ORDER BY address, slot")

    def add_changes(self, slot: int, changes: Iterable[Change]) -> None:
        """Accounts change in a slot."""
        for change in changes:
            self._db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?)", (change.address, slot, change.before))
            if change.after is None:
                self._db.execute("DELETE FROM accounts WHERE address = ?", (change.address,))
            else:
                self._db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?)", (change.address, change.after))

    def forget_versions(self, up_to_slot: int) -> None:
        """Nobody will ask any more what accounts were before slots up to this one."""
        self._db.execute("DELETE FROM versions WHERE slot <= ?", (up_to_slot,))

    def add_landed(self, landed: Landed, message_hash: bytes, mentions: Iterable[bytes]) -> None:
        """A transaction is in a block."""
        self._db.execute(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?)",
            (landed.number, landed.signature, message_hash, landed.slot, landed.wire, json.dumps(landed.record)),
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO mentions VALUES (?, ?)", ((address, landed.number) for address in mentions)
        )

    def newest_number(self) -> int:
        """Of all transactions; 0 before the first. They are numbered without gaps."""
        return int(self._db.execute("SELECT coalesce(max(number), 0) FROM transactions").fetchone()[0])

    def count_up_to(self, slot: int) -> int:
        """How many transactions landed up to a slot."""
        row = self._db.execute(
            "SELECT number FROM transactions WHERE slot <= ? ORDER BY slot DESC, number DESC LIMIT 1", (slot,)
        ).fetchone()
        return int(row[0]) if row else 0

    def find_slot_of(self, signature: bytes, message_hash: bytes) -> int | None:
        """Where this transaction, or one that says the same by another signature, has landed."""
        row = self._db.execute(
            "SELECT slot FROM transactions WHERE signature = ? OR message_hash = ?", (signature, message_hash)
        ).fetchone()
        return row[0] if row else None

    def find_landed(self, signature: bytes) -> Landed | None:
        """A transaction by its first signature."""
        found = self._landed("WHERE signature = ?", (signature,))
        return found[0] if found else None

    def landed_in(self, slot: int) -> list[Landed]:
        """The transactions of a block, in their order."""
        return self._landed("WHERE slot = ? ORDER BY number", (slot,))

    def slots_with_transactions(self, after_slot: int, up_to_slot: int) -> list[int]:
        """Which slots of a range have any."""
        rows = self._db.execute(
            "SELECT DISTINCT slot FROM transactions WHERE slot > ? AND slot <= ? ORDER BY slot",
            (after_slot, up_to_slot),
        )
        return [row[0] for row in rows]

    def mentioning(
        self, address: bytes, slots: tuple[int, int], before: int | None, after: int | None, limit: int
    ) -> list[Landed]:
        """Transactions with this account in slots first to last, newest first; `before` and `after` are numbers."""
        conditions, values = ["slot BETWEEN ? AND ?"], [*slots]
        if before is not None:
            conditions.append("m.number < ?")
            values.append(before)
        if after is not None:
            conditions.append("m.number > ?")
            values.append(after)
        where = f"JOIN mentions m USING (number) WHERE m.address = ? AND {' AND '.join(conditions)}"
        return self._landed(f"{where} ORDER BY m.number DESC LIMIT ?", (address, *values, limit))

    def _landed(self, where: str, values: Sequence[Any]) -> list[Landed]:
        rows = self._db.execute(
            f"SELECT number, signature, slot, wire, record FROM transactions {where}",  # noqa: S608 - our own words
            values,
        )
        return [
            Landed(number, signature, slot, wire, json.loads(record)) for number, signature, slot, wire, record in rows
        ]
