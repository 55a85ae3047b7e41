"""The chain process among processes that are killed: whatever happens, the mirrors equal the chain afterwards."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import psycopg
import pytest

from hub.chain import instructions
from hub.chain.accounts import MeterState
from hub.chain.loops import back_off_s, repeat, run_loops
from hub.chain_process import all_reactions
from hub.errors import ChainAway
from hub.signatures import SigningKey
from tests.hub.chain.cluster import Cluster, keypair
from tests.hub.chain.reading import Reader

DEADLINE_S = 40.0
METER = "followed"


@dataclass
class ChainProcess:
    """`commonwatt hub chain` on a database and a cluster."""

    environment: dict[str, str]
    log: Path
    metrics_port: int
    _process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "commonwatt", "hub", "chain"],
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; how it ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(30)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def words(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def figure(self, name: str) -> float | None:
        """A figure without labels, as Prometheus reads it."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5).text
        except httpx.TransportError:
            return None
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def followed_cluster(shared_cluster: Cluster) -> Cluster:
    shared_cluster.simulator.fail()
    wallet = keypair("followed")
    shared_cluster.register_user(wallet)
    shared_cluster.register_meter(METER, SigningKey(b"\x41" * 32), wallet)
    return shared_cluster


@pytest.fixture
def process(followed_cluster, cluster, database_url, tmp_path) -> Iterator[ChainProcess]:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(secrets.token_hex(32))
    port = _free_port()
    made = ChainProcess(
        {
            "COMMONWATT_DATABASE_URL": database_url,
            "COMMONWATT_MQTT_HOST": "127.0.0.1",
            "COMMONWATT_MQTT_PORT": "8883",
            "COMMONWATT_MQTT_CA_FILE": str(secret),
            "COMMONWATT_MQTT_PASSWORD_FILE": str(secret),
            "COMMONWATT_COMMAND_KEY_FILE": str(secret),
            "COMMONWATT_BROKER_SECRET_FILE": str(secret),
            "COMMONWATT_MEMBER_SECRET_FILE": str(secret),
            "COMMONWATT_TOKEN_KEY_FILE": str(secret),
            "COMMONWATT_PUBLIC_URL": "http://127.0.0.1",
            "COMMONWATT_METRICS_PORT": str(port),
            **cluster.environment(),
        },
        tmp_path / "chain.log",
        port,
    )
    yield made
    if made.is_running():
        made.kill()
    sys.stderr.write(made.words()[-20_000:])


@pytest.fixture
def reader(engine, followed_cluster) -> Reader:
    return Reader(engine, followed_cluster)


