"""What becomes of energy that a meter signed, and of energy that does not count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.instruction import AccountMeta, Instruction

from tests.programs.energy import calls, layout
from tests.programs.energy.administration_refusals import HUB
from tests.programs.energy.community import (
    ADA,
    BASE_WH,
    BUSINESS_ID,
    OTTO,
    Device,
    must,
)
from tests.programs.energy.error_numbers import NAMES
from tests.programs.energy.layout import Event
from tests.programs.energy.ledger import (
    START_UNIX_S,
    keypair,
)
from tests.programs.energy.minting_refusals import A_QUARTER_WH
from tests.programs.energy.refusals import HONEST, NEXT_KEY, last_call
from tests.programs.energy.signing import INTERVAL_S, ed25519, sign
from tests.programs.energy.token_2022 import (
    TOKEN_2022,
    burn,
    create_token_account,
    mint_to,
    set_authority,
)

BATTERY = Device("ada-battery", ADA.owner, keypair("ada's battery"), layout.BATTERY)
KEYS = ("config", "user", "meter", "meter_key")


def refused(outcome) -> str:
    assert not outcome.accepted
    return NAMES[outcome.custom]


# -- energy


def test_what_a_meter_signed_becomes_grid_once(community):
    submitted = must(community.submit_once(ADA, 1_000, 200, 800))
    meter = community.read_meter(ADA.meter_id)
    assert submitted.events == [Event(calls.SUBMIT_READING, BUSINESS_ID, 0, meter.encode()).encode()]
    settled = must(community.settle_once(ADA))
    assert community.balance_units(ADA.owner) == community.supply_units() == 800 * 10**6
    meter = community.read_meter(ADA.meter_id)
    assert meter.settled_wh == BASE_WH[2] + 800
    assert settled.events == [Event(calls.SETTLE, BUSINESS_ID, 800 * 10**6, meter.encode()).encode()]
    again = must(community.settle_once(ADA))
    assert community.supply_units() == 800 * 10**6
    assert again.events == [Event(calls.SETTLE, BUSINESS_ID, 0, meter.encode()).encode()]


def test_two_ways_to_settle_are_one_way(community):
    """In one transaction, in two, twice, or late: the sum is the same."""
    signed = ed25519(community.sealed(ADA))
    must(community.send([signed, community.submit(ADA), community.settle(ADA), community.settle(ADA)]))
    for _ in range(3):
        must(community.submit_once(ADA))
    must(community.settle_once(ADA))
    assert community.supply_units() == 4 * 800 * 10**6


def test_skipping_seals_loses_nothing(community):
    must(community.submit_once(
        ADA, 5_000, 0, 5_000, sequence=9, previous_seal_hash=b"\1" * 32,
        closed_until_unix_s=START_UNIX_S - 5 * INTERVAL_S, sealed_at_unix_s=START_UNIX_S,
    ))  # fmt: skip
    must(community.settle_once(ADA))
    assert community.supply_units() == 5_000 * 10**6


def test_exactly_what_capacity_and_time_allow(community):
    must(community.submit_once(ADA, A_QUARTER_WH, 0, A_QUARTER_WH))


def test_netting_within_its_bounds(community):
    must(community.submit_once(ADA, 1_000, 200, 800))
    must(community.submit_once(ADA, 1_000, 200, 1_000))
    must(community.submit_once(ADA, 1_000, 3_000, 0))


def test_a_seal_may_be_300_seconds_ahead_of_the_chain(community):
    until_unix_s = community.read_meter(ADA.meter_id).closed_until_unix_s + INTERVAL_S
    community.ledger.set_time(until_unix_s - 300)
    must(community.submit_once(ADA))


def test_the_clock_may_jump_back_without_harm(community):
    must(community.submit_once(ADA))
    community.ledger.set_time(START_UNIX_S - 10**6)
    assert refused(community.submit_once(ADA)) == "from_the_future"
    must(community.settle_once(ADA))
    community.ledger.set_time(START_UNIX_S)
    must(community.submit_once(ADA))


@pytest.mark.parametrize("kind", [layout.BATTERY, layout.GRID_METER])
def test_batteries_and_grid_meters_are_metered_and_never_minted(community, kind):
    battery = replace(BATTERY, kind=kind)
    must(community.enrol(battery))
    must(community.submit_once(battery))
    must(community.settle_once(battery))
    assert community.supply_units() == 0
    assert community.read_meter(battery.meter_id).settled_wh == BASE_WH[2]


@pytest.mark.parametrize("state", [layout.SUSPENDED, layout.DEACTIVATED])
def test_what_a_meter_earned_is_its_owners_whatever_becomes_of_it(community, state):
    must(community.submit_once(ADA))
    gone = community.deactivate(ADA) if state == layout.DEACTIVATED else community.set_status(ADA, state)
    must(community.send([gone]))
    must(community.settle_once(ADA))
    assert community.balance_units(ADA.owner) == 800 * 10**6


def test_a_suspended_meter_may_work_again_and_take_a_new_key_meanwhile(community):
    must(community.send([community.set_status(ADA, layout.SUSPENDED)]))
    must(community.rotate_once(ADA, NEXT_KEY))
    renewed = replace(ADA, key=NEXT_KEY)
    assert refused(community.submit_once(renewed)) == "meter_not_active"
    must(community.send([community.set_status(ADA, layout.ACTIVE)]))
    must(community.submit_once(renewed))


def test_a_closed_token_account_keeps_nothing_from_its_owner(community):
    must(community.submit_once(ADA))
    account, owner = community.grid_account(ADA.owner), ADA.owner.pubkey()
    close = Instruction(
        TOKEN_2022, b"\x09",
        [AccountMeta(account, False, True), AccountMeta(owner, True, True), AccountMeta(owner, True, False)],
    )  # fmt: skip
    must(community.send([close]))
    assert not community.settle_once(ADA).accepted
    must(community.send([create_token_account(HUB.pubkey(), owner, community.mint)]))
    must(community.settle_once(ADA))
    assert community.balance_units(ADA.owner) == 800 * 10**6


@pytest.mark.parametrize("thief", ["hub", "authority", "ada"])
def test_nobody_mints_but_the_program(community, thief):
    account = community.grid_account(ADA.owner)
    key = keypair(thief).pubkey()
    assert not community.send([mint_to(community.mint, account, key, 1)]).accepted
    assert not community.send([set_authority(community.mint, key, 0, key)]).accepted
    assert not community.send([set_authority(community.mint, key, 1, key)]).accepted
    assert community.supply_units() == 0


def test_a_forged_signature_never_reaches_the_program(community):
    signed = community.sealed(ADA)
    for forged in (
        replace(signed, message=signed.message[:-1] + b"\0"),
        replace(signed, signature=signed.signature[:-1] + b"\0"),
        replace(signed, key=bytes(OTTO.key.pubkey())),
    ):
        outcome = community.send([ed25519(forged), community.submit(ADA)])
        assert (outcome.accepted, outcome.index) == (False, 0)


def test_a_signature_that_comes_after_the_call_is_none(community):
    outcome = community.send([community.submit(ADA), ed25519(community.sealed(ADA))])
    assert (refused(outcome), outcome.index) == ("signature_missing", 0)


def test_grid_that_its_owner_burns_is_gone_and_not_minted_again(community):
    must(community.submit_once(ADA))
    must(community.settle_once(ADA))
    must(community.send([burn(community.grid_account(ADA.owner), community.mint, ADA.owner.pubkey(), 300 * 10**6)]))
    must(community.settle_once(ADA))
    assert community.balance_units(ADA.owner) == community.supply_units() == 500 * 10**6


def test_if_one_meters_part_is_refused_no_meter_is_paid(community):
    """Ledger.send compares every account: Ada's part is undone with Otto's."""
    acts = [ed25519(community.sealed(ADA)), community.submit(ADA), community.settle(ADA)]
    outcome = community.send([*acts, community.submit(OTTO)])
    assert refused(outcome) == "signature_missing"
    assert community.supply_units() == 0


def test_further_accounts_are_ignored(community):
    for number, honest in HONEST.items():
        acts = honest(community)
        call = last_call(acts)
        longer = replace(
            call,
            metas=(
                *call.metas,
                *((f"more {n}", AccountMeta(keypair(f"more {n}").pubkey(), False, False)) for n in range(12)),
            ),
        )
        saved = community.ledger.save()
        assert community.send([*acts[:-1], longer]).accepted, number
        community.ledger.restore(saved)


# -- what does not count


def test_a_write_off_takes_away_and_the_rest_counts(community):
    signed = ed25519(community.sealed(ADA, 1_000, 200, 900))
    outcome = must(community.send([signed, community.write_off(ADA, 100, 150)]))
    meter = community.read_meter(ADA.meter_id)
    assert (meter.written_off_production_wh, meter.written_off_surplus_wh) == (100, 150)
    assert outcome.events == [Event(calls.WRITE_OFF, BUSINESS_ID, 0, meter.encode()).encode()]
    must(community.settle_once(ADA))
    assert community.supply_units() == 750 * 10**6


def test_an_implausible_leap_is_passed_by_writing_all_of_it_off(community):
    seal = community.seal(ADA, (10**9, 0, 10**9))
    signed = ed25519(sign(ADA.key, seal.encode()))
    assert refused(community.send([signed, community.submit(ADA)])) == "over_capacity"
    must(community.send([signed, community.write_off(ADA, 10**9, 10**9)]))
    must(community.settle_once(ADA))
    assert community.supply_units() == 0
    must(community.submit_once(ADA))
    must(community.settle_once(ADA))
    assert community.supply_units() == 800 * 10**6


def test_what_was_accepted_may_be_written_off_later_by_the_last_seal(community):
    signed = ed25519(community.sealed(ADA, 1_000, 200, 900))
    must(community.send([signed, community.submit(ADA)]))
    must(community.send([signed, community.write_off(ADA, 0, 400)]))
    must(community.settle_once(ADA))
    assert community.supply_units() == 500 * 10**6


def test_what_was_minted_before_it_was_written_off_is_earned_back(community):
    signed = ed25519(community.sealed(ADA, 1_000, 200, 900))
    must(community.send([signed, community.submit(ADA), community.settle(ADA)]))
    must(community.send([signed, community.write_off(ADA, 900, 900)]))
    must(community.submit_once(ADA, 1_000, 0, 1_000))
    must(community.settle_once(ADA))
    assert community.supply_units() == 1_000 * 10**6


def test_a_gap_credits_what_was_net_and_no_more(community):
    """An operator declared a gap lost: 1,000 of 1,000 produced is claimed, 800 is what its counters show."""
    signed = ed25519(community.sealed(ADA, 1_000, 200, 1_000, sequence=5, previous_seal_hash=b"\1" * 32))
    assert refused(community.send([signed, community.write_off(ADA, 0, 199)])) == "write_off_gives"
    must(community.send([signed, community.write_off(ADA, 0, 200)]))
    must(community.settle_once(ADA))
    assert community.supply_units() == 800 * 10**6


@pytest.mark.parametrize("state", [layout.SUSPENDED, layout.DEACTIVATED])
def test_writing_off_needs_no_active_meter_as_it_only_takes_away(community, state):
    signed = ed25519(community.sealed(ADA))
    gone = community.deactivate(ADA) if state == layout.DEACTIVATED else community.set_status(ADA, state)
    must(community.send([gone]))
    must(community.send([signed, community.write_off(ADA, 1_000, 800)]))


def test_what_a_stolen_key_said_is_taken_back_and_what_was_minted_for_it_earned_back(community):
    honest = community.read_meter(ADA.meter_id)
    for _ in range(3):
        must(community.submit_once(ADA, 2_000, 0, 2_000))
    must(community.settle_once(ADA))
    assert community.supply_units() == 6_000 * 10**6
    must(community.rotate_once(
        ADA, NEXT_KEY, ADA.owner, production_wh=honest.production_wh, consumption_wh=honest.consumption_wh,
        surplus_wh=honest.surplus_wh, valid_from_unix_s=honest.closed_until_unix_s,
    ))  # fmt: skip
    renewed = replace(ADA, key=NEXT_KEY)
    for _ in range(6):
        must(community.submit_once(renewed, 1_000, 0, 1_000))
        must(community.settle_once(renewed))
        assert community.supply_units() == 6_000 * 10**6
    must(community.submit_once(renewed, 1_000, 0, 1_000))
    must(community.settle_once(renewed))
    assert community.supply_units() == 7_000 * 10**6


def test_no_time_allows_production_twice(community):
    """The new key begins a day earlier with the old counters: that day was the old key's."""
    must(community.submit_once(ADA, A_QUARTER_WH, 0, A_QUARTER_WH))
    before = community.read_meter(ADA.meter_id)
    must(community.rotate_once(ADA, NEXT_KEY, valid_from_unix_s=before.closed_until_unix_s - 96 * INTERVAL_S))
    renewed = replace(ADA, key=NEXT_KEY)
    until_unix_s = before.closed_until_unix_s + INTERVAL_S
    changes = {"closed_until_unix_s": until_unix_s, "sealed_at_unix_s": until_unix_s}
    over = A_QUARTER_WH + 1
    assert refused(community.submit_once(renewed, over, 0, over, **changes)) == "over_capacity"
    must(community.submit_once(renewed, A_QUARTER_WH, 0, A_QUARTER_WH, **changes))


