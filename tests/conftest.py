"""What every test may ask for: a real PostgreSQL, an empty migrated database in it, and a real broker.

One server of each kind per pytest process, made on first use and ended with it. A test that kills or
restarts a server makes its own: `Postgres(directory)`, `Mosquitto(directory, mosquitto_installation,
community_id)`.
"""

import email.policy
import functools
import itertools
import logging
import queue
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import paho.mqtt.client as mqtt
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from hub.integrations import broker_accounts
from infra.local.mail import MailSimulator
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation, find_or_fetch
from infra.local.postgres import NOT_DURABLE, Postgres
from infra.mosquitto.accounts import CONTROL_USER, GATEWAY_USER

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None)
hypothesis.settings.register_profile("exploring", print_blob=True)
hypothesis.settings.load_profile("repeatable")
"""`make test` asks the same every time, so that a change is judged by what it changed; `make test-long` explores."""

VAR = Path(__file__).parent.parent / "var"
COMMUNITY_ID = "test-community"
ANSWER_TIMEOUT_S = 10.0
TEMPLATE = "migrated"
_database_numbers = itertools.count(1)


@functools.cache
def _authorities_of_this_machine() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _ssl_context(verify: ssl.SSLContext | str | bool = True, *args: Any, **others: Any) -> ssl.SSLContext:
    """As httpx makes it, but the machine's authorities are read once: 20 ms for each client otherwise, and tests make
    thousands, none of which speaks TLS to anybody whom those vouch for."""
    if verify is True and not args and others.get("cert") is None:
        return _authorities_of_this_machine()
    return httpx.create_ssl_context(verify, *args, **others)


httpx._transports.default.create_ssl_context = _ssl_context


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that sets up logs, run inside a test, must not write to that test's streams for ever."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory for this pytest process alone: others may be testing the same tree at this moment."""
    (VAR / "test").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VAR / "test") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[Postgres]:
    with Postgres(server_directory / "postgres", NOT_DURABLE) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """The server's own database, for tests that need no schema."""
    return postgres.url()


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    from hub.db import migrate

    migrate(postgres.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database_url(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """A database of this test alone, with the current schema and no rows."""
    name = f"test_{next(_database_numbers)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template} STRATEGY FILE_COPY")
    yield postgres.url(name)
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mosquitto_installation() -> Installation:
    return find_or_fetch(VAR / "cache" / "mosquitto")


@dataclass(frozen=True)
class Broker:
    """A running Mosquitto of COMMUNITY_ID as its clients see it."""

    host: str
    port: int
    ca_file: Path
    password_file: Path
    password: str
    gateway_password: str
    community_id: str

    def connect(
        self,
        username: str,
        password: str,
        client_id: str | None = None,
        on_answer: Callable[[ReasonCode], None] | None = None,
    ) -> mqtt.Client:
        """An MQTT 5 client with its network thread running; the client id is the user name unless given.

        `on_answer` hears whether the broker lets it in.
        """
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=username if client_id is None else client_id,
            protocol=mqtt.MQTTv5,
        )
        if on_answer is not None:
            client.on_connect = lambda _client, _data, _flags, reason, _properties: on_answer(reason)
        client.tls_set(ca_certs=str(self.ca_file))
        client.username_pw_set(username, password)
        client.connect(self.host, self.port)
        client.loop_start()
        return client

    def connect_gateway(self, client_id: str) -> mqtt.Client:
        """A client that may publish seals and status for every meter."""
        return self.connect(GATEWAY_USER, self.gateway_password, client_id)

    def create_meter_account(self, meter_id: str, password: str) -> None:
        """Create a meter's account as the hub does. Not while a hub under test is connected as
        hub-control."""
        self._control(meter_id, broker_accounts.create_meter_account_commands(meter_id, password))

    def delete_meter_account(self, meter_id: str) -> None:
        """Remove a meter's account as the hub does."""
        self._control(meter_id, broker_accounts.delete_meter_account_commands(meter_id))

    def _control(self, meter_id: str, commands: bytes) -> None:
        answers: queue.Queue[bytes] = queue.Queue()
        client = self.connect(CONTROL_USER, self.password)
        try:
            client.on_message = lambda _client, _data, message: answers.put(bytes(message.payload))
            client.subscribe(broker_accounts.RESPONSE_TOPIC, qos=1)
            client.publish(broker_accounts.CONTROL_TOPIC, commands, qos=1)
            answer = answers.get(timeout=ANSWER_TIMEOUT_S)
        finally:
            client.disconnect()
            client.loop_stop()
        assert broker_accounts.account_errors(answer) == {meter_id: []}


@contextmanager
def running_broker(directory: Path, installation: Installation) -> Iterator[Broker]:
    with Mosquitto(directory, installation, COMMUNITY_ID, gateway=True) as server:
        yield Broker(
            host=server.host,
            port=server.port,
            ca_file=server.ca_file,
            password_file=server.password_file,
            password=server.password_file.read_text(),
            gateway_password=server.gateway_password_file.read_text(),
            community_id=COMMUNITY_ID,
        )


@pytest.fixture(scope="session")
def broker(server_directory: Path, mosquitto_installation: Installation) -> Iterator[Broker]:
    with running_broker(server_directory / "mosquitto", mosquitto_installation) as running:
        yield running


@pytest.fixture
def fresh_broker(tmp_path: Path, mosquitto_installation: Installation) -> Iterator[Broker]:
    """A broker of this test alone: for a hub, whose sessions would otherwise keep what an earlier test sent."""
    with running_broker(tmp_path / "mosquitto", mosquitto_installation) as running:
        yield running


class Post:
    """The mail server's messages, and its faults. Tests share one server, so each writes to addresses of its own."""

    def __init__(self, server: MailSimulator) -> None:
        self.server = server

    def letters(self, address: str) -> list[EmailMessage]:
        """What came for this address, in its order."""
        letters = []
        for file in sorted(self.server.messages.glob("*.eml")):
            letter = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
            assert isinstance(letter, EmailMessage)
            if letter["Delivered-To"] == address:
                letters.append(letter)
        return letters


@pytest.fixture(scope="session")
def mail_simulator(server_directory: Path) -> Iterator[MailSimulator]:
    with MailSimulator(server_directory / "mail") as server:
        yield server


@pytest.fixture
def mail_server(mail_simulator: MailSimulator) -> Post:
    """A mail server without faults. It is a process of its own; `mail_server.server` says where, and makes faults."""
    mail_simulator.fail()
    return Post(mail_simulator)
