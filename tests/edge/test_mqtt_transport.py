"""The whole agent over a real broker, in both versions of MQTT; the other end is a few lines that behave like the hub,
or do not."""

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from nacl.signing import SigningKey

from edge.connection import Hooks, load_certificate, read_password, tls_context
from edge.errors import IdentityError
from edge.mqtt_transport import MqttTransport
from edge.outbox import Outbox
from edge.settings import Settings, load_settings
from infra.local.mosquitto import Mosquitto
from protocol.command import RESEND, RESTART, SET_INTERVAL, Command, encode_command
from protocol.committed import Committed, encode_committed
from protocol.limits import SETTLEMENT_INTERVAL_S
from protocol.readings import decode_readings
from protocol.seal import Message, seal_hash, split_message
from protocol.topics import shard_of, topic

ROOT = Path(__file__).parents[2]
WAIT_S = 30
GRID, POWER = 1, 0x34


class HubEnd:
    """Takes seals as the hub's broker user and, while `answers`, commits them. It remembers everything it was sent."""

    def __init__(self, broker: Any, meter_id: str) -> None:
        self.answers = True
        self.seals: dict[int, Message] = {}
        self.received: list[int] = []
        self.statuses: queue.Queue[dict[str, Any]] = queue.Queue()
        self._topic = lambda channel: topic(broker.community_id, meter_id, channel)
        self._lock = threading.Lock()
        user = f"hub-{shard_of(meter_id)}"
        self.client: mqtt.Client = broker.connect(user, broker.password)
        self.client.on_message = self._on_message
        self.topics = [(self._topic("seals"), 1), (self._topic("status"), 1)]
        self.client.subscribe(self.topics)

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == self._topic("status"):
            self.statuses.put(json.loads(message.payload))
            return
        seal = split_message(bytes(message.payload))
        with self._lock:
            self.received.append(seal.seal.sequence)
            self.seals.setdefault(seal.seal.sequence, seal)
            assert self.seals[seal.seal.sequence].seal_bytes == seal.seal_bytes
        if self.answers:
            self.commit()

    def commit(self) -> None:
        contiguous = 0
        while contiguous + 1 in self.seals:
            contiguous += 1
        digest = seal_hash(self.seals[contiguous].seal_bytes) if contiguous else None
        self.send("committed", encode_committed(Committed(1, contiguous, digest, [])), retain=True)

    def send(self, channel: str, payload: bytes, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        return self.client.publish(self._topic(channel), payload, qos=1, retain=retain)

    def wait_for_status(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while not wanted(status := self.statuses.get(timeout=max(0.1, deadline - time.monotonic()))):
            pass
        return status

    def has_all_up_to(self, sequence: int) -> bool:
        return set(range(1, sequence + 1)) <= set(self.seals)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


_started: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


def commonwatt_edge(config: Path, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *arguments, "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _started.append(process)
    return process


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def iso(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


@pytest.fixture
def broker_of(broker: Any) -> Callable[[Mosquitto], Any]:
    """What the shared broker offers its clients, for a broker of the test's own."""

    def make(server: Mosquitto) -> Any:
        return replace(
            broker,
            port=server.port,
            ca_file=server.ca_file,
            password_file=server.password_file,
            password=server.password_file.read_text(),
            community_id=server.community_id,
        )

    return make


@pytest.fixture(params=[5, 3])
def version(request: pytest.FixtureRequest) -> int:
    """MQTT 5 or 3.1.1: the guarantees are the same."""
    return int(request.param)


@pytest.fixture
def home(
    tmp_path: Path, meters: Any, broker: Any, config_text: Callable[..., str], version: int
) -> Iterator[tuple[Path, HubEnd]]:
    meters.set(GRID, POWER, 0.0)  # at rest: registers may stand still
    meter_id = f"home-{uuid.uuid4().hex[:16]}"
    text = config_text(meters.port, broker.port, "interval_s = 60")
    text = text.replace("home-17", meter_id).replace("sunny-street", broker.community_id)
    text = text.replace("ca.crt", str(broker.ca_file)).replace(
        '[mqtt]\nhost = "127.0.0.1"', f'[mqtt]\nhost = "{broker.host}"'
    )
    text = text.replace(
        'password_file = "mqtt.password"',
        f'password_file = "mqtt.password"\nrepublish_after_s = 1\nversion = {version}',
    )
    (tmp_path / "edge.toml").write_text(text)
    (tmp_path / "mqtt.password").touch(mode=0o600)
    (tmp_path / "mqtt.password").write_text("a-password-of-this-test\n")
    broker.create_meter_account(meter_id, "a-password-of-this-test")
    hub = HubEnd(broker, meter_id)
    yield tmp_path / "edge.toml", hub
    hub.close()


def test_a_replayed_stretch_arrives_whole_and_is_forgotten(
    home: tuple[Path, HubEnd], meters: Any, quarter: int
) -> None:
    config, hub = home

    def at(now: int) -> None:
        minute = max(0, now - quarter) // 60
        meters.home_wh(100_000 + 50 * minute, 50_000, 20_000 + 20 * minute)

    meters.at_time = at
    code, out, err = finish(commonwatt_edge(config, "enrol", "--valid-from", iso(quarter)))
    assert (code, len(out.strip())) == (0, 2 * 244), err
    assert finish(commonwatt_edge(config, "enrol"))[1] == out

    span = ("--from", iso(quarter), "--to", iso(quarter + 8 * SETTLEMENT_INTERVAL_S))
    code, _, err = finish(commonwatt_edge(config, "replay", *span))
    assert code == 0, err
    assert sorted(hub.seals) == list(range(1, 9))
    readings = [reading for _, message in sorted(hub.seals.items()) for reading in decode_readings(message.section)]
    assert [reading.time_unix_s for reading in readings] == [quarter + 60 * i for i in range(1, 121)]
    last = hub.seals[8].seal
    assert (last.production_wh, last.surplus_wh) == (100_000 + 50 * 120, 20 * 120)
    assert meters.laboratory_times[-1] == 0
    status = hub.wait_for_status(lambda status: status["state"] == "offline")
    assert status == {"state": "offline"}
    assert "Traceback" not in err


def test_seals_that_the_hub_has_not_confirmed_are_published_again_also_after_sigkill(
    home: tuple[Path, HubEnd], quarter: int
) -> None:
    config, hub = home
    assert finish(commonwatt_edge(config, "enrol", "--valid-from", iso(quarter)))[0] == 0
    hub.answers = False
    span = ("--from", iso(quarter), "--to", iso(quarter + 4 * SETTLEMENT_INTERVAL_S), "--timeout-s", "60")
    replay = commonwatt_edge(config, "replay", *span)
    wait_until(lambda: len(hub.received) >= 8)  # four seals, each again after its pause
    replay.send_signal(signal.SIGKILL)
    replay.communicate()
    assert hub.wait_for_status(lambda status: status["state"] == "offline")
    hub.answers = True
    code, _, err = finish(commonwatt_edge(config, "replay", *span))
    assert code == 0, err
    assert sorted(hub.seals) == [1, 2, 3, 4]


def test_without_receipts_a_replay_ends_with_a_named_error(home: tuple[Path, HubEnd], quarter: int) -> None:
    config, hub = home
    assert finish(commonwatt_edge(config, "enrol", "--valid-from", iso(quarter)))[0] == 0
    hub.answers = False
    span = ("--from", iso(quarter), "--to", iso(quarter + SETTLEMENT_INTERVAL_S), "--timeout-s", "2")
    code, _, err = finish(commonwatt_edge(config, "replay", *span))
    assert code == 1
    assert "error: replay_not_committed: 1 seals have no receipt" in err
    assert "Traceback" not in err


def test_the_agent_runs_obeys_says_so_and_says_farewell(home: tuple[Path, HubEnd], hub_key: SigningKey) -> None:
    config, hub = home
    assert finish(commonwatt_edge(config, "enrol"))[0] == 0
    settings = load_settings(config)

    def send_command(counter: int, kind: int, first: int = 0, last: int = 0) -> None:
        expires = int(time.time()) + 60
        signed = encode_command(Command(settings.domain, settings.meter_id, counter, expires, kind, first, last))
        hub.send("commands", signed + hub_key.sign(signed).signature)

    hub.send("committed", b"\xffnonsense", retain=True)
    agent = commonwatt_edge(config, "run")
    hub.wait_for_status(lambda status: status["state"] == "online")
    hub.send("commands", b"nonsense")
    send_command(1, SET_INTERVAL, 1, 0)  # a meter that reads each minute goes live at once
    wait_until(partial(hub.has_all_up_to, 3))
    send_command(2, RESTART)
    code, _, err = finish(agent)
    assert code == 0, err
    assert hub.wait_for_status(lambda status: status["state"] == "offline")
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert {"broker_connected", "sealed", "receipt_malformed", "command_malformed", "command"} <= set(events)

    send_command(3, RESEND, 1, 1)  # kept by the broker until we are back
    again = commonwatt_edge(config, "run")
    hub.wait_for_status(lambda status: status.get("counts", {}).get("command") == 1)
    again.send_signal(signal.SIGTERM)
    code, _, err = finish(again)
    assert (code, "Traceback" in err) == (0, False), err


def test_an_agent_that_waits_for_a_hub_which_never_finishes_its_answer_still_ends_when_told(
    home: tuple[Path, HubEnd],
) -> None:
    config, _ = home
    assert finish(commonwatt_edge(config, "enrol"))[0] == 0
    (config.parent / "mqtt.password").write_text("the-password-of-last-year")  # so that it asks the hub for another
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.settimeout(WAIT_S)
        url = f"http://127.0.0.1:{hub.getsockname()[1]}"
        config.write_text(config.read_text().replace("[hub]", f'[hub]\nurl = "{url}"'))
        agent = commonwatt_edge(config, "run")
        asked, _ = hub.accept()
        with asked:
            assert asked.recv(65_536).startswith(b"POST /agent/credentials")
            agent.send_signal(signal.SIGTERM)
            asked.send(b"HTTP/1.1 200 OK\r\nX-Word: ")
            deadline = time.monotonic() + WAIT_S
            while agent.poll() is None:  # nothing else ends it: a read never times out
                assert time.monotonic() < deadline, "it waits for the hub"
                with suppress(OSError):
                    asked.send(b"x")
                time.sleep(0.2)
    code, _, err = finish(agent)
    assert (code, "Traceback" in err) == (0, False), err


def test_a_password_or_authority_that_is_not_there_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="password_unreadable"):
        read_password(tmp_path / "none")
    (tmp_path / "open").touch(mode=0o640)
    (tmp_path / "open").chmod(0o640)
    with pytest.raises(IdentityError, match="password_exposed"):
        read_password(tmp_path / "open")
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(IdentityError, match="ca_unreadable"):
        tls_context(tmp_path / "ca")
    with pytest.raises(IdentityError, match="certificate_key_exposed"):
        load_certificate(tls_context(None), tmp_path / "ca", tmp_path / "open")
    (tmp_path / "open").chmod(0o600)
    with pytest.raises(IdentityError, match="certificate_unreadable"):
        load_certificate(tls_context(None), tmp_path / "ca", tmp_path / "open")


def test_a_restored_journal_hears_the_retained_receipt_before_it_sends_and_so_sends_nothing(
    home: tuple[Path, HubEnd], meters: Any, quarter: int
) -> None:
    config, hub = home
    assert finish(commonwatt_edge(config, "enrol", "--valid-from", iso(quarter)))[0] == 0
    copies = {file: file.read_bytes() for file in config.parent.glob("journal.sqlite*")}
    span = ("--from", iso(quarter), "--to", iso(quarter + 2 * SETTLEMENT_INTERVAL_S))
    code, _, err = finish(commonwatt_edge(config, "replay", *span))
    assert code == 0, err
    for file in config.parent.glob("journal.sqlite*"):
        file.unlink()
    for file, content in copies.items():
        file.write_bytes(content)
    before = list(hub.received)
    meters.home_wh(100_100, 50_000, 20_000)  # so that the same numbers get other seals
    code, _, err = finish(commonwatt_edge(config, "replay", *span, "--timeout-s", "6"))
    assert code == 1
    assert "receipt_hub_is_ahead" in err or "receipt_hash_differs" in err
    assert hub.received == before


@pytest.mark.parametrize("retained", [True, False])
def test_a_connection_sends_only_after_the_retained_receipt_had_its_chance(
    home: tuple[Path, HubEnd], retained: bool
) -> None:
    config, hub = home
    settings, events = load_settings(config), []
    if retained:
        hub.send("committed", encode_committed(Committed(1, 0, None, [])), retain=True).wait_for_publish(WAIT_S)

    async def connect() -> None:
        asked, started = asyncio.Event(), time.monotonic()

        def find_message(_: int) -> None:
            events.append("asked")
            asked.set()

        hooks = Hooks(find_message, lambda _: events.append("receipt"), lambda _: None, dict, lambda _: None)
        outbox = Outbox(60, lambda: 0.0)
        outbox.load([1])
        running = asyncio.create_task(MqttTransport(settings, outbox, hooks, lambda: 0.0).run())
        await asyncio.wait_for(asked.wait(), WAIT_S)
        assert (time.monotonic() - started > 1.9) is not retained
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(connect())
    assert events == (["receipt", "asked"] if retained else ["asked"])


@dataclass
class Heard:
    """An agent that has nothing to say and notes what its transport tells it."""

    counts: list[str] = field(default_factory=list)
    problems: list[tuple[str, bool]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def transport(
        self, settings: Settings, renew: Callable[[], Awaitable[bool]] | None = None, undisputed_s: float = 60
    ) -> MqttTransport:
        hooks = Hooks(
            lambda _: None,
            lambda _: None,
            lambda _: None,
            dict,
            self._count,
            problem=self._problem,
            renew_credentials=renew,
        )
        return MqttTransport(settings, Outbox(1, lambda: 0.0), hooks, lambda: 0.01, undisputed_s=undisputed_s)

    def _count(self, what: str) -> None:
        self.counts.append(what)
        self.changed.set()

    def _problem(self, name: str, exists: bool) -> None:
        self.problems.append((name, exists))
        self.changed.set()

    async def wait(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not happened():
                self.changed.clear()
                await self.changed.wait()


async def end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=WAIT_S)
    assert not running


def test_mqtt_5_tells_of_a_refused_publish_and_mqtt_3_does_not(
    home: tuple[Path, HubEnd], broker: Any, version: int
) -> None:
    settings, heard = load_settings(home[0]), Heard()

    async def publish_as_somebody_else() -> None:
        async with heard.transport(settings)._client() as client:
            await client.publish(topic(broker.community_id, "home-of-others", "seals"), b"x", qos=1)

    asyncio.run(publish_as_somebody_else())
    assert heard.counts == (["publish_refused"] if version == 5 else [])


def test_refused_credentials_are_named_renewed_and_read_again(home: tuple[Path, HubEnd]) -> None:
    settings, heard = load_settings(home[0]), Heard()
    file = home[0].parent / "mqtt.password"
    good = file.read_text()
    file.write_text("the-password-of-last-year")
    asked = []

    async def renew() -> bool:
        asked.append(len(asked))
        if len(asked) > 1:
            file.write_text(good)
        return len(asked) > 1

    async def connect() -> None:
        transport = heard.transport(settings, renew)
        running = asyncio.create_task(transport.run())
        await heard.wait(lambda: ("broker_not_authorised", False) in heard.problems)
        assert transport.last_problem == ""
        await end(running)

    asyncio.run(connect())
    assert heard.counts == ["broker_not_authorised"] * 2
    assert heard.problems == [("broker_not_authorised", True)] * 2 + [("broker_not_authorised", False)]


def test_a_password_that_cannot_be_read_for_a_while_ends_nothing(home: tuple[Path, HubEnd]) -> None:
    settings, heard = load_settings(home[0]), Heard()
    file = home[0].parent / "mqtt.password"

    async def connect() -> None:
        transport = heard.transport(settings)
        file.chmod(0o644)
        running = asyncio.create_task(transport.run())
        await heard.wait(lambda: "password_exposed" in heard.counts)
        file.chmod(0o600)
        await heard.wait(lambda: ("broker_not_authorised", False) in heard.problems)
        await end(running)

    asyncio.run(connect())


def test_two_devices_with_one_name_notice_each_other_and_the_one_that_remains_recovers(
    home: tuple[Path, HubEnd],
) -> None:
    settings, one, other = load_settings(home[0]), Heard(), Heard()

    async def quarrel() -> None:
        first = asyncio.create_task(one.transport(settings, undisputed_s=0.5).run())
        await one.wait(lambda: ("broker_not_authorised", False) in one.problems)
        second = asyncio.create_task(other.transport(settings).run())
        await one.wait(lambda: ("session_taken_over", True) in one.problems)
        await end(second)
        await one.wait(lambda: ("session_taken_over", False) in one.problems)
        await end(first)

    asyncio.run(quarrel())
    assert "session_taken_over" in one.counts


def test_one_lost_connection_is_no_quarrel(
    tmp_path: Path, mosquitto_installation: Any, broker_of: Callable[[Any], Any], home: tuple[Path, HubEnd]
) -> None:
    settings, heard = load_settings(home[0]), Heard()
    assert settings.mqtt is not None
    with Mosquitto(tmp_path / "broker", mosquitto_installation, settings.community_id) as server:
        broker_of(server).create_meter_account(settings.meter_id, "a-password-of-this-test")
        here = replace(settings.mqtt, port=server.port, ca_file=server.ca_file)

        async def connect() -> None:
            running = asyncio.create_task(heard.transport(replace(settings, mqtt=here)).run())
            await heard.wait(lambda: len(heard.problems) == 1)
            server.kill()
            await heard.wait(lambda: len(heard.counts) > 1)
            server.start()
            await heard.wait(lambda: len(heard.problems) > 1)
            await end(running)

        asyncio.run(connect())
    assert set(heard.counts) == {"broker_lost"}
    assert set(heard.problems) == {("broker_not_authorised", False)}


def test_killing_broker_and_agent_in_turn_loses_and_doubles_nothing(
    version: int,
    tmp_path: Path,
    meters: Any,
    mosquitto_installation: Any,
    config_text: Callable[..., str],
    broker_of: Callable[[Any], Any],
) -> None:
    meter_id, password = f"home-{uuid.uuid4().hex[:16]}", "a-password-of-this-test"
    with Mosquitto(tmp_path / "broker", mosquitto_installation, "sunny-street") as server:
        config = tmp_path / "edge.toml"
        text = config_text(meters.port, server.port, "interval_s = 1\nseal_interval_s = 0").replace("home-17", meter_id)
        text = text.replace(
            'host = "127.0.0.1"\nport = ' + str(server.port), f'host = "localhost"\nport = {server.port}'
        )
        text = text.replace(
            'ca_file = "ca.crt"', f'ca_file = "{server.ca_file}"\nrepublish_after_s = 1\nversion = {version}'
        )
        config.write_text(text)
        (tmp_path / "mqtt.password").touch(mode=0o600)
        (tmp_path / "mqtt.password").write_text(password)
        assert finish(commonwatt_edge(config, "enrol"))[0] == 0
        broker_of(server).create_meter_account(meter_id, password)
        hub = HubEnd(broker_of(server), meter_id)
        agent = commonwatt_edge(config, "run")
        try:
            for wanted in (2, 5, 8):
                wait_until(partial(hub.has_all_up_to, wanted))
                server.kill()
                time.sleep(1.5)
                agent.kill()
                agent.communicate()
                agent = commonwatt_edge(config, "run")
                server.start()
                wait_until(hub.client.is_connected)
                hub.client.subscribe(hub.topics)
            wait_until(partial(hub.has_all_up_to, 11))
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.communicate(timeout=30)
            hub.close()
    previous = bytes(32)
    for sequence in range(1, 12):
        assert hub.seals[sequence].seal.previous_seal_hash == previous
        previous = seal_hash(hub.seals[sequence].seal_bytes)
