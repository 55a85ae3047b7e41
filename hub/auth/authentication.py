"""Whose request is it? From the Authorization header to an Actor, by the database as it is at this moment.

An access token says which session asks, an API key which key. Whether the session or key is still good, whether the
member may act, and which roles it has, one query says.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime

from sqlalchemy import Connection

from hub.actor import Actor
from hub.auth import api_keys_service, api_keys_store, sessions_store
from hub.auth.tokens import TOKEN_LENGTH_MAX, read_access_token
from hub.errors import BEARER_INVALID, Unauthorized
from hub.token_keys import TokenKeys

_BEARER = re.compile(rf"bearer +([A-Za-z0-9._~+/-]{{1,{TOKEN_LENGTH_MAX}}}=*)", re.IGNORECASE | re.ASCII)


def authenticate(connection: Connection, token_keys: TokenKeys, authorization: str, now: datetime) -> Actor:
    """The actor behind a request.

    Raises Unauthorized, without telling what was wrong, or AccessTokenExpired if that is all that is wrong with it.
    """
    if not authorization:
        raise Unauthorized
    bearer = _BEARER.fullmatch(authorization)
    if bearer is None:
        raise Unauthorized
    token = bearer[1]
    key_id = api_keys_service.key_id_of(token)
    if key_id is not None:
        return _actor_of_key(connection, key_id, token, now)
    return _actor_of_session(connection, token_keys, token, now)


def _actor_of_session(connection: Connection, token_keys: TokenKeys, token: str, now: datetime) -> Actor:
    claims = read_access_token(token_keys, token, now)
    session = sessions_store.find_signed_in(connection, claims.session_id, claims.member_id)
    if session is None or not session.is_live(now) or not session.standing.active:
        raise Unauthorized(challenge=BEARER_INVALID)
    return Actor(claims.member_id, session.standing.roles, session_id=claims.session_id)


def _actor_of_key(connection: Connection, key_id: str, text: str, now: datetime) -> Actor:
    found = api_keys_store.find_key_and_standing(connection, key_id)
    if found is None:
        raise Unauthorized(challenge=BEARER_INVALID)
    key, standing = found
    known = hmac.compare_digest(api_keys_service.hash_of(text), key.secret_hash)
    if not known or not key.is_live(now) or not standing.active:
        raise Unauthorized(challenge=BEARER_INVALID)
    api_keys_service.note_use(connection, key, now)
    return Actor(key.member_id, standing.roles, key_id=key.key_id, scopes=key.permissions)
