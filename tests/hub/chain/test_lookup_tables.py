"""Meters find their way into address lookup tables, by intents, and a table is used only once it can be."""

from __future__ import annotations

import itertools

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from hub.chain import lookup_tables_store as store
from hub.chain import mirrors
from hub.chain.accounts import decode_account
from hub.chain.intents import Ended
from hub.chain.lookup_tables import (
    ADDRESSES_PER_INTENT_MAX,
    ADDRESSES_PER_TABLE_MAX,
    CREATE_KIND,
    EXTEND_KIND,
    TABLES_WRITTEN_MAX,
    common_addresses,
    load_tables,
    lookup_table_reactions,
    plan_tables_once,
    tables_for,
)
from hub.db import transaction
from hub.errors import ChainLags
from tests.hub.chain.cluster import utc_now
from tests.hub.chain.driving import Driver
from tests.hub.chain.telling import address_of, meter_bytes

HUB = Keypair.from_seed(b"h" * 32).pubkey()
COMMON = tuple(Pubkey.from_bytes(bytes([number]) * 32) for number in range(1, 5))


def pairs(first, count):
    numbers = range(1_000 + 2 * first, 1_000 + 2 * (first + count))
    return [Pubkey.from_bytes(number.to_bytes(32, "big")) for number in numbers]


def plan(engine, wanted, slot=500):
    with transaction(engine) as connection:
        return plan_tables_once(connection, HUB, COMMON, wanted, slot, utc_now())


def open_intents(engine):
    with transaction(engine) as connection:
        rows = connection.exec_driver_sql(
            "SELECT intent_id, kind, subject FROM chain_intents WHERE ended_at IS NULL ORDER BY created_at, intent_id"
        )
        return [tuple(row) for row in rows]


def end(engine, outcome="finalized", slot=600):
    """As the sender does when they end."""
    with transaction(engine) as connection:
        for intent_id, kind, subject in open_intents(engine):
            code = None if outcome == "finalized" else "failed"
            ended = Ended(intent_id, kind, subject, {}, outcome, "s", slot, code, "")
            lookup_table_reactions()[kind](connection, ended, utc_now())
            connection.exec_driver_sql(
                "UPDATE chain_intents SET ended_at = now(), state = 'failed', error_code = 'test' WHERE intent_id = %s",
                (intent_id,),
            )


def held(engine, wanted):
    with transaction(engine) as connection:
        return tables_for(connection, wanted)


def test_a_new_table_begins_with_what_every_mint_names(engine):
    wanted = pairs(0, 3)
    assert plan(engine, wanted) == 3
    assert [kind for _, kind, _ in open_intents(engine)] == [CREATE_KIND]
    assert held(engine, wanted) == (), "it is not there yet"
    end(engine)
    [table] = held(engine, wanted)
    with transaction(engine) as connection:
        [loaded] = load_tables(connection, [table], 601)
        assert list(loaded.addresses) == [*COMMON, *wanted]
        with pytest.raises(ChainLags):
            load_tables(connection, [table], 600)
        with pytest.raises(ChainLags):
            load_tables(connection, [HUB], 601)


def test_nobody_is_placed_twice_while_a_table_is_being_made(engine):
    assert plan(engine, pairs(0, 3)) == 3
    assert plan(engine, pairs(0, 3), 501) == 0
    assert len(open_intents(engine)) == 1


def test_a_table_with_room_is_made_longer_by_one_intent_at_a_time(engine):
    plan(engine, pairs(0, 3))
    end(engine)
    assert plan(engine, pairs(0, 40), 700) == 10 + (ADDRESSES_PER_INTENT_MAX - len(COMMON)) // 2
    assert sorted(kind for _, kind, _ in open_intents(engine)) == [CREATE_KIND, EXTEND_KIND]
    end(engine, slot=710)
    assert held(engine, pairs(3, 10)) == held(engine, pairs(0, 3))


def test_tables_fill_up_and_no_table_has_more_than_it_can(engine):
    wanted = pairs(0, 300)
    for turn in range(30):
        if not plan(engine, wanted, 1_000 + turn):
            break
        assert len(open_intents(engine)) <= TABLES_WRITTEN_MAX
        end(engine, slot=1_000 + turn)
    with transaction(engine) as connection:
        fillings = store.list_fillings(connection)
        assert store.find_placed(connection, wanted) == set(wanted)
    assert all(each.usable <= ADDRESSES_PER_TABLE_MAX and not each.pending for each in fillings)
    assert sum(each.usable for each in fillings) == len(wanted) + len(COMMON) * len(fillings)


