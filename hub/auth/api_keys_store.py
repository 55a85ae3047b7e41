"""The table of API keys. Of a secret only its hash is here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    Column,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    Uuid,
    func,
    or_,
    select,
)

from hub.auth.members_store import members
from hub.auth.sessions_store import Standing, standing_columns
from hub.db import metadata
from hub.permissions import Permission

_KNOWN = {permission.value for permission in Permission}

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, nullable=False),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="api_keys_member_id_fk"), nullable=False),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("expires_at", TIMESTAMP(timezone=True), nullable=False),
    Column("last_used_at", TIMESTAMP(timezone=True)),
    Column("revoked_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("key_id", name="api_keys_pk"),
    Index("api_keys_member_id_idx", "member_id"),
)


@dataclass(frozen=True)
class ApiKey:
    """A key of a member; `scopes` are names of permissions, `secret_hash` is SHA-256 of the whole key."""

    key_id: str
    member_id: UUID
    name: str
    secret_hash: bytes
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def permissions(self) -> frozenset[Permission]:
        """Its scopes, but for those that this version of the hub knows no more."""
        return frozenset(Permission(scope) for scope in self.scopes if scope in _KNOWN)

    def is_live(self, now: datetime) -> bool:
        """Whether it was neither revoked nor left to expire."""
        return self.revoked_at is None and now < self.expires_at


def insert_api_key(connection: Connection, key: ApiKey) -> None:
    """Write a key."""
    connection.execute(api_keys.insert().values(**vars(key)))


def find_api_key(connection: Connection, key_id: str) -> ApiKey | None:
    """The key with this id, also if it is revoked or expired."""
    row = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).one_or_none()
    return None if row is None else _key(row)


def find_key_and_standing(connection: Connection, key_id: str) -> tuple[ApiKey, Standing] | None:
    """The key with this id and its member, whatever has become of both."""
    row = connection.execute(
        select(api_keys, *standing_columns())
        .join(members, members.c.member_id == api_keys.c.member_id)
        .where(api_keys.c.key_id == key_id)
    ).one_or_none()
    return None if row is None else (_key(row), Standing.of(row))


def list_unrevoked_keys(connection: Connection, member_id: UUID) -> list[ApiKey]:
    """The member's keys that were not revoked, also those that have expired; the newest first."""
    query = select(api_keys).where(api_keys.c.member_id == member_id, api_keys.c.revoked_at.is_(None))
    rows = connection.execute(query.order_by(api_keys.c.created_at.desc(), api_keys.c.key_id))
    return [_key(row) for row in rows]


def set_revoked(connection: Connection, member_id: UUID, key_id: str, now: datetime) -> bool:
    """Revoke a key of this member; False if there is none that was not."""
    revoked = (
        api_keys.update()
        .where(api_keys.c.key_id == key_id, api_keys.c.member_id == member_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return connection.execute(revoked).rowcount == 1


def note_used_unless_locked(connection: Connection, key_id: str, now: datetime, unless_since: datetime) -> None:
    """Write down that a key is in use, unless that was done since then or somebody is just doing it."""
    due = select(api_keys.c.key_id).where(
        api_keys.c.key_id == key_id,
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= unless_since),
    )
    connection.execute(
        api_keys.update().where(api_keys.c.key_id.in_(due.with_for_update(skip_locked=True))).values(last_used_at=now)
    )


def forget_keys(connection: Connection, over_since: datetime) -> int:
    """Delete the keys that were revoked or had expired by then; returns how many."""
    over = func.least(api_keys.c.revoked_at, api_keys.c.expires_at) < over_since
    return connection.execute(api_keys.delete().where(over)).rowcount


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(**{name: row._mapping[name] for name in ApiKey.__dataclass_fields__})
