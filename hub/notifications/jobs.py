"""What the outbox does for notifications: tell, mail, post; and what they need on the hub's clock.

A mail or a webhook may go twice when a worker dies at the wrong moment: then it is the same mail or webhook, by its id.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Engine

from hub import metrics
from hub.auth.mails import Sender
from hub.auth.notices import TELL
from hub.db import transaction
from hub.integrations.mail import Mail, MailRefused, MailServer
from hub.integrations.webhooks import WebhookPost
from hub.notifications import deliveries_store, mail_service, service, store, webhook_rules, webhooks_service
from hub.notifications.mail_service import Parcel, TooSoon
from hub.outbox.jobs import Handler, JobImpossible, JobPostponed
from hub.outbox.store import Job
from hub.permissions import Role

NOTIFICATIONS_KEPT_FOR: Final = timedelta(days=400)
DELIVERIES_KEPT_FOR: Final = timedelta(days=30)
DUE_AT_ONCE_MAX: Final = 500

Clock = Callable[[], datetime]


def tell_handlers(engine: Engine) -> Mapping[str, Handler]:
    """Tells what `service.tell_later` and `hub/auth/notices.py` were given. Nothing but the database."""

    def tell(job: Job, now: datetime) -> None:
        told = job.payload
        key = told["key"] or f"job:{job.job_id}"  # done twice, it is told once
        with transaction(engine) as connection:
            if told["member_id"] is not None:
                service.notify(connection, UUID(told["member_id"]), told["kind"], told["data"], now, key)
            if told["owner"] is not None:
                owner = bytes.fromhex(told["owner"])
                service.notify_owner(connection, owner, told["kind"], told["data"], now, key)
            if told["roles"]:
                roles = [Role(role) for role in told["roles"]]
                service.notify_role(connection, roles, told["kind"], told["data"], now, key)

    return {TELL: tell}


def mail_handlers(engine: Engine, server: MailServer | None, sender: Sender) -> Mapping[str, Handler]:
    """Mails what is due to a member. Without a server nothing is mailed."""

    def send_mail(job: Job, now: datetime) -> None:
        member_id = UUID(job.subject)
        with transaction(engine) as connection:
            taken = mail_service.take_parcel(connection, member_id, sender, now)
            if isinstance(taken, Parcel) and server is None:
                mail_service.drop(connection, member_id, taken.notification_ids, "no_server")
                return
        if taken is None:
            return
        if isinstance(taken, TooSoon):
            raise JobPostponed("the member has had many mails", (taken.until - now).total_seconds())
        assert server is not None
        letter = taken.letter
        try:
            server.send(Mail(taken.address, letter.subject, letter.text, server.message_id(taken.unique)))
        except MailRefused as fault:
            with transaction(engine) as connection:
                mail_service.drop(connection, member_id, taken.notification_ids, "refused")
            raise JobImpossible(f"refused for good: {fault}") from fault
        with transaction(engine) as connection:
            mail_service.note_sent(connection, taken, now)

    return {service.SEND_MAIL: send_mail}


def webhook_handlers(
    engine: Engine, post: WebhookPost, member_secret: bytes, clock: Clock, jitter: Callable[[], float] = random.random
) -> Mapping[str, Handler]:
    """Posts deliveries, one try a job; another try is another job. `jitter` gives numbers in [0, 1)."""

    def deliver(job: Job, now: datetime) -> None:
        with transaction(engine) as connection:
            errand = webhooks_service.begin_errand(connection, UUID(job.subject), job.payload["delivery_no"], now)
        if errand is None:
            return
        endpoint, delivery = errand.endpoint, errand.delivery
        body = delivery.body.encode()
        headers = webhook_rules.headers_of(
            member_secret,
            endpoint.endpoint_id,
            endpoint.secret_generation,
            endpoint.previous_secret_until,
            delivery.delivery_id,
            body,
            now,
        )
        answer = post.send(endpoint.url, headers, body)
        metrics.WEBHOOK_DURATION.labels(answer.outcome).observe(answer.duration_s)
        with transaction(engine) as connection:
            webhooks_service.end_errand(connection, errand, answer, jitter(), clock())

    return {service.DELIVER_WEBHOOK: deliver}


def queue_due_deliveries_once(engine: Engine, now: datetime) -> int:
    """Have the outbox carry the deliveries whose pause is over."""
    queued = 0
    while True:
        with transaction(engine) as connection:
            due = webhooks_service.queue_due_deliveries(connection, now, DUE_AT_ONCE_MAX)
        queued += due
        if due < DUE_AT_ONCE_MAX:
            return queued


def forget_told_once(engine: Engine, now: datetime) -> int:
    """Drop what was told, and deliveries that ended, long ago."""
    with transaction(engine) as connection:
        forgotten = store.forget_notifications(connection, now - NOTIFICATIONS_KEPT_FOR)
        return forgotten + deliveries_store.forget_deliveries(connection, now - DELIVERIES_KEPT_FOR)
