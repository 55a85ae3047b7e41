"""The tables of the audit log and of its chain, and one statement per function.

Each commit links its entries to the chain (migration 0005): an entry that is changed, removed, inserted or moved later
breaks every hash from there on. What that proves, and what not, is told in `docs/decisions/audit-chain.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    UniqueConstraint,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.db import metadata

DETAIL_LENGTH_MAX = 8_192
"""So that every line of an export has a length that its verifier can bound."""

audit_log = Table(
    "audit_log",
    metadata,
    Column("audit_id", BigInteger, Identity(always=True)),
    Column("at", TIMESTAMP(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    PrimaryKeyConstraint("audit_id", name="audit_log_pk"),
    Index("audit_log_at_idx", "at"),
    Index("audit_log_actor_idx", "actor"),
    Index("audit_log_subject_idx", "subject"),
)

audit_chain = Table(
    "audit_chain",
    metadata,
    Column("position", BigInteger, autoincrement=False),
    Column("audit_id", BigInteger, ForeignKey("audit_log.audit_id", name="audit_chain_audit_id_fk"), nullable=False),
    Column("entry", Text, nullable=False),
    Column("entry_hash", LargeBinary, nullable=False),
    Column("chain_hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("position", name="audit_chain_pk"),
    UniqueConstraint("audit_id", name="audit_chain_audit_id_key"),
)
"""Written by triggers alone. `entry` is the text whose UTF-8 bytes are hashed."""


def append_audit(
    connection: Connection, at: datetime, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> None:
    """Write one entry in the caller's transaction: it exists exactly if what it tells of happened.

    `action` is `domain.verb` (`meter.suspend`), `subject` names the thing (`meter:m-17`); `detail` is JSON. The chain
    takes it in at the commit, under a lock that every audited commit takes as its last.
    """
    assert len(json.dumps(detail)) <= DETAIL_LENGTH_MAX, f"{action}: an act is told in fewer words"
    connection.execute(
        audit_log.insert().values(at=at, actor=actor, action=action, subject=subject, detail=dict(detail))
    )


@dataclass(frozen=True)
class Link:
    """An entry in its place: `entry` is JSON as it was hashed."""

    position: int
    entry: str
    entry_hash: bytes
    chain_hash: bytes


@dataclass(frozen=True)
class Head:
    """How far the chain goes: whoever keeps this elsewhere can tell later whether anything before it has changed."""

    position: int
    chain_hash: bytes


NO_ENTRIES = Head(0, bytes(32))


@dataclass(frozen=True)
class Filters:
    """Which entries; None means any. `since` is inclusive, `until` is not."""

    actor: str | None = None
    subject: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def list_newest(connection: Connection, filters: Filters, before: int, limit: int) -> list[Link]:
    """Entries with positions below `before`, the newest first.

    An actor is found whatever key it acted with, and an action by its domain too (`meter` finds `meter.suspend`).
    """
    query = _links().where(audit_chain.c.position < before)
    if filters.actor is not None:
        query = query.where(_is_or_begins(audit_log.c.actor, filters.actor, " "))
    if filters.action is not None:
        query = query.where(_is_or_begins(audit_log.c.action, filters.action, "."))
    if filters.subject is not None:
        query = query.where(audit_log.c.subject == filters.subject)
    if filters.since is not None:
        query = query.where(audit_log.c.at >= filters.since)
    if filters.until is not None:
        query = query.where(audit_log.c.at < filters.until)
    query = query.join_from(audit_chain, audit_log).order_by(audit_chain.c.position.desc()).limit(limit)
    return [Link(*row) for row in connection.execute(query)]


def list_links(connection: Connection, first: int, last: int, limit: int) -> list[Link]:
    """The chain from one position to another, inclusive, in its order."""
    query = _links().where(audit_chain.c.position.between(first, last)).order_by(audit_chain.c.position).limit(limit)
    return [Link(*row) for row in connection.execute(query)]


def get_head(connection: Connection) -> Head:
    """The last link; NO_ENTRIES if there is none."""
    query = select(audit_chain.c.position, audit_chain.c.chain_hash)
    row = connection.execute(query.order_by(audit_chain.c.position.desc()).limit(1)).one_or_none()
    return NO_ENTRIES if row is None else Head(*row)


def count_entries(connection: Connection) -> int:
    """How many entries there are; as many as the chain has links, or somebody went behind the triggers."""
    return connection.execute(select(func.count()).select_from(audit_log)).scalar_one()


def _links() -> Select[int, str, bytes, bytes]:
    return select(audit_chain.c.position, audit_chain.c.entry, audit_chain.c.entry_hash, audit_chain.c.chain_hash)


def _is_or_begins(column: Column[str], value: str, separator: str) -> ColumnElement[bool]:
    return or_(column == value, column.startswith(value + separator, autoescape=True))
