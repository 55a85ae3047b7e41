"""HTTP for what a member was told, and for what it wants to be told how. Webhooks are in `webhooks_api.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from hub.api_types import AnswerBody, Count, Moment, NextCursor, Page, Strict, decode_cursor, encode_cursor, refusals
from hub.dependencies import CurrentActor, OnceOnly, Transaction, refuse_query
from hub.errors import NotificationNotFound, PreferenceFixed
from hub.idempotency import Answer
from hub.notifications import kinds, service, store
from hub.notifications.kinds import GROUPS, Audience, Channel
from hub.notifications.service import OPERATORS
from hub.permissions import Role

NEWEST = 2**53 - 1
"""Before every notification."""

router = APIRouter(tags=["notifications"])

NotificationId = Annotated[int, Field(ge=1, le=NEWEST)]
GroupName = Literal[
    "account",
    "email_and_password",
    "meters",
    "meter_keys",
    "held",
    "silence",
    "transactions",
    "endpoints",
    "tokens",
    "summaries",
    "fleet",
    "alarms",
]

assert set(GROUPS) == set(GroupName.__args__)  # type: ignore[attr-defined]


class NotificationsQuery(Page):
    """A page of notifications, newest first."""

    unread: bool = Field(default=False, description="Only those that are not read.")


class Read(Strict):
    """Which notification was read; with `and_older`, every older one too."""

    notification_id: NotificationId
    and_older: bool = False


class Preference(Strict):
    """Whether to be told of a group of kinds by a channel. In the application everything is told."""

    group: GroupName
    channel: Literal["email", "webhook"]
    enabled: bool


class NotificationAnswer(AnswerBody):
    """Something that the member was told. `details` are the facts of its kind."""

    notification_id: NotificationId
    kind: str
    group: str | None = Field(description="Null for a kind that only a newer hub knows.")
    title: str
    text: str
    details: dict[str, Any]
    times: Count = Field(description="How often it happened; told was only the first time.")
    created_at: Moment
    last_at: Moment
    read_at: Moment | None


class NotificationsAnswer(AnswerBody):
    """A page of notifications, and how many are unread in all."""

    notifications: list[NotificationAnswer]
    unread_count: Count
    next_cursor: NextCursor


class ReadAnswer(AnswerBody):
    """How many were unread until now, and how many still are."""

    marked: Count
    unread_count: Count


class ChannelAnswer(AnswerBody):
    """Whether a channel is on for a group, and whether the member can change that."""

    channel: Literal["in_app", "email", "webhook"]
    enabled: bool
    changeable: bool


class GroupAnswer(AnswerBody):
    """A group of kinds, and its channels."""

    group: GroupName
    title: str
    kinds: list[str]
    channels: list[ChannelAnswer]


class PreferencesAnswer(AnswerBody):
    """What the member is told of, and how."""

    groups: list[GroupAnswer]


@router.get("/me/notifications")
def list_notifications(
    query: Annotated[NotificationsQuery, Query()], actor: CurrentActor, connection: Transaction
) -> NotificationsAnswer:
    """What the member was told, newest first."""
    [before] = decode_cursor(query.cursor, (NEWEST,))
    found = store.list_notifications(connection, actor.member_id, before, query.limit + 1, query.unread)
    page = found[: query.limit]
    return NotificationsAnswer(
        notifications=[NotificationAnswer.model_validate(service.notification_json(each)) for each in page],
        unread_count=store.count_unread(connection, actor.member_id),
        next_cursor=encode_cursor(page[-1].notification_id) if len(found) > query.limit else None,
    )


@router.post(
    "/me/notifications/read",
    dependencies=[Depends(refuse_query)],
    response_model=ReadAnswer,
    responses=refusals(NotificationNotFound),
)
def mark_read(body: Read, actor: CurrentActor, once: OnceOnly) -> Response:
    """Note that the member has read a notification."""

    def perform() -> Answer:
        marked = service.mark_read(
            once.connection, actor.member_id, body.notification_id, once.now, and_older=body.and_older
        )
        return {"marked": marked, "unread_count": store.count_unread(once.connection, actor.member_id)}

    return once.answer(body, 200, perform)


@router.get("/me/notification-preferences", dependencies=[Depends(refuse_query)])
def get_preferences(actor: CurrentActor, connection: Transaction) -> PreferencesAnswer:
    """What the member is told of by which channel. What only operators are told is shown to them alone."""
    preferences = store.list_preferences(connection, actor.member_id)
    return PreferencesAnswer(
        groups=[
            GroupAnswer(
                group=name,  # type: ignore[arg-type]  # asserted above
                title=group.title,
                kinds=[kind.name for kind in kinds.KINDS.values() if kind.group is group],
                channels=[
                    ChannelAnswer(
                        channel=channel.value,
                        enabled=service.is_enabled(preferences, group, channel),
                        changeable=service.is_changeable(group, channel),
                    )
                    for channel in Channel
                ],
            )
            for name, group in GROUPS.items()
            if _is_shown(group.audience, actor.roles)
        ]
    )


@router.post(
    "/me/notification-preferences",
    dependencies=[Depends(refuse_query)],
    response_model=ChannelAnswer,
    responses=refusals(PreferenceFixed),
)
def set_preference(body: Preference, actor: CurrentActor, once: OnceOnly) -> Response:
    """Turn a channel on or off for a group. What is about security goes by e-mail whatever is wished: 409."""

    def perform() -> Answer:
        group, channel = GROUPS[body.group], Channel(body.channel)
        service.set_preference(once.connection, actor.member_id, group, channel, body.enabled, once.now)
        return {"channel": channel, "enabled": body.enabled, "changeable": True}

    return once.answer(body, 200, perform)


def _is_shown(audience: Audience, roles: frozenset[Role]) -> bool:
    return audience is Audience.MEMBER or not roles.isdisjoint(OPERATORS)