def test_the_meters_of_one_owner_share_an_account_and_a_table_has_it_once(engine):
    grid, *meters = pairs(0, 3)[:5]
    wanted = [address for meter in meters for address in (meter, grid)]
    assert plan(engine, wanted[:4]) == 2
    end(engine)
    assert plan(engine, wanted, 700) == 2
    end(engine, slot=710)
    [table] = held(engine, wanted)
    with transaction(engine) as connection:
        [loaded] = load_tables(connection, [table], 711)
    assert list(loaded.addresses) == [*COMMON, meters[0], grid, *meters[1:]]
    assert plan(engine, wanted, 800) == 0


def test_what_failed_to_be_written_is_planned_again(engine):
    plan(engine, pairs(0, 3))
    end(engine, "failed")
    with transaction(engine) as connection:
        assert store.list_fillings(connection) == []
    assert plan(engine, pairs(0, 3), 501) == 3
    end(engine)
    plan(engine, pairs(0, 5), 600)
    end(engine, "failed")
    [table] = held(engine, pairs(0, 3))
    assert plan(engine, pairs(0, 5), 700) == 2
    end(engine, slot=710)
    assert held(engine, pairs(3, 2)) == (table,)


def test_a_table_that_saves_nothing_is_not_named(engine):
    plan(engine, pairs(0, 3))
    end(engine)
    assert held(engine, pairs(0, 1)[:1]) == ()
    assert len(held(engine, [*COMMON, *pairs(7, 1)])) == 1
    assert held(engine, pairs(7, 4)) == ()


def test_on_a_real_chain_a_table_is_made_made_longer_and_used(cluster, engine):
    driver = Driver(cluster, engine)
    assert driver.check()
    hub = cluster.hub.pubkey()
    common = common_addresses(cluster.addresses, cluster.grid_mint)
    wanted = [Keypair().pubkey() for _ in range(12)]
    driver.reactions |= lookup_table_reactions()
    for first in (4, 12):
        slot = cluster.ask(lambda node: node.finalized()).slot
        with transaction(engine) as connection:
            assert plan_tables_once(connection, hub, common, wanted[:first], slot, driver.now()) > 0
        [(intent_id, _, _)] = open_intents(engine)
        driver.finish(intent_id)
    [table] = held(engine, wanted)
    account = cluster.ask(lambda node: node.find_account(table))
    on_chain = [Pubkey.from_bytes(account.data[at : at + 32]) for at in range(56, len(account.data), 32)]
    assert on_chain == [*common, *wanted]
    pay = [transfer(TransferParams(from_pubkey=hub, to_pubkey=each, lamports=5_000_000)) for each in wanted]
    short = driver.finish(driver.plan(*pay, lookup_tables=(table,)))
    long = driver.finish(driver.plan(*pay))
    assert len(long.newest.message) - len(short.newest.message) == len(wanted) * (32 - 1) - 34
    assert [driver.lamports(each) for each in wanted[::11]] == [10_000_000] * 2


def test_a_community_may_have_more_meters_than_a_statement_has_room_for_parameters(engine):
    wanted = pairs(0, 35_000)
    plan(engine, wanted[:6])
    with transaction(engine) as connection:
        assert store.find_placed(connection, wanted) == set(wanted[:6])


def test_only_meters_that_can_mint_and_are_in_no_table_are_looked_for(engine):
    owners = itertools.count()
    grid = {}

    def show(meter_id, **fields):
        grid[meter_id] = fields.setdefault("grid_account", bytes([100 + next(owners)]) * 32)
        account = decode_account(address_of(meter_id), meter_bytes(meter_id, **fields))
        with transaction(engine) as connection:
            mirrors.show(connection, account, 1, 0, utc_now())

    def unplaced(limit=10):
        with transaction(engine) as connection:
            return store.list_unplaced(connection, [1, 2], limit)

    show("roof")
    show("mill", kind=2)
    show("battery", kind=3)
    show("gone", state=3)
    show("stopped", state=2)
    expected = [address for name in ("mill", "roof") for address in (address_of(name), Pubkey(grid[name]))]
    assert unplaced() == expected
    assert unplaced(1) == expected[:2]
    assert plan(engine, expected) == 2
    assert unplaced() == []
    show("shed", grid_account=grid["roof"])
    assert unplaced() == [address_of("shed"), Pubkey(grid["roof"])]
