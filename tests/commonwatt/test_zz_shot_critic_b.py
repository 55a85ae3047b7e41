"""An operator sees at a glance, in a terminal of 120 columns, which meters need a hand."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from commonwatt.admin_fleet import age, skew, status_lines
from hub.db import create_database_engine, transaction
from hub.fleet.service import record_status

COLUMNS = 120
NOW = datetime.now(UTC)


@pytest.fixture
def engine(database_url):
    engine = create_database_engine(database_url, "tests")
    yield engine
    engine.dispose()


@pytest.fixture
def say(engine):
    """Has a meter report; changes of None leave a field out."""

    def note(meter_id, ago_s=0, **changes):
        said = {
            "state": "online",
            "agent": "0.1.0",
            "time_unix_s": int(NOW.timestamp()) - ago_s,
            "backlog_seals": 0,
            "unsealed_readings": 4,
            "clock": "synchronised",
            "transport": "mqtt5",
            "journal_bytes": 52_000,
            "journal_bytes_max": 1_000_000,
            "meters": [{"role": "grid", "map": "eastron_sdm120", "quantum_wh": "0.98"}],
            "problems": [],
            "counts": {"broker_lost": 2},
        } | changes
        payload = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
        with transaction(engine) as connection:
            query = text("SELECT meter_no FROM meters WHERE meter_id = :id")
            meter_no = connection.execute(query, {"id": meter_id}).scalar_one()
            assert record_status(connection, meter_no, payload, NOW - timedelta(seconds=ago_s), live=True)

    return note


@pytest.fixture
def street(operator, simulated, say, tmp_path):
    """One well, one behind with problems, one gone, one suspended, one never heard, one with the longest id."""
    names = ("home-1", "home-2", "home-3", "home-4", "home-5", "the-old-mill-by-the-river-nr-1234")
    meters = {name: simulated(name[:32]) for name in names}
    for meter in meters.values():
        operator.register(meter, tmp_path)
    first, _, third = meters["home-2"].messages(3)
    operator.post(first)
    operator.post(third)
    say("home-1")
    problems = ["clock_behind_last_reading", "journal_full", "register_fell"]
    say("home-2", time_unix_s=int(NOW.timestamp()) - 4_000, backlog_seals=2_881, problems=problems)
    say("home-3", ago_s=3 * 86_400, agent="0.0.9", problems=["register_jumped"])
    say("home-3", ago_s=3 * 86_400 - 5, state="offline")
    say("home-4", ago_s=30)
    operator.do("suspend", "home-4", "--reason", "panel exchange")
    operator.post(*meters["home-4"].messages(1))
    say("the-old-mill-by-the-river-nr-123", problems=["modbus_timeout"], agent="0.1.0+board.esp32.20261120")
    return meters


def _in_terminal(operator, *arguments):
    """What the command writes to a terminal of 120 columns, without its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "commonwatt", "admin", "--url", operator.url, "--token-file", operator.token_file]
    process = subprocess.Popen(
        [*command, *arguments], stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm-256color"}
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other end of a pty is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(30) == 0, written.decode()
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).replace("\r\n", "\n")


def _words(said, name):
    [line] = [line for line in said.splitlines() if line.startswith(name)]
    return line.split()



def test_shot(operator, street, engine):
    global COLUMNS
    operator.do("retire", "home-5", "--reason", "gone", "--yes")
    with transaction(engine) as connection:
        connection.execute(text("INSERT INTO alarms (kind, meter_no, detail, raised_at) SELECT 'equivocation', meter_no, '{\"sequence\": 7, \"key_epoch\": 1, \"seal_hashes\": [\"aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899\", \"aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899\"]}', now() FROM meters WHERE meter_id = 'the-old-mill-by-the-river-nr-123'"))
    for COLUMNS in (80, 120):
        for args in (["meters"], ["status", "home-2"], ["status","the-old-mill-by-the-river-nr-123"], ["alarms"], ["meters","--state","retired"]):
            print(f"##### {COLUMNS} {args}"); print(_in_terminal(operator, *args))
