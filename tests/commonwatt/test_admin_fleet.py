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

from commonwatt.admin_fleet import age, skew, skew_words, status_lines
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


def _in_terminal(operator, *arguments, columns=COLUMNS):
    """What the command writes to a terminal, without its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "commonwatt", "admin", "--url", operator.url, "--key-file", operator.key_file]
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


def test_the_fleet_fits_a_terminal_of_120_columns_and_nothing_is_cut(operator, street):
    said = _in_terminal(operator, "meters")
    print(said)
    lines = said.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert said.count("…") <= 1, "only a very long version is cut"
    for word in ("clock_behind_last_reading", "journal_full", "register_fell", "register_jumped", "modbus_timeout"):
        assert word in said, "a problem is never broken in two"
    assert _words(said, "home-1")[1:3] == ["active", "online"]
    assert _words(said, "home-5")[1:3] == ["active", "never"]


def test_in_a_terminal_of_80_columns_nothing_is_wrapped_and_what_matters_stays(operator, street):
    said = _in_terminal(operator, "meters", columns=80)
    print(said)
    assert max(map(len, said.splitlines()[:-1])) <= 80
    assert re.search(r"^home-2 .* online \d+ s +1 +2881$", said, re.M)
    for word in ("clock_behind_last_reading", "register_jumped", "home-4", "suspended", "the-old-mill-by-the-river"):
        assert word in said


def test_a_retired_meter_is_counted_apart(operator, street):
    operator.do("retire", "home-5", "--reason", "moved away", "--yes")
    assert "6 of 6 meters; of all, 4 online, 1 offline, 1 retired, 1 behind" in operator.do("meters")
    assert "1 of 6 meters; of all, 4 online" in operator.do("meters", "--state", "retired")


def test_the_fleet_shows_who_needs_a_hand(operator, street):
    said = operator.do("meters")
    assert re.search(r"home-2 +active +online \d+ s +1 +3 +1 +2881 +\+66 min +0.1.0 .* clock_behind_last_reading", said)
    assert re.search(r"home-3 +active +offline 3 d +1 +0 +0 s +0.0.9 +register_jumped", said)
    assert re.search(r"home-4 +suspended +online \d+ s +1 +1 +1 +0 s", said), "one seal of it is held"
    assert "6 of 6 meters; of all, 4 online, 1 offline, 1 never seen, 1 behind, 3 with problems" in said


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--presence", "offline"], {"home-3"}),
        (["--presence", "never"], {"home-5"}),
        (["--state", "suspended"], {"home-4"}),
        (["--problem", "journal_full"], {"home-2"}),
        (["--firmware", "0.0.9"], {"home-3"}),
        (["--behind"], {"home-2"}),
        (["--behind", "--presence", "offline"], set()),
    ],
    ids=str,
)
def test_the_fleet_is_filtered_by_options(operator, street, options, found):
    said = operator.do("meters", *options)
    assert set(re.findall(r"^home-\d", said, re.M)) == found
    assert f"{len(found)} of 6 meters" in said


def test_one_meter_is_shown_in_detail(operator, street):
    said = _in_terminal(operator, "status", "home-2")
    print(said)
    assert said.splitlines()[0] == "home-2 · solar · active · key epoch 1"
    for words in (
        "3 stored",
        "1 seal: commonwatt admin gaps home-2",
        "2881 seals to deliver, 4 readings not sealed yet",
        "synchronised, 66 min behind the hub's",
        "0.1.0, over mqtt5",
        "52000 bytes of 1000000",
        "eastron_sdm120, steps of 0.98 Wh",
        "clock_behind_last_reading journal_full register_fell",
        "broker_lost 2",
    ):
        assert words in said
    gone = operator.do("status", "home-3")
    assert "offline, as it said" in gone
    assert re.search(r"gone since +2 d ago|gone since +3 d ago", gone)
    never = operator.do("status", "home-5")
    assert re.search(r"presence +never", never)
    assert "last status" not in never


def test_alarms_are_listed(operator, street, engine):
    with transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO alarms (kind, meter_no, detail, raised_at)"
                " SELECT 'equivocation', meter_no, '{\"sequence\": 7}', now() FROM meters WHERE meter_id = 'home-3'"
            )
        )
    assert re.search(r"equivocation +│ home-3 │ sequence 7", operator.do("alarms"))


def test_an_alarm_is_shown_whole_however_narrow_the_terminal(operator, street, engine):
    seal_hash = "".join(f"{number:02x}" for number in range(32))
    with transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO alarms (kind, meter_no, detail, raised_at) SELECT 'equivocation', meter_no,"
                " jsonb_build_object('seal_hash', CAST(:seal_hash AS text)), '2026-11-20T13:35:51.547838Z' FROM meters"
                " WHERE meter_id = 'the-old-mill-by-the-river-nr-123'"
            ),
            {"seal_hash": seal_hash},
        )
    said = _in_terminal(operator, "alarms", columns=80)
    cells = [line.split("│")[1:-1] for line in said.splitlines() if line.startswith("│")]
    meter_id, detail, raised = ("".join(row[number].strip() for row in cells) for number in (2, 3, 4))
    assert (meter_id, detail) == ("the-old-mill-by-the-river-nr-123", f"seal_hash{seal_hash}")
    assert raised == "2026-11-20T13:35:51.547838Z"


def test_an_empty_fleet_is_said_to_be_empty(operator):
    assert "0 of 0 meters" in operator.do("meters")


@pytest.mark.parametrize(
    ("ago_s", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 d"), (-5, "0 s")],
)
def test_an_age_is_told_in_its_largest_unit(ago_s, words):
    assert age(NOW, (NOW - timedelta(seconds=ago_s)).isoformat()) == words


@pytest.mark.parametrize(
    ("skew_s", "words"), [(None, ""), (0, "0 s"), (3, "+3 s"), (-130, "−2 min"), (1_790_000_000, "+20717 d")]
)
def test_a_skew_has_its_sign(skew_s, words):
    assert skew(skew_s) == words


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [(None, ""), (0, "equal to the hub's"), (3, "3 s behind the hub's"), (-130, "2 min ahead of the hub's")],
)
def test_a_skew_is_told_in_words(skew_s, words):
    assert skew_words(skew_s) == words


@pytest.mark.parametrize(
    ("phases_netted", "minting_allowed", "words"),
    [
        (True, True, None),
        (False, False, "not allowed: it does not net the phases"),
        (False, True, "allowed although it does not net the phases"),
        (True, False, "not allowed"),
    ],
)
def test_a_meter_that_does_not_net_its_phases_is_marked(
    operator, simulated, tmp_path, engine, phases_netted, minting_allowed, words
):
    operator.register(simulated("home-1"), tmp_path)
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE meters SET phases_netted = :netted, minting_allowed = :allowed"),
            {"netted": phases_netted, "allowed": minting_allowed},
        )
    said = operator.do("status", "home-1")
    found = re.findall(r"^minting +(.*?) *$", said, re.M)
    assert found == ([] if words is None else [words])


def test_a_meter_known_by_its_seals_alone_is_described_by_them():
    known = {"presence": "online", "last_seal_at": NOW.isoformat(), "highest_sequence": 3}
    unknown = (
        "status_at",
        "last_reading_at",
        "backlog_seals",
        "clock",
        "clock_skew_s",
        "firmware",
        "transport",
        "stated",
    )
    meter = dict.fromkeys(unknown) | known
    meter |= {
        "phases_netted": True,
        "minting_allowed": True,
        "meter_id": "roof",
        "at": NOW.isoformat(),
        "missing_seals": 0,
        "held_messages": 0,
        "problems": [],
    }
    names = [name for name, _ in status_lines(meter)]
    assert names == ["presence", "last seal", "sequence", "problems"]
