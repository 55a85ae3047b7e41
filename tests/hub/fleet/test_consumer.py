"""Statuses beside seals, from a real broker into a real database: heard, bounded, and never in the way of energy."""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from sqlalchemy import event

from hub.db import create_database_engine
from hub.fleet import consumer
from hub.fleet.consumer import StatusDesk
from hub.fleet.queries import Filters, list_fleet
from hub.metrics import REGISTRY
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from protocol.limits import SHARDS
from protocol.topics import shard_of, topic
from simulators.sealing import FleetPlan, SimulatedMeter
from tests.conftest import COMMUNITY_ID, Broker
from tests.hub.fleet.conftest import status_bytes
from tests.hub.ingest_processes import Gateway, Workers, assert_exact, starting_workers, wait_until
from tests.hub.readings.conftest import Hub

WILL = b'{"state":"offline"}'
NOW_S = 1_795_000_000.0


def _dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("commonwatt_fleet_statuses_dropped_total", {"reason": reason}) or 0.0


@pytest.fixture
def street(database_url: str) -> Iterator[tuple[Hub, list[SimulatedMeter]]]:
    engine = create_database_engine(database_url, "commonwatt-test")
    hub = Hub(engine, datetime.now(UTC))
    plan = FleetPlan(COMMUNITY_ID, secrets.randbelow(10**6), 6, int(time.time()) // 900 * 900 - 30 * 3_600)
    meters = list(plan.each_meter())
    hub.register(*meters)
    yield hub, meters
    engine.dispose()


def broker_of(server: Mosquitto) -> Broker:
    return Broker(
        server.host,
        server.port,
        server.ca_file,
        server.password_file,
        server.password_file.read_text(),
        server.gateway_password_file.read_text(),
        COMMUNITY_ID,
    )


def _topic(meter: SimulatedMeter) -> str:
    return topic(COMMUNITY_ID, meter.meter_id, "status")


def _stated(hub: Hub, meter: SimulatedMeter) -> tuple[object, ...] | None:
    rows = hub.rows(
        "SELECT s.state, s.backlog_seals, s.status_at IS NOT NULL, s.clock_skew_s FROM meter_status AS s"
        " JOIN meters USING (meter_no) WHERE meter_id = :meter_id",
        meter_id=meter.meter_id,
    )
    return rows[0] if rows else None


# --- the desk, without a broker ------------------------------------------------------------------------------


@pytest.fixture
def desk(street: tuple[Hub, list[SimulatedMeter]]) -> StatusDesk:
    return StatusDesk(street[0].engine, COMMUNITY_ID, lambda: NOW_S)


def test_however_much_a_meter_says_it_is_written_once_in_a_while(
    street: tuple[Hub, list[SimulatedMeter]], desk: StatusDesk
) -> None:
    hub, [loud, quiet, *_] = street
    before = _dropped("superseded")
    for number in range(5_000):
        desk.take(_topic(loud), status_bytes(backlog_seals=number), False)
    desk.take(_topic(quiet), status_bytes(), False)
    assert desk.write_once(0.0) == 2
    assert _dropped("superseded") == before + 4_999
    assert _stated(hub, loud) == ("online", 4_999, True, _stated(hub, quiet)[3])  # type: ignore[index]
    desk.take(_topic(loud), status_bytes(backlog_seals=7), False)
    assert desk.write_once(consumer.METER_PAUSE_S - 0.1) == 0
    assert desk.write_once(consumer.METER_PAUSE_S) == 1
    assert _stated(hub, loud)[1] == 7  # type: ignore[index]


def test_what_the_broker_had_kept_never_replaces_what_is_said_now(
    street: tuple[Hub, list[SimulatedMeter]], desk: StatusDesk
) -> None:
    hub, [meter, *_] = street
    desk.take(_topic(meter), status_bytes(backlog_seals=1, time_unix_s=int(NOW_S) - 2), False)
    desk.take(_topic(meter), status_bytes(backlog_seals=2), True)
    desk.write_once(0.0)
    assert _stated(hub, meter) == ("online", 1, True, 2)


def test_the_desk_has_an_edge(street: tuple[Hub, list[SimulatedMeter]]) -> None:
    hub, meters = street
    desk = StatusDesk(hub.engine, COMMUNITY_ID, waiting_max=2)
    before = _dropped("overflow")
    for meter in meters:
        desk.take(_topic(meter), status_bytes(), False)
    assert _dropped("overflow") == before + len(meters) - 2
    assert desk.write_once(0.0) == 2


@pytest.mark.parametrize(
    ("where", "what", "reason"),
    [
        ("commonwatt/v1/test-community/99/roof/status", status_bytes(), "bad_topic"),
        (topic("elsewhere", "roof", "status"), status_bytes(), "bad_topic"),
        (topic(COMMUNITY_ID, "roof", "seals"), status_bytes(), "bad_topic"),
        (topic(COMMUNITY_ID, "roof", "status"), b"not a status", "malformed"),
        (topic(COMMUNITY_ID, "roof", "status"), b"x" * 5_000, "too_long"),
        (topic(COMMUNITY_ID, "nobody", "status"), status_bytes(), "unknown_meter"),
    ],
)
def test_what_is_no_status_of_a_meter_is_counted_and_dropped(
    street: tuple[Hub, list[SimulatedMeter]], desk: StatusDesk, where: str, what: bytes, reason: str
) -> None:
    hub, [meter, *_] = street
    before = _dropped(reason)
    desk.take(where, what, False)
    desk.take(_topic(meter), status_bytes(), False)
    desk.write_once(0.0)
    assert _dropped(reason) == before + 1
    assert hub.value("SELECT count(*) FROM meter_status") == 1, "the others are noted all the same"


def test_one_status_that_cannot_be_stored_takes_no_other_with_it(
    street: tuple[Hub, list[SimulatedMeter]], desk: StatusDesk
) -> None:
    hub, meters = street
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE meter_status ADD CONSTRAINT trap CHECK (backlog_seals <> 13)")
    before = _dropped("internal_fault")
    for number, meter in enumerate(meters):
        desk.take(_topic(meter), status_bytes(backlog_seals=13 if number == 2 else 0), False)
    desk.write_once(0.0)
    assert _dropped("internal_fault") == before + 1
    assert hub.value("SELECT count(*) FROM meter_status") == len(meters) - 1


def test_while_the_database_is_away_the_newest_waits(
    street: tuple[Hub, list[SimulatedMeter]], database_url: str
) -> None:
    hub, [meter, *_] = street
    nowhere = create_database_engine(database_url.replace("/test_", "/nowhere_"), "commonwatt-test")
    desk = StatusDesk(nowhere, COMMUNITY_ID)
    desk.take(_topic(meter), status_bytes(backlog_seals=1), False)
    desk._write_all(0.0)
    desk._engine = hub.engine
    desk._write_all(0.0)
    assert _stated(hub, meter)[1] == 1  # type: ignore[index]
    nowhere.dispose()


def test_what_the_broker_had_kept_replaces_nothing_that_waits_for_the_database(
    street: tuple[Hub, list[SimulatedMeter]], database_url: str
) -> None:
    hub, [meter, *_] = street

    nowhere = create_database_engine(database_url.replace("/test_", "/nowhere_"), "commonwatt-test")
    desk = StatusDesk(nowhere, COMMUNITY_ID, lambda: NOW_S)

    @event.listens_for(nowhere, "do_connect")
    def meanwhile(*_: object) -> None:
        desk.take(_topic(meter), status_bytes(backlog_seals=2), True)

    desk.take(_topic(meter), status_bytes(backlog_seals=1, time_unix_s=int(NOW_S)), False)
    desk._write_all(0.0)
    desk._engine = hub.engine
    desk._write_all(0.0)
    assert _stated(hub, meter) == ("online", 1, True, 0)
    nowhere.dispose()


def test_a_mistake_of_ours_costs_statuses_and_neither_the_desk_nor_its_thread(
    street: tuple[Hub, list[SimulatedMeter]], caplog: pytest.LogCaptureFixture
) -> None:
    hub, [meter, other, *_] = street
    times = iter([1e30])
    desk = StatusDesk(hub.engine, COMMUNITY_ID, lambda: next(times, NOW_S))
    before = _dropped("internal_fault")
    with desk:
        desk.take(_topic(meter), status_bytes(), False)
        wait_until("the mistake is counted", lambda: _dropped("internal_fault") == before + 1)
        desk.take(_topic(other), status_bytes(), False)
        wait_until("the next one is noted", lambda: _stated(hub, other) is not None)


# --- a worker and a broker -----------------------------------------------------------------------------------


@pytest.fixture
def workers(database_url: str, fresh_broker: Broker, tmp_path: Path) -> Iterator[Workers]:
    with starting_workers(database_url, fresh_broker, tmp_path) as workers:
        yield workers


@pytest.fixture
def gateway(fresh_broker: Broker) -> Iterator[Gateway]:
    client = Gateway(fresh_broker)
    yield client
    client.close()


@pytest.fixture
def voice(fresh_broker: Broker) -> Iterator[mqtt.Client]:
    """Says statuses in the name of any meter, as agents do: QoS 1, retained."""
    client = fresh_broker.connect_gateway(f"voice-{secrets.token_hex(4)}")
    yield client
    client.disconnect()
    client.loop_stop()


def _say(voice: mqtt.Client, meter: SimulatedMeter, payload: bytes) -> mqtt.MQTTMessageInfo:
    return voice.publish(_topic(meter), payload, qos=1, retain=True)


def _reading(workers: Workers) -> None:
    """Wait until every shard is read."""

    def shards() -> set[int]:
        lines = [json.loads(line) for line in workers.log.read_text().splitlines() if line.startswith("{")]
        return {shard for line in lines if line.get("event") == "shards_read" for shard in line["shards"]}

    wait_until("all shards are read", lambda: len(shards()) == SHARDS)


def _metric(workers: Workers, name: str) -> float:
    [port] = re.findall(r'"metrics_port": ?(\d+)', workers.log.read_text())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        figures = answer.read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in figures.splitlines() if line.startswith(name))


