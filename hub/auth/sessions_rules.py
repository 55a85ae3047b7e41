"""What a refresh token is worth. Pure: time is an argument, and of secrets only their hashes are known here.

A session is a *family* of refresh tokens, of which one is the newest. Each is good once and brings the next. A token of
the family that is not the newest was used before: the member and somebody else both hold tokens of one session, so it
ends. One exception: the same client may show the last but one once more within GRACE, because its second tab asked at
the same time, or the answer was lost on the way. It is told the same next token again, so that there is never a second
line of tokens.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

LIFE_MAX: Final = timedelta(days=30)
"""A session ends so long after sign-in, however busy it is."""
IDLE_MAX: Final = timedelta(days=14)
"""And so long after its last refresh."""
GRACE: Final = timedelta(seconds=10)
SESSIONS_PER_MEMBER_MAX: Final = 30
"""Signing in once more ends the session that was not used for longest."""
USER_AGENT_LENGTH_MAX: Final = 256

SIGNED_OUT: Final = "signed_out"
ENDED_BY_MEMBER: Final = "ended_by_member"
TOKEN_REUSED: Final = "token_reused"  # noqa: S105 - a reason
TOO_MANY: Final = "too_many_sessions"
"""Why sessions end, as the audit log has it; other callers have reasons of their own."""


@dataclass(frozen=True)
class Client:
    """Where a request comes from: its address and what it calls itself."""

    address: str
    user_agent: str

    @classmethod
    def of(cls, address: str, user_agent: str) -> Client:
        """Without what could not be shown: control characters, and more than anybody reads."""
        shown = "".join(letter for letter in user_agent if letter.isprintable())
        return cls(address, shown[:USER_AGENT_LENGTH_MAX])


@dataclass(frozen=True)
class Session:
    """A session as stored. `client` is who used it last; the hashes are SHA-256 of refresh tokens."""

    session_id: UUID
    member_id: UUID
    method: str
    client: Client
    family_hash: bytes
    token_hash: bytes
    previous_token_hash: bytes | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    ended_because: str | None

    def is_live(self, now: datetime) -> bool:
        """Whether it was neither ended nor left to end by itself."""
        return self.ended_at is None and now < self.expires_at


class Verdict(StrEnum):
    """What becomes of a refresh token that was shown."""

    ROTATE = "rotate"
    """It is the newest: the next one takes its place."""
    REPEAT = "repeat"
    """It was used a moment ago by the same client: tell it the same next one again."""
    REFUSE = "refuse"
    """Its session is over."""
    END = "end"
    """It was used before: its session ends."""


def judge_refresh(session: Session, token_hash: bytes, successor_hash: bytes, client: Client, now: datetime) -> Verdict:
    """What to do about a token of this session's family, and nothing else about it is known.

    `successor_hash` is of the token that this one brings.
    """
    if not session.is_live(now):
        return Verdict.REFUSE
    if hmac.compare_digest(token_hash, session.token_hash):
        return Verdict.ROTATE
    just_used = (
        session.previous_token_hash is not None
        and hmac.compare_digest(token_hash, session.previous_token_hash)
        and hmac.compare_digest(successor_hash, session.token_hash)
        and abs(now - session.last_used_at) < GRACE  # the clock of another API process may be a little behind
    )
    return Verdict.REPEAT if just_used and client == session.client else Verdict.END


def expires_at(created_at: datetime, last_used_at: datetime) -> datetime:
    """When a session ends that nobody uses again."""
    return min(created_at + LIFE_MAX, last_used_at + IDLE_MAX)
