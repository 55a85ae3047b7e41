"""API keys: how a machine proves in whose name it comes. `cwk_<key id>_<secret>`.

The secret is derived from the hub's member secret and the key's id, so that a repeated answer can show it again; the
database holds a hash of the key, so that it goes on when the member secret changes. A key can do what its scopes and
its member's roles both allow, at each request; it never reaches sessions, identities or keys (`KEY_SCOPES`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from hub.actor import Actor
from hub.audit import append_audit
from hub.auth import api_keys_store as store
from hub.auth import notices, sessions_service, sessions_store
from hub.auth.api_keys_store import ApiKey
from hub.errors import ApiKeyNotFound, Forbidden, SignInTooOld, TooManyApiKeys
from hub.permissions import Permission

PREFIX: Final = "cwk"
KEY_ID_BYTES: Final = 9
KEYS_PER_MEMBER_MAX: Final = 20
"""Not counting revoked ones, which are not listed either."""
LIFE_MAX: Final = timedelta(days=366)
SIGN_IN_AGE_MAX: Final = timedelta(minutes=15)
"""A key outlives the session that makes it: whoever has only found a session open shall not get one."""
USE_NOTED_EVERY: Final = timedelta(minutes=1)

_SHAPE = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * KEY_ID_BYTES}}})_[A-Za-z0-9_-]{{43}}")


def make_key_id() -> str:
    """A fresh id, without an underscore."""
    return secrets.token_hex(KEY_ID_BYTES)


def api_key_text(member_secret: bytes, key_id: str) -> str:
    """The key as its holder sends it."""
    digest = hmac.new(member_secret, b"api-key\x00" + key_id.encode(), hashlib.sha256).digest()
    return f"{PREFIX}_{key_id}_{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def key_id_of(text: str) -> str | None:
    """The id in a key as its holder sends it; None if it is no such text."""
    shape = _SHAPE.fullmatch(text)
    return None if shape is None else shape[1]


def create_api_key(
    connection: Connection,
    member_secret: bytes,
    member_id: UUID,
    name: str,
    scopes: Iterable[Permission],
    life: timedelta,
    actor: str,
    now: datetime,
) -> ApiKey:
    """Make a key that ends by itself. Audited. Whether this may be asked for, the caller knows."""
    key_id = make_key_id()
    key = ApiKey(
        key_id,
        member_id,
        name,
        hash_of(api_key_text(member_secret, key_id)),
        sorted(scopes),
        now,
        now + life,
        None,
        None,
    )
    store.insert_api_key(connection, key)
    detail = {"key_id": key_id, "name": name, "scopes": key.scopes, "expires_at": key.expires_at.isoformat()}
    append_audit(connection, now, actor, "api_key.create", f"member:{member_id}", detail)
    return key


def create_own_api_key(
    connection: Connection,
    member_secret: bytes,
    actor: Actor,
    name: str,
    scopes: Collection[Permission],
    life: timedelta,
    now: datetime,
) -> ApiKey:
    """Make a key for whoever asks, good for no more than the member itself. Audited.

    Raises Forbidden, TooManyApiKeys.
    """
    assert life <= LIFE_MAX, "checked at the door"
    too_far = sorted(scope for scope in scopes if actor.reach(scope) is None)
    if too_far:
        raise Forbidden(f"not permitted to you: {', '.join(too_far)}")
    sessions_store.lock_member(connection, actor.member_id)  # of two keys at once, one is counted by the other
    if len(store.list_unrevoked_keys(connection, actor.member_id)) >= KEYS_PER_MEMBER_MAX:
        raise TooManyApiKeys(f"{KEYS_PER_MEMBER_MAX} at most: revoke one first")
    key = create_api_key(connection, member_secret, actor.member_id, name, scopes, life, actor.reference, now)
    notices.tell_api_key_made(connection, key, now)
    return key


def check_sign_in_is_fresh(connection: Connection, actor: Actor, now: datetime) -> None:
    """Raises SignInTooOld, Unauthorized if the session has ended meanwhile, or Forbidden for an API key: it never
    makes another.
    """
    if actor.session_id is None:
        raise Forbidden("an API key makes no API keys")
    sessions_service.lock_signed_in(connection, actor, now)
    session = sessions_store.find_signed_in(connection, actor.session_id, actor.member_id)
    if session is None or now - session.created_at > SIGN_IN_AGE_MAX:
        raise SignInTooOld


def show_api_key(connection: Connection, member_secret: bytes, key_id: str) -> str:
    """The key as its holder sends it.

    Raises ApiKeyNotFound if it is gone, or the member secret that it was made with.
    """
    key, text = store.find_api_key(connection, key_id), api_key_text(member_secret, key_id)
    if key is None or not hmac.compare_digest(hash_of(text), key.secret_hash):
        raise ApiKeyNotFound(key_id)
    return text


def list_api_keys(connection: Connection, member_id: UUID) -> list[ApiKey]:
    """The member's keys that were not revoked, the newest first."""
    return store.list_unrevoked_keys(connection, member_id)


def revoke_api_key(connection: Connection, member_id: UUID, key_id: str, actor: str, now: datetime) -> None:
    """End a key at once. Audited. Raises ApiKeyNotFound, also for somebody else's and for one that is revoked."""
    key = store.find_api_key(connection, key_id)
    if key is None or not store.set_revoked(connection, member_id, key_id, now):
        raise ApiKeyNotFound(key_id)
    sessions_store.announce_ended(connection, [key_id])
    append_audit(connection, now, actor, "api_key.revoke", f"member:{member_id}", {"key_id": key_id})
    notices.tell_api_key_revoked(connection, key, now)


def note_use(connection: Connection, key: ApiKey, now: datetime) -> None:
    """Remember that a key is in use, once a minute: not every request shall write."""
    if key.last_used_at is None or now - key.last_used_at >= USE_NOTED_EVERY:
        store.note_used_unless_locked(connection, key.key_id, now, now - USE_NOTED_EVERY)


def hash_of(text: str) -> bytes:
    """What the database keeps of a key."""
    return hashlib.sha256(text.encode()).digest()
