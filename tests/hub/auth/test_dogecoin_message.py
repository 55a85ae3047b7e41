"""The hub takes what Dogecoin Core's verifymessage takes, in one form only."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hub.auth.addresses import hash_of_key, parse_dogecoin_address
from hub.auth.dogecoin_message import ORDER, hash_of_message, verify
from tests.hub.auth.siws.wallet_standard import running_judge

VECTORS = json.loads(Path(__file__).with_name("dogecoin_messages.json").read_text())
KEYS = st.integers(1, ORDER - 1).map(lambda number: PrivateKey(number.to_bytes(32)))


def message_of(case: dict[str, Any]) -> bytes:
    message = case["message"]
    if isinstance(message, str):
        return bytes.fromhex(message)
    return (message["repeated"].encode() * message["length"])[: message["length"]]


def sign(key: PrivateKey, message: bytes, compressed: bool) -> bytes:
    """What `signmessage` gives, with the arithmetic that Dogecoin Core uses."""
    signature = key.sign_recoverable(hash_of_message(message), hasher=None)
    return bytes([27 + 4 * compressed + signature[64]]) + signature[:64]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_a_message_signed_elsewhere_is_judged_as_the_vector_says(case):
    message = message_of(case)
    assert hash_of_message(message).hex() == case["hash"]
    key_hash = parse_dogecoin_address(case["address"])
    assert verify(key_hash, message, base64.b64decode(case["signature"])) == case["valid"]


@given(KEYS, st.binary(max_size=600), st.booleans())
def test_an_address_is_the_one_that_signed(key, message, compressed):
    signature = sign(key, message, compressed)
    assert verify(hash_of_key(key.public_key.format(compressed)), message, signature)
    assert not verify(hash_of_key(key.public_key.format(not compressed)), message, signature)


@given(KEYS, st.integers(0, 65 * 8 - 1))
def test_a_signature_of_which_a_bit_was_changed_is_none(key, bit):
    signature = bytearray(sign(key, b"much energy", True))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(hash_of_key(key.public_key.format()), b"much energy", bytes(signature))


@given(st.binary(max_size=80), st.binary(min_size=20, max_size=20))
def test_any_other_bytes_are_no_signature(signature, key_hash):
    assert not verify(key_hash, b"much energy", signature)


def test_other_arithmetic_comes_to_the_same_key():
    keys = [PrivateKey(number.to_bytes(32)) for number in range(1, 101)]
    messages = [b"energy %d" % number for number in range(100)]
    signatures = [sign(key, message, True) for key, message in zip(keys, messages, strict=True)]
    questions = [
        {
            "hash": base64.b64encode(hash_of_message(message)).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
        for message, signature in zip(messages, signatures, strict=True)
    ]
    with running_judge() as judge:
        answers = judge.ask("recover", questions)
    assert [answer["key_hash"] for answer in answers] == [hash_of_key(key.public_key.format()).hex() for key in keys]


def test_second_forms_that_dogecoin_core_takes_are_refused():
    names = ["the larger s", "header below", "header of a witness address"]
    cases = [case for case in VECTORS if case["name"] in names]
    questions = [
        {"hash": base64.b64encode(bytes.fromhex(case["hash"])).decode(), "signature": case["signature"]}
        for case in cases
    ]
    with running_judge() as judge:
        answers = judge.ask("recover", questions)
    for case, answer in zip(cases, answers, strict=True):
        key_hash = parse_dogecoin_address(case["address"])
        assert answer["key_hash"] == key_hash.hex()
        assert not verify(key_hash, message_of(case), base64.b64decode(case["signature"]))
    assert len(cases) == len(names)
