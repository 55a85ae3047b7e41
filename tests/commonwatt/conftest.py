"""A hub that answers over HTTP, and evidence made without one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner, Result

from commonwatt import admin
from hub.db import create_database_engine
from hub.dependencies import API_CONNECTIONS
from hub.settings import Settings
from hub.web import create_app, read_hub
from protocol.topics import domain_of
from simulators.sealing import SealedMessage, SimulatedMeter, seeded_key

COMMUNITY_ID = "test-community"
ADMIN_TOKEN = "an-admin-token-of-the-tests"  # noqa: S105
YESTERDAY_UNIX_S = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400 - 86_400


class Evidence:
    """Exports as the hub writes them, of a simulated meter; each line can be spoiled first."""

    def __init__(self, meter: SimulatedMeter) -> None:
        self.meter = meter

    def header(self, from_sequence: int = 1, to_sequence: int | None = None, **changes: object) -> dict[str, object]:
        return {
            "format": "commonwatt-evidence/1",
            "community_id": COMMUNITY_ID,
            "genesis_hash": "",
            "program_id": "",
            "domain": self.meter.domain.hex(),
            "meter_id": self.meter.meter_id,
            "key_epoch": 1,
            "from_sequence": from_sequence,
            "to_sequence": self.meter.sequence if to_sequence is None else to_sequence,
            "enrolment": self.meter.enrolment().hex(),
        } | changes

    def line(self, sealed: SealedMessage, **changes: object) -> dict[str, object]:
        return {
            "sequence": sealed.sequence,
            "state": "accepted",
            "received_at": "2026-11-20T06:00:00.123456Z",
            "message": sealed.message.hex(),
        } | changes

    def export(self, sealed: Iterable[SealedMessage], **header: object) -> bytes:
        return ndjson(self.header(**header), *(self.line(message) for message in sealed))  # type: ignore[arg-type]


def ndjson(*objects: object) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in objects)


def _simulated(meter_id: str, interval_s: int = 60, readings_per_seal: int = 15) -> SimulatedMeter:
    return SimulatedMeter(
        meter_id=meter_id,
        key=seeded_key(meter_id),
        domain=domain_of(COMMUNITY_ID),
        start_unix_s=YESTERDAY_UNIX_S,
        interval_s=interval_s,
        readings_per_seal=readings_per_seal,
    )


@pytest.fixture
def simulated():
    """Makes meters that began yesterday at midnight."""
    return _simulated


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(_simulated("roof"))


@pytest.fixture(scope="session")
def as_export():
    return ndjson


@dataclass(frozen=True)
class Operator:
    """Somebody with the admin token, at the command line; and what meters do meanwhile."""

    url: str
    token_file: Path

    def run(self, *arguments: object, stdin: str = "", url: str = "") -> Result:
        options = ["--url", url or self.url, "--token-file", str(self.token_file)]
        words = [str(argument) for argument in arguments]
        return CliRunner(env={"COLUMNS": "200"}).invoke(admin.app, [*options, *words], input=stdin)

    def do(self, *arguments: object, **more: str) -> str:
        result = self.run(*arguments, **more)
        assert result.exit_code == 0, result.output
        return result.output

    def register(self, meter: SimulatedMeter, directory: Path, **more: str) -> str:
        return self.do(
            "register",
            "--enrolment",
            meter.enrolment().hex(),
            "--production-capacity-w",
            20_000,
            "--connection-capacity-w",
            20_000,
            "--password-file",
            directory / f"{meter.meter_id}.password",
            **more,
        )

    def post(self, sealed: SealedMessage) -> str:
        answer = httpx.post(f"{self.url}/readings/seals?meter_id={sealed.meter_id}", content=sealed.message)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Iterator[Operator]:
    for name, secret in {
        "admin-token": ADMIN_TOKEN,
        "command-key": "11" * 32,
        "broker-secret": "22" * 32,
        "mqtt-password": "unused",
    }.items():
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    settings = Settings(
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
    engine = create_database_engine(database_url, "tests", API_CONNECTIONS)
    config = uvicorn.Config(create_app(read_hub(settings, engine)), port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Operator(f"http://127.0.0.1:{listener.getsockname()[1]}", settings.admin_token_file)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        engine.dispose()
