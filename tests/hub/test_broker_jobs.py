"""From a registration to an account on a real broker, and from an order to the meter it is for."""

from __future__ import annotations

import queue
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from hub.db import transaction
from hub.integrations.broker_control import BrokerAway, BrokerControl
from hub.outbox.jobs import run_jobs_once, utc_now
from hub.outbox.store import add_job
from hub.registry.jobs import registry_handlers
from hub.registry.service import queue_accounts
from protocol.command import split_command
from protocol.topics import topic

BROKER_SECRET = bytes.fromhex("22" * 32)
TIMEOUT_S = 10


@pytest.fixture
def control(broker):
    with BrokerControl(broker.host, broker.port, broker.ca_file, broker.password) as control:
        yield control


@pytest.fixture
def handlers(server, control, broker):
    return registry_handlers(server.engine, control, BROKER_SECRET, broker.community_id)


def _listening(broker, account, name):
    """A client logged in as a meter, and the messages that reach it on one of its topics."""
    arrived, subscribed = queue.Queue(), threading.Event()
    client = broker.connect(account["username"], account["password"])
    client.on_message = lambda _client, _data, message: arrived.put(message)
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe(name, qos=1)
    assert subscribed.wait(TIMEOUT_S)
    return client, arrived


def _states(server):
    with server.engine.connect() as connection:
        return list(connection.execute(text("SELECT state FROM outbox_jobs ORDER BY job_id")).scalars())


def test_a_registered_meter_can_log_in_and_gets_its_commands(server, broker, handlers, new_meter):
    meter = new_meter()
    account = server.register(meter).json()["broker"]
    assert run_jobs_once(server.engine, handlers, utc_now) == 1
    assert server.client.get(f"/meters/{meter.meter_id}").json()["broker_ready"]
    client, arrived = _listening(broker, account, topic(broker.community_id, meter.meter_id, "commands"))
    try:
        server.post(f"/meters/{meter.meter_id}/commands", {"kind": "resend", "first": 2, "last": 5})
        assert run_jobs_once(server.engine, handlers, utc_now) == 1
        message = arrived.get(timeout=TIMEOUT_S)
    finally:
        client.disconnect()
        client.loop_stop()
    command, _, _ = split_command(message.payload)
    assert (command.meter_id, command.counter, command.first, command.last) == (meter.meter_id, 1, 2, 5)
    assert 0 < message.properties.MessageExpiryInterval <= 3_600
    assert _states(server) == ["done", "done"]


def test_making_an_account_twice_is_harmless(server, control, handlers, new_meter):
    meter = new_meter()
    password = server.register(meter).json()["broker"]["password"]
    control.create_account(meter.meter_id, password)
    assert run_jobs_once(server.engine, handlers, utc_now) == 1
    assert _states(server) == ["done"]


def test_two_job_processes_talk_to_the_broker_at_once(server, broker, control, new_meter):
    with BrokerControl(broker.host, broker.port, broker.ca_file, broker.password) as second:
        for number in range(6):
            (control, second)[number % 2].create_account(f"neighbour-{number}", "a password")


def test_a_command_that_expired_on_its_way_is_given_up(server, handlers, new_meter):
    meter = new_meter()
    server.register(meter)
    server.post(f"/meters/{meter.meter_id}/commands", {"kind": "restart", "expires_in_s": 60})
    assert run_jobs_once(server.engine, handlers, lambda: datetime.now(UTC) + timedelta(seconds=61)) == 2
    assert _states(server) == ["done", "given_up"]


def test_a_payload_that_is_no_command_is_given_up(server, handlers):
    with transaction(server.engine) as connection:
        for payload in ({}, {"message_hex": "zz"}, {"message_hex": "00"}, {"message_hex": 7}):
            add_job(connection, "meter.command", str(payload), payload, utc_now())
    assert run_jobs_once(server.engine, handlers, utc_now) == 4
    assert _states(server) == ["given_up"] * 4


def test_a_broker_that_is_away_postpones_the_job(server, broker, new_meter):
    server.register(new_meter())
    with BrokerControl(broker.host, 1, broker.ca_file, broker.password, answer_timeout_s=0.5) as control:
        handlers = registry_handlers(server.engine, control, BROKER_SECRET, broker.community_id)
        with pytest.raises(BrokerAway):
            control.create_account("roof", "x")
        assert run_jobs_once(server.engine, handlers, utc_now) == 1
    assert _states(server) == ["waiting"]


def test_a_wrong_password_postpones_the_job(server, broker, new_meter):
    server.register(new_meter())
    with BrokerControl(broker.host, broker.port, broker.ca_file, "wrong", answer_timeout_s=0.5) as control:
        handlers = registry_handlers(server.engine, control, BROKER_SECRET, broker.community_id)
        assert run_jobs_once(server.engine, handlers, utc_now) == 1
    assert _states(server) == ["waiting"]


def test_accounts_that_the_broker_lost_are_made_again(server, broker, handlers, new_meter):
    meter = new_meter()
    account = server.register(meter).json()["broker"]
    run_jobs_once(server.engine, handlers, utc_now)
    broker.delete_meter_account(meter.meter_id)
    with transaction(server.engine) as connection:
        assert queue_accounts(connection, "operator", utc_now()) == 1
    run_jobs_once(server.engine, handlers, utc_now)
    client, _ = _listening(broker, account, topic(broker.community_id, meter.meter_id, "commands"))
    assert client.is_connected()
    client.disconnect()
    client.loop_stop()


def test_a_renewed_password_ends_the_old_one(server, broker, handlers, new_meter):
    meter = new_meter()
    account = server.register(meter).json()["broker"]
    run_jobs_once(server.engine, handlers, utc_now)
    renewed = server.post(f"/meters/{meter.meter_id}/broker-password", {"reason": "leaked"}).json()["broker"]
    assert renewed["password"] != account["password"]
    assert run_jobs_once(server.engine, handlers, utc_now) == 1
    client, _ = _listening(broker, renewed, topic(broker.community_id, meter.meter_id, "commands"))
    client.disconnect()
    client.loop_stop()
    assert _is_refused(broker, account)


def test_a_retired_meter_loses_its_account_and_no_repeat_brings_it_back(server, broker, handlers, new_meter):
    meter = new_meter()
    account = server.register(meter).json()["broker"]
    run_jobs_once(server.engine, handlers, utc_now)
    server.post(f"/meters/{meter.meter_id}/broker-password", {"reason": "leaked"})
    server.post(f"/meters/{meter.meter_id}/retire", {"reason": "demolished"})
    assert run_jobs_once(server.engine, handlers, utc_now) == 2
    assert _is_refused(broker, account)
    with transaction(server.engine) as connection:
        queue_accounts(connection, "operator", utc_now())
    assert run_jobs_once(server.engine, handlers, utc_now) == 1
    assert _states(server) == ["done"] * 4
    assert _is_refused(broker, account)


def _is_refused(broker, account):
    """Whether the broker refuses this user and password."""
    answers = queue.Queue()
    client = broker.connect(account["username"], account["password"], on_answer=answers.put)
    try:
        return answers.get(timeout=TIMEOUT_S).is_failure
    finally:
        client.disconnect()
        client.loop_stop()
