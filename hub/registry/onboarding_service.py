"""Use cases of onboarding: a member has its wallet, and then its meters, registered on the chain (seed 001, section 2).

The hub plans, builds and pays; the wallet signs what the hub built, and nothing else; the chain process does the rest
and says here how it ended (`onboarding_reactions.py`). Nothing here touches the network.

What is asked for twice while the first is open is answered with the first: there is never a second open intent of one
wallet or meter, and the database holds that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import base58
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from hub.audit import append_audit
from hub.auth import members_service
from hub.auth.addresses import parse_solana_address
from hub.chain import instructions, intents, mirrors
from hub.chain.accounts import ConfigAccount
from hub.chain.addresses import Addresses
from hub.chain.intents import IntentState, Plan
from hub.chain.token_2022 import create_grid_account
from hub.errors import (
    ChainNotConfigured,
    MalformedInput,
    MeterNotFound,
    RegistrationInProgress,
    RegistrationNotFound,
    WalletNotLinked,
)
from hub.live.publishing import Update, publish
from hub.live.topics import transactions_of
from hub.registry import keys_store
from hub.registry import onboarding_rules as rules
from hub.registry import onboarding_store as store
from hub.registry import store as meters_store
from hub.registry.onboarding_store import ChainAccount, Registration, Sponsorship
from hub.settings import Settings
from protocol.enrolment import KIND_NAMES


@dataclass(frozen=True)
class ToSign:
    """A transaction that waits for the wallet: its message, and the id that it will have on the chain."""

    message: bytes
    signature: str


@dataclass(frozen=True)
class Standing:
    """How far a registration is. `signature` is the id of the transaction that ended it, else of the newest one."""

    registration: Registration
    state: str
    signature: str | None
    to_sign: ToSign | None
    sponsorship: Sponsorship


@dataclass(frozen=True)
class _Asked:
    """What is to be registered, before it is asked whether the hub pays for it."""

    kind: str
    subject: str
    wallet: bytes
    meter_id: str | None
    lamports: int
    compute_units: int
    instructions: tuple[Instruction, ...]
    says: Mapping[str, Any]


def terms_of(settings: Settings) -> rules.Terms:
    """For which program this hub registers, and what it pays. Raises ChainNotConfigured."""
    if not settings.rpc_url:
        raise ChainNotConfigured
    return rules.Terms(
        Pubkey.from_bytes(bytes.fromhex(settings.program_id_hex)),
        settings.domain,
        settings.sponsor_lamports_per_member_max,
        settings.sponsor_lamports_per_day_max,
    )


def request_user(
    connection: Connection, member_id: UUID, address: str, terms: rules.Terms, actor: str, now: datetime
) -> UUID:
    """Begin to register a wallet of the member's as a User of the member's type. The registration that does it.

    Raises AddressInvalid, WalletNotLinked, ChainNotReady, ProgramPaused, UserAlreadyOnChain, RegistrationInProgress,
    SponsorshipUsedUp, SponsorshipUsedUpToday. Audited.
    """
    wallet = parse_solana_address(address)
    if wallet not in members_service.wallets_of(connection, member_id):
        raise WalletNotLinked(address)
    store.lock_planning(connection)
    subject = f"wallet:{address}"
    open_id = _find_open(connection, subject, member_id)
    if open_id is not None:
        return open_id
    config = rules.check_program(mirrors.find_config(connection), terms.domain)
    rules.check_user(mirrors.find_user(connection, wallet))
    at = Addresses(terms.program_id)
    kind = rules.USER_KINDS[members_service.get_member(connection, member_id).type]
    says = {
        **_parties(at, config, wallet),
        "account": str(at.user(wallet)),
        "member_type": kind.name.lower(),
        "words": f"Registers the wallet {address} as a {kind.name.lower()} of this community. The hub pays.",
    }
    asked = _Asked(
        rules.USER_KIND,
        subject,
        wallet,
        None,
        rules.USER_RENT_LAMPORTS,
        rules.USER_COMPUTE_UNITS,
        (instructions.register_user(at, config.hub, wallet, kind),),
        says,
    )
    return _begin(connection, member_id, asked, config, terms, "user.register_on_chain", actor, now)


def request_meter(
    connection: Connection, member_id: UUID, meter_id: str, terms: rules.Terms, actor: str, now: datetime
) -> UUID:
    """Begin to register a meter, which one of the member's wallets owns, with the statement of its first key. Later
    keys are rotated in by the minting worker. The registration that does it.

    Raises MeterNotFound, ChainNotReady, ProgramPaused, MeterAlreadyOnChain, MeterOwnedByAnother, MeterRetired,
    StatementOfAnotherDomain, UserNotOnChain, MeterCapacityRefused, RegistrationInProgress, SponsorshipUsedUp,
    SponsorshipUsedUpToday. Audited.
    """
    meter = meters_store.get_meter_for_update(connection, meter_id)
    if meter.owner not in members_service.wallets_of(connection, member_id):
        raise MeterNotFound(meter_id)
    store.lock_planning(connection)
    subject = f"meter:{meter_id}"
    open_id = _find_open(connection, subject, member_id)
    if open_id is not None:
        return open_id
    config = rules.check_program(mirrors.find_config(connection), terms.domain)
    first_key = keys_store.list_keys(connection, meter.meter_no)[0]
    statement = first_key.decoded
    capacity_w, register_step_wh = meter.production_capacity_w, meter.register_quantum_wh
    rules.check_meter(
        statement,
        meter.state,
        capacity_w,
        register_step_wh,
        mirrors.find_user(connection, meter.owner),
        mirrors.find_meter(connection, meter_id),
        config,
    )
    at, mint = Addresses(terms.program_id), Pubkey.from_bytes(config.grid_mint)
    grid_account = at.grid_account(meter.owner, mint)
    signed = instructions.Signed(first_key.public_key, first_key.statement, first_key.signature)
    says = {
        **_parties(at, config, meter.owner),
        "account": str(at.meter(meter_id)),
        "meter_id": meter_id,
        "meter_kind": KIND_NAMES[statement.kind],
        "capacity_w": capacity_w,
        "register_step_wh": register_step_wh,
        "public_key": statement.public_key.hex(),
        "key_epoch": statement.key_epoch,
        "grid_account": str(grid_account),
        "grid_mint": str(mint),
        "words": f"Registers the {KIND_NAMES[statement.kind]} meter {meter_id}, at most {capacity_w} W, as a meter of"
        f" the wallet {_base58(meter.owner)}, and makes the account that its GRID comes to. The hub pays.",
    }
    asked = _Asked(
        rules.METER_KIND,
        subject,
        meter.owner,
        meter_id,
        rules.METER_RENT_LAMPORTS,
        rules.METER_COMPUTE_UNITS,
        (
            create_grid_account(config.hub, meter.owner, mint, grid_account),
            *instructions.register_meter(
                at, config.hub, meter.owner, meter_id, mint, signed, capacity_w, register_step_wh
            ),
        ),
        says,
    )
    return _begin(connection, member_id, asked, config, terms, "meter.register_on_chain", actor, now)


def sign_registration(
    connection: Connection,
    member_id: UUID,
    registration_id: UUID,
    message: bytes,
    signature: str,
    actor: str,
    now: datetime,
) -> None:
    """Take the wallet's signature (base58) over the message that the hub built; from then on it is being sent. Audited.

    Raises RegistrationNotFound, WalletNotLinked, MalformedInput, TransactionNotOurs, TransactionExpired,
    IntentNotAwaiting, WalletSignatureInvalid.
    """
    registration = _get(connection, member_id, registration_id)
    if registration.wallet not in members_service.wallets_of(connection, member_id):
        raise WalletNotLinked(_base58(registration.wallet))
    try:
        signature_bytes = base58.b58decode(signature)
    except ValueError as fault:
        raise MalformedInput("signature: not base58") from fault
    intent = intents.take_wallet_signature(connection, registration_id, message, signature_bytes, now)
    detail = {"subject": registration.subject, "signature": intent.signature}
    append_audit(connection, now, actor, "registration.sign", f"registration:{registration_id}", detail)
    publish_update(connection, registration, intent.state, intent.signature, None, now)


def get_standing(connection: Connection, member_id: UUID, registration_id: UUID) -> Standing:
    """How far a registration of this member's is. Raises RegistrationNotFound."""
    registration = _get(connection, member_id, registration_id)
    sponsorships = store.map_sponsorships(connection, [registration_id])
    return _standing(connection, registration, sponsorships[registration_id])


