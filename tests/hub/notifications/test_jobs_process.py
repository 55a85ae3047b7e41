"""`commonwatt hub jobs` as a process: slow receivers beside meters that wait for their accounts, and sudden death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from hub.db import transaction
from hub.notifications import webhook_rules, webhooks_service
from hub.registry import service as registry
from hub.registry.service import Capacity
from tests.hub.notifications.conftest import LOOPBACK
from tests.hub.notifications.telling import MEMBER_SECRET, Community

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60


@pytest.fixture
def community(engine):
    return Community(engine, now=datetime.now(UTC))


@pytest.fixture
def start(settings, broker):
    """Starts a jobs process; gives it and the address of its figures once it runs."""
    values = settings.model_dump(exclude_unset=True) | {
        "mqtt_host": broker.host,
        "mqtt_port": broker.port,
        "mqtt_ca_file": broker.ca_file,
        "mqtt_password_file": broker.password_file,
    }
    environment = {
        f"COMMONWATT_{name.upper()}": ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMONWATT_")}
    processes = []

    def begin():
        process = subprocess.Popen(
            [sys.executable, "-m", "commonwatt", "hub", "jobs"],
            env=inherited | environment | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        for line in process.stderr:
            entry = json.loads(line)
            if entry["event"] == "jobs_started":
                return process, f"http://127.0.0.1:{entry['metrics_port']}/metrics"
        raise AssertionError("it ended before it had started")

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def _until(reached):
    """Wait for something that must come."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not reached():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.05)


def _endpoints(community, receiver, count):
    """So many endpoints at one receiver, of as many members as it takes; each has its test to be delivered."""
    secrets = []
    for number in range(count):
        if number % webhooks_service.ACTIVE_ENDPOINTS_MAX == 0:
            member = community.member()
        with transaction(community.engine) as connection:
            endpoint = webhooks_service.create_endpoint(
                connection, member, receiver.url, f"number {number}", LOOPBACK, "test", datetime.now(UTC)
            )
        secret = webhook_rules.derive_secret(MEMBER_SECRET, endpoint.endpoint_id, 1)
        secrets.append(webhook_rules.secret_text(secret))
    receiver.trust(*secrets)


def test_receivers_that_hang_delay_no_account_and_a_killed_process_delivers_again(
    community, receiver, start, new_meter, broker
):
    receiver.fail(hang=True)
    _endpoints(community, receiver, 10)
    process, figures = start()
    _until(lambda: len(receiver.received()) >= 6)
    meter = new_meter()
    with transaction(community.engine) as connection:
        registry.register_meter(
            connection, meter.enrolment(), Capacity(10_000, 10_000), meter.domain, 86_400 * 2, "test", datetime.now(UTC)
        )
    _until(lambda: community.rows("SELECT broker_ready_at IS NOT NULL FROM meters") == [(True,)])
    assert community.rows("SELECT count(*) FROM webhook_deliveries WHERE state = 'queued'") == [(10,)]
    _until(lambda: 'commonwatt_outbox_oldest_job_late_seconds{kind="webhook.deliver"}' in httpx.get(figures).text)

    process.kill()  # six deliveries are with their receiver, and nothing is written of it
    process.wait()
    lost = receiver.received()
    assert community.rows(
        "SELECT last_outcome, count(*) FROM webhook_deliveries WHERE attempts = 1 GROUP BY last_outcome"
    ) == [("unknown", len(lost))]
    receiver.fail()
    community.execute("UPDATE outbox_jobs SET leased_until = now() WHERE state = 'running'")
    process, figures = start()
    _until(lambda: community.rows("SELECT DISTINCT state FROM webhook_deliveries") == [("delivered",)])
    received = receiver.received()
    again = received[len(lost) :]
    assert {each.id for each in lost} <= {each.id for each in again}
    assert len(again) == len({each.id for each in again}) == 10
    bodies = {each.id: each.body for each in again}
    assert all(bodies[each.id] == each.body and each.refusal == "" for each in lost)
    assert 'commonwatt_notifications_total{channel="webhook",outcome="delivered"} 10.0' in httpx.get(figures).text
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 0
