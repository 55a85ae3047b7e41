"""What is planned happens once, whatever the node does. What arrived in a wallet tells how often it happened."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from hub.chain import instructions
from hub.chain import intents_store as store
from hub.chain.accounts import UserKind
from hub.chain.chain_state import ChainGate
from hub.chain.inbox import open_cursor
from hub.chain.inbox_store import move_cursor
from hub.chain.intents import IntentState, take_wallet_signature
from hub.chain.messages import reference_of, transaction_of
from hub.chain.rpc import Node
from hub.chain.sender import LEASE, OPEN_MAX, build_once, measure_intents_once, reconcile_once, send_once
from hub.chain.sending import TRIES_MAX
from hub.db import create_database_engine, transaction
from hub.errors import IntentNotAwaiting, TransactionExpired, TransactionNotOurs, WalletSignatureInvalid
from tests.hub.chain.driving import REGISTER, STEPS, Driver, lapse
from tests.hub.chain.lying import lying_node

PAYMENT = 5_000_000


@pytest.fixture
def driver(cluster, engine):
    driver = Driver(cluster, engine)
    assert driver.check()
    return driver


def register(driver, wallet, valid_for_s=300):
    """Plan to register a wallet, which must sign."""
    step = instructions.register_user(
        driver.cluster.addresses,
        bytes(driver.cluster.hub.pubkey()),
        bytes(wallet.pubkey()),
        UserKind.CONSUMER,
    )
    return driver.plan(step, kind=REGISTER, wallet=wallet, valid_for_s=valid_for_s)


def sign(driver, wallet, intent_id):
    """The wallet signs what the hub built."""
    message = driver.intent(intent_id).newest.message
    with transaction(driver.engine) as connection:
        return take_wallet_signature(connection, intent_id, message, bytes(wallet.sign_message(message)), driver.now())


def test_a_payment_is_made_once_and_its_domain_hears_of_it(driver, new_wallet):
    wallet = new_wallet().pubkey()
    intent_id = driver.plan_payment(wallet, PAYMENT)
    ended = driver.finish(intent_id)
    assert driver.lamports(wallet) == PAYMENT
    assert [attempt.sends for attempt in ended.attempts] == [1]
    [told] = driver.told
    assert (told.outcome, told.intent_id, told.data) == ("finalized", intent_id, {"of": "a test"})
    assert told.signature == ended.newest.signature and told.slot == ended.slot
    landed = driver.cluster.ask(lambda node: node.signatures_of(reference_of(intent_id)))
    assert [each.signature for each in landed] == [ended.newest.hub_signature], "found by its business id"


def test_nothing_is_sent_before_it_is_stored_and_nothing_stored_before_it_is_signed(driver, new_wallet):
    intent_id = driver.plan_payment(new_wallet().pubkey())
    assert driver.step(build_once)
    built = driver.intent(intent_id)
    assert (built.state, len(built.attempts), built.newest.sends) == (IntentState.OPEN, 1, 0)
    status = driver.cluster.ask(lambda node: node.statuses([built.newest.hub_signature]))
    assert status.found == (None,)


def test_a_dropped_transaction_is_sent_again_with_the_same_bytes(driver, new_wallet):
    wallet = new_wallet().pubkey()
    driver.cluster.simulator.fail(dropped_transactions=2)
    ended = driver.finish(driver.plan_payment(wallet, PAYMENT))
    assert [attempt.sends for attempt in ended.attempts] == [3]
    assert driver.lamports(wallet) == PAYMENT


def test_a_lost_answer_is_not_a_lost_transaction(driver, new_wallet):
    wallet = new_wallet().pubkey()
    driver.cluster.simulator.fail(lost_answers=1)
    ended = driver.finish(driver.plan_payment(wallet, PAYMENT))
    assert [attempt.sends for attempt in ended.attempts] == [1]
    assert driver.lamports(wallet) == PAYMENT


def test_after_its_tries_it_is_unknown_and_never_failed_and_is_told_once(driver, new_wallet):
    wallet = new_wallet().pubkey()
    driver.cluster.simulator.fail(dropped_transactions=1_000)
    intent_id = driver.plan_payment(wallet, PAYMENT)
    unknown = driver.run_until(intent_id, IntentState.UNKNOWN)
    assert [attempt.sends for attempt in unknown.attempts] == [TRIES_MAX]
    assert [ended.outcome for ended in driver.told] == ["unknown"]
    lapse(driver)  # which ends the other fault
    ended = driver.finish(intent_id)
    assert len(ended.attempts) == 2, "a new transaction once the first provably never landed"
    assert [ended.outcome for ended in driver.told] == ["unknown", "finalized"]
    assert driver.lamports(wallet) == PAYMENT


def test_a_blockhash_that_expires_between_signing_and_sending_costs_nothing_but_time(driver, new_wallet):
    wallet = new_wallet().pubkey()
    intent_id = driver.plan_payment(wallet, PAYMENT)
    assert driver.step(build_once)
    lapse(driver)
    ended = driver.finish(intent_id)
    assert len(ended.attempts) == 2
    assert driver.lamports(wallet) == PAYMENT


def test_while_the_node_has_forgotten_when_it_may_have_landed_nothing_new_is_signed(driver, new_wallet):
    wallet = new_wallet().pubkey()
    driver.cluster.simulator.fail(dropped_transactions=1_000)
    intent_id = driver.plan_payment(wallet, PAYMENT)
    driver.run_until(intent_id, IntentState.UNKNOWN)
    lapse(driver)
    driver.cluster.simulator.fail(history_slots=5)
    for _ in range(5):
        driver.pass_time(100)
        driver.step(reconcile_once)
        driver.step(build_once)
    pruned = driver.intent(intent_id)
    assert (pruned.state, pruned.error_code, len(pruned.attempts)) == (IntentState.UNKNOWN, "history_pruned", 1)
    driver.cluster.simulator.fail()
    driver.pass_time(60)
    assert len(driver.finish(intent_id).attempts) == 2
    assert driver.lamports(wallet) == PAYMENT


def test_a_lagging_node_makes_nobody_pay_twice(driver, new_wallet):
    wallet = new_wallet().pubkey()
    intent_id = driver.plan_payment(wallet, PAYMENT)
    assert driver.step(build_once)
    assert driver.step(send_once)
    driver.cluster.simulator.fail(lag_slots=100)
    for _ in range(8):
        driver.pass_time(10)
        driver.step(send_once)
        driver.step(reconcile_once)
    assert driver.state(intent_id) == IntentState.UNKNOWN
    driver.cluster.simulator.fail()
    assert len(driver.finish(intent_id).attempts) == 1
    assert driver.lamports(wallet) == PAYMENT


def test_what_a_node_would_refuse_that_is_behind_the_signing_is_no_refusal(driver, new_wallet):
    intent_id = driver.plan_payment(new_wallet().pubkey(), PAYMENT)
    assert driver.step(build_once)
    driver.cluster.simulator.fail(lag_slots=100)
    assert driver.step(send_once)
    sent = driver.intent(intent_id).newest
    assert (sent.sends, sent.refusal_code) == (1, None)
    assert sent.refusal.startswith("chain_lags")
    driver.cluster.simulator.fail()
    driver.finish(intent_id)


def test_a_node_that_refuses_every_connection_makes_it_unknown_and_then_it_goes_on(driver, new_wallet):
    wallet = new_wallet().pubkey()
    intent_id = driver.plan_payment(wallet, PAYMENT)
    assert driver.step(build_once)
    driver.cluster.simulator.fail(refused_s=600)
    driver.run_until(intent_id, IntentState.UNKNOWN)
    assert not driver.check() and driver.gate.reason == "chain_away"
    driver.cluster.simulator.fail()
    while not driver.check():
        pass
    lapse(driver)
    driver.pass_time(60)
    driver.finish(intent_id)
    assert driver.lamports(wallet) == PAYMENT


def test_on_another_chain_nothing_is_signed_and_nothing_is_concluded(driver, new_wallet):
    sent, planned = new_wallet().pubkey(), new_wallet().pubkey()
    first = driver.plan_payment(sent, PAYMENT)
    assert driver.step(build_once)
    lapse(driver)
    driver.cluster.simulator.fail(genesis_hash="11111111111111111111111111111112")
    second = driver.plan_payment(planned, PAYMENT)
    # the minute between two checks: the gate is still open, and it is noticed all the same before anything is concluded
    for _ in range(12):
        driver.pass_time(20)
        for step in STEPS:
            driver.step(step)
    assert driver.state(first) == IntentState.UNKNOWN
    assert not driver.check() and driver.gate.reason == "chain_differs"
    assert not driver.step(build_once)
    assert driver.state(second) == IntentState.PLANNED and not driver.intent(second).attempts
    driver.pass_time(100)
    driver.step(reconcile_once)
    assert driver.state(first) == IntentState.UNKNOWN
    driver.cluster.simulator.fail()
    assert driver.check()
    driver.pass_time(60)
    driver.finish(first)
    driver.finish(second)
    assert (driver.lamports(sent), driver.lamports(planned)) == (PAYMENT, PAYMENT)


def test_before_the_first_check_nothing_is_signed_or_sent_or_asked(cluster, engine, new_wallet):
    """A sender that begins anew finds open intents, and must not take its own ignorance for the node's silence."""
    driver = Driver(cluster, engine)
    intent_id = driver.plan_payment(new_wallet().pubkey())
    assert not any(driver.step(step) for step in STEPS)
    assert driver.gate == ChainGate()
    assert driver.state(intent_id) == IntentState.PLANNED


