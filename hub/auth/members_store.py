"""Members, the roles they were given, and the identities by which they are known: tables, one statement a function."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
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
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from hub.db import metadata
from hub.errors import MemberNotFound
from hub.permissions import Role

SOLANA, DOGECOIN, EMAIL = "solana", "dogecoin", "email"
"""Kinds of identities."""

ACTIVE, SUSPENDED = "active", "suspended"

IDENTITY_TAKEN = "identities_pk"
"""Name of the constraint that decides a race for one wallet or address."""

_ADMINS_LOCK_ID = 0x0C0D_0E01

members = Table(
    "members",
    metadata,
    Column("member_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("phone", Text),
    Column("postal_address", Text),
    Column("state", Text, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("member_id", name="members_pk"),
    Index("members_created_at_idx", "created_at", "member_id"),
)

member_roles = Table(
    "member_roles",
    metadata,
    Column("member_id", Uuid, ForeignKey("members.member_id", name="member_roles_member_id_fk"), nullable=False),
    Column("role", Text, nullable=False),
    Column("given_by", Text, nullable=False),
    Column("given_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("member_id", "role", name="member_roles_pk"),
    Index("member_roles_role_idx", "role"),
)

identities = Table(
    "identities",
    metadata,
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("public_key", LargeBinary),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="identities_member_id_fk"), nullable=False),
    Column("linked_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("kind", "value", name=IDENTITY_TAKEN),
    Index("identities_member_id_idx", "member_id"),
)
Index(
    "identities_public_key_idx",
    identities.c.public_key,
    unique=True,
    postgresql_where=identities.c.public_key.is_not(None),
)
Index("identities_one_email_idx", identities.c.member_id, unique=True, postgresql_where=text("kind = 'email'"))


@dataclass(frozen=True)
class Member:
    """A member as registered. Its roles are its type and those that it was given."""

    member_id: UUID
    type: Role
    name: str
    phone: str | None
    postal_address: str | None
    state: str
    created_at: datetime


@dataclass(frozen=True)
class Filters:
    """Which members; None means any. `text` is a part of the name, whatever its case; `wallet` a public key."""

    state: str | None = None
    type: Role | None = None
    role: Role | None = None
    text: str | None = None
    wallet: bytes | None = None


@dataclass(frozen=True)
class Identity:
    """A wallet, Dogecoin address or e-mail address that a member has proven. Of a Solana wallet also the key."""

    kind: str
    value: str
    public_key: bytes | None
    linked_at: datetime


def insert_member(connection: Connection, member: Member) -> None:
    """Write a member."""
    connection.execute(members.insert().values(**vars(member)))


def find_member(connection: Connection, member_id: UUID) -> Member | None:
    """The member with this id."""
    row = connection.execute(select(members).where(members.c.member_id == member_id)).one_or_none()
    return None if row is None else _member(row)


def get_member(connection: Connection, member_id: UUID) -> Member:
    """The member with this id. Raises MemberNotFound."""
    member = find_member(connection, member_id)
    if member is None:
        raise MemberNotFound(str(member_id))
    return member


def list_members(connection: Connection, filters: Filters, after: Member | None, limit: int) -> list[Member]:
    """Members in the order in which they came, beginning behind `after`."""
    query = select(members).order_by(members.c.created_at, members.c.member_id).limit(limit)
    if after is not None:
        query = query.where(tuple_(members.c.created_at, members.c.member_id) > (after.created_at, after.member_id))
    if filters.state is not None:
        query = query.where(members.c.state == filters.state)
    if filters.type is not None:
        query = query.where(members.c.type == filters.type)
    if filters.text is not None:
        query = query.where(members.c.name.icontains(filters.text, autoescape=True))
    if filters.role is not None:
        having = select(member_roles.c.member_id).where(member_roles.c.role == filters.role)
        query = query.where(members.c.member_id.in_(having))
    if filters.wallet is not None:
        having = select(identities.c.member_id).where(identities.c.public_key == filters.wallet)
        query = query.where(members.c.member_id.in_(having))
    return [_member(row) for row in connection.execute(query)]


def get_member_for_update(connection: Connection, member_id: UUID) -> Member:
    """The member with this id, its row locked: nobody signs it in meanwhile. Raises MemberNotFound."""
    query = select(members).where(members.c.member_id == member_id).with_for_update(key_share=True)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise MemberNotFound(str(member_id))
    return _member(row)


def lock_admins(connection: Connection) -> None:
    """One transaction at a time may change who is an active admin: of two that would leave none, one is second."""
    connection.execute(select(func.pg_advisory_xact_lock(_ADMINS_LOCK_ID)))


def update_member(connection: Connection, member_id: UUID, changes: Mapping[str, object]) -> None:
    """Change some columns of a member."""
    connection.execute(members.update().where(members.c.member_id == member_id).values(**changes))


def map_given_roles(connection: Connection, member_ids: Collection[UUID]) -> dict[UUID, list[Role]]:
    """The roles that these members were given, besides their types; in the order of their names."""
    query = select(member_roles.c.member_id, member_roles.c.role).where(member_roles.c.member_id.in_(member_ids))
    found: dict[UUID, list[Role]] = {member_id: [] for member_id in member_ids}
    for row in connection.execute(query.order_by(member_roles.c.role)):
        found[row.member_id].append(Role(row.role))
    return found


def list_given_roles(connection: Connection, member_id: UUID) -> frozenset[Role]:
    """The roles that the member was given, besides its type."""
    rows = connection.execute(select(member_roles.c.role).where(member_roles.c.member_id == member_id)).scalars()
    return frozenset(Role(role) for role in rows)


def list_active_members_with_role(connection: Connection, roles: Collection[Role]) -> list[UUID]:
    """The ids of active members who were given one of these roles."""
    query = (
        select(members.c.member_id)
        .distinct()
        .join(member_roles, member_roles.c.member_id == members.c.member_id)
        .where(member_roles.c.role.in_(list(roles)), members.c.state == ACTIVE)
        .order_by(members.c.member_id)
    )
    return list(connection.execute(query).scalars())


def insert_role(connection: Connection, member_id: UUID, role: Role, given_by: str, now: datetime) -> bool:
    """Give a role; False if the member had it."""
    values = {"member_id": member_id, "role": role, "given_by": given_by, "given_at": now}
    given = insert(member_roles).values(values).on_conflict_do_nothing().returning(member_roles.c.role)
    return connection.execute(given).one_or_none() is not None


def delete_role(connection: Connection, member_id: UUID, role: Role) -> bool:
    """Take a role; False if the member did not have it."""
    having = (member_roles.c.member_id == member_id) & (member_roles.c.role == role)
    return connection.execute(member_roles.delete().where(having)).rowcount == 1


def insert_identity(connection: Connection, member_id: UUID, identity: Identity) -> None:
    """Link an identity. Raises IntegrityError naming IDENTITY_TAKEN, or the index that allows one e-mail address."""
    connection.execute(identities.insert().values(member_id=member_id, **vars(identity)))


def list_identities(connection: Connection, member_id: UUID) -> list[Identity]:
    """What the member is known by, in the order in which it was linked."""
    query = select(identities).where(identities.c.member_id == member_id).order_by(identities.c.linked_at)
    return [Identity(row.kind, row.value, row.public_key, row.linked_at) for row in connection.execute(query)]


def find_member_id_by_identity(connection: Connection, kind: str, value: str) -> UUID | None:
    """Whose wallet or address this is."""
    query = select(identities.c.member_id).where(identities.c.kind == kind, identities.c.value == value)
    return connection.execute(query).scalar_one_or_none()


def map_wallets_to_members(connection: Connection, public_keys: Collection[bytes]) -> dict[bytes, UUID]:
    """The members of these Solana public keys; keys of nobody are left out."""
    if not public_keys:
        return {}
    query = select(identities.c.public_key, identities.c.member_id).where(identities.c.public_key.in_(public_keys))
    return {row.public_key: row.member_id for row in connection.execute(query)}


def _member(row: Row[tuple[object, ...]]) -> Member:
    return Member(**{**row._mapping, "type": Role(row.type)})
