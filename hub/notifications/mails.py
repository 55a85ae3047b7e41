"""What a mail of notifications says: one thing, or several with the newest last. Plain text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Final

from hub.auth.mails import Letter, Sender
from hub.notifications import kinds
from hub.notifications.kinds import Channel
from hub.notifications.store import Notification

LINES_MAX: Final = 50
"""Of more notifications in one mail, the newest are told and the others counted."""


def tell(sender: Sender, name: str, notifications: Sequence[Notification]) -> Letter:
    """The mail that holds these notifications, in the order in which they are given."""
    if len(notifications) == 1:
        [only] = notifications
        title, text = kinds.render(only.kind, only.data)
        return sender.signed(title, f"Dear {name},", text, _at(only), turn_off(sender, notifications))
    told = notifications[-LINES_MAX:]
    lines = [f"- {kinds.render(each.kind, each.data)[1]} {_at(each)}" for each in told]
    if len(told) < len(notifications):
        lines.insert(0, f"- Earlier ones that are not told here: {len(notifications) - len(told)}.")
    return sender.signed(
        f"{len(notifications)} notifications",
        f"Dear {name},",
        "since the last mail this has happened:",
        "\n".join(lines),
        turn_off(sender, notifications),
    )


def turn_off(sender: Sender, notifications: Sequence[Notification]) -> str:
    """How to get no more such mails, and of which of these that is not possible."""
    groups = {each.kind: kinds.KINDS[each.kind].group for each in notifications if each.kind in kinds.KINDS}
    free = sorted({group.name for group in groups.values() if Channel.EMAIL not in group.fixed})
    always = sorted({group.name for group in groups.values() if Channel.EMAIL in group.fixed})
    words = []
    if free:
        words.append(
            f"To get no more mails about {', '.join(free)}, turn them off in your notification preferences"
            f" ({sender.public_url}/me/notification-preferences)."
        )
    if always:
        words.append(f"Mails about {', '.join(always)} cannot be turned off: they are about security.")
    return " ".join(words)


def _at(notification: Notification) -> str:
    return f"({notification.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC)"
