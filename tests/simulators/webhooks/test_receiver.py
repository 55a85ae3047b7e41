"""The receiver as a process: it keeps what came before it answers, and does as its faults say."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import httpx
import pytest
from typer.testing import CliRunner

from simulators.cli import app
from simulators.webhooks.faults import FaultsInvalid, parse
from tests.hub.receiving import running_receiver

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = json.dumps({"type": "a.b", "timestamp": "2026-11-20T12:00:00Z", "data": {}}).encode()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    with running_receiver(tmp_path_factory.mktemp("receiver")) as running:
        running.trust(SECRET)
        yield running


def _post(receiver, message_id, key=KEY):
    timestamp = str(int(time.time()))
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + BODY, hashlib.sha256).digest()
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }
    return httpx.post(receiver.url, content=BODY, headers=headers, timeout=20)


def test_what_is_signed_is_taken_and_a_repeat_is_noticed(receiver):
    receiver.fail()
    assert [_post(receiver, "msg_1").status_code for _ in range(2)] == [204, 204]
    first, second = receiver.received()[-2:]
    assert (first.refusal, first.repeated, second.repeated, first.body) == ("", False, True, BODY)


def test_what_another_signed_is_refused_and_kept(receiver):
    receiver.fail()
    assert _post(receiver, "msg_2", KEY[::-1]).status_code == 400
    assert receiver.received()[-1].refusal == "no signature is by a secret of ours"
    assert _post(receiver, "msg_2").status_code == 204
    assert not receiver.received()[-1].repeated, "what was refused was not acted on"


def test_statuses_come_one_by_one_and_begin_anew_with_new_faults(receiver):
    receiver.fail(statuses=[500, 410])
    assert [_post(receiver, f"msg_3{number}").status_code for number in range(3)] == [500, 410, 204]
    receiver.fail(statuses=[503])
    assert _post(receiver, "msg_4").status_code == 503


def test_a_redirect_and_a_long_body(receiver):
    receiver.fail(redirect="http://127.0.0.1:9/elsewhere")
    answer = _post(receiver, "msg_5")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://127.0.0.1:9/elsewhere")
    receiver.fail(status=200, body_bytes=200_000)
    assert len(_post(receiver, "msg_6").content) == 200_000


def test_a_cut_comes_after_the_request_is_kept(receiver):
    before = len(receiver.received())
    receiver.fail(cut=1)
    with pytest.raises(httpx.TransportError):
        _post(receiver, "msg_7")
    assert len(receiver.received()) == before + 1
    assert _post(receiver, "msg_7").status_code == 204


@pytest.mark.parametrize(
    "text", ["", "[]", '{"statu": 1}', '{"status": "500"}', '{"hang": 1}', '{"statuses": [1.5]}', '{"delay_s": "1"}']
)
def test_a_fault_that_is_none_is_named(text):
    with pytest.raises(FaultsInvalid):
        parse(text)


def test_a_certificate_without_its_key_is_refused(tmp_path):
    file = tmp_path / "certificate"
    result = CliRunner().invoke(app, ["webhooks", "--directory", str(tmp_path), "--certificate-file", str(file)])
    assert result.exit_code == 2
