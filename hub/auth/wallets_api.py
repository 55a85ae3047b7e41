"""HTTP for wallets: a challenge, and what its signature is good for. How passwords do it is in `email_api.py`.

No route here needs an Idempotency-Key: a challenge can be answered once, so that a repeat is refused and does nothing.
None holds a transaction while a challenge is taken, for that has one of its own.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import Field

from hub.api_types import AnswerBody, Count, MemberName, Moment, Strict, iso, refusals
from hub.auth import members_service, sessions_service
from hub.auth import wallets_service as service
from hub.auth.addresses import ADDRESS_LENGTH_MAX, Chain, check_address
from hub.auth.email_rules import EmailText
from hub.auth.members_store import Identity
from hub.auth.proofs import Circle, Proof, SignedChallenge, ThisCircle, check_proof, check_signed_challenge
from hub.auth.sessions_answers import TokensAnswer, tokens_answer
from hub.auth.sessions_api import CurrentClient
from hub.auth.sign_in_message import sign_in_input, text_of
from hub.auth.wallets_service import Purpose, linking, setting_email, statement_of, unlinking
from hub.auth.wallets_store import Challenge
from hub.db import transaction
from hub.dependencies import CurrentActor, Transaction, refuse_query
from hub.errors import (
    AddressInvalid,
    ChallengeUnusable,
    LastWayIn,
    MemberSuspended,
    PasswordsBusy,
    ProofRefused,
    WalletAlreadyRegistered,
    WalletNotLinked,
    WalletNotRegistered,
    WalletsTooMany,
)
from hub.limits import policies
from hub.limits.clients import network_of
from hub.permissions import Role

router = APIRouter(tags=["wallets"], dependencies=[Depends(refuse_query)])

Address = Annotated[str, Field(min_length=1, max_length=ADDRESS_LENGTH_MAX)]


class Wallet(Strict):
    """A wallet: its chain and its address there."""

    chain: Chain
    address: Address


class ChallengeRequest(Wallet):
    """Which wallet will sign, and to do what."""

    purpose: Literal["sign_in", "register"]


class Registration(SignedChallenge):
    """A wallet's answer to a challenge for `register`, and who the new member is."""

    type: Literal["prosumer", "consumer"]
    name: MemberName


class LinkWallet(Wallet):
    """To let another wallet sign in."""

    kind: Literal["link_wallet"]

    @property
    def text(self) -> str:
        """As the owner of the wallet that confirms it reads it."""
        return linking(self.chain, self.address)


class UnlinkWallet(Wallet):
    """To let a wallet no longer sign in."""

    kind: Literal["unlink_wallet"]

    @property
    def text(self) -> str:
        """As the owner of the wallet that confirms it reads it."""
        return unlinking(self.chain, self.address)


class SetEmail(Strict):
    """To sign in with this e-mail address."""

    kind: Literal["set_email"]
    email: EmailText

    @property
    def text(self) -> str:
        """As the owner of the wallet that confirms it reads it."""
        return setting_email(self.email)


class ProofChallengeRequest(Wallet):
    """Which of the member's wallets will confirm which act."""

    act: Annotated[LinkWallet | UnlinkWallet | SetEmail, Field(discriminator="kind")]


class NewLink(Strict):
    """The new wallet's answer to its challenge, and the proof of a way in that the member has already."""

    new: SignedChallenge
    existing: Proof


class EndedLink(Wallet):
    """Which wallet goes, and the proof of a way in that the member has; it may be this very wallet."""

    existing: Proof


class SignInInput(AnswerBody):
    """The input of `solana:signIn` of the wallet standard."""

    domain: str
    address: str
    statement: str
    uri: str
    version: str
    chainId: str  # noqa: N815 - the standard's names
    nonce: str
    issuedAt: Moment  # noqa: N815
    expirationTime: Moment  # noqa: N815


class ChallengeAnswer(AnswerBody):
    """What the wallet is to sign, as a text and, for Solana, as what a wallet makes the same text from."""

    nonce: str
    message: str
    sign_in_input: SignInInput | None
    expires_at: Moment


class WalletAnswer(AnswerBody):
    """A wallet that signs in as the member."""

    chain: Chain
    address: str
    linked_at: Moment


class WalletsAnswer(AnswerBody):
    """The member's wallets, in the order in which they were linked."""

    wallets: list[WalletAnswer]


class EndedLinkAnswer(AnswerBody):
    """The wallet is the member's no longer, and so many other sessions have ended."""

    chain: Chain
    address: str
    sessions_ended: Count


@router.post("/auth/wallet/challenge", status_code=201, responses=refusals(AddressInvalid))
def ask_for_challenge(body: ChallengeRequest, circle: ThisCircle) -> ChallengeAnswer:
    """A text for a wallet to sign, to sign in or to register. It is good for five minutes, once."""
    return _issue(circle, body.purpose, body)


@router.post(
    "/auth/wallet/sign-in", responses=refusals(ChallengeUnusable, ProofRefused, WalletNotRegistered, MemberSuspended)
)
def sign_in_with_wallet(body: SignedChallenge, circle: ThisCircle, client: CurrentClient) -> TokensAnswer:
    """Open a session with a wallet's signature."""
    challenge = check_signed_challenge(circle, body, "sign_in")
    with transaction(circle.hub.engine) as connection:
        member_id = service.lock_member_of_wallet(connection, challenge.chain, challenge.address)
        tokens = sessions_service.open_session(
            connection, member_id, challenge.chain, client, circle.hub.token_keys, circle.now
        )
    return tokens_answer(tokens)


