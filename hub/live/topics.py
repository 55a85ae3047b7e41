"""What a client may follow: the table of topics, who may, and under which name a topic is stored.

A client names a topic by a word; whose it is follows from who asks. So nobody can name what is another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from hub.actor import Actor
from hub.errors import Forbidden, TopicNotFound
from hub.permissions import Permission, Reach

METERS: Final = "meters"
TOKENS: Final = "tokens"
ORDERS: Final = "orders"
BOOK: Final = "book"
INVOICES: Final = "invoices"
PORTFOLIO: Final = "portfolio"
TRANSACTIONS: Final = "transactions"
NOTIFICATIONS: Final = "notifications"
ALERTS: Final = "alerts"


@dataclass(frozen=True)
class Topic:
    """What it takes to follow it; and whether each member has one of its own or all share one."""

    permission: Permission
    reach: Reach
    shared: bool
    tells: str


TOPICS: Final[Mapping[str, Topic]] = {
    METERS: Topic(Permission.METERS_READ, Reach.OWN, False, "the member's meters: readings, states, keys"),
    TRANSACTIONS: Topic(Permission.LIVE_READ, Reach.OWN, False, "how far the member's transactions on the chain are"),
    TOKENS: Topic(Permission.METERS_READ, Reach.OWN, False, "GRID that the member's meters earned"),
    NOTIFICATIONS: Topic(Permission.NOTIFICATIONS, Reach.OWN, False, "the member's notifications"),
    ALERTS: Topic(Permission.ALARMS_READ, Reach.ALL, True, "alarms for operators"),
    ORDERS: Topic(Permission.LIVE_READ, Reach.OWN, False, "the member's orders (nothing yet)"),
    BOOK: Topic(Permission.LIVE_READ, Reach.OWN, True, "the order book (nothing yet)"),
    INVOICES: Topic(Permission.LIVE_READ, Reach.OWN, False, "the member's invoices (nothing yet)"),
    PORTFOLIO: Topic(Permission.LIVE_READ, Reach.OWN, False, "the member's assets and loans (nothing yet)"),
}
"""`OWN` is enough for what is the member's and for what all members share; `ALL` is for those who look after others."""


def may_follow(actor: Actor, name: str) -> bool:
    """Whether the actor may follow this topic, one of TOPICS."""
    topic = TOPICS[name]
    reach = actor.reach(topic.permission)
    return reach is Reach.ALL or (reach is Reach.OWN and topic.reach is Reach.OWN)


def stored_topic(actor: Actor, name: str) -> str:
    """Under which name the topic that the actor calls so is stored. Raises TopicNotFound, Forbidden."""
    if name not in TOPICS:
        raise TopicNotFound
    if not may_follow(actor, name):
        raise Forbidden
    return name if TOPICS[name].shared else own_topic(name, actor.member_id)


def public_name(topic: str) -> str:
    """What clients call a stored topic."""
    return topic.partition(":")[0]


def own_topic(name: str, member_id: UUID) -> str:
    """A member's own topic of this name."""
    assert not TOPICS[name].shared, "all members share this one"
    return f"{name}:{member_id}"


def meters_of(member_id: UUID) -> str:
    """What happens to a member's meters."""
    return own_topic(METERS, member_id)


def notifications_of(member_id: UUID) -> str:
    """What a member is notified of."""
    return own_topic(NOTIFICATIONS, member_id)


def transactions_of(member_id: UUID) -> str:
    """How far a member's transactions on the chain are."""
    return own_topic(TRANSACTIONS, member_id)


def tokens_of(member_id: UUID) -> str:
    """What a member's meters earned."""
    return own_topic(TOKENS, member_id)
