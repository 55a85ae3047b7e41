"""Meters that show a certificate instead of a password, tried by real clients against a real Mosquitto."""

import queue
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.certificate_request import make_request
from hub.integrations import broker_accounts
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from infra.mosquitto.accounts import CONTROL_USER, hub_user
from infra.mosquitto.client_authority import ClientAuthority
from protocol.topics import shard_filter, shard_of, topic

COMMUNITY = "test-community"
METER, OTHER = "meter-with-certificate", "meter-beside-it"
TIMEOUT_S = 10.0
QUIET_S = 0.3
REFUSED = "Not authorized"
TRIES = 200


@pytest.fixture(scope="module")
def broker(server_directory: Path, mosquitto_installation: Installation) -> Iterator[Mosquitto]:
    directory = server_directory / "certificate-broker"
    with Mosquitto(directory, mosquitto_installation, COMMUNITY, client_certificates=True) as server:
        yield server


@dataclass
class Client:
    """A client whose events can be waited for; `end` is the reason why a connection did not come about, or ended."""

    mqtt: mqtt.Client
    connected: "queue.Queue[str]" = field(default_factory=queue.Queue)
    ended: "queue.Queue[str]" = field(default_factory=queue.Queue)
    published: "queue.Queue[str]" = field(default_factory=queue.Queue)
    subscribed: "queue.Queue[str]" = field(default_factory=queue.Queue)
    messages: "queue.Queue[tuple[str, bytes]]" = field(default_factory=queue.Queue)

    def publish(self, name: str, payload: bytes = b"seal") -> str:
        self.mqtt.publish(name, payload, qos=1)
        return self.published.get(timeout=TIMEOUT_S)

    def subscribe(self, name: str) -> None:
        self.mqtt.subscribe(name, qos=1)
        self.subscribed.get(timeout=TIMEOUT_S)

    def receives(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=TIMEOUT_S)

    def hears_nothing(self) -> bool:
        try:
            self.messages.get(timeout=QUIET_S)
        except queue.Empty:
            return True
        return False


def client_of(broker: Mosquitto, client_id: str, version: int = mqtt.MQTTv5) -> Client:
    made = Client(mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version))
    made.mqtt.on_connect = lambda _c, _d, _f, reason, _p: made.connected.put(str(reason))
    made.mqtt.on_disconnect = lambda _c, _d, _f, reason, _p: made.ended.put(str(reason))
    made.mqtt.on_publish = lambda _c, _d, _m, reason, _p: made.published.put(str(reason))
    made.mqtt.on_subscribe = lambda _c, _d, _m, reasons, _p: made.subscribed.put(str(reasons[0]))
    made.mqtt.on_message = lambda _c, _d, message: made.messages.put((message.topic, bytes(message.payload)))
    return made


@contextmanager
def with_password(broker: Mosquitto, username: str, password: str) -> Iterator[Client]:
    client = client_of(broker, username)
    client.mqtt.tls_set(ca_certs=str(broker.ca_file))
    client.mqtt.username_pw_set(username, password)
    with running(client, broker.host, broker.port):
        yield client


@contextmanager
def with_certificate(
    broker: Mosquitto, files: tuple[Path, Path], client_id: str, user: str = "", version: int = mqtt.MQTTv5
) -> Iterator[Client]:
    client = client_of(broker, client_id, version)
    client.mqtt.tls_set(ca_certs=str(broker.ca_file), certfile=str(files[0]), keyfile=str(files[1]))
    if user:
        client.mqtt.username_pw_set(user, "whatever")
    with running(client, broker.host, broker.certificate_port):
        yield client


@contextmanager
def running(client: Client, host: str, port: int) -> Iterator[None]:
    try:
        client.mqtt.connect(host, port)
    except (ssl.SSLError, ConnectionError) as error:  # TLS 1.2 says it at once, 1.3 with the first answer
        client.ended.put(str(error))
    client.mqtt.loop_start()
    try:
        yield
    finally:
        client.mqtt.disconnect()
        client.mqtt.loop_stop()