@router.post(
    "/auth/wallet/register",
    status_code=201,
    responses=refusals(ChallengeUnusable, ProofRefused, WalletAlreadyRegistered),
)
def register_with_wallet(body: Registration, circle: ThisCircle, client: CurrentClient) -> TokensAnswer:
    """Become a member with a wallet's signature, and sign in."""
    challenge = check_signed_challenge(circle, body, "register")
    with transaction(circle.hub.engine) as connection:
        member_id = service.register_member(
            connection, challenge.chain, challenge.address, Role(body.type), body.name, circle.now
        )
        tokens = sessions_service.open_session(
            connection, member_id, challenge.chain, client, circle.hub.token_keys, circle.now, newcomer=True
        )
    return tokens_answer(tokens)


@router.get("/me/wallets")
def list_wallets(actor: CurrentActor, connection: Transaction) -> WalletsAnswer:
    """The wallets that sign in as this member."""
    return WalletsAnswer(wallets=[_wallet_answer(each) for each in service.list_wallets(connection, actor.member_id)])


@router.post("/me/wallets/challenge", status_code=201, responses=refusals(AddressInvalid))
def ask_for_link_challenge(body: Wallet, circle: ThisCircle, actor: CurrentActor) -> ChallengeAnswer:
    """A text for a wallet that is to be linked to the member. That wallet's owner reads to whom."""
    return _issue(circle, "link", body, actor.member_id)


@router.post("/me/proofs/challenge", status_code=201, responses=refusals(AddressInvalid, WalletNotLinked))
def ask_for_proof_challenge(body: ProofChallengeRequest, circle: ThisCircle, actor: CurrentActor) -> ChallengeAnswer:
    """A text for a wallet that the member has, by which it confirms a change of how it signs in."""
    check_address(body.chain, body.address)
    if not isinstance(body.act, SetEmail):
        check_address(body.act.chain, body.act.address)  # nobody puts words of his own into what the owner reads
    with transaction(circle.hub.engine) as connection:
        if members_service.find_member_by_identity(connection, body.chain, body.address) != actor.member_id:
            raise WalletNotLinked
    return _issue(circle, "confirm", body, actor.member_id, body.act.text)


@router.post(
    "/me/wallets",
    status_code=201,
    responses=refusals(ChallengeUnusable, ProofRefused, WalletAlreadyRegistered, WalletsTooMany, PasswordsBusy),
)
def link_wallet(body: NewLink, circle: ThisCircle, actor: CurrentActor) -> WalletAnswer:
    """Let another wallet sign in as the member. Both sides prove themselves: the wallet, and the member anew."""
    challenge = check_signed_challenge(circle, body.new, "link", actor.member_id)
    check_proof(circle, body.existing, actor.member_id, linking(challenge.chain, challenge.address))
    with transaction(circle.hub.engine) as connection:
        sessions_service.lock_signed_in(connection, actor, circle.now)
        linked = service.link_wallet(
            connection, actor.member_id, challenge.chain, challenge.address, actor.reference, circle.now
        )
    return _wallet_answer(linked)


@router.post(
    "/me/wallets/unlink",
    responses=refusals(AddressInvalid, ChallengeUnusable, ProofRefused, WalletNotLinked, LastWayIn, PasswordsBusy),
)
def unlink_wallet(body: EndedLink, circle: ThisCircle, actor: CurrentActor) -> EndedLinkAnswer:
    """Let a wallet no longer sign in as the member, and end all other sessions."""
    check_address(body.chain, body.address)
    check_proof(circle, body.existing, actor.member_id, unlinking(body.chain, body.address))
    with transaction(circle.hub.engine) as connection:
        sessions_service.lock_signed_in(connection, actor, circle.now)
        ended = service.unlink_wallet(
            connection, actor.member_id, body.chain, body.address, actor.session_id, actor.reference, circle.now
        )
    return EndedLinkAnswer(chain=body.chain, address=body.address, sessions_ended=ended)


def _issue(
    circle: Circle, purpose: Purpose, wallet: Wallet, member_id: UUID | None = None, act: str = ""
) -> ChallengeAnswer:
    circle.guard.count_client(policies.CHALLENGE_BY_CLIENT)
    with transaction(circle.hub.engine) as connection:
        challenge = service.issue_challenge(
            connection,
            purpose,
            wallet.chain,
            wallet.address,
            statement_of(purpose, circle.site, member_id, act),
            member_id,
            circle.site,
            network_of(circle.guard.client_address),
            circle.now,
        )
    return _challenge_answer(challenge, circle)


def _challenge_answer(challenge: Challenge, circle: Circle) -> ChallengeAnswer:
    message = service.message_of(challenge, circle.site)
    return ChallengeAnswer(
        nonce=challenge.nonce,
        message=text_of(message),
        sign_in_input=SignInInput(**sign_in_input(message)) if challenge.chain == "solana" else None,
        expires_at=iso(challenge.expires_at),
    )


def _wallet_answer(identity: Identity) -> WalletAnswer:
    chain: Chain = "solana" if identity.kind == "solana" else "dogecoin"
    return WalletAnswer(chain=chain, address=identity.value, linked_at=iso(identity.linked_at))
