"""How a registration ends, and an account that appears on the chain: told once, whichever is heard of first."""

from __future__ import annotations

import json

import base58
import pytest

from hub.chain.accounts import MeterState, UserKind
from hub.chain.intents import IntentState
from hub.registry import onboarding_reactions, onboarding_store
from hub.registry import onboarding_rules as rules

REGISTER_USER, REGISTER_METER, SUBMIT, SET_STATUS, DEACTIVATE = 1, 2, 4, 7, 8


def signed_user(chained, person):
    """The person's registration, signed and on its way, and the transaction."""
    asked = chained.ask_user(person)
    attempt = chained.build(asked)
    chained.sign(person, asked)
    return asked, attempt


def signed_meter(chained, person):
    chained.show(chained.user(person.wallet))
    meter = chained.meter(person.wallet)
    asked = chained.ask_meter(person, meter.meter_id)
    attempt = chained.build(asked)
    chained.sign(person, asked)
    return meter.meter_id, asked, attempt


def accounts(chained):
    return chained.rows("SELECT kind, wallet, meter_id, state, signature FROM chain_accounts ORDER BY kind, meter_id")


def test_every_kind_of_registration_has_its_reaction():
    assert onboarding_reactions.REACTIONS.keys() == {rules.USER_KIND, rules.METER_KIND}


def test_a_finalized_user_is_linked_paid_for_audited_and_told_of(chained):
    ada = chained.person()
    asked, attempt = signed_user(chained, ada)
    assert chained.end(asked, IntentState.FINALIZED)
    assert accounts(chained) == [("user", ada.wallet, None, "active", attempt.signature)]
    standing = chained.standing(ada, asked)
    assert (standing.state, standing.signature, standing.to_sign) == ("finalized", attempt.signature, None)
    assert standing.registration.slot == chained.slot
    assert standing.sponsorship.state == onboarding_store.PAID
    assert chained.actions()[-2:] == ["registration.end", "user.link_account"]
    assert chained.told() == ["chain.user_registered"]
    assert chained.states_told(ada) == ["planned", "open", "finalized"]


def test_a_finalized_meter_is_linked_at_its_own_address(chained):
    ada = chained.person()
    meter_id, asked, attempt = signed_meter(chained, ada)
    chained.end(asked, IntentState.FINALIZED)
    assert accounts(chained) == [("meter", ada.wallet, meter_id, "active", attempt.signature)]
    assert chained.rows("SELECT address FROM chain_accounts") == [(bytes(chained.at.meter(meter_id)),)]
    assert chained.told() == ["chain.meter_registered"]


@pytest.mark.parametrize("first", ["event", "end"])
def test_event_and_end_are_told_once_in_either_order(chained, first):
    ada = chained.person()
    meter_id, asked, attempt = signed_meter(chained, ada)
    event = (chained.meter_account(meter_id, ada.wallet), attempt.hub_signature, REGISTER_METER)
    if first == "event":
        chained.event(*event)
        assert chained.intent(asked).state is IntentState.FINALIZED, "the sender has nothing more to do"
    else:
        chained.end(asked, IntentState.FINALIZED)
    chained.event(*event)
    assert chained.told() == ["chain.meter_registered"]
    assert accounts(chained) == [("meter", ada.wallet, meter_id, "active", attempt.signature)]
    assert chained.states_told(ada) == ["planned", "open", "finalized"]
    assert chained.actions().count("registration.end") == 1
    assert chained.actions().count("meter.link_account") == 1
    assert chained.sponsorship(asked).state == onboarding_store.PAID


def test_an_event_ends_what_nobody_else_could(chained):
    """The node has forgotten the transaction, the account is there all the same."""
    ada = chained.person()
    asked, attempt = signed_user(chained, ada)
    chained.become_unknown(asked)
    assert chained.standing(ada, asked).state == "unknown"
    chained.event(chained.user(ada.wallet), attempt.hub_signature, REGISTER_USER)
    ended = chained.standing(ada, asked)
    assert (ended.state, ended.signature) == ("finalized", attempt.signature)
    assert ended.sponsorship.state == onboarding_store.PAID


def test_a_wallet_that_sends_by_itself_what_the_hub_signed_is_registered_all_the_same(chained):
    ada = chained.person()
    asked = chained.ask_user(ada)
    attempt = chained.build(asked)
    chained.event(chained.user(ada.wallet), attempt.hub_signature, REGISTER_USER)
    assert chained.standing(ada, asked).state == "finalized"
    assert accounts(chained)[0][4] == attempt.signature


