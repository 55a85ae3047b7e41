"""Use cases of wallets: ask one to sign, take the answer once, register with it, sign in with it, link and unlink it.

An answer is taken in two steps. `take_challenge` forgets the challenge, in a transaction of its own that is committed
before anything is judged; then `check_answer` judges. So whatever comes under a nonce, nothing comes under it again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import Connection, Engine

from hub.audit import append_audit
from hub.auth import (
    mail_proofs_store,
    members_service,
    members_store,
    notices,
    sessions_service,
    sessions_store,
    wallets_store,
)
from hub.auth.addresses import Chain, check_address
from hub.auth.members_store import Identity
from hub.auth.sign_in_message import (
    CHALLENGE_LIFE,
    NONCE_LENGTH,
    NONCE_LETTERS,
    SignInMessage,
    chain_id_of,
    check_signed,
    domain_of_origin,
)
from hub.auth.wallets_store import Challenge
from hub.db import transaction
from hub.errors import (
    ChallengeUnusable,
    IdentityTaken,
    LastWayIn,
    WalletAlreadyRegistered,
    WalletNotLinked,
    WalletNotRegistered,
    WalletsTooMany,
)
from hub.permissions import Role

Purpose = Literal["sign_in", "register", "link", "confirm"]

WALLET_KINDS: Final = (members_store.SOLANA, members_store.DOGECOIN)
WALLETS_MAX: Final = 20
"""Of one member, on all chains together."""

CLIENT_CHALLENGES_MAX: Final = 100
CLIENT_ADDRESS_CHALLENGES_MAX: Final = 5
ADDRESS_CHALLENGES_MAX: Final = 1_000
"""Unanswered ones of one client, of one client for one address, of all clients for one address; beyond that the
oldest are forgotten. Nobody can push out what somebody else asked for, but with two hundred addresses of its own."""

_CHAIN_NAMES: Final = {"solana": "Solana", "dogecoin": "Dogecoin"}


@dataclass(frozen=True)
class Site:
    """For what a wallet signs: this community, from this page, with this chain."""

    community_id: str
    origin: str
    genesis_hash_hex: str


def statement_of(purpose: Purpose, site: Site, member_id: UUID | None = None, act: str = "") -> str:
    """What the owner of the wallet reads: one line that says what the signature will be used for."""
    if purpose == "sign_in":
        return f"Sign in to the energy community {site.community_id}."
    if purpose == "register":
        return f"Become a member of the energy community {site.community_id}."
    if purpose == "link":
        return f"Let this account sign in as the member {member_id} of the energy community {site.community_id}."
    return f"As the member {member_id} of the energy community {site.community_id}, I {act}."


def linking(chain: Chain, address: str) -> str:
    """How an owner confirms that a wallet is added."""
    return f"let the {_CHAIN_NAMES[chain]} account {address} sign in as me"


def unlinking(chain: Chain, address: str) -> str:
    """How an owner confirms that a wallet is removed."""
    return f"no longer let the {_CHAIN_NAMES[chain]} account {address} sign in as me"


def setting_email(email: str) -> str:
    """How an owner confirms that an e-mail address, in its one spelling, is added or takes the place of another."""
    return f"let whoever reads the mail of {email} sign in as me"


def issue_challenge(
    connection: Connection,
    purpose: Purpose,
    chain: Chain,
    address: str,
    statement: str,
    member_id: UUID | None,
    site: Site,
    client: str,
    now: datetime,
) -> Challenge:
    """Remember what this wallet is asked to sign. Raises AddressInvalid."""
    check_address(chain, address)
    issued_at = now.replace(microsecond=0)
    nonce = "".join(secrets.choice(NONCE_LETTERS) for _ in range(NONCE_LENGTH))
    challenge = Challenge(
        nonce,
        chain,
        purpose,
        address,
        site.origin,
        member_id,
        statement,
        client,
        issued_at,
        issued_at + CHALLENGE_LIFE,
    )
    wallets_store.insert_challenge(connection, challenge)
    for equal, most in (
        ({"client": client, "address": address}, CLIENT_ADDRESS_CHALLENGES_MAX),
        ({"client": client}, CLIENT_CHALLENGES_MAX),
        ({"address": address}, ADDRESS_CHALLENGES_MAX),
    ):
        wallets_store.delete_challenges_but_newest(connection, equal, most - 1, nonce)
    return challenge


def message_of(challenge: Challenge, site: Site) -> SignInMessage:
    """What the text of a challenge says."""
    return SignInMessage(
        challenge.chain,
        domain_of_origin(challenge.origin),
        challenge.address,
        challenge.statement,
        challenge.origin,
        chain_id_of(challenge.chain, site.genesis_hash_hex),
        challenge.nonce,
        challenge.issued_at,
        challenge.expires_at,
    )


def take_challenge(engine: Engine, nonce: str) -> Challenge:
    """Forget a challenge, for good, and return it. Raises ChallengeUnusable."""
    with transaction(engine) as connection:
        challenge = wallets_store.delete_challenge(connection, nonce)
    if challenge is None:
        raise ChallengeUnusable("unknown, used already, or expired")
    return challenge


def check_answer(
    challenge: Challenge,
    purpose: Purpose,
    statement: str,
    member_id: UUID | None,
    site: Site,
    signed_message: bytes,
    signature: bytes,
    now: datetime,
) -> None:
    """Whether the wallet has signed what it was asked to, for what it is used for now.

    Raises ChallengeUnusable if it was asked for something else, ProofRefused if it did not sign.
    """
    if (challenge.purpose, challenge.member_id, challenge.statement) != (purpose, member_id, statement):
        raise ChallengeUnusable("it was issued for something else")
    if challenge.origin != site.origin:
        raise ChallengeUnusable(f"it was issued for {challenge.origin}")
    check_signed(message_of(challenge, site), signed_message, signature, now)


def lock_member_of_wallet(connection: Connection, chain: Chain, address: str) -> UUID:
    """Who has this wallet, and keeps it until the transaction ends. Raises WalletNotRegistered."""
    member_id = members_service.find_member_by_identity(connection, chain, address)
    if member_id is not None:
        sessions_store.lock_member(connection, member_id)  # before the wallet, as whoever unlinks it does
        if members_service.find_member_by_identity(connection, chain, address) == member_id:
            return member_id
    raise WalletNotRegistered


def register_member(
    connection: Connection, chain: Chain, address: str, member_type: Role, name: str, now: datetime
) -> UUID:
    """Make a member who signs in with this wallet. Audited. Raises WalletAlreadyRegistered."""
    member_id = members_service.create_member(connection, member_type, name, "", now)
    _add_wallet(connection, member_id, chain, address, f"member:{member_id}", now)
    return member_id


def link_wallet(
    connection: Connection, member_id: UUID, chain: Chain, address: str, actor: str, now: datetime
) -> Identity:
    """Let this wallet, too, sign in as the member; both sides have been proven. Audited.

    Raises WalletAlreadyRegistered, WalletsTooMany.
    """
    sessions_store.lock_member(connection, member_id)
    if len(list_wallets(connection, member_id)) >= WALLETS_MAX:
        raise WalletsTooMany
    _add_wallet(connection, member_id, chain, address, actor, now)
    notices.tell_wallet_linked(connection, member_id, chain, address, now)
    return Identity(chain, address, check_address(chain, address), now)


def unlink_wallet(
    connection: Connection,
    member_id: UUID,
    chain: Chain,
    address: str,
    session_id: UUID | None,
    actor: str,
    now: datetime,
) -> int:
    """Let this wallet no longer sign in as the member, and end every session but this one and what was asked for by
    mail: who has lost a wallet wants its finder out. Returns how many sessions ended. Audited.

    Raises WalletNotLinked, LastWayIn.
    """
    sessions_store.lock_member(connection, member_id)
    if not wallets_store.delete_wallet(connection, member_id, chain, address):
        raise WalletNotLinked
    if not members_store.list_identities(connection, member_id):
        raise LastWayIn
    detail = {"kind": chain, "value": address}
    append_audit(connection, now, actor, "member.unlink", f"member:{member_id}", detail)
    mail_proofs_store.end_proofs(connection, None, member_id, now)
    ended = sessions_service.end_sessions_of_member(connection, member_id, "wallet_unlinked", actor, now, session_id)
    notices.tell_wallet_unlinked(connection, member_id, chain, address, ended, now)
    return ended


def list_wallets(connection: Connection, member_id: UUID) -> list[Identity]:
    """The wallets that sign in as this member, in the order in which they were linked."""
    return [each for each in members_store.list_identities(connection, member_id) if each.kind in WALLET_KINDS]


def _add_wallet(connection: Connection, member_id: UUID, chain: Chain, address: str, actor: str, now: datetime) -> None:
    try:
        members_service.add_identity(connection, member_id, chain, address, check_address(chain, address), actor, now)
    except IdentityTaken as fault:
        raise WalletAlreadyRegistered from fault
