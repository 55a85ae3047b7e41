"""HTTP for sessions: refresh, sign out, see and end them; and the public keys of access tokens.

Refreshing and signing out need no access token: the refresh token speaks. It comes in the body and never in a cookie,
so no page can send it for somebody else.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.actor import Actor
from hub.api_types import NOTHING, AnswerBody, Count, Moment, Nothing, Strict, iso, refusals
from hub.auth import sessions_service as service
from hub.auth.sessions_answers import TokensAnswer, tokens_answer
from hub.auth.sessions_rules import ENDED_BY_MEMBER, Client, Session
from hub.dependencies import CurrentActor, Now, OnceOnly, TheGuard, TheHub, Transaction, client_address, refuse_query
from hub.errors import Forbidden, RefreshTokenInvalid, SessionNotFound
from hub.idempotency import Answer
from hub.limits import policies
from hub.problems import problem_of

REFRESH_TOKEN_LENGTH_MAX = 128
JWKS_KEPT_FOR_S = 300
"""How long others may keep our public keys: a new one is published so long before it signs (docs/decisions)."""

router = APIRouter(tags=["sessions"])


def get_client(request: Request) -> Client:
    """Where the request comes from."""
    return Client.of(client_address(request), request.headers.get("user-agent", ""))


CurrentClient = Annotated[Client, Depends(get_client)]


class RefreshToken(Strict):
    """The refresh token that the last sign-in or refresh brought."""

    refresh_token: str = Field(max_length=REFRESH_TOKEN_LENGTH_MAX)


class SignedOutAnswer(AnswerBody):
    """The session of this token is over, if it was one."""

    signed_out: Literal[True]


class SessionAnswer(AnswerBody):
    """A place where the member is signed in. Address and user agent are those of the last refresh."""

    session_id: str
    method: str = Field(description="How the member proved who it is.")
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment = Field(description="When it ends by itself, unless it is used before.")
    client_address: str
    user_agent: str
    current: bool = Field(description="Whether this request belongs to it.")


class SessionsAnswer(AnswerBody):
    """Where the member is signed in, the session used last first."""

    sessions: list[SessionAnswer]


class EndedSessionAnswer(AnswerBody):
    """The session is over: its tokens are good for nothing."""

    session_id: str
    ended: Literal[True]


class EndedSessionsAnswer(AnswerBody):
    """How many other sessions were ended."""

    ended: Count


class PublicKey(AnswerBody):
    """An Ed25519 key as RFC 8037 writes it."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str = Field(description="Its RFC 7638 thumbprint.")
    alg: Literal["EdDSA"]
    use: Literal["sig"]


class KeySet(AnswerBody):
    """A JSON Web Key Set."""

    keys: list[PublicKey]


@router.post(
    "/auth/refresh",
    dependencies=[Depends(refuse_query)],
    response_model=TokensAnswer,
    responses=refusals(RefreshTokenInvalid),
)
def refresh(
    request: Request,
    body: RefreshToken,
    hub: TheHub,
    guard: TheGuard,
    connection: Transaction,
    client: CurrentClient,
    now: Now,
) -> TokensAnswer | Response:
    """Exchange a refresh token for the next tokens. One that was used before ends its session."""
    guard.count_client(policies.REFRESH_BY_CLIENT)
    tokens = service.refresh_session(connection, body.refresh_token, client, hub.token_keys, hub.member_secret, now)
    if tokens is None:
        # given back rather than raised: that the session ends is to be committed
        return problem_of(RefreshTokenInvalid(), request.state.request_id)
    return tokens_answer(tokens)


@router.post("/auth/sign-out", dependencies=[Depends(refuse_query)])
def sign_out(body: RefreshToken, guard: TheGuard, connection: Transaction, now: Now) -> SignedOutAnswer:
    """End the session of a refresh token, be it the newest or not. Says the same of a token that is none."""
    guard.count_client(policies.REFRESH_BY_CLIENT)
    service.sign_out(connection, body.refresh_token, now)
    return SignedOutAnswer(signed_out=True)


@router.get("/me/sessions", dependencies=[Depends(refuse_query)])
def list_sessions(actor: CurrentActor, connection: Transaction, now: Now) -> SessionsAnswer:
    """Where the member is signed in."""
    found = service.list_sessions(connection, actor.member_id, now)
    return SessionsAnswer(sessions=[_session_answer(each, actor) for each in found])


@router.post(
    "/me/sessions/{session_id}/end",
    dependencies=[Depends(refuse_query)],
    response_model=EndedSessionAnswer,
    responses=refusals(SessionNotFound),
)
def end_session(
    session_id: Annotated[UUID, Path()], actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING
) -> Response:
    """End one of the member's sessions, the current one included."""

    def perform() -> Answer:
        service.end_session(once.connection, actor.member_id, session_id, ENDED_BY_MEMBER, once.actor, once.now)
        return {"session_id": str(session_id), "ended": True}

    return once.answer(body, 200, perform)


@router.post("/me/sessions/end-others", dependencies=[Depends(refuse_query)], response_model=EndedSessionsAnswer)
def end_other_sessions(actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING) -> Response:
    """End all of the member's sessions but the current one."""
    if actor.session_id is None:
        raise Forbidden("an API key belongs to no session")

    def perform() -> Answer:
        return {
            "ended": service.end_sessions_of_member(
                once.connection, actor.member_id, ENDED_BY_MEMBER, once.actor, once.now, actor.session_id
            )
        }

    return once.answer(body, 200, perform)


@router.get("/.well-known/jwks.json", dependencies=[Depends(refuse_query)], response_model=KeySet)
async def get_token_keys(hub: TheHub) -> JSONResponse:
    """The public keys of access tokens, for other services of the community."""
    return JSONResponse(hub.token_keys.jwks, headers={"Cache-Control": f"public, max-age={JWKS_KEPT_FOR_S}"})


def _session_answer(session: Session, actor: Actor) -> SessionAnswer:
    return SessionAnswer(
        session_id=str(session.session_id),
        method=session.method,
        created_at=iso(session.created_at),
        last_used_at=iso(session.last_used_at),
        expires_at=iso(session.expires_at),
        client_address=session.client.address,
        user_agent=session.client.user_agent,
        current=session.session_id == actor.session_id,
    )
