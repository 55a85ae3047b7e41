"""Use cases of sessions: open one, refresh it, end it. `sessions_rules.py` decides what a refresh token is worth.

A refresh token is `cwr_` and 48 bytes: 16 that all tokens of its session share, and 32 of its own. The first token's
are random. Those of each later one are an HMAC of the token before it, under the hub's member secret: so the hub can
say the same answer again within the grace, and keeps nothing but hashes. Neither the database nor the secret, nor both,
yield a token; it takes one to make the next.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import Connection

from hub import logs
from hub.actor import Actor
from hub.audit import append_audit
from hub.auth import notices
from hub.auth import sessions_rules as rules
from hub.auth import sessions_store as store
from hub.auth.sessions_rules import Client, Session, Verdict
from hub.auth.tokens import ACCESS_LIFE, issue_access_token
from hub.errors import BEARER_INVALID, MemberNotFound, MemberSuspended, SessionNotFound, Unauthorized
from hub.permissions import Role
from hub.token_keys import TokenKeys

PREFIX: Final = "cwr_"
FAMILY_BYTES: Final = 16
SECRET_BYTES: Final = 32

log = logs.get_logger()

_SHAPE = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{{(FAMILY_BYTES + SECRET_BYTES) * 4 // 3}}}")


@dataclass(frozen=True)
class Tokens:
    """What signing in and refreshing bring. The refresh token is shown this once."""

    access_token: str
    access_expires_in_s: int
    refresh_token: str
    session_id: UUID
    member_id: UUID


def open_session(
    connection: Connection,
    member_id: UUID,
    method: str,
    client: Client,
    token_keys: TokenKeys,
    now: datetime,
    *,
    newcomer: bool = False,
) -> Tokens:
    """Sign a member in that has proven itself by `method`. Audited.

    One session too many ends the one that was not used for longest. A member is told of a client that none of its
    sessions knows, unless it is a `newcomer`: one that was made just now. Raises MemberNotFound, MemberSuspended.
    """
    standing = store.lock_member(connection, member_id)
    if standing is None:
        raise MemberNotFound(str(member_id))
    if not standing.active:
        raise MemberSuspended
    surplus = store.list_live_sessions(connection, member_id, now)[rules.SESSIONS_PER_MEMBER_MAX - 1 :]
    _end(connection, member_id, [each.session_id for each in surplus], rules.TOO_MANY, f"member:{member_id}", now)
    family = secrets.token_bytes(FAMILY_BYTES)
    token = _write_token(family, secrets.token_bytes(SECRET_BYTES))
    session = Session(
        session_id=uuid4(),
        member_id=member_id,
        method=method,
        client=client,
        family_hash=_sha256(family),
        token_hash=_hash_of(token),
        previous_token_hash=None,
        created_at=now,
        last_used_at=now,
        expires_at=rules.expires_at(now, now),
        ended_at=None,
        ended_because=None,
    )
    if not newcomer and not store.is_client_known(connection, member_id, client):
        notices.tell_signed_in(connection, session, now)
    store.insert_session(connection, session)
    detail = {"session_id": str(session.session_id), "method": method}
    append_audit(connection, now, f"member:{member_id}", "session.open", f"member:{member_id}", detail)
    return _tokens(session, token, standing.roles, token_keys, now)


def refresh_session(
    connection: Connection,
    refresh_token: str,
    client: Client,
    token_keys: TokenKeys,
    member_secret: bytes,
    now: datetime,
) -> Tokens | None:
    """The session's next tokens; None if it has none to give.

    Refusal is an answer and not an error, because the caller must commit it: a token that was used before ends its
    session. Audited then.
    """
    family = _family_of(refresh_token)
    session = None if family is None else store.find_session_for_update(connection, _sha256(family))
    if family is None or session is None:
        return None
    successor = _write_token(family, _secret_after(refresh_token, member_secret))
    verdict = rules.judge_refresh(session, _hash_of(refresh_token), _hash_of(successor), client, now)
    standing = store.find_standing(connection, session.member_id)
    if verdict is Verdict.END:
        log.warning("refresh_token_reused", session_id=str(session.session_id), member_id=str(session.member_id))
        _end(connection, session.member_id, [session.session_id], rules.TOKEN_REUSED, "hub", now)
        notices.tell_token_reused(connection, session, now)
        return None
    if verdict is Verdict.REFUSE or standing is None or not standing.active:
        return None
    if verdict is Verdict.ROTATE:
        changes = {
            "token_hash": _hash_of(successor),
            "previous_token_hash": session.token_hash,
            "last_used_at": now,
            "expires_at": rules.expires_at(session.created_at, now),
            "client_address": client.address,
            "user_agent": client.user_agent,
        }
        store.update_session(connection, session.session_id, changes)
    return _tokens(session, successor, standing.roles, token_keys, now)


def sign_out(connection: Connection, refresh_token: str, now: datetime) -> bool:
    """End the session of a refresh token, be it the newest or not; False if that told us nothing. Audited."""
    family = _family_of(refresh_token)
    session = None if family is None else store.find_session_for_update(connection, _sha256(family))
    if session is None:
        return False
    actor = f"member:{session.member_id}"
    return bool(_end(connection, session.member_id, [session.session_id], rules.SIGNED_OUT, actor, now))


def lock_signed_in(connection: Connection, actor: Actor, now: datetime) -> None:
    """Lock the member, if the session it asks through is still live: before anything that outlives the session.

    A request is let in before its body has come, and a password takes its time. Meanwhile somebody may have ended the
    session, as whoever changes a way in does with all others. Raises Unauthorized, also for an API key.
    """
    if actor.session_id is None:
        raise Unauthorized(challenge=BEARER_INVALID)
    store.lock_member(connection, actor.member_id)
    session = store.find_signed_in(connection, actor.session_id, actor.member_id)
    if session is None or not session.is_live(now) or not session.standing.active:
        raise Unauthorized(challenge=BEARER_INVALID)


def list_sessions(connection: Connection, member_id: UUID, now: datetime) -> list[Session]:
    """Where the member is signed in, the session used last first."""
    return store.list_live_sessions(connection, member_id, now)


def end_session(
    connection: Connection, member_id: UUID, session_id: UUID, reason: str, actor: str, now: datetime
) -> None:
    """End one session of a member; its tokens are good for nothing from the commit on. Audited.

    Raises SessionNotFound, also for somebody else's.
    """
    if session_id not in {each.session_id for each in store.list_live_sessions(connection, member_id, now)}:
        raise SessionNotFound(str(session_id))
    _end(connection, member_id, [session_id], reason, actor, now)


def end_sessions_of_member(
    connection: Connection,
    member_id: UUID,
    reason: str,
    actor: str,
    now: datetime,
    except_session: UUID | None = None,
) -> int:
    """End all sessions of a member but one; returns how many there were. Audited.

    Nobody signs this member in meanwhile: of a suspension and a sign-in at once, one is first.
    """
    store.lock_member(connection, member_id)
    live = [each.session_id for each in store.list_live_sessions(connection, member_id, now)]
    return len(_end(connection, member_id, [each for each in live if each != except_session], reason, actor, now))


def _end(
    connection: Connection, member_id: UUID, session_ids: Collection[UUID], reason: str, actor: str, now: datetime
) -> list[UUID]:
    ended = store.set_ended(connection, session_ids, reason, now) if session_ids else []
    if ended:
        store.announce_ended(connection, [str(each) for each in ended])
        detail = {"session_ids": [str(each) for each in ended], "reason": reason}
        append_audit(connection, now, actor, "session.end", f"member:{member_id}", detail)
    return ended


def _tokens(
    session: Session, refresh_token: str, roles: frozenset[Role], token_keys: TokenKeys, now: datetime
) -> Tokens:
    """An access token beside the refresh token. It never outlives the session's last day."""
    expires_at = min(now + ACCESS_LIFE, session.created_at + rules.LIFE_MAX)
    access_token = issue_access_token(token_keys, session.member_id, session.session_id, roles, now, expires_at)
    life_s = int((expires_at - now).total_seconds())
    return Tokens(access_token, life_s, refresh_token, session.session_id, session.member_id)


def _write_token(family: bytes, secret: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(family + secret).decode()


def _family_of(token: str) -> bytes | None:
    """What the token shares with the others of its session; None if it is no such token."""
    if not _SHAPE.fullmatch(token):
        return None
    return base64.urlsafe_b64decode(token.removeprefix(PREFIX))[:FAMILY_BYTES]


def _secret_after(token: str, member_secret: bytes) -> bytes:
    return hmac.new(member_secret, b"refresh-token\x00" + token.encode(), hashlib.sha256).digest()


def _hash_of(token: str) -> bytes:
    return _sha256(token.encode())


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
