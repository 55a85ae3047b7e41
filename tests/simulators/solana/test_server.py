"""The process at the wire: JSON-RPC's framing, CORS, both ports, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys

import httpx
import pytest
import websockets.sync.client
from solders.keypair import Keypair

from infra.local.solana import SolanaSimulator
from tests.simulators.solana.ledger_at_hand import SOL

SLOT_MS = 50
NOT_FOUND = {"code": -32601, "message": "Method not found"}
INVALID = {"code": -32600, "message": "Invalid request"}
START_TIMEOUT_S = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with SolanaSimulator(tmp_path_factory.mktemp("wire"), SLOT_MS, finalized_after_slots=4) as running:
        yield running


def _post(cluster, body, content_type="application/json"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(cluster.url, content=content, headers={"content-type": content_type}, timeout=20)


def _request(method="getHealth", number=1, **more):
    return {"jsonrpc": "2.0", "id": number, "method": method, **more}


def test_a_request_is_answered_with_its_id(cluster):
    for number in (1, "one", None):
        assert _post(cluster, _request(number=number)).json() == {"jsonrpc": "2.0", "result": "ok", "id": number}
    answer = _post(cluster, _request("getMoney", 7)).json()
    assert answer == {"jsonrpc": "2.0", "error": NOT_FOUND, "id": 7}


def test_a_batch_is_answered_in_its_order_and_notifications_are_not(cluster):
    notification = {"jsonrpc": "2.0", "method": "getHealth"}
    answers = _post(cluster, [_request(number=1), notification, _request("getMoney", 2), 5]).json()
    assert [(each["id"], each.get("error")) for each in answers] == [(1, None), (2, NOT_FOUND), (None, INVALID)]
    assert _post(cluster, notification).content == b""
    assert _post(cluster, []).content == b""


@pytest.mark.parametrize("body", [b"", b"{", b'"', b"\xff\xfe", b"[1,"])
def test_what_is_not_json_is_a_parse_error(cluster, body):
    assert _post(cluster, body).json() == {
        "jsonrpc": "2.0",
        "error": {"code": -32700, "message": "Parse error"},
        "id": None,
    }


@pytest.mark.parametrize("body", [5, "x", None, {}, {"id": 1}, {**_request(), "id": {}}, {**_request(), "method": 5}])
def test_what_is_no_request_is_invalid(cluster, body):
    assert _post(cluster, body).json()["error"] == INVALID


def test_another_protocol_is_refused(cluster):
    assert _post(cluster, {**_request(), "jsonrpc": "1.0"}).json()["error"]["code"] == -32600


def test_only_posts_of_json_of_50_kib_are_taken(cluster):
    assert _post(cluster, _request(), "text/plain").status_code == 415
    assert _post(cluster, _request(), "application/json; charset=utf-8").json()["result"] == "ok"
    assert _post(cluster, b" " * (50 * 1024 + 1)).status_code == 413
    assert httpx.get(cluster.url).status_code == 405
    assert httpx.get(cluster.url + "/health").text == "ok"


def test_a_browser_of_any_origin_may_ask(cluster):
    asked = {
        "origin": "https://wallet.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,solana-client",
    }
    allowed = httpx.options(cluster.url, headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "*"
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-headers"] == "content-type,solana-client"
    assert _post(cluster, _request()).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("beyond", [0, 1])
def test_websockets_are_served_on_the_port_and_on_the_next(cluster, beyond):
    with websockets.sync.client.connect(f"ws://127.0.0.1:{cluster.port + beyond}", open_timeout=20) as client:
        client.send(json.dumps(_request("slotSubscribe")))
        number = json.loads(client.recv(timeout=20))["result"]
        told = json.loads(client.recv(timeout=20))
        assert (told["method"], told["params"]["subscription"]) == ("slotNotification", number)


def test_many_who_ask_at_once_are_all_answered_and_each_payment_lands_once(cluster):
    addresses = [str(Keypair().pubkey()) for _ in range(40)]

    async def ask_all():
        async with httpx.AsyncClient(timeout=60) as client:

            async def ask(method, *params):
                answer = await client.post(cluster.url, json=_request(method, params=list(params)))
                return answer.json()["result"]

            gifts = [ask("requestAirdrop", address, SOL) for address in addresses]
            reads = [ask("getSlot") for _ in range(200)]
            return await asyncio.gather(*gifts, *reads)

    answers = asyncio.run(ask_all())
    assert len(set(answers[:40])) == 40
    assert all(isinstance(each, int) for each in answers[40:])
    balances = cluster.call("getMultipleAccounts", addresses, {"commitment": "processed"})["value"]
    assert [each["lamports"] for each in balances] == [SOL] * 40


@contextlib.contextmanager
def _started(directory, *options):
    ready = directory / "ready.json"
    command = [sys.executable, "-m", "commonwatt", "simulate", "solana", "--directory", str(directory / "ledger")]
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process, ready
        finally:
            process.kill()


def test_the_process_says_where_it_is_reached_and_ends_at_a_signal(tmp_path):
    with _started(tmp_path, "--no-faucet") as (process, ready):
        ports = json.loads(process.stdout.readline())
        assert json.loads(ready.read_text()) == ports
        assert ports["websocket_port"] == ports["port"] + 1
        asked = _request("requestAirdrop", params=[str(Keypair().pubkey()), SOL])
        answer = httpx.post(f"http://127.0.0.1:{ports['port']}", json=asked, timeout=20).json()
        assert answer["error"] == INVALID
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_TIMEOUT_S) == 0
        assert process.stderr.read() == ""


def test_a_port_that_is_taken_and_a_ledger_that_is_none_are_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with _started(tmp_path, "--port", str(taken.getsockname()[1])) as (process, _):
            assert process.wait(START_TIMEOUT_S) == 2
    (tmp_path / "ledger").mkdir(exist_ok=True)
    (tmp_path / "ledger" / "ledger.sqlite").write_text("this is no database, and it is long enough to be seen as none")
    with _started(tmp_path) as (process, _):
        assert process.wait(START_TIMEOUT_S) == 2
        assert "not a database" in process.stderr.read()
