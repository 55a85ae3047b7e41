"""HTTP for members: what one is told of oneself, and what operators, auditors and admins know and decide of others.

It is here and not in `hub/auth` because it also tells how many meters a member has. How members sign in, and where, is
in `hub/auth`.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field
from sqlalchemy import Connection

from hub.actor import Actor
from hub.api_types import (
    CURSOR_DESCRIPTION,
    ITEMS_PER_PAGE_DEFAULT,
    ITEMS_PER_PAGE_MAX,
    MemberName,
    Note,
    Parameters,
    Strict,
    check_line,
    check_text,
    iso,
    refusals,
)
from hub.auth import members_service, members_standing
from hub.auth.members_store import EMAIL, Filters, Member
from hub.dependencies import CurrentActor, OnceOnly, Transaction, refuse_query
from hub.errors import LastAdmin, MemberNotActive, MemberNotFound, MemberNotSuspended, NotOverOneself, RoleUnchanged
from hub.idempotency import Answer
from hub.permissions import Permission, Role
from hub.registry import onboarding_service
from hub.registry import service as registry
from hub.registry.members_answers import (
    GivenRole,
    MeAnswer,
    MemberDetailAnswer,
    MembersAnswer,
    MemberState,
    MemberStateAnswer,
    MemberType,
    RolesAnswer,
)
from hub.registry.onboarding_api import on_chain_json

PHONE_LENGTH_MAX = 32
POSTAL_ADDRESS_LENGTH_MAX = 500
SEARCH_LENGTH_MAX = 100

router = APIRouter(tags=["members"])

MemberPath = Annotated[UUID, Path(description="The member's id.")]


class Profile(Strict):
    """What a member says of itself, in whole: null takes a phone number or a postal address away."""

    name: MemberName
    phone: Annotated[str, Field(max_length=PHONE_LENGTH_MAX, pattern="^[+]?[0-9][0-9 ()/.-]*$")] | None
    postal_address: (
        Annotated[str, Field(min_length=1, max_length=POSTAL_ADDRESS_LENGTH_MAX), AfterValidator(check_text)] | None
    )


class RoleChange(Strict):
    """Which role, and why; goes to the audit log."""

    role: GivenRole
    reason: Note


class StandingChange(Strict):
    """Why; goes to the audit log."""

    reason: Note


class MembersQuery(Parameters):
    """Which members, in the order in which they came; a filter left out means any."""

    state: MemberState | None = None
    type: MemberType | None = None
    role: GivenRole | None = None
    text: Annotated[str, AfterValidator(check_line)] | None = Field(
        default=None, min_length=1, max_length=SEARCH_LENGTH_MAX, description="A part of the name."
    )
    wallet: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="The public key of a wallet, as meters name their owner."
    )
    cursor: UUID | None = Field(default=None, description=CURSOR_DESCRIPTION)
    limit: int = Field(default=ITEMS_PER_PAGE_DEFAULT, ge=1, le=ITEMS_PER_PAGE_MAX)


@router.get("/me", response_model=MeAnswer, dependencies=[Depends(refuse_query)])
def get_me(actor: CurrentActor, connection: Transaction) -> Response:
    """Who one is here, and what one may."""
    return JSONResponse(_me_json(connection, actor))


@router.post("/me", response_model=MeAnswer, dependencies=[Depends(refuse_query)])
def change_me(body: Profile, actor: CurrentActor, once: OnceOnly) -> Response:
    """Change what one says of oneself."""

    def perform() -> Answer:
        members_service.change_profile(once.connection, actor.member_id, body.model_dump(), once.actor, once.now)
        return {}

    return once.answer(body, 200, perform, lambda _: _me_json(once.connection, actor))


@router.get("/members", response_model=MembersAnswer)
def list_members(query: Annotated[MembersQuery, Query()], connection: Transaction) -> Response:
    """Members by when they came; `next_cursor` is null on the last page."""
    filters = Filters(
        state=query.state,
        type=None if query.type is None else Role(query.type),
        role=None if query.role is None else Role(query.role),
        text=query.text,
        wallet=None if query.wallet is None else bytes.fromhex(query.wallet),
    )
    members, roles = members_service.list_members(connection, filters, query.cursor, query.limit + 1)
    page = members[: query.limit]
    return JSONResponse(
        {
            "members": [_member_json(member, roles[member.member_id]) for member in page],
            "next_cursor": str(page[-1].member_id) if len(members) > query.limit else None,
        }
    )


@router.get(
    "/members/{member_id}",
    response_model=MemberDetailAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MemberNotFound),
)
def get_member(member_id: MemberPath, actor: CurrentActor, connection: Transaction) -> Response:
    """A member. How to reach it is shown to whoever may also see contact data."""
    shown = _detail_json(connection, member_id)
    if actor.reach(Permission.MEMBERS_CONTACT) is None:
        shown["contact"] = None
    return JSONResponse(shown)


@router.post(
    "/members/{member_id}/roles/give",
    response_model=RolesAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MemberNotFound, NotOverOneself, RoleUnchanged),
)
def give_role(member_id: MemberPath, body: RoleChange, actor: CurrentActor, once: OnceOnly) -> Response:
    """Give a role to another member. It counts from the member's next request."""

    def perform() -> Answer:
        members_standing.give_role(once.connection, actor, member_id, Role(body.role), body.reason, once.now)
        return _roles_json(once.connection, member_id)

    return once.answer(body, 200, perform)