def test_a_flood_of_statuses_among_seals_is_bounded_and_every_seal_is_stored(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway, voice: mqtt.Client
) -> None:
    hub, meters = street
    loud = meters[0]
    workers.start()
    _reading(workers)
    for number in range(200):
        for meter in meters:
            if number % 4 == 0:
                gateway.publish(*meter.messages(1))
            if number % 10 == 0:
                _say(voice, meter, status_bytes(backlog_seals=number))
        for _ in range(20):
            _say(voice, loud, status_bytes(backlog_seals=number))
            _say(voice, loud, b"\xff not a status")
    for meter in meters:
        _say(voice, meter, status_bytes(backlog_seals=4_711)).wait_for_publish(30)
    gateway.publish_until_stored(hub, meters)
    assert_exact(hub, meters)  # also that nothing is in quarantine
    wait_until(
        "the last word of each meter is noted",
        lambda: all((_stated(hub, meter) or (0, 0))[1] == 4_711 for meter in meters),
    )
    received = _metric(workers, "commonwatt_fleet_statuses_received_total")
    assert received >= 8_000
    assert _metric(workers, 'commonwatt_fleet_statuses_dropped_total{reason="superseded"}') > 0.9 * 8_000


def test_a_killed_agent_is_offline_since_its_last_will(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], fresh_broker: Broker
) -> None:
    hub, [meter, *_] = street
    workers.start()
    _reading(workers)
    fresh_broker.create_meter_account(meter.meter_id, "a password of this test")
    agent = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=meter.meter_id, protocol=mqtt.MQTTv5)
    agent.tls_set(ca_certs=str(fresh_broker.ca_file))
    agent.username_pw_set(meter.meter_id, "a password of this test")
    agent.will_set(_topic(meter), WILL, qos=1, retain=True)
    agent.connect(fresh_broker.host, fresh_broker.port)
    agent.loop_start()
    agent.publish(_topic(meter), status_bytes(backlog_seals=3, time_unix_s=int(time.time()) - 100), qos=1, retain=True)
    wait_until("it is heard", lambda: (_stated(hub, meter) or ("", 0))[:3] == ("online", 3, True))
    assert _stated(hub, meter)[3] in range(99, 105)  # type: ignore[index]
    agent.on_disconnect = None
    agent._reconnect_on_failure = False  # a killed process does not come back
    transport = agent.socket()
    assert transport is not None
    transport.shutdown(socket.SHUT_RDWR)
    agent.loop_stop()
    wait_until("its will is heard", lambda: (_stated(hub, meter) or ("",))[0] == "offline")
    assert _stated(hub, meter)[1:3] == (3, True)  # type: ignore[index]


