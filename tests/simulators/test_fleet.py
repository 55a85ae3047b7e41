"""A fleet over a real broker: TLS, accounts, acknowledgements, and what happens when either end dies."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from protocol.enrolment import split_enrolment
from protocol.topics import parse_topic, shard_filter, shard_of
from simulators import fleet
from simulators.cli import app
from simulators.fleet_connection import Account, FleetError, Report, Target
from simulators.sealing import FleetPlan, SealedMessage

START = 1_795_046_400
START_ISO = "2026-11-19T00:00:00+00:00"
ARRIVAL_TIMEOUT_S = 20
GATEWAY = "hub-gateway"


def messages_of(plan: FleetPlan) -> dict[str, list[SealedMessage]]:
    return {meter.meter_id: meter.messages(plan.seals_per_meter) for meter in plan.each_meter()}


def target_of(broker: Any, **changes: Any) -> Target:
    return Target(broker.host, broker.port, broker.ca_file, broker.community_id, timeout_s=60, **changes)


@contextmanager
def listening(broker: Any, meter_ids: list[str]) -> "Iterator[queue.Queue[tuple[str, bytes]]]":
    """What arrives at the hub's accounts of these meters' shards: meter id and message."""
    arrived: queue.Queue[tuple[str, bytes]] = queue.Queue()
    clients = []
    for shard in sorted({shard_of(meter_id) for meter_id in meter_ids}):
        subscribed = threading.Event()
        client = broker.connect(f"hub-{shard}", broker.password)
        client.on_message = lambda _client, _data, message: arrived.put(
            (parse_topic(message.topic)[2], bytes(message.payload))
        )
        client.on_subscribe = lambda *_, done=subscribed: done.set()
        client.subscribe(shard_filter(broker.community_id, shard, "seals"), qos=1)
        assert subscribed.wait(ARRIVAL_TIMEOUT_S)
        clients.append(client)
    try:
        yield arrived
    finally:
        for client in clients:
            client.disconnect()
            client.loop_stop()


def collect(arrived: "queue.Queue[tuple[str, bytes]]", count: int) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for _ in range(count):
        meter_id, message = arrived.get(timeout=ARRIVAL_TIMEOUT_S)
        found.setdefault(meter_id, []).append(message)
    return found


@pytest.mark.parametrize("rate_per_s", [0.0, 200.0])
def test_a_gateway_delivers_every_seal_of_every_meter_in_order(broker: Any, rate_per_s: float) -> None:
    plan = FleetPlan(broker.community_id, seed=11, meters=5, start_unix_s=START, seals_per_meter=20)
    messages = messages_of(plan)
    target, report = target_of(broker, rate_per_s=rate_per_s, window=7), Report()
    account = Account(GATEWAY, broker.gateway_password, "gateway-in-order")
    with listening(broker, list(messages)) as arrived:
        fleet.publish(fleet.connections_of_gateway(messages, account, 2, target, report), target, report)
        found = collect(arrived, 100)
    assert (report.seals_acknowledged, report.readings_sent, report.finished) == (100, 1_500, True)
    assert found == {meter_id: [each.message for each in own] for meter_id, own in messages.items()}
    assert report.elapsed_s > (0.4 if rate_per_s else 0)


def test_every_meter_publishes_with_its_own_account_and_for_itself_alone(broker: Any, tmp_path: Path) -> None:
    plan = FleetPlan(broker.community_id, seed=12, meters=2, start_unix_s=START, seals_per_meter=3)
    messages = messages_of(plan)
    lines = []
    for meter_id in messages:
        broker.create_meter_account(meter_id, f"secret of {meter_id}")
        entry = {"meter_id": meter_id, "username": meter_id, "password": f"secret of {meter_id}"}
        lines.append(json.dumps(entry) + "\n")
    path = tmp_path / "credentials.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    accounts = fleet.read_credentials(path)

    target, report = target_of(broker), Report()
    fleet.publish(fleet.connections_of_meters(messages, accounts, target, report), target, report)
    assert (report.seals_acknowledged, report.refused) == (6, {})

    one, other = messages
    swapped, report = {one: messages[other]}, Report()
    fleet.publish(fleet.connections_of_meters(swapped, accounts, target, report), target, report)
    assert report.seals_acknowledged == 0
    assert sum(report.refused.values()) == 3

    wrong = {one: Account(one, "guessed", one)}
    with pytest.raises(FleetError, match=one):
        fleet.publish(fleet.connections_of_meters({one: messages[one]}, wrong, target, report), target, report)
    with pytest.raises(FleetError, match="no credentials"):
        fleet.connections_of_meters(messages, wrong, target, report)


def test_a_fleet_leaves_in_an_orderly_way_when_it_was_told_to(broker: Any) -> None:
    plan = FleetPlan(broker.community_id, seed=13, meters=1, start_unix_s=START, seals_per_meter=50)
    target, report = target_of(broker, leave_after=10, window=5), Report()
    account = Account(GATEWAY, broker.gateway_password, "gateway-leaves")
    fleet.publish(fleet.connections_of_gateway(messages_of(plan), account, 1, target, report), target, report)
    assert 10 <= report.seals_acknowledged < 50
    assert not report.finished


def test_a_killed_broker_costs_the_fleet_nothing(tmp_path: Path, mosquitto_installation: Installation) -> None:
    plan = FleetPlan("test-community", seed=14, meters=4, start_unix_s=START, seals_per_meter=100)
    with Mosquitto(tmp_path, mosquitto_installation, plan.community_id, gateway=True) as broker:
        target, report = target_of(broker, rate_per_s=200), Report()
        password = broker.gateway_password_file.read_text(encoding="utf-8")
        account = Account(GATEWAY, password, "gateway-persists")
        connections = fleet.connections_of_gateway(messages_of(plan), account, 2, target, report)
        publisher = threading.Thread(target=fleet.publish, args=(connections, target, report))
        publisher.start()
        while report.seals_acknowledged < 100:
            publisher.join(0.01)
        broker.kill()
        broker.start()
        publisher.join(60)
    assert report.finished
    assert report.reconnects >= 2
    assert report.seals_acknowledged == 400


def test_the_command_line_enrols_and_publishes_the_same_fleet(broker: Any, tmp_path: Path) -> None:
    common = ["--community", broker.community_id, "--start", START_ISO, "--meters", "3", "--seed", "15"]
    enrolled = CliRunner().invoke(app, ["fleet", "enrol", *common])
    assert enrolled.exit_code == 0, enrolled.output
    entries = [json.loads(line) for line in enrolled.stdout.splitlines()]
    for entry in entries:
        statement, _, _ = split_enrolment(bytes.fromhex(entry["enrolment"]))
        assert statement.meter_id == entry["meter_id"]
        assert statement.valid_from_unix_s == START

    password_file, expected_file = tmp_path / "password", tmp_path / "expected.jsonl"
    password_file.write_text(broker.gateway_password + "\n", encoding="utf-8")
    publish = ["fleet", "publish", *common, "--host", broker.host, "--port", str(broker.port)]
    publish += ["--ca-file", str(broker.ca_file), "--gateway-user", GATEWAY]
    publish += ["--gateway-password-file", str(password_file), "--expected", str(expected_file)]
    publish += ["--seals", "8", "--readings-per-seal", "60", "--bad", "garbage", "--bad-share", "1"]
    killed = subprocess.run(
        [sys.executable, "-c", "from simulators.cli import app; app()", *publish, "--kill-after", "5"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed
    published = CliRunner().invoke(app, publish)
    assert published.exit_code == 0, published.output
    report = json.loads(published.stdout)
    assert (report["seals_sent"], report["seals_acknowledged"], report["readings_sent"]) == (48, 48, 1_440)
    assert [each["meter_id"] for each in report["expected"]] == [entry["meter_id"] for entry in entries]
    lines = expected_file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == report["expected"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["fleet", "enrol", "--community", "x", "--start", "2026-11-19T00:00:00"],
        ["fleet", "enrol", "--community", "X", "--start", START_ISO],
        ["fleet", "publish", "--community", "x", "--start", START_ISO],
        ["fleet", "publish", "--community", "x", "--start", START_ISO, "--bad", "nonsense"],
        ["fleet", "publish", "--community", "x", "--start", START_ISO, "--gap", "soon"],
        ["meters", "--config", "does-not-exist.toml"],
    ],
)
def test_a_command_that_makes_no_sense_ends_with_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
