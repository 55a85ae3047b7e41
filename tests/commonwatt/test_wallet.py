"""A wallet at the command line, against a hub that may be anybody's: what it asks, refuses, and never gives away."""

from __future__ import annotations

import base64
import json
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import base58
import pytest
from nacl.signing import SigningKey, VerifyKey
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from typer.testing import CliRunner, Result

from commonwatt import wallet
from commonwatt.member_session import Tokens
from commonwatt.member_wallet import Wallet
from commonwatt.wallet_rpc import decimal
from commonwatt.wallet_transaction import TOKEN_2022
from hub.chain.messages import build_message
from infra.local.processes import write_secret
from tests.commonwatt.conftest import refusal_of
from tests.commonwatt.test_wallet_transaction import HUB, ID, PROGRAM, meter_acts, user_acts

PATH = f"/me/registrations/{ID}"
Answer = dict[str, Any]
GONE = 0
"""Instead of a status: the connection ends without an answer."""

HEAR_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass
class AnyHub:
    """Somebody who answers as a hub does: each request with what the test put there, the last one again and again."""

    answers: dict[tuple[str, str], list[tuple[int, Answer]]] = field(default_factory=dict)
    posted: list[tuple[str, Answer]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """The Idempotency-Key of each of these."""
    url: str = ""

    def put(self, method: str, path: str, *answers: Answer, status: int = 200) -> None:
        self.answers.setdefault((method, path), []).extend((status, answer) for answer in answers)

    def answer(self, method: str, path: str) -> tuple[int, Answer]:
        waiting = self.answers[method, path.partition("?")[0]]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@pytest.fixture
def hub() -> Iterator[AnyHub]:
    made = AnyHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            made.posted.append((self.path, json.loads(self.rfile.read(length))))
            made.keys.append(self.headers["Idempotency-Key"])
            self._answer("POST")

        def _answer(self, method: str) -> None:
            status, answer = made.answer(method, self.path)
            if status == GONE:
                return
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The wallet of the transactions that the tests build."""
    path = tmp_path / "id.json"
    write_secret(path, Keypair.from_seed(b"w" * 32).to_json())
    return path


@pytest.fixture
def run(hub: AnyHub, tmp_path: Path) -> Callable[..., Result]:
    session = tmp_path / "session.json"
    write_secret(session, json.dumps(asdict(Tokens(hub.url, "m", "s", "access", "refresh"))))

    def invoke(*words: object, stdin: str = "") -> Result:
        options = ["--session-file", str(session)]
        return CliRunner(env={"COLUMNS": "200"}).invoke(wallet.app, [*options, *map(str, words)], input=stdin)

    return invoke


def standing(state: str, message: bytes | None = None, **more: object) -> Answer:
    to_sign = None if message is None else {"message": base64.b64encode(message).decode(), "says": {"words": "Good!"}}
    shown: Answer = {"registration_id": str(ID), "kind": "user.register", "meter_id": None, "state": state}
    shown |= {"program_id": str(PROGRAM), "transaction": to_sign, "signature": None}
    return shown | {"error_code": None, "error": None} | more


def built(acts: list[Any] | None = None, blockhash: bytes = bytes(32)) -> bytes:
    return build_message(HUB, acts or user_acts(), 60_000, 0, blockhash, ID)


KNOWN = ("--program", str(PROGRAM), "--yes")


def signatures(hub: AnyHub) -> list[Answer]:
    return [body for path, body in hub.posted if path.endswith("/signature")]


def test_a_wallet_is_a_private_file_of_solanas_own_form(run, tmp_path):
    path = tmp_path / "new.json"
    made = run("new", path)
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(Keypair.from_json(path.read_text()).pubkey()) == made.stdout.strip()
    assert run("show", path).stdout == made.stdout
    assert Wallet.read(path).address == made.stdout.strip()
    assert refusal_of(run("new", path), "commonwatt wallet") == "wallet_file"
    path.chmod(0o640)
    assert refusal_of(run("show", path), "commonwatt wallet") == "wallet_file"


def test_a_transaction_is_shown_signed_and_waited_for(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("planned"), status=202)
    hub.put("GET", PATH, standing("planned"), standing("awaiting_wallet", built()), standing("open"))
    hub.put("GET", PATH, standing("unknown"), standing("finalized", signature="abc"))
    hub.put("POST", f"{PATH}/signature", standing("open"), status=202)
    done = run("register", "--wallet", file, *KNOWN)
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == ["planned", "awaiting_wallet", "open", "unknown", "finalized", "abc"]
    assert "it registers: your wallet" in done.stderr
    assert "Good!" not in done.stderr, "what the hub says of it is not shown"
    [signed] = signatures(hub)
    message = base64.b64decode(signed["message"])
    assert message == built()
    VerifyKey(Wallet.read(file).public_key).verify(message, base58.b58decode(signed["signature"]))
    assert hub.posted[0] == ("/me/registrations/user", {"wallet": Wallet.read(file).address})


@pytest.mark.parametrize("stdin", ["n\n", "\n", ""])
def test_nothing_is_signed_without_a_yes(run, hub, file, stdin):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    asked = run("register", "--wallet", file, "--program", PROGRAM, stdin=stdin)
    assert refusal_of(asked, "commonwatt wallet") == "not_signed"
    assert signatures(hub) == []


def test_the_hubs_word_for_the_program_is_shown_to_be_confirmed_and_never_enough_by_itself(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    assert refusal_of(run("register", "--wallet", file, "--yes"), "commonwatt wallet") == "program_unknown"
    assert hub.posted == [], "nothing is even asked for"
    hub.put("POST", f"{PATH}/signature", standing("finalized", signature="abc"))
    asked = run("register", "--wallet", file, stdin="y\n")
    assert asked.exit_code == 0, asked.output
    assert f"by the program: {PROGRAM}" in asked.stderr


def steal() -> list[Any]:
    wallet_key = Pubkey.from_bytes(SigningKey(b"w" * 32).verify_key.encode())
    return [*user_acts(), transfer(TransferParams(from_pubkey=wallet_key, to_pubkey=HUB, lamports=1))]


@pytest.mark.parametrize(
    "message",
    [built(steal()), built(meter_acts()), b"", b"hub.example wants you to", built()[:-1], built(user_acts(HUB, HUB))],
    ids=["theft", "another act", "nothing", "a text", "cut", "another wallet"],
)
def test_what_is_not_the_expected_act_is_refused_and_no_signature_leaves(run, hub, file, message):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", message))
    refused = run("register", "--wallet", file, *KNOWN)
    assert refusal_of(refused, "commonwatt wallet") == "transaction_refused"
    assert signatures(hub) == []


def test_a_hub_that_swaps_the_transaction_after_the_yes_is_found_out(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", {"code": "transaction_expired", "title": "It has expired"}, status=409)
    hub.put("GET", PATH, standing("awaiting_wallet", built(steal())))
    refused = run("register", "--wallet", file, *KNOWN)
    assert refusal_of(refused, "commonwatt wallet") == "transaction_refused"
    assert len(signatures(hub)) == 1


def test_a_transaction_that_lapsed_is_signed_anew_without_another_question(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", {"code": "transaction_expired", "title": "It has expired"}, status=409)
    hub.put("POST", f"{PATH}/signature", standing("finalized", signature="abc"), status=202)
    hub.put("GET", PATH, standing("awaiting_wallet", built(blockhash=bytes([1]) * 32)))
    done = run("register", "--wallet", file, "--program", PROGRAM, stdin="y\n")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("This transaction says:") == 1
    assert len({each["message"] for each in signatures(hub)}) == 2


def test_what_was_sent_and_got_lost_is_signed_anew_as_another_act(run, hub, file):
    """A hub answers the same key with another message by `idempotency_key_reused`."""
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", standing("open"), standing("finalized", signature="abc"), status=202)
    hub.put("GET", PATH, standing("planned"), standing("awaiting_wallet", built(blockhash=bytes([1]) * 32)))
    done = run("--idempotency-key", "k" * 255, "register", "--wallet", file, *KNOWN)
    assert done.exit_code == 0, done.output
    assert len(signatures(hub)) == 2
    assert len(set(hub.keys)) == 3
    assert all(len(key) <= 255 for key in hub.keys)


def test_the_same_invocation_again_hands_in_the_same_signature_as_the_same_act(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", standing("finalized", signature="abc"), status=202)
    for _ in range(2):
        assert run("--idempotency-key", "once", "register", "--wallet", file, *KNOWN).exit_code == 0
    assert hub.keys[:2] == hub.keys[2:]


def test_a_hub_that_asks_again_and_again_is_not_answered_for_ever(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", standing("awaiting_wallet", built()), status=202)
    left = run("register", "--wallet", file, *KNOWN, "--wait-s", 0)
    assert left.exit_code == 3, left.output
    assert len(signatures(hub)) == 1


def test_a_hub_that_is_gone_while_the_end_is_waited_for_leaves_it_unknown(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", standing("open"), status=202)
    hub.put("GET", PATH, {}, status=GONE)
    left = run("register", "--wallet", file, *KNOWN, "--wait-s", 1)
    assert left.exit_code == 3, left.output
    assert "not known yet" in left.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"state": None},
        {"state": "awaiting_wallet", "transaction": "x"},
        {"state": "awaiting_wallet", "transaction": {}},
        {"state": "awaiting_wallet", "transaction": {"message": 7}},
        {"registration_id": ".."},
        {"registration_id": None},
        {"program_id": None, "state": "planned"},
    ],
)
def test_an_answer_that_no_hub_gives_is_refused_in_a_line(run, hub, file, change):
    hub.put("POST", "/me/registrations/user", standing("awaiting_wallet", built()) | change)
    refused = run("register", "--wallet", file, *KNOWN)
    assert refusal_of(refused, "commonwatt wallet") == "unexpected_answer"
    assert signatures(hub) == []


@pytest.mark.parametrize("missing", ["registration_id", "state", "transaction", "program_id", "signature"])
def test_an_answer_in_which_something_is_missing_is_refused_in_a_line(run, hub, file, missing):
    answer = standing("awaiting_wallet", built())
    del answer[missing]
    hub.put("POST", "/me/registrations/user", answer)
    assert refusal_of(run("register", "--wallet", file, *KNOWN), "commonwatt wallet") == "unexpected_answer"


def test_who_interrupts_the_waiting_is_told_that_it_goes_on(hub, file, tmp_path):
    session = tmp_path / "session.json"
    write_secret(session, json.dumps(asdict(Tokens(hub.url, "m", "s", "access", "refresh"))))
    hub.put("POST", "/me/registrations/user", standing("open"))
    hub.put("GET", PATH, standing("open"))
    words = ["wallet", "--session-file", str(session), "register", "--wallet", str(file), *KNOWN]
    # a shell that runs the tests in the background has them ignore the signal, and so would what they start
    command = [sys.executable, "-c", HEAR_CTRL_C, sys.executable, "-m", "commonwatt", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130, told
    assert "commonwatt wallet registrations" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("state", "code", "refusal"), [("failed", "already_exists", "already_exists"), ("expired", None, "expired")]
)
def test_a_bad_end_is_an_exit_status_with_its_reason(run, hub, file, state, code, refusal):
    hub.put("POST", "/me/registrations/user", standing(state, error_code=code, error="So it is"))
    assert refusal_of(run("register", "--wallet", file, *KNOWN), "commonwatt wallet") == refusal


def test_an_end_that_is_not_known_is_another_exit_status_than_a_bad_one(run, hub, file):
    hub.put("POST", "/me/registrations/user", standing("unknown"))
    left = run("register", "--wallet", file, *KNOWN, "--wait-s", 0)
    assert (left.exit_code, left.stdout) == (3, "unknown\n")
    assert "not known yet" in left.stderr


def test_a_meter_is_signed_for_by_its_name_and_no_other(run, hub, file):
    waiting = standing("awaiting_wallet", built(meter_acts()), kind="meter.register", meter_id="roof")
    hub.put("POST", "/me/registrations/meter", waiting)
    hub.put("POST", f"{PATH}/signature", standing("finalized", signature="abc"))
    assert run("register-meter", "roof", "--wallet", file, *KNOWN).exit_code == 0
    refused = run("register-meter", "shed", "--wallet", file, *KNOWN)
    assert refusal_of(refused, "commonwatt wallet") == "transaction_refused"
    assert len(signatures(hub)) == 1


def test_what_was_asked_for_elsewhere_is_signed_by_its_id(run, hub, file):
    hub.put("GET", PATH, standing("awaiting_wallet", built()))
    hub.put("POST", f"{PATH}/signature", standing("finalized", signature="abc"))
    assert run("sign", ID, "--wallet", file, *KNOWN).exit_code == 0
    assert UUID(PATH.rpartition("/")[2]) == ID


def test_who_is_not_signed_in_is_told_so(run, tmp_path, file):
    (tmp_path / "session.json").unlink()
    refused = run("register", "--wallet", file, *KNOWN)
    assert refusal_of(refused, "commonwatt wallet") == "not_signed_in"


@pytest.mark.parametrize(
    ("units", "shown"),
    [(0, "0"), (1, "0.000000001"), (11 * 10**9, "11"), (1_500_000_000, "1.5"), (2**64 - 1, "18446744073.709551615")],
)
def test_amounts_are_exact(units, shown):
    assert decimal(units, 9) == shown


def account(owner: object, data: bytes) -> Answer:
    return {"jsonrpc": "2.0", "id": 1, "result": {"value": {"owner": str(owner), "data": [_base64(data), "base64"]}}}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "answers",
    [
        [{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "Node is behind"}}],
        [["nonsense"]],
        [account(HUB, b"CWCF".ljust(320, b"\0"))],
        [account(PROGRAM, b"CWUS".ljust(320, b"\0"))],
        [account(PROGRAM, b"CWCF")],
        [{"jsonrpc": "2.0", "id": 1, "result": {"value": None}}],
        [{"jsonrpc": "2.0", "id": 1, "result": {}}],
        [{"jsonrpc": "2.0", "id": 1, "result": {"value": "x"}}],
        [{"jsonrpc": "2.0", "id": 1, "result": {"value": {"owner": 7, "data": ["", "base64"]}}}],
        [{"jsonrpc": "2.0", "id": 1, "result": {"value": {"owner": str(PROGRAM), "data": ["#", "base64"]}}}],
        [{"jsonrpc": "2.0", "id": 1, "result": {"value": {"owner": str(PROGRAM), "data": []}}}],
        [account(PROGRAM, b"CWCF".ljust(320, b"\0")), account(TOKEN_2022, bytes(170))],
        [account(PROGRAM, b"CWCF".ljust(320, b"\0")), account(PROGRAM, bytes(170))],
        [account(PROGRAM, b"CWCF".ljust(320, b"\0")), account(Pubkey.default(), bytes(170))],
    ],
)  # fmt: skip
def test_a_node_that_tells_something_else_is_not_believed(run, hub, file, answers):
    hub.put("POST", "/", *answers)
    asked = run("balance", "--rpc", hub.url, "--program", PROGRAM, "--wallet", file)
    assert refusal_of(asked, "commonwatt wallet") in ("node", "program_unknown")


def test_a_balance_is_asked_for_one_wallet(run, file):
    known = ("--rpc", "http://127.0.0.1:1", "--program", str(PROGRAM))
    assert refusal_of(run("balance", *known), "commonwatt wallet") == "no_wallet"
    assert refusal_of(run("balance", *known, "--address", "x"), "commonwatt wallet") == "address"
    assert refusal_of(run("balance", *known, "--wallet", file), "commonwatt wallet") == "node"
