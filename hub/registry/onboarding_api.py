"""HTTP for onboarding: a member asks, signs what the hub has built, and sees how far it is.

202 means planned and nothing more: the chain process builds, sends and asks. The status is here, and every change but
one is on the live topic `transactions`.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any
from uuid import UUID

import base58
from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.api_types import (
    CURSOR_DESCRIPTION,
    ITEMS_PER_PAGE_DEFAULT,
    ITEMS_PER_PAGE_MAX,
    Parameters,
    Strict,
    iso,
    refusals,
)
from hub.auth.addresses import ADDRESS_LENGTH_MAX
from hub.dependencies import CurrentActor, OnceOnly, TheHub, Transaction, refuse_query
from hub.errors import (
    AddressInvalid,
    ChainNotConfigured,
    ChainNotReady,
    IntentNotAwaiting,
    MalformedInput,
    MeterAlreadyOnChain,
    MeterCapacityRefused,
    MeterNotFound,
    MeterOwnedByAnother,
    MeterRetired,
    ProgramPaused,
    RegistrationInProgress,
    RegistrationNotFound,
    SponsorshipUsedUp,
    SponsorshipUsedUpToday,
    StatementOfAnotherDomain,
    TransactionExpired,
    TransactionNotOurs,
    UserAlreadyOnChain,
    UserNotOnChain,
    WalletNotLinked,
    WalletSignatureInvalid,
)
from hub.idempotency import Answer
from hub.registry import onboarding_service as service
from hub.registry.onboarding_answers import MemberRegistrationsAnswer, RegistrationAnswer, RegistrationsAnswer
from hub.registry.onboarding_service import Standing
from hub.registry.onboarding_store import ChainAccount
from protocol.limits import METER_ID_BYTES_MAX

MESSAGE_BYTES_MAX = 1_232
"""Of a transaction in all, by the chain's own rule."""
MESSAGE_BASE64_LENGTH_MAX = (MESSAGE_BYTES_MAX + 2) // 3 * 4
SIGNATURE_LENGTH_MAX = 88
"""Of 64 bytes in base58."""

router = APIRouter(tags=["members"])

RegistrationPath = Annotated[UUID, Path(description="The registration's id.")]
EVERY_PLANNING = (
    ChainNotConfigured,
    ChainNotReady,
    ProgramPaused,
    RegistrationInProgress,
    SponsorshipUsedUp,
    SponsorshipUsedUpToday,
)


class UserRegistration(Strict):
    """Which of one's Solana wallets is to be a User on the chain."""

    wallet: str = Field(min_length=1, max_length=ADDRESS_LENGTH_MAX, description="Its address, in base58.")


class MeterRegistration(Strict):
    """Which of one's meters is to be registered on the chain."""

    meter_id: str = Field(max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]+$")


class WalletSignature(Strict):
    """What the wallet signed, byte for byte as the hub gave it, and its signature."""

    message: str = Field(min_length=4, max_length=MESSAGE_BASE64_LENGTH_MAX, description="In Base64.")
    signature: str = Field(
        min_length=64, max_length=SIGNATURE_LENGTH_MAX, pattern="^[1-9A-HJ-NP-Za-km-z]*$", description="In base58."
    )


class RegistrationsQuery(Parameters):
    """A page of registrations, newest first."""

    cursor: UUID | None = Field(default=None, description=CURSOR_DESCRIPTION)
    limit: int = Field(default=ITEMS_PER_PAGE_DEFAULT, ge=1, le=ITEMS_PER_PAGE_MAX)


@router.post(
    "/me/registrations/user",
    status_code=202,
    response_model=RegistrationAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(AddressInvalid, WalletNotLinked, UserAlreadyOnChain, *EVERY_PLANNING),
)
def request_user_registration(body: UserRegistration, hub: TheHub, actor: CurrentActor, once: OnceOnly) -> Response:
    """Ask for a wallet of one's own to be registered on the chain. The hub pays; the wallet signs next."""
    terms = service.terms_of(hub.settings)

    def perform() -> Answer:
        asked = service.request_user(once.connection, actor.member_id, body.wallet, terms, once.actor, once.now)
        return {"registration_id": str(asked)}

    return once.answer(body, 202, perform, lambda stored: _stands(once.connection, actor.member_id, stored))


