"""The processes as an operator starts and stops them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60


@pytest.fixture
def environment(settings):
    values = {
        f"COMMONWATT_{name.upper()}": ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in settings.model_dump(exclude_unset=True).items()
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMONWATT_")}
    return inherited | values | {"COMMONWATT_API_PORT": "0", "PYTHONPATH": str(ROOT)}


def _hub(command, environment):
    return subprocess.Popen(
        [sys.executable, "-m", "commonwatt", "hub", command], env=environment, stderr=subprocess.PIPE, text=True
    )


def _wait_for(process, event):
    for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"it ended before it said {event}")


def _end(process):
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    process.stderr.close()
    return process.wait(TIMEOUT_S), [json.loads(line)["event"] for line in rest.splitlines()]


def test_the_api_says_where_it_listens_and_stops_in_order(environment):
    process = _hub("api", environment)
    try:
        entry = _wait_for(process, "api_listening")
        assert httpx.get(f"{entry['address']}/ready", timeout=TIMEOUT_S).status_code == 200
        assert _end(process) == (0, ["request", "api_stopped"])
    finally:
        process.kill()
        process.wait()


def test_the_jobs_process_stops_in_order(environment, broker):
    environment |= {
        "COMMONWATT_MQTT_HOST": broker.host,
        "COMMONWATT_MQTT_PORT": str(broker.port),
        "COMMONWATT_MQTT_CA_FILE": str(broker.ca_file),
        "COMMONWATT_MQTT_PASSWORD_FILE": str(broker.password_file),
    }
    process = _hub("jobs", environment)
    try:
        port = _wait_for(process, "jobs_started")["metrics_port"]
        assert "commonwatt_outbox_unfinished_jobs" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        status, events = _end(process)
        assert (status, events[-1:]) == (0, ["jobs_stopped"])
    finally:
        process.kill()
        process.wait()


def test_migrating_twice_is_harmless(environment):
    for _ in range(2):
        process = _hub("migrate", environment)
        _wait_for(process, "database_migrated")
        process.stderr.close()
        assert process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COMMONWATT_API_PORT", "many"),
        ("COMMONWATT_COMMUNITY_ID", "Not Allowed"),
        ("COMMONWATT_MEMBER_SECRET_FILE", "/nowhere"),
        ("COMMONWATT_COMMAND_KEY_FILE", "/etc/hostname"),
        ("COMMONWATT_DATABASE_URL", "nonsense"),
        ("COMMONWATT_DATABASE_URL", "mysql://user@host/database"),
    ],
)
def test_a_configuration_that_cannot_work_is_named_in_one_line(environment, variable, value):
    process = _hub("api", environment | {variable: value})
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    [line] = errors.splitlines()
    assert variable in line or value in line


def test_an_address_that_is_taken_is_named_in_one_line(environment, settings):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        process = _hub("api", environment | {"COMMONWATT_API_PORT": str(holder.getsockname()[1])})
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    [line] = errors.splitlines()
    assert "Address already in use" in line


def test_a_database_that_is_away_at_the_start_of_a_migration_is_named(environment):
    away = environment | {"COMMONWATT_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/nothing"}
    process = _hub("migrate", away)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    [line] = errors.splitlines()
    assert "The database does not answer" in line


def _bootstrap(environment, key_file, *more):
    command = [sys.executable, "-m", "commonwatt", "hub", "bootstrap", "--key-file", str(key_file), *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_the_first_admins_key_lands_in_a_private_file_and_nobody_is_first_twice(environment, tmp_path):
    first = _bootstrap(environment, tmp_path / "first")
    assert first.returncode == 0, first.stderr
    key = (tmp_path / "first").read_text().strip()
    assert key.startswith("cwk_")
    assert key not in first.stdout + first.stderr
    assert stat.S_IMODE((tmp_path / "first").stat().st_mode) == 0o600
    again = _bootstrap(environment, tmp_path / "second")
    assert (again.returncode, again.stderr) == (1, "commonwatt hub: There is an admin already\n")
    assert not (tmp_path / "second").exists()
    over = _bootstrap(environment, tmp_path / "first", "--another")
    assert over.returncode == 1
    assert (tmp_path / "first").read_text().strip() == key
    nameless = _bootstrap(environment, tmp_path / "third", "--another", "--name", " ")
    assert nameless.returncode == 1
    assert "the admin's name" in nameless.stderr
    assert not (tmp_path / "third").exists()
    another = _bootstrap(environment, tmp_path / "second", "--another")
    assert another.returncode == 0, another.stderr
    assert (tmp_path / "second").read_text().strip() not in ("", key)
