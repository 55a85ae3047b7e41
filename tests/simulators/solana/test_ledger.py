"""The ledger's rules: a transaction lands once for ever, blockhashes lapse, slots follow the clock, levels are true."""

from __future__ import annotations

import pytest
from solders import system_program as system
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from simulators.solana.facts import SlotConfirmed, SlotMade, SlotRooted, TransactionProcessed
from simulators.solana.ledger import BLOCKHASH_SLOTS, Pace
from simulators.solana.storage import LedgerInUse, LedgerUnreadable, Storage
from tests.simulators.solana.ledger_at_hand import FEE_LAMPORTS, SOL, LedgerAtHand, pay

CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
NONCE_BYTES = 80
RENT_EXEMPT_OF_NOTHING = 890_880


@pytest.fixture
def hand(tmp_path):
    opened = LedgerAtHand(tmp_path)
    yield opened
    opened.ledger.close()


# ---- once


def test_a_transaction_lands_once(hand):
    ada, otto = hand.rich(), Keypair().pubkey()
    transaction = hand.signed(pay(ada, otto, SOL), by=ada)
    assert hand.send(transaction).err is None
    assert hand.send(transaction) is None
    hand.pass_slots(5)
    assert hand.send(transaction) is None
    assert (hand.lamports(ada.pubkey()), hand.lamports(otto)) == (9 * SOL - FEE_LAMPORTS, SOL)


