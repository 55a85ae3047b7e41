"""What the routes about members answer, as the description of the interface tells it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hub.api_types import AnswerBody, Count, Moment, NextCursor
from hub.registry.onboarding_answers import OnChainAnswer

MemberType = Literal["prosumer", "consumer"]
GivenRole = Literal["investor", "asset_manager", "operator", "auditor", "admin"]
MemberState = Literal["active", "suspended"]


class MemberAnswer(AnswerBody):
    """A member as others see it who must know it. `roles` are those that it was given, besides its type."""

    member_id: str = Field(json_schema_extra={"format": "uuid"})
    type: MemberType
    name: str
    state: MemberState
    roles: list[GivenRole]
    created_at: Moment


class MembersAnswer(AnswerBody):
    """A page of members."""

    members: list[MemberAnswer]
    next_cursor: NextCursor


class MemberWalletAnswer(AnswerBody):
    """A wallet that the member has proven to be its own. Of a Solana wallet also the public key, as meters name it."""

    chain: Literal["solana", "dogecoin"]
    address: str
    public_key: str | None = Field(description="32 bytes in hexadecimal.")
    linked_at: Moment
    chain_account: OnChainAnswer | None = Field(description="Its User on the chain; null if it is not registered.")


class ContactAnswer(AnswerBody):
    """How to reach a member. The e-mail address is proven, the rest is what the member says."""

    email: str | None
    phone: str | None
    postal_address: str | None


class MemberDetailAnswer(MemberAnswer):
    """A member, its wallets, and how many meters name one of them as owner. `contact` is null if one may not see it."""

    wallets: list[MemberWalletAnswer]
    contact: ContactAnswer | None
    meters: Count


class MeAnswer(MemberAnswer):
    """Who one is here. `permissions` say what this session may, and whether of one's own things or of all."""

    wallets: list[MemberWalletAnswer]
    contact: ContactAnswer
    meters: Count
    permissions: dict[str, Literal["own", "all"]]


class RolesAnswer(AnswerBody):
    """The roles that the member has now, besides its type."""

    member_id: str = Field(json_schema_extra={"format": "uuid"})
    roles: list[GivenRole]


class MemberStateAnswer(AnswerBody):
    """The state that the member is in now."""

    member_id: str = Field(json_schema_extra={"format": "uuid"})
    state: MemberState
