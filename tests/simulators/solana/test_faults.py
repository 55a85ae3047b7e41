"""Each fault of the cluster, as a client meets it; and that it ends when it should."""

from __future__ import annotations

import base64
import json
import time

import httpx
import pytest
import websockets.sync.client
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction
from websockets.exceptions import ConnectionClosed

from infra.local.processes import LaunchError
from infra.local.solana import SolanaSimulator
from simulators.solana.faults import FaultsInvalid, Switches, parse
from simulators.solana.storage import Storage
from tests.simulators.solana.ledger_at_hand import SOL, pay

SLOT_MS = 50
PROCESSED, CONFIRMED = {"commitment": "processed"}, {"commitment": "confirmed"}
TIMEOUT_S = 10


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with SolanaSimulator(tmp_path_factory.mktemp("faulty"), SLOT_MS, finalized_after_slots=4) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def ada(running):
    somebody = Keypair()
    running.fund(str(somebody.pubkey()), 1_000)
    return somebody


@pytest.fixture
def cluster(running):
    yield running
    running.fail()
    _until(lambda: _answers(running))


def _answers(cluster):
    try:
        return cluster.call("getHealth") == "ok"
    except (httpx.TransportError, LaunchError):
        return False


def _until(true):
    deadline_s = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline_s, "it did not come true"
        time.sleep(0.02)


def _blockhash(cluster):
    return cluster.call("getLatestBlockhash", CONFIRMED)["value"]


def _payment(cluster, ada, blockhash=None):
    recent = Hash.from_string(blockhash or _blockhash(cluster)["blockhash"])
    message = Message.new_with_blockhash([pay(ada, Keypair().pubkey(), SOL)], ada.pubkey(), recent)
    return VersionedTransaction(message, [ada])


def _send(cluster, transaction, **options):
    wire = base64.b64encode(bytes(transaction)).decode()
    settings = {"encoding": "base64", "preflightCommitment": "processed", **options}
    return cluster.call("sendTransaction", wire, settings)


def _status(cluster, transaction):
    [status] = cluster.call("getSignatureStatuses", [str(transaction.signatures[0])])["value"]
    return status


def test_a_dropped_transaction_is_answered_and_never_lands_until_it_is_sent_again(cluster, ada):
    cluster.fail(dropped_transactions=2)
    first, second, third = (_payment(cluster, ada) for _ in range(3))
    for transaction in (first, second, third):
        assert _send(cluster, transaction) == str(transaction.signatures[0])
    assert [_status(cluster, each) is not None for each in (first, second, third)] == [False, False, True]
    _send(cluster, first)
    assert _status(cluster, first) is not None


def test_a_lost_answer_comes_after_the_execution(cluster, ada):
    cluster.fail(lost_answers=1)
    transaction = _payment(cluster, ada)
    with pytest.raises(httpx.TransportError):
        _send(cluster, transaction)
    assert _status(cluster, transaction)["err"] is None
    with pytest.raises(LaunchError, match="already been processed"):
        _send(cluster, transaction)


def test_a_delayed_execution_comes_after_the_answer(cluster, ada):
    cluster.fail(execution_delay_s=0.5)
    transaction = _payment(cluster, ada)
    _send(cluster, transaction)
    assert _status(cluster, transaction) is None
    _until(lambda: _status(cluster, transaction) is not None)


def test_a_delayed_answer_takes_its_time(cluster):
    cluster.fail(answer_delay_s=0.4)
    began_s = time.monotonic()
    cluster.call("getSlot")
    assert time.monotonic() - began_s >= 0.4


def test_expired_blockhashes_land_nothing_and_the_height_says_so(cluster, ada):
    blockhash = _blockhash(cluster)
    transaction = _payment(cluster, ada, blockhash["blockhash"])
    cluster.fail(expired_blockhashes=True)
    with pytest.raises(LaunchError, match="Blockhash not found"):
        _send(cluster, transaction)
    assert _send(cluster, transaction, skipPreflight=True) == str(transaction.signatures[0])
    assert _status(cluster, transaction) is None
    assert cluster.call("getBlockHeight", PROCESSED) > blockhash["lastValidBlockHeight"]
    height = cluster.call("getBlockHeight", PROCESSED)
    later = _payment(cluster, ada)
    _send(cluster, later)
    assert _status(cluster, later)["err"] is None
    assert cluster.call("getBlockHeight", PROCESSED) < height + 150, "it happens once"


