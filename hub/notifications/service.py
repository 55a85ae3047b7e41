"""Telling members: written in the transaction of what happened, carried by the outbox afterwards.

A device, or a member, must not be able to fill anybody's mailbox. So what repeats itself is told under a key and then
only counted; of what does not repeat itself, a member is told so much in an hour one by one and the rest as one line;
and mails have a limit of their own (`mail_service.py`).

Whoever tells something that a device can bring about does so in a job (`tell_later`), not in the transaction that takes
in what the device sent: that one is for energy, and many hands may hold the same member's rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from hub import metrics
from hub.auth import members_service
from hub.auth.notices import queue_notice
from hub.errors import NotificationNotFound, PreferenceFixed
from hub.live.publishing import Update, publish
from hub.live.topics import notifications_of
from hub.notifications import deliveries_store, endpoints_store, kinds, store
from hub.notifications.kinds import Channel, Data, Group, instant
from hub.notifications.store import Notification
from hub.notifications.webhook_rules import encode_body
from hub.outbox.store import add_job
from hub.permissions import Role

SEND_MAIL: Final = "notification.mail"
DELIVER_WEBHOOK: Final = "webhook.deliver"
"""Kinds of outbox jobs; `jobs.py` does them. Mails are in order for each member, webhooks for each endpoint."""

OPERATORS: Final = (Role.OPERATOR, Role.ADMIN)

WINDOW: Final = timedelta(hours=1)
TOLD_PER_WINDOW_MAX: Final = 100
"""To one member, one by one, and so to each of its endpoints; what comes beyond is one line an hour that counts. As
many again of what is about security."""


def notify(
    connection: Connection, member_id: UUID, kind: str, data: Data, now: datetime, key: str | None = None
) -> None:
    """Tell a member, by the channels that it prefers. Under a `key` it is told once; later the first is counted up."""
    _tell(connection, [member_id], kind, data, now, key)


def notify_role(
    connection: Connection, roles: Iterable[Role], kind: str, data: Data, now: datetime, key: str | None = None
) -> None:
    """Tell every active member who was given one of these roles. `key` as for `notify`."""
    _tell(connection, members_service.members_with_role(connection, list(roles)), kind, data, now, key)


def notify_owner(
    connection: Connection, owner: bytes, kind: str, data: Data, now: datetime, key: str | None = None
) -> None:
    """Tell the member whose wallet has this public key; nobody if no member has linked it. `key` as for `notify`."""
    _tell(connection, members_service.members_of_wallets(connection, [owner]).values(), kind, data, now, key)


def tell_later(
    connection: Connection,
    subject: str,
    kind: str,
    data: Data,
    now: datetime,
    *,
    owner: bytes | None = None,
    roles: Collection[Role] = (),
    key: str | None = None,
) -> None:
    """Have a job tell the owner of a wallet, or members with these roles. One `subject` is told in order."""
    kinds.get_kind(kind, data)
    queue_notice(connection, subject, kind, data, now, owner=owner, roles=roles, key=key)


def _tell(
    connection: Connection, member_ids: Iterable[UUID], kind: str, data: Data, now: datetime, key: str | None
) -> None:
    group = kinds.get_kind(kind, data).group
    counted = kinds.kinds_counted_with(group)
    updates = []
    for member_id in sorted(member_ids):  # so that two transactions lock rows of members in one order
        recent = store.count_since(connection, member_id, counted, now - WINDOW, TOLD_PER_WINDOW_MAX)
        if recent < TOLD_PER_WINDOW_MAX:
            told = _tell_member(connection, member_id, group, kind, data, now, key)
        else:
            hour = instant(now.replace(minute=0, second=0, microsecond=0))
            told = _tell_member(
                connection, member_id, kinds.SUMMARIES, kinds.MORE, {"since": hour}, now, f"more:{hour}"
            )
        updates.append(Update(notifications_of(member_id), "notification.new", notification_json(told)))
    publish(connection, updates, now)


def _tell_member(
    connection: Connection, member_id: UUID, group: Group, kind: str, data: Data, now: datetime, key: str | None
) -> Notification:
    preferences = store.list_preferences(connection, member_id)
    by_mail = is_enabled(preferences, group, Channel.EMAIL)
    by_mail = by_mail and members_service.email_of(connection, member_id) is not None
    mail = store.MAIL_DUE if by_mail else store.MAIL_NONE
    told, new = store.insert_or_count(connection, member_id, kind, key, data, mail, now)
    metrics.NOTIFICATIONS.labels(Channel.IN_APP, "told" if new else "counted").inc()
    if new and by_mail:
        add_job(connection, SEND_MAIL, str(member_id), {}, now)
    if new and is_enabled(preferences, group, Channel.WEBHOOK):
        for endpoint_id in endpoints_store.list_active_endpoint_ids(connection, member_id):
            queue_delivery(connection, endpoint_id, told.kind, body_data(told), now)
    return told


def queue_delivery(
    connection: Connection, endpoint_id: UUID, kind: str, data: Mapping[str, object], now: datetime
) -> deliveries_store.Delivery:
    """Write a delivery to an endpoint, and the job that carries it."""
    body = encode_body(kind, instant(now), data)
    delivery = deliveries_store.insert_delivery(connection, uuid.uuid4(), endpoint_id, kind, body, now)
    queue_job(connection, endpoint_id, delivery.delivery_no, now)
    return delivery


def queue_job(connection: Connection, endpoint_id: UUID, delivery_no: int, now: datetime) -> None:
    """Write the job that carries a queued delivery."""
    add_job(connection, DELIVER_WEBHOOK, str(endpoint_id), {"delivery_no": delivery_no}, now)


def is_enabled(preferences: Mapping[tuple[str, Channel], bool], group: Group, channel: Channel) -> bool:
    """Whether a member with these preferences is told of this group by this channel."""
    if channel is Channel.IN_APP or channel in group.fixed:
        return True
    return channel not in group.never and preferences.get((group.name, channel), channel in group.channels)


def is_changeable(group: Group, channel: Channel) -> bool:
    """Whether a member can turn this channel on and off for this group."""
    return channel is not Channel.IN_APP and channel not in group.fixed | group.never


def body_data(told: Notification) -> dict[str, object]:
    """The data of a webhook about a notification."""
    title, text = kinds.render(told.kind, told.data)
    return {"notification_id": told.notification_id, "title": title, "text": text, "details": told.data}


def notification_json(told: Notification) -> dict[str, object]:
    """A notification as the API and the live feed show it."""
    kind = kinds.KINDS.get(told.kind)
    title, text = kinds.render(told.kind, told.data)
    return {
        "notification_id": told.notification_id,
        "kind": told.kind,
        "group": None if kind is None else kind.group.name,
        "title": title,
        "text": text,
        "details": told.data,
        "times": told.times,
        "created_at": instant(told.created_at),
        "last_at": instant(told.last_at),
        "read_at": None if told.read_at is None else instant(told.read_at),
    }


# --- what the member does --------------------------------------------------------------------------------------


def mark_read(connection: Connection, member_id: UUID, notification_id: int, now: datetime, *, and_older: bool) -> int:
    """Note that the member read this notification, or it and every older one; returns how many were unread.

    Raises NotificationNotFound.
    """
    store.lock_reading(connection, member_id)
    if store.find_notification(connection, member_id, notification_id) is None:
        raise NotificationNotFound(str(notification_id))
    marked = store.mark_read(connection, member_id, 0 if and_older else notification_id, notification_id, now)
    if marked:
        data = {
            "up_to" if and_older else "notification_id": notification_id,
            "unread_count": store.count_unread(connection, member_id),
        }
        publish(connection, [Update(notifications_of(member_id), "notification.read", data)], now)
    return marked


def set_preference(
    connection: Connection, member_id: UUID, group: Group, channel: Channel, enabled: bool, now: datetime
) -> None:
    """Turn a channel on or off for a group of kinds. Raises PreferenceFixed."""
    if not is_changeable(group, channel):
        raise PreferenceFixed(f"{group.name} by {channel}")
    store.set_preference(connection, member_id, group.name, channel, enabled, now)