def connects(broker: Mosquitto, files: tuple[Path, Path], client_id: str) -> bool:
    with with_certificate(broker, files, client_id) as client:
        while True:
            if not client.connected.empty():
                return client.connected.get() == "Success"
            try:
                client.ended.get(timeout=0.05)
            except queue.Empty:
                continue
            return False


def authority_of(broker: Mosquitto) -> ClientAuthority:
    assert broker.client_authority is not None
    return broker.client_authority


def certificate(
    authority: ClientAuthority, directory: Path, meter_id: str, *, now: datetime | None = None, days: int = 1
) -> tuple[Path, Path]:
    directory.mkdir(exist_ok=True)
    key_file, file = directory / f"{meter_id}.key", directory / f"{meter_id}.crt"
    request = make_request(meter_id, key_file).encode()
    file.write_bytes(authority.sign(request, meter_id, now or datetime.now(UTC), timedelta(days=days)))
    return file, key_file


@pytest.fixture
def files(broker: Mosquitto, tmp_path: Path) -> tuple[Path, Path]:
    return certificate(authority_of(broker), tmp_path / "meter", METER)


def test_a_certificate_opens_exactly_the_topics_of_the_meter_that_it_names(
    broker: Mosquitto, files: tuple[Path, Path]
) -> None:
    seals, committed = (topic(COMMUNITY, METER, channel) for channel in ("seals", "committed"))
    password = broker.password_file.read_text()
    with (
        with_password(broker, hub_user(shard_of(METER)), password) as hub,
        with_certificate(broker, files, METER) as meter,
    ):
        assert (hub.connected.get(timeout=TIMEOUT_S), meter.connected.get(timeout=TIMEOUT_S)) == ("Success", "Success")
        hub.subscribe(shard_filter(COMMUNITY, shard_of(METER), "seals"))
        for name in ("#", "$CONTROL/#"):
            meter.subscribe(name)
        assert meter.publish(seals, b"a seal") == "Success"
        assert hub.receives() == (seals, b"a seal")
        assert hub.publish(committed, b"a receipt") == "Success"
        assert meter.receives() == (committed, b"a receipt")
        for channel in ("seals", "status", "committed", "commands"):
            assert meter.publish(topic(COMMUNITY, OTHER, channel)) == REFUSED
        for channel in ("committed", "commands"):
            assert meter.publish(topic(COMMUNITY, METER, channel)) == REFUSED
        assert meter.publish("$CONTROL/dynamic-security/v1", b'{"commands":[]}') == REFUSED
        with with_password(broker, CONTROL_USER, password) as control:
            assert control.publish(topic(COMMUNITY, OTHER, "commands"), b"a command") in (
                "Success",
                "No matching subscribers",
            )
        assert meter.hears_nothing()


@pytest.mark.parametrize("version", [mqtt.MQTTv5, mqtt.MQTTv311])
def test_no_name_but_that_of_the_certificate_counts(broker: Mosquitto, files: tuple[Path, Path], version: int) -> None:
    """A meter that calls itself a worker of the hub takes over nobody's session, nor anybody's rights."""
    worker = hub_user(shard_of(METER))
    with with_password(broker, worker, broker.password_file.read_text()) as hub:
        assert hub.connected.get(timeout=TIMEOUT_S) == "Success"
        hub.subscribe(shard_filter(COMMUNITY, shard_of(METER), "seals"))
        with with_certificate(broker, files, worker, user=worker, version=version) as meter:
            assert meter.connected.get(timeout=TIMEOUT_S) == "Success"
            meter.publish(topic(COMMUNITY, METER, "committed"), b"forged")
            meter.publish(topic(COMMUNITY, METER, "seals"), b"a seal")
            assert hub.receives() == (topic(COMMUNITY, METER, "seals"), b"a seal")
            with with_certificate(broker, files, "anything") as again:  # the same meter, so it takes its own place
                assert again.connected.get(timeout=TIMEOUT_S) == "Success"
                meter.ended.get(timeout=TIMEOUT_S)
        assert hub.ended.empty()