def test_a_node_that_lags_knows_neither_newer_slots_nor_what_landed_in_them(cluster, ada):
    transaction, address = _payment(cluster, ada), str(ada.pubkey())
    before = cluster.call("getBalance", address, PROCESSED)["value"]
    slot = cluster.call("getSlot", PROCESSED)
    _send(cluster, transaction)
    cluster.fail(lag_slots=40)
    assert cluster.call("getSlot", PROCESSED) < slot
    assert _status(cluster, transaction) is None
    assert cluster.call("getBalance", address, PROCESSED)["value"] >= before, (
        "what others paid lately is not known either"
    )
    with pytest.raises(LaunchError, match="behind by 40 slots"):
        cluster.call("getHealth")
    with pytest.raises(LaunchError, match="Minimum context slot"):
        cluster.call("getBalance", address, {**PROCESSED, "minContextSlot": slot})
    _until(lambda: _status(cluster, transaction) is not None)
    assert cluster.call("getBalance", address, PROCESSED)["value"] < before


def test_a_node_that_lags_tells_its_subscribers_late_and_in_order(cluster, ada):
    with websockets.sync.client.connect(cluster.url.replace("http", "ws"), open_timeout=TIMEOUT_S) as socket:
        socket.send('{"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"}')
        socket.recv(timeout=TIMEOUT_S)
        cluster.fail(lag_slots=10)
        _until(lambda: not _answers(cluster))
        behind = cluster.call("getSlot", PROCESSED) + 10
        told = [json.loads(socket.recv(timeout=TIMEOUT_S))["params"]["result"]["slot"] for _ in range(5)]
        assert told == sorted(told)
        assert cluster.call("getSlot", PROCESSED) + 10 > behind
        cluster.fail()
        _until(lambda: json.loads(socket.recv(timeout=TIMEOUT_S))["params"]["result"]["slot"] > behind)


def test_a_node_that_has_pruned_its_history_knows_nothing_older(cluster, ada):
    transaction = _payment(cluster, ada)
    signature = _send(cluster, transaction)
    slot = _status(cluster, transaction)["slot"]
    _until(lambda: cluster.call("getSlot") > slot + 8)
    cluster.fail(history_slots=5)
    assert cluster.call("getFirstAvailableBlock") > slot
    assert cluster.call("getTransaction", signature) is None
    statuses = cluster.call("getSignatureStatuses", [signature], {"searchTransactionHistory": True})
    assert statuses["value"] == [None]
    assert cluster.call("getSignaturesForAddress", str(ada.pubkey())) == []
    with pytest.raises(LaunchError, match="cleaned up"):
        cluster.call("getBlock", slot)
    with pytest.raises(LaunchError, match="already been processed"):
        _send(cluster, transaction)
    cluster.fail()
    assert cluster.call("getTransaction", signature)["slot"] == slot


def test_a_node_that_refuses_cuts_everybody_for_so_long(cluster):
    with websockets.sync.client.connect(cluster.url.replace("http", "ws"), open_timeout=TIMEOUT_S) as socket:
        cluster.fail(refused_s=1.0)
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(timeout=TIMEOUT_S)
    with pytest.raises(httpx.TransportError):
        cluster.call("getSlot")
    _until(lambda: _answers(cluster))


def test_a_node_that_lies_says_another_genesis(cluster):
    truth, lie = cluster.call("getGenesisHash"), str(Hash.new_unique())
    cluster.fail(genesis_hash=lie)
    assert cluster.call("getGenesisHash") == lie
    cluster.fail()
    assert cluster.call("getGenesisHash") == truth


def test_a_fault_ends_after_its_duration(cluster):
    cluster.fail(lag_slots=40, duration_s=0.5)
    assert not _answers(cluster)
    _until(lambda: _answers(cluster))


def test_a_file_that_is_no_fault_changes_nothing(cluster):
    cluster.fail(lag_slots=40)
    assert not _answers(cluster)
    cluster.fail(lag=40)
    assert not _answers(cluster)


def test_what_was_counted_is_counted_also_after_a_restart(tmp_path):
    """Else a cluster that is killed while it drops a transaction would drop one more than asked."""
    (tmp_path / "faults.json").write_text('{"dropped_transactions": 2, "refused_s": 10}')
    storage = Storage(tmp_path)
    before = Switches(tmp_path, storage, lambda: 0)
    assert before.drops_transaction()
    storage.close()
    storage = Storage(tmp_path)
    after = Switches(tmp_path, storage, lambda: 9_000)
    assert [after.drops_transaction() for _ in range(2)] == [True, False]
    assert after.refuses()
    assert not Switches(tmp_path, storage, lambda: 10_000).refuses()
    storage.close()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            '{"lag": 1}',
            '{"lag_slots": 501}',
            '{"lag_slots": "1"}',
            '{"lag_slots": true}',
            '{"lag_slots": -1}',
        ),
        *('{"expired_blockhashes": 1}', '{"answer_delay_s": "1"}', '{"genesis_hash": null}', '{"lag_slots": 1.5}'),
    ],
)
def test_a_fault_that_is_none_is_named(text):
    with pytest.raises(FaultsInvalid):
        parse(text)