def test_what_the_program_refuses_in_simulation_fails_at_once_for_nobody_has_signed_it(driver, new_wallet):
    wallet = new_wallet()
    driver.cluster.register_user(wallet)
    intent_id = register(driver, wallet)
    assert driver.step(build_once)
    failed = driver.intent(intent_id)
    assert (failed.state, failed.error_code, failed.attempts) == (IntentState.FAILED, "already_exists", ())
    assert [(told.outcome, told.error_code) for told in driver.told] == [("failed", "already_exists")]


def test_what_the_hub_cannot_pay_for_is_not_refused_but_waits(driver, new_wallet):
    """The system program says so in an error of an instruction, as if the program had refused it for good."""
    intent_id = driver.plan_payment(new_wallet().pubkey(), 10**17)
    assert driver.step(build_once)
    waiting = driver.intent(intent_id)
    assert (waiting.state, waiting.attempts, waiting.setbacks) == (IntentState.PLANNED, (), 1)
    assert driver.told == []


def test_no_more_is_signed_than_can_be_sent_before_it_lapses(driver, new_wallet):
    wallet = new_wallet().pubkey()
    opened = [driver.plan_payment(wallet, PAYMENT) for _ in range(OPEN_MAX)]
    with transaction(driver.engine) as connection:
        connection.exec_driver_sql("UPDATE chain_intents SET state = 'open', next_at = now() + interval '1 hour'")
    waiting = driver.plan_payment(wallet, PAYMENT)
    assert not driver.step(build_once)
    with transaction(driver.engine) as connection:
        connection.exec_driver_sql("UPDATE chain_intents SET state = 'planned' WHERE intent_id = %s", (opened[0],))
    assert driver.step(build_once)
    assert driver.state(waiting) == IntentState.OPEN


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result["value"].update(lastValidBlockHeight=2**62),
        lambda result: result["context"].update(slot=2**62),
        lambda result: result["context"].update(slot=1),
    ],
    ids=["a height that never comes", "a slot that never comes", "a slot long ago"],
)
def test_what_a_node_makes_up_about_a_blockhash_is_not_signed_for(cluster, engine, new_wallet, change):
    """It could never be proven to have lapsed; or the node is so far behind that its simulation means nothing."""
    with lying_node(cluster.rpc_url) as node:
        driver = Driver(cluster, engine, node.url)
        assert driver.check()
        intent_id = driver.plan_payment(new_wallet().pubkey(), PAYMENT)

        def lie(method, _params, result):
            if method == "getLatestBlockhash":
                change(result)
            return result

        node.lie = lie
        driver.step(build_once)
        waiting = driver.intent(intent_id)
        assert (waiting.state, waiting.attempts) == (IntentState.PLANNED, ())
        node.lie = None
        driver.pass_time(10)
        assert driver.step(build_once)
        assert driver.state(intent_id) == IntentState.OPEN


