"""What the routes of onboarding answer, as the description of the interface tells it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.api_types import AnswerBody, Bytes32, MeterName, Moment, NextCursor

Address = Annotated[str, Field(description="32 bytes in base58.")]
TransactionId = Annotated[str, Field(description="The signature in base58 by which the chain knows a transaction.")]
Lamports = Annotated[str, Field(pattern="^[0-9]+$", description="10⁻⁹ SOL, as a decimal number.")]
RegistrationKind = Literal["user.register", "meter.register"]
RegistrationState = Literal["planned", "awaiting_wallet", "open", "unknown", "finalized", "failed", "expired"]
AccountState = Literal["active", "suspended", "deactivated"]


class OnChainAnswer(AnswerBody):
    """An account on the chain. `signature` is of the transaction that made it; null if the hub has not seen that."""

    address: Address
    state: AccountState
    signature: TransactionId | None


class SaysAnswer(AnswerBody):
    """What a transaction does, in fields and in words. A wallet believes neither: it reads the message."""

    words: str
    program_id: Address
    fee_payer: Address = Field(description="The hub's key: it pays fee and rent.")
    wallet: Address
    account: Address = Field(description="The account that is made.")
    member_type: Literal["prosumer", "consumer"] | None = None
    meter_id: MeterName | None = None
    meter_kind: Literal["solar", "wind", "battery", "grid"] | None = None
    capacity_w: int | None = None
    register_step_wh: int | None = None
    public_key: Bytes32 | None = None
    key_epoch: int | None = None
    grid_account: Address | None = None
    grid_mint: Address | None = None


class ToSignAnswer(AnswerBody):
    """A transaction that waits for the wallet's signature over `message`. It is built anew about once a minute, so that
    it can still land; until `expires_at` there is always another."""

    message: str = Field(description="The bytes to sign, in Base64.")
    signature: TransactionId
    expires_at: Moment
    says: SaysAnswer


class RegistrationAnswer(AnswerBody):
    """Something that a member has asked to be registered on the chain, and how far it is."""

    registration_id: str = Field(json_schema_extra={"format": "uuid"})
    kind: RegistrationKind
    wallet: Address
    meter_id: MeterName | None
    state: RegistrationState
    program_id: Address
    transaction: ToSignAnswer | None = Field(description="While it waits for the wallet.")
    signature: TransactionId | None
    error_code: str | None
    error: str | None
    rent_lamports: Lamports
    rent_state: Literal["reserved", "paid", "given_back"]
    requested_at: Moment
    expires_at: Moment = Field(description="Until then the wallet may sign.")
    ended_at: Moment | None


class RegistrationsAnswer(AnswerBody):
    """A page of one's own registrations, newest first."""

    registrations: list[RegistrationAnswer]
    next_cursor: NextCursor


class MemberRegistrationAnswer(RegistrationAnswer):
    """A registration, whose it is, and who pays the rent for it."""

    member_id: str = Field(json_schema_extra={"format": "uuid"})
    rent_payer: Address


class MemberRegistrationsAnswer(AnswerBody):
    """A page of all members' registrations, newest first."""

    registrations: list[MemberRegistrationAnswer]
    next_cursor: NextCursor
