"""What a node would take for a transaction is recognised, judged beside Solana's own reader."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.pubkey import Pubkey

from hub.auth.transaction_message import reads_as_transaction

PAYER = Keypair.from_seed(b"p" * 32).pubkey()


def solana_reads(content: bytes) -> bool:
    """Whether Solana's own code reads a message of either form."""
    for read in (Message.from_bytes, MessageV0.from_bytes, from_bytes_versioned):
        with contextlib.suppress(ValueError):
            read(content)
            return True
    return False


def message(chance: random.Random, versioned: bool) -> bytes:
    """A transaction's message with some accounts and some instructions."""
    accounts = [
        AccountMeta(Pubkey(chance.randbytes(32)), chance.random() < 0.3, chance.random() < 0.5)
        for _ in range(chance.randrange(12))
    ]
    instructions = [
        Instruction(
            Pubkey(chance.randbytes(32)), chance.randbytes(chance.randrange(300)), accounts[: chance.randrange(13)]
        )
        for _ in range(chance.randrange(5))
    ]
    blockhash = Hash(chance.randbytes(32))
    if versioned:
        return to_bytes_versioned(MessageV0.try_compile(PAYER, instructions, [], blockhash))
    return bytes(Message.new_with_blockhash(instructions, PAYER, blockhash))


@pytest.mark.parametrize("versioned", [False, True])
def test_every_message_of_a_transaction_is_recognised_also_with_bytes_behind_it(versioned):
    chance = random.Random(7)
    for _ in range(200):
        content = message(chance, versioned)
        assert solana_reads(content)
        assert reads_as_transaction(content)
        assert reads_as_transaction(content + chance.randbytes(20))


def test_whatever_solana_reads_we_recognise():
    chance = random.Random(8)
    read = refused = 0
    for _ in range(3_000):
        content = bytearray(message(chance, versioned=False))
        for _ in range(chance.randrange(4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        content = content[: chance.randrange(len(content) + 1)] if chance.random() < 0.5 else content
        if solana_reads(bytes(content)):
            read += 1
            assert reads_as_transaction(bytes(content))
        elif not reads_as_transaction(bytes(content)):
            refused += 1
    assert read > 500
    assert refused > 500


@given(st.binary(max_size=400))
def test_of_any_bytes_too(content):
    assert reads_as_transaction(content) or not solana_reads(content)


def test_a_message_that_is_cut_short_is_none():
    content = message(random.Random(9), versioned=False)
    assert reads_as_transaction(content)
    assert not any(reads_as_transaction(content[:length]) for length in range(len(content)))


@pytest.mark.parametrize("version", [0x80, 0x81, 0xFF])
def test_every_version_that_may_come_counts(version):
    assert reads_as_transaction(bytes([version]))
    assert reads_as_transaction(bytes([version]) + b"solana offchain")


def test_plain_text_is_none():
    assert not reads_as_transaction(b"")
    assert not reads_as_transaction(b"hub.example wants you to sign in")
