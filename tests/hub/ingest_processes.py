"""Ingest workers as processes of their own between a real broker and a real database, and what feeds them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from protocol.topics import topic
from simulators.sealing import SealedMessage, SimulatedMeter
from tests.conftest import COMMUNITY_ID, Broker
from tests.hub.readings.conftest import Hub

DEADLINE_S = 40


@dataclass
class Workers:
    """Worker processes with one environment."""

    environment: dict[str, str]
    log: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "commonwatt", "hub", "ingest"],
                env=os.environ | self.environment,
                stderr=log,
            )
        self.running.append(process)
        return process


@contextmanager
def starting_workers(database_url: str, broker: Broker, directory: Path) -> Iterator[Workers]:
    secret = directory / "secret"
    secret.touch(0o600)
    secret.write_text(secrets.token_hex(32))
    started = Workers(
        {
            "COMMONWATT_DATABASE_URL": database_url,
            "COMMONWATT_COMMUNITY_ID": COMMUNITY_ID,
            "COMMONWATT_MQTT_HOST": broker.host,
            "COMMONWATT_MQTT_PORT": str(broker.port),
            "COMMONWATT_MQTT_CA_FILE": str(broker.ca_file),
            "COMMONWATT_MQTT_PASSWORD_FILE": str(broker.password_file),
            "COMMONWATT_COMMAND_KEY_FILE": str(secret),
            "COMMONWATT_BROKER_SECRET_FILE": str(secret),
            "COMMONWATT_MEMBER_SECRET_FILE": str(secret),
            "COMMONWATT_TOKEN_KEY_FILE": str(secret),
            "COMMONWATT_PUBLIC_URL": "http://127.0.0.1",
        },
        directory / "workers.log",
    )
    yield started
    for process in started.running:
        process.kill()
        process.wait()
    if started.log.exists():
        sys.stderr.write(started.log.read_text()[-20_000:])


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {DEADLINE_S} s until {what}")
        time.sleep(0.05)


class Gateway:
    """Publishes for every meter and, like an agent, publishes again what is not known to be stored.

    A broker keeps nothing for a hub that has never been there, and an acknowledged message dies with the broker.
    """

    def __init__(self, broker: Broker) -> None:
        self._sent: list[SealedMessage] = []
        self._client = broker.connect_gateway(f"gateway-{secrets.token_hex(4)}")

    def publish(self, *messages: SealedMessage) -> None:
        self._sent += messages
        self._publish(messages)

    def _publish(self, messages: Iterable[SealedMessage]) -> None:
        for message in messages:
            self._client.publish(topic(COMMUNITY_ID, message.meter_id, "seals"), message.message, qos=1)

    def publish_until_stored(self, hub: Hub, meters: list[SimulatedMeter]) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not all_stored(hub, meters):
            for _ in range(30):
                time.sleep(0.1)
                if all_stored(hub, meters):
                    return
            if time.monotonic() > deadline_s:
                pytest.fail(f"not stored after {DEADLINE_S} s")
            stored = set(hub.rows("SELECT meter_id, sequence FROM seals JOIN meters USING (meter_no)"))
            self._publish(message for message in self._sent if (message.meter_id, message.sequence) not in stored)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def all_stored(hub: Hub, meters: list[SimulatedMeter]) -> bool:
    rows = hub.rows("SELECT meter_id, contiguous_sequence FROM meter_streams JOIN meters USING (meter_no)")
    wanted = {meter.meter_id: meter.sequence for meter in meters}
    return {meter_id: sequence for meter_id, sequence in rows if meter_id in wanted} == wanted


def assert_exact(hub: Hub, meters: list[SimulatedMeter]) -> None:
    for meter in meters:
        expected = meter.expected()
        assert hub.stored_energy_wh(meter.meter_id) == (expected.production_wh, expected.consumption_wh)
    assert hub.value("SELECT count(*) FROM readings") == sum(meter.readings for meter in meters)
    assert hub.value("SELECT count(*) FROM quarantine") == 0
