"""From stored seals to GRID, on a real database, against a program that is written from its page."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
from sqlalchemy import text

from hub.audit.store import list_links
from hub.chain.intents import Ended
from hub.db import transaction
from hub.errors import GapAlreadyLost, GapNotFound, MintingNotHeld, QuarantineNotReleasable
from hub.minting import service
from hub.minting.queries import list_tokens
from hub.minting.reactions import react_to_mint
from hub.readings import queries
from hub.registry.service import Capacity, register_meter, retire_meter, set_minting_allowed, suspend_meter
from simulators.sealing import START_SURPLUS_WH, seeded_key
from tests.hub.minting.chain_model import UNITS_PER_WH, by_owner
from tests.hub.minting.conftest import sunny, surplus_of
from tests.hub.minting.thieves import went_on_from
from tests.hub.readings.conftest import POLICY, START
from tests.hub.readings.test_key_life import revoke, rotate


def earned_wh(meter):
    return meter.expected().surplus_wh - START_SURPLUS_WH


def test_what_was_sealed_is_minted_once_and_to_the_watt_hour(house, home):
    house.take(*home.messages(8))
    house.mint_all()
    assert house.chain.minted_wh() == earned_wh(home) > 0
    assert house.mint(3) == 0
    assert house.chain.transactions == 1
    owner = bytes(home.owner_key.verify_key)
    assert by_owner(house.chain.balances, owner) == earned_wh(home) * UNITS_PER_WH
    assert house.balance(home.meter_id).minted_wh == earned_wh(home)
    with transaction(house.engine) as connection:
        [line] = list_tokens(connection, [owner])
    assert (line.minted_wh, line.mints) == (earned_wh(home), 1)


def test_seals_in_any_order_come_to_the_same(house, home):
    messages = home.messages(9)
    for number in (4, 8, 0, 3, 1, 7, 2, 6, 5):
        house.take(messages[number])
        house.mint()
        house.balance(home.meter_id)
    house.mint_all()
    assert house.chain.minted_wh() == earned_wh(home)
    assert house.chain.refusals == []


def test_seals_and_readings_tell_by_which_transaction_they_were_minted(house, home):
    house.take(*home.messages(2))
    house.mint_all()
    house.take(*home.messages(1))
    with transaction(house.engine) as connection:
        seals = queries.list_seals(connection, 1, (0, 0), 10)
        stretches = queries.list_presented(connection, 1, 0, 2**40)
    assert [seal.minted for seal in seals] == [True, True, False]
    assert seals[0].transaction_signature == seals[1].transaction_signature is not None
    assert seals[2].transaction_signature is None
    assert [stretch[2] for stretch in stretches] == [seals[0].transaction_signature]


def test_operators_hear_of_a_mint_that_nobody_knows_the_end_of_and_it_is_still_minted_once(house, home):
    house.take(*home.messages(3))
    house.plan()
    with transaction(house.engine) as connection:
        [(intent_id, subject)] = connection.execute(text("SELECT intent_id, subject FROM chain_intents")).all()
        unknown = Ended(intent_id, "mint", subject, {}, "unknown", "5sig", None, "chain_silent", "the node is silent")
        react_to_mint(connection, unknown, house.now)
        alarms = connection.execute(text("SELECT kind, detail FROM alarms")).all()
    assert [(each.kind, each.detail["intent_id"]) for each in alarms] == [("transaction_unknown", str(intent_id))]
    assert house.why(home.meter_id) == "in_flight", "nothing else is presented in its place"
    house.mint_all()
    assert house.chain.minted_wh() == earned_wh(home)


def test_a_missing_seal_stops_minting_behind_it_until_it_comes(house, home):
    messages = home.messages(6)
    house.take(*messages[:2], *messages[3:])
    house.mint_all()
    assert house.why(home.meter_id) == "gap"
    balance = house.balance(home.meter_id)
    assert balance.held_wh == earned_wh(home) - balance.minted_wh
    house.take(messages[2])
    house.mint_all()
    assert house.balance(home.meter_id).minted_wh == earned_wh(home)


def test_across_a_lost_gap_only_what_must_be_surplus_is_credited(house, home):
    messages = home.messages(10)
    house.take(*messages[:2], *messages[6:])
    house.mint_all()
    before = house.chain.meter(home.meter_id)
    assert house.declare_lost(home.meter_id, 3) == 6
    house.mint_all()
    [row] = house.rows("SELECT surplus_wh, minted_wh, written_off_wh FROM mints WHERE step = 'write_off'")
    [seal] = house.rows("SELECT production_wh, consumption_wh FROM seals WHERE sequence = 7")
    certain_wh = max(0, seal[0] - before.production_wh - (seal[1] - before.consumption_wh))
    assert row[1] == min(row[0], certain_wh)
    balance = house.balance(home.meter_id)
    assert (balance.held_wh, balance.pending_wh) == (0, 0)
    assert house.chain.minted_wh() == balance.minted_wh == earned_wh(home) - balance.written_off_wh
    assert house.chain.refusals == []


def test_what_comes_late_of_a_lost_gap_is_kept_and_never_counts(house, home):
    messages = home.messages(5)
    house.take(*messages[:1], *messages[3:])
    house.declare_lost(home.meter_id, 2)
    house.mint_all()
    minted_wh = house.chain.minted_wh()
    house.take(*messages[1:3])
    [first, second] = house.entries("declared_lost")
    for entry in (first, second):
        with pytest.raises(QuarantineNotReleasable, match="minting has gone across"):
            house.release(entry)
    house.mint_all()
    assert house.chain.minted_wh() == minted_wh
    house.balance(home.meter_id)
    with transaction(house.engine) as connection:
        seals = queries.list_seals(connection, 1, (0, 0), 10)
    assert [seal.minted for seal in seals] == [True, False, False, True, True]
    house.reject(first)
    house.take(*home.messages(1))
    house.mint_all()
    house.balance(home.meter_id)
    assert house.why(home.meter_id) == "nothing_new"


def test_what_comes_late_counts_if_it_is_released_before_minting_goes_across(house, home):
    messages = home.messages(5)
    house.take(*messages[:1], *messages[2:])
    house.declare_lost(home.meter_id, 2)
    house.take(messages[1])
    [entry] = house.entries("declared_lost")
    house.release(entry)
    house.mint_all()
    assert house.chain.minted_wh() == earned_wh(home)


def test_only_a_gap_can_be_declared_lost_and_once(house, home):
    messages = home.messages(3)
    house.take(messages[0], messages[2])
    with pytest.raises(GapNotFound):
        house.declare_lost(home.meter_id, 3)
    house.declare_lost(home.meter_id, 2)
    with pytest.raises(GapAlreadyLost):
        house.declare_lost(home.meter_id, 2)
    with transaction(house.engine) as connection:
        told = [json.loads(link.entry)["action"] for link in list_links(connection, 1, 100, 100)]
    assert told.count("gap.declare_lost") == 1


def with_a_leap(house, home):
    """Two good seals, one that leaps by a megawatt-hour, three more."""
    messages = home.messages(2)
    home.leap(1_000_000)
    messages += home.messages(4)
    house.take(*messages)
    return messages


def test_a_held_seal_stops_minting_and_a_rejected_one_is_written_off(house, home):
    messages = with_a_leap(house, home)
    house.mint_all()
    assert house.why(home.meter_id) == "held_seal"
    [entry] = house.entries("over_capacity")
    house.reject(entry)
    house.mint_all()
    assert house.chain.refusals == []
    own = surplus_of(messages)
    balance = house.balance(home.meter_id)
    assert balance.written_off_wh >= 900_000
    assert balance.minted_wh <= earned_wh(home) - own[1]
    assert (balance.held_wh, balance.pending_wh) == (0, 0)
    assert house.chain.meter(home.meter_id).sequence == 6


def test_what_rejected_readings_claim_behind_their_last_interval_is_not_minted_with_the_next_seal(house):
    [meter] = sunny(readings_per_seal=10)  # seals end within their intervals
    house.join(meter)
    messages = meter.messages(3)
    meter.leap(1_000)  # within what the chain lets pass in an hour, not what the hub does in a minute
    messages += meter.messages(6)
    house.take(*messages)
    [entry] = house.entries("over_capacity")
    house.reject(entry)
    house.mint_all()
    balance = house.balance(meter.meter_id)
    assert house.chain.refusals == []
    assert balance.minted_wh <= earned_wh(meter) - 1_000
    assert balance.written_off_wh >= 1_000


def test_rotation_goes_along_and_nothing_is_minted_twice(house, home):
    house.take(*home.messages(3))
    rotate(house, home)
    house.take(*home.messages(3))
    house.mint_all()
    rotate(house, home, seeded_key("third"))
    house.take(*home.messages(2))
    house.mint_all()
    assert house.chain.meter(home.meter_id).key_epoch == 3
    assert house.chain.minted_wh() == earned_wh(home)
    assert house.chain.refusals == []
    house.balance(home.meter_id)


def test_what_was_minted_for_a_thief_is_earned_back_before_anything_new(house, home):
    honest = home.messages(4)
    house.take(*honest)
    house.mint_all()
    before_wh = house.chain.minted_wh()
    sealed_at = home.start_unix_s + home.readings * home.interval_s
    netting_before = home.expected()
    house.take(*home.messages(4))
    house.mint_all()
    stolen_wh = house.chain.minted_wh() - before_wh
    assert stolen_wh > 0
    revoke(house, home, 1, sealed_at + 1)
    assert house.balance(home.meter_id).over_minted_wh == 0  # nobody has said yet where the meter went on
    home.sequence = 4
    honest_again = went_on_from(house, home, netting_before)
    house.take(*honest_again.messages(2))
    house.mint()
    assert house.balance(home.meter_id).over_minted_wh == stolen_wh - house.balance(home.meter_id).earned_back_wh
    house.take(*honest_again.messages(30))
    house.mint_all()
    balance = house.balance(home.meter_id)
    assert balance.taken_back_wh == stolen_wh
    since_wh = balance.accepted_wh - before_wh
    assert balance.earned_back_wh == min(stolen_wh, since_wh)
    assert house.chain.minted_wh() == max(before_wh + stolen_wh, balance.accepted_wh)


def test_several_meters_share_a_transaction_and_one_bad_one_does_not_stop_the_others(house):
    meters = sunny(6, seed=7)
    house.join(*meters)
    house.make_table(*meters)
    for meter in meters:
        house.take(*meter.messages(1))
    house.mint_all()  # the first mint also makes its owner's account, which takes room
    for meter in meters:
        house.take(*meter.messages(3))
    bad = meters[1].meter_id
    house.chain.broken[bad] = "over_capacity"
    house.mint_all()
    assert max(house.chain.sizes) == 3
    assert house.why(bad) == "held"
    missing_wh = house.balance(bad).held_wh
    assert missing_wh > 0
    assert house.chain.minted_wh() == sum(earned_wh(meter) for meter in meters) - missing_wh
    assert house.value("SELECT count(*) FROM alarms WHERE kind = 'minting_held'") == 1
    refusals = len(house.chain.refusals)
    house.mint(3)
    assert len(house.chain.refusals) == refusals, "a held meter is not tried again"
    del house.chain.broken[bad]
    with transaction(house.engine) as connection:
        service.retry(connection, bad, "looked at it", "operator", house.now)
        with pytest.raises(MintingNotHeld):
            service.retry(connection, bad, "again", "operator", house.now)
    house.mint_all()
    assert house.chain.minted_wh() == sum(earned_wh(meter) for meter in meters)


def test_two_planners_at_once_plan_each_meter_once(house):
    meters = sunny(8, seed=3)
    house.join(*meters)
    for meter in meters:
        house.take(*meter.messages(2))
    planned, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: planned.append(house.plan())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(planned) == len(meters)
    assert house.value("SELECT count(DISTINCT meter_no) FROM mints") == len(meters)
    house.chain.work(house.now)
    assert house.chain.minted_wh() == sum(earned_wh(meter) for meter in meters)


def test_while_the_mirror_is_behind_nothing_is_planned(house, home):
    house.take(*home.messages(2))
    house.plan()
    assert house.why(home.meter_id) == "in_flight"
    house.chain.work(house.now, mirrored=False)
    house.take(*home.messages(2))
    assert house.why(home.meter_id) == "mirror_behind"
    assert house.plan() == 0
    house.chain.tell(house.now)
    house.mint_all()
    assert house.chain.minted_wh() == earned_wh(home)


def test_a_coarse_register_mints_only_when_an_operator_allows_it(house):
    [meter] = sunny(seed=5)
    with transaction(house.engine) as connection:
        register_meter(
            connection, meter.enrolment(), Capacity(10_000, 20_000, 100), POLICY.domain, 10**8, "test", house.now
        )
    house.chain.register(meter.meter_id, house.now)
    house.take(*meter.messages(3))
    assert house.mint() == 0
    step = house.step(meter.meter_id)
    assert (step.reason, "100 Wh" in step.detail) == ("minting_not_allowed", True)
    assert house.balance(meter.meter_id).held_wh == earned_wh(meter)
    with transaction(house.engine) as connection:
        set_minting_allowed(connection, meter.meter_id, True, "its netting was checked", "operator", house.now)
    house.mint_all()
    assert house.chain.minted_wh() == earned_wh(meter)


def test_a_suspended_meter_waits_and_a_retired_one_gets_what_it_had_earned(house):
    suspended, retired = sunny(2, seed=9)
    house.join(suspended, retired)
    house.take(*suspended.messages(2), *retired.messages(2))
    with transaction(house.engine) as connection:
        suspend_meter(connection, suspended.meter_id, "opened", "operator", house.now)
        retire_meter(connection, retired.meter_id, "gone", "operator", house.now)
    house.mint_all()
    assert house.why(suspended.meter_id) == "meter_suspended"
    assert house.chain.minted_wh() == earned_wh(retired)


def test_a_meter_that_is_not_on_the_chain_is_told_so(house):
    [meter] = sunny(seed=4)
    house.register(meter)
    house.take(*meter.messages(2))
    assert house.why(meter.meter_id) == "not_on_chain"
    assert house.balance(meter.meter_id).held_wh == earned_wh(meter)


def test_what_the_program_would_refuse_is_not_sent(house):
    [meter] = sunny(seed=4)
    house.register(meter)
    house.chain.register(meter.meter_id, house.now, capacity_w=1, step_wh=1)
    house.take(*meter.messages(4))
    assert house.mint(2) == 0
    assert house.why(meter.meter_id) == "over_capacity"
    assert house.chain.refusals == []


def test_a_day_ends_at_midnight(house, home):
    house.take(*home.messages(12))
    house.mint_all()
    days = house.by_day(home.meter_id)
    assert len(days) == 2
    assert sum(day.minted_wh for day in days.values()) == earned_wh(home)
    [start, _] = sorted(days)
    midnight_unix_s = int((START + timedelta(hours=2)).timestamp())
    until_then = "SELECT max(surplus_wh) FROM seals WHERE closed_until_unix_s <= :until"
    assert days[start].minted_wh == house.value(until_then, until=midnight_unix_s) - START_SURPLUS_WH
