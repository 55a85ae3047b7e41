"""HTTP for a member's API keys. No key reaches these routes: their permission is no scope."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import AfterValidator, Field

from hub.api_types import NOTHING, AnswerBody, Moment, Nothing, Strict, iso, refusals
from hub.auth import api_keys_service as service
from hub.auth.api_keys_store import ApiKey
from hub.dependencies import CurrentActor, OnceOnly, TheHub, Transaction, refuse_query
from hub.errors import ApiKeyNotFound, SignInTooOld, TooManyApiKeys
from hub.idempotency import Answer
from hub.permissions import KEY_SCOPES, Permission

NAME_LENGTH_MAX = 100
LIFE_MAX_S = int(service.LIFE_MAX.total_seconds())

router = APIRouter(tags=["api keys"])


def _check_scopes(scopes: list[Permission]) -> list[Permission]:
    if not KEY_SCOPES.issuperset(scopes):
        raise ValueError("no API key is good for that")
    if len(set(scopes)) < len(scopes):
        raise ValueError("each once")
    return scopes


def _check_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("one line, no control characters")
    return name


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX), AfterValidator(_check_name)]
Scope = Annotated[Permission, Field(strict=False)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(KEY_SCOPES)), AfterValidator(_check_scopes)]
KeyPath = Annotated[str, Path(max_length=64, pattern="^[0-9a-f]+$")]


class NewApiKey(Strict):
    """What the key is called, what it is good for, and for how long."""

    name: Name
    scopes: Scopes
    expires_in_s: int = Field(ge=60, le=LIFE_MAX_S, description="At most 366 days.")


class ApiKeyAnswer(AnswerBody):
    """A key. Its secret is shown when it is made and never again."""

    key_id: str
    name: str
    scopes: list[Permission]
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment | None = Field(description="To the minute.")


class NewApiKeyAnswer(AnswerBody):
    """The key, to be sent as `Authorization: Bearer`."""

    key_id: str
    api_key: str
    scopes: list[Permission]
    expires_at: Moment


class ApiKeysAnswer(AnswerBody):
    """The member's keys that were not revoked, the newest first."""

    api_keys: list[ApiKeyAnswer]


class RevokedApiKeyAnswer(AnswerBody):
    """The key is good for nothing."""

    key_id: str
    revoked: Literal[True]


@router.get("/me/api-keys", dependencies=[Depends(refuse_query)])
def list_api_keys(actor: CurrentActor, connection: Transaction) -> ApiKeysAnswer:
    """The member's keys that were not revoked."""
    found = service.list_api_keys(connection, actor.member_id)
    return ApiKeysAnswer(api_keys=[_key_answer(each) for each in found])


@router.post(
    "/me/api-keys",
    dependencies=[Depends(refuse_query)],
    status_code=201,
    response_model=NewApiKeyAnswer,
    responses=refusals(SignInTooOld, TooManyApiKeys, ApiKeyNotFound),
)
def create_api_key(body: NewApiKey, actor: CurrentActor, hub: TheHub, once: OnceOnly) -> Response:
    """Make a key, within a quarter of an hour of signing in."""

    def perform() -> Answer:
        life = timedelta(seconds=body.expires_in_s)
        key = service.create_own_api_key(
            once.connection, hub.member_secret, actor, body.name, body.scopes, life, once.now
        )
        return {"key_id": key.key_id, "scopes": key.scopes, "expires_at": iso(key.expires_at)}

    def with_secret(stored: Answer) -> Answer:
        return {**stored, "api_key": service.show_api_key(once.connection, hub.member_secret, str(stored["key_id"]))}

    service.check_sign_in_is_fresh(once.connection, actor, once.now)  # for a repeated answer as well
    return once.answer(body, 201, perform, with_secret)


@router.post(
    "/me/api-keys/{key_id}/revoke",
    dependencies=[Depends(refuse_query)],
    response_model=RevokedApiKeyAnswer,
    responses=refusals(ApiKeyNotFound),
)
def revoke_api_key(key_id: KeyPath, actor: CurrentActor, once: OnceOnly, body: Nothing = NOTHING) -> Response:
    """End a key at once."""

    def perform() -> Answer:
        service.revoke_api_key(once.connection, actor.member_id, key_id, once.actor, once.now)
        return {"key_id": key_id, "revoked": True}

    return once.answer(body, 200, perform)


def _key_answer(key: ApiKey) -> ApiKeyAnswer:
    return ApiKeyAnswer(
        key_id=key.key_id,
        name=key.name,
        scopes=sorted(key.permissions),
        created_at=iso(key.created_at),
        expires_at=iso(key.expires_at),
        last_used_at=None if key.last_used_at is None else iso(key.last_used_at),
    )
