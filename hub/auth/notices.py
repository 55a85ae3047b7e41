"""What happens to an account, told to its member: by a job, because notifications lie above this domain and the outbox
beneath both. The job is written in the transaction of what happened.

Kinds and words are in `hub/notifications/kinds.py`. No secret is among the facts, and no word that a stranger could
have chosen, such as what a program calls itself: they are mailed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from hub.auth.addresses import Chain
from hub.auth.api_keys_store import ApiKey
from hub.auth.sessions_rules import Session
from hub.outbox.store import add_job
from hub.permissions import Role

TELL: Final = "notification.tell"
"""Kind of outbox job; `hub/notifications/jobs.py` does it."""


def queue_notice(
    connection: Connection,
    subject: str,
    kind: str,
    data: Mapping[str, object],
    now: datetime,
    *,
    member_id: UUID | None = None,
    owner: bytes | None = None,
    roles: Collection[Role] = (),
    key: str | None = None,
) -> None:
    """Have a job tell a member, the owner of a wallet, or members with these roles. One `subject` is told in order."""
    payload = {
        "kind": kind,
        "data": dict(data),
        "member_id": None if member_id is None else str(member_id),
        "owner": None if owner is None else owner.hex(),
        "roles": sorted(roles),
        "key": key,
    }
    add_job(connection, TELL, subject, payload, now)


def tell_wallet_linked(connection: Connection, member_id: UUID, chain: Chain, address: str, now: datetime) -> None:
    """Another wallet can sign in as the member."""
    _tell(connection, member_id, "wallet_linked", {"chain": chain, "address": address}, now)


def tell_wallet_unlinked(
    connection: Connection, member_id: UUID, chain: Chain, address: str, ended_sessions: int, now: datetime
) -> None:
    """A wallet can no longer sign in as the member."""
    data = {"chain": chain, "address": address, "ended_sessions": ended_sessions}
    _tell(connection, member_id, "wallet_unlinked", data, now)


def tell_email_linked(connection: Connection, member_id: UUID, ended_sessions: int, now: datetime) -> None:
    """The member signs in with an e-mail address that it had not before; the mail about it is another (`mails.py`)."""
    _tell(connection, member_id, "email_linked", {"ended_sessions": ended_sessions}, now)


def tell_password_changed(connection: Connection, member_id: UUID, ended_sessions: int, now: datetime) -> None:
    """The member has another password; the mail about it is another (`mails.py`)."""
    _tell(connection, member_id, "password_changed", {"ended_sessions": ended_sessions}, now)


def tell_api_key_made(connection: Connection, key: ApiKey, now: datetime) -> None:
    """There is another key that acts as the member."""
    data = {"name": key.name, "key_id": key.key_id, "expires_at": _instant(key.expires_at)}
    _tell(connection, key.member_id, "api_key_made", data, now)


def tell_api_key_revoked(connection: Connection, key: ApiKey, now: datetime) -> None:
    """A key acts as the member no more."""
    _tell(connection, key.member_id, "api_key_revoked", {"name": key.name, "key_id": key.key_id}, now)


def tell_token_reused(connection: Connection, session: Session, now: datetime) -> None:
    """A session was ended, because two have its tokens."""
    data = {"session_id": str(session.session_id), "client_address": session.client.address}
    _tell(connection, session.member_id, "token_reused", data, now)


def tell_signed_in(connection: Connection, session: Session, now: datetime) -> None:
    """The member has signed in from where, or with what, it is not known to."""
    data = {
        "method": session.method,
        "client_address": session.client.address,
        "session_id": str(session.session_id),
    }
    _tell(connection, session.member_id, "signed_in", data, now)


def tell_role(connection: Connection, member_id: UUID, role: Role, reason: str, now: datetime, *, given: bool) -> None:
    """An admin has given the member a role, or taken it away."""
    data = {"role": role, "reason": reason.rstrip(".")}
    _tell(connection, member_id, "role_given" if given else "role_taken", data, now)


def tell_standing(connection: Connection, member_id: UUID, reason: str, now: datetime, *, suspended: bool) -> None:
    """An admin has suspended the member, or reinstated it."""
    data = {"reason": reason.rstrip(".")}
    _tell(connection, member_id, "suspended" if suspended else "reinstated", data, now)


def _tell(connection: Connection, member_id: UUID, what: str, data: Mapping[str, object], now: datetime) -> None:
    queue_notice(connection, f"member:{member_id}", f"account.{what}", data, now, member_id=member_id)


def _instant(at: datetime) -> str:
    """As facts of notifications hold it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