def _wait_until(what: str, condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {DEADLINE_S:.0f} s until {what}")
        time.sleep(0.05)


def _flip(cluster: Cluster) -> str:
    state = MeterState.SUSPENDED if cluster.meter(METER).state is MeterState.ACTIVE else MeterState.ACTIVE
    hub = bytes(cluster.hub.pubkey())
    return cluster.carry_out(instructions.set_meter_status(cluster.addresses, hub, METER, state))


def _equal(reader: Reader) -> bool:
    try:
        return reader.mirrored() == reader.on_chain()
    except ChainAway:  # it is only coming back
        return False


def test_the_process_follows_the_chain_by_its_socket_and_ends_when_asked(process, reader):
    process.start()
    _wait_until("the mirrors equal the chain", lambda: _equal(reader))
    _wait_until("the socket is open", lambda: process.figure("commonwatt_chain_websocket_connected") == 1)
    _wait_until("the gate is open", lambda: '"reason": "usable"' in process.words())
    _flip(reader.cluster)
    _wait_until("the mirrors equal the chain again", lambda: _equal(reader))
    lag = process.figure("commonwatt_chain_node_lag_seconds")
    assert lag is not None and -5 < lag < 60
    assert (process.figure("commonwatt_chain_events_read_total") or 0) > 0
    assert process.terminate() == 0
    assert "chain_stopped" in process.words()
    assert "Traceback" not in process.words()
    assert "coroutine" not in process.words()


def test_after_any_downtime_of_hub_and_cluster_the_mirrors_equal_the_chain(process, reader):
    """Killed while it reads, as soon as it runs, and the node before it and under it; and each time things happen."""
    cluster = reader.cluster
    process.start()
    _wait_until("something was read", lambda: bool(reader.mirrored()))
    process.kill()
    _flip(cluster)
    process.start()
    _wait_until("it runs again", lambda: process.words().count("chain_started") == 2)
    process.kill()
    _flip(cluster)
    cluster.simulator.kill()
    process.start()
    _wait_until("it misses the node", lambda: "chain_round_failed" in process.words())
    cluster.simulator.start()
    _flip(cluster)
    _wait_until("the mirrors equal the chain", lambda: _equal(reader))
    _wait_until("the socket is open", lambda: process.figure("commonwatt_chain_websocket_connected") == 1)
    cluster.simulator.kill()
    _wait_until("the socket is closed", lambda: process.figure("commonwatt_chain_websocket_connected") == 0)
    assert process.is_running()
    cluster.simulator.start()
    _flip(cluster)
    _wait_until("the mirrors equal the chain", lambda: _equal(reader))
    events = reader.events()
    assert len(events) == len(set(events))


@pytest.mark.long
def test_forty_kills_of_two_hubs_and_a_cluster_leave_mirrors_that_equal_the_chain(process, reader, tmp_path):
    random, flips = Random(5), []
    cluster = reader.cluster
    environment = process.environment | {"COMMONWATT_METRICS_PORT": "0"}
    hubs = [process, ChainProcess(environment, tmp_path / "second.log", 0)]
    for hub in hubs:
        hub.start()
    try:
        for kill in range(40):
            flips.append(_flip(cluster))
            time.sleep(random.uniform(0.0, 1.5))
            if kill % 4 == 3:
                cluster.simulator.kill()
                time.sleep(random.uniform(0.0, 0.5))
                cluster.simulator.start()
            else:
                killed = hubs[kill % 2]
                killed.kill()
                flips.append(_flip(cluster))
                killed.start()
        _wait_until("the mirrors equal the chain", lambda: _equal(reader))
        events = reader.events()
        assert len(events) == len(set(events))
        assert set(flips) <= {signature for signature, _ in events}, "none was missed"
        assert all(hub.is_running() for hub in hubs)
    finally:
        for hub in hubs[1:]:
            hub.kill()


def test_a_node_that_refuses_and_one_of_another_chain_are_waited_for(process, reader):
    cluster = reader.cluster
    cluster.simulator.fail(genesis_hash="11111111111111111111111111111111")
    process.start()
    _wait_until("the other chain is noticed", lambda: "chain_differs" in process.words())
    assert process.is_running() and reader.mirrored() == {}
    _wait_until("the socket is open", lambda: process.figure("commonwatt_chain_websocket_connected") == 1)
    cluster.simulator.fail(refused_s=600)
    _wait_until("the socket is closed", lambda: process.figure("commonwatt_chain_websocket_connected") == 0)
    cluster.simulator.fail()
    _wait_until("the mirrors equal the chain", lambda: _equal(reader))
    assert process.terminate() == 0


def test_a_process_that_cannot_begin_says_why(process, database_url, engine):
    process.environment["COMMONWATT_RPC_URL"] = ""
    process.start()
    assert process.wait() == 1
    assert "COMMONWATT_RPC_URL is not set" in process.words()


def test_a_database_of_another_chain_is_refused_at_the_start(process, database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO chain_cursor (cursor_id, genesis_hash, program_id) VALUES (1, 'another', 'program')"
        )
    process.start()
    assert process.wait() == 1
    assert "another chain" in process.words()


# --- the loops ---------------------------------------------------------------------------------------------------


def test_every_kind_of_intent_has_one_reaction():
    reactions = all_reactions()
    assert {"mint", "user.register", "meter.register", "lookup_table.create"} <= reactions.by_intent_kind.keys()
    assert len(reactions.of_events) == len(set(reactions.of_events)) > 1


async def _endless(stop):
    await stop.wait()


def test_a_round_that_fails_is_tried_again_and_a_mistake_of_ours_ends_everything():
    async def work() -> list[str]:
        stop, said = asyncio.Event(), []

        async def once() -> None:
            said.append("tried")
            if len(said) == 1:
                raise ChainAway("a test")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await run_loops(
                {"one": lambda: repeat("test", lambda: 0.01, once, stop), "two": lambda: _endless(stop)}, stop
            )
        assert stop.is_set(), "the others were told to end"
        return said

    assert asyncio.run(work()) == ["tried", "tried"]


def test_the_pause_grows_to_a_minute():
    for failures, most_s in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (1_000, 60.0)):
        assert 0.75 * most_s <= back_off_s(failures) <= most_s
