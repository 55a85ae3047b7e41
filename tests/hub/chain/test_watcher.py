"""Whatever happens to hub, node or the way between them: each event is read once, and none is missed unnoticed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime

import base58
import pytest
from solders.instruction import Instruction
from sqlalchemy import text

from hub import metrics
from hub.chain import inbox_store, instructions
from hub.chain.accounts import MeterAccount, MeterState
from hub.chain.history import read_history
from hub.chain.inbox import open_cursor
from hub.chain.node_socket import listen
from hub.chain.rpc import Node
from hub.chain.watcher import HISTORY_HOLE, PRUNED, UNKNOWN
from hub.db import transaction
from hub.errors import ChainAway, ChainDiffers, ChainLags
from hub.signatures import SigningKey
from tests.hub.chain.cluster import FINALIZED_AFTER_SLOTS, Cluster, keypair
from tests.hub.chain.reading import Reader, land_anyway, utc_now

ACTIVE, SUSPENDED = MeterState.ACTIVE, MeterState.SUSPENDED


METER = "watched"


@pytest.fixture(scope="module")
def metered_cluster(shared_cluster: Cluster) -> Cluster:
    """The shared cluster, with one meter of this module's own."""
    shared_cluster.simulator.fail()
    wallet = keypair("watched")
    shared_cluster.register_user(wallet)
    shared_cluster.register_meter(METER, SigningKey(b"\x21" * 32), wallet)
    return shared_cluster


@pytest.fixture
def watched(engine, metered_cluster: Cluster, cluster: Cluster) -> Reader:
    return Reader(engine, metered_cluster)


def _steps(cluster: Cluster, *states: MeterState) -> list[Instruction]:
    hub = bytes(cluster.hub.pubkey())
    return [step for state in states for step in instructions.set_meter_status(cluster.addresses, hub, METER, state)]


def _other(cluster: Cluster) -> MeterState:
    return SUSPENDED if cluster.meter(METER).state is ACTIVE else ACTIVE


def _flip(reader: Reader) -> str:
    """Suspend the meter, or let it go on; the transaction, which is finalized."""
    return reader.cluster.carry_out(_steps(reader.cluster, _other(reader.cluster)))


def _state(reader: Reader) -> MeterState:
    meter = reader.mirrored()[reader.cluster.addresses.meter(METER)]
    assert isinstance(meter, MeterAccount)
    return meter.state


def _assert_true(reader: Reader) -> None:
    assert reader.mirrored() == reader.on_chain()


# --- reading ---------------------------------------------------------------------------------------------------


def test_what_the_program_did_is_read_in_its_order_and_the_mirrors_equal_the_chain(watched):
    signatures = [_flip(watched), _flip(watched), _flip(watched)]
    assert watched.read() >= 6, "initialize, two registrations, and these"
    assert [each for each, _ in watched.events()][-3:] == signatures
    _assert_true(watched)
    assert watched.cursor().signature == base58.b58decode(signatures[-1])


def test_what_was_read_is_not_read_again_and_what_is_new_is(watched):
    watched.read()
    before = watched.events()
    assert watched.read() == 0
    signature = _flip(watched)
    assert watched.read() == 1
    assert watched.events() == [*before, (signature, 0)]
    assert watched.read() == 0
    _assert_true(watched)


def test_a_history_of_many_pages_is_the_same_as_of_one(watched):
    watched.watch()
    begun = watched.cursor()
    for _ in range(4):
        _flip(watched)

    async def read(node: Node):
        program = watched.cluster.program_id
        return [await read_history(node, program, begun, page_max) for page_max in (1_000, 1, 2, 3, 4)]

    whole, *paged = watched.ask(read)
    assert len(whole.unread) == 4 and whole.joined
    assert all(each == whole for each in paged)


def test_a_history_too_long_for_one_reading_is_read_in_several_from_its_beginning(watched):
    """Whoever has not read for long enough finds more than fits into memory; it must come to an end all the same."""
    _flip(watched)
    cluster = watched.cluster
    with transaction(watched.engine) as connection:
        cursor = open_cursor(connection, cluster.genesis_hash, cluster.program_id)
    whole = watched.ask(lambda node: read_history(node, cluster.program_id, cursor))
    oldest = watched.ask(lambda node: read_history(node, cluster.program_id, cursor, 2, 3))
    assert whole.complete and not oldest.complete
    assert oldest.unread == whole.unread[:3] and len(whole.unread) > 3
    last = oldest.unread[-1]
    at = replace(cursor, slot=last.slot, position=last.position, signature=last.signature)
    rest = watched.ask(lambda node: read_history(node, cluster.program_id, at))
    assert rest.complete and rest.joined and rest.unread == whole.unread[3:]