def test_a_node_that_is_behind_what_was_read_is_not_asked_whether_a_transaction_would_be_refused(driver, new_wallet):
    wallet = new_wallet()
    driver.cluster.register_user(wallet)
    intent_id = register(driver, wallet)
    with transaction(driver.engine) as connection:
        open_cursor(connection, driver.cluster.genesis_hash, driver.cluster.program_id)
        move_cursor(connection, driver.cluster.ask(lambda node: node.finalized()).slot + 5_000, 0, b"s" * 64, None)
    assert driver.step(build_once)
    assert driver.state(intent_id) == IntentState.PLANNED


def test_what_preflight_refuses_fails_only_once_it_can_land_no_more(driver, new_wallet):
    wallet = new_wallet()
    intent_id = register(driver, wallet)
    assert driver.step(build_once)
    sign(driver, wallet, intent_id)
    driver.cluster.register_user(wallet)
    for _ in range(8):
        driver.step(send_once)
        driver.pass_time(9)
    refused = driver.intent(intent_id)
    assert (refused.state, refused.newest.refusal_code) == (IntentState.OPEN, "already_exists")
    lapse(driver)
    failed = driver.run_until(intent_id, IntentState.FAILED)
    assert failed.error_code == "already_exists"


def test_a_wallet_signs_and_only_then_it_is_sent(driver, new_wallet):
    wallet = new_wallet()
    intent_id = register(driver, wallet)
    assert driver.step(build_once)
    assert driver.state(intent_id) == IntentState.AWAITING_WALLET
    assert not driver.step(send_once)
    assert sign(driver, wallet, intent_id).state == IntentState.OPEN
    with pytest.raises(IntentNotAwaiting):
        sign(driver, wallet, intent_id)
    driver.finish(intent_id)
    user = driver.cluster.addresses.user(bytes(wallet.pubkey()))
    assert driver.cluster.ask(lambda node: node.find_account(user)) is not None


