"""Idempotency-Key: a request repeated under its key is answered again, not performed again.

The answer is written in the business transaction, so either both exist or neither. A refusal is not kept: nothing
happened, and the repeat is judged afresh. Secrets are not kept either: the caller completes the stored answer with them
each time it is given (see `complete` of `answer_once`), which it can, because secrets of ours are derived.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    TIMESTAMP,
    Column,
    Connection,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    select,
)

from hub.db import metadata
from hub.errors import IdempotencyKeyInFlight, IdempotencyKeyMissing, IdempotencyKeyReused

KEY_LENGTH_MAX = 255
KEY_PATTERN = re.compile(rf"[\x21-\x7e]{{1,{KEY_LENGTH_MAX}}}")
KEPT_FOR = timedelta(days=30)
"""A repeat after this long is a new request."""

Answer = Mapping[str, object]

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("response_status", Integer, nullable=False),
    Column("response_body", LargeBinary, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("scope", "key", name="idempotency_keys_pk"),
)


@dataclass(frozen=True)
class Answered:
    """A response: `body` is the JSON object, `replayed` says that nothing was performed this time."""

    status: int
    body: Answer
    replayed: bool


def check_key(key: str | None) -> str:
    """The header's value: 1 to 255 visible ASCII characters. Raises IdempotencyKeyMissing."""
    if key is None or not KEY_PATTERN.fullmatch(key):
        raise IdempotencyKeyMissing("send Idempotency-Key: 1 to 255 visible ASCII characters")
    return key


def hash_of_request(path: str, query: str, body: object) -> bytes:
    """SHA-256 of what is asked: same meaning, same hash, whatever the order or spacing of the JSON."""
    canonical = json.dumps([path, query, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


def answer_once(
    connection: Connection,
    scope: str,
    key: str,
    request_hash: bytes,
    now: datetime,
    status: int,
    perform: Callable[[], Answer],
    complete: Callable[[Answer], Answer] = lambda stored: stored,
) -> Answered:
    """Perform and remember, or give the remembered answer. `scope` is method, route and actor.

    `complete` adds to the stored answer what must not be stored. Raises IdempotencyKeyInFlight while another
    transaction works under the key, IdempotencyKeyReused if the key came with another request.
    """
    _lock_or_refuse(connection, scope, key)
    stored = connection.execute(
        select(idempotency_keys).where(idempotency_keys.c.scope == scope, idempotency_keys.c.key == key)
    ).one_or_none()
    if stored is not None:
        if stored.request_hash != request_hash:
            raise IdempotencyKeyReused
        return Answered(stored.response_status, complete(json.loads(stored.response_body)), replayed=True)
    body = perform()
    connection.execute(
        idempotency_keys.insert().values(
            scope=scope,
            key=key,
            request_hash=request_hash,
            response_status=status,
            response_body=json.dumps(body).encode(),
            created_at=now,
        )
    )
    return Answered(status, complete(body), replayed=False)


def forget_old_keys(connection: Connection, now: datetime) -> int:
    """Delete the keys past KEPT_FOR; returns how many."""
    return connection.execute(idempotency_keys.delete().where(idempotency_keys.c.created_at < now - KEPT_FOR)).rowcount


def _lock_or_refuse(connection: Connection, scope: str, key: str) -> None:
    """One transaction at a time per key; PostgreSQL releases the lock after the commit is visible."""
    digest = hashlib.sha256(f"idempotency {scope}\n{key}".encode()).digest()
    lock_id = int.from_bytes(digest[:8], "big", signed=True)
    if not connection.execute(select(func.pg_try_advisory_xact_lock(lock_id))).scalar_one():
        raise IdempotencyKeyInFlight
