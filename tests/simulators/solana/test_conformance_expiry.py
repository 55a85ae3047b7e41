"""A blockhash lapses after 150 slots; then, and only then, each client says that a lost transaction has expired."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.core import RPCException, TransactionExpiredBlockheightExceededError
from solana.rpc.models import TxOpts

from tests.simulators.solana.conformance.clients import running_cluster, told
from tests.simulators.solana.conformance.python import funded, memo, signed

SLOT_MS = 20  # 150 slots are three seconds
FINALIZED_AFTER_SLOTS = 8
NOT_FOUND = "Blockhash not found"


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """What both JavaScript clients say, who wait at the same time."""
    directory = tmp_path_factory.mktemp("hasty")
    with running_cluster(directory, SLOT_MS, FINALIZED_AFTER_SLOTS) as cluster, ThreadPoolExecutor() as pool:
        web3 = pool.submit(told, "web3.mjs", "expiry", cluster)
        kit = pool.submit(told, "kit.mjs", "expiry", cluster)
        python = pool.submit(asyncio.run, _expiry(cluster.url))
        yield {"web3.js": web3.result(), "kit": kit.result(), "solana-py": python.result()}


async def _expiry(url):
    async with AsyncClient(url, commitment=Confirmed) as client:
        payer = await funded(client)
        transaction, latest = await signed(client, payer, memo("too late"))
        height = latest.last_valid_block_height
        with pytest.raises(TransactionExpiredBlockheightExceededError):
            await client.confirm_transaction(transaction.signatures[0], Confirmed, 0.1, height)
        passed = (await client.get_block_height()).value > height
        with pytest.raises(RPCException) as refusal:
            await client.send_transaction(transaction, TxOpts(preflight_commitment=Confirmed))
        statuses = await client.get_signature_statuses([transaction.signatures[0]], search_transaction_history=True)
        return {"passed": passed, "sent_too_late": str(refusal.value), "landed": statuses.value[0]}


def test_web3_js_says_that_the_block_height_was_exceeded(heard):
    web3 = heard["web3.js"]
    assert web3["lost"]["type"] == "TransactionExpiredBlockheightExceededError"
    assert web3["height_passed"] is True
    assert web3["sent_too_late"]["type"] == "SendTransactionError"
    assert NOT_FOUND in web3["sent_too_late"]["message"]
    assert web3["sent_too_late_unchecked"] is True
    assert web3["landed"] is None
    assert web3["blockhash_valid"] is False


def test_kit_says_that_the_block_height_was_exceeded(heard):
    kit = heard["kit"]
    assert kit["lost"]["name"] == "SOLANA_ERROR__BLOCK_HEIGHT_EXCEEDED"
    assert kit["sent_too_late"]["cause"] == "SOLANA_ERROR__TRANSACTION_ERROR__BLOCKHASH_NOT_FOUND"
    assert kit["landed"] is None


def test_solana_py_says_that_the_block_height_was_exceeded(heard):
    python = heard["solana-py"]
    assert python["passed"] is True
    assert NOT_FOUND in python["sent_too_late"] or "BlockhashNotFound" in python["sent_too_late"]
    assert python["landed"] is None
