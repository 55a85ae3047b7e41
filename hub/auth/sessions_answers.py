"""Tokens as the API shows them, to whichever way of signing in brought them."""

from __future__ import annotations

from typing import Literal

from hub.api_types import AnswerBody
from hub.auth.sessions_service import Tokens


class TokensAnswer(AnswerBody):
    """What signing in and refreshing bring: send the access token, keep the refresh token for its end."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in_s: int
    refresh_token: str
    session_id: str
    member_id: str


def tokens_answer(tokens: Tokens) -> TokensAnswer:
    """Tokens as the API shows them."""
    return TokensAnswer(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - a kind
        expires_in_s=tokens.access_expires_in_s,
        refresh_token=tokens.refresh_token,
        session_id=str(tokens.session_id),
        member_id=str(tokens.member_id),
    )
