"""Telling what a transaction did. The numbers are given at its very end, so the rest of it holds no topic up.

`publish` may be called by any use case, any number of times, anywhere in a transaction: what it is given is written by
one statement just before the commit, all topics in the order of their names. So domains that publish need not know of
each other to be safe from a deadlock, and a topic that everybody shares is locked for as long as a commit takes, no
longer. A transaction that is rolled back tells nothing. (A savepoint that is rolled back would not take back what was
published in it; the hub uses none.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Connection, event

from hub.live.store import NewUpdate, append_updates
from hub.live.topics import TOPICS, public_name

DATA_BYTES_MAX: Final = 8_192
"""An update says what happened and where to read the rest."""

_KIND = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}")
_unwritten: WeakKeyDictionary[Connection, list[NewUpdate]] = WeakKeyDictionary()
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Update:
    """What happened, `domain.fact`, to those who follow `topic` (a stored one, as `topics.py` makes them).

    `data` is JSON, with instants as datetimes and amounts as strings.
    """

    topic: str
    kind: str
    data: Mapping[str, object]


def publish(connection: Connection, updates: Iterable[Update], now: datetime) -> None:
    """Tell these updates if and when the caller's transaction commits, in this order within a topic.

    What the database raises, it raises at the commit.
    """
    new = [_new(update, now) for update in updates]
    if not new:
        return
    unwritten = _unwritten.get(connection)
    if unwritten is None:
        unwritten = _unwritten[connection] = []
        event.listen(connection, "commit", _write)
        event.listen(connection, "rollback", _forget)
    unwritten += new


def _new(update: Update, now: datetime) -> NewUpdate:
    data = _encode(update.data)
    assert public_name(update.topic) in TOPICS, update.topic
    assert _KIND.fullmatch(update.kind), update.kind
    assert len(data) <= DATA_BYTES_MAX, f"{update.kind}: {len(data)} bytes"
    return NewUpdate(update.topic, now, update.kind, data.decode())


def _write(connection: Connection) -> None:
    unwritten = _unwritten[connection]
    if unwritten:
        append_updates(connection, unwritten)
        unwritten.clear()


def _forget(connection: Connection) -> None:
    _unwritten[connection].clear()