def list_standings(connection: Connection, member_id: UUID | None, after_id: UUID | None, limit: int) -> list[Standing]:
    """Registrations of this member, or of all, newest first, beginning behind one of them.

    Raises MalformedInput if there is no such one to begin behind.
    """
    before = None
    if after_id is not None:
        last = store.find_registration(connection, after_id)
        if last is None or member_id not in (None, last.member_id):
            raise MalformedInput("cursor: not one that this list gave out")
        before = (last.requested_at, last.registration_id)
    found = store.list_registrations(connection, member_id, before, limit)
    sponsorships = store.map_sponsorships(connection, [each.registration_id for each in found])
    return [_standing(connection, each, sponsorships[each.registration_id]) for each in found]


def map_meter_accounts(connection: Connection, meter_ids: list[str]) -> dict[str, ChainAccount]:
    """The accounts of these meters on the chain; those that have none are left out."""
    return store.map_meter_accounts(connection, meter_ids)


def map_user_accounts(connection: Connection, wallets: list[bytes]) -> dict[bytes, ChainAccount]:
    """The accounts of these wallets as users on the chain; those that have none are left out."""
    return store.map_user_accounts(connection, wallets)


def publish_update(
    connection: Connection,
    registration: Registration,
    state: str,
    signature: str | None,
    error_code: str | None,
    now: datetime,
) -> None:
    """Tell the member how far its registration is."""
    data = {
        "transaction_id": str(registration.registration_id),
        "kind": registration.kind,
        "subject": registration.subject,
        "state": state,
        "signature": signature,
        "error_code": error_code,
    }
    publish(connection, [Update(transactions_of(registration.member_id), "transaction.updated", data)], now)


