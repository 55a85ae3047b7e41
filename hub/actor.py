"""Who is acting: what a route may know of the person or machine behind a request. How it is proven is `hub/auth`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from hub.permissions import Permission, Reach, Role, reach_of


@dataclass(frozen=True)
class Actor:
    """A member, through a session or through an API key.

    `scopes` are what an API key is good for at most; None is a session, which may do what its member's roles may.
    """

    member_id: UUID
    roles: frozenset[Role]
    session_id: UUID | None = None
    key_id: str | None = None
    scopes: frozenset[Permission] | None = None

    @property
    def reference(self) -> str:
        """How the audit log names this actor: the member, and the key if it was one."""
        member = f"member:{self.member_id}"
        return member if self.key_id is None else f"{member} key:{self.key_id}"

    def reach(self, permission: Permission) -> Reach | None:
        """How far the actor may use a permission; None is not at all."""
        if self.scopes is not None and permission not in self.scopes:
            return None
        return reach_of(self.roles, permission)