def test_an_account_that_no_registration_of_ours_made_is_linked_too(chained):
    """As after a restored database."""
    ada = chained.person()
    signature = b"a transaction of which we know nothing".ljust(64)
    chained.event(chained.user(ada.wallet, UserKind.CONSUMER), signature, REGISTER_USER)
    chained.event(chained.meter_account("somewhere", ada.wallet), signature, REGISTER_METER)
    written = base58.b58encode(signature).decode()
    assert accounts(chained) == [
        ("meter", ada.wallet, "somewhere", "active", written),
        ("user", ada.wallet, None, "active", written),
    ]
    assert chained.told() == ["chain.user_registered", "chain.meter_registered"]


def test_later_events_tell_the_state_and_never_another_registration(chained):
    ada = chained.person()
    meter_id, asked, attempt = signed_meter(chained, ada)
    chained.end(asked, IntentState.FINALIZED)
    suspended = chained.meter_account(meter_id, ada.wallet, MeterState.SUSPENDED)
    other = b"another transaction".ljust(64)
    chained.event(suspended, other, SET_STATUS)
    assert accounts(chained) == [("meter", ada.wallet, meter_id, "suspended", attempt.signature)]
    chained.slot -= 5
    chained.event(chained.meter_account(meter_id, ada.wallet), other, SUBMIT)
    assert accounts(chained)[0][3] == "suspended", "an older slot changes nothing"
    chained.slot += 5
    chained.event(chained.meter_account(meter_id, ada.wallet, MeterState.DEACTIVATED), other, DEACTIVATE)
    assert accounts(chained)[0][3] == "deactivated"
    assert chained.told() == ["chain.meter_registered"]


def test_the_transaction_that_made_a_meter_is_learnt_later_than_the_meter(chained):
    ada = chained.person()
    meter_id, asked, attempt = signed_meter(chained, ada)
    account = chained.meter_account(meter_id, ada.wallet)
    chained.event(account, b"a seal that was presented".ljust(64), SUBMIT)
    assert accounts(chained)[0][4] is None
    chained.end(asked, IntentState.FINALIZED)
    assert accounts(chained)[0][4] == attempt.signature
    assert chained.told() == ["chain.meter_registered"]


def test_what_the_program_refused_is_failed_with_its_reason_and_costs_nobody_anything(chained):
    ada = chained.person()
    asked, _ = signed_user(chained, ada)
    chained.end(asked, IntentState.FAILED, "already_exists", "The account is there already")
    standing = chained.standing(ada, asked)
    assert (standing.state, standing.registration.error_code) == ("failed", "already_exists")
    assert standing.signature is None
    assert standing.sponsorship.state == onboarding_store.GIVEN_BACK
    assert accounts(chained) == []
    assert chained.told() == ["chain.registration_failed"]
    assert chained.actions()[-1] == "registration.end"
    [(job,)] = chained.rows("SELECT payload::text FROM outbox_jobs WHERE payload ->> 'kind' LIKE 'chain.%'")
    assert json.loads(str(job))["data"] == {"what": f"wallet {ada.address}", "reason": "The account is there already"}
    assert chained.ask_user(ada) != asked, "it may be asked for again"


def test_what_nobody_signed_in_time_is_expired_and_may_be_asked_for_again(chained):
    ada = chained.person()
    asked = chained.ask_user(ada)
    chained.build(asked)
    chained.end(asked, IntentState.EXPIRED)
    assert chained.standing(ada, asked).state == "expired"
    assert chained.sponsorship(asked).state == onboarding_store.GIVEN_BACK
    assert chained.told() == ["chain.registration_expired"]
    assert chained.states_told(ada) == ["planned", "expired"]
    assert chained.ask_user(ada) != asked


def test_what_is_unknown_is_not_failed(chained):
    """Nothing is given back and nothing may be asked for in its place; the member and the operators are told."""
    ada = chained.person()
    asked, attempt = signed_user(chained, ada)
    chained.become_unknown(asked)
    standing = chained.standing(ada, asked)
    assert (standing.state, standing.signature) == ("unknown", attempt.signature)
    assert standing.registration.outcome is None
    assert standing.sponsorship.state == onboarding_store.RESERVED
    assert chained.ask_user(ada) == asked
    assert "chain.transaction_delayed" in chained.told()
    assert chained.rows("SELECT count(*) FROM alarms") == [(1,)]
    assert chained.states_told(ada) == ["planned", "open", "unknown"]
    chained.end(asked, IntentState.FINALIZED)
    assert chained.standing(ada, asked).state == "finalized"
    assert "chain.registration_failed" not in chained.told()
