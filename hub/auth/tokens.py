"""Access tokens: what a session shows for ten minutes. RFC 9068 (JWT profile), RFC 8725 (how not to be fooled by one).

A token says which session asks. It gives no right: roles and the session's state are read from the database at every
request (`authentication.py`); its `roles` are for other services, which may believe them for its ten minutes.

A token has one header per key, so the header is compared and never interpreted: there is no algorithm to talk us into,
no key, address or extension in it to follow. Nothing in the token is looked at before its signature is verified, except
which of our headers it begins with.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID, uuid4

from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidTokenError

from hub.errors import BEARER_INVALID, AccessTokenExpired, Unauthorized
from hub.permissions import Role
from hub.token_keys import ALGORITHM, TokenKeys
from protocol.limits import TIME_MAX_UNIX_S

ACCESS_LIFE: Final = timedelta(minutes=10)
ACCESS_LIFE_MAX: Final = timedelta(minutes=15)
"""No token of ours lives longer, so one that says so is none."""
CLOCK_SKEW_MAX: Final = timedelta(seconds=60)
"""How far ahead the clock of the API process may be that issued a token."""
TOKEN_LENGTH_MAX: Final = 2_048
TYPE: Final = "at+jwt"
CLIENT_ID: Final = "commonwatt"
"""RFC 9068 wants one. The hub has no clients of its own kind to tell apart: members use what they like."""

_SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")

_jws = PyJWS(algorithms=[ALGORITHM])
"""Knows this algorithm and no other."""


@dataclass(frozen=True)
class AccessClaims:
    """What a verified token says."""

    member_id: UUID
    session_id: UUID
    token_id: str
    issued_at: datetime
    expires_at: datetime


def issue_access_token(
    keys: TokenKeys,
    member_id: UUID,
    session_id: UUID,
    roles: Iterable[Role],
    now: datetime,
    expires_at: datetime,
    token_id: str | None = None,
) -> str:
    """A signed token, good until `expires_at`: at most ACCESS_LIFE_MAX ahead, in whole seconds."""
    issued_at_unix_s, expires_at_unix_s = int(now.timestamp()), int(expires_at.timestamp())
    assert expires_at_unix_s - issued_at_unix_s <= ACCESS_LIFE_MAX.total_seconds(), "no access token lives so long"
    claims = {
        "iss": keys.issuer,
        "aud": keys.audience,
        "client_id": CLIENT_ID,
        "sub": str(member_id),
        "sid": str(session_id),
        "jti": token_id or uuid4().hex,
        "iat": issued_at_unix_s,
        "exp": expires_at_unix_s,
        "roles": sorted(roles),
    }
    content = json.dumps(claims, separators=(",", ":")).encode()
    return _jws.encode(content, keys.signing_key, ALGORITHM, {"typ": TYPE, "kid": keys.key_id})


def read_access_token(keys: TokenKeys, token: str, now: datetime) -> AccessClaims:
    """What a token says, if this hub issued it for itself and it is still good.

    Raises Unauthorized, without telling what was wrong, or AccessTokenExpired if nothing but its time was.
    """
    shape = _SHAPE.fullmatch(token) if len(token) <= TOKEN_LENGTH_MAX else None
    key_id = None if shape is None else _header_segments(keys).get(shape[1])
    key = None if key_id is None else keys.find(key_id)
    if key is None:
        raise _refused()
    try:
        content = _jws.decode(token, key, algorithms=[ALGORITHM])
        return _judge(keys, _parse_claims(content), now)
    except (InvalidTokenError, ValueError) as fault:
        raise _refused() from fault


@lru_cache(maxsize=64)
def header_segment(key_id: str) -> str:
    """How every token that this key signs begins, up to the first dot."""
    header = json.dumps({"alg": ALGORITHM, "kid": key_id, "typ": TYPE}, separators=(",", ":"))
    return base64.urlsafe_b64encode(header.encode()).rstrip(b"=").decode()


def _header_segments(keys: TokenKeys) -> dict[str, str]:
    return {header_segment(key_id): key_id for key_id in keys.key_ids}


def _judge(keys: TokenKeys, claims: dict[str, Any], now: datetime) -> AccessClaims:
    """Raises ValueError for claims that are not those of a token for us, AccessTokenExpired if it is over."""
    if (claims.get("iss"), claims.get("aud"), claims.get("client_id")) != (keys.issuer, keys.audience, CLIENT_ID):
        raise ValueError("issued by another, or for another")
    read = AccessClaims(
        _uuid(claims.get("sub")),
        _uuid(claims.get("sid")),
        _text(claims.get("jti")),
        _instant(claims.get("iat")),
        _instant(claims.get("exp")),
    )
    latest = max(read.issued_at, _instant(claims["nbf"])) if "nbf" in claims else read.issued_at
    if latest > now + CLOCK_SKEW_MAX:
        raise ValueError("from the future")
    if not read.issued_at <= read.expires_at <= read.issued_at + ACCESS_LIFE_MAX:
        raise ValueError("lives longer than any token of ours")
    if read.expires_at <= now:
        raise AccessTokenExpired
    return read


def _parse_claims(content: bytes) -> dict[str, Any]:
    """The JSON object; raises ValueError if it is none, or names a claim twice."""
    claims = json.loads(content, object_pairs_hook=_each_once, parse_constant=_no_number)
    if not isinstance(claims, dict):
        raise ValueError("not an object")  # noqa: TRY004 - it is a value of the token's, not a type of ours
    return claims


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    claims = dict(pairs)
    if len(claims) != len(pairs):
        raise ValueError("a claim comes twice")
    return claims


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _uuid(value: object) -> UUID:
    if not isinstance(value, str) or str(UUID(value)) != value:
        raise ValueError("not an id as we write it")
    return UUID(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    return value


def _instant(value: object) -> datetime:
    if type(value) is not int or not 0 < value <= TIME_MAX_UNIX_S:
        raise ValueError("not an instant in whole seconds")
    return datetime.fromtimestamp(value, UTC)


def _refused() -> Unauthorized:
    return Unauthorized(challenge=BEARER_INVALID)