def test_several_instructions_of_a_transaction_keep_their_order(watched):
    other = _other(watched.cluster)
    same = ACTIVE if other is SUSPENDED else SUSPENDED
    watched.cluster.carry_out(_steps(watched.cluster, other, same, other))
    watched.read()
    assert [number for _, number in watched.events()][-3:] == [0, 1, 2]
    assert _state(watched) is other
    _assert_true(watched)


def test_what_a_failed_transaction_printed_did_not_happen(watched):
    watched.read()
    before, state = watched.events(), _state(watched)
    other = _other(watched.cluster)
    land_anyway(watched.cluster, *_steps(watched.cluster, other, other))
    assert watched.read() == 1, "it was read, and told nothing"
    assert watched.events() == before
    assert _state(watched) is state


def test_two_watchers_at_once_read_each_event_once(watched, engine):
    other = Reader(engine, watched.cluster)

    async def work(node: Node) -> None:
        watchers = [watched.watcher(node), other.watcher(node)]
        for _ in range(3):
            await asyncio.gather(*(each.watch_once() for each in watchers))

    watched.ask(work)
    _flip(watched)
    watched.ask(work)
    watched.process()
    events = watched.events()
    assert len(events) == len(set(events))
    _assert_true(watched)
    assert watched.troubles == other.troubles == []


# --- nodes that are away, behind, wrong, forgetful ---------------------------------------------------------------


def test_a_node_that_is_away_loses_nothing(watched):
    watched.read()
    watched.cluster.simulator.kill()
    with pytest.raises(ChainAway):
        watched.watch()
    watched.cluster.simulator.start()
    _flip(watched)
    assert watched.read() == 1
    _assert_true(watched)


def test_a_node_that_lags_is_noticed_and_nothing_is_concluded_from_it(watched):
    _flip(watched)
    watched.read()
    before = watched.cursor()
    watched.cluster.simulator.fail(lag_slots=200)
    with pytest.raises(ChainLags):
        watched.watch()
    assert watched.cursor() == before
    watched.cluster.simulator.fail()
    _flip(watched)
    assert watched.read() == 1
    _assert_true(watched)


def test_another_chain_is_refused_before_anything_of_it_is_read(watched, engine):
    watched.cluster.simulator.fail(genesis_hash=base58.b58encode(b"\x05" * 32).decode())
    with pytest.raises(ChainDiffers):
        watched.watch()
    with pytest.raises(ChainDiffers):
        watched.reconcile()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM chain_events")).scalar_one() == 0
    assert watched.mirrored() == {}


def test_what_the_node_forgot_before_it_was_read_is_a_hole_and_the_accounts_are_compared(watched):
    watched.read()
    _flip(watched)
    _forget(watched)
    count = metrics.CHAIN_HISTORY_HOLES.labels(PRUNED)._value.get()
    watched.read()
    [trouble] = watched.troubles
    assert (trouble.kind, trouble.detail["reason"]) == (HISTORY_HOLE, PRUNED)
    assert metrics.CHAIN_HISTORY_HOLES.labels(PRUNED)._value.get() == count + 1
    assert watched.cursor().reconcile_because == PRUNED
    assert watched.mirrored() != watched.on_chain()
    watched.reconcile()
    assert watched.cursor().reconcile_because is None
    _assert_true(watched)
    assert len(watched.troubles) == 1, "what the hole explains is no other alarm"


def test_a_node_that_forgot_everything_is_one_hole_and_then_goes_on(watched):
    watched.read()
    _forget(watched)
    for _ in range(3):
        assert watched.read() == 0
    assert [trouble.kind for trouble in watched.troubles] == [HISTORY_HOLE]
    watched.cluster.simulator.fail()
    signature = _flip(watched)
    watched.read()
    assert watched.events()[-1] == (signature, 0)
    assert len(watched.events()) == len(set(watched.events()))
    assert len(watched.troubles) == 1
    _assert_true(watched)


