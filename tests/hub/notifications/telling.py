"""A community of members who can be told things, and the jobs that do it, at a time that the test decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import base58
from sqlalchemy import Engine, text

from hub.auth import members_service, members_store
from hub.auth.mails import Sender
from hub.db import transaction
from hub.integrations.mail import MailServer
from hub.integrations.webhooks import WebhookPost
from hub.notifications import jobs, service, store
from hub.notifications.store import Notification
from hub.outbox.jobs import Handler, run_jobs_once
from hub.permissions import Role

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SENDER = Sender("test-community", "https://hub.example.org")
MEMBER_SECRET = bytes.fromhex("33" * 32)
_people = itertools.count(1)

SUSPENDED = "meter.suspended"


def about(meter_id: str = "roof", reason: str = "a test") -> dict[str, object]:
    """The facts of a meter that was suspended."""
    return {"meter_id": meter_id, "reason": reason}


def an_address() -> str:
    """To which no other test writes."""
    return f"told-{next(_people)}@example.org"


@dataclass
class Community:
    """Members, what they were told, and the workers of the outbox."""

    engine: Engine
    now: datetime = NOON
    receivers_post: WebhookPost = field(default_factory=WebhookPost)

    def member(self, *roles: Role, email: str | None = None, wallet: bytes | None = None, name: str = "Ada") -> UUID:
        with transaction(self.engine) as connection:
            member_id = members_service.create_member(connection, Role.CONSUMER, name, "", self.now)
            for role in roles:
                members_service.give_role(connection, member_id, role, "a test", "test", self.now)
            if email is not None:
                members_service.add_identity(connection, member_id, members_store.EMAIL, email, None, "test", self.now)
            if wallet is not None:
                value = base58.b58encode(wallet).decode()
                members_service.add_identity(
                    connection, member_id, members_store.SOLANA, value, wallet, "test", self.now
                )
        return member_id

    def notify(
        self, member_id: UUID, kind: str = SUSPENDED, data: Mapping[str, object] | None = None, key: str | None = None
    ) -> None:
        with transaction(self.engine) as connection:
            service.notify(connection, member_id, kind, about() if data is None else data, self.now, key)

    def told(self, member_id: UUID) -> list[Notification]:
        """What a member was told, oldest first."""
        with transaction(self.engine) as connection:
            return store.list_notifications(connection, member_id, 2**53, 1_000, False)[::-1]

    def kinds_told(self, member_id: UUID) -> list[str]:
        return [each.kind for each in self.told(member_id)]

    def run(self, handlers: Mapping[str, Handler]) -> int:
        """Do these jobs that are due, all of them; returns how many were tried."""
        return run_jobs_once(self.engine, handlers, lambda: self.now, 10_000)

    def tell(self) -> int:
        return self.run(jobs.tell_handlers(self.engine))

    def mail(self, server: MailServer | None) -> int:
        return self.run(jobs.mail_handlers(self.engine, server, SENDER))

    def deliver(self, jitter: Callable[[], float] = lambda: 0.0) -> int:
        """Post what is due, also what waited; returns how many jobs were tried."""
        jobs.queue_due_deliveries_once(self.engine, self.now)
        handlers = jobs.webhook_handlers(self.engine, self.receivers_post, MEMBER_SECRET, lambda: self.now, jitter)
        return self.run(handlers)

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def rows(self, query: str, **values: object) -> list[tuple[object, ...]]:
        with transaction(self.engine) as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def execute(self, statement: str, **values: object) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), values)