def test_a_restart_of_the_broker_takes_no_meter_for_gone(
    database_url: str,
    street: tuple[Hub, list[SimulatedMeter]],
    tmp_path: Path,
    mosquitto_installation: Installation,
) -> None:
    hub, [meter, *_] = street
    with Mosquitto(tmp_path / "mosquitto", mosquitto_installation, COMMUNITY_ID, gateway=True) as server:
        broker = broker_of(server)
        broker.create_meter_account(meter.meter_id, "a password of this test")
        with starting_workers(database_url, broker, tmp_path) as workers:
            workers.start()
            _reading(workers)
            agent = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=meter.meter_id, protocol=mqtt.MQTTv5)
            agent.tls_set(ca_certs=str(broker.ca_file))
            agent.username_pw_set(meter.meter_id, "a password of this test")
            agent.will_set(_topic(meter), WILL, qos=1, retain=True)
            agent.reconnect_delay_set(1, 1)
            agent.on_connect = lambda *_: agent.publish(_topic(meter), status_bytes(), qos=1, retain=True)
            agent.connect(broker.host, broker.port)
            agent.loop_start()
            wait_until("it is heard", lambda: (_stated(hub, meter) or ("",))[0] == "online")
            before = hub.value("SELECT status_at FROM meter_status")
            server.stop()
            server.start()

            def heard_again() -> bool:
                with hub.engine.connect() as connection:
                    lines = list_fleet(connection, Filters(meter_id=meter.meter_id), "", 1, datetime.now(UTC))
                assert [line.presence for line in lines] == ["online"]
                return hub.value("SELECT status_at FROM meter_status") != before

            wait_until("it is heard again", heard_again)
            agent.disconnect()
            agent.loop_stop()


