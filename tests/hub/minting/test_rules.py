"""What is presented next: every barrier, every refusal, by tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from hub.chain.accounts import MeterAccount, MeterState
from hub.minting.days import split_by_day
from hub.minting.rules import (
    Line,
    NextKey,
    Nothing,
    Present,
    Rotate,
    Run,
    RunKind,
    Standing,
    next_step,
    runs_of,
    standing_refusal,
)
from hub.readings.rules import SealFacts, State

HOUR = 3_600
CAPACITY_W, STEP_WH = 10_000, 10
CHAIN = MeterAccount(
    Pubkey.default(), MeterState.ACTIVE, 1, "roof", b"o" * 32, b"k" * 32, bytes(32), 1, 1, 0, CAPACITY_W, STEP_WH,
    10, 10 * HOUR, 5_000, 4_000, 2_000, 1_500, 100, 100, 0, 0, 0, 0, 0,
)  # fmt: skip
CHAIN = replace(CHAIN, settled_wh=1_900)
STANDING = Standing(1, "active", 1, b"o" * 32, minting_allowed=True)
NOW = 1_000 * HOUR

C, R, H, M, L = RunKind.COUNTED, RunKind.REJECTED, RunKind.HELD, RunKind.MISSING, RunKind.LOST


def seal(sequence, hours, produced, consumed, surplus, state=State.ACCEPTED, beyond_wh=0):
    """Counters are told from the last seal presented on; `beyond_wh` is read behind the last closed interval."""
    production = CHAIN.production_wh + produced
    return SealFacts(
        sequence=sequence, state=state, linked=True, seal_hash=bytes(32), previous_seal_hash=bytes(32),
        sealed_at_unix_s=0, closed_until_unix_s=CHAIN.closed_until_unix_s + hours * HOUR, production_wh=production,
        consumption_wh=CHAIN.consumption_wh + consumed, surplus_wh=CHAIN.surplus_wh + surplus,
        first_reading_unix_s=0, first_production_wh=production + beyond_wh, first_consumption_wh=0,
        last_reading_unix_s=0, last_production_wh=production + beyond_wh, last_consumption_wh=0, reading_count=1,
    )  # fmt: skip


def step(*runs, seals=(), presented=None, next_key=None, chain=CHAIN, now=NOW):
    found = {each.sequence: each for each in seals}
    return next_step(chain, Line([Run(*run) for run in runs], found.__getitem__, presented, next_key), now)


def reason(*arguments, **named):
    found = step(*arguments, **named)
    assert isinstance(found, Nothing), found
    return found.reason.value


def test_the_newest_counted_seal_is_presented_and_everything_earned_is_minted():
    found = step((C, 11, 14), seals=[seal(14, 4, 900, 300, 700)])
    assert isinstance(found, Present)
    assert (found.seal.sequence, found.minted_wh, found.surplus_wh, found.writes_off) == (14, 700, 700, False)


def test_what_was_minted_too_much_is_earned_back_first():
    owing = replace(CHAIN, settled_wh=2_400)  # 500 Wh above what its surplus gives
    found = step((C, 11, 11), seals=[seal(11, 4, 900, 300, 700)], chain=owing)
    assert (found.minted_wh, found.earned_back_wh) == (200, 500)
    found = step(
        (C, 11, 11), seals=[seal(11, 4, 900, 300, 300)], chain=replace(CHAIN, settled_wh=2_400, surplus_wh=2_000 - 400)
    )
    assert (found.minted_wh, found.earned_back_wh) == (0, 700)


@pytest.mark.parametrize(
    ("runs", "seals", "why"),
    [
        ([], [], "nothing_new"),
        ([(C, 11, 12)], [seal(12, 0, 0, 0, 0)], "nothing_new"),
        ([(M, 11, 12), (C, 13, 13)], [seal(13, 4, 9, 0, 9)], "gap"),
        ([(H, 11, 11), (C, 12, 12)], [seal(12, 4, 9, 0, 9)], "held_seal"),
        ([(C, 11, 11), (M, 12, 12)], [seal(11, 0, 0, 0, 0)], "gap"),
        ([(C, 11, 11)], [seal(11, 1, 11_011, 0, 11_011)], "over_capacity"),
        ([(C, 11, 11)], [seal(11, 4, 900, 300, 599)], "surplus_out_of_bounds"),
        ([(C, 11, 11)], [seal(11, 4, 900, 300, 901)], "surplus_out_of_bounds"),
        ([(C, 11, 11)], [seal(11, 4, -1, 0, 0)], "counter_decreased"),
        ([(C, 11, 11)], [seal(11, 4, 0, -1, 0)], "counter_decreased"),
        ([(C, 11, 11)], [seal(11, 991, 9, 0, 9)], "from_the_future"),
        ([(R, 11, 11)], [seal(11, 4, 900, 0, 900, State.REJECTED)], "rejected_not_passed"),
    ],
)
def test_what_the_program_would_refuse_or_cannot_know_is_not_presented(runs, seals, why):
    assert reason(*runs, seals=seals) == why


def test_the_limits_themselves_are_taken():
    assert isinstance(step((C, 11, 11), seals=[seal(11, 1, 11_010, 0, 11_010)]), Present)
    assert isinstance(step((C, 11, 11), seals=[seal(11, 4, 900, 300, 600)]), Present)
    assert isinstance(step((C, 11, 11), seals=[seal(11, 990, 9, 0, 9)]), Present)


def test_what_lies_before_a_barrier_is_presented_first():
    seals = [seal(12, 2, 100, 0, 100), seal(13, 3, 900, 0, 900, State.REJECTED), seal(14, 4, 950, 0, 950)]
    assert step((C, 11, 12), (R, 13, 13), (C, 14, 14), seals=seals).seal.sequence == 12
    assert step((C, 11, 12), (M, 13, 13), (C, 14, 14), seals=seals).seal.sequence == 12


def test_all_that_rejected_seals_add_is_written_off_with_the_last_of_them():
    rejected = [seal(number, number - 10, 80_000 * (number - 10), 0, 80_000, State.REJECTED) for number in (11, 12)]
    found = step((R, 11, 12), (C, 13, 13), seals=[*rejected, seal(13, 3, 160_100, 0, 80_100)])
    assert (found.seal.sequence, found.writes_off) == (12, True)
    assert (found.minted_wh, found.written_off_wh, found.written_off_production_wh) == (0, 80_000, 160_000)
    assert found.written_off_surplus_to_wh == CHAIN.written_off_surplus_wh + 80_000
    assert found.written_off_production_to_wh == CHAIN.written_off_production_wh + 160_000


def test_a_rejected_seal_above_the_next_counted_one_is_not_presented():
    """It would close the way for every honest seal after it."""
    liar = seal(12, 2, 10**9, 0, 10**9, State.REJECTED)
    modest = seal(11, 1, 50, 0, 50, State.REJECTED)
    honest = seal(13, 3, 100, 0, 100)
    found = step((R, 11, 12), (C, 13, 13), seals=[modest, liar, honest])
    assert (found.seal.sequence, found.written_off_wh) == (11, 50)
    found = step((R, 12, 12), (C, 13, 13), seals=[liar, honest])
    assert (found.seal.sequence, found.writes_off) == (13, True)
    assert found.minted_wh <= 100


def test_what_a_rejected_seals_readings_claim_is_taken_out_of_the_interval_behind_it():
    presented = seal(10, 0, 0, 0, 0, State.REJECTED, beyond_wh=400)
    first = replace_first(seal(11, 1, 900, 300, 600), 450)
    found = step((C, 11, 12), seals=[first, seal(12, 2, 1_000, 300, 700)], presented=presented)
    assert (found.seal.sequence, found.written_off_wh, found.minted_wh) == (11, 400, 200)
    capped = replace_first(first, 30)  # the counted seal's own first reading says that it was less
    found = step((C, 11, 12), seals=[capped, seal(12, 2, 1_000, 300, 700)], presented=presented)
    assert (found.written_off_wh, found.minted_wh) == (30, 570)


def replace_first(one, first_wh):
    facts = SealFacts(**{name: getattr(one, name) for name in SealFacts.__struct_fields__})
    facts.first_production_wh = CHAIN.production_wh + first_wh
    return facts


def test_across_a_lost_gap_only_what_must_be_surplus_is_minted():
    found = step((L, 11, 12), (C, 13, 14), seals=[seal(13, 3, 900, 300, 800), seal(14, 5, 1_000, 900, 850)])
    assert (found.seal.sequence, found.minted_wh, found.written_off_wh) == (13, 600, 200)
    assert found.written_off_production_wh == 0
    found = step((L, 11, 12), (C, 13, 13), seals=[seal(13, 3, 300, 900, 200)])
    assert (found.minted_wh, found.written_off_wh) == (0, 200)


def test_behind_a_lost_gap_the_first_seal_that_the_program_takes_is_presented():
    seals = [seal(13, 0, 0, 0, 0), seal(14, 1, 12_000, 0, 12_000), seal(15, 2, 12_100, 0, 12_100)]
    assert step((L, 11, 12), (C, 13, 15), seals=seals).seal.sequence == 15
    assert reason((L, 11, 12), (C, 13, 14), seals=seals) == "over_capacity"


def test_nothing_more_is_written_off_before_the_counters_are_above_what_was_for_a_revoked_key():
    owing = replace(CHAIN, written_off_surplus_wh=2_500, written_off_production_wh=5_600)
    rejected, behind = seal(11, 1, 500, 0, 500, State.REJECTED), seal(12, 2, 600, 0, 600)
    assert reason((R, 11, 11), (C, 12, 12), seals=[rejected, behind], chain=owing) == "write_off_out_of_reach"
    lost = [seal(12, 1, 500, 200, 400), seal(13, 2, 900, 300, 700)]
    assert step((L, 11, 11), (C, 12, 13), seals=lost, chain=owing).seal.sequence == 13
    assert reason((L, 11, 11), (C, 12, 12), seals=lost, chain=owing) == "write_off_out_of_reach"


def test_the_next_key_comes_when_the_counters_have_reached_its_statement():
    reached = NextKey(2, CHAIN.closed_until_unix_s, 5_000, 4_000, 2_000, 10)
    assert step(next_key=reached) == Rotate(2)
    lower = replace(
        reached, production_wh=10, consumption_wh=10, surplus_wh=10, closed_until_unix_s=0, base_sequence=None
    )
    assert step(next_key=lower) == Rotate(2)
    beyond = replace(reached, production_wh=5_001)
    assert reason(next_key=beyond) == "rotation_out_of_reach"
    assert reason(next_key=replace(beyond, base_sequence=None)) == "rotation_out_of_reach"


def test_a_seal_that_only_makes_way_for_a_revoked_key_mints_nothing():
    key = NextKey(2, CHAIN.closed_until_unix_s + HOUR, 5_500, 4_000, 2_500, 20)
    found = step(next_key=key, seals=[seal(20, 1, 500, 0, 500, State.REJECTED)])
    assert (found.seal.sequence, found.settles, found.minted_wh, found.earned_back_wh) == (20, False, 0, 0)


@pytest.mark.parametrize(
    ("standing", "chain", "why"),
    [
        (replace(STANDING, kind=3), CHAIN, "kind_never_mints"),
        (replace(STANDING, kind=4), None, "kind_never_mints"),
        (STANDING, None, "not_on_chain"),
        (replace(STANDING, owner=bytes(32)), CHAIN, "account_differs"),
        (replace(STANDING, kind=2), CHAIN, "account_differs"),
        (STANDING, replace(CHAIN, key_epoch=2), "account_differs"),
        (replace(STANDING, minting_allowed=False), CHAIN, "minting_not_allowed"),
        (replace(STANDING, state="suspended"), CHAIN, "meter_suspended"),
        (STANDING, replace(CHAIN, state=MeterState.SUSPENDED), "chain_meter_not_active"),
        (replace(STANDING, state="retired"), replace(CHAIN, state=MeterState.DEACTIVATED), "chain_meter_not_active"),
        (STANDING, CHAIN, None),
        (replace(STANDING, state="retired"), CHAIN, None),
    ],
)
def test_who_may_mint_at_all(standing, chain, why):
    refused = standing_refusal(standing, chain)
    assert (None if refused is None else refused.reason.value) == why


def test_runs_cover_every_sequence_once():
    runs = runs_of(
        10, 30,
        [(13, State.REJECTED, "x"), (14, State.REJECTED, "y"), (20, State.QUARANTINED, "z"), (26, State.REJECTED, "q")],
        [(8, 11), (16, 17), (24, 28), (31, 40)],
        [(16, 17), (24, 26)],
    )  # fmt: skip
    assert [(run.kind, run.first, run.last) for run in runs] == [
        (M, 11, 11), (C, 12, 12), (R, 13, 14), (C, 15, 15), (L, 16, 17), (C, 18, 19), (H, 20, 20), (C, 21, 23),
        (L, 24, 26), (M, 27, 28), (C, 29, 30),
    ]  # fmt: skip


@given(st.data())
def test_runs_have_no_holes_whatever_is_missing(data):
    end = data.draw(st.integers(1, 60))
    kinds = data.draw(st.lists(st.sampled_from("CRHML"), min_size=end, max_size=end))
    uncounted = [
        (index, State.REJECTED if kind == "R" else State.QUARANTINED, "")
        for index, kind in enumerate(kinds, 1)
        if kind in "RH"
    ]
    missing = [(index, index) for index, kind in enumerate(kinds, 1) if kind in "ML"]
    lost = [(index, index) for index, kind in enumerate(kinds, 1) if kind == "L"]
    after = data.draw(st.integers(0, end))
    runs = runs_of(after, end, uncounted, missing, lost)
    named = {"C": C, "R": R, "H": H, "M": M, "L": L}
    told = [run.kind for run in runs for _ in range(run.first, run.last + 1)]
    assert told == [named[kind] for kind in kinds[after:]]


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=10), st.integers(0, 20_000), st.integers(0, 20_000))
def test_days_share_a_step_without_a_watt_hour_lost(added, back, off):
    back = min(back, sum(added))
    off = min(off, sum(added) - back)
    days = [(date(2026, 1, 1) + timedelta(days=index), wh) for index, wh in enumerate(added)]
    shares = split_by_day(days, off, back)
    assert sum(share.written_off_wh for share in shares) == off
    assert sum(share.earned_back_wh for share in shares) == back
    assert [share.minted_wh + share.written_off_wh + share.earned_back_wh for share in shares] == added
    assert all(share.minted_wh >= 0 for share in shares)
