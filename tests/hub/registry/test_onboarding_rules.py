"""What may be registered on the chain, and what the hub pays for it, decided without a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.chain.accounts import ConfigState, MeterState
from hub.errors import (
    ChainNotReady,
    MeterAlreadyOnChain,
    MeterCapacityRefused,
    MeterOwnedByAnother,
    MeterRetired,
    ProgramPaused,
    SponsorshipUsedUp,
    SponsorshipUsedUpToday,
    StatementOfAnotherDomain,
    UserAlreadyOnChain,
    UserNotOnChain,
)
from hub.registry import onboarding_rules as rules
from hub.registry.rules import ACTIVE, RETIRED, SUSPENDED
from protocol.enrolment import Enrolment
from tests.hub.conftest import settings_in
from tests.hub.registry.chained import PROGRAM, Chained, with_chain

OWNER, OTHER = bytes([7]) * 32, bytes([8]) * 32
TERMS = rules.Terms(PROGRAM, bytes(8), 100, 1_000)


@pytest.fixture(scope="module")
def on_chain(tmp_path_factory):
    """Accounts as the chain would have them; there is no database behind it."""
    directory = tmp_path_factory.mktemp("settings")
    return Chained(None, with_chain(settings_in(directory, "postgresql://nowhere/none")))


@pytest.fixture(scope="module")
def check(on_chain):
    """Judges a meter that is in order, but for what is changed."""

    def judge(statement=None, state=ACTIVE, capacity_w=5_000, step_wh=10, owner="its own", meter=None, **config):
        fields = {"domain": on_chain.settings.domain, "meter_id": "roof", "kind": 1, "measurement": 1, "key_epoch": 1}
        counters = {"production_wh": 0, "consumption_wh": 0, "surplus_wh": 0, "valid_from_unix_s": 1_795_000_000}
        made = Enrolment(**(fields | counters | {"owner": OWNER, "public_key": bytes(32)} | (statement or {})))
        user = on_chain.user(OWNER) if owner == "its own" else owner
        rules.check_meter(made, state, capacity_w, step_wh, user, meter, on_chain.config(**config))

    return judge


@pytest.mark.parametrize("state", [ACTIVE, SUSPENDED])
@pytest.mark.parametrize(("capacity_w", "step_wh"), [(1, 1), (1_000_000, 1_000)])
def test_a_meter_of_a_registered_owner_is_taken_up_to_the_chains_limits(check, state, capacity_w, step_wh):
    check(state=state, capacity_w=capacity_w, step_wh=step_wh)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"state": RETIRED}, MeterRetired),
        ({"statement": {"domain": bytes(8)}}, StatementOfAnotherDomain),
        ({"owner": None}, UserNotOnChain),
        ({"capacity_w": 0}, MeterCapacityRefused),
        ({"capacity_w": 1_000_001}, MeterCapacityRefused),
        ({"step_wh": 1_001}, MeterCapacityRefused),
        ({"capacity_w": 6_000, "capacity_w_max": 5_999}, MeterCapacityRefused),
        ({"step_wh": 10, "register_step_wh_max": 9}, MeterCapacityRefused),
    ],
)
def test_what_the_program_would_refuse_is_refused_by_name_before_anybody_signs(check, change, refusal):
    with pytest.raises(refusal):
        check(**change)


@pytest.mark.parametrize("state", list(MeterState))
def test_a_meter_has_one_owner_for_ever(check, on_chain, state):
    with pytest.raises(MeterOwnedByAnother):
        check(meter=on_chain.meter_account("roof", OTHER, state))
    with pytest.raises(MeterAlreadyOnChain):
        check(meter=on_chain.meter_account("roof", OWNER, state))


def test_whose_meter_it_is_is_said_before_anything_else_of_it(check, on_chain):
    theirs = on_chain.meter_account("roof", OTHER)
    with pytest.raises(MeterOwnedByAnother):
        check(meter=theirs, state=RETIRED, owner=None, capacity_w=0)


def test_a_user_whom_the_program_would_not_take_as_owner_is_none(check, on_chain):
    with pytest.raises(UserNotOnChain):
        check(owner=replace(on_chain.user(OWNER), state=2))


def test_nothing_is_registered_with_a_program_that_is_not_there_not_ours_or_paused(on_chain):
    domain = on_chain.settings.domain
    assert rules.check_program(on_chain.config(), domain) == on_chain.config()
    for config, refusal in (
        (None, ChainNotReady),
        (on_chain.config(domain=bytes(8)), ChainNotReady),
        (on_chain.config(state=ConfigState.PAUSED), ProgramPaused),
    ):
        with pytest.raises(refusal):
            rules.check_program(config, domain)


def test_a_wallet_is_one_user_for_ever(on_chain):
    rules.check_user(None)
    with pytest.raises(UserAlreadyOnChain):
        rules.check_user(on_chain.user(OWNER))


amounts = st.integers(0, 2_000)


@given(amounts, amounts, amounts)
def test_the_hub_never_pays_beyond_either_limit(lamports, of_member, of_day):
    try:
        rules.check_sponsorship(lamports, of_member, of_day, TERMS)
    except SponsorshipUsedUp:
        assert of_member + lamports > 100
    except SponsorshipUsedUpToday:
        assert of_member + lamports <= 100
        assert of_day + lamports > 1_000
    else:
        assert of_member + lamports <= 100
        assert of_day + lamports <= 1_000


@pytest.mark.parametrize(("account_bytes", "lamports"), [(0, 890_880), (165, 2_039_280), (170, 2_074_080)])
def test_rent_is_what_a_cluster_asks_for(account_bytes, lamports):
    assert rules.rent_lamports(account_bytes) == lamports


def test_what_is_reserved_is_the_rent_of_every_account_that_is_made():
    assert rules.USER_RENT_LAMPORTS == 2_004_480
    assert rules.METER_RENT_LAMPORTS == 3_118_080 + 1_781_760 + 2_074_080
