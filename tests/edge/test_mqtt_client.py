"""Brokers that are broken or hostile: each is named, left in order, and tried again."""

import asyncio
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.connection import Hooks
from edge.home_assistant import HomeAssistant
from edge.mqtt_client import PACKET_BYTES_MAX
from edge.mqtt_transport import MqttTransport
from edge.outbox import Outbox
from edge.settings import Settings
from edge.uplink_settings import HomeAssistantSettings
from infra.local.certificates import CA_FILE, ensure_certificates
from tests.edge.broken_broker import BrokenBroker, publication

WAIT_S = 30
NOT_UTF_8, WILDCARD, NO_NAME = b"\xff\xfe", b"a/+/b", b""
LONG = 16 * 1024 * 1024


@pytest.fixture(params=[5, 3])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    ensure_certificates(tmp_path / "certificates", datetime.now(UTC))
    return tmp_path / "certificates"


def run_against(
    settings: Settings,
    certificates: Path,
    broker: BrokenBroker,
    happened: Callable[[list[str]], bool],
    address: str = "127.0.0.1",
) -> list[str]:
    """What the transport counts, once that happened; afterwards no connection of it is left."""
    counts: list[str] = []

    def count(what: str) -> None:
        counts.append(what)
        broker.changed.set()

    async def run() -> None:
        server = await broker.start(certificates, address)
        assert settings.mqtt is not None
        mqtt = replace(
            settings.mqtt, host=address, port=broker.port, version=broker.version, ca_file=certificates / CA_FILE
        )
        hooks = Hooks(lambda _: b"seal", lambda _: None, lambda _: None, lambda: {"state": "online"}, count)
        outbox = Outbox(60, lambda: 0.0)
        outbox.load([1])
        transport = MqttTransport(replace(settings, mqtt=mqtt), outbox, hooks, lambda: 0.01)
        running = asyncio.create_task(transport.run())
        try:
            while not happened(counts):
                await broker.wait("a count")
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=WAIT_S)
        while broker.open:
            await broker.wait("the end of every connection")
        server.close()
        await server.wait_closed()

    asyncio.run(run())
    return counts


@pytest.mark.parametrize("topic", [NOT_UTF_8, WILDCARD, NO_NAME])
def test_a_connection_on_which_something_unreadable_came_is_closed_and_made_anew(
    settings: Settings, certificates: Path, version: int, topic: bytes
) -> None:
    broker = BrokenBroker(version, says=publication(topic, b"x", version))
    counts = run_against(settings, certificates, broker, lambda counts: broker.connections >= 3 and broker.open <= 1)
    assert set(counts) == {"broker_lost"}


def test_a_refused_subscription_is_named_and_the_agent_does_not_stay_deaf(
    settings: Settings, certificates: Path, version: int
) -> None:
    broker = BrokenBroker(version, grants=b"\1\x80")
    counts = run_against(settings, certificates, broker, lambda counts: len(counts) >= 3)
    assert set(counts) == {"subscription_refused"}
    assert broker.published == []


def test_of_a_packet_of_megabytes_nothing_is_kept(settings: Settings, certificates: Path, version: int) -> None:
    length = bytes([0x80, 0x80, 0x80, 0x08])  # 16 MiB
    broker = BrokenBroker(version, says=b"\x30" + length + bytes(4 * PACKET_BYTES_MAX))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = run_against(settings, certificates, broker, lambda counts: len(counts) >= 2)
    assert set(counts) == {"broker_lost"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < LONG // 1_024


@pytest.mark.filterwarnings("ignore:.*unclosed <ssl.SSLSocket", "ignore:.*<ssl.SSLSocket")  # paho leaves it to Python
def test_a_broker_with_another_name_is_not_told_the_password(
    settings: Settings, certificates: Path, version: int
) -> None:
    broker = BrokenBroker(version)
    counts = run_against(settings, certificates, broker, lambda counts: len(counts) >= 2, address="127.0.0.2")
    assert set(counts) == {"broker_not_trusted"}
    assert broker.connections == 0


def test_a_home_broker_that_says_nonsense_or_hangs_up_is_left_in_order(settings: Settings) -> None:
    async def run() -> None:
        broker = BrokenBroker(3, grants=b"\1", says=publication(WILDCARD, b"x", 3))
        server = await broker.start(None)
        home = HomeAssistantSettings("127.0.0.1", broker.port, None, "", None, "homeassistant")
        running = asyncio.create_task(HomeAssistant(settings, home, dict, lambda: 0.01).run())
        while broker.connections < 3:
            await broker.wait("another connection")
        running.cancel()
        await asyncio.wait([running], timeout=WAIT_S)
        while broker.open:
            await broker.wait("the end of every connection")
        server.close()
        await server.wait_closed()

    asyncio.run(run())
