"""What admins decide about members: who has which role, and who may take part at all.

Two rules keep the house in order. Nobody decides about himself: a role comes from another admin, and so does a
suspension. And an active admin is always left, whatever several of them do at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from hub.actor import Actor
from hub.audit import append_audit
from hub.auth import members_service, notices, sessions_service, sessions_store
from hub.auth import members_store as store
from hub.auth.members_store import ACTIVE, SUSPENDED
from hub.errors import LastAdmin, MemberNotActive, MemberNotSuspended, NotOverOneself, RoleUnchanged
from hub.permissions import Role

SUSPENSION: Final = "member_suspended"
"""Why the sessions of a suspended member end."""


def give_role(connection: Connection, actor: Actor, member_id: UUID, role: Role, reason: str, now: datetime) -> None:
    """Give a role to another member; it counts from the member's next request. Audited.

    Raises MemberNotFound, NotOverOneself, RoleUnchanged.
    """
    store.get_member_for_update(connection, member_id)
    if member_id == actor.member_id:
        raise NotOverOneself
    if not members_service.give_role(connection, member_id, role, reason, actor.reference, now):
        raise RoleUnchanged(role)
    notices.tell_role(connection, member_id, role, reason, now, given=True)
    _announce(connection, member_id)


def take_role(connection: Connection, actor: Actor, member_id: UUID, role: Role, reason: str, now: datetime) -> None:
    """Take a role away, also from oneself; it counts from the member's next request. Audited.

    Raises MemberNotFound, RoleUnchanged, LastAdmin.
    """
    store.lock_admins(connection)
    store.get_member_for_update(connection, member_id)
    if not store.delete_role(connection, member_id, role):
        raise RoleUnchanged(role)
    _check_admin_left(connection)
    detail = {"role": role, "reason": reason}
    append_audit(connection, now, actor.reference, "member.take_role", f"member:{member_id}", detail)
    notices.tell_role(connection, member_id, role, reason, now, given=False)
    _announce(connection, member_id)


def suspend_member(connection: Connection, actor: Actor, member_id: UUID, reason: str, now: datetime) -> None:
    """Let a member in no more, by session or API key, and end its sessions. Its meters go on. Audited.

    Raises MemberNotFound, NotOverOneself, MemberNotActive, LastAdmin.
    """
    store.lock_admins(connection)
    member = store.get_member_for_update(connection, member_id)
    if member_id == actor.member_id:
        raise NotOverOneself
    if member.state != ACTIVE:
        raise MemberNotActive(f"it is {member.state}")
    store.update_member(connection, member_id, {"state": SUSPENDED})
    _check_admin_left(connection)
    append_audit(connection, now, actor.reference, "member.suspend", f"member:{member_id}", {"reason": reason})
    sessions_service.end_sessions_of_member(connection, member_id, SUSPENSION, actor.reference, now)
    notices.tell_standing(connection, member_id, reason, now, suspended=True)
    _announce(connection, member_id)


def reinstate_member(connection: Connection, actor: Actor, member_id: UUID, reason: str, now: datetime) -> None:
    """Let a suspended member in again; it signs in anew, its API keys are good again. Audited.

    Raises MemberNotFound, MemberNotSuspended.
    """
    member = store.get_member_for_update(connection, member_id)
    if member.state != SUSPENDED:
        raise MemberNotSuspended(f"it is {member.state}")
    store.update_member(connection, member_id, {"state": ACTIVE})
    append_audit(connection, now, actor.reference, "member.reinstate", f"member:{member_id}", {"reason": reason})
    notices.tell_standing(connection, member_id, reason, now, suspended=False)


def _check_admin_left(connection: Connection) -> None:
    if not members_service.members_with_role(connection, [Role.ADMIN]):
        raise LastAdmin


def _announce(connection: Connection, member_id: UUID) -> None:
    """Tell every API process, when this transaction commits: what this member may have open may no longer be its."""
    sessions_store.announce_ended(connection, [str(member_id)])
