"""Use cases about members: make one, link what it is known by, and what other domains ask about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID, uuid4

from psycopg import errors as pg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from hub.audit import append_audit
from hub.auth import members_store as store
from hub.auth.members_store import EMAIL, SOLANA, Filters, Identity, Member
from hub.errors import IdentityTaken, MalformedInput
from hub.permissions import Role


def create_member(
    connection: Connection, member_type: Role, name: str, actor: str, now: datetime, member_id: UUID | None = None
) -> UUID:
    """Make an active member. `actor` is who did it, the member itself as a rule (`member:<id>`). Audited."""
    member_id = member_id or uuid4()
    store.insert_member(connection, Member(member_id, member_type, name, None, None, store.ACTIVE, now))
    append_audit(
        connection, now, actor or f"member:{member_id}", "member.create", f"member:{member_id}", {"type": member_type}
    )
    return member_id


def get_member(connection: Connection, member_id: UUID) -> Member:
    """The member with this id. Raises MemberNotFound."""
    return store.get_member(connection, member_id)


def list_members(
    connection: Connection, filters: Filters, after_member_id: UUID | None, limit: int
) -> tuple[list[Member], dict[UUID, list[Role]]]:
    """Members in the order in which they came, beginning behind one of them, and the roles that each was given.

    Raises MalformedInput if there is no member to begin behind.
    """
    after = None if after_member_id is None else store.find_member(connection, after_member_id)
    if after is None and after_member_id is not None:
        raise MalformedInput("cursor: not one that this list gave out")
    found = store.list_members(connection, filters, after, limit)
    return found, store.map_given_roles(connection, [each.member_id for each in found])


def list_identities(connection: Connection, member_id: UUID) -> list[Identity]:
    """What the member is known by, in the order in which it was linked."""
    return store.list_identities(connection, member_id)


def given_roles_of(connection: Connection, member_id: UUID) -> list[Role]:
    """The roles that the member was given, besides its type, by name."""
    return sorted(store.list_given_roles(connection, member_id))


def change_profile(
    connection: Connection, member_id: UUID, profile: Mapping[str, str | None], actor: str, now: datetime
) -> None:
    """Change name, phone and postal address. Audited is which, and not to what: the audit log forgets nothing.

    Raises MemberNotFound.
    """
    member = store.get_member_for_update(connection, member_id)
    changed = {name: value for name, value in profile.items() if value != getattr(member, name)}
    if changed:
        store.update_member(connection, member_id, changed)
        append_audit(connection, now, actor, "member.change", f"member:{member_id}", {"fields": sorted(changed)})


def roles_of(connection: Connection, member_id: UUID) -> frozenset[Role]:
    """Type and given roles. Raises MemberNotFound."""
    return store.list_given_roles(connection, member_id) | {store.get_member(connection, member_id).type}


def give_role(connection: Connection, member_id: UUID, role: Role, reason: str, actor: str, now: datetime) -> bool:
    """Give a role; False if the member had it. Audited."""
    given = store.insert_role(connection, member_id, role, actor, now)
    if given:
        detail = {"role": role, "reason": reason}
        append_audit(connection, now, actor, "member.give_role", f"member:{member_id}", detail)
    return given


def add_identity(
    connection: Connection, member_id: UUID, kind: str, value: str, public_key: bytes | None, actor: str, now: datetime
) -> None:
    """Link what the member has proven to be its own. Audited. Raises IdentityTaken."""
    try:
        store.insert_identity(connection, member_id, Identity(kind, value, public_key, now))
    except IntegrityError as fault:
        if not isinstance(fault.orig, pg.UniqueViolation):
            raise
        raise IdentityTaken from fault
    shown = {"kind": kind} if kind == EMAIL else {"kind": kind, "value": value}
    append_audit(connection, now, actor, "member.link", f"member:{member_id}", shown)


def find_member_by_identity(connection: Connection, kind: str, value: str) -> UUID | None:
    """Whose wallet, Dogecoin address or e-mail address this is."""
    return store.find_member_id_by_identity(connection, kind, value)


def wallets_of(connection: Connection, member_id: UUID) -> list[bytes]:
    """The public keys of the member's Solana wallets."""
    found = store.list_identities(connection, member_id)
    return [each.public_key for each in found if each.kind == SOLANA and each.public_key is not None]


def members_of_wallets(connection: Connection, public_keys: Collection[bytes]) -> dict[bytes, UUID]:
    """The members of these Solana public keys; keys of nobody are left out."""
    return store.map_wallets_to_members(connection, public_keys)


def members_with_role(connection: Connection, roles: Collection[Role]) -> list[UUID]:
    """The active members who were given one of these roles."""
    return store.list_active_members_with_role(connection, roles)


def email_of(connection: Connection, member_id: UUID) -> str | None:
    """The member's proven e-mail address."""
    found = store.list_identities(connection, member_id)
    return next((each.value for each in found if each.kind == EMAIL), None)
