"""What methods answer about slots, blocks and what has landed."""

from __future__ import annotations

import base64

import base58
import pytest
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from tests.simulators.solana.desk import (
    CONFIRMED,
    MEMO,
    PROCESSED,
    Desk,
)
from tests.simulators.solana.ledger_at_hand import FEE_LAMPORTS, SOL, pay


@pytest.fixture
def desk(tmp_path):
    opened = Desk(tmp_path)
    yield opened
    opened.ledger.close()


def test_slots_heights_and_blockhashes_are_those_of_the_commitment(desk):
    slot = desk.ledger.slot
    assert [desk.ask("getSlot", {"commitment": each}) for each in ("processed", "confirmed", "finalized")] == [
        slot,
        slot - 1,
        slot - 32,
    ]
    assert desk.ask("getSlot") == slot - 32
    assert desk.ask("getBlockHeight", PROCESSED) == slot
    latest = desk.ask("getLatestBlockhash", CONFIRMED)
    assert latest["context"]["slot"] == slot - 1
    assert latest["value"]["lastValidBlockHeight"] == slot - 1 + 150
    assert desk.ask("isBlockhashValid", latest["value"]["blockhash"], CONFIRMED)["value"] is True
    assert desk.ask("isBlockhashValid", latest["value"]["blockhash"])["value"] is False, "finalized knows nothing of it"
    code, message = desk.refused("getSlot", {"minContextSlot": slot})
    assert (code, message) == (-32016, "Minimum context slot has not been reached")


def test_a_block_has_its_transactions_and_its_neighbour(desk):
    ada = desk.rich()
    slot = desk.ledger.slot
    landed = desk.do(pay(ada, Keypair().pubkey(), SOL), by=ada)
    assert desk.refused("getBlock", slot, CONFIRMED) == (-32004, f"Block not available for slot {slot}")
    desk.pass_slots(1)
    block = desk.ask("getBlock", slot, {**CONFIRMED, "maxSupportedTransactionVersion": 0})
    assert (block["blockHeight"], block["parentSlot"], block["rewards"]) == (slot, slot - 1, [])
    assert block["previousBlockhash"] == desk.ask("getBlock", slot - 1, CONFIRMED)["blockhash"]
    assert [each["transaction"]["signatures"][0] for each in block["transactions"]][1] == landed.signature
    short = desk.ask("getBlock", slot, {**CONFIRMED, "transactionDetails": "signatures", "rewards": False})
    assert short["signatures"][1] == landed.signature
    assert "rewards" not in short and "transactions" not in short
    only = desk.ask("getBlock", slot, {**CONFIRMED, "transactionDetails": "accounts"})["transactions"][1]
    assert only["transaction"]["accountKeys"][0] == {
        "pubkey": str(ada.pubkey()),
        "signer": True,
        "writable": True,
        "source": "transaction",
    }
    assert desk.ask("getBlockTime", slot) == desk.ledger.began_unix_ms(slot) // 1000
    assert desk.ask("getBlocks", slot - 1, slot + 9, CONFIRMED) == [slot - 1, slot]
    assert desk.ask("getBlocks", slot - 1, CONFIRMED) == [slot - 1, slot]
    assert desk.ask("getBlocksWithLimit", slot - 3, 2, CONFIRMED) == [slot - 3, slot - 2]


def test_pruned_history_is_not_there(desk):
    desk.pass_slots(100)
    desk.history_slots = 50
    first = desk.ledger.slot - 50
    assert desk.ask("getFirstAvailableBlock") == desk.ask("minimumLedgerSlot") == first
    message = f"Block {first - 1} cleaned up, does not exist on node. First available block: {first}"
    assert desk.refused("getBlock", first - 1) == desk.refused("getBlockTime", first - 1) == (-32001, message)


