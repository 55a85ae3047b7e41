"""Who may do what on the broker, tried by real clients against a real Mosquitto."""

import queue
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from infra.mosquitto.accounts import CONTROL_USER, GATEWAY_USER, hub_user
from protocol.limits import MESSAGE_BYTES_MAX
from protocol.topics import shard_filter, shard_of, topic

TIMEOUT_S = 10.0
QUIET_S = 0.3
ACCEPTED = {"Success", "No matching subscribers"}
REFUSED = "Not authorized"


class Client:
    """A connected client whose events can be waited for."""

    def __init__(self, broker: Any, username: str, password: str, client_id: str | None = None) -> None:
        self.connected: queue.Queue[str] = queue.Queue()
        self.published: queue.Queue[str] = queue.Queue()
        self.subscribed: queue.Queue[str] = queue.Queue()
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.mqtt = broker.connect(username, password, client_id)
        self.mqtt.on_connect = lambda _c, _d, _f, reason, _p: self.connected.put(str(reason))
        self.mqtt.on_publish = lambda _c, _d, _m, reason, _p: self.published.put(str(reason))
        self.mqtt.on_subscribe = lambda _c, _d, _m, reasons, _p: self.subscribed.put(str(reasons[0]))
        self.mqtt.on_message = lambda _c, _d, message: self.messages.put(message)

    def publish(self, name: str, payload: bytes = b"seal", *, retain: bool = False) -> str:
        self.mqtt.publish(name, payload, qos=1, retain=retain)
        return self.published.get(timeout=TIMEOUT_S)

    def subscribe(self, name: str) -> str:
        self.mqtt.subscribe(name, qos=1)
        return self.subscribed.get(timeout=TIMEOUT_S)

    def receives(self) -> tuple[str, bytes] | None:
        try:
            message = self.messages.get(timeout=QUIET_S)
        except queue.Empty:
            return None
        return message.topic, bytes(message.payload)


@contextmanager
def connected(broker: Any, username: str, password: str, client_id: str | None = None) -> Iterator[Client]:
    client = Client(broker, username, password, client_id)
    try:
        yield client
    finally:
        client.mqtt.disconnect()
        client.mqtt.loop_stop()


@pytest.fixture
def meter_id() -> str:
    return "meter-" + secrets.token_hex(4)


@pytest.fixture
def meter(broker: Any, meter_id: str) -> Iterator[Client]:
    broker.create_meter_account(meter_id, "a password")
    with connected(broker, meter_id, "a password") as client:
        yield client


@pytest.fixture
def hub(broker: Any, meter_id: str) -> Iterator[Client]:
    with connected(broker, hub_user(shard_of(meter_id)), broker.password) as client:
        yield client


def connection_reason(broker: Any, username: str, password: str, client_id: str) -> str:
    reasons: queue.Queue[str] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
    client.tls_set(ca_certs=str(broker.ca_file))
    client.username_pw_set(username, password)
    client.on_connect = lambda _c, _d, _f, reason, _p: reasons.put(str(reason))
    client.connect(broker.host, broker.port)
    while reasons.empty():
        client.loop(0.05)
    client.disconnect()
    return reasons.get()


def test_a_seal_reaches_the_hub_and_its_receipt_the_meter(
    broker: Any, meter: Client, hub: Client, meter_id: str
) -> None:
    hub.subscribe(shard_filter(broker.community_id, shard_of(meter_id), "seals"))
    meter.subscribe(topic(broker.community_id, meter_id, "committed"))
    seals, committed = (topic(broker.community_id, meter_id, channel) for channel in ("seals", "committed"))
    assert meter.publish(seals, b"a seal") == "Success"
    assert hub.receives() == (seals, b"a seal")
    assert hub.publish(committed, b"a receipt", retain=True) == "Success"
    assert meter.receives() == (committed, b"a receipt")


@pytest.mark.parametrize("channel", ["committed", "commands"])
def test_a_meter_cannot_write_what_the_hub_alone_writes(
    broker: Any, meter: Client, meter_id: str, channel: str
) -> None:
    assert meter.publish(topic(broker.community_id, meter_id, channel)) == REFUSED


@pytest.mark.parametrize("channel", ["seals", "status", "committed", "commands"])
def test_a_meter_cannot_write_for_another(broker: Any, meter: Client, channel: str) -> None:
    assert meter.publish(topic(broker.community_id, "somebody-else", channel)) == REFUSED


