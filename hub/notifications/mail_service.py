"""What a member is told by e-mail: which notifications one mail holds, and whether it may go now.

One mail takes everything that is due. So when mails come too fast they do not pile up: the next one waits until it may
go, and then it holds all that has happened meanwhile. What a mail holds is fixed before it is sent: after a crash the
same mail goes again, with the same Message-ID.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from hub import metrics
from hub.auth import members_service
from hub.auth.mails import Letter, Sender
from hub.auth.members_store import ACTIVE
from hub.notifications import kinds, mails, store
from hub.notifications.kinds import Channel
from hub.notifications.service import is_enabled
from hub.notifications.store import Notification

WINDOW: Final = timedelta(hours=1)
MAILS_PER_WINDOW_MAX: Final = 6
"""To one member."""
WORTH_MAILING: Final = timedelta(days=3)
"""What could not be mailed for so long is no news any more; it is in the application."""


@dataclass(frozen=True)
class Parcel:
    """A mail as it was decided on. `unique` names it among all mails of this hub."""

    member_id: UUID
    notification_ids: list[int]
    address: str
    letter: Letter
    unique: str


@dataclass(frozen=True)
class TooSoon:
    """The member has had as many mails as may be; the next may go then."""

    until: datetime


def take_parcel(connection: Connection, member_id: UUID, sender: Sender, now: datetime) -> Parcel | TooSoon | None:
    """Decide on the member's next mail and note that it is being sent; None if there is nothing to send.

    What the member no longer wants, or can no longer get, is dropped here.
    """
    sending = store.list_mail_sending(connection, member_id)
    chosen = sending or store.list_mail_due(connection, member_id)
    if not chosen:
        return None
    address = members_service.email_of(connection, member_id)
    member = members_service.get_member(connection, member_id)
    if address is None:
        drop(connection, member_id, [each.notification_id for each in chosen], "unreachable")
        return None
    preferences = store.list_preferences(connection, member_id)
    suspended = member.state != ACTIVE
    wanted = [each for each in chosen if _is_wanted(preferences, each, now, suspended=suspended)]
    unwanted = [each.notification_id for each in chosen if each not in wanted]
    drop(connection, member_id, unwanted, "unreachable" if suspended else "unwanted")
    if not wanted:
        return None
    mail_times = store.list_mail_times(connection, member_id, now - WINDOW)
    if not sending and len(mail_times) >= MAILS_PER_WINDOW_MAX:
        return TooSoon(mail_times[-MAILS_PER_WINDOW_MAX] + WINDOW)
    ids = [each.notification_id for each in wanted]
    store.set_mail(connection, member_id, ids, store.MAIL_SENDING)
    letter = mails.tell(sender, member.name, wanted)
    return Parcel(member_id, ids, address, letter, f"notification-{member_id.hex}-{ids[0]}-{ids[-1]}")


def note_sent(connection: Connection, parcel: Parcel, now: datetime) -> None:
    """Note that the mail server has taken the mail."""
    store.set_mail(connection, parcel.member_id, parcel.notification_ids, store.MAIL_SENT, now)
    metrics.NOTIFICATIONS.labels(Channel.EMAIL, "sent").inc(len(parcel.notification_ids))


def drop(connection: Connection, member_id: UUID, notification_ids: list[int], outcome: str) -> None:
    """Note that these go by no mail: `unreachable`, `unwanted`, `refused`."""
    if notification_ids:
        store.set_mail(connection, member_id, notification_ids, store.MAIL_DROPPED)
        metrics.NOTIFICATIONS.labels(Channel.EMAIL, outcome).inc(len(notification_ids))


def _is_wanted(
    preferences: Mapping[tuple[str, Channel], bool], each: Notification, now: datetime, *, suspended: bool
) -> bool:
    kind = kinds.KINDS.get(each.kind)
    return (
        kind is not None
        and (kind.to_suspended or not suspended)
        and each.created_at > now - WORTH_MAILING
        and is_enabled(preferences, kind.group, Channel.EMAIL)
    )