def test_no_other_message_and_no_other_signature_is_taken(driver, new_wallet):
    wallet, other = new_wallet(), new_wallet()
    intent_id = register(driver, wallet)
    assert driver.step(build_once)
    message = driver.intent(intent_id).newest.message
    flipped = message[:-1] + bytes([message[-1] ^ 1])
    with transaction(driver.engine) as connection:
        with pytest.raises(TransactionNotOurs):
            take_wallet_signature(connection, intent_id, flipped, bytes(wallet.sign_message(flipped)), driver.now())
        for signature in (bytes(other.sign_message(message)), bytes(wallet.sign_message(flipped)), b"", bytes(64)):
            with pytest.raises(WalletSignatureInvalid):
                take_wallet_signature(connection, intent_id, message, signature, driver.now())
    assert driver.state(intent_id) == IntentState.AWAITING_WALLET


def test_a_wallet_that_takes_its_time_gets_another_transaction_until_its_time_is_over(driver, new_wallet):
    wallet = new_wallet()
    intent_id = register(driver, wallet, valid_for_s=300)
    assert driver.step(build_once)
    first = driver.intent(intent_id).newest
    lapse(driver)
    driver.pass_time(11)
    assert driver.step(reconcile_once)
    assert driver.step(build_once)
    second = driver.intent(intent_id).newest
    assert second.message != first.message
    with transaction(driver.engine) as connection, pytest.raises(TransactionExpired):
        take_wallet_signature(
            connection, intent_id, first.message, bytes(wallet.sign_message(first.message)), driver.now()
        )
    driver.pass_time(300)
    driver.step(reconcile_once)
    assert driver.state(intent_id) == IntentState.AWAITING_WALLET, "what it was given may still land"
    lapse(driver)
    expired = driver.run_until(intent_id, IntentState.EXPIRED)
    assert expired.error_code == "wallet_too_late"
    with pytest.raises(TransactionExpired):
        sign(driver, wallet, intent_id)
    assert [told.outcome for told in driver.told] == ["expired"]


