"""Nothing is signed unless the chain is the one that is meant, with this release's program, set up for this hub."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import replace

import pytest
from solders.keypair import Keypair

from hub import metrics
from hub.chain.chain_state import (
    UNUSABLE_TOLD_AFTER_S,
    ChainGate,
    Outage,
    check_chain_once,
    decode_program_data,
    energy_program,
    holds,
)
from hub.chain.rpc import Node
from tests.hub.chain.lying import lying_node
from tests.hub.chain.telling import meter_bytes

PATIENCE_S = 30.0


def check(cluster, gate, **changes):
    async def run():
        async with Node(cluster.rpc_url) as node:
            return await check_chain_once(node, replace(cluster.expected, **changes), gate)

    return asyncio.run(run())


def test_on_our_chain_with_our_program_everything_may_be_signed(cluster):
    gate = ChainGate()
    assert not gate.usable
    assert check(cluster, gate)
    assert gate.usable and gate.same_chain and gate.config.domain == cluster.domain
    assert metrics.CHAIN_USABLE.labels("usable")._value.get() == 1
    assert metrics.CHAIN_KEY_LAMPORTS._value.get() > 0


@pytest.mark.parametrize(
    ("changes", "reason", "same_chain"),
    [
        ({"genesis_hash": b"x" * 32}, "chain_differs", False),
        ({"program_id": Keypair.from_seed(b"n" * 32).pubkey()}, "program_not_deployed", True),
        ({"domain": b"another!"}, "config_differs", True),
        ({"hub": b"y" * 32}, "config_differs", True),
    ],
)
def test_anything_else_has_a_name_and_closes_the_gate(cluster, changes, reason, same_chain):
    gate = ChainGate()
    check(cluster, gate)
    assert not check(cluster, gate, **changes)
    assert (gate.usable, gate.reason, gate.same_chain) == (False, reason, same_chain)
    assert metrics.CHAIN_USABLE.labels(reason)._value.get() == 1


def test_a_node_that_is_away_closes_the_gate_and_is_still_on_our_chain(cluster):
    gate = ChainGate()
    check(cluster, gate)
    cluster.simulator.fail(refused_s=600)
    while check(cluster, gate):
        pass
    assert (gate.reason, gate.same_chain) == ("chain_away", True)


def test_another_kind_of_account_at_the_configs_address_closes_the_gate_and_ends_nothing(cluster):
    at = cluster.addresses.config()
    with lying_node(cluster.rpc_url) as node:

        def lie(method, params, result):
            if method == "getAccountInfo" and params[0] == str(at):
                data = meter_bytes()[:8] + bytes(at) + meter_bytes()[40:]
                result["value"]["data"] = [base64.b64encode(data).decode(), "base64"]
            return result

        node.lie, gate = lie, ChainGate()

        async def run():
            async with Node(node.url) as asked:
                return await check_chain_once(asked, cluster.expected, gate)

        until_s = time.monotonic() + PATIENCE_S
        while gate.reason != "chain_account_malformed":  # before that the node may be slow to answer at all
            assert not asyncio.run(run())
            assert time.monotonic() < until_s, gate.reason


def test_a_program_is_ours_only_whole_and_with_nothing_behind_it():
    program = energy_program()
    assert holds(program, program) and holds(program + bytes(100), program)
    assert not holds(program[:-1], program)
    assert not holds(program + b"\0\1", program)
    assert not holds(bytes([program[0] ^ 1]) + program[1:], program)


def test_what_the_loader_keeps_names_who_may_upgrade():
    held = decode_program_data(b"\3\0\0\0" + (7).to_bytes(8, "little") + b"\1" + b"A" * 32 + b"ELF")
    assert (held.slot, held.upgrade_authority, held.content) == (7, b"A" * 32, b"ELF")
    assert decode_program_data(b"\3\0\0\0" + bytes(8) + b"\0" + bytes(32) + b"ELF").upgrade_authority is None
    assert decode_program_data(b"\1\0\0\0" + bytes(60)) is None
    assert decode_program_data(b"\3\0\0\0") is None


def test_operators_hear_once_of_an_outage_that_lasts_and_again_of_the_next():
    outage = Outage()
    assert not outage.is_to_be_told(False, 0.0)
    assert not outage.is_to_be_told(True, 200.0), "it was over in time"
    assert not outage.is_to_be_told(False, 300.0)
    assert not outage.is_to_be_told(False, 300.0 + UNUSABLE_TOLD_AFTER_S - 1)
    assert outage.is_to_be_told(False, 300.0 + UNUSABLE_TOLD_AFTER_S)
    assert outage.is_to_be_told(False, 301.0 + UNUSABLE_TOLD_AFTER_S), "the database was away, so nobody was told"
    outage.set_told()
    assert not outage.is_to_be_told(False, 10_000.0)
    assert not outage.is_to_be_told(True, 10_001.0)
    assert not outage.is_to_be_told(False, 10_002.0)
    assert outage.is_to_be_told(False, 10_002.0 + UNUSABLE_TOLD_AFTER_S)