@pytest.mark.parametrize("channel", ["seals", "status"])
def test_a_meter_cannot_keep_messages_under_shards_that_do_not_exist(
    meter: Client, broker: Any, meter_id: str, channel: str
) -> None:
    for shard in ("16", "00", "anything"):
        name = f"commonwatt/v1/{broker.community_id}/{shard}/{meter_id}/{channel}"
        assert meter.publish(name, retain=True) == REFUSED


def test_a_meter_hears_nothing_that_is_not_for_it(broker: Any, meter: Client, meter_id: str) -> None:
    meter.subscribe("#")
    meter.subscribe("$CONTROL/#")
    for channel in ("committed", "commands", "seals"):
        meter.subscribe(topic(broker.community_id, "somebody-else", channel))
    other = hub_user(shard_of("somebody-else"))
    with connected(broker, other, broker.password) as hub:
        assert hub.publish(topic(broker.community_id, "somebody-else", "committed")) == "Success"
    with connected(broker, GATEWAY_USER, broker.gateway_password, "gateway-1") as gateway:
        assert gateway.publish(topic(broker.community_id, "somebody-else", "seals")) in ACCEPTED
    assert meter.receives() is None


@pytest.mark.parametrize("channel", ["seals", "status"])
def test_the_hub_cannot_write_in_the_name_of_a_meter(broker: Any, hub: Client, meter_id: str, channel: str) -> None:
    assert hub.publish(topic(broker.community_id, meter_id, channel)) == REFUSED


def test_a_worker_of_one_shard_cannot_write_in_another(broker: Any, hub: Client, meter_id: str) -> None:
    names = (f"meter-{number}" for number in range(100))
    elsewhere = next(name for name in names if shard_of(name) != shard_of(meter_id))
    assert hub.publish(topic(broker.community_id, elsewhere, "committed")) == REFUSED


def test_only_the_control_account_may_create_accounts(broker: Any, meter: Client, hub: Client) -> None:
    assert meter.publish("$CONTROL/dynamic-security/v1", b'{"commands":[]}') == REFUSED
    assert hub.publish("$CONTROL/dynamic-security/v1", b'{"commands":[]}') == REFUSED


def test_the_control_account_sends_commands_but_no_receipts(broker: Any, meter: Client, meter_id: str) -> None:
    meter.subscribe(topic(broker.community_id, meter_id, "commands"))
    with connected(broker, CONTROL_USER, broker.password) as control:
        assert control.publish(topic(broker.community_id, meter_id, "commands"), b"a command") == "Success"
        assert control.publish(topic(broker.community_id, meter_id, "committed"), b"a receipt") == REFUSED
    assert meter.receives() == (topic(broker.community_id, meter_id, "commands"), b"a command")


@pytest.mark.parametrize("client_id", ["hub-0", CONTROL_USER, "somebody-else"])
def test_a_meter_cannot_take_over_the_session_of_another(
    broker: Any, meter: Client, meter_id: str, client_id: str
) -> None:
    assert connection_reason(broker, meter_id, "a password", client_id) == REFUSED


def test_a_wrong_password_and_an_unknown_user_are_refused(broker: Any, meter: Client, meter_id: str) -> None:
    assert connection_reason(broker, meter_id, "a guess", meter_id) == REFUSED
    assert connection_reason(broker, "nobody", "", "nobody") == REFUSED


def test_creating_an_account_again_changes_its_password(broker: Any, meter_id: str) -> None:
    for password in ("first", "second"):
        broker.create_meter_account(meter_id, password)
    assert connection_reason(broker, meter_id, "first", meter_id) == REFUSED
    assert connection_reason(broker, meter_id, "second", meter_id) == "Success"


def test_a_meter_whose_account_is_deleted_is_out_and_deleting_twice_is_harmless(broker: Any, meter_id: str) -> None:
    broker.create_meter_account(meter_id, "a password")
    assert connection_reason(broker, meter_id, "a password", meter_id) == "Success"
    broker.delete_meter_account(meter_id)
    broker.delete_meter_account(meter_id)
    assert connection_reason(broker, meter_id, "a password", meter_id) == REFUSED


def test_the_largest_seal_message_passes(broker: Any, meter: Client, hub: Client, meter_id: str) -> None:
    hub.subscribe(shard_filter(broker.community_id, shard_of(meter_id), "seals"))
    largest = bytes(MESSAGE_BYTES_MAX)
    assert meter.publish(topic(broker.community_id, meter_id, "seals"), largest) == "Success"
    assert hub.receives() == (topic(broker.community_id, meter_id, "seals"), largest)
