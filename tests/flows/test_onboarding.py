"""From a wallet in a file to a meter on the chain: command line, API, chain process and cluster, all of them real.

Nobody here writes a row or a transaction by hand; what is on the chain in the end is asked of the node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import base58
import pytest
from solders.keypair import Keypair
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from commonwatt import wallet
from commonwatt.member_session import Tokens
from hub.auth import members_service, sessions_service
from hub.auth.members_store import SOLANA
from hub.auth.sessions_rules import Client
from hub.chain.accounts import MeterState
from hub.db import transaction
from hub.permissions import Role
from hub.registry import service as registry
from hub.settings import Settings
from hub.signatures import SigningKey
from hub.token_keys import read_token_keys
from infra.local.processes import write_secret
from tests.hub.chain.cluster import Cluster
from tests.hub.chain.conftest import cluster, new_wallet, shared_cluster
from tests.hub.conftest import Server, TestMeter, engine, log_lines, running, settings_in

__all__ = ["cluster", "engine", "log_lines", "new_wallet", "shared_cluster"]  # fixtures of other rooms

DEADLINE_S = 60.0
UNKNOWN_STATUS = 3


@dataclass
class ChainProcess:
    """`commonwatt hub chain` for this database and cluster."""

    settings: Settings
    log: Path
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        given = {
            f"COMMONWATT_{name.upper()}": str(value)
            for name, value in self.settings.model_dump(exclude_defaults=True).items()
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "commonwatt", "hub", "chain"]
            self._running.append(subprocess.Popen(command, env=os.environ | given, stdout=log, stderr=log))

    def start_and_read(self, engine: Engine, accounts: str = "chain_config") -> None:
        """Until the hub has read the program's Config, or these accounts."""
        self.start()
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._has_read(engine, accounts):
            assert time.monotonic() < deadline_s, "the mirrors were never read"
            time.sleep(0.1)

    def _has_read(self, engine: Engine, accounts: str) -> bool:
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql(f"SELECT count(*) FROM {accounts}").scalar_one())

    def stop(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()
        self._running.clear()


@dataclass(frozen=True)
class Person:
    """A member at a terminal, signed in, with a wallet in a file of Solana's own form."""

    server: Server
    program: str
    directory: Path
    address: str

    @property
    def wallet(self) -> Path:
        return self.directory / "id.json"

    def run(self, *words: object, stdin: str = "") -> Result:
        options = ["--session-file", str(self.directory / "session.json")]
        runner = CliRunner(env={"COLUMNS": "200"})
        return runner.invoke(wallet.app, [*options, *map(str, words)], input=stdin)

    def act(self, *words: object, stdin: str = "") -> Result:
        """With the wallet, saying yes beforehand."""
        known = ("--wallet", self.wallet, "--program", self.program, "--wait-s", int(DEADLINE_S))
        return self.run(*words, *known, *([] if stdin else ["--yes"]), stdin=stdin)


@pytest.fixture
def chain_settings(cluster: Cluster, database_url: str, tmp_path: Path) -> Settings:
    return cluster.settings(settings_in(tmp_path, database_url))


@pytest.fixture
def server(chain_settings: Settings, engine: Engine, log_lines: object) -> Iterator[Server]:
    with running(chain_settings, engine) as server:
        yield server


@pytest.fixture
def process(chain_settings: Settings, tmp_path: Path) -> Iterator[ChainProcess]:
    made = ChainProcess(chain_settings, tmp_path / "chain.log")
    yield made
    made.stop()
    sys.stderr.write(made.log.read_text()[-20_000:] if made.log.exists() else "")


@pytest.fixture
def ada(server: Server, cluster: Cluster, new_wallet, tmp_path: Path) -> Person:
    key: Keypair = new_wallet()
    public_key, now = bytes(key.pubkey()), datetime.now(UTC)
    with transaction(server.engine) as connection:
        member_id = members_service.create_member(connection, Role.PROSUMER, "Ada", "", now)
        members_service.add_identity(connection, member_id, SOLANA, str(key.pubkey()), public_key, "test", now)
        given = sessions_service.open_session(
            connection, member_id, "test", Client.of("127.0.0.1", "x"), read_token_keys(server.settings), now
        )
    tokens = Tokens(server.url, str(member_id), str(given.session_id), given.access_token, given.refresh_token)
    person = Person(server, str(cluster.program_id), tmp_path, str(key.pubkey()))
    write_secret(tmp_path / "session.json", json.dumps(asdict(tokens)))
    write_secret(person.wallet, key.to_json())
    return person


def a_roof(server: Server, owner: bytes, name: str) -> TestMeter:
    """A meter that its agent has enrolled with the hub."""
    today_unix_s = int(time.time()) // 86_400 * 86_400
    meter = TestMeter(name, SigningKey(name.encode().ljust(32, b".")), today_unix_s, server.settings.domain)
    with transaction(server.engine) as connection:
        registry.register_meter(
            connection,
            meter.enrolment(owner=owner),
            registry.Capacity(5_000, 20_000),
            meter.domain,
            server.settings.backlog_age_max_s,
            "test",
            datetime.now(UTC),
        )
    return meter


def refusal_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stderr.count("commonwatt wallet:") == 1, result.stderr
    return result.stderr.partition("commonwatt wallet: ")[2].partition(":")[0]


def test_a_wallet_and_its_meter_come_onto_the_chain_and_are_paid_for_by_the_hub(ada, server, cluster, process):
    process.start_and_read(server.engine)
    owner = base58.b58decode(ada.address)
    meter = a_roof(server, owner, f"roof-{ada.address[:8].lower()}")

    done = ada.act("register")
    assert done.exit_code == 0, done.output
    assert f"it registers: your wallet {ada.address} as a prosumer on the chain" in done.stderr
    assert done.stdout.split()[-2] == "finalized"
    signature = done.stdout.split()[-1]
    user = cluster.simulator.call("getAccountInfo", str(cluster.addresses.user(owner)), {"encoding": "base64"})
    assert user["value"]["owner"] == str(cluster.program_id)
    assert cluster.simulator.call("getBalance", ada.address)["value"] == 0, "the wallet has never had a lamport"

    done = ada.act("register-meter", meter.meter_id)
    assert done.exit_code == 0, done.output
    assert "of at most: 5000 W, in steps of 10 Wh" in done.stderr
    on_chain = cluster.meter(meter.meter_id)
    assert (on_chain.owner, on_chain.key, on_chain.key_epoch) == (owner, meter.key.public_key, 1)
    assert (on_chain.state, on_chain.capacity_w, on_chain.register_step_wh) == (MeterState.ACTIVE, 5_000, 10)
    assert on_chain.grid_account == bytes(cluster.addresses.grid_account(owner, cluster.grid_mint))

    shown = server.client.get(f"/meters/{meter.meter_id}").json()["chain"]
    assert (shown["address"], shown["state"]) == (str(cluster.addresses.meter(meter.meter_id)), "active")
    landed = cluster.simulator.call(
        "getTransaction", shown["signature"], {"encoding": "json", "maxSupportedTransactionVersion": 0}
    )
    assert landed["meta"]["err"] is None
    listed = ada.run("registrations").stdout
    assert signature in listed
    assert shown["signature"] in listed
    assert listed.count("finalized") == 2
    paid = server.client.get("/registrations").json()["registrations"]
    assert {each["rent_state"] for each in paid} == {"paid"}
    assert {each["rent_payer"] for each in paid} == {str(cluster.hub.pubkey())}

    had = ada.run("balance", "--rpc", cluster.rpc_url, "--program", ada.program, "--wallet", ada.wallet)
    assert had.exit_code == 0, had.output
    assert [line.split() for line in had.stdout.splitlines()] == [["wallet", ada.address], ["GRID", "0"], ["SOL", "0"]]


def test_what_is_on_the_chain_already_is_refused_by_name_whoever_put_it_there(
    ada, server, cluster, process, new_wallet
):
    key = Keypair.from_json(ada.wallet.read_text())
    meter = a_roof(server, bytes(key.pubkey()), f"attic-{ada.address[:8].lower()}")
    cluster.register_user(key)
    other = new_wallet()
    cluster.register_user(other)
    cluster.register_meter(meter.meter_id, SigningKey(os.urandom(32)), other)
    process.start_and_read(server.engine, f"chain_meters WHERE meter_id = '{meter.meter_id}'")
    assert refusal_of(ada.act("register")) == "user_already_on_chain"
    assert refusal_of(ada.act("register-meter", meter.meter_id)) == "meter_owned_by_another"


def test_while_the_chain_process_is_away_it_is_planned_and_goes_on_when_it_is_back(ada, server, cluster, process):
    process.start_and_read(server.engine)
    process.stop()
    known = ("--wallet", ada.wallet, "--program", ada.program)
    left = ada.run("register", *known, "--wait-s", 0, "--yes")
    assert left.exit_code == UNKNOWN_STATUS, left.output
    assert left.stdout == "planned\n"
    [waiting] = server.client.get("/registrations").json()["registrations"]
    process.start()
    done = ada.act("sign", waiting["registration_id"], stdin="y\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.split()[-2] == "finalized"
    assert ada.act("sign", waiting["registration_id"]).stdout.startswith("finalized ")
