"""The proof that a change of how a member signs in asks for, besides a session: a wallet's signature, or the password.

A session may have been left open or stolen; what lets somebody in for ever needs more than it. A wallet signs a
challenge of `POST /me/proofs/challenge`, whose text names the act.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, Request
from pydantic import AfterValidator, Field

from hub.api_types import Strict
from hub.auth import email_service, members_service, wallets_service
from hub.auth.passwords import TYPED_LENGTH_MAX
from hub.auth.sign_in_message import NONCE_LENGTH, SIGNATURE_BYTES_MAX, TEXT_BYTES_MAX
from hub.auth.wallets_service import Purpose, Site
from hub.auth.wallets_store import Challenge
from hub.db import transaction
from hub.dependencies import Hub, Now, TheGuard, TheHub
from hub.errors import ProofRefused
from hub.limits import policies
from hub.limits.guard import Guard


def _check_base64(value: str) -> str:
    try:
        written = base64.b64encode(base64.b64decode(value, validate=True)).decode()
    except (binascii.Error, ValueError):
        written = ""
    if written != value:
        raise ValueError("standard base64 with padding")
    return value


Nonce = Annotated[str, Field(pattern=f"^[A-Za-z0-9]{{{NONCE_LENGTH}}}$")]
MessageBase64 = Annotated[str, Field(max_length=-(-TEXT_BYTES_MAX // 3) * 4), AfterValidator(_check_base64)]
SignatureBase64 = Annotated[str, Field(max_length=-(-SIGNATURE_BYTES_MAX // 3) * 4), AfterValidator(_check_base64)]


class SignedChallenge(Strict):
    """A wallet's answer: the nonce of the challenge, the bytes that the wallet says it signed, and the signature."""

    nonce: Nonce
    signed_message: MessageBase64
    signature: SignatureBase64


class WalletProof(SignedChallenge):
    """A wallet that signs in as the member already has signed what is to be done."""

    kind: Literal["wallet"]


class PasswordProof(Strict):
    """The member's password."""

    kind: Literal["password"]
    password: str = Field(min_length=1, max_length=TYPED_LENGTH_MAX)


Proof = Annotated[WalletProof | PasswordProof, Field(discriminator="kind")]


def get_site(request: Request, hub: TheHub) -> Site:
    """For which page wallets sign: one of the configured ones if the request comes from it, else the hub's own."""
    origin = request.headers.get("origin", "")
    if origin not in hub.settings.cors_origins:
        origin = hub.settings.public_url
    return Site(hub.settings.community_id, origin, hub.settings.genesis_hash_hex)


ThisSite = Annotated[Site, Depends(get_site)]


@dataclass(frozen=True)
class Circle:
    """Where a proof is judged: the hub, what guards it against guesses, the page, the time."""

    hub: Hub
    guard: Guard
    site: Site
    now: datetime


def get_circle(hub: TheHub, guard: TheGuard, site: ThisSite, now: Now) -> Circle:
    """Of this request."""
    return Circle(hub, guard, site, now)


ThisCircle = Annotated[Circle, Depends(get_circle)]


def check_proof(circle: Circle, proof: Proof, member_id: UUID, act: str) -> None:
    """Whether the member has proven that it wants this act (`linking`, `unlinking`, `setting_email`).

    Call it outside any transaction. Raises ProofRefused, ChallengeUnusable, RateLimited, PasswordsBusy.
    """
    if isinstance(proof, PasswordProof):
        circle.guard.count(policies.PASSWORD_BY_MEMBER, str(member_id))
        if not email_service.check_password(circle.hub.engine, member_id, proof.password):
            raise ProofRefused("this is not your password")
        return
    challenge = check_signed_challenge(circle, proof, "confirm", member_id, act)
    with transaction(circle.hub.engine) as connection:
        found = members_service.find_member_by_identity(connection, challenge.chain, challenge.address)
    if found != member_id:
        raise ProofRefused("this wallet is not yours")


def check_signed_challenge(
    circle: Circle, answer: SignedChallenge, purpose: Purpose, member_id: UUID | None = None, act: str = ""
) -> Challenge:
    """Take the challenge, whatever comes of it, and judge the answer. Call it outside any transaction.

    Raises ChallengeUnusable, ProofRefused, RateLimited.
    """
    circle.guard.count_client(policies.WALLET_BY_CLIENT)
    challenge = wallets_service.take_challenge(circle.hub.engine, answer.nonce)
    wallets_service.check_answer(
        challenge,
        purpose,
        wallets_service.statement_of(purpose, circle.site, member_id, act),
        member_id,
        circle.site,
        base64.b64decode(answer.signed_message),
        base64.b64decode(answer.signature),
        circle.now,
    )
    return challenge
