"""A node is believed no further than its answers have the right shape, and its address is told to nobody."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from hub.chain.rpc import Node, PreflightRefused
from hub.errors import ChainAnswersNonsense, ChainAway, ChainLags, ChainRefuses

SIGNATURE = b"s" * 64
ADDRESS = Pubkey.from_bytes(b"a" * 32)
KEPT = "secret-key-of-a-provider"
ASKS = {
    "genesis_hash": lambda node: node.genesis_hash(),
    "latest_blockhash": lambda node: node.latest_blockhash(),
    "finalized": lambda node: node.finalized(),
    "first_available_block": lambda node: node.first_available_block(),
    "statuses": lambda node: node.statuses([SIGNATURE]),
    "lamports": lambda node: node.lamports(ADDRESS),
    "rent_lamports": lambda node: node.rent_lamports(10),
    "find_account": lambda node: node.find_account(ADDRESS),
    "find_accounts": lambda node: node.find_accounts([ADDRESS]),
    "program_accounts": lambda node: node.program_accounts(ADDRESS),
    "signatures_of": lambda node: node.signatures_of(ADDRESS),
    "find_transaction": lambda node: node.find_transaction(SIGNATURE),
    "simulate": lambda node: node.simulate(b"wire", 1),
    "send": lambda node: node.send(b"wire"),
}


class Liar:
    """An HTTP server that answers whatever it is told to."""

    def __init__(self):
        self.status, self.body, self.delay_s = 200, b"", 0.0
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(liar.delay_s)
                self.send_response(liar.status)
                self.send_header("Content-Length", str(len(liar.body)))
                self.end_headers()
                self.wfile.write(liar.body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/{KEPT}?api-key={KEPT}"

    def result(self, result):
        self.status, self.body = 200, json.dumps({"jsonrpc": "2.0", "id": "1", "result": result}).encode()

    def error(self, **error):
        self.status, self.body = 200, json.dumps({"jsonrpc": "2.0", "id": "1", "error": error}).encode()

    def ask(self, ask, timeout_s=5.0):
        async def run():
            async with Node(self.url, timeout_s) as node:
                return await ask(node)

        return asyncio.run(run())


@pytest.fixture(scope="module")
def liar():
    liar = Liar()
    thread = threading.Thread(target=liar.server.serve_forever)
    thread.start()
    yield liar
    liar.server.shutdown()
    thread.join()
    liar.server.server_close()


NONSENSE = [
    None,
    True,
    -1,
    1.5,
    2**63,
    "text",
    [],
    [None],
    {},
    {"context": {}, "value": None},
    {"context": {"slot": "1"}, "value": {}},
    {"context": {"slot": 1}, "value": [{"lamports": 1}]},
    {"context": {"slot": 1}, "value": {"lamports": 1, "owner": "1", "data": ["=", "base64"], "executable": False}},
    {"context": {"slot": 1}, "value": {"blockhash": "O0Il", "lastValidBlockHeight": 1}},
    {"context": {"slot": 1}, "value": {"err": {"InstructionError": "no"}, "logs": None}},
    {"context": {"slot": 1}, "value": [None, None]},
    {"context": {"slot": 1}, "value": [{"slot": 1, "err": 5, "confirmationStatus": "finalized"}]},
    {"context": {"slot": 1}, "value": [{"slot": 1, "err": None, "confirmationStatus": "perhaps"}]},
    {"context": {"slot": 1}, "value": [{"slot": 2, "err": None, "confirmationStatus": "finalized"}]},
    {"absoluteSlot": 1},
    [{"signature": "1111", "slot": 1, "err": None}],
]


@pytest.mark.parametrize("name", ASKS)
def test_nonsense_has_a_name_whatever_was_asked(liar, name):
    meaningful = {"find_transaction": [None], "signatures_of": [[]]}.get(name, [])

    async def ask(node):
        for result in NONSENSE:
            liar.result(result)
            if result in meaningful:
                await ASKS[name](node)
                continue
            with pytest.raises(ChainAnswersNonsense):
                await ASKS[name](node)

    liar.ask(ask)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"jsonrpc":"2.0","id":"1"}',
        b'{"jsonrpc":"1.0","id":"1","result":5}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}',
        b'{"jsonrpc":"2.0","id":"1","error":{"code":"x"}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_of_json_rpc_has_a_name(liar, body):
    liar.status, liar.body = 200, body
    with pytest.raises(ChainAnswersNonsense):
        liar.ask(ASKS["finalized"])


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_a_refusal_over_http_has_a_name_and_keeps_the_address_to_itself(liar, status):
    liar.status, liar.body = status, KEPT.encode()
    with pytest.raises(ChainRefuses, match=f"HTTP {status}") as refused:
        liar.ask(ASKS["finalized"])
    assert KEPT not in "".join(traceback.format_exception(refused.value))


def test_a_refusal_over_json_rpc_has_the_nodes_reason_and_no_control_characters(liar):
    liar.error(code=-32005, message="behind by 42\x1b[31m slots")
    with pytest.raises(ChainRefuses, match="-32005 behind by 42") as refused:
        liar.ask(ASKS["finalized"])
    assert "\x1b" not in str(refused.value)
    liar.error(code=-32016, message="Minimum context slot has not been reached")
    with pytest.raises(ChainLags):
        liar.ask(ASKS["simulate"])


def test_a_refusal_of_preflight_tells_what_refused_and_what_was_logged(liar):
    data = {"err": {"InstructionError": [1, {"Custom": 6014}]}, "logs": ["one", 2, "three"]}
    liar.error(code=-32002, message="Transaction simulation failed", data=data)
    with pytest.raises(PreflightRefused) as refused:
        liar.ask(ASKS["send"])
    assert (refused.value.fault.number, refused.value.logs) == (6014, ("one", "three"))
    liar.error(code=-32002, message="Transaction simulation failed", data={"err": 5})
    with pytest.raises(ChainAnswersNonsense):
        liar.ask(ASKS["send"])


def test_a_slow_node_is_away_and_its_address_is_not_told(liar):
    liar.result(5)
    liar.delay_s = 2.0
    with pytest.raises(ChainAway, match=r"no answer within 0\.2 s") as away:
        liar.ask(ASKS["first_available_block"], 0.2)
    liar.delay_s = 0.0
    assert KEPT not in "".join(traceback.format_exception(away.value))


def test_no_node_at_all_is_away():
    async def ask():
        async with Node(f"http://127.0.0.1:1/{KEPT}") as node:
            await node.finalized()

    with pytest.raises(ChainAway) as away:
        asyncio.run(ask())
    assert KEPT not in "".join(traceback.format_exception(away.value))


def test_a_real_node_is_understood(cluster):
    async def ask(node):
        blockhash = await node.latest_blockhash()
        finalized = await node.finalized()
        assert finalized.slot < blockhash.slot + 150 and finalized.block_height < blockhash.last_valid_block_height
        assert await node.first_available_block() <= finalized.slot
        assert (await node.statuses([SIGNATURE])).found == (None,)
        assert await node.find_account(Keypair().pubkey()) is None
        assert await node.lamports(Keypair().pubkey()) == 0
        slot, accounts = await node.program_accounts(cluster.program_id)
        assert slot > 0 and cluster.addresses.config() in {each.pubkey for each in accounts}
        [newest, *_] = await node.signatures_of(cluster.addresses.config())
        landed = await node.find_transaction(newest.signature)
        assert (landed.slot, landed.fault) == (newest.slot, None)
        assert any(line.startswith(f"Program {cluster.program_id} invoke") for line in landed.logs)

    cluster.ask(ask)
