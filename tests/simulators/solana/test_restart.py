"""SIGKILL at any point loses nothing that was acknowledged and lets nothing happen twice."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction

from infra.local.solana import SolanaSimulator
from tests.simulators.solana.ledger_at_hand import FEE_LAMPORTS, SOL, pay

ROOT = Path(__file__).parents[3]
PAYMENTS = 30
KILLS = 2


def test_a_ledger_killed_between_any_two_writes_has_a_payment_wholly_or_not_at_all(tmp_path):
    lines = subprocess.run(
        [sys.executable, "-m", "tests.simulators.solana.dying", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    ).stdout.splitlines()
    deaths = [json.loads(line) for line in lines]
    assert not deaths[-1]["killed"], "the last one lived through all statements"
    assert len(deaths) > 15
    for death in deaths:
        first, second = death["landed"]
        assert death["lamports"] == first * SOL + second * (SOL + 1), death
        assert death["after_sending_again"] == 2 * SOL + 1, death
    landed = {tuple(death["landed"]) for death in deaths}
    assert landed == {(False, False), (True, False), (True, True)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with SolanaSimulator(tmp_path_factory.mktemp("killed"), slot_ms=50, finalized_after_slots=4) as running:
        yield running


def _payment(cluster, ada, to, lamports):
    blockhash = Hash.from_string(cluster.call("getLatestBlockhash", {"commitment": "confirmed"})["value"]["blockhash"])
    message = Message.new_with_blockhash([pay(ada, to, lamports)], ada.pubkey(), blockhash)
    return VersionedTransaction(message, [ada])


def _send(cluster, transaction):
    wire = base64.b64encode(bytes(transaction)).decode()
    return cluster.call("sendTransaction", wire, {"encoding": "base64", "skipPreflight": True})


def test_a_cluster_killed_under_payments_has_each_that_it_answered_once(cluster):
    """Killed at random moments, also between executing and answering; what was not answered is sent again, the same."""
    random_moments = random.Random(5)
    ada, otto = Keypair(), Keypair().pubkey()
    cluster.fund(str(ada.pubkey()), 1_000)
    killed_before = set(random_moments.sample(range(PAYMENTS), KILLS))
    answered, sent = set(), []
    for number in range(PAYMENTS):
        transaction = _payment(cluster, ada, otto, SOL + number)
        sent.append(transaction)
        if number in killed_before:
            cluster.fail(lost_answers=1)
            with pytest.raises(httpx.TransportError):
                _send(cluster, transaction)
            cluster.kill()
            cluster.fail()
            cluster.start()
        else:
            answered.add(_send(cluster, transaction))
    signatures = [str(each.signatures[0]) for each in sent]
    # asked to search, for on a busy machine the first are older by now than what a node has at hand
    statuses = cluster.call("getSignatureStatuses", signatures, {"searchTransactionHistory": True})["value"]
    assert len(answered) == PAYMENTS - KILLS
    assert all(status is not None and status["err"] is None for status in statuses)
    for transaction in sent:
        _send(cluster, transaction)
    assert _balance(cluster, otto) == sum(SOL + number for number in range(PAYMENTS))
    assert _balance(cluster, ada.pubkey()) == 1_000 * SOL - _balance(cluster, otto) - PAYMENTS * FEE_LAMPORTS
    assert len(cluster.call("getSignaturesForAddress", str(otto), {"commitment": "confirmed"})) == PAYMENTS


def _balance(cluster, address):
    return cluster.call("getBalance", str(address), {"commitment": "processed"})["value"]


def test_a_restarted_cluster_is_the_same_cluster_and_its_slots_go_on(cluster):
    genesis, slot = cluster.call("getGenesisHash"), cluster.call("getSlot", {"commitment": "processed"})
    old = cluster.call("getLatestBlockhash", {"commitment": "confirmed"})["value"]["blockhash"]
    cluster.kill()
    cluster.start()
    assert cluster.call("getGenesisHash") == genesis
    assert cluster.call("getSlot", {"commitment": "processed"}) > slot
    assert cluster.call("isBlockhashValid", old, {"commitment": "processed"})["value"] is True


def test_two_processes_do_not_serve_one_ledger(cluster):
    command = [sys.executable, "-m", "commonwatt", "simulate", "solana", "--directory", str(cluster.ledger)]
    refused = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert b"in use" in refused.stderr
