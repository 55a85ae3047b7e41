"""Mints and token accounts are read strictly; GRID's name is in its mint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from hub.chain.token_2022 import (
    GRID_ACCOUNT_BYTES,
    Mint,
    TokenAccount,
    TokenName,
    decode_mint,
    decode_token_account,
    mint_bytes_with_name,
)
from hub.errors import ChainAccountMalformed

ADDRESS = Pubkey.from_bytes(b"A" * 32)
ACCOUNT = b"M" * 32 + b"O" * 32 + (5).to_bytes(8, "little") + bytes(36) + b"\1" + bytes(56)
MINT = b"\1\0\0\0" + b"Z" * 32 + (7).to_bytes(8, "little") + b"\x09\1" + bytes(36)


def test_a_token_account_has_its_owner_and_amount():
    assert decode_token_account(ADDRESS, ACCOUNT) == TokenAccount(b"M" * 32, b"O" * 32, 5, False)
    assert decode_token_account(ADDRESS, ACCOUNT + b"\2\7\0\0\0").amount_units == 5


def test_a_mint_has_its_authorities_and_extensions():
    assert decode_mint(ADDRESS, MINT) == Mint(b"Z" * 32, 7, 9, None, ())
    extended = MINT.ljust(165, b"\0") + b"\1" + b"\x12\0\x02\0xx" + b"\x13\0\x01\0y"
    assert decode_mint(ADDRESS, extended).extensions == (18, 19)


@pytest.mark.parametrize(
    "data", [b"", ACCOUNT[:-1], ACCOUNT[:108] + b"\0" + ACCOUNT[109:], ACCOUNT + b"\1", MINT.ljust(170, b"\0")]
)
def test_what_is_no_token_account_is_refused(data):
    with pytest.raises(ChainAccountMalformed):
        decode_token_account(ADDRESS, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ACCOUNT,
        MINT[:45] + b"\0" + MINT[46:],
        MINT.ljust(165, b"\0") + b"\2" + bytes(8),
        MINT.ljust(165, b"\0") + b"\1" + b"\x12\0\xff\0x",
    ],
)
def test_what_is_no_mint_is_refused(data):
    with pytest.raises(ChainAccountMalformed):
        decode_mint(ADDRESS, data)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_they_are_read_or_refused(data):
    for decode in (decode_mint, decode_token_account):
        try:
            decode(ADDRESS, data)
        except ChainAccountMalformed:
            continue


def test_rent_is_for_what_lies_on_the_chain_in_the_end(cluster, new_wallet):
    mint = cluster.ask(lambda node: node.find_account(cluster.grid_mint))
    name = TokenName("GRID", "GRID", "https://community.example/grid.json")
    assert len(mint.data) == mint_bytes_with_name(name)
    wallet = new_wallet()
    cluster.register_user(wallet)
    at = cluster.addresses.grid_account(bytes(wallet.pubkey()), cluster.grid_mint)
    assert len(cluster.ask(lambda node: node.find_account(at)).data) == GRID_ACCOUNT_BYTES
