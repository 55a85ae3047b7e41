"""The place where everything is measured: one PostgreSQL, one Mosquitto, registered meters, and fresh state per run.

Both servers are those of `make demo`, durable: fsync and synchronous commit are on, the broker persists and speaks TLS.
"""

import datetime
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from infra.bench.script_site import READER_USER
from infra.local.community import Community
from infra.local.homes import CONNECTION_CAPACITY_W, PRODUCTION_CAPACITY_W
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from infra.local.processes import LaunchError, pause_until, stop_child, write_secret
from infra.mosquitto.accounts import GATEWAY_USER, SALT_BYTES, first_accounts
from protocol.enrolment import split_enrolment

COMMUNITY_ID = "bench"
SEED = 1
INTERVAL_S = 15
"""60 readings fill a settlement interval."""
PREPARE_TIMEOUT_S = 120.0
RUN_TIMEOUT_S = 100.0


class Site:
    """The servers and the meters. `start`, then per run `fresh()` and `publish()`; `stop` at the end."""

    def __init__(self, directory: Path, installation: Installation, meters: int, start: datetime.datetime) -> None:
        self.community = Community(directory, COMMUNITY_ID, installation, gateway=True)
        self.meters = meters
        self.reader_password_file = directory / "reader-password"
        self.keys_file = directory / "keys.json"
        self._fleet = ("--community", COMMUNITY_ID, "--start", start.isoformat(), "--meters", str(meters))
        self._runs = 0

    def start(self) -> None:
        """Start the servers and register the fleet through the hub's API. Raises LaunchError."""
        site = self.community
        _write_accounts(site.broker, self.reader_password_file)
        site.start_servers()
        site.start_hub()
        enrolments = site.finish(site.run("fleet-enrol", "simulate", "fleet", "enrol", *self._fleet))
        keys = {}
        with site.client() as client:
            for line in enrolments.splitlines():
                meter = json.loads(line)
                _register(client, meter["meter_id"], meter["enrolment"])
                statement, _, _ = split_enrolment(bytes.fromhex(meter["enrolment"]))
                keys[meter["meter_id"]] = statement.public_key.hex()
        self.keys_file.write_text(json.dumps(keys))
        for name in ("hub-jobs", "hub-ingest", "hub-api"):
            stop_child(site.processes.pop(name))

    def stop(self) -> None:
        """Stop everything."""
        self.community.stop()

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A broker that has forgotten everything but its accounts, and a database in which the meters are registered
        and nothing is stored; yields its address and drops it at the end.
        """
        broker, postgres = self.community.broker, self.community.postgres
        broker.stop()
        (broker.state / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        self._runs += 1
        name = f"run_{self._runs}"
        with psycopg.connect(postgres.url("template1"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE postgres")
            connection.execute("CHECKPOINT")
            try:
                yield postgres.url(name)
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def publish(self, readings_per_seal: int, seals_per_meter: int) -> "Generator":
        """Start the generator: it signs everything first, then publishes flat out through the gateway account."""
        return Generator(self.community, f"fleet-{self._runs}", self._fleet, readings_per_seal, seals_per_meter)

    def facts(self) -> dict[str, str]:
        """What the server says of itself."""
        settings = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        with psycopg.connect(self.community.postgres.url()) as connection:
            rows = [connection.execute(f"SHOW {name}").fetchone() for name in settings]
        return {name: str(row[0]) for name, row in zip(settings, rows, strict=True) if row}


class Generator:
    """The fleet generator as a process of its own, from signing to the last acknowledgement of the broker."""

    def __init__(
        self, community: Community, name: str, fleet: tuple[str, ...], readings_per_seal: int, seals_per_meter: int
    ) -> None:
        self._community = community
        self._expected = community.directory / f"{name}.expected"
        broker = community.broker
        self.name = community.run(
            name,
            *("simulate", "fleet", "publish", *fleet, "--interval-s", str(INTERVAL_S), "--seed", str(SEED)),
            *("--readings-per-seal", str(readings_per_seal), "--seals", str(seals_per_meter)),
            *("--host", broker.host, "--port", str(broker.port), "--ca-file", broker.ca_file),
            *("--gateway-user", GATEWAY_USER, "--gateway-password-file", broker.gateway_password_file),
            *("--timeout-s", str(RUN_TIMEOUT_S), "--expected", self._expected),
        )
        self.pid = community.processes[name].pid

    def wait_until_it_publishes(self) -> float:
        """Return as soon as everything is signed; the connections are opened and the first message leaves within
        milliseconds. The time on the monotonic clock. Raises LaunchError.
        """
        deadline_s = time.monotonic() + PREPARE_TIMEOUT_S
        while not self._expected.exists():
            self._community.check_alive()
            if not pause_until(deadline_s, 0.002):
                raise LaunchError(f"{self.name} signed nothing within {PREPARE_TIMEOUT_S:.0f} s")
        return time.monotonic()

    def finish(self) -> int:
        """The number of readings that the broker acknowledged. Raises LaunchError if it refused any."""
        report: dict[str, Any] = json.loads(self._community.finish(self.name, RUN_TIMEOUT_S).splitlines()[-1])
        if not report["finished"] or report["refused"] or report["seals_sent"] != report["seals_acknowledged"]:
            raise LaunchError(f"the broker did not take everything: {report}")
        return sum(int(meter["readings"]) for meter in report["expected"])


def empty_directory(directory: Path) -> Path:
    """An empty directory in place of whatever an earlier run left. The caller knows that nobody uses it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _write_accounts(broker: Mosquitto, reader_password_file: Path) -> None:
    """The accounts of every broker plus one that reads all seals, before the first start would write those alone."""
    broker.state.mkdir(parents=True)
    for file in (broker.password_file, broker.gateway_password_file, reader_password_file):
        write_secret(file, secrets.token_urlsafe(32))
    salt = secrets.token_bytes(SALT_BYTES)
    passwords = broker.password_file.read_text(), broker.gateway_password_file.read_text()
    document = json.loads(first_accounts(passwords[0], salt, passwords[1]))
    [template] = json.loads(first_accounts("", salt, reader_password_file.read_text()))["clients"][-1:]
    rights = [
        {"acltype": kind, "topic": f"commonwatt/v1/{COMMUNITY_ID}/#", "allow": True}
        for kind in ("subscribePattern", "publishClientReceive")
    ]
    document["clients"].append({**template, "username": READER_USER, "roles": [{"rolename": READER_USER}]})
    document["roles"].append({"rolename": READER_USER, "acls": rights})
    write_secret(broker.state / "dynamic-security.json", json.dumps(document))


def _register(client: httpx.Client, meter_id: str, enrolment: str) -> None:
    body = {
        "enrolment": enrolment,
        "production_capacity_w": PRODUCTION_CAPACITY_W,
        "connection_capacity_w": CONNECTION_CAPACITY_W,
    }
    response = client.post("/meters", json=body, headers={"Idempotency-Key": f"register-{meter_id}"})
    if response.status_code != httpx.codes.CREATED:
        raise LaunchError(f"the hub refused to register {meter_id}: {response.text}")