def test_statuses_say_how_far_each_has_got(desk):
    ada = desk.rich()
    failing = desk.do(pay(ada, Keypair().pubkey(), 100 * SOL), by=ada)

    def status(**config):
        return desk.ask("getSignatureStatuses", [failing.signature], config)["value"][0]

    assert (status()["confirmations"], status()["confirmationStatus"]) == (0, "processed")
    desk.pass_slots(3)
    err = {"InstructionError": [0, {"Custom": 1}]}
    assert status() == {
        "slot": failing.slot,
        "confirmations": 3,
        "err": err,
        "status": {"Err": err},
        "confirmationStatus": "confirmed",
    }
    desk.pass_slots(29)
    assert (status()["confirmations"], status()["confirmationStatus"]) == (None, "finalized")
    desk.pass_slots(300)
    assert status() is None, "a node forgets, unless it is to search"
    assert status(searchTransactionHistory=True)["slot"] == failing.slot


def test_signatures_of_an_address_are_paged_newest_first(desk):
    ada, otto = desk.rich(), Keypair().pubkey()
    signatures = []
    for number in range(5):
        signatures.insert(0, desk.do(pay(ada, otto, SOL + number), by=ada).signature)
        desk.pass_slots(1)

    def page(**config):
        found = desk.ask("getSignaturesForAddress", str(otto), {**CONFIRMED, **config})
        return [each["signature"] for each in found]

    assert page() == signatures
    assert page(limit=2) == signatures[:2]
    assert page(before=signatures[1]) == signatures[2:]
    assert page(until=signatures[3]) == signatures[:3]
    assert page(before=signatures[0], until=signatures[4], limit=2) == signatures[1:3]
    assert page(before=str(Signature.default())) == []
    assert page(until=str(Signature.default())) == signatures
    assert desk.ask("getSignaturesForAddress", str(otto)) == [], "nothing of it is finalized"
    desk.pass_slots(27)
    assert len(desk.ask("getSignaturesForAddress", str(otto))) == 1


def test_a_memo_is_shown_with_its_length(desk):
    ada = desk.rich()
    desk.do(Instruction(MEMO, "11 kWh für Otto".encode(), []), by=ada)
    desk.pass_slots(1)
    newest = desk.ask("getSignaturesForAddress", str(ada.pubkey()), CONFIRMED)[0]
    assert newest["memo"] == "[16] 11 kWh für Otto"
    assert newest["blockTime"] == desk.ledger.began_unix_ms(newest["slot"]) // 1000


@pytest.mark.parametrize("encoding", ["json", "jsonParsed", "base64", "base58"])
def test_a_transaction_is_shown_as_it_is_wanted(desk, encoding):
    ada, otto = desk.rich(), Keypair().pubkey()
    transaction = desk.signed(pay(ada, otto, SOL), by=ada)
    signature = desk.send(transaction).signature
    assert desk.ask("getTransaction", signature, CONFIRMED) is None
    desk.pass_slots(1)
    shown = desk.ask("getTransaction", signature, {**CONFIRMED, "encoding": encoding})
    assert shown["meta"]["fee"] == FEE_LAMPORTS
    assert shown["meta"]["postBalances"][1] == SOL
    assert "version" not in shown
    if encoding == "json":
        assert shown["transaction"]["message"]["accountKeys"][:2] == [str(ada.pubkey()), str(otto)]
    elif encoding == "jsonParsed":
        [instruction] = shown["transaction"]["message"]["instructions"]
        assert instruction["parsed"]["info"]["lamports"] == SOL
    else:
        decode = base64.b64decode if encoding == "base64" else base58.b58decode
        assert decode(shown["transaction"][0]) == bytes(transaction)
    versioned = desk.ask("getTransaction", signature, {**CONFIRMED, "maxSupportedTransactionVersion": 0})
    assert versioned["version"] == "legacy"


def test_a_version_that_the_client_does_not_know_is_not_shown(desk):
    ada = desk.rich()
    message = MessageV0.try_compile(ada.pubkey(), [pay(ada, ada.pubkey(), 1)], [], desk.blockhash)
    landed = desk.send(VersionedTransaction(message, [ada]))
    desk.pass_slots(1)
    code, said = desk.refused("getTransaction", landed.signature, CONFIRMED)
    assert code == -32015
    assert said.startswith("Transaction version (0) is not supported by the requesting client.")
    shown = desk.ask("getTransaction", landed.signature, {**CONFIRMED, "maxSupportedTransactionVersion": 0})
    assert shown["version"] == 0
