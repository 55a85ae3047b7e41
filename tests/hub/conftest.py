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
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import structlog
import uvicorn
from sqlalchemy import Engine

from hub.db import create_database_engine
from hub.dependencies import API_CONNECTIONS
from hub.logs import configure_logs
from hub.settings import Settings
from hub.signatures import SigningKey
from hub.web import create_app, read_hub
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment, encode_enrolment
from protocol.readings import Reading, encode_readings
from protocol.seal import NO_PREDECESSOR, Seal, encode_seal, join_message, seal_hash, sha256
from protocol.settlement import Netting, first_closed_until
from protocol.topics import domain_of

COMMUNITY_ID = "test-community"
ADMIN_TOKEN = "an-admin-token-of-the-tests"  # noqa: S105
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
class Server:
    """A running API and what is behind it."""

    client: httpx.Client
    anonymous: httpx.Client
    engine: Engine
    settings: Settings
    """`client` sends the admin token, `anonymous` nothing."""

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
    secrets = {
        "admin-token": ADMIN_TOKEN,
        "command-key": "11" * 32,
        "broker-secret": "22" * 32,
        "mqtt-password": "unused",
    }
    for name, secret in secrets.items():
        file = tmp_path / name
        file.write_text(secret)
        file.chmod(0o600)
    return Settings(
        database_url=database_url,
        community_id=COMMUNITY_ID,
        mqtt_host="127.0.0.1",
        mqtt_port=8883,
        mqtt_ca_file=tmp_path / "ca.pem",
        mqtt_password_file=tmp_path / "mqtt-password",
        admin_token_file=tmp_path / "admin-token",
        command_key_file=tmp_path / "command-key",
        broker_secret_file=tmp_path / "broker-secret",
    )


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_database_engine(database_url, "tests", API_CONNECTIONS)
    yield engine
    engine.dispose()


@contextlib.contextmanager
def running(settings: Settings, engine: Engine) -> Iterator[Server]:
    config = uvicorn.Config(
        create_app(read_hub(settings, engine)), host="127.0.0.1", port=0, log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with (
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=60) as client,
            httpx.Client(base_url=url, timeout=60) as anonymous,
        ):
            yield Server(client, anonymous, engine, settings)
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
