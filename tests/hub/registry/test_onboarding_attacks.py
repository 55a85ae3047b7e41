"""Members who want more than is theirs, all at once and in the order that nobody expects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

import pytest

from hub.chain.accounts import MeterState
from hub.chain.intents import IntentState
from hub.errors import HubError, MeterAlreadyOnChain, SponsorshipUsedUp, SponsorshipUsedUpToday, WalletNotLinked
from hub.registry import onboarding_rules as rules
from hub.registry import onboarding_store as store

METER, USER = rules.METER_RENT_LAMPORTS, rules.USER_RENT_LAMPORTS


def all_at_once(acts: list[Callable[[], object]]) -> list[object]:
    """What each of these gave, or the refusal it raised."""
    answers: list[object] = [None] * len(acts)
    begin = threading.Barrier(len(acts))

    def act(number: int) -> None:
        begin.wait()
        try:
            answers[number] = acts[number]()
        except HubError as refusal:
            answers[number] = refusal

    threads = [threading.Thread(target=act, args=[number]) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def held_lamports(chained) -> int:
    [(lamports,)] = chained.rows("SELECT coalesce(sum(lamports), 0) FROM rent_sponsorships WHERE state <> 'given_back'")
    return int(str(lamports))


def test_many_meters_at_once_cost_the_hub_no_more_than_a_members_limit(chained):
    limit = USER + 2 * METER
    chained.settings = chained.settings.model_copy(update={"sponsor_lamports_per_member_max": limit})
    ada = chained.person()
    chained.registered(ada)
    meters = [chained.meter(ada.wallet) for _ in range(4)]
    answers = all_at_once([lambda meter=meter: chained.ask_meter(ada, meter.meter_id) for meter in meters])
    assert sum(isinstance(answer, UUID) for answer in answers) == 2
    assert sum(isinstance(answer, SponsorshipUsedUp) for answer in answers) == 2
    assert held_lamports(chained) == limit


def test_many_wallets_cost_the_hub_no_more_than_a_members_limit(chained):
    chained.settings = chained.settings.model_copy(update={"sponsor_lamports_per_member_max": 2 * USER})
    ada = chained.person()
    wallets = [ada, *(chained.with_wallet(ada.member_id) for _ in range(3))]
    answers = all_at_once([lambda wallet=wallet: chained.ask_user(wallet) for wallet in wallets])
    assert sum(isinstance(answer, UUID) for answer in answers) == 2
    assert held_lamports(chained) == 2 * USER


def test_many_members_at_once_cost_the_hub_no_more_than_a_days_limit(chained):
    chained.settings = chained.settings.model_copy(update={"sponsor_lamports_per_day_max": 2 * USER})
    people = [chained.person() for _ in range(4)]
    answers = all_at_once([lambda person=person: chained.ask_user(person) for person in people])
    assert sum(isinstance(answer, UUID) for answer in answers) == 2
    assert sum(isinstance(answer, SponsorshipUsedUpToday) for answer in answers) == 2
    assert held_lamports(chained) == 2 * USER


def test_what_nobody_knows_the_end_of_stays_reserved_however_long(chained):
    chained.settings = chained.settings.model_copy(update={"sponsor_lamports_per_member_max": 2 * USER - 1})
    ada = chained.person()
    asked = chained.ask_user(ada)
    chained.build(asked)
    chained.sign(ada, asked)
    chained.become_unknown(asked)
    chained.wait(days=400)
    other = chained.with_wallet(ada.member_id)
    with pytest.raises(SponsorshipUsedUp):
        chained.ask_user(other)
    chained.end(asked, IntentState.FAILED, "already_exists")
    chained.ask_user(other)


def test_a_wallet_that_is_unlinked_meanwhile_is_signed_for_by_nobody_and_is_free_when_the_time_is_over(chained):
    ada, bo = chained.person(), chained.person()
    asked = chained.ask_user(ada)
    chained.build(asked)
    chained.unlink(ada)
    with pytest.raises(WalletNotLinked):
        chained.sign(ada, asked)
    with pytest.raises(WalletNotLinked):
        chained.ask_user(ada)
    assert chained.sponsorship(asked).state == store.RESERVED
    chained.end(asked, IntentState.EXPIRED)
    chained.link(bo, ada)
    assert chained.ask_user(bo, ada.address) != asked


# ── what only the comparison of accounts has found ───────────────────────────────────────────────────────────


def test_an_account_that_no_event_told_of_is_linked_all_the_same(chained):
    ada = chained.person()
    chained.compare(chained.user(ada.wallet))
    chained.compare(chained.meter_account("somewhere", ada.wallet, MeterState.SUSPENDED))
    found = chained.rows("SELECT kind, wallet, meter_id, state, signature FROM chain_accounts ORDER BY kind")
    assert found == [("meter", ada.wallet, "somewhere", "suspended", None), ("user", ada.wallet, None, "active", None)]
    assert chained.told() == ["chain.user_registered", "chain.meter_registered"]


def test_an_event_that_comes_after_the_comparison_tells_the_transaction_and_nothing_else(chained):
    ada = chained.person()
    chained.compare(chained.user(ada.wallet))
    chained.slot -= 10
    signature = b"the transaction that made it".ljust(64)
    chained.event(chained.user(ada.wallet), signature, 1)
    [(told,)] = chained.rows("SELECT signature FROM chain_accounts")
    assert told is not None
    assert chained.told() == ["chain.user_registered"]


def test_a_registration_of_which_the_node_has_forgotten_all_ends_when_its_account_is_found(chained):
    """Only this hub's signature makes such an account, and only this transaction of it could have."""
    ada = chained.person()
    asked = chained.ask_user(ada)
    attempt = chained.build(asked)
    chained.sign(ada, asked)
    chained.become_unknown(asked)
    chained.compare(chained.user(ada.wallet))
    standing = chained.standing(ada, asked)
    assert (standing.state, standing.signature) == ("finalized", attempt.signature)
    assert standing.sponsorship.state == store.PAID
    assert chained.told()[-1] == "chain.user_registered"
    assert chained.told().count("chain.user_registered") == 1


@pytest.mark.parametrize("before", ["planned", "awaiting_wallet", "open"])
def test_what_may_still_be_asked_for_is_not_ended_by_the_comparison(chained, before):
    """The sender is about to learn it, with its slot."""
    ada = chained.person()
    asked = chained.ask_user(ada)
    if before != "planned":
        chained.build(asked)
    if before == "open":
        chained.sign(ada, asked)
    chained.compare(chained.user(ada.wallet))
    assert chained.standing(ada, asked).state == before


def test_a_meter_that_only_the_comparison_found_is_not_registered_again(chained):
    ada = chained.person()
    chained.registered(ada)
    meter = chained.meter(ada.wallet)
    chained.compare(chained.meter_account(meter.meter_id, ada.wallet))
    with pytest.raises(MeterAlreadyOnChain):
        chained.ask_meter(ada, meter.meter_id)
