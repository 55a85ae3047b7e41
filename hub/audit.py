"""The audit log: who did what to which thing, in the transaction that did it. Append-only, by a database trigger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import TIMESTAMP, BigInteger, Column, Connection, Identity, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from hub.db import metadata

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
)


def append_audit(
    connection: Connection, at: datetime, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> None:
    """Write one entry in the caller's transaction: it exists exactly if what it tells of happened.

    `action` is `domain.verb` (`meter.suspend`), `subject` names the thing (`meter:m-17`); `detail` is JSON.
    """
    connection.execute(
        audit_log.insert().values(at=at, actor=actor, action=action, subject=subject, detail=dict(detail))
    )