def test_what_was_said_while_the_hub_was_away_is_not_taken_as_said_now(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway, voice: mqtt.Client
) -> None:
    hub, [meter, other, *_] = street
    first = workers.start()
    _reading(workers)
    first.kill()
    first.wait()
    _say(voice, meter, status_bytes(backlog_seals=1)).wait_for_publish(30)
    _say(voice, meter, status_bytes(backlog_seals=2)).wait_for_publish(30)
    gateway.publish(*other.messages(2))
    workers.start()
    wait_until("what the broker kept fills in", lambda: _stated(hub, meter) == ("online", 2, False, None))
    gateway.publish_until_stored(hub, [other])
    _say(voice, meter, status_bytes(backlog_seals=5))
    wait_until("what is said now is heard", lambda: (_stated(hub, meter) or (0, 0, 0))[1:3] == (5, True))


def test_a_meter_that_speaks_under_a_foreign_shard_is_not_heard(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], voice: mqtt.Client
) -> None:
    hub, [meter, other, *_] = street
    workers.start()
    _reading(workers)
    foreign = _topic(meter).replace(f"/{shard_of(meter.meter_id)}/", f"/{(shard_of(meter.meter_id) + 1) % SHARDS}/")
    voice.publish(foreign, status_bytes(), qos=1).wait_for_publish(30)
    _say(voice, other, status_bytes()).wait_for_publish(30)
    wait_until("the other is noted", lambda: _stated(hub, other) is not None)
    wait_until(
        "it is counted", lambda: _metric(workers, 'commonwatt_fleet_statuses_dropped_total{reason="bad_topic"}') == 1
    )
    assert _stated(hub, meter) is None
