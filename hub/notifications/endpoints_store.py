"""Where members want their notifications posted: the table of endpoints, one statement a function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    Uuid,
    func,
    select,
)

from hub.db import metadata
from hub.notifications.webhook_rules import Health

ACTIVE: Final = "active"
DISABLED: Final = "disabled"
"""States of an endpoint."""

_TIME = TIMESTAMP(timezone=True)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("endpoint_id", Uuid, nullable=False),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="webhook_endpoints_member_id_fk"), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("disabled_because", Text),
    Column("secret_generation", Integer, nullable=False),
    Column("previous_secret_until", _TIME),
    Column("failing_since", _TIME),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("rests_until", _TIME),
    Column("created_at", _TIME, nullable=False),
    PrimaryKeyConstraint("endpoint_id", name="webhook_endpoints_pk"),
    CheckConstraint("state IN ('active', 'disabled')", name="state"),
    CheckConstraint("disabled_because IN ('member', 'gone', 'failing')", name="disabled_because"),
    CheckConstraint("(state = 'disabled') = (disabled_because IS NOT NULL)", name="disabled"),
    Index("webhook_endpoints_member_id_idx", "member_id"),
)


@dataclass(frozen=True)
class Endpoint:
    """Where a member's notifications are posted, and how that goes."""

    endpoint_id: UUID
    member_id: UUID
    url: str
    description: str
    state: str
    disabled_because: str | None
    secret_generation: int
    previous_secret_until: datetime | None
    failing_since: datetime | None
    failures: int
    rests_until: datetime | None
    created_at: datetime

    @property
    def health(self) -> Health:
        """How it does, for the rules."""
        return Health(self.failing_since, self.failures, self.rests_until)


def insert_endpoint(connection: Connection, endpoint: Endpoint) -> None:
    """Write an endpoint."""
    connection.execute(webhook_endpoints.insert().values(**vars(endpoint)))


def list_endpoints(connection: Connection, member_id: UUID, limit: int) -> list[Endpoint]:
    """A member's endpoints, newest first."""
    query = (
        select(webhook_endpoints)
        .where(webhook_endpoints.c.member_id == member_id)
        .order_by(webhook_endpoints.c.created_at.desc(), webhook_endpoints.c.endpoint_id)
        .limit(limit)
    )
    return [_endpoint(row) for row in connection.execute(query)]


def list_active_endpoint_ids(connection: Connection, member_id: UUID) -> list[UUID]:
    """Where a member's notifications are to be posted now."""
    query = (
        select(webhook_endpoints.c.endpoint_id)
        .where(webhook_endpoints.c.member_id == member_id, webhook_endpoints.c.state == ACTIVE)
        .order_by(webhook_endpoints.c.endpoint_id)
    )
    return list(connection.execute(query).scalars())


def count_endpoints(connection: Connection, member_id: UUID) -> int:
    """How many endpoints a member has, disabled ones included."""
    query = select(func.count()).where(webhook_endpoints.c.member_id == member_id)
    return connection.execute(query).scalar_one()


def get_endpoint(connection: Connection, endpoint_id: UUID) -> Endpoint:
    """An endpoint that exists."""
    query = select(webhook_endpoints).where(webhook_endpoints.c.endpoint_id == endpoint_id)
    return _endpoint(connection.execute(query).one())


def get_endpoint_for_update(connection: Connection, endpoint_id: UUID) -> Endpoint:
    """An endpoint that exists, its row locked."""
    query = select(webhook_endpoints).where(webhook_endpoints.c.endpoint_id == endpoint_id)
    return _endpoint(connection.execute(query.with_for_update()).one())


def find_endpoint(connection: Connection, member_id: UUID, endpoint_id: UUID) -> Endpoint | None:
    """This endpoint, if it is the member's."""
    query = select(webhook_endpoints).where(
        webhook_endpoints.c.member_id == member_id, webhook_endpoints.c.endpoint_id == endpoint_id
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _endpoint(row)


def find_endpoint_for_update(connection: Connection, member_id: UUID, endpoint_id: UUID) -> Endpoint | None:
    """This endpoint, if it is the member's, its row locked."""
    query = select(webhook_endpoints).where(
        webhook_endpoints.c.member_id == member_id, webhook_endpoints.c.endpoint_id == endpoint_id
    )
    row = connection.execute(query.with_for_update()).one_or_none()
    return None if row is None else _endpoint(row)


def lock_endpoints_of_member(connection: Connection, member_id: UUID) -> None:
    """Let two requests of one member that add an endpoint take turns."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"webhook endpoints {member_id}"))))


def set_endpoint_state(connection: Connection, endpoint_id: UUID, state: str, disabled_because: str | None) -> bool:
    """Disable or enable; what is known of its health begins anew. Whether the state was another."""
    changed = connection.execute(
        webhook_endpoints.update()
        .where(webhook_endpoints.c.endpoint_id == endpoint_id, webhook_endpoints.c.state != state)
        .values(state=state, disabled_because=disabled_because, failing_since=None, failures=0, rests_until=None)
    )
    return changed.rowcount == 1


def set_secret(connection: Connection, endpoint_id: UUID, generation: int, previous_until: datetime) -> None:
    """Let another secret sign, and the one before it for a while too."""
    connection.execute(
        webhook_endpoints.update()
        .where(webhook_endpoints.c.endpoint_id == endpoint_id)
        .values(secret_generation=generation, previous_secret_until=previous_until)
    )


def set_health(connection: Connection, endpoint_id: UUID, health: Health) -> None:
    """Note how an active endpoint does."""
    connection.execute(
        webhook_endpoints.update()
        .where(webhook_endpoints.c.endpoint_id == endpoint_id, webhook_endpoints.c.state == ACTIVE)
        .values(**vars(health))
    )


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(**row._mapping)
