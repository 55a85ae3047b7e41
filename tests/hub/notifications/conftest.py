"""A community whose members can be told; a receiver of webhooks; a hub that may post to it and send mail."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from sqlalchemy import Engine

from hub.integrations.webhooks import WebhookPost
from hub.settings import Settings
from tests.hub.notifications.telling import Community
from tests.hub.receiving import Receiver, running_receiver

LOOPBACK = [ip_network("127.0.0.0/8")]


@pytest.fixture(scope="session")
def running_webhook_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with running_receiver(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture
def receiver(running_webhook_receiver: Receiver) -> Receiver:
    """A receiver without faults that has received nothing and trusts nobody."""
    running_webhook_receiver.fail()
    running_webhook_receiver.trust()
    (running_webhook_receiver.directory / "received.jsonl").unlink(missing_ok=True)
    return running_webhook_receiver


@pytest.fixture
def community(engine: Engine) -> Community:
    return Community(engine, receivers_post=WebhookPost(LOOPBACK, timeout_s=2.0))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_networks_allowed": LOOPBACK})
