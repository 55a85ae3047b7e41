"""A hub over a real database, and a real HTTP client of it; meters that sign for themselves."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import base58
import httpx
import pytest
import structlog
import uvicorn
from sqlalchemy import Engine

from hub.auth import api_keys_service, members_service, sessions_service
from hub.auth.authentication import authenticate
from hub.auth.bootstrap import bootstrap_admin
from hub.auth.members_store import SOLANA
from hub.auth.sessions_rules import Client as SessionClient
from hub.db import create_database_engine, transaction
from hub.dependencies import API_CONNECTIONS
from hub.logs import configure_logs
from hub.permissions import KEY_SCOPES, Role
from hub.settings import MEMBER_SECRET_BYTES, Settings, read_secret_bytes
from hub.signatures import SigningKey
from hub.token_keys import read_token_keys
from hub.web import create_app, read_hub, server_config
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment, encode_enrolment
from protocol.readings import Reading, encode_readings
from protocol.seal import NO_PREDECESSOR, Seal, encode_seal, join_message, seal_hash, sha256
from protocol.settlement import Netting, first_closed_until
from protocol.topics import domain_of

COMMUNITY_ID = "test-community"
PUBLIC_URL = "http://127.0.0.1:8800"
_numbers = itertools.count(1)


def unix_s(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp())


@dataclass
class TestMeter:
    """A meter that keeps its own books, as an agent does: it signs statements and seals."""

    __test__ = False

    meter_id: str
    key: SigningKey
    valid_from_unix_s: int
    domain: bytes = domain_of(COMMUNITY_ID)
    production_wh: int = 0
    consumption_wh: int = 0
    sequence: int = 0
    previous: bytes = NO_PREDECESSOR
    netting: Netting = field(init=False)

    def __post_init__(self) -> None:
        self.netting = Netting(
            first_closed_until(self.valid_from_unix_s),
            self.production_wh,
            self.consumption_wh,
            0,
            self.production_wh,
            self.consumption_wh,
        )

    def enrolment(self, **changes: object) -> bytes:
        values: dict[str, object] = {
            "domain": self.domain,
            "meter_id": self.meter_id,
            "kind": KIND_SOLAR,
            "measurement": MEASURES_GENERATION_AND_GRID,
            "key_epoch": 1,
            "owner": bytes(32),
            "public_key": self.key.public_key,
            "production_wh": self.production_wh,
            "consumption_wh": self.consumption_wh,
            "surplus_wh": 0,
            "valid_from_unix_s": self.valid_from_unix_s,
        }
        statement = encode_enrolment(Enrolment(**(values | changes)))  # type: ignore[arg-type]
        return statement + self.key.sign(statement)

    def registration(self, **changes: object) -> dict[str, object]:
        return {
            "enrolment": self.enrolment().hex(),
            "production_capacity_w": 20_000,
            "connection_capacity_w": 20_000,
        } | changes

    def seal(self, readings: list[tuple[int, int, int]]) -> bytes:
        """The next message: readings of (unix seconds, production Wh, consumption Wh)."""
        section = encode_readings([Reading(*reading) for reading in readings])
        for reading in readings:
            self.netting.add(*reading)
        self.sequence += 1
        seal = encode_seal(
            Seal(
                self.domain,
                self.sequence,
                readings[-1][0],
                self.netting.closed_until_unix_s,
                self.netting.production_wh,
                self.netting.consumption_wh,
                self.netting.surplus_wh,
                self.previous,
                sha256(section),
            )
        )
        self.previous = seal_hash(seal)
        return join_message(seal, self.key.sign(seal), section)


@dataclass(frozen=True)
class TestMember:
    """A member and an API key of it."""

    __test__ = False

    member_id: UUID
    api_key: str


@dataclass(frozen=True)
class Server:
    """A running API and what is behind it."""

    client: httpx.Client
    anonymous: httpx.Client
    engine: Engine
    settings: Settings
    admin: str
    """`client` is an admin with an API key, `anonymous` nobody; `admin` is how the audit log names the former."""

    @property
    def url(self) -> str:
        return str(self.anonymous.base_url)

    def member(
        self, *roles: Role, member_type: Role = Role.CONSUMER, wallet: bytes | None = None, name: str = "Ada"
    ) -> TestMember:
        """A new member with these roles, and an API key of all scopes."""
        now = datetime.now(UTC)
        secret = read_secret_bytes(self.settings.member_secret_file, MEMBER_SECRET_BYTES)
        with transaction(self.engine) as connection:
            member_id = members_service.create_member(connection, member_type, name, "", now)
            for role in roles:
                members_service.give_role(connection, member_id, role, "a test", "test", now)
            if wallet is not None:
                value = base58.b58encode(wallet).decode()
                members_service.add_identity(connection, member_id, SOLANA, value, wallet, "test", now)
            key = api_keys_service.create_api_key(
                connection, secret, member_id, "a test", KEY_SCOPES, timedelta(days=1), "test", now
            )
        return TestMember(member_id, api_keys_service.api_key_text(secret, key.key_id))

    @contextlib.contextmanager
    def acting(self, member: TestMember) -> Iterator[httpx.Client]:
        """A client in a member's name."""
        headers = {"Authorization": f"Bearer {member.api_key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            yield client

    def access_token(self, member_id: UUID) -> str:
        """Of a new session of this member."""
        client = SessionClient.of("127.0.0.1", "tests")
        with transaction(self.engine) as connection:
            tokens = sessions_service.open_session(
                connection, member_id, "test", client, read_token_keys(self.settings), datetime.now(UTC)
            )
        return tokens.access_token

    @contextlib.contextmanager
    def signed_in(self, member_id: UUID) -> Iterator[httpx.Client]:
        """A client with a session of this member."""
        headers = {"Authorization": f"Bearer {self.access_token(member_id)}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            yield client

    def post(self, path: str, body: object, key: str | None = None) -> httpx.Response:
        """A POST under its own Idempotency-Key unless one is given."""
        return self.client.post(path, json=body, headers={"Idempotency-Key": key or f"key-{next(_numbers)}"})

    def register(self, meter: TestMeter, **changes: object) -> httpx.Response:
        answer = self.post("/meters", meter.registration(**changes))
        assert answer.status_code == 201, answer.text
        return answer

    def post_seal(self, meter: TestMeter, message: bytes) -> httpx.Response:
        return self.anonymous.post(f"/readings/seals?meter_id={meter.meter_id}", content=message)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return settings_in(tmp_path, database_url)


def settings_in(directory: Path, database_url: str) -> Settings:
    """Settings with their secret files."""
    secrets = {
        "command-key": "11" * 32,
        "broker-secret": "22" * 32,
        "member-secret": "33" * 32,
        "token-key": "44" * 32,
        "mqtt-password": "unused",
    }
    for name, secret in secrets.items():
        file = directory / name
        file.write_text(secret)
        file.chmod(0o600)
    return Settings(
        database_url=database_url,
        community_id=COMMUNITY_ID,
        mqtt_host="127.0.0.1",
        mqtt_port=8883,
        mqtt_ca_file=directory / "ca.pem",
        mqtt_password_file=directory / "mqtt-password",
        command_key_file=directory / "command-key",
        broker_secret_file=directory / "broker-secret",
        member_secret_file=directory / "member-secret",
        token_key_file=directory / "token-key",
        public_url=PUBLIC_URL,
    )


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_database_engine(database_url, "tests", API_CONNECTIONS)
    yield engine
    engine.dispose()


@contextlib.contextmanager
def running(settings: Settings, engine: Engine) -> Iterator[Server]:
    secret = read_secret_bytes(settings.member_secret_file, MEMBER_SECRET_BYTES)
    with transaction(engine) as connection:
        key = bootstrap_admin(connection, secret, "Admin", True, datetime.now(UTC))
        admin = authenticate(connection, read_token_keys(settings), f"Bearer {key}", datetime.now(UTC)).reference
    config = server_config(create_app(read_hub(settings, engine)))
    config.port = 0
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.listen()  # the client may be there before the server
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with (
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client,
            httpx.Client(base_url=url, timeout=60) as anonymous,
        ):
            yield Server(client, anonymous, engine, settings, admin)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        engine.dispose()


@pytest.fixture
def running_hub() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Serves over an engine of the test's own."""
    return running


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """The log as a process of the hub writes it; gives the entries so far."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    configure_logs("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


@pytest.fixture
def server(settings: Settings, engine: Engine) -> Iterator[Server]:
    with running(settings, engine) as server:
        yield server


@pytest.fixture
def new_meter() -> Callable[..., TestMeter]:
    """Makes meters, each with an id and a key of its own, enrolled at the start of this UTC day unless told."""

    def make(meter_id: str | None = None, valid_from_unix_s: int | None = None, **books: int) -> TestMeter:
        number = next(_numbers)
        today_unix_s = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400
        return TestMeter(
            meter_id or f"meter-{number}",
            SigningKey(number.to_bytes(32, "big")),
            today_unix_s if valid_from_unix_s is None else valid_from_unix_s,
            **books,
        )

    return make
