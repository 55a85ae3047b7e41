"""Telling what a transaction did. The numbers are given at its very end, so the rest of it holds no topic up.

`publish` may be called by any use case, any number of times, anywhere in a transaction: what it is given is written
just before the commit, all topics in the order of their names. So domains that publish need not know of each other to
be safe from a deadlock, and a topic that everybody shares is locked for as long as a commit takes, no longer. A
transaction that is rolled back tells nothing. (A savepoint that is rolled back would not take back what was published
in it; the hub uses none.)

What it costs: three statements, some 20 µs an update, and that PostgreSQL lets transactions which notify commit one
after another, each through its own flush to the disk (docs/decisions/live-updates.md).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Connection, event

from hub.live import store
from hub.live.store import StoredUpdate
from hub.live.topics import TOPICS, public_name

DATA_BYTES_MAX: Final = 8_192
"""An update says what happened and where to read the rest."""
TOPICS_PER_NOTIFICATION: Final = 100
"""PostgreSQL takes less than 8,000 bytes; a topic and its sequence are at most 70."""

_KIND = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Update:
    """What happened, `domain.fact`, to those who follow `topic` (a stored one, as `topics.py` makes them).

    `data` is JSON, with instants as datetimes and amounts as strings.
    """

    topic: str
    kind: str
    data: Mapping[str, object]


class _New(msgspec.Struct, frozen=True, gc=False):
    topic: str
    at: datetime
    kind: str
    data: str


_unwritten: WeakKeyDictionary[Connection, list[_New]] = WeakKeyDictionary()


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


def _new(update: Update, now: datetime) -> _New:
    data = _encode(update.data)
    assert public_name(update.topic) in TOPICS, update.topic
    assert _KIND.fullmatch(update.kind), update.kind
    assert len(data) <= DATA_BYTES_MAX, f"{update.kind}: {len(data)} bytes"
    return _New(update.topic, now, update.kind, data.decode())


def _write(connection: Connection) -> None:
    unwritten = _unwritten[connection]
    if not unwritten:
        return
    counts = Counter(each.topic for each in unwritten)
    heads = store.advance_topics(connection, counts)
    next_ = {topic: heads[topic] - count + 1 for topic, count in counts.items()}
    numbered = []
    for each in unwritten:
        numbered.append(StoredUpdate(each.topic, next_[each.topic], each.at, each.kind, each.data))
        next_[each.topic] += 1
    store.copy_updates(connection, numbered)
    store.notify(connection, _notifications(heads))
    unwritten.clear()


def _notifications(heads: Mapping[str, int]) -> list[str]:
    """How far each topic has come, in as few messages as they fit into."""
    flushed_unix_s, told = time.time(), [f"{topic} {sequence}" for topic, sequence in heads.items()]
    starts = range(0, len(told), TOPICS_PER_NOTIFICATION)
    return [f"{flushed_unix_s:.6f} {','.join(told[start : start + TOPICS_PER_NOTIFICATION])}" for start in starts]


def _forget(connection: Connection) -> None:
    _unwritten[connection].clear()
