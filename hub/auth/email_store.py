"""How members sign in with an address: their passwords, as Argon2id hashes. Table, one statement a function."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import TIMESTAMP, Column, Connection, ForeignKey, PrimaryKeyConstraint, Table, Text, Uuid, select
from sqlalchemy.dialects.postgresql import insert

from hub.auth.members_store import EMAIL, identities
from hub.auth.sessions_store import sessions
from hub.db import metadata

passwords = Table(
    "passwords",
    metadata,
    Column("member_id", Uuid, ForeignKey("members.member_id", name="passwords_member_id_fk"), nullable=False),
    Column("hash", Text, nullable=False),
    Column("changed_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("member_id", name="passwords_pk"),
)


@dataclass(frozen=True)
class Account:
    """Who signs in with an e-mail address, and the hash of the password. Kept anew, it is the same password."""

    member_id: UUID
    hash: str = field(compare=False)
    changed_at: datetime


def find_account(connection: Connection, email: str) -> Account | None:
    """Who has this address and a password."""
    row = connection.execute(
        select(passwords.c.member_id, passwords.c.hash, passwords.c.changed_at)
        .join(identities, identities.c.member_id == passwords.c.member_id)
        .where(identities.c.kind == EMAIL, identities.c.value == email)
    ).one_or_none()
    return None if row is None else Account(**row._mapping)


def find_hash(connection: Connection, member_id: UUID) -> str | None:
    """The hash of the member's password, if it has one."""
    return connection.execute(select(passwords.c.hash).where(passwords.c.member_id == member_id)).scalar_one_or_none()


def put_hash(connection: Connection, member_id: UUID, password_hash: str, now: datetime) -> None:
    """Let this be the member's password, whether it had one or not."""
    values = {"hash": password_hash, "changed_at": now}
    connection.execute(
        insert(passwords)
        .values(member_id=member_id, **values)
        .on_conflict_do_update(constraint=passwords.primary_key, set_=values)
    )


def rewrite_hash(connection: Connection, member_id: UUID, password_hash: str) -> None:
    """Keep the same password in another way."""
    connection.execute(passwords.update().where(passwords.c.member_id == member_id).values(hash=password_hash))


def has_session(connection: Connection, email: str, session_id: UUID) -> bool:
    """Whether this is, or not long ago was, a session of whoever has this address."""
    found = (
        select(sessions.c.session_id)
        .join(identities, identities.c.member_id == sessions.c.member_id)
        .where(sessions.c.session_id == session_id, identities.c.kind == EMAIL, identities.c.value == email)
    )
    return connection.execute(found).one_or_none() is not None


def delete_email(connection: Connection, member_id: UUID) -> None:
    """Take the member's address away, for another one."""
    ours = (identities.c.member_id == member_id) & (identities.c.kind == EMAIL)
    connection.execute(identities.delete().where(ours))
