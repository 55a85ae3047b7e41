"""A hub that answers over HTTP, and evidence made without one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from nacl.signing import SigningKey
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from commonwatt import admin, member
from hub.auth.bootstrap import bootstrap_admin
from hub.db import create_database_engine, transaction
from hub.dependencies import API_CONNECTIONS
from hub.settings import Settings
from hub.web import create_app, read_hub, server_config
from infra.local.processes import write_secret
from protocol.topics import domain_of
from simulators.sealing import SealedMessage, SimulatedMeter, seeded_key

COMMUNITY_ID = "test-community"
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
    """An admin with an API key, at the command line; and what meters do meanwhile."""

    url: str
    key_file: Path
    engine: Engine

    def run(self, *arguments: object, stdin: str = "", url: str = "") -> Result:
        options = ["--url", url or self.url, "--key-file", str(self.key_file)]
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


@dataclass(frozen=True)
class Member:
    """Somebody with a wallet in a file, at the command line of this machine."""

    url: str
    directory: Path

    @property
    def wallet(self) -> Path:
        return self.directory / "wallet.json"

    @property
    def session(self) -> Path:
        return self.directory / "session.json"

    def words(self, *arguments: object, url: str = "") -> list[str]:
        return ["--url", url or self.url, "--session-file", str(self.session), *map(str, arguments)]

    def run(self, *arguments: object, stdin: str = "", url: str = "") -> Result:
        return CliRunner(env={"COLUMNS": "200"}).invoke(member.app, self.words(*arguments, url=url), input=stdin)

    def do(self, *arguments: object, **more: str) -> str:
        result = self.run(*arguments, **more)
        assert result.exit_code == 0, result.output
        return result.output

    def admin(self, *arguments: object) -> Result:
        """The other command, with this member's session."""
        return CliRunner(env={"COLUMNS": "200"}).invoke(admin.app, self.words(*arguments))

    @property
    def tokens(self) -> dict[str, str]:
        return dict(json.loads(self.session.read_text()))

    @property
    def member_id(self) -> str:
        return self.tokens["member_id"]


def refusal_of(result: Result, program: str = "commonwatt member") -> str:
    """The code of the one line with which a command ended."""
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"{program}: "), line
    return line.removeprefix(f"{program}: ").partition(":")[0]


@pytest.fixture
def newcomer(operator: Operator, tmp_path: Path) -> Callable[..., Member]:
    """Makes people who have just registered with a wallet of their own, or with this one."""

    def make(name: str, wallet: SigningKey | None = None) -> Member:
        (tmp_path / name).mkdir()
        made = Member(operator.url, tmp_path / name)
        if wallet is None:
            made.do("key", "new", made.wallet)
        else:
            write_secret(made.wallet, json.dumps(list(bytes(wallet) + bytes(wallet.verify_key)), separators=(",", ":")))
        made.do("register", "--wallet", made.wallet, "--name", name)
        return made

    return make


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Iterator[Operator]:
    for name, secret in {
        "command-key": "11" * 32,
        "broker-secret": "22" * 32,
        "member-secret": "33" * 32,
        "token-key": "44" * 32,
        "mqtt-password": "unused",
    }.items():
        write_secret(tmp_path / name, secret)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(
            database_url=database_url,
            community_id=COMMUNITY_ID,
            public_url=url,
            mqtt_host="127.0.0.1",
            mqtt_port=8883,
            mqtt_ca_file=tmp_path / "ca.pem",
            mqtt_password_file=tmp_path / "mqtt-password",
            command_key_file=tmp_path / "command-key",
            broker_secret_file=tmp_path / "broker-secret",
            member_secret_file=tmp_path / "member-secret",
            token_key_file=tmp_path / "token-key",
            webhook_networks_allowed=["127.0.0.1/32"],
        )
        engine = create_database_engine(database_url, "tests", API_CONNECTIONS)
        with transaction(engine) as connection:
            key = bootstrap_admin(connection, bytes.fromhex("33" * 32), "Ada", False, datetime.now(UTC))
        write_secret(tmp_path / "admin-key", key)
        server = uvicorn.Server(server_config(create_app(read_hub(settings, engine))))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Operator(url, tmp_path / "admin-key", engine)
        finally:
            server.should_exit = True
            thread.join()
            engine.dispose()