def test_a_leap_that_was_written_off_lifts_no_mark(community):
    leap = community.seal(ADA, (10**9, 0, 0))
    leap = replace(leap, consumption_wh=leap.consumption_wh + 10**9)
    must(community.send([ed25519(sign(ADA.key, leap.encode())), community.write_off(ADA, 10**9, 0)]))
    must(community.rotate_once(ADA, NEXT_KEY))
    assert community.read_meter(ADA.meter_id).high_production_wh == BASE_WH[0]


def test_all_that_a_meter_ever_counted_may_be_written_off(community):
    signed = ed25519(community.sealed(ADA, 1_000, 200, 800))
    must(community.send([signed, community.write_off(ADA, BASE_WH[0] + 1_000, BASE_WH[2] + 800)]))


def test_a_new_key_begins_with_the_counters_of_its_statement_and_the_mark_is_the_highest_of_all_keys(community):
    must(community.submit_once(ADA))
    reached = community.read_meter(ADA.meter_id)
    production_wh, consumption_wh, surplus_wh = BASE_WH
    start_unix_s = reached.closed_until_unix_s - 2 * INTERVAL_S
    must(community.rotate_once(
        ADA, NEXT_KEY, production_wh=production_wh, consumption_wh=consumption_wh, surplus_wh=surplus_wh,
        valid_from_unix_s=start_unix_s,
    ))  # fmt: skip
    lowered = community.read_meter(ADA.meter_id)
    assert (lowered.production_wh, lowered.consumption_wh, lowered.surplus_wh) == BASE_WH
    assert lowered.closed_until_unix_s == start_unix_s
    must(community.rotate_once(replace(ADA, key=NEXT_KEY), keypair("a third key")))
    third = community.read_meter(ADA.meter_id)
    assert third.high_production_wh == lowered.high_production_wh == reached.production_wh
    assert third.high_until_unix_s == lowered.high_until_unix_s == reached.closed_until_unix_s
