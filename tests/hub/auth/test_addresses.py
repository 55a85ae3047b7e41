"""An address has one spelling, and belongs to a key that can sign."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_add

from hub.auth.addresses import check_address, hash_of_key, parse_dogecoin_address, parse_solana_address
from hub.errors import AddressInvalid
from hub.signatures import SigningKey

KEY = SigningKey(b"w" * 32).public_key
ADDRESS = base58.b58encode(KEY).decode()
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order 8."""

DOGECOIN_ADDRESS = "DAi1FPRWa1ELPKu9Zk8iY5jedQaFu76LaB"
DOGECOIN_KEY = bytes.fromhex("038ca001746cf33c3ee60af0afffc077c0a02d61832fc8a4888fb0b34785550179")
"""A key and its address as the Dogecoin library of the Fractal Engine writes it."""


@given(st.binary(min_size=32, max_size=32))
def test_a_wallet_is_known_by_the_base58_text_of_its_key(seed):
    key = SigningKey(seed).public_key
    assert parse_solana_address(base58.b58encode(key).decode()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        f" {ADDRESS}",
        f"{ADDRESS} ",
        f"{ADDRESS}\n",
        f"1{ADDRESS}",
        ADDRESS[:-1],
        ADDRESS.replace(ADDRESS[5], "0"),
        ADDRESS.replace(ADDRESS[5], "\u0430"),
        ADDRESS.lower(),
        base58.b58encode(KEY[:31]).decode(),
        base58.b58encode(KEY + b"\x01").decode(),
        KEY.hex(),
        "1" * 32,
        "1" * 1_000_000,
        DOGECOIN_ADDRESS,
    ],
)
def test_another_spelling_or_another_length_is_no_solana_address(text):
    with pytest.raises(AddressInvalid):
        parse_solana_address(text)


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        TORSION,
        b"\x02" + bytes(31),
        b"\xff" * 32,
        crypto_core_ed25519_add(KEY, TORSION),
    ],
)
def test_what_is_no_key_of_a_wallet_has_no_address(key):
    with pytest.raises(AddressInvalid):
        parse_solana_address(base58.b58encode(key).decode())


def test_a_dogecoin_address_holds_the_hash_of_its_key():
    assert parse_dogecoin_address(DOGECOIN_ADDRESS) == hash_of_key(DOGECOIN_KEY)


@given(st.binary(min_size=20, max_size=20))
def test_every_hash_of_a_key_has_an_address_that_begins_with_d(key_hash):
    text = base58.b58encode_check(b"\x1e" + key_hash).decode()
    assert text[0] == "D"
    assert parse_dogecoin_address(text) == key_hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        "D",
        f"{DOGECOIN_ADDRESS} ",
        f"\t{DOGECOIN_ADDRESS}",
        DOGECOIN_ADDRESS[:-1] + "C",
        DOGECOIN_ADDRESS.upper(),
        "1" + DOGECOIN_ADDRESS,
        ADDRESS,
        base58.b58encode_check(b"\x16" + bytes(20)).decode(),  # of a script
        base58.b58encode_check(b"\x71" + bytes(20)).decode(),  # of the test network
        base58.b58encode_check(b"\x00" + bytes(20)).decode(),  # of Bitcoin
        base58.b58encode_check(b"\x1e" + bytes(19)).decode(),
        base58.b58encode_check(b"\x1e" + bytes(21)).decode(),
        base58.b58encode_check(b"").decode(),
    ],
)
def test_another_spelling_network_or_kind_is_no_dogecoin_address(text):
    with pytest.raises(AddressInvalid):
        parse_dogecoin_address(text)


@given(st.text(max_size=60))
def test_any_other_text_is_refused_by_name(text):
    for chain in ("solana", "dogecoin"):
        with pytest.raises(AddressInvalid):
            check_address(chain, text)


def test_only_a_solana_address_is_a_key():
    assert check_address("solana", ADDRESS) == KEY
    assert check_address("dogecoin", DOGECOIN_ADDRESS) is None