@router.post(
    "/members/{member_id}/roles/take",
    response_model=RolesAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MemberNotFound, RoleUnchanged, LastAdmin),
)
def take_role(member_id: MemberPath, body: RoleChange, actor: CurrentActor, once: OnceOnly) -> Response:
    """Take a role away, also from oneself. It counts from the member's next request."""

    def perform() -> Answer:
        members_standing.take_role(once.connection, actor, member_id, Role(body.role), body.reason, once.now)
        return _roles_json(once.connection, member_id)

    return once.answer(body, 200, perform)


@router.post(
    "/members/{member_id}/suspend",
    response_model=MemberStateAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MemberNotFound, NotOverOneself, MemberNotActive, LastAdmin),
)
def suspend_member(member_id: MemberPath, body: StandingChange, actor: CurrentActor, once: OnceOnly) -> Response:
    """End a member's sessions and let it in no more, by whatever way. Its meters go on."""

    def perform() -> Answer:
        members_standing.suspend_member(once.connection, actor, member_id, body.reason, once.now)
        return {"member_id": str(member_id), "state": "suspended"}

    return once.answer(body, 200, perform)


@router.post(
    "/members/{member_id}/reinstate",
    response_model=MemberStateAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MemberNotFound, MemberNotSuspended),
)
def reinstate_member(member_id: MemberPath, body: StandingChange, actor: CurrentActor, once: OnceOnly) -> Response:
    """Let a suspended member in again. It signs in anew; its API keys are good again."""

    def perform() -> Answer:
        members_standing.reinstate_member(once.connection, actor, member_id, body.reason, once.now)
        return {"member_id": str(member_id), "state": "active"}

    return once.answer(body, 200, perform)


def _me_json(connection: Connection, actor: Actor) -> dict[str, Any]:
    reaches = {permission: actor.reach(permission) for permission in Permission}
    return {
        **_detail_json(connection, actor.member_id),
        "permissions": {permission: reach for permission, reach in reaches.items() if reach is not None},
    }


def _detail_json(connection: Connection, member_id: UUID) -> dict[str, Any]:
    member = members_service.get_member(connection, member_id)
    known_by = members_service.list_identities(connection, member_id)
    email = next((each.value for each in known_by if each.kind == EMAIL), None)
    owners = [each.public_key for each in known_by if each.public_key is not None]
    users = onboarding_service.map_user_accounts(connection, owners)
    return {
        **_member_json(member, members_service.given_roles_of(connection, member_id)),
        "wallets": [
            {
                "chain": each.kind,
                "address": each.value,
                "public_key": None if each.public_key is None else each.public_key.hex(),
                "linked_at": iso(each.linked_at),
                "chain_account": None if each.public_key is None else on_chain_json(users.get(each.public_key)),
            }
            for each in known_by
            if each.kind != EMAIL
        ],
        "contact": {"email": email, "phone": member.phone, "postal_address": member.postal_address},
        "meters": registry.count_meters(connection, owners),
    }


def _member_json(member: Member, roles: list[Role]) -> dict[str, Any]:
    return {
        "member_id": str(member.member_id),
        "type": member.type,
        "name": member.name,
        "state": member.state,
        "roles": roles,
        "created_at": iso(member.created_at),
    }


def _roles_json(connection: Connection, member_id: UUID) -> Answer:
    return {"member_id": str(member_id), "roles": members_service.given_roles_of(connection, member_id)}
