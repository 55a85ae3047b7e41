"""What becomes of transactions that are sent, tried or only asked the fee of."""

from __future__ import annotations

import base64
import struct

import base58
import pytest
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from simulators.solana.errors import RpcError
from tests.simulators.solana.desk import (
    IN_BASE64,
    INVALID_PARAMS,
    MEMO,
    NOBODY,
    PROCESSED,
    Desk,
    wire_of,
)
from tests.simulators.solana.ledger_at_hand import FEE_LAMPORTS, SOL, pay

ED25519 = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")


@pytest.fixture
def desk(tmp_path):
    opened = Desk(tmp_path)
    yield opened
    opened.ledger.close()


def test_a_transaction_of_1232_bytes_lands_and_a_longer_one_is_refused(desk):
    ada = desk.rich()

    def memo_of(length):
        return desk.signed(Instruction(MEMO, b"x" * length, []), by=ada)

    spare = 1232 - len(bytes(memo_of(1000)))
    longest = memo_of(1000 + spare)
    assert len(bytes(longest)) == 1232
    assert desk.ask("sendTransaction", wire_of(longest), IN_BASE64) == str(longest.signatures[0])
    name = "solana_transaction::versioned::VersionedTransaction"
    assert desk.refused("sendTransaction", wire_of(memo_of(1001 + spare)), IN_BASE64) == (
        INVALID_PARAMS,
        f"decoded {name} too large: 1233 bytes (max: 1232 bytes)",
    )
    _, message = desk.refused("sendTransaction", wire_of(memo_of(1003 + spare)), IN_BASE64)
    assert message == f"base64 encoded {name} too large: 1648 bytes (max: encoded/raw 1644/1232)"
    in_base58 = base58.b58encode(bytes(memo_of(1003 + spare))).decode()
    _, message = desk.refused("sendTransaction", in_base58)
    assert message == f"base58 encoded {name} too large: {len(in_base58)} bytes (max: encoded/raw 1683/1232)"


def _preflight(desk, transaction, **options):
    with pytest.raises(RpcError) as refusal:
        desk.ask("sendTransaction", wire_of(transaction), {**IN_BASE64, **options})
    return refusal.value


