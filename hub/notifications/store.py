"""What members were told, and what they want to be told: the tables, one statement a function."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    Uuid,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from hub.db import metadata
from hub.notifications.kinds import Channel, Data

MAIL_NONE: Final = "none"
MAIL_DUE: Final = "due"
MAIL_SENDING: Final = "sending"
MAIL_SENT: Final = "sent"
MAIL_DROPPED: Final = "dropped"
"""What is to become, or became, of a notification by e-mail."""

notifications = Table(
    "notifications",
    metadata,
    Column("notification_id", BigInteger, Identity(always=True)),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="notifications_member_id_fk"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text),
    Column("data", JSONB, nullable=False),
    Column("times", Integer, nullable=False, server_default="1"),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("last_at", TIMESTAMP(timezone=True), nullable=False),
    Column("read_at", TIMESTAMP(timezone=True)),
    Column("mail", Text, nullable=False),
    Column("mailed_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("notification_id", name="notifications_pk"),
    CheckConstraint("mail IN ('none', 'due', 'sending', 'sent', 'dropped')", name="mail"),
    Index("notifications_key_idx", "member_id", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    Index("notifications_member_id_idx", "member_id", "notification_id"),
    Index("notifications_unread_idx", "member_id", "notification_id", postgresql_where=text("read_at IS NULL")),
    Index(
        "notifications_mail_due_idx",
        "member_id",
        "notification_id",
        postgresql_where=text("mail IN ('due', 'sending')"),
    ),
    Index("notifications_mailed_idx", "member_id", "mailed_at", postgresql_where=text("mailed_at IS NOT NULL")),
    Index("notifications_recent_idx", "member_id", "created_at"),
    Index("notifications_created_at_idx", "created_at"),
)

notification_preferences = Table(
    "notification_preferences",
    metadata,
    Column(
        "member_id",
        Uuid,
        ForeignKey("members.member_id", name="notification_preferences_member_id_fk"),
        nullable=False,
    ),
    Column("kind_group", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("changed_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("member_id", "kind_group", "channel", name="notification_preferences_pk"),
    CheckConstraint("channel IN ('email', 'webhook')", name="channel"),
)


@dataclass(frozen=True)
class Notification:
    """Something that a member was told. `times` counts what was told under the same key; `last_at` is the last."""

    notification_id: int
    kind: str
    data: dict[str, Any]
    times: int
    created_at: datetime
    last_at: datetime
    read_at: datetime | None


_SHOWN = [notifications.c[name] for name in Notification.__dataclass_fields__]


def insert_or_count(
    connection: Connection, member_id: UUID, kind: str, key: str | None, data: Data, mail: str, now: datetime
) -> tuple[Notification, bool]:
    """Write a notification, or count once more the one with this key; whether it is new."""
    statement = insert(notifications).values(
        member_id=member_id, kind=kind, key=key, data=dict(data), created_at=now, last_at=now, mail=mail
    )
    statement = statement.on_conflict_do_update(
        index_elements=[notifications.c.member_id, notifications.c.key],
        index_where=notifications.c.key.is_not(None),
        set_={"times": notifications.c.times + 1, "last_at": now},
    )
    row = connection.execute(statement.returning(*_SHOWN)).one()
    return _notification(row), row.times == 1


def count_since(connection: Connection, member_id: UUID, kinds: Collection[str], since: datetime, at_most: int) -> int:
    """How many notifications of these kinds a member got since then; no more than `at_most` are counted."""
    recent = (
        select(notifications.c.notification_id)
        .where(
            notifications.c.member_id == member_id,
            notifications.c.created_at > since,
            notifications.c.kind.in_(kinds),
        )
        .limit(at_most)
    )
    return connection.execute(select(func.count()).select_from(recent.subquery())).scalar_one()


def list_notifications(
    connection: Connection, member_id: UUID, before_id: int, limit: int, unread: bool
) -> list[Notification]:
    """A member's notifications, newest first, beginning before an id; `unread` leaves out the others."""
    query = select(*_SHOWN).where(notifications.c.member_id == member_id, notifications.c.notification_id < before_id)
    if unread:
        query = query.where(notifications.c.read_at.is_(None))
    rows = connection.execute(query.order_by(notifications.c.notification_id.desc()).limit(limit))
    return [_notification(row) for row in rows]


