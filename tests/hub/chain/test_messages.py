"""No two business acts share a signature, and how long a transaction is is known before it is signed."""

from __future__ import annotations

from uuid import uuid4

from solders.keypair import Keypair
from solders.message import from_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from hub.chain import instructions
from hub.chain.addresses import Addresses
from hub.chain.instructions import Signed
from hub.chain.messages import (
    build_message,
    programs_of,
    reference_of,
    signers_of,
    transaction_bytes,
    transaction_of,
)

HUB, OTHER = Keypair.from_seed(b"h" * 32), Keypair.from_seed(b"o" * 32)
PAY = transfer(TransferParams(from_pubkey=HUB.pubkey(), to_pubkey=OTHER.pubkey(), lamports=1))
BLOCKHASH = b"B" * 32


def built(business_id, *steps, price=0):
    return build_message(HUB.pubkey(), steps, 10_000, price, BLOCKHASH, business_id)


def test_two_equal_payments_are_two_transactions():
    first, second = uuid4(), uuid4()
    assert built(first, PAY) != built(second, PAY)
    assert built(first, PAY) == built(first, PAY)


def test_what_carries_its_business_id_already_needs_no_reference():
    business_id = uuid4()
    at = Addresses(Pubkey.from_bytes(b"P" * 32))
    seal = Signed(b"K" * 32, b"m" * 124, b"s" * 64)
    message = built(business_id, *instructions.submit_reading(at, bytes(HUB.pubkey()), "roof", seal, business_id))
    assert business_id.bytes in message
    assert bytes(reference_of(business_id)) not in message
    assert bytes(reference_of(business_id)) in built(business_id, PAY)


def test_the_hub_pays_and_signs_first_and_the_length_is_known():
    business_id = uuid4()
    move = transfer(TransferParams(from_pubkey=OTHER.pubkey(), to_pubkey=HUB.pubkey(), lamports=1))
    message = built(business_id, PAY, move, price=7)
    assert signers_of(message) == (HUB.pubkey(), OTHER.pubkey())
    signatures = [bytes(key.sign_message(message)) for key in (HUB, OTHER)]
    wire = transaction_of(message, signatures)
    assert len(wire) == transaction_bytes(message)
    parsed = VersionedTransaction.from_bytes(wire)
    assert parsed.verify_with_results() == [True, True]
    assert bytes(parsed) == wire
    assert len(programs_of(message)) == len(from_bytes_versioned(message).instructions) == 4
