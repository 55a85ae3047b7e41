"""What an operator does by command line happens in the hub, once, and is said in one clear line."""

from __future__ import annotations

import csv
import os
import random
import re
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pyarrow.parquet as pq
import pytest
from typer import BadParameter
from typer.testing import CliRunner

from commonwatt import admin, hub_client
from commonwatt.admin import parse_order
from commonwatt.verify_evidence import verify
from simulators import misbehaviour
from simulators.sealing import START_PRODUCTION_WH


def _iso(unix_s):
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def _flat(text):
    """A table without its frame, single-spaced."""
    return re.sub(r"[\s│┃]+", " ", text)


def _refused(result):
    """The code of the one line with which a command ended."""
    assert result.exit_code == 1, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("commonwatt admin: ")
    return line.removeprefix("commonwatt admin: ").partition(":")[0]


@pytest.fixture
def roof(operator, simulated, tmp_path):
    """A registered meter."""
    meter = simulated("roof")
    operator.register(meter, tmp_path)
    return meter


@contextmanager
def _losing_answers(url, losses):
    """The hub behind a line that swallows its first answers. Yields its address and what was asked."""
    hub = httpx.URL(url)
    asked = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.create_connection((hub.host, hub.port)) as upstream:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(65_536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = int((re.search(rb"content-length: (\d+)", head.lower()) or [b"", b"0"])[1])
                while len(body) < length:
                    body += client.recv(65_536)
                head = re.sub(rb"(?i)connection: [^\r]*", b"connection: close", head)
                asked.append(head)
                upstream.sendall(head + b"\r\n\r\n" + body)
                answer = b""
                while part := upstream.recv(65_536):
                    answer += part
                if len(asked) > losses:
                    client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_registering_prints_what_the_agent_needs_and_keeps_the_password_private(operator, simulated, tmp_path):
    meter = simulated("roof")
    said = operator.register(meter, tmp_path)
    password_file = tmp_path / "roof.password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    password = password_file.read_text()
    assert len(password) >= 32
    assert password not in said
    assert "Registered roof, key epoch 1, active." in said
    assert "Broker user: roof" in said
    assert re.search(r'command_public_key = "[0-9a-f]{64}"', said)
    assert 'community_id = "test-community"' in said


@pytest.mark.parametrize("source", ["file", "-"])
def test_an_enrolment_comes_from_a_file_or_standard_input(operator, simulated, tmp_path, source):
    line = simulated("roof").enrolment().hex() + "\n"
    (tmp_path / "statement").write_text(line)
    where = tmp_path / "statement" if source == "file" else "-"
    capacities = ["--production-capacity-w", 9_000, "--connection-capacity-w", 9_000]
    operator.do("register", "--enrolment", where, *capacities, "--password-file", tmp_path / "p", stdin=line)
    assert "roof" in operator.do("meters")


def test_a_refused_registration_leaves_no_password_file(operator, roof, tmp_path):
    arguments = ["register", "--enrolment", roof.enrolment().hex(), "--production-capacity-w", 1]
    arguments += ["--connection-capacity-w", 1, "--password-file"]
    assert _refused(operator.run(*arguments, tmp_path / "again")) == "meter_already_registered"
    assert not (tmp_path / "again").exists()
    kept = (tmp_path / "roof.password").read_text()
    assert _refused(operator.run(*arguments, tmp_path / "roof.password")) == "password_file"
    assert (tmp_path / "roof.password").read_text() == kept


def test_gaps_are_listed(operator, roof):
    first, _, third = roof.messages(3)
    operator.post(first)
    operator.post(third)
    assert "1 2 2 20" in _flat(operator.do("gaps", "roof"))
    assert "Seals 2 to 2 of roof are given up." in operator.do("declare-lost", "roof", 1, 2, "--note", "the card broke")
    assert _refused(operator.run("declare-lost", "roof", 1, 2, "--note", "again")) == "gap_already_lost"


def test_minting_is_shown_and_what_is_stuck(operator, roof):
    for sealed in roof.messages(2):
        operator.post(sealed)
    assert "roof not_on_chain" in _flat(operator.do("minting", "blocked"))
    assert "Next: nothing: not_on_chain." in operator.do("minting", "show", "roof")
    assert "mint_id" in operator.do("minting", "list", "roof")
    assert _refused(operator.run("minting", "retry", "roof", "--reason", "x")) == "minting_not_held"


def test_readings_come_as_a_table_as_csv_and_as_parquet(operator, roof, tmp_path):
    for sealed in roof.messages(8):
        operator.post(sealed)
    span = ["--from", _iso(roof.start_unix_s), "--to", _iso(roof.start_unix_s + 7_200)]
    produced_wh = roof.expected().sealed_production_wh - START_PRODUCTION_WH
    table = _flat(operator.do("readings", "roof", *span, "--bucket", "hour"))
    assert f"{_iso(roof.start_unix_s)} {_iso(roof.start_unix_s + 3_600)}" in table
    files = ["--csv", tmp_path / "roof.csv", "--parquet", tmp_path / "roof.parquet"]
    operator.do("readings", "roof", *span, "--bucket", "15min", *files)
    with (tmp_path / "roof.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["production_wh"]) for row in rows) == produced_wh
    assert sum(pq.read_table(tmp_path / "roof.parquet")["production_wh"].to_pylist()) == produced_wh
    raw = operator.do("readings", "roof", *span, "--bucket", "raw")
    assert raw.count("T") > 100


def test_a_failed_download_leaves_no_file(operator, roof, tmp_path):
    before = set(tmp_path.iterdir())
    span = ["--from", _iso(roof.start_unix_s), "--to", _iso(roof.start_unix_s)]
    target = tmp_path / "roof.csv"
    assert _refused(operator.run("readings", "roof", *span, "--csv", target)) == "malformed_input"
    assert _refused(operator.run("export", "nobody", target)) == "meter_not_found"
    assert _refused(operator.run("export", "roof", tmp_path / "nowhere" / "file")) == "file"
    assert set(tmp_path.iterdir()) == before


def test_a_held_seal_is_listed_released_and_never_decided_twice(operator, roof):
    operator.do("suspend", "roof", "--reason", "panel exchange")
    first, second = roof.messages(2)
    assert operator.post(first) == "quarantined"
    assert operator.post(second) == "quarantined"
    assert "roof is active" in operator.do("resume", "roof", "--reason", "done")
    held = operator.do("quarantine", "--meter", "roof", "--reason", "meter_suspended")
    numbers = [int(number) for number in re.findall(r"│\s+(\d+)\s+│ roof", held)]
    assert len(numbers) == 2
    operator.do("release", numbers[0], "--note", "checked on site")
    operator.do("reject", numbers[1], "--note", "not plausible")
    assert _refused(operator.run("release", numbers[1], "--note", "on second thoughts")) == "quarantine_already_decided"
    assert "roof" not in operator.do("quarantine")
    everything = operator.do("quarantine", "--state", "all")
    assert "released" in everything
    assert "rejected" in everything


def test_a_backlog_is_released_in_bulk(operator, roof):
    assert "Released 0 seals of roof." in operator.do("release-backlog", "roof", "--note", "after the outage")


@pytest.mark.parametrize("order", [["restart"], ["resend", "2-5"], ["interval", "10", "0"]])
def test_an_order_is_signed_and_counted(operator, roof, order):
    assert "Command 1 for roof is signed" in operator.do("command", "roof", *order)


@pytest.mark.parametrize(
    "words", [["restart", "now"], ["resend"], ["resend", "5"], ["resend", "-1-5"], ["interval", "1"], ["explode"], []]
)
def test_what_is_no_order_is_never_sent(words):
    with pytest.raises(BadParameter):
        parse_order(words)


def test_the_hub_judges_an_impossible_order(operator, roof):
    assert _refused(operator.run("command", "roof", "resend", "5-2")) == "malformed_input"


def test_a_lost_answer_is_asked_for_again_and_the_change_happens_once(operator, roof, monkeypatch):
    monkeypatch.setattr(hub_client, "PAUSES_S", (0.01, 0.01))
    with _losing_answers(operator.url, losses=2) as (url, asked):
        said = operator.do("command", "roof", "restart", url=url)
    assert "Command 1 for roof" in said
    keys = [re.search(rb"(?i)idempotency-key: (\S+)", head)[1] for head in asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert "Command 2 for roof" in operator.do("command", "roof", "restart")


def test_after_too_many_lost_answers_the_key_to_repeat_it_with_is_named(operator, roof, monkeypatch):
    monkeypatch.setattr(hub_client, "PAUSES_S", (0.01,))
    with _losing_answers(operator.url, losses=2) as (url, _):
        result = operator.run("command", "roof", "restart", url=url)
    assert _refused(result) == "no_answer"
    key = re.search(r"--idempotency-key (\S+)", result.stderr)[1]
    result = operator.run("--idempotency-key", key, "command", "roof", "restart")
    assert "Command 1 for roof" in result.output


def test_a_registration_whose_answer_was_lost_still_yields_its_password(operator, simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_client, "PAUSES_S", (0.01,))
    with _losing_answers(operator.url, losses=1) as (url, _):
        operator.register(simulated("roof"), tmp_path, url=url)
    assert (tmp_path / "roof.password").read_text()


def test_the_exported_evidence_of_a_meter_verifies_offline(operator, roof, tmp_path):
    for sealed in roof.messages(30):
        assert operator.post(sealed) == "accepted"
    file = tmp_path / "roof.evidence"
    operator.do("export", "roof", file)
    with file.open("rb") as export:
        report = verify(export)
    assert (report.verified, report.verified_seals) == (True, 30)
    part = tmp_path / "part.evidence"
    operator.do("export", "roof", part, "--from-sequence", 10, "--to-sequence", 20, "--key-epoch", 1)
    with part.open("rb") as export:
        report = verify(export)
    assert (report.verified, report.verified_seals) == (True, 11)
    assert _refused(operator.run("export", "roof", part, "--key-epoch", 2)) == "meter_key_not_found"
    assert _refused(operator.run("export", "roof", part, "--from-sequence", 9, "--to-sequence", 2)) == "malformed_input"


def test_pages_of_evidence_join_without_a_seam(operator, simulated, tmp_path, monkeypatch):
    monkeypatch.setattr("hub.readings.evidence_lines.SEALS_PER_PAGE", 3)
    for meter_id, seals in (("none", 0), ("two", 2), ("three", 3), ("seven", 7)):
        meter = simulated(meter_id)
        operator.register(meter, tmp_path)
        for sealed in meter.messages(seals):
            operator.post(sealed)
        operator.do("export", meter_id, tmp_path / meter_id)
        with (tmp_path / meter_id).open("rb") as export:
            report = verify(export)
        assert (report.verified, report.verified_seals) == (True, seals)
        assert report.end.surplus_wh == meter.expected().surplus_wh


def test_the_verifier_finds_what_the_hub_quarantined_and_what_it_misses(operator, roof, tmp_path):
    first, second, third, fourth, fifth = roof.messages(5)
    false = misbehaviour.invented_surplus(roof.key, second.message, random.Random(1))
    operator.post(first)
    assert operator.post(type(second)("roof", 2, 0, false)) == "quarantined"
    operator.post(third)
    operator.post(fifth)
    operator.do("export", "roof", tmp_path / "evidence")
    with (tmp_path / "evidence").open("rb") as export:
        report = verify(export)
    found = {(finding.kind, finding.first_sequence, finding.reason) for finding in report.findings}
    assert ("false", 2, "netting_mismatch") in found
    assert ("held", 2, "quarantined") in found
    assert ("missing", fourth.sequence, "not_in_the_file") in found


def test_without_a_key_the_evidence_is_not_given(operator, roof):
    assert httpx.get(f"{operator.url}/meters/roof/evidence").status_code == 401


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://127.0.0.1:1", "no_answer"), ("hub.example", "url"), ("ftp://hub.example", "url"), ("http://a..b", "url")],
)
def test_a_hub_that_cannot_be_reached_is_one_clear_line(operator, monkeypatch, url, code):
    monkeypatch.setattr(hub_client, "PAUSES_S", (0.01,))
    assert _refused(operator.run("meters", url=url)) == code


@pytest.mark.parametrize("content", [None, "", "two words", "wrong-key"])
def test_a_key_that_does_not_open_is_one_clear_line(operator, content):
    operator.key_file.unlink()
    if content is not None:
        operator.key_file.write_text(content)
        operator.key_file.chmod(0o600)
    assert _refused(operator.run("meters")) == ("unauthorized" if content == "wrong-key" else "key_file")


def test_who_still_sets_the_old_variable_hears_what_became_of_it(operator, tmp_path):
    words = ["--url", operator.url, "--session-file", str(tmp_path / "nobody"), "meters"]
    runner = CliRunner(env={"COMMONWATT_ADMIN_TOKEN_FILE": "/etc/commonwatt/admin-token"})
    result = runner.invoke(admin.app, words)
    assert _refused(result) == "key_file"
    assert "commonwatt hub bootstrap" in result.stderr
    assert _refused(CliRunner().invoke(admin.app, words)) == "not_signed_in"


def test_a_key_that_others_may_read_is_refused(operator):
    operator.key_file.chmod(0o644)
    assert _refused(operator.run("meters")) == "key_file"


def test_what_meters_wrote_cannot_steer_the_terminal(operator, roof):
    assert _refused(operator.run("gaps", "../meters\x1b[31m")) in ("malformed_input", "not_found")


def test_the_command_finds_the_hub_by_its_environment(operator, roof):
    environment = os.environ | {
        "COMMONWATT_API_URL": operator.url,
        "COMMONWATT_API_KEY_FILE": str(operator.key_file),
    }
    command = [sys.executable, "-m", "commonwatt", "admin", "meters"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "roof" in done.stdout
