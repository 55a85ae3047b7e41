"""A node that keeps things back, turns them round or makes them up is noticed, or what it did is set right."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import base58
import pytest

from hub.chain import instructions
from hub.chain.accounts import MeterAccount, MeterState
from hub.chain.reconcile import MIRROR_DIFFERED, reconcile_once
from hub.chain.watcher import HISTORY_HOLE, INCOMPLETE_LOGS, UNREADABLE
from hub.errors import ChainAccountMalformed, ChainAnswersNonsense, ChainLags
from hub.signatures import SigningKey
from tests.hub.chain.cluster import Cluster, keypair
from tests.hub.chain.lying import LyingNode, lying_node
from tests.hub.chain.reading import Reader, utc_now
from tests.hub.chain.telling import event_bytes, invoke, meter_bytes, success

METER = "lied-about"
LIST, READ = "getSignaturesForAddress", "getTransaction"


@pytest.fixture(scope="module")
def metered_cluster(shared_cluster: Cluster) -> Cluster:
    shared_cluster.simulator.fail()
    wallet = keypair("lied about")
    shared_cluster.register_user(wallet)
    shared_cluster.register_meter(METER, SigningKey(b"\x51" * 32), wallet)
    return shared_cluster


@pytest.fixture
def node(metered_cluster: Cluster, cluster: Cluster) -> Iterator[LyingNode]:
    with lying_node(metered_cluster.rpc_url) as node:
        yield node


@pytest.fixture
def reader(engine, metered_cluster: Cluster, node: LyingNode) -> Reader:
    """One that has read everything while the node was honest."""
    reader = Reader(engine, metered_cluster, node_url=node.url)
    reader.read()
    reader.reconcile()
    assert reader.troubles == []
    return reader


def _flip(reader: Reader) -> str:
    cluster = reader.cluster
    state = MeterState.SUSPENDED if cluster.meter(METER).state is MeterState.ACTIVE else MeterState.ACTIVE
    hub = bytes(cluster.hub.pubkey())
    return cluster.carry_out(instructions.set_meter_status(cluster.addresses, hub, METER, state))


def _is_true(reader: Reader) -> bool:
    return reader.mirrored() == reader.on_chain()


def _changed(method, change):
    """A lie about one method."""
    return lambda asked, params, result: change(result) if asked == method else result


def _with_logs(change):
    def lie(transaction):
        logs = transaction["meta"]["logMessages"]
        return transaction | {"meta": transaction["meta"] | {"logMessages": change(logs)}}

    return _changed(READ, lie)


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: None,
        lambda logs: [],
        lambda logs: [*logs[:-2], "Log truncated"],
        lambda logs: logs[:-1],
        lambda logs: logs[1:],
        lambda logs: list(reversed(logs)),
    ],
    ids=["none kept", "empty", "truncated", "cut at the end", "cut at the beginning", "turned round"],
)
def test_logs_that_are_not_whole_lead_to_a_comparison_of_the_accounts(reader, node, change):
    _flip(reader)
    node.lie = _with_logs(change)
    reader.read()
    assert reader.cursor().reconcile_because == INCOMPLETE_LOGS
    reader.reconcile()
    assert _is_true(reader)
    assert reader.cursor().reconcile_because is None


def test_a_transaction_that_is_kept_back_is_found_by_comparing_and_is_an_alarm(reader, node):
    kept_back = _flip(reader)
    node.lie = _changed(LIST, lambda listed: [each for each in listed if each["signature"] != kept_back])
    assert reader.read() == 0
    assert not _is_true(reader)
    reader.watch()
    compared = reader.reconcile()
    assert compared.repaired == 1
    assert _is_true(reader)
    reader.read()
    _flip(reader)
    reader.read()
    assert _is_true(reader)


def test_the_alarm_comes_when_the_inbox_had_said_that_it_had_everything(reader, node):
    kept_back = _flip(reader)
    node.lie = _changed(LIST, lambda listed: [each for each in listed if each["signature"] != kept_back])

    async def compare_while_watching(node_):
        cluster = reader.cluster
        watcher = reader.watcher(node_)

        async def watch() -> None:
            while True:
                await watcher.watch_once()
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        try:
            return await reconcile_once(
                reader.engine, node_, cluster.genesis_hash, cluster.program_id, reader.alarm, utc_now, 20.0
            )
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    compared = reader.ask(compare_while_watching)
    assert (compared.repaired, compared.missed) == (1, 1)
    [trouble] = reader.troubles
    assert trouble.kind == MIRROR_DIFFERED
    assert trouble.detail["accounts"] == [str(reader.cluster.addresses.meter(METER))]


def test_a_transaction_that_is_listed_and_not_told_is_waited_for_and_then_a_hole(reader, node):
    signature = _flip(reader)
    node.lie = _changed(READ, lambda _: None)
    with pytest.raises(ChainLags):
        reader.watch()
    assert reader.cursor().signature != base58.b58decode(signature)
    assert reader.watch(patience_s=0.0) == 1
    [trouble] = reader.troubles
    assert (trouble.kind, trouble.detail["reason"]) == (HISTORY_HOLE, UNREADABLE)
    reader.reconcile()
    assert _is_true(reader)


def test_what_was_read_before_a_node_refused_to_go_on_is_kept(reader, node):
    """Many nodes answer so many requests in so many seconds: a long absence must not begin anew for ever."""
    before = len(reader.events())
    flips = [_flip(reader) for _ in range(3)]
    node.lie = lambda asked, params, result: None if (asked, params[:1]) == (READ, flips[2:]) else result
    with pytest.raises(ChainLags):
        reader.watch()
    assert [signature for signature, _ in reader.events()[before:]] == flips[:2]
    assert reader.cursor().signature == base58.b58decode(flips[1])
    node.lie = None
    assert reader.read() == 1
    assert _is_true(reader)


def test_a_slot_that_the_chain_cannot_have_come_to_is_not_believed(reader, node):
    """Once believed, it would be later than everything that follows, for ever."""
    _flip(reader)
    cursor = reader.cursor()
    node.lie = _changed(LIST, lambda listed: [{**each, "slot": each["slot"] + 10**9} for each in listed])
    with pytest.raises(ChainAnswersNonsense):
        reader.watch()
    node.lie = _changed("getProgramAccounts", lambda result: result | {"context": {"slot": 10**12}})
    with pytest.raises(ChainAnswersNonsense):
        reader.reconcile()
    assert reader.cursor() == cursor
    node.lie = None
    reader.read()
    assert _is_true(reader)


def test_a_node_that_tells_a_little_late_loses_nothing(reader, node):
    signature = _flip(reader)
    node.lie = _changed(READ, lambda _: None)
    with pytest.raises(ChainLags):
        reader.watch()
    node.lie = None
    reader.read()
    assert reader.events()[-1] == (signature, 0)
    assert _is_true(reader)
    assert reader.troubles == []


@pytest.mark.parametrize(
    "change",
    [
        lambda transaction: transaction | {"slot": transaction["slot"] + 1},
        lambda transaction: transaction | {"meta": transaction["meta"] | {"err": {"InstructionError": [0, "x"]}}},
        lambda transaction: transaction | {"meta": None},
        lambda transaction: [transaction],
    ],
    ids=["another slot", "failed", "no meta", "no object"],
)
def test_a_transaction_that_is_told_in_two_ways_is_not_believed(reader, node, change):
    _flip(reader)
    before = reader.events()
    node.lie = _changed(READ, change)
    with pytest.raises(ChainAnswersNonsense):
        reader.watch()
    assert reader.events() == before
    node.lie = None
    reader.read()
    assert _is_true(reader)


def test_a_list_that_is_turned_round_or_never_ends_is_not_believed(reader, node):
    _flip(reader)
    _flip(reader)
    cursor = reader.cursor()
    for change in (
        lambda listed: [each for each in reversed(listed) if each["slot"] > cursor.slot],
        lambda listed: [each for each in listed if each["slot"] > cursor.slot] * 2,
    ):
        node.lie = _changed(LIST, change)
        with pytest.raises(ChainAnswersNonsense):
            reader.watch()
        assert reader.cursor().signature == cursor.signature
    node.lie = None
    reader.read()
    assert _is_true(reader)


def test_an_event_that_a_stranger_printed_into_the_logs_changes_no_mirror(reader, node):
    forged = event_bytes(meter_bytes(METER, settled_wh=2**40))
    stranger = keypair("stranger").pubkey()
    line = "Program data: " + base64.b64encode(forged).decode()
    node.lie = _with_logs(lambda logs: [*logs, invoke(stranger), line, success(stranger)])
    _flip(reader)
    reader.read()
    assert _is_true(reader)
    assert reader.cursor().reconcile_because is None


def test_an_amount_that_a_lying_node_made_up_is_found_by_comparing(reader, node):
    """What it says in our program's name cannot be known from the logs; what another node says of the accounts can."""

    def lie(logs):
        def change(line):
            if not line.startswith("Program data: "):
                return line
            data = bytearray(base64.b64decode(line.removeprefix("Program data: ")))
            data[32 + 232 : 32 + 240] = (2**40).to_bytes(8, "little")
            return "Program data: " + base64.b64encode(data).decode()

        return [change(line) for line in logs]

    node.lie = _with_logs(lie)
    _flip(reader)
    reader.read()
    meter = reader.mirrored()[reader.cluster.addresses.meter(METER)]
    assert isinstance(meter, MeterAccount) and meter.settled_wh == 2**40
    node.lie = None
    assert reader.reconcile().repaired == 1
    assert _is_true(reader)


def test_accounts_without_a_config_or_with_a_mint_that_is_none_repair_nothing_by_halves(reader, node):
    _flip(reader)
    node.lie = _changed("getMultipleAccounts", lambda result: result | {"value": [None]})
    with pytest.raises(ChainAccountMalformed):
        reader.reconcile()
    assert not _is_true(reader)
    node.lie = None
    reader.reconcile()
    assert _is_true(reader)
