"""Comparing the accounts with the mirrors: what was missed is set right, and what nothing explains is an alarm."""

from __future__ import annotations

import itertools

import pytest
from solders.pubkey import Pubkey
from sqlalchemy import text

from hub import metrics
from hub.chain import inbox_store, instructions, mirrors
from hub.chain.accounts import MeterAccount, MeterState, decode_account
from hub.chain.addresses import Addresses
from hub.chain.mirrors import Mirror
from hub.chain.reconcile import (
    ACCOUNT_MISSING,
    BEHIND,
    MIRROR_DIFFERED,
    MISSED,
    changed_fields,
    decode_all,
    differing,
)
from hub.db import transaction
from hub.signatures import SigningKey
from tests.hub.chain.reading import Reader, utc_now
from tests.hub.chain.telling import PROGRAM, address_of, config_bytes, meter_bytes, user_bytes

AT = Addresses(PROGRAM)

_numbers = itertools.count(1)


@pytest.fixture
def reader(engine, cluster):
    return Reader(engine, cluster)


@pytest.fixture
def meter_id(cluster, new_wallet):
    wallet, number = new_wallet(), next(_numbers)
    cluster.register_user(wallet)
    cluster.register_meter(f"compared-{number}", SigningKey(b"\x31" + number.to_bytes(31, "big")), wallet)
    return f"compared-{number}"


def _repairs(reason: str) -> float:
    return float(metrics.CHAIN_MIRROR_REPAIRS.labels(reason)._value.get())


def _tamper(reader: Reader, meter_id: str, change: str) -> None:
    with transaction(reader.engine) as connection:
        connection.execute(text(f"UPDATE chain_meters SET {change} WHERE meter_id = :meter_id"), {"meter_id": meter_id})


def _decoded(data: bytes):
    return decode_account(Pubkey.from_bytes(data[8:40]), data)


# --- on a cluster ----------------------------------------------------------------------------------------------


def test_mirrors_that_are_true_are_left_alone(reader, meter_id):
    reader.read()
    reader.reconcile()
    missed = _repairs(MISSED)
    compared = reader.reconcile(catch_up_timeout_s=0.0)
    assert (compared.repaired, compared.missed) == (0, 0)
    assert compared.accounts == len(reader.mirrored())
    assert _repairs(MISSED) == missed
    assert reader.troubles == []


def test_a_mirror_that_nothing_explains_is_set_right_with_an_alarm(reader, meter_id):
    reader.read()
    reader.reconcile()
    _tamper(reader, meter_id, "settled_wh = 11000, owner = decode(repeat('55', 32), 'hex')")
    missed = _repairs(MISSED)
    reader.watch()
    compared = _reconcile_caught_up(reader)
    assert (compared.repaired, compared.missed) == (1, 1)
    [trouble] = reader.troubles
    assert trouble.kind == MIRROR_DIFFERED
    assert trouble.detail["accounts"] == [str(reader.cluster.addresses.meter(meter_id))]
    assert _repairs(MISSED) == missed + 1
    assert reader.mirrored() == reader.on_chain()


def test_what_is_only_not_processed_yet_is_no_alarm_and_its_event_is_still_acted_on(reader, cluster, meter_id):
    reader.read()
    reader.reconcile()
    hub = bytes(cluster.hub.pubkey())
    cluster.carry_out(instructions.set_meter_status(cluster.addresses, hub, meter_id, MeterState.SUSPENDED))
    behind = _repairs(BEHIND)
    compared = reader.reconcile()
    assert compared.repaired >= 1 and compared.missed == 0
    assert _repairs(BEHIND) > behind
    assert reader.mirrored() == reader.on_chain()
    reader.told.clear()
    reader.read()
    assert meter_id in [getattr(stored.event.account, "meter_id", "") for stored in reader.told]
    assert reader.mirrored() == reader.on_chain()
    assert reader.troubles == []


