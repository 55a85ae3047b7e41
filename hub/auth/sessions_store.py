"""Sessions: where members are signed in, with hashes of the refresh tokens and nothing that could be shown as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    select,
    text,
)

from hub.auth.members_store import ACTIVE, member_roles, members
from hub.auth.sessions_rules import Client, Session
from hub.db import metadata
from hub.permissions import Role

CHANNEL = "commonwatt_sessions"
"""Where PostgreSQL tells every API process whose rights have changed, session, API key or member, at the commit."""

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Uuid, nullable=False),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="sessions_member_id_fk"), nullable=False),
    Column("method", Text, nullable=False),
    Column("client_address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("family_hash", LargeBinary, nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    Column("previous_token_hash", LargeBinary),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("last_used_at", TIMESTAMP(timezone=True), nullable=False),
    Column("expires_at", TIMESTAMP(timezone=True), nullable=False),
    Column("ended_at", TIMESTAMP(timezone=True)),
    Column("ended_because", Text),
    PrimaryKeyConstraint("session_id", name="sessions_pk"),
    UniqueConstraint("family_hash", name="sessions_family_hash_key"),
    CheckConstraint("(ended_at IS NULL) = (ended_because IS NULL)", name="ended"),
    Index("sessions_member_id_idx", "member_id"),
)


@dataclass(frozen=True)
class Standing:
    """What a member is at this moment: whether it may act at all, and its type and roles."""

    active: bool
    roles: frozenset[Role]

    @classmethod
    def of(cls, row: Row[*tuple[Any, ...]]) -> Standing:
        """From the columns that `standing_columns` names."""
        return cls(row.state == ACTIVE, frozenset(Role(role) for role in (row.type, *row.roles)))


@dataclass(frozen=True)
class SignedIn:
    """A session that a token names, and its member, as they are at this moment."""

    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    standing: Standing

    def is_live(self, now: datetime) -> bool:
        """Whether the session was neither ended nor left to end by itself."""
        return self.ended_at is None and now < self.expires_at


def standing_columns() -> tuple[ColumnElement[object], ...]:
    """For a query that has `members` in it: what `Standing.of` reads."""
    given = select(member_roles.c.role).where(member_roles.c.member_id == members.c.member_id)
    return (members.c.state, members.c.type, func.array(given.scalar_subquery()).label("roles"))


def lock_member(connection: Connection, member_id: UUID) -> Standing | None:
    """The member, whose other sign-ins, suspension and endings of sessions wait until this transaction is over."""
    query = select(*standing_columns()).where(members.c.member_id == member_id)
    row = connection.execute(query.with_for_update(key_share=True, of=members)).one_or_none()
    return None if row is None else Standing.of(row)


def find_standing(connection: Connection, member_id: UUID) -> Standing | None:
    """The member as it is, without a lock."""
    row = connection.execute(select(*standing_columns()).where(members.c.member_id == member_id)).one_or_none()
    return None if row is None else Standing.of(row)


def insert_session(connection: Connection, session: Session) -> None:
    """Write a session."""
    values = {name: value for name, value in vars(session).items() if name != "client"}
    client = {"client_address": session.client.address, "user_agent": session.client.user_agent}
    connection.execute(sessions.insert().values(**values, **client))


def find_session_for_update(connection: Connection, family_hash: bytes) -> Session | None:
    """The session of a family of refresh tokens. Of two who ask at once the second waits for the first."""
    query = select(sessions).where(sessions.c.family_hash == family_hash).with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else _session(row)


def find_signed_in(connection: Connection, session_id: UUID, member_id: UUID) -> SignedIn | None:
    """This session of this member, whatever has become of both."""
    row = connection.execute(
        select(sessions.c.created_at, sessions.c.expires_at, sessions.c.ended_at, *standing_columns())
        .join(members, members.c.member_id == sessions.c.member_id)
        .where(sessions.c.session_id == session_id, sessions.c.member_id == member_id)
    ).one_or_none()
    return None if row is None else SignedIn(row.created_at, row.expires_at, row.ended_at, Standing.of(row))


def is_client_known(connection: Connection, member_id: UUID, client: Client) -> bool:
    """Whether this client is the last that used one of the member's sessions, be it live or not forgotten yet."""
    query = select(sessions.c.session_id).where(
        sessions.c.member_id == member_id,
        sessions.c.client_address == client.address,
        sessions.c.user_agent == client.user_agent,
    )
    return connection.execute(query.limit(1)).first() is not None


def list_live_sessions(connection: Connection, member_id: UUID, now: datetime) -> list[Session]:
    """Where the member is signed in, the session used last first."""
    rows = connection.execute(
        select(sessions)
        .where(sessions.c.member_id == member_id, sessions.c.ended_at.is_(None), sessions.c.expires_at > now)
        .order_by(sessions.c.last_used_at.desc(), sessions.c.session_id)
    )
    return [_session(row) for row in rows]


def update_session(connection: Connection, session_id: UUID, changes: Mapping[str, object]) -> None:
    """Write what a refresh changed."""
    connection.execute(sessions.update().where(sessions.c.session_id == session_id).values(**changes))


def set_ended(connection: Connection, session_ids: Iterable[UUID], because: str, now: datetime) -> list[UUID]:
    """End those of these sessions that are live; returns which those were."""
    ended = (
        sessions.update()
        .where(sessions.c.session_id.in_(list(session_ids)), sessions.c.ended_at.is_(None), sessions.c.expires_at > now)
        .values(ended_at=now, ended_because=because)
        .returning(sessions.c.session_id)
    )
    return sorted(connection.execute(ended).scalars())


def announce_ended(connection: Connection, ids: Iterable[str]) -> None:
    """Tell every API process, when this transaction commits, that these sessions, API keys or members have ended."""
    connection.execute(
        text("SELECT pg_notify(:channel, ended) FROM unnest(CAST(:ids AS text[])) AS ended"),
        {"channel": CHANNEL, "ids": list(ids)},
    )


def forget_sessions(connection: Connection, over_since: datetime) -> int:
    """Delete the sessions that were over by then; returns how many."""
    over = func.least(sessions.c.ended_at, sessions.c.expires_at) < over_since
    return connection.execute(sessions.delete().where(over)).rowcount


def _session(row: Row[tuple[object, ...]]) -> Session:
    values = dict(row._mapping)
    client = Client(values.pop("client_address"), values.pop("user_agent"))
    return Session(client=client, **values)
