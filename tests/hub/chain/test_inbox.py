"""What the program told is acted on once, in the chain's order; what cannot be is set aside and holds up no other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import base58
import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from sqlalchemy import Engine, text

from hub.chain import inbox, inbox_store, mirrors
from hub.chain.addresses import Addresses
from hub.chain.events import read_logs
from hub.chain.inbox import BATCH_EVENTS_MAX, EVENT_SET_ASIDE, Reactions, back_off_s, new_events, process_once
from hub.chain.intents import IntentState, Plan, get_intent, plan_intent
from hub.db import transaction
from hub.errors import ChainDiffers
from tests.hub.chain.telling import PROGRAM, SETTLE, config_bytes, event_bytes, meter_bytes, told, user_bytes

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
GENESIS = b"\x01" * 32


class Poison(Exception):
    pass


@dataclass
class Community:
    """The domains: they write down what they are told, and choke on what they are told to choke on."""

    engine: Engine
    ended: list[tuple[UUID, str, str | None]] = field(default_factory=list)
    alarms: list[inbox.Trouble] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)

    def process(self, now: datetime = NOON) -> int:
        reactions = Reactions({"mint": self._on_ended}, [self._on_event])
        return process_once(self.engine, reactions, lambda _, trouble, __: self.alarms.append(trouble), now)

    def process_all(self, now: datetime = NOON) -> None:
        while self.process(now):
            pass

    def _on_event(self, connection, stored, before, now):
        name = _name(stored.event.account)
        if name in self.poison:
            raise Poison(name)
        before_wh = None if before is None else _wh(before.account)
        values = {"name": name, "wh": _wh(stored.event.account), "before_wh": before_wh}
        connection.execute(text("INSERT INTO heard (name, wh, before_wh) VALUES (:name, :wh, :before_wh)"), values)

    def _on_ended(self, connection, ended, now):
        self.ended.append((ended.intent_id, ended.outcome, ended.signature))

    def tell(self, slot: int, *payloads: bytes, signature: bytes | None = None, position: int = 0) -> bytes:
        """A transaction that printed this, as the watcher writes it."""
        signature = signature or uuid4().bytes * 4
        printed = read_logs(told(*payloads), PROGRAM)
        with transaction(self.engine) as connection:
            inbox_store.insert_events(connection, new_events(signature, slot, position, 1, printed), NOON)
        return signature

    @property
    def heard(self) -> list[tuple[str, int]]:
        return [(name, int(wh)) for name, wh, _ in self._heard()]

    @property
    def befores(self) -> list[int | None]:
        return [None if before_wh is None else int(before_wh) for _, _, before_wh in self._heard()]

    def _heard(self):
        with self.engine.connect() as connection:
            return connection.execute(text("SELECT name, wh, before_wh FROM heard ORDER BY number")).all()

    def states(self) -> list[str]:
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT state FROM chain_events ORDER BY slot, position, event_no"))
            return [row.state for row in rows]

    def surplus_wh(self, meter_id: str) -> int | None:
        with transaction(self.engine) as connection:
            meter = mirrors.find_meter(connection, meter_id)
        return None if meter is None else meter.surplus_wh


def _name(account):
    return getattr(account, "meter_id", "user")


def _wh(account):
    return getattr(account, "surplus_wh", 0)


def _meter(meter_id: str, surplus_wh: int, business_id: UUID | None = None) -> bytes:
    return event_bytes(meter_bytes(meter_id, surplus_wh=surplus_wh), SETTLE, business_id)


@pytest.fixture
def community(engine):
    with transaction(engine) as connection:
        columns = "number bigint GENERATED ALWAYS AS IDENTITY, name text, wh numeric(20), before_wh numeric(20)"
        connection.execute(text(f"CREATE TABLE heard ({columns})"))
    return Community(engine)


def _plan(engine, kind="mint", subject="meter:roof") -> UUID:
    intent_id = uuid4()
    instruction = Instruction(PROGRAM, b"\x04", [AccountMeta(Pubkey.default(), False, False)])
    with transaction(engine) as connection:
        plan_intent(connection, Plan(intent_id, kind, subject, (instruction,), 10_000), NOON)
    return intent_id


# --- what cannot be ---------------------------------------------------------------------------------------------


def test_an_account_at_an_address_that_is_not_its_own_is_set_aside(community, engine):
    """Only a node that lies can tell of a second Config; believed once, nobody would know which is the true one."""
    with transaction(engine) as connection:
        inbox.open_cursor(connection, GENESIS, PROGRAM)
    false_config = config_bytes()[:8] + b"\x77" * 32 + config_bytes()[40:]
    community.tell(8, event_bytes(config_bytes()))
    community.tell(9, event_bytes(false_config))
    community.process_all()
    assert community.states() == ["processed", "set_aside"]
    assert [alarm.kind for alarm in community.alarms] == [EVENT_SET_ASIDE]
    with transaction(engine) as connection:
        assert mirrors.find_config(connection).address == Addresses(PROGRAM).config()


def test_what_another_process_has_processed_meanwhile_is_not_set_aside(community, engine):
    community.tell(9, _meter("roof", 900))
    community.process_all()
    with transaction(engine) as connection:
        [event_id] = connection.execute(text("SELECT event_id FROM chain_events")).scalars()
        assert not inbox_store.set_aside(connection, event_id, "too late", NOON)
    assert community.states() == ["processed"]


# --- order and repetition --------------------------------------------------------------------------------------


def test_events_are_processed_in_the_chains_order_whatever_order_they_were_read_in(community):
    community.tell(9, _meter("roof", 900))
    community.tell(7, _meter("roof", 702), position=1)
    community.tell(7, _meter("roof", 701), _meter("barn", 701))
    community.process_all()
    assert community.heard == [("roof", 701), ("barn", 701), ("roof", 702), ("roof", 900)]
    assert community.befores == [None, None, 701, 702]
    assert (community.surplus_wh("roof"), community.surplus_wh("barn")) == (900, 701)
    assert set(community.states()) == {"processed"}


def test_an_event_that_is_read_again_is_not_processed_again(community):
    signature = community.tell(7, _meter("roof", 1), _meter("barn", 1))
    community.process_all()
    community.tell(7, _meter("roof", 1), _meter("barn", 1), signature=signature)
    assert community.process() == 0
    assert len(community.heard) == 2


def test_an_older_event_that_is_read_late_is_acted_on_and_overwrites_nothing(community):
    community.tell(9, _meter("roof", 900))
    community.process_all()
    community.tell(8, _meter("roof", 800))
    community.process_all()
    assert community.heard == [("roof", 900), ("roof", 800)]
    assert community.surplus_wh("roof") == 900


def test_more_events_than_a_batch_has_are_all_processed_in_order(community):
    for number in range(3):
        payloads = [_meter(f"m-{number}-{each}", each) for each in range(BATCH_EVENTS_MAX - 1)]
        community.tell(number + 1, *payloads)
    looked_at = []
    while done := community.process():
        looked_at.append(done)
    assert looked_at == [100, 100, 97]
    assert [name for name, _ in community.heard] == [f"m-{a}-{b}" for a in range(3) for b in range(99)]


def test_two_processors_at_once_process_each_event_once(community, engine):
    for slot in range(8):  # more than a batch
        community.tell(slot, *[_meter(f"m-{each}", slot) for each in range(20)])
    others = [Community(engine) for _ in range(2)]
    faults: list[BaseException] = []

    def work(one: Community) -> None:
        try:
            for _ in range(10):
                one.process()
        except BaseException as fault:  # noqa: BLE001 - shown by the test
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    others[0].process_all()
    assert not faults
    assert sorted(community.heard) == sorted((f"m-{each}", slot) for slot in range(8) for each in range(20))


# --- intents ---------------------------------------------------------------------------------------------------


def test_a_mint_that_is_seen_is_finalized_once_with_its_transaction(community, engine):
    intent_id = _plan(engine)
    signature = community.tell(7, _meter("roof", 1, intent_id), _meter("roof", 2, intent_id))
    community.process_all()
    assert community.ended == [(intent_id, "finalized", base58.b58encode(signature).decode())]
    with transaction(engine) as connection:
        intent = get_intent(connection, intent_id)
    assert (intent.state, intent.slot) == (IntentState.FINALIZED, 7)


def test_a_business_id_that_no_intent_of_ours_has_ends_nothing(community):
    community.tell(7, _meter("roof", 1, uuid4()))
    community.process_all()
    assert community.ended == []
    assert community.surplus_wh("roof") == 1


def test_the_reaction_to_a_mint_and_the_mark_are_one_transaction(community, engine):
    """A crash between them would mint seals that the hub does not know to be minted."""
    intent_id = _plan(engine)
    community.tell(7, _meter("roof", 1, intent_id))
    community.poison.add("roof")
    community.process()
    with transaction(engine) as connection:
        assert get_intent(connection, intent_id).state is IntentState.PLANNED, "rolled back with the event"
    assert community.surplus_wh("roof") is None
    community.poison.clear()
    community.process_all(NOON + timedelta(seconds=2))
    with transaction(engine) as connection:
        assert get_intent(connection, intent_id).state is IntentState.FINALIZED
    assert community.surplus_wh("roof") == 1


# --- poison ----------------------------------------------------------------------------------------------------


def test_poison_is_set_aside_with_one_alarm_and_other_accounts_go_on(community):
    community.poison.add("roof")
    community.tell(1, _meter("barn", 1), _meter("roof", 1), _meter("mill", 1))
    community.tell(2, _meter("roof", 2), _meter("barn", 2))
    community.process_all()
    assert community.heard == [("barn", 1), ("mill", 1), ("barn", 2)]
    assert community.states() == ["processed", "set_aside", "processed", "waiting", "processed"]
    [alarm] = community.alarms
    assert alarm.kind == EVENT_SET_ASIDE
    assert "Poison" in str(alarm.detail["error"])


def test_what_was_set_aside_is_tried_again_and_what_waited_behind_it_follows_in_order(community):
    community.poison.add("roof")
    for slot in (1, 2, 3):
        community.tell(slot, _meter("roof", slot))
    community.process_all()
    assert community.process(NOON) == 0, "its time has not come"
    community.process_all(NOON + timedelta(seconds=1))
    assert len(community.alarms) == 1, "of one event operators hear once"
    community.poison.clear()
    assert community.process(NOON + timedelta(seconds=2)) == 0, "the pause has grown"
    community.process_all(NOON + timedelta(seconds=3))
    assert community.heard == [("roof", 1), ("roof", 2), ("roof", 3)]
    assert community.surplus_wh("roof") == 3


def test_the_pause_grows_and_stays_bounded():
    assert [back_off_s(attempts) for attempts in (1, 2, 3, 9, 10, 1_000)] == [1, 2, 4, 256, 300, 300]


def test_an_event_of_a_newer_program_is_kept_and_set_aside(community, engine):
    newer = b"CWEV\x02" + bytes(300)
    community.tell(1, newer, _meter("roof", 1))
    community.process_all()
    assert community.states() == ["set_aside", "processed"]
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT payload FROM chain_events WHERE state = 'set_aside'")).scalar_one()
    assert bytes(kept) == newer
    assert community.alarms[0].kind == EVENT_SET_ASIDE


def test_several_poisoned_accounts_hold_up_only_themselves(community):
    community.poison |= {"m-3", "m-7"}
    for slot in range(3):
        community.tell(slot, *[_meter(f"m-{each}", slot) for each in range(10)])
    community.process_all()
    assert len(community.heard) == 24
    assert community.states().count("set_aside") == 2
    assert community.states().count("waiting") == 4


def test_a_user_and_a_config_have_mirrors_too(community, engine):
    reactions = Reactions({}, [])
    community.tell(1, event_bytes(user_bytes(meters=2), 2))
    process_once(engine, reactions, lambda *_: None, NOON)
    with transaction(engine) as connection:
        user = mirrors.find_user(connection, b"\x0a" * 32)
    assert user is not None and user.meters == 2


# --- the cursor ------------------------------------------------------------------------------------------------


def test_a_database_of_another_chain_or_program_is_refused(engine):
    with transaction(engine) as connection:
        cursor = inbox.open_cursor(connection, GENESIS, PROGRAM)
    assert (cursor.slot, cursor.signature) == (0, None)
    others: Sequence[tuple[bytes, Pubkey]] = [(b"\x02" * 32, PROGRAM), (GENESIS, Pubkey.from_bytes(b"\x08" * 32))]
    for genesis, program in others:
        with pytest.raises(ChainDiffers), transaction(engine) as connection:
            inbox.open_cursor(connection, genesis, program)


def test_a_reason_to_compare_stays_until_a_comparison_that_knew_of_it(engine):
    def because() -> str | None:
        with transaction(engine) as connection:
            return inbox.open_cursor(connection, GENESIS, PROGRAM).reconcile_because

    def do(function, *arguments):
        with transaction(engine) as connection:
            function(connection, *arguments)

    assert because() is None
    do(inbox_store.ask_to_reconcile, "pruned")
    do(inbox_store.ask_to_reconcile, "incomplete_logs")
    assert because() == "pruned"
    do(inbox_store.mark_reconciled, 5, NOON, None)
    assert because() == "pruned", "it came while the accounts were being compared"
    do(inbox_store.mark_reconciled, 6, NOON, "pruned")
    assert because() is None