@router.post(
    "/me/registrations/meter",
    status_code=202,
    response_model=RegistrationAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(
        MeterNotFound,
        MeterAlreadyOnChain,
        MeterOwnedByAnother,
        MeterRetired,
        StatementOfAnotherDomain,
        UserNotOnChain,
        MeterCapacityRefused,
        *EVERY_PLANNING,
    ),
)
def request_meter_registration(body: MeterRegistration, hub: TheHub, actor: CurrentActor, once: OnceOnly) -> Response:
    """Ask for a meter of one's own to be registered on the chain. Its owner, the wallet, signs next."""
    terms = service.terms_of(hub.settings)

    def perform() -> Answer:
        asked = service.request_meter(once.connection, actor.member_id, body.meter_id, terms, once.actor, once.now)
        return {"registration_id": str(asked)}

    return once.answer(body, 202, perform, lambda stored: _stands(once.connection, actor.member_id, stored))


@router.get("/me/registrations", response_model=RegistrationsAnswer)
def list_my_registrations(
    query: Annotated[RegistrationsQuery, Query()], actor: CurrentActor, connection: Transaction
) -> Response:
    """What one has asked to be registered on the chain."""
    found = service.list_standings(connection, actor.member_id, query.cursor, query.limit + 1)
    return _page(found, query.limit, [standing_json(each) for each in found[: query.limit]])


@router.get(
    "/me/registrations/{registration_id}",
    response_model=RegistrationAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(RegistrationNotFound),
)
def get_registration(registration_id: RegistrationPath, actor: CurrentActor, connection: Transaction) -> Response:
    """How far a registration is, and, while it waits for the wallet, the transaction to sign."""
    return JSONResponse(standing_json(service.get_standing(connection, actor.member_id, registration_id)))


@router.post(
    "/me/registrations/{registration_id}/signature",
    status_code=202,
    response_model=RegistrationAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(
        RegistrationNotFound,
        WalletNotLinked,
        TransactionNotOurs,
        TransactionExpired,
        IntentNotAwaiting,
        WalletSignatureInvalid,
    ),
)
def sign_registration(
    registration_id: RegistrationPath, body: WalletSignature, actor: CurrentActor, once: OnceOnly
) -> Response:
    """Hand in the wallet's signature: from now on the transaction is being sent."""
    try:
        message = base64.b64decode(body.message, validate=True)
    except ValueError as fault:  # binascii.Error is one, and letters that are not ASCII raise another
        raise MalformedInput("message: not Base64") from fault

    def perform() -> Answer:
        service.sign_registration(
            once.connection, actor.member_id, registration_id, message, body.signature, once.actor, once.now
        )
        return {"registration_id": str(registration_id)}

    return once.answer(body, 202, perform, lambda stored: _stands(once.connection, actor.member_id, stored))


@router.get("/registrations", response_model=MemberRegistrationsAnswer)
def list_registrations(query: Annotated[RegistrationsQuery, Query()], connection: Transaction) -> Response:
    """What all members have asked to be registered on the chain, and who pays."""
    found = service.list_standings(connection, None, query.cursor, query.limit + 1)
    shown = [
        {
            **standing_json(each),
            "transaction": None,  # it is the wallet's owner who signs
            "member_id": str(each.registration.member_id),
            "rent_payer": base58.b58encode(each.sponsorship.payer).decode(),
        }
        for each in found[: query.limit]
    ]
    return _page(found, query.limit, shown)


def standing_json(standing: Standing) -> dict[str, Any]:
    """A registration as the API shows it."""
    asked = standing.registration
    says, expires_at = dict(asked.says), iso(asked.expires_at)
    return {
        "registration_id": str(asked.registration_id),
        "kind": asked.kind,
        "wallet": base58.b58encode(asked.wallet).decode(),
        "meter_id": asked.meter_id,
        "state": standing.state,
        "program_id": says["program_id"],
        "transaction": None
        if standing.to_sign is None
        else {
            "message": base64.b64encode(standing.to_sign.message).decode(),
            "signature": standing.to_sign.signature,
            "expires_at": expires_at,
            "says": says,
        },
        "signature": standing.signature,
        "error_code": asked.error_code,
        "error": asked.error,
        "rent_lamports": str(standing.sponsorship.lamports),
        "rent_state": standing.sponsorship.state,
        "requested_at": iso(asked.requested_at),
        "expires_at": expires_at,
        "ended_at": None if asked.ended_at is None else iso(asked.ended_at),
    }


def on_chain_json(account: ChainAccount | None) -> dict[str, Any] | None:
    """An account on the chain as the API shows it; null if there is none."""
    if account is None:
        return None
    address = base58.b58encode(account.address).decode()
    return {"address": address, "state": account.state, "signature": account.signature}


def _stands(connection: Transaction, member_id: UUID, stored: Answer) -> Answer:
    return standing_json(service.get_standing(connection, member_id, UUID(str(stored["registration_id"]))))


def _page(found: list[Standing], limit: int, shown: list[dict[str, Any]]) -> Response:
    last = found[limit - 1].registration.registration_id if len(found) > limit else None
    return JSONResponse({"registrations": shown, "next_cursor": None if last is None else str(last)})