def test_an_account_that_vanished_from_the_chain_is_an_alarm_and_stays_known(reader, cluster, meter_id):
    reader.read()
    reader.reconcile()
    ghost = _decoded(meter_bytes("ghost"))
    with transaction(reader.engine) as connection:
        mirrors.show(connection, ghost, 1, 0, utc_now())
    reader.reconcile()
    [trouble] = reader.troubles
    assert (trouble.kind, trouble.detail["accounts"]) == (ACCOUNT_MISSING, [str(address_of("ghost"))])
    assert address_of("ghost") in reader.mirrored()


def test_a_node_that_is_behind_repairs_nothing_that_is_newer(reader, cluster, meter_id):
    reader.read()
    reader.reconcile()
    hub = bytes(cluster.hub.pubkey())
    cluster.carry_out(instructions.set_meter_status(cluster.addresses, hub, meter_id, MeterState.SUSPENDED))
    reader.read()
    with transaction(reader.engine) as connection:  # as another node, a million slots further, had told
        connection.execute(text("UPDATE chain_meters SET slot = slot + 1000000, sequence = 99"))
    assert reader.reconcile().repaired == 0
    with transaction(reader.engine) as connection:
        meter = mirrors.find_meter(connection, meter_id)
    assert meter is not None and meter.sequence == 99


def test_the_supply_of_grid_is_read_with_the_accounts(reader, cluster):
    reader.reconcile()
    with transaction(reader.engine) as connection:
        supply = mirrors.find_grid_supply(connection)
        config = mirrors.find_config(connection)
    assert supply is not None and supply.units == 0 and supply.slot > 0
    assert config is not None and config.domain == cluster.domain


def test_the_mirrors_of_an_empty_database_are_made_by_one_comparison(reader, meter_id):
    reader.reconcile()
    assert reader.mirrored() == reader.on_chain()
    assert meter_id in [getattr(each, "meter_id", "") for each in reader.mirrored().values()]
    assert reader.troubles == []


def _reconcile_caught_up(reader: Reader):
    """A comparison of an inbox that has everything: as when the watcher goes on beside it."""
    with transaction(reader.engine) as connection:
        inbox_store.mark_seen_through(connection, reader.cursor().seen_through_slot + 10_000, utc_now())
    return reader.reconcile()


# --- decisions -------------------------------------------------------------------------------------------------


def _bytes_by_address(*accounts: bytes) -> dict[Pubkey, bytes]:
    return {Pubkey.from_bytes(data[8:40]): data for data in accounts}


def test_what_is_no_account_of_the_program_is_named_and_the_others_are_read():
    strange = Pubkey.from_bytes(b"\x66" * 32)
    good = _bytes_by_address(meter_bytes(), user_bytes(), config_bytes())
    found = decode_all(9, good | {strange: b"CWME" + bytes(316)}, AT)
    assert found.malformed == (strange,)
    assert found.accounts.keys() == good.keys()


def test_an_account_that_does_not_lie_where_it_must_is_none():
    elsewhere = b"\x66" * 32
    moved = config_bytes()[:8] + elsewhere + config_bytes()[40:]
    found = decode_all(9, _bytes_by_address(config_bytes(), moved), AT)
    assert found.malformed == (Pubkey.from_bytes(elsewhere),)
    assert list(found.accounts) == [AT.config()]


@pytest.mark.parametrize(
    ("slot", "surplus_wh", "differs"),
    [(8, 1, True), (9, 1, True), (10, 1, False), (8, 9_000, False), (10, 9_000, False)],
)
def test_a_mirror_differs_if_it_says_something_else_and_nothing_later(slot, surplus_wh, differs):
    found = decode_all(9, _bytes_by_address(meter_bytes("roof", surplus_wh=9_000)), AT)
    account = _decoded(meter_bytes("roof", surplus_wh=surplus_wh))
    assert isinstance(account, MeterAccount)
    known = {account.address: Mirror(account, slot, 0)}
    assert bool(differing(found, known)) is differs
    assert len(differing(found, {})) == 1


def test_the_log_names_the_fields_that_differ():
    before, after = _decoded(meter_bytes(settled_wh=1, sequence=2)), _decoded(meter_bytes(settled_wh=3, sequence=4))
    assert isinstance(before, MeterAccount) and isinstance(after, MeterAccount)
    assert changed_fields(before, after) == ["sequence", "settled_wh"]
    assert changed_fields(before, before) == []