def test_a_transaction_lands_once_whatever_came_after_it_and_whoever_forgot(hand):
    ada, otto = hand.rich(), Keypair().pubkey()
    transaction = hand.signed(pay(ada, otto, SOL), by=ada)
    hand.send(transaction)
    for number in range(40):  # bare LiteSVM forgets after 32
        assert hand.do(pay(ada, otto, SOL // 100 + number), by=ada).err is None
    hand.reopen()
    before = hand.lamports(otto)
    assert hand.send(transaction) is None
    assert hand.lamports(otto) == before


def test_a_transaction_that_failed_lands_once_too_and_costs_its_fee(hand):
    ada = hand.rich()
    transaction = hand.signed(pay(ada, Keypair().pubkey(), 100 * SOL), by=ada)
    assert hand.send(transaction).err == {"InstructionError": [0, {"Custom": 1}]}
    hand.do(pay(hand.ledger.faucet, ada.pubkey(), 200 * SOL), by=hand.ledger.faucet)
    assert hand.send(transaction) is None, "now it would succeed"
    assert hand.lamports(ada.pubkey()) == 210 * SOL - FEE_LAMPORTS


def test_a_message_lands_once_whoever_signs_it_how(hand):
    """A signature can be made in many ways; what it says is what must not happen twice."""
    ada, otto = hand.rich(), Keypair()
    message = hand.signed(pay(ada, otto.pubkey(), SOL), by=ada).message
    first = VersionedTransaction(message, [ada])
    assert hand.send(first).err is None
    other = VersionedTransaction.populate(message, [Signature.from_bytes(bytes(first.signatures[0])[::-1])])
    assert hand.ledger.find_refusal(other, hand.ledger.slot) == "AlreadyProcessed"


def test_nobody_pays_for_what_nobody_signed_or_can_pay(hand):
    ada, poor = hand.rich(), Keypair()
    message = hand.signed(pay(ada, poor.pubkey(), SOL), by=ada).message
    assert hand.send(VersionedTransaction.populate(message, [poor.sign_message(b"something else")])) is None
    assert hand.do(pay(poor, ada.pubkey(), 1), by=poor) is None
    assert hand.lamports(ada.pubkey()) == 10 * SOL
    assert hand.ledger.storage.newest_number() == 1


def test_a_program_that_is_not_there_costs_its_caller_the_fee(hand):
    ada = hand.rich()
    landed = hand.do(Instruction(Pubkey.new_unique(), b"", []), by=ada)
    assert landed.err == "ProgramAccountNotFound"
    hand.reopen()
    assert hand.lamports(ada.pubkey()) == 10 * SOL - FEE_LAMPORTS
    poor = hand.rich(RENT_EXEMPT_OF_NOTHING)
    hand.do(pay(poor, ada.pubkey(), RENT_EXEMPT_OF_NOTHING - FEE_LAMPORTS), by=poor)
    assert hand.do(Instruction(Pubkey.new_unique(), b"", []), by=poor) is None


# ---- blockhashes


def test_a_blockhash_can_be_used_for_150_slots_and_no_longer(hand):
    ada, old = hand.rich(), hand.blockhash
    hand.pass_slots(BLOCKHASH_SLOTS)
    assert hand.do(pay(ada, Keypair().pubkey(), SOL), by=ada, blockhash=old).err is None
    hand.pass_slots(1)
    assert hand.do(pay(ada, Keypair().pubkey(), SOL), by=ada, blockhash=old) is None


def test_skipped_slots_make_every_blockhash_lapse_and_the_clock_stand(hand):
    ada, old = hand.rich(), hand.blockhash
    transaction = hand.signed(pay(ada, Keypair().pubkey(), SOL), by=ada)
    slot, began = hand.ledger.slot, hand.ledger.began_unix_ms(hand.ledger.slot)
    hand.ledger.skip(BLOCKHASH_SLOTS + 1)
    assert hand.ledger.slot == slot + BLOCKHASH_SLOTS + 1
    assert hand.send(transaction) is None
    assert hand.ledger.find_refusal(transaction, hand.ledger.slot) == "BlockhashNotFound"
    assert hand.ledger.began_unix_ms(hand.ledger.slot) == began
    assert hand.reopen().slot == slot + BLOCKHASH_SLOTS + 1
    assert not hand.ledger.has_valid_blockhash(old, hand.ledger.slot)


def test_no_two_ledgers_have_a_hash_in_common(tmp_path):
    one, other = LedgerAtHand(tmp_path / "one"), LedgerAtHand(tmp_path / "other")
    hashes = [
        {each.ledger.genesis_hash, *(each.ledger.blockhashes.of(slot) for slot in range(300))} for each in (one, other)
    ]
    assert len(hashes[0] | hashes[1]) == 602
    genesis = one.ledger.genesis_hash
    assert one.reopen().genesis_hash == genesis
    one.ledger.close()
    other.ledger.close()


# ---- time


def test_slots_and_the_clock_on_chain_follow_the_clock_also_while_nobody_serves(hand):
    began = hand.ledger.slot
    hand.pass_slots(10)
    assert hand.ledger.slot == began + 10
    hand.reopen(after_ms=3_600_000)
    assert hand.ledger.slot == began + 10 + 9_000
    clock = hand.ledger.account_at(CLOCK, hand.ledger.slot).data
    assert int.from_bytes(clock[:8], "little") == hand.ledger.slot
    assert int.from_bytes(clock[32:40], "little") == hand.now_unix_ms // 1000


def test_a_clock_that_is_set_back_stops_the_slots_and_takes_none_back(hand):
    hand.pass_slots(100)
    slot = hand.ledger.slot
    hand.rich()
    hand.now_unix_ms -= 20_000
    hand.ledger.advance()
    assert hand.ledger.slot == slot
    assert hand.reopen().slot == slot
    hand.reopen(after_ms=20_000 + 400)
    assert hand.ledger.slot == slot + 1


def test_another_pace_begins_where_the_old_one_ended(hand):
    hand.pass_slots(10)
    slot = hand.ledger.slot
    began = hand.ledger.began_unix_ms(slot - 5)
    hand.reopen(after_ms=800, pace=Pace(slot_ms=100))
    assert hand.ledger.slot == slot + 2
    hand.pass_slots(10)
    assert hand.ledger.slot == slot + 12
    assert hand.ledger.began_unix_ms(slot - 5) == began
    assert hand.ledger.began_unix_ms(slot + 12) == hand.now_unix_ms
    times = [hand.ledger.began_unix_ms(each) for each in range(hand.ledger.slot)]
    assert times == sorted(times)


# ---- levels


def test_a_payment_is_processed_then_confirmed_then_finalized(hand):
    ada = hand.rich()
    address, slot = ada.pubkey(), hand.ledger.slot

    def seen():
        return [hand.lamports(address, each) for each in ("processed", "confirmed", "finalized")]

    assert seen() == [10 * SOL, 0, 0]
    hand.pass_slots(1)
    assert seen() == [10 * SOL, 10 * SOL, 0]
    hand.pass_slots(30)
    assert seen() == [10 * SOL, 10 * SOL, 0]
    hand.reopen()
    assert seen() == [10 * SOL, 10 * SOL, 0]
    hand.pass_slots(1)
    assert seen() == [10 * SOL] * 3
    assert hand.ledger.slot_at("finalized") == slot


def test_what_a_program_owned_is_read_as_of_a_slot(hand):
    ada, wallet = hand.rich(), Keypair()
    hand.pass_slots(1)
    before = hand.ledger.slot - 1
    hand.do(pay(ada, wallet.pubkey(), SOL), by=ada)
    hand.do(pay(wallet, ada.pubkey(), SOL - FEE_LAMPORTS), by=wallet)
    then = dict(hand.ledger.owned_at(system.ID, before))
    now = dict(hand.ledger.owned_at(system.ID, hand.ledger.slot))
    assert then[ada.pubkey()].lamports == 10 * SOL
    assert now[ada.pubkey()].lamports == 10 * SOL - 2 * FEE_LAMPORTS
    assert wallet.pubkey() not in then and wallet.pubkey() not in now


def test_a_simulation_sees_what_the_slot_it_is_made_at_has(hand):
    hand.pass_slots(1)
    ada = hand.rich()
    transaction = hand.signed(pay(ada, Keypair().pubkey(), SOL), by=ada)
    before = hand.ledger.slot - 1
    assert hand.ledger.simulate(transaction, before, verify=True)[1].err == "AccountNotFound"
    assert hand.ledger.simulate(transaction, hand.ledger.slot, verify=True)[1].err is None
    assert hand.lamports(ada.pubkey()) == 10 * SOL


def test_what_happens_is_told_in_its_order(hand):
    facts = []
    stop = hand.ledger.listen(facts.append)
    ada = hand.rich()
    slot = hand.ledger.slot
    hand.pass_slots(1)
    hand.pass_slots(31)
    stop()
    hand.pass_slots(1)
    processed = facts[0]
    assert [type(fact) for fact in facts] == [
        *(TransactionProcessed, SlotMade, SlotConfirmed, SlotRooted),
        *(SlotMade, SlotConfirmed, SlotRooted),
    ]
    assert facts[1] == SlotMade(slot + 1, slot, slot - 31)
    assert facts[2] == SlotConfirmed(slot, (processed,))
    assert facts[6] == SlotRooted(slot, (processed,))
    assert str(ada.pubkey()) in processed.mentions
    assert {str(each.address): each.account.lamports for each in processed.accounts}[str(ada.pubkey())] == 10 * SOL


def test_what_is_not_final_at_a_restart_is_told_when_it_is(hand):
    ada, slot = hand.rich(), hand.ledger.slot
    hand.reopen()
    facts = []
    hand.ledger.listen(facts.append)
    hand.pass_slots(40)
    told = {type(fact): fact.transactions for fact in facts if getattr(fact, "slot", 0) == slot}
    assert set(told) == {SlotConfirmed, SlotRooted}
    accounts = {each.address: each.account.lamports for each in told[SlotRooted][0].accounts}
    assert accounts[ada.pubkey()] == 10 * SOL


# ---- what the runtime needs


def test_an_account_must_be_free_of_rent(hand):
    ada = hand.rich()
    landed = hand.do(pay(ada, Keypair().pubkey(), RENT_EXEMPT_OF_NOTHING - 1), by=ada)
    assert landed.err == {"InsufficientFundsForRent": {"account_index": 1}}
    assert hand.do(pay(ada, Keypair().pubkey(), RENT_EXEMPT_OF_NOTHING), by=ada).err is None


def _nonce_account(hand, owner):
    account = Keypair()
    create = system.create_account(
        system.CreateAccountParams(
            from_pubkey=owner.pubkey(),
            to_pubkey=account.pubkey(),
            lamports=SOL,
            space=NONCE_BYTES,
            owner=system.ID,
        )
    )
    begin = system.initialize_nonce_account(
        system.InitializeNonceAccountParams(nonce_pubkey=account.pubkey(), authority=owner.pubkey())
    )
    assert hand.do(create, begin, by=owner, also=(account,)).err is None
    hand.pass_slots(1)
    return account.pubkey()


def _nonce(hand, account):
    return Hash.from_bytes(hand.ledger.account_at(account, hand.ledger.slot).data[40:72])


def _advance(account, owner):
    return system.advance_nonce_account(
        system.AdvanceNonceAccountParams(nonce_pubkey=account, authorized_pubkey=owner.pubkey())
    )


def test_a_durable_nonce_stands_for_a_blockhash_until_it_is_used(hand):
    ada, otto = hand.rich(), Keypair().pubkey()
    account = _nonce_account(hand, ada)
    nonce = _nonce(hand, account)
    hand.pass_slots(1_000)
    hand.reopen()
    spent = hand.signed(_advance(account, ada), pay(ada, otto, SOL), by=ada, blockhash=nonce)
    other = hand.signed(_advance(account, ada), pay(ada, otto, 2 * SOL), by=ada, blockhash=nonce)
    assert hand.send(spent).err is None
    assert hand.send(spent) is None
    hand.pass_slots(1)
    assert hand.send(other) is None, "its nonce has been used"
    assert hand.lamports(otto) == SOL


def test_a_nonce_is_used_up_also_by_a_transaction_that_fails(hand):
    ada = hand.rich()
    account = _nonce_account(hand, ada)
    nonce = _nonce(hand, account)
    failing = hand.signed(_advance(account, ada), pay(ada, account, 100 * SOL), by=ada, blockhash=nonce)
    assert hand.send(failing).err == {"InstructionError": [1, {"Custom": 1}]}
    assert _nonce(hand, account) != nonce
    hand.pass_slots(1)
    hand.reopen()
    assert hand.do(_advance(account, ada), pay(ada, account, SOL), by=ada, blockhash=nonce) is None
    again = hand.do(_advance(account, ada), pay(ada, account, SOL), by=ada, blockhash=_nonce(hand, account))
    assert again.err is None


def test_a_nonce_of_this_slot_cannot_be_used_in_it(hand):
    ada = hand.rich()
    account = _nonce_account(hand, ada)
    assert hand.do(_advance(account, ada), by=ada, blockhash=_nonce(hand, account)).err is None
    same_slot = hand.do(_advance(account, ada), pay(ada, account, SOL), by=ada, blockhash=_nonce(hand, account))
    assert same_slot is None, "else two transactions could use one nonce"


def test_a_lookup_table_gives_accounts_their_numbers_from_the_next_slot_on(hand):
    ada, otto = hand.rich(), Keypair().pubkey()
    hand.pass_slots(2)
    create, table = _lookup_table(ada, hand.ledger.slot - 1)
    assert hand.do(create, by=ada).err is None
    assert hand.do(_extend(table, ada, otto), by=ada).err is None
    hand.pass_slots(1)
    hand.reopen()
    landed = hand.send(_through(hand, table, ada, otto))
    assert landed.err is None
    assert hand.lamports(otto) == SOL
    kept = hand.ledger.storage.find_landed(bytes(Signature.from_string(landed.signature)))
    assert kept.record["loadedAddresses"] == {"writable": [str(otto)], "readonly": []}
    assert str(otto) in landed.mentions


def _lookup_table(owner, slot):
    return system.create_lookup_table(
        system.CreateLookupTableParams(authority_address=owner.pubkey(), payer_address=owner.pubkey(), recent_slot=slot)
    )


def _extend(table, owner, *addresses):
    return system.extend_lookup_table(
        system.ExtendLookupTableParams(
            lookup_table_address=table,
            authority_address=owner.pubkey(),
            payer_address=owner.pubkey(),
            new_addresses=list(addresses),
        )
    )


def _through(hand, table, payer, *addresses):
    known = AddressLookupTableAccount(table, list(addresses))
    message = MessageV0.try_compile(payer.pubkey(), [pay(payer, addresses[0], SOL)], [known], hand.blockhash)
    return VersionedTransaction(message, [payer])


def test_a_table_that_lacks_an_account_lands_nothing(hand):
    ada, otto = hand.rich(), Keypair().pubkey()
    assert hand.send(_through(hand, Keypair().pubkey(), ada, otto)) is None
    assert hand.lamports(ada.pubkey()) == 10 * SOL


# ---- the file


def test_a_ledger_of_another_version_is_not_opened(tmp_path):
    storage = Storage(tmp_path)
    storage._db.execute("PRAGMA user_version=2")
    storage.close()
    with pytest.raises(LedgerUnreadable):
        Storage(tmp_path)


def test_a_ledger_is_opened_once_at_a_time(hand):
    with pytest.raises(LedgerInUse):
        Storage(hand.directory)
