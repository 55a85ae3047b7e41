"""The ingest worker as a process of its own, between a real broker and a real PostgreSQL, killed and starved."""

import secrets
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from hub.db import create_database_engine, ensure_monthly_partitions, transaction
from protocol.committed import Committed, decode_committed
from protocol.topics import topic
from simulators.sealing import FleetPlan, SimulatedMeter
from tests.conftest import COMMUNITY_ID, Broker
from tests.hub.ingest_processes import Gateway, Workers, assert_exact, starting_workers, wait_until
from tests.hub.readings.conftest import Hub


@pytest.fixture
def workers(database_url: str, fresh_broker: Broker, tmp_path: Path) -> Iterator[Workers]:
    with starting_workers(database_url, fresh_broker, tmp_path) as workers:
        yield workers


@pytest.fixture
def street(database_url: str) -> Iterator[tuple[Hub, list[SimulatedMeter]]]:
    """Homes spread over the shards, registered at a hub whose clock is the real one."""
    engine = create_database_engine(database_url, "commonwatt-test")
    hub = Hub(engine, datetime.now(UTC))
    start_unix_s = int(time.time()) // 900 * 900 - 30 * 3_600
    plan = FleetPlan(COMMUNITY_ID, secrets.randbelow(10**6), 12, start_unix_s)
    meters = list(plan.each_meter())
    hub.register(*meters)
    yield hub, meters
    engine.dispose()


@pytest.fixture
def gateway(fresh_broker: Broker) -> Iterator[Gateway]:
    client = Gateway(fresh_broker)
    yield client
    client.close()


def test_seals_from_the_broker_are_stored_and_receipted(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway, fresh_broker: Broker
) -> None:
    hub, meters = street
    workers.start()
    for meter in meters:
        gateway.publish(*meter.messages(10))
    gateway.publish_until_stored(hub, meters)
    assert_exact(hub, meters)
    first = meters[0]
    fresh_broker.create_meter_account(first.meter_id, "a password of this test")
    listener = fresh_broker.connect(first.meter_id, "a password of this test")
    heard: list[Committed] = []
    listener.on_message = lambda _client, _data, message: heard.append(decode_committed(message.payload))
    listener.subscribe(topic(COMMUNITY_ID, first.meter_id, "committed"), qos=1)
    wait_until(
        "the meter hears what is stored", lambda: bool(heard) and heard[-1].contiguous_sequence == first.sequence
    )
    assert heard[-1].contiguous_seal_hash == first.last_seal_hash
    listener.disconnect()
    listener.loop_stop()


def test_two_workers_share_the_shards_and_one_takes_over_when_the_other_is_killed(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway
) -> None:
    hub, meters = street
    first = workers.start()
    wait_until("one worker holds all", lambda: held_by(hub) == [16])
    second = workers.start()
    wait_until("they share", lambda: held_by(hub) == [8, 8])
    for meter in meters:
        gateway.publish(*meter.messages(6))
    first.kill()
    wait_until("the survivor holds all", lambda: held_by(hub) == [16])
    for meter in meters:
        gateway.publish(*meter.messages(6))
    gateway.publish_until_stored(hub, meters)
    assert_exact(hub, meters)
    second.send_signal(signal.SIGTERM)
    assert second.wait(15) == 0
    assert held_by(hub) == [], "a worker that ends well gives its shards back"


def subscribed(workers: Workers) -> bool:
    return b"shards_read" in workers.log.read_bytes()


def held_by(hub: Hub) -> list[object]:
    rows = hub.rows("SELECT count(*) FROM shard_leases WHERE expires_at > now() GROUP BY holder ORDER BY 1")
    return [row[0] for row in rows]


def test_a_worker_killed_again_and_again_loses_and_doubles_nothing(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway
) -> None:
    hub, meters = street
    starting = workers.start()
    wait_until("the sessions exist", lambda: subscribed(workers))
    starting.kill()
    for _ in range(3):
        before = tuple(hub.rows("SELECT count(*) FROM seals"))
        process = workers.start()
        for meter in meters:
            gateway.publish(*meter.messages(20))
        wait_until("some of it is stored", lambda stored=before: tuple(hub.rows("SELECT count(*) FROM seals")) > stored)
        process.kill()
        process.wait()
    workers.start()
    gateway.publish_until_stored(hub, meters)
    assert_exact(hub, meters)


def test_while_the_database_is_away_nothing_is_acknowledged_and_then_all_arrives(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway, database_url: str
) -> None:
    hub, meters = street
    process = workers.start()
    wait_until("the worker reads", lambda: subscribed(workers))
    name = database_url.rsplit("/", 1)[1]
    hub.rows("SELECT 1")
    hub.engine.dispose()
    admin = create_database_engine(database_url.rsplit("/", 1)[0] + "/postgres", "commonwatt-test")
    closing = (
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in closing:
            connection.exec_driver_sql(statement)
        for meter in meters:
            gateway.publish(*meter.messages(30))
        time.sleep(3)
        assert process.poll() is None, "the worker waits, it does not die"
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    admin.dispose()
    gateway.publish_until_stored(hub, meters)
    assert_exact(hub, meters)


def test_a_message_that_cannot_be_stored_is_set_aside_and_stops_nothing(
    workers: Workers, street: tuple[Hub, list[SimulatedMeter]], gateway: Gateway
) -> None:
    hub, meters = street
    poisoned, *others = meters
    meter_no = hub.value("SELECT meter_no FROM meters WHERE meter_id = :id", id=poisoned.meter_id)
    with transaction(hub.engine) as connection:  # a row that no rule of ours would ever have let in
        moment = datetime.fromtimestamp(poisoned.start_unix_s + 120, UTC)
        ensure_monthly_partitions(connection, [(moment.year, moment.month)])
        connection.execute(
            text("INSERT INTO readings VALUES (:meter_no, :moment, 1, 1, NULL, NULL, NULL, 0)"),
            {"meter_no": meter_no, "moment": moment},
        )
    workers.start()
    wait_until("the worker reads", lambda: subscribed(workers))
    gateway.publish(*poisoned.messages(1))
    for meter in others:
        gateway.publish(*meter.messages(4))
    gateway.publish_until_stored(hub, others)
    wait_until(
        "the culprit is set aside",
        lambda: hub.rows("SELECT reason, meter_no FROM quarantine") == [("internal_fault", meter_no)],
    )
    assert hub.value("SELECT highest_sequence FROM meter_streams WHERE meter_no = :no", no=meter_no) == 0