def _find_open(connection: Connection, subject: str, member_id: UUID) -> UUID | None:
    """The open registration of this subject. Raises RegistrationInProgress if another member asked for it."""
    registration = store.find_open_registration(connection, subject)
    if registration is None:
        return None
    if registration.member_id != member_id:
        raise RegistrationInProgress
    return registration.registration_id


def _begin(
    connection: Connection,
    member_id: UUID,
    asked: _Asked,
    config: ConfigAccount,
    terms: rules.Terms,
    action: str,
    actor: str,
    now: datetime,
) -> UUID:
    """Reserve the rent, plan the intent, write the registration. The planning is locked."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rules.check_sponsorship(
        asked.lamports,
        store.sum_sponsored(connection, member_id),
        store.sum_sponsored_since(connection, midnight),
        terms,
    )
    registration = Registration(
        registration_id=uuid4(),
        member_id=member_id,
        kind=asked.kind,
        subject=asked.subject,
        wallet=asked.wallet,
        meter_id=asked.meter_id,
        says=asked.says,
        outcome=None,
        signature=None,
        slot=None,
        error_code=None,
        error=None,
        requested_at=now,
        expires_at=now + timedelta(seconds=rules.WALLET_VALID_FOR_S),
        ended_at=None,
    )
    plan = Plan(
        intent_id=registration.registration_id,
        kind=asked.kind,
        subject=asked.subject,
        instructions=asked.instructions,
        compute_units=asked.compute_units,
        wallet=asked.wallet,
        valid_for_s=rules.WALLET_VALID_FOR_S,
    )
    intents.plan_intent(connection, plan, now)
    store.insert_registration(connection, registration)
    store.insert_sponsorship(
        connection,
        Sponsorship(plan.intent_id, config.hub, member_id, asked.lamports, store.RESERVED, now, None),
    )
    detail = {
        "registration_id": str(plan.intent_id),
        "wallet": _base58(asked.wallet),
        "rent_lamports": str(asked.lamports),
    }
    append_audit(connection, now, actor, action, asked.subject, detail)
    publish_update(connection, registration, IntentState.PLANNED, None, None, now)
    return plan.intent_id


def _standing(connection: Connection, registration: Registration, sponsorship: Sponsorship) -> Standing:
    if registration.outcome is not None:
        return Standing(registration, registration.outcome, registration.signature, None, sponsorship)
    intent = intents.get_intent(connection, registration.registration_id)
    newest, to_sign = intent.newest, None
    if intent.state is IntentState.AWAITING_WALLET and newest is not None:
        to_sign = ToSign(newest.message, newest.signature)
    return Standing(registration, intent.state, intent.signature, to_sign, sponsorship)


def _get(connection: Connection, member_id: UUID, registration_id: UUID) -> Registration:
    registration = store.find_registration(connection, registration_id)
    if registration is None or registration.member_id != member_id:
        raise RegistrationNotFound(str(registration_id))
    return registration


def _parties(at: Addresses, config: ConfigAccount, wallet: bytes) -> dict[str, str]:
    return {"program_id": str(at.program_id), "fee_payer": _base58(config.hub), "wallet": _base58(wallet)}


def _base58(key: bytes) -> str:
    return base58.b58encode(key).decode()