def test_a_certificate_of_another_authority_is_refused(broker: Mosquitto, tmp_path: Path) -> None:
    stranger = ClientAuthority(tmp_path / "stranger", COMMUNITY, datetime.now(UTC))
    assert not connects(broker, certificate(stranger, tmp_path / "meter", METER), METER)


def test_a_certificate_that_has_run_out_is_refused(broker: Mosquitto, tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    assert not connects(broker, certificate(authority_of(broker), tmp_path / "old", METER, now=long_ago), METER)


def test_without_a_certificate_nobody_comes_in_by_this_port(broker: Mosquitto) -> None:
    client = client_of(broker, hub_user(0))
    client.mqtt.tls_set(ca_certs=str(broker.ca_file))
    client.mqtt.username_pw_set(hub_user(0), broker.password_file.read_text())
    with running(client, broker.host, broker.certificate_port):
        client.ended.get(timeout=TIMEOUT_S)
        assert client.connected.empty()


def test_a_certificate_does_not_open_the_port_of_passwords(broker: Mosquitto, files: tuple[Path, Path]) -> None:
    client = client_of(broker, METER)
    client.mqtt.tls_set(ca_certs=str(broker.ca_file), certfile=str(files[0]), keyfile=str(files[1]))
    with running(client, broker.host, broker.port):
        assert client.connected.get(timeout=TIMEOUT_S) == REFUSED


def test_a_revoked_certificate_is_refused_once_the_broker_has_read_the_list_and_a_new_one_is_not(
    broker: Mosquitto, tmp_path: Path
) -> None:
    authority, meter_id = authority_of(broker), "meter-of-a-thief"
    stolen = certificate(authority, tmp_path / "stolen", meter_id)
    with with_certificate(broker, stolen, meter_id) as thief:
        assert thief.connected.get(timeout=TIMEOUT_S) == "Success"
        assert authority.revoke(meter_id, datetime.now(UTC)) == 1
        assert authority.revoke(meter_id, datetime.now(UTC)) == 0
        broker.read_again()
        assert eventually_refused(broker, stolen, meter_id)
        # An open connection outlives that. What the hub does with the account of a meter ends it.
        forget(broker, meter_id)
        thief.ended.get(timeout=TIMEOUT_S)
    assert connects(broker, certificate(authority, tmp_path / "fresh", meter_id), meter_id)


def eventually_refused(broker: Mosquitto, files: tuple[Path, Path], meter_id: str) -> bool:
    """A signal has no answer: ask until it shows."""
    return any(not connects(broker, files, meter_id) for _ in range(TRIES))


def forget(broker: Mosquitto, meter_id: str) -> None:
    with with_password(broker, CONTROL_USER, broker.password_file.read_text()) as control:
        assert control.connected.get(timeout=TIMEOUT_S) == "Success"
        create = broker_accounts.create_meter_account_commands(meter_id, "new")
        for commands in (create, broker_accounts.delete_meter_account_commands(meter_id)):
            control.mqtt.publish(broker_accounts.CONTROL_TOPIC, commands, qos=1)
            control.published.get(timeout=TIMEOUT_S)


def test_passwords_are_what_they_were(broker: Mosquitto) -> None:
    with with_password(broker, hub_user(0), broker.password_file.read_text()) as hub:
        assert hub.connected.get(timeout=TIMEOUT_S) == "Success"
    with with_password(broker, hub_user(0), "a guess") as nobody:
        assert nobody.connected.get(timeout=TIMEOUT_S) == REFUSED


def test_the_broker_comes_back_with_both_ports(tmp_path: Path, mosquitto_installation: Installation) -> None:
    with Mosquitto(tmp_path / "broker", mosquitto_installation, COMMUNITY, client_certificates=True) as server:
        files = certificate(authority_of(server), tmp_path / "meter", METER)
        ports = server.port, server.certificate_port
        server.kill()
        server.start()
        assert (server.port, server.certificate_port) == ports
        assert connects(server, files, METER)