def count_unread(connection: Connection, member_id: UUID) -> int:
    """How many the member has not read."""
    query = select(func.count()).where(notifications.c.member_id == member_id, notifications.c.read_at.is_(None))
    return connection.execute(query).scalar_one()


def find_notification(connection: Connection, member_id: UUID, notification_id: int) -> Notification | None:
    """This notification, if it is the member's."""
    query = select(*_SHOWN).where(
        notifications.c.member_id == member_id, notifications.c.notification_id == notification_id
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _notification(row)


def lock_reading(connection: Connection, member_id: UUID) -> None:
    """Let two requests that mark notifications of one member take turns, so that each counts what the other did."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"notifications read {member_id}"))))


def mark_read(connection: Connection, member_id: UUID, first_id: int, last_id: int, now: datetime) -> int:
    """Note that the member read these of its notifications, both ends included; returns how many were unread."""
    marked = connection.execute(
        notifications.update()
        .where(
            notifications.c.member_id == member_id,
            notifications.c.notification_id.between(first_id, last_id),
            notifications.c.read_at.is_(None),
        )
        .values(read_at=now)
    )
    return marked.rowcount


def forget_notifications(connection: Connection, created_before: datetime) -> int:
    """Delete what was told before then, read or not; returns how many."""
    return connection.execute(notifications.delete().where(notifications.c.created_at < created_before)).rowcount


# --- by e-mail -------------------------------------------------------------------------------------------------


def list_mail_sending(connection: Connection, member_id: UUID) -> list[Notification]:
    """What a mail to this member holds that was begun, oldest first."""
    return _list_by_mail(connection, member_id, MAIL_SENDING)


def list_mail_due(connection: Connection, member_id: UUID) -> list[Notification]:
    """What is to be mailed to a member, oldest first."""
    return _list_by_mail(connection, member_id, MAIL_DUE)


def set_mail(
    connection: Connection,
    member_id: UUID,
    notification_ids: Collection[int],
    mail: str,
    mailed_at: datetime | None = None,
) -> None:
    """Note what becomes of these notifications by e-mail."""
    connection.execute(
        notifications.update()
        .where(notifications.c.member_id == member_id, notifications.c.notification_id.in_(notification_ids))
        .values(mail=mail, mailed_at=mailed_at)
    )


def list_mail_times(connection: Connection, member_id: UUID, since: datetime) -> list[datetime]:
    """When the member was sent a mail since then, earliest first."""
    query = (
        select(notifications.c.mailed_at)
        .distinct()
        .where(notifications.c.member_id == member_id, notifications.c.mailed_at > since)
        .order_by(notifications.c.mailed_at)
    )
    return list(connection.execute(query).scalars())


def _list_by_mail(connection: Connection, member_id: UUID, mail: str) -> list[Notification]:
    query = (
        select(*_SHOWN)
        .where(notifications.c.member_id == member_id, notifications.c.mail == mail)
        .order_by(notifications.c.notification_id)
    )
    return [_notification(row) for row in connection.execute(query)]


# --- preferences -----------------------------------------------------------------------------------------------


def list_preferences(connection: Connection, member_id: UUID) -> dict[tuple[str, Channel], bool]:
    """What the member has decided, by group and channel."""
    query = select(
        notification_preferences.c.kind_group, notification_preferences.c.channel, notification_preferences.c.enabled
    ).where(notification_preferences.c.member_id == member_id)
    return {(group, Channel(channel)): enabled for group, channel, enabled in connection.execute(query)}


def set_preference(
    connection: Connection, member_id: UUID, group: str, channel: Channel, enabled: bool, now: datetime
) -> None:
    """Remember what the member wants."""
    values = {"member_id": member_id, "kind_group": group, "channel": channel, "enabled": enabled, "changed_at": now}
    connection.execute(
        insert(notification_preferences)
        .values(values)
        .on_conflict_do_update(constraint="notification_preferences_pk", set_={"enabled": enabled, "changed_at": now})
    )


def _notification(row: Row[Any]) -> Notification:
    return Notification(**row._mapping)