def test_a_preflight_that_fails_says_why_and_lands_nothing(desk):
    ada = desk.rich()
    refusal = _preflight(desk, desk.signed(pay(ada, Keypair().pubkey(), 100 * SOL), by=ada))
    assert refusal.code == -32002
    assert refusal.message == (
        "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    )
    assert refusal.data["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert "insufficient lamports" in refusal.data["logs"][1]
    assert refusal.data["unitsConsumed"] == 150
    assert desk.lamports(ada.pubkey()) == 10 * SOL


def test_a_preflight_names_what_may_never_land(desk):
    ada, poor = desk.rich(), Keypair()
    payment = desk.signed(pay(ada, poor.pubkey(), SOL), by=ada)
    forged = VersionedTransaction.populate(payment.message, [poor.sign_message(b"other")])
    assert (_preflight(desk, forged).code, _preflight(desk, forged).message) == (
        -32003,
        "Transaction signature verification failure",
    )
    desk.send(payment)
    refusals = {
        "This transaction has already been processed": payment,
        "Blockhash not found": desk.signed(pay(ada, ada.pubkey(), 1), by=ada, blockhash=Hash.new_unique()),
        "Attempt to debit an account but found no record of a prior credit.": desk.signed(
            Instruction(MEMO, b"x", []), by=Keypair()
        ),
    }
    for words, transaction in refusals.items():
        assert _preflight(desk, transaction).message == f"Transaction simulation failed: {words}"


def test_a_preflight_is_made_at_its_commitment(desk):
    """As on a cluster: what finalized blocks do not know cannot be tried there."""
    ada = desk.rich()
    payment = desk.signed(pay(ada, Keypair().pubkey(), SOL), by=ada)
    assert _preflight(desk, payment, preflightCommitment="finalized").message.endswith("Blockhash not found")
    assert _preflight(desk, payment, preflightCommitment="confirmed").message.endswith("Blockhash not found")
    assert desk.ask("sendTransaction", wire_of(payment), IN_BASE64) == str(payment.signatures[0])


def test_without_a_preflight_a_signature_is_returned_whatever_becomes_of_it(desk):
    ada = desk.rich()
    old = desk.signed(pay(ada, Keypair().pubkey(), SOL), by=ada, blockhash=Hash.new_unique())
    answered = desk.ask("sendTransaction", wire_of(old), {**IN_BASE64, "skipPreflight": True})
    assert answered == str(old.signatures[0])
    assert desk.ask("getSignatureStatuses", [answered])["value"] == [None]


def test_a_simulation_shows_what_would_be_and_changes_nothing(desk):
    ada, otto = desk.rich(), Keypair().pubkey()
    payment = desk.signed(pay(ada, otto, SOL), by=ada)
    config = {**PROCESSED, "encoding": "base64", "accounts": {"encoding": "base64", "addresses": [str(otto)]}}
    value = desk.ask("simulateTransaction", wire_of(payment), {**config, "innerInstructions": True})["value"]
    assert (value["err"], value["unitsConsumed"], value["fee"]) == (None, 150, FEE_LAMPORTS)
    assert value["accounts"][0]["lamports"] == SOL
    assert (value["preBalances"][1], value["postBalances"][1]) == (0, SOL)
    assert value["innerInstructions"] == []
    assert desk.lamports(otto) == 0
    too_many = {**config, "accounts": {"addresses": [str(otto)] * 4}}
    assert desk.refused("simulateTransaction", wire_of(payment), too_many)[1] == "Too many accounts provided; max 3"
    in_base58 = {**config, "accounts": {"encoding": "base58", "addresses": []}}
    assert desk.refused("simulateTransaction", wire_of(payment), in_base58)[1] == "base58 encoding not supported"


def test_a_simulation_may_be_unsigned_and_of_any_age_if_that_is_wanted(desk):
    ada = desk.rich()
    old = desk.signed(pay(ada, Keypair().pubkey(), SOL), by=ada, blockhash=Hash.new_unique())
    unsigned = VersionedTransaction.populate(old.message, [Signature.default()])
    config = {**PROCESSED, "encoding": "base64"}
    value = desk.ask("simulateTransaction", wire_of(unsigned), config)["value"]
    assert (value["err"], value["replacementBlockhash"]) == ("BlockhashNotFound", None)
    value = desk.ask("simulateTransaction", wire_of(unsigned), {**config, "replaceRecentBlockhash": True})["value"]
    assert value["err"] is None
    assert value["replacementBlockhash"]["blockhash"] == str(desk.blockhash)
    both = {**config, "replaceRecentBlockhash": True, "sigVerify": True}
    assert desk.refused("simulateTransaction", wire_of(unsigned), both)[1] == (
        "sigVerify may not be used with replaceRecentBlockhash"
    )
    assert desk.refused("simulateTransaction", wire_of(unsigned), {**config, "sigVerify": True})[0] == -32003


def _ed25519(signer, text):
    header = bytes([1, 0]) + struct.pack("<7H", 48, 0xFFFF, 16, 0xFFFF, 112, len(text), 0xFFFF)
    return Instruction(ED25519, header + bytes(signer.pubkey()) + bytes(signer.sign_message(text)) + text, [])


def test_a_fee_counts_signatures_precompiles_and_priority(desk):
    ada, meter = desk.rich(), Keypair()
    budget = [set_compute_unit_limit(10_000), set_compute_unit_price(1_000_000)]
    instructions = [*budget, _ed25519(meter, b"a seal"), pay(ada, meter.pubkey(), SOL)]
    message = Message.new_with_blockhash(instructions, ada.pubkey(), desk.blockhash)
    encoded = base64.b64encode(bytes(message)).decode()
    fee = desk.ask("getFeeForMessage", encoded, PROCESSED)["value"]
    assert fee == 2 * FEE_LAMPORTS + 10_000
    desk.send(VersionedTransaction(message, [ada]))
    assert desk.lamports(ada.pubkey()) == 9 * SOL - fee
    stale = Message.new_with_blockhash(instructions, ada.pubkey(), Hash.new_unique())
    assert desk.ask("getFeeForMessage", base64.b64encode(bytes(stale)).decode(), PROCESSED)["value"] is None


def test_the_faucet_gives_each_time_and_can_be_off(desk):
    signatures = {desk.ask("requestAirdrop", NOBODY, SOL) for _ in range(3)}
    assert len(signatures) == 3
    assert desk.ask("getBalance", NOBODY, PROCESSED)["value"] == 3 * SOL
    desk.faucet = False
    assert desk.refused("requestAirdrop", NOBODY, SOL) == (-32600, "Invalid request")
