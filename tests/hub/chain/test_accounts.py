"""Accounts are decoded as the page lays them out, and whatever else comes is refused by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from hub.chain.accounts import (
    ConfigAccount,
    ConfigState,
    MeterAccount,
    MeterKeyAccount,
    MeterState,
    UserAccount,
    UserKind,
    decode_account,
)
from hub.chain.addresses import Addresses, meter_id_bytes
from hub.errors import ChainAccountMalformed

AT = Addresses(Pubkey.from_bytes(b"P" * 32))


def header(tag, state, kind, address, version=1):
    return tag + bytes([version, 254, state, kind]) + bytes(address)


def put(data, at, layout, *values):
    struct.pack_into(layout, data, at, *values)


def meter_bytes(address, meter_id="roof-1"):
    data = bytearray(header(b"CWME", 2, 1, address).ljust(320, b"\0"))
    data[40:168] = meter_id_bytes(meter_id) + b"O" * 32 + b"K" * 32 + b"G" * 32
    put(data, 168, "<IBxH", 3, 1, 2)
    put(data, 176, "<QI", 9_000, 10)
    put(
        data, 192, "<QqQQQQQQQQqQq", 41, 1_790_000_100, 11, 12, 13, 14, 15, 16, 17, 18, 1_789_999_999, 19, 1_789_990_000
    )
    return bytes(data)


def test_a_meter_is_read_as_the_page_lays_it_out():
    address = AT.meter("roof-1")
    assert decode_account(address, meter_bytes(address)) == MeterAccount(
        address=address,
        state=MeterState.SUSPENDED,
        kind=1,
        meter_id="roof-1",
        owner=b"O" * 32,
        key=b"K" * 32,
        grid_account=b"G" * 32,
        key_epoch=3,
        measurement=1,
        flags=2,
        capacity_w=9_000,
        register_step_wh=10,
        sequence=41,
        closed_until_unix_s=1_790_000_100,
        production_wh=11,
        consumption_wh=12,
        surplus_wh=13,
        settled_wh=14,
        written_off_production_wh=15,
        written_off_surplus_wh=16,
        base_production_wh=17,
        base_surplus_wh=18,
        registered_at_unix_s=1_789_999_999,
        high_production_wh=19,
        high_until_unix_s=1_789_990_000,
    )


def test_config_user_and_key_are_read_as_the_page_lays_them_out():
    config = bytearray(header(b"CWCF", 1, 9, AT.config()).ljust(320, b"\0"))
    config[40:208] = b"D" * 8 + b"A" * 32 + b"H" * 32 + b"I" * 32 + b"V" * 32 + b"M" * 32
    put(config, 208, "<QI", 1_000_000, 10_000)
    assert decode_account(AT.config(), bytes(config)) == ConfigAccount(
        AT.config(),
        ConfigState.RUNNING,
        9,
        b"D" * 8,
        b"A" * 32,
        b"H" * 32,
        b"I" * 32,
        b"V" * 32,
        b"M" * 32,
        1_000_000,
        10_000,
    )
    user = bytearray(header(b"CWUS", 1, 2, AT.user(b"W" * 32)).ljust(160, b"\0"))
    user[40:72] = b"W" * 32
    put(user, 72, "<qII", 1_790_000_000, 2, 3)
    assert decode_account(AT.user(b"W" * 32), bytes(user)) == UserAccount(
        AT.user(b"W" * 32), 1, UserKind.CONSUMER, b"W" * 32, 1_790_000_000, 2, 3
    )
    key = bytearray(header(b"CWMK", 1, 0, AT.meter_key(b"K" * 32)).ljust(128, b"\0"))
    key[40:104] = b"K" * 32 + b"m" * 32
    put(key, 104, "<I4xq", 2, 1_790_000_000)
    assert decode_account(AT.meter_key(b"K" * 32), bytes(key)) == MeterKeyAccount(
        AT.meter_key(b"K" * 32), b"K" * 32, b"m" * 32, 2, 1_790_000_000
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:39],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"CWUS" + data[4:],
        lambda data: b"XXXX" + data[4:],
        lambda data: data[:4] + b"\x02" + data[5:],
        lambda data: data[:6] + b"\x09" + data[7:],
        lambda data: data[:8] + b"\x01" * 32 + data[40:],
        lambda data: data[:40] + b"NOT A METER".ljust(32, b"\0") + data[72:],
    ],
)
def test_what_is_not_this_meter_is_refused(spoil):
    address = AT.meter("roof-1")
    with pytest.raises(ChainAccountMalformed):
        decode_account(address, spoil(meter_bytes(address)))


@given(st.binary(max_size=400), st.sampled_from([b"", b"CWCF", b"CWUS", b"CWME", b"CWMK"]))
def test_whatever_the_bytes_there_is_an_account_or_its_refusal(data, tag):
    address = AT.config()
    try:
        decode_account(address, header(tag, 1, 1, address) + data if tag else data)
    except ChainAccountMalformed:
        return


def test_a_real_meter_is_as_it_was_registered(cluster, new_wallet):
    from hub.signatures import SigningKey

    wallet, key = new_wallet(), SigningKey(b"a real meter's seed".ljust(32, b"."))
    cluster.register_user(wallet)
    cluster.register_meter("accounts-roof", key, wallet, capacity_w=5_000, surplus_wh=7, production_wh=9)
    meter = cluster.meter("accounts-roof")
    owner = bytes(wallet.pubkey())
    assert (meter.owner, meter.key, meter.capacity_w, meter.register_step_wh) == (owner, key.public_key, 5_000, 10)
    assert (meter.key_epoch, meter.sequence, meter.settled_wh, meter.base_production_wh) == (1, 0, 7, 9)
    assert meter.grid_account == bytes(cluster.addresses.grid_account(owner, cluster.grid_mint))
    user = cluster.ask(lambda node: node.find_account(cluster.addresses.user(owner)))
    assert decode_account(cluster.addresses.user(owner), user.data).meters == 1
    config = cluster.ask(lambda node: node.find_account(cluster.addresses.config()))
    decoded = decode_account(cluster.addresses.config(), config.data)
    assert (decoded.domain, decoded.grid_mint) == (cluster.domain, bytes(cluster.grid_mint))
    own = cluster.ask(lambda node: node.find_account(cluster.addresses.meter_key(key.public_key)))
    assert decode_account(cluster.addresses.meter_key(key.public_key), own.data).meter == bytes(meter.address)
