"""The mirror of an account shows the latest that was heard of it, in whatever order one hears."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from solders.pubkey import Pubkey

from hub.chain import mirrors, mirrors_store
from hub.chain.accounts import ConfigAccount, MeterAccount, MeterState, UserAccount, decode_account
from hub.db import transaction
from tests.hub.chain.telling import MINT, OWNER, address_of, config_bytes, meter_bytes, user_bytes

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _account(data):
    account = decode_account(Pubkey.from_bytes(data[8:40]), data)
    assert isinstance(account, (MeterAccount, UserAccount, ConfigAccount))
    return account


def _meter(**changes):
    return _account(meter_bytes("roof", **changes))


def _show(engine, account, slot, position=0):
    with transaction(engine) as connection:
        return mirrors.show(connection, account, slot, position, NOON)


def _found(engine):
    with transaction(engine) as connection:
        return mirrors.find_meter(connection, "roof")


@pytest.mark.parametrize("data", [meter_bytes(), user_bytes(), config_bytes()], ids=["meter", "user", "config"])
def test_an_account_comes_back_from_its_mirror_as_it_went_in(engine, data):
    account = _account(data)
    assert _show(engine, account, 5)
    with transaction(engine) as connection:
        assert mirrors.find_before(connection, account) == mirrors.Mirror(account, 5, 0)


def test_counters_that_no_bigint_holds_are_mirrored_to_the_last_bit(engine):
    most = 2**64 - 1
    meter = _meter(surplus_wh=most, capacity_w=most, sequence=most, settled_wh=most - 1)
    _show(engine, meter, 5)
    assert _found(engine) == meter


def test_an_owners_meters_are_found_by_wallet_and_by_id_and_nobody_elses(engine):
    for meter_id, owner in (("roof", OWNER), ("barn", OWNER), ("mill", b"\x55" * 32)):
        _show(engine, _account(meter_bytes(meter_id, owner=owner)), 5)
    _show(engine, _account(user_bytes()), 5)
    _show(engine, _account(config_bytes()), 5)
    with transaction(engine) as connection:
        assert [meter.meter_id for meter in mirrors.list_meters_of(connection, OWNER)] == ["barn", "roof"]
        found = mirrors.find_meter(connection, "mill")
        assert found is not None and (found.address, found.owner) == (address_of("mill"), b"\x55" * 32)
        user = mirrors.find_user(connection, OWNER)
        assert user is not None and user.wallet == OWNER
        config = mirrors.find_config(connection)
        assert config is not None and config.grid_mint == MINT
        assert mirrors.find_meter(connection, "nowhere") is None
        assert mirrors.find_user(connection, b"\x55" * 32) is None


def test_before_anything_was_heard_nothing_is_known(engine):
    with transaction(engine) as connection:
        assert mirrors.find_config(connection) is None
        assert mirrors.find_grid_supply(connection) is None
        assert mirrors.all_mirrors(connection) == {}


def test_in_whatever_order_one_hears_of_a_meter_the_latest_stays(engine):
    told = [(7, 0, 1_000), (7, 1, 2_000), (8, 0, 3_000), (9, 4, 4_000)]
    for order in itertools.permutations(told):
        with transaction(engine) as connection:
            connection.execute(mirrors_store.chain_meters.delete())
        shown = [_show(engine, _meter(surplus_wh=wh), slot, position) for slot, position, wh in order]
        assert _found(engine) == _meter(surplus_wh=4_000), order
        assert shown == [place == max(order[: number + 1]) for number, place in enumerate(order)]


def test_hearing_the_same_again_changes_nothing_and_shows_it(engine):
    assert _show(engine, _meter(), 7)
    assert _show(engine, _meter(), 7)
    assert _found(engine) == _meter()


def test_the_last_of_several_events_of_a_transaction_counts(engine):
    _show(engine, _meter(settled_wh=0), 7, 3)
    _show(engine, _meter(settled_wh=9_000), 7, 3)
    found = _found(engine)
    assert found is not None and found.settled_wh == 9_000


def test_a_suspended_meter_is_shown_suspended(engine):
    _show(engine, _meter(state=2), 7)
    found = _found(engine)
    assert found is not None and found.state is MeterState.SUSPENDED


def test_the_supply_is_the_latest_that_was_read_also_if_holders_burned_some(engine):
    _show(engine, _account(config_bytes()), 5)
    for units, slot in ((2**64 - 1, 7), (11_000_000_000, 9), (12_000_000_000, 8)):
        with transaction(engine) as connection:
            mirrors_store.write_supply(connection, MINT, units, slot, NOON)
    with transaction(engine) as connection:
        supply = mirrors.find_grid_supply(connection)
    assert supply is not None and (supply.units, supply.slot) == (11_000_000_000, 9)


def test_all_that_the_program_has_is_known_by_its_address(engine):
    accounts = [_account(data) for data in (meter_bytes("roof"), meter_bytes("barn"), user_bytes(), config_bytes())]
    for account in accounts:
        _show(engine, account, 5)
    with transaction(engine) as connection:
        known = mirrors.all_mirrors(connection)
    assert {address: mirror.account for address, mirror in known.items()} == {each.address: each for each in accounts}
