"""A member has its wallet and its meters registered on the chain: what is planned, for whom, who pays, and once."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from hub.chain.accounts import ConfigState, UserKind
from hub.chain.intents import IntentState
from hub.db import transaction
from hub.errors import (
    AddressInvalid,
    ChainNotConfigured,
    ChainNotReady,
    IntentNotAwaiting,
    MalformedInput,
    MeterAlreadyOnChain,
    MeterCapacityRefused,
    MeterNotFound,
    MeterOwnedByAnother,
    ProgramPaused,
    RegistrationInProgress,
    RegistrationNotFound,
    SponsorshipUsedUp,
    SponsorshipUsedUpToday,
    StatementOfAnotherDomain,
    TransactionExpired,
    TransactionNotOurs,
    UserAlreadyOnChain,
    UserNotOnChain,
    WalletNotLinked,
    WalletSignatureInvalid,
)
from hub.permissions import Role
from hub.registry import onboarding_rules as rules
from hub.registry import onboarding_service as service
from hub.registry import onboarding_store as store
from hub.registry import service as registry
from protocol.topics import domain_of
from tests.hub.conftest import COMMUNITY_ID
from tests.hub.registry.chained import HUB_KEY, PROGRAM, Chained, with_chain

NOTHING = ("chain_intents", "chain_registrations", "rent_sponsorships")


def nothing_was_begun(chained) -> bool:
    return all(chained.rows(f"SELECT 1 FROM {table}") == [] for table in NOTHING)


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("member_type", "kind"), [(Role.PROSUMER, 1), (Role.CONSUMER, 2)])
def test_a_wallet_is_registered_as_what_its_member_is(chained, member_type, kind):
    ada = chained.person(member_type)
    asked = chained.ask_user(ada)
    [register] = chained.intent(asked).instructions
    assert register.program_id == PROGRAM
    assert bytes(register.data) == bytes([1, kind])
    assert [bytes(each.pubkey) for each in register.accounts][:2] == [HUB_KEY.public_key, ada.wallet]
    standing = chained.standing(ada, asked)
    assert (standing.state, standing.to_sign, standing.signature) == ("planned", None, None)
    assert standing.registration.says["member_type"] == UserKind(kind).name.lower()
    assert chained.actions()[-1] == "user.register_on_chain"


def test_a_meter_is_registered_with_its_first_keys_statement_and_its_owners_account_of_grid(chained):
    ada = chained.person()
    chained.registered(ada)
    meter = chained.meter(ada.wallet, production_capacity_w=5_000, register_quantum_wh=100)
    asked = chained.ask_meter(ada, meter.meter_id)
    grid, signed, register = chained.intent(asked).instructions
    assert bytes(grid.data) == b"\x01", "made if it is not there"
    assert meter.enrolment(owner=ada.wallet)[:180] in bytes(signed.data)
    assert bytes(register.data) == bytes([2]) + (5_000).to_bytes(8, "little") + (100).to_bytes(4, "little")
    assert register.accounts[6].pubkey == grid.accounts[1].pubkey
    assert chained.standing(ada, asked).registration.says["meter_id"] == meter.meter_id
    assert chained.actions()[-1] == "meter.register_on_chain"


def test_who_asks_twice_gets_the_same_answer_and_never_a_second_intent(chained):
    ada = chained.person()
    asked = chained.ask_user(ada)
    assert chained.ask_user(ada) == asked
    chained.build(asked)
    assert chained.ask_user(ada) == asked
    assert len(chained.rows("SELECT 1 FROM chain_intents")) == 1
    assert chained.rows("SELECT sum(lamports) FROM rent_sponsorships") == [(rules.USER_RENT_LAMPORTS,)]


def test_of_many_who_ask_at_once_one_plans(chained):
    ada = chained.person()
    chained.registered(ada)
    meter = chained.meter(ada.wallet)
    answers, begin = [], threading.Barrier(4)

    def ask():
        begin.wait()
        answers.append(chained.ask_meter(ada, meter.meter_id))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1


def test_the_database_itself_knows_no_second_open_registration(chained):
    ada = chained.person()
    asked = chained.ask_user(ada)
    with transaction(chained.engine) as connection:
        first = store.find_registration(connection, asked)
    with pytest.raises(IntegrityError, match="chain_registrations_open_idx"), transaction(chained.engine) as connection:
        store.insert_registration(connection, replace(first, registration_id=ada.member_id))


def test_a_hub_without_a_chain_says_so(settings):
    with pytest.raises(ChainNotConfigured):
        service.terms_of(settings)


def test_nothing_is_planned_before_the_hub_has_read_the_programs_config_nor_while_it_is_paused(settings, engine):
    unread = Chained(engine, with_chain(settings))
    ada = unread.person()
    for config, refusal in (
        (None, ChainNotReady),
        (unread.config(domain=bytes(8)), ChainNotReady),
        (unread.config(state=ConfigState.PAUSED), ProgramPaused),
    ):
        if config is not None:
            unread.show(config)
        with pytest.raises(refusal):
            unread.ask_user(ada)
    assert nothing_was_begun(unread)


def test_only_a_linked_wallet_is_registered(chained):
    ada, bo = chained.person(), chained.person()
    for address, refusal in (
        (bo.address, WalletNotLinked),
        (str(chained.at.config()), AddressInvalid),  # of a program: no key could sign for it
        ("O" + ada.address[1:], AddressInvalid),
        (" " + ada.address, AddressInvalid),
    ):
        with pytest.raises(refusal):
            chained.ask_user(ada, address)
    assert nothing_was_begun(chained)


def test_a_wallet_that_is_on_the_chain_is_not_registered_again(chained):
    ada = chained.person()
    chained.show(chained.user(ada.wallet))
    with pytest.raises(UserAlreadyOnChain):
        chained.ask_user(ada)
    assert nothing_was_begun(chained)


def test_a_user_comes_before_its_meters(chained):
    ada = chained.person()
    meter = chained.meter(ada.wallet)
    with pytest.raises(UserNotOnChain):
        chained.ask_meter(ada, meter.meter_id)
    assert nothing_was_begun(chained)
    asked = chained.ask_user(ada)
    with pytest.raises(UserNotOnChain):
        chained.ask_meter(ada, meter.meter_id)
    chained.build(asked)
    chained.show(chained.user(ada.wallet))
    chained.ask_meter(ada, meter.meter_id)


def test_a_meter_of_another_is_none_for_whoever_asks(chained):
    ada, bo = chained.person(), chained.person()
    meter = chained.meter(bo.wallet)
    with pytest.raises(MeterNotFound):
        chained.ask_meter(ada, meter.meter_id)
    with pytest.raises(MeterNotFound):
        chained.ask_meter(ada, "no-such-meter")
    assert nothing_was_begun(chained)


def test_a_meter_that_the_chain_has_already_is_refused_by_whose_it_is(chained):
    ada, bo = chained.person(), chained.person()
    chained.show(chained.user(ada.wallet))
    own, taken = chained.meter(ada.wallet), chained.meter(ada.wallet)
    chained.show(chained.meter_account(own.meter_id, ada.wallet))
    chained.show(chained.meter_account(taken.meter_id, bo.wallet))
    with pytest.raises(MeterAlreadyOnChain):
        chained.ask_meter(ada, own.meter_id)
    with pytest.raises(MeterOwnedByAnother):
        chained.ask_meter(ada, taken.meter_id)
    assert nothing_was_begun(chained)


def test_a_meter_from_before_the_chain_keeps_working_and_is_not_taken_by_its_old_statement(chained):
    ada = chained.person()
    chained.show(chained.user(ada.wallet))
    meter = chained.meter(ada.wallet, domain=domain_of(COMMUNITY_ID))
    with pytest.raises(StatementOfAnotherDomain):
        chained.ask_meter(ada, meter.meter_id)
    with transaction(chained.engine) as connection:
        assert registry.get_meter(connection, meter.meter_id).state == "active"


def test_a_meter_that_cannot_produce_is_not_for_the_chain(chained):
    ada = chained.person()
    chained.show(chained.user(ada.wallet))
    meter = chained.meter(ada.wallet, production_capacity_w=0)
    with pytest.raises(MeterCapacityRefused):
        chained.ask_meter(ada, meter.meter_id)


# ── who pays ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hub_pays_for_a_member_up_to_its_limit_and_gives_back_what_came_to_nothing(chained):
    limit = rules.USER_RENT_LAMPORTS + rules.METER_RENT_LAMPORTS
    chained.settings = chained.settings.model_copy(update={"sponsor_lamports_per_member_max": limit})
    ada = chained.person()
    chained.registered(ada)
    first, second = chained.meter(ada.wallet), chained.meter(ada.wallet)
    asked = chained.ask_meter(ada, first.meter_id)
    reserved = chained.sponsorship(asked)
    assert (reserved.lamports, reserved.state) == (rules.METER_RENT_LAMPORTS, store.RESERVED)
    assert (reserved.payer, reserved.member_id) == (HUB_KEY.public_key, ada.member_id)
    with pytest.raises(SponsorshipUsedUp):
        chained.ask_meter(ada, second.meter_id)
    chained.end(asked, IntentState.EXPIRED)
    assert chained.sponsorship(asked).state == store.GIVEN_BACK
    chained.ask_meter(ada, second.meter_id)
    bo = chained.person()
    chained.ask_user(bo)


def test_the_hub_pays_for_all_members_up_to_what_it_pays_in_a_day(chained):
    limit = 2 * rules.USER_RENT_LAMPORTS
    chained.settings = chained.settings.model_copy(update={"sponsor_lamports_per_day_max": limit})
    for _ in range(2):
        chained.ask_user(chained.person())
    late = chained.person()
    with pytest.raises(SponsorshipUsedUpToday):
        chained.ask_user(late)
    chained.wait(hours=11, minutes=59)
    with pytest.raises(SponsorshipUsedUpToday):
        chained.ask_user(late)
    chained.wait(minutes=1)
    chained.ask_user(late)


# ── signing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_wallet_signs_what_the_hub_built_and_it_is_being_sent(chained):
    ada = chained.person()
    asked = chained.ask_user(ada)
    attempt = chained.build(asked)
    waiting = chained.standing(ada, asked)
    assert waiting.state == "awaiting_wallet"
    assert waiting.to_sign == service.ToSign(attempt.message, attempt.signature)
    chained.sign(ada, asked)
    sent = chained.standing(ada, asked)
    assert (sent.state, sent.to_sign, sent.signature) == ("open", None, attempt.signature)
    assert chained.actions()[-1] == "registration.sign"
    assert chained.states_told(ada) == ["planned", "open"]


def test_a_transaction_that_the_hub_did_not_build_is_not_taken_whoever_signed_it(chained):
    ada, bo = chained.person(), chained.person()
    asked, others = chained.ask_user(ada), chained.ask_user(bo)
    with pytest.raises(TransactionNotOurs):
        chained.sign(ada, asked, b"before there is any")
    message = chained.build(asked).message
    chained.build(others)
    for foreign in (b"", message[:-1], message + b"\0", message[::-1], chained.message(others)):
        with pytest.raises(TransactionNotOurs):
            chained.sign(ada, asked, foreign)
    assert chained.intent(asked).state is IntentState.AWAITING_WALLET


def test_only_the_wallets_own_signature_counts(chained):
    ada, bo = chained.person(), chained.person()
    asked = chained.ask_user(ada)
    chained.build(asked)
    with pytest.raises(WalletSignatureInvalid):
        chained.sign(ada, asked, by=bo)
    with pytest.raises(MalformedInput), transaction(chained.engine) as connection:
        message = chained.message(asked)
        service.sign_registration(connection, ada.member_id, asked, message, "0" * 88, "member:x", chained.now)
    assert chained.standing(ada, asked).state == "awaiting_wallet"


def test_who_signs_too_late_is_told_and_signs_the_next_one(chained):
    ada = chained.person()
    asked = chained.ask_user(ada)
    old = chained.build(asked).message
    new = chained.build(asked).message
    assert old != new
    with pytest.raises(TransactionExpired):
        chained.sign(ada, asked, old)
    chained.sign(ada, asked, new)
    with pytest.raises(IntentNotAwaiting):
        chained.sign(ada, asked, new)


def test_nobody_sees_or_signs_the_registration_of_another(chained):
    ada, bo = chained.person(), chained.person()
    asked = chained.ask_user(ada)
    chained.build(asked)
    with pytest.raises(RegistrationNotFound):
        chained.standing(bo, asked)
    with pytest.raises(RegistrationNotFound):
        chained.sign(bo, asked, chained.message(asked))


def test_a_wallet_that_has_changed_hands_is_registered_by_neither_meanwhile(chained):
    ada, bo = chained.person(), chained.person()
    asked = chained.ask_user(ada)
    chained.build(asked)
    with transaction(chained.engine) as connection:
        connection.exec_driver_sql(
            "UPDATE identities SET member_id = %s WHERE public_key = %s", (bo.member_id, ada.wallet)
        )
    with pytest.raises(WalletNotLinked):
        chained.sign(ada, asked)
    with pytest.raises(RegistrationInProgress):
        chained.ask_user(bo, ada.address)
    chained.end(asked, IntentState.EXPIRED)
    assert chained.ask_user(bo, ada.address) != asked


# ── listing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_registrations_are_listed_newest_first_in_pages(chained):
    ada, bo = chained.person(), chained.person()
    of_ada = []
    for number in range(5):
        chained.wait(minutes=number % 2)  # some at the same instant
        of_ada.append(chained.ask_user(ada))
        chained.end(of_ada[-1], IntentState.EXPIRED)
    chained.wait(minutes=1)
    of_bo = chained.ask_user(bo)

    def listed(member_id, limit):
        found, after = [], None
        with transaction(chained.engine) as connection:
            while page := service.list_standings(connection, member_id, after, limit):
                found += page
                after = page[-1].registration.registration_id
        return [each.registration.registration_id for each in found]

    assert set(listed(ada.member_id, 2)) == set(of_ada)
    assert len(listed(ada.member_id, 2)) == 5
    assert listed(bo.member_id, 2) == [of_bo]
    assert listed(None, 2)[:1] == [of_bo]
    assert listed(None, 2) == listed(None, 100)
    with pytest.raises(MalformedInput), transaction(chained.engine) as connection:
        service.list_standings(connection, ada.member_id, of_bo, 10)
