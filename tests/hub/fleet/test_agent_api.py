"""An agent without a broker reports, and hears its receipt and its commands in the answer."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from protocol.command import RESEND, SET_INTERVAL, split_command
from protocol.committed import Committed, encode_committed

DAY = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400 - 86_400
STATUS = b'{"state":"online","agent":"0.1.0","backlog_seals":3}'


@pytest.fixture
def home(server, new_meter):
    """A home that was enrolled yesterday, and the password of its broker account."""
    meter = new_meter(valid_from_unix_s=DAY)
    return meter, server.register(meter).json()["broker"]["password"]


def report(server, meter_id, password, status=STATUS, **parameters):
    return server.anonymous.post(
        "/agent/report", params={"meter_id": meter_id} | parameters, content=status, auth=(meter_id, password)
    )


def receipt_of(answer):
    assert answer.status_code == 200, answer.text
    return bytes.fromhex(answer.json()["receipt"])


def test_a_report_hears_the_same_receipt_as_the_last_seal_and_before_the_first_that_there_is_none(server, home):
    meter, password = home
    assert receipt_of(report(server, meter.meter_id, password)) == encode_committed(Committed(1, 0, None, []))
    first = meter.seal([(DAY + 60, 1, 0)])
    second = meter.seal([(DAY + 120, 2, 0)])
    posted = server.post_seal(meter, second)
    assert receipt_of(posted) == encode_committed(Committed(1, 0, None, [(2, 2)]))
    assert receipt_of(report(server, meter.meter_id, password)) == receipt_of(posted)
    posted = server.post_seal(meter, first)
    assert receipt_of(posted) == encode_committed(Committed(1, 2, meter.previous, []))
    assert receipt_of(report(server, meter.meter_id, password)) == receipt_of(posted)


def test_a_report_brings_the_commands_that_were_not_followed_yet(server, home):
    meter, password = home
    for body in (
        {"kind": "set_interval", "first": 60, "last": 900},
        {"kind": "resend", "first": 1, "last": 5},
    ):
        assert server.post(f"/meters/{meter.meter_id}/commands", body).status_code == 202
    commands = [bytes.fromhex(each) for each in report(server, meter.meter_id, password).json()["commands"]]
    assert [split_command(each)[0].kind for each in commands] == [SET_INTERVAL, RESEND]
    later = report(server, meter.meter_id, password, last_command=1).json()["commands"]
    assert later == [commands[1].hex()]
    assert report(server, meter.meter_id, password, last_command=2).json()["commands"] == []


def test_the_status_of_a_report_is_kept(server, home):
    meter, password = home
    assert report(server, meter.meter_id, password).status_code == 200
    line = server.client.get("/fleet").text
    assert meter.meter_id in line


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic " + "A" * 100_000,
        "Basic " + base64.b64encode(b"nobody").decode(),
        "Bearer cwk_00_of-nobody",
        "Basic " + base64.b64encode(b"\xff\xfe:\x00").decode(),
    ],
)
def test_without_the_password_of_the_meter_nothing_is_told(server, home, authorization):
    meter, _ = home
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = server.anonymous.post(f"/agent/report?meter_id={meter.meter_id}", content=STATUS, headers=headers)
    if answer.status_code != 400:  # a header line that the server itself refuses
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert "receipt" not in answer.text


def test_a_password_is_good_for_its_own_meter_only(server, home, new_meter):
    meter, password = home
    neighbour = new_meter(valid_from_unix_s=DAY)
    server.register(neighbour)
    for name in (neighbour.meter_id, "nobody-here"):
        assert report(server, name, password).status_code == 401
    answer = server.anonymous.post(
        f"/agent/report?meter_id={neighbour.meter_id}", content=STATUS, auth=(meter.meter_id, password)
    )
    assert answer.status_code == 401


def test_a_renewed_password_ends_the_old_one(server, home):
    meter, password = home
    assert server.post(f"/meters/{meter.meter_id}/broker-password", {"reason": "lost"}).status_code < 300
    answer = report(server, meter.meter_id, password)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"[]",
        b"\xff\x00",
        b"[" * 4_000,
        b'{"state":"online","sequence":-1}',
        b'{"state":"a state that only a newer hub knows"}',
        json.dumps({"state": "online", "more": "x" * 5_000}).encode(),
    ],
    ids=range(7),
)
def test_a_status_that_is_not_understood_stands_in_no_seals_way(server, home, status):
    meter, password = home
    first = meter.seal([(DAY + 60, 1, 0)])
    server.post_seal(meter, first)
    answer = report(server, meter.meter_id, password, status)
    assert receipt_of(answer) == encode_committed(Committed(1, 1, meter.previous, []))
    assert answer.json()["status_noted"] is False
    assert report(server, meter.meter_id, password).json()["status_noted"] is True


@pytest.mark.parametrize(
    ("status", "parameters", "code"),
    [
        (b"x" * 100_000, {}, "body_too_large"),
        (STATUS, {"last_command": -1}, "malformed_input"),
        (STATUS, {"last_command": 2**64}, "malformed_input"),
        (STATUS, {"last_command": "one"}, "malformed_input"),
        (STATUS, {"more": "1"}, "malformed_input"),
    ],
)
def test_a_report_that_cannot_be_understood_is_refused_by_name(server, home, status, parameters, code):
    meter, password = home
    answer = report(server, meter.meter_id, password, status, **parameters)
    assert (answer.status_code, answer.json()["code"]) == ({"body_too_large": 413}.get(code, 422), code)
    with server.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM meters")).scalar_one() == 1