def test_a_wallet_may_send_by_itself_what_the_hub_has_signed(driver, new_wallet):
    """It knows the transaction's id, which is the hub's signature."""
    wallet = new_wallet()
    intent_id = register(driver, wallet)
    assert driver.step(build_once)
    built = driver.intent(intent_id).newest
    wire = transaction_of(built.message, [built.hub_signature, bytes(wallet.sign_message(built.message))])
    driver.cluster.ask(lambda node: node.send(wire))
    assert driver.finish(intent_id).signature == built.signature


def test_two_senders_at_once_do_each_thing_once(cluster, database_url, engine, new_wallet):
    other_engine = create_database_engine(database_url, "tests-2")
    drivers = [Driver(cluster, engine), Driver(cluster, other_engine)]
    wallets = [new_wallet().pubkey() for _ in range(6)]
    intents = [drivers[0].plan_payment(wallet, PAYMENT) for wallet in wallets]

    async def run():
        async with Node(cluster.rpc_url) as node:
            senders = [driver.sender(node) for driver in drivers]
            while any(drivers[0].state(each) != IntentState.FINALIZED for each in intents):
                await asyncio.gather(*(step(sender) for sender in senders for step in STEPS))

    for driver in drivers:
        assert driver.check()
    asyncio.run(asyncio.wait_for(run(), 60))
    other_engine.dispose()
    assert [drivers[0].lamports(wallet) for wallet in wallets] == [PAYMENT] * 6
    assert all(len(drivers[0].intent(each).attempts) == 1 for each in intents)
    assert len(drivers[0].told) + len(drivers[1].told) == 6


def test_a_sender_that_died_while_building_is_taken_over_and_what_it_signed_is_worth_nothing(driver, new_wallet):
    wallet = new_wallet().pubkey()
    intent_id = driver.plan_payment(wallet, PAYMENT)
    with transaction(driver.engine) as connection:
        dead = store.lease_due(connection, [IntentState.PLANNED], driver.now(), driver.now() + LEASE)
    assert not driver.step(build_once), "somebody is at it"
    driver.pass_time(LEASE.total_seconds() + 1)
    driver.finish(intent_id)
    with transaction(driver.engine) as connection:
        assert not store.change_state(connection, dead.intent, IntentState.OPEN, dead.lease_token)
    assert driver.lamports(wallet) == PAYMENT


@pytest.mark.parametrize("sent", [False, True])
def test_a_sender_that_died_around_its_sending_loses_nothing(driver, new_wallet, sent):
    """Counted and not sent, or sent and not written down: the next one sends the same bytes, and they land once."""
    wallet = new_wallet().pubkey()
    intent_id = driver.plan_payment(wallet, PAYMENT)
    assert driver.step(build_once)
    with transaction(driver.engine) as connection:
        dead = store.lease_due(connection, [IntentState.OPEN], driver.now(), driver.now() + LEASE)
        store.count_send(connection, dead.intent.newest)
    if sent:
        attempt = dead.intent.newest
        driver.cluster.ask(lambda node: node.send(transaction_of(attempt.message, [attempt.hub_signature])))
    driver.pass_time(LEASE.total_seconds() + 1)
    ended = driver.finish(intent_id)
    assert len(ended.attempts) == 1
    assert driver.lamports(wallet) == PAYMENT
    with transaction(driver.engine) as connection:
        assert not store.postpone(connection, dead, driver.now() + timedelta(days=1)), "it can say nothing any more"


def test_a_reaction_that_fails_takes_the_end_back_and_is_tried_again(driver, new_wallet):
    intent_id = driver.plan_payment(new_wallet().pubkey())
    driver.run_until(intent_id, IntentState.OPEN)
    refusals = iter([ValueError("not now")])
    react = driver.told.append

    class Told(list):
        def append(self, ended):
            for fault in refusals:
                raise fault
            react(ended)

    driver.told = Told()
    assert driver.finish(intent_id).state == IntentState.FINALIZED


def test_the_gauges_tell_what_has_not_ended(driver, new_wallet):
    driver.plan_payment(new_wallet().pubkey())
    with transaction(driver.engine) as connection:
        assert measure_intents_once(connection, driver.now()) == 1