def test_a_node_that_forgets_while_it_is_read_leaves_holes_and_no_silence(watched):
    """A few slots of history, and a hub that comes at any moment: what it has not read, it knows that it has not."""
    watched.read()
    for history_slots in (8, 6, 4):
        watched.cluster.simulator.fail()
        flipped = _flip(watched)
        watched.cluster.simulator.fail(history_slots=history_slots + FINALIZED_AFTER_SLOTS)
        watched.read()
        assert (flipped, 0) in watched.events() or watched.cursor().reconcile_because == PRUNED
    watched.reconcile()
    _assert_true(watched)
    assert {trouble.detail["reason"] for trouble in watched.troubles} <= {PRUNED}


def test_a_hub_that_comes_to_a_chain_with_a_forgotten_past_has_it_from_the_accounts(watched):
    _forget(watched)
    assert watched.read() == 0
    assert watched.mirrored() == {}
    compared = watched.reconcile()
    assert compared.repaired == len(watched.on_chain())
    _assert_true(watched)
    assert watched.troubles == [], "that was to be expected at the beginning"


def test_a_node_that_does_not_know_what_was_read_is_given_time_and_then_it_is_a_hole(watched, engine):
    watched.read()
    cursor = watched.cursor()
    with transaction(engine) as connection:  # as if another node had told of a transaction that this one never had
        inbox_store.move_cursor(connection, cursor.slot, cursor.position + 1, b"\x09" * 64, cursor.signature)
    _flip(watched)
    with pytest.raises(ChainLags):
        watched.watch()
    assert watched.cursor().signature == b"\x09" * 64
    assert watched.watch(patience_s=0.0) >= 1
    watched.process()
    [trouble] = watched.troubles
    assert trouble.detail["reason"] == UNKNOWN
    assert watched.cursor().reconcile_because == UNKNOWN
    _assert_true(watched)


def _forget(reader: Reader) -> None:
    """Have the node forget all that was final by now."""
    cluster = reader.cluster
    final = cluster.ask(lambda node: node.finalized()).slot
    cluster.simulator.fail(history_slots=2)
    while cluster.ask(lambda node: node.finalized()).slot < final + 3:
        time.sleep(0.05)


# --- being woken up ----------------------------------------------------------------------------------------------


def test_the_socket_wakes_the_watcher_when_something_is_final_and_again_after_the_node_was_killed(watched):

    async def work() -> None:
        wake, hears, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        url = "ws" + watched.cluster.rpc_url.removeprefix("http")
        listening = asyncio.create_task(listen(url, watched.cluster.program_id, wake, hears, stop))
        try:
            await asyncio.wait_for(wake.wait(), 10)  # when it connects, for what it did not hear
            wake.clear()
            await asyncio.to_thread(_flip, watched)
            await asyncio.wait_for(wake.wait(), 10)
            watched.cluster.simulator.kill()
            wake.clear()
            watched.cluster.simulator.start()  # not in a thread: the process would end with it
            await asyncio.wait_for(wake.wait(), 20)
            assert hears.is_set() and metrics.CHAIN_SOCKET_CONNECTED._value.get() == 1
        finally:
            stop.set()
            await asyncio.wait_for(listening, 10)
        assert not hears.is_set() and metrics.CHAIN_SOCKET_CONNECTED._value.get() == 0

    asyncio.run(work())
    watched.read()
    _assert_true(watched)


def test_a_socket_that_cannot_be_opened_is_no_fault_of_the_process(watched):
    async def work() -> None:
        wake, hears, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        listening = asyncio.create_task(listen("ws://127.0.0.1:9", watched.cluster.program_id, wake, hears, stop))
        await asyncio.sleep(0.3)
        assert not listening.done() and not wake.is_set()
        stop.set()
        await asyncio.wait_for(listening, 10)

    asyncio.run(work())


def test_how_far_the_chain_was_read_is_known(watched):
    before = utc_now()
    watched.read()
    cursor = watched.cursor()
    assert cursor.seen_through_slot >= cursor.slot
    assert isinstance(cursor.seen_at, datetime) and cursor.seen_at >= before
    assert metrics.CHAIN_WATCHER_LAG_SLOTS._value.get() == 0
    assert metrics.CHAIN_WATCHER_READ._value.get() >= before.timestamp()
