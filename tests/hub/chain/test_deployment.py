"""The program comes to a chain by ordinary transactions, and an interrupted deployment goes on where it was."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest
from solders.pubkey import Pubkey

from hub.chain import deployment, instructions
from hub.chain.accounts import ConfigState
from hub.chain.addresses import Addresses
from hub.chain.by_hand import carry_out, fees_lamports
from hub.chain.chain_state import check_program, energy_program, get_config, get_program_data
from hub.chain.deployment import Deployer
from hub.chain.token_2022 import METADATA_POINTER, TOKEN_METADATA, TokenName, decode_mint
from hub.errors import ProgramDiffers, ProgramNotDeployed, TransactionRefused
from tests.hub.chain.cluster import keypair

_names = itertools.count(1)
OLDER = energy_program() + b"\1" * 8
"""Another program, for whoever compares: the loader does not mind what is behind an ELF file."""


@pytest.fixture
def operator(cluster):
    key = keypair(f"operator {next(_names)}")
    cluster.fund(key.pubkey(), 20)
    return key


def with_deployer(cluster, operator, work):
    said = []
    cluster.ask(lambda node: work(Deployer(node, operator, operator, said.append, "confirmed")))
    return said


def test_an_interrupted_deployment_goes_on_and_costs_what_was_said(cluster, operator):
    program_key = keypair(f"program {next(_names)}")

    async def interrupted(deployer):
        cost = await deployment.deployment_cost(deployer.node, energy_program())
        before = await deployer.node.lamports(operator.pubkey())
        for timeout_s in (0.2, 0.5, 1.0, 1.5, 30.0):
            try:
                async with asyncio.timeout(timeout_s):
                    await deployment.deploy(deployer, program_key, energy_program())
            except TimeoutError:
                continue
            break
        spent = before - await deployer.node.lamports(operator.pubkey())
        assert cost.rent_lamports < spent <= cost.rent_lamports + cost.fee_lamports

    said = with_deployer(cluster, operator, interrupted)
    written = [int(line.split()[1]) for line in said if line.startswith("Writing")]
    assert len(written) > 1 and written == sorted(written, reverse=True), "no piece was written twice"

    async def again(deployer):
        await deployment.deploy(deployer, program_key, energy_program())

    assert with_deployer(cluster, operator, again) == ["The program is there already."]


def test_a_program_is_upgraded_by_its_authority_alone_and_by_nobody_once_it_is_final(cluster, operator):
    program_key, stranger = keypair(f"program {next(_names)}"), keypair(f"stranger {next(_names)}")
    program_id = program_key.pubkey()
    cluster.fund(stranger.pubkey(), 10)

    async def work(deployer):
        theirs = replace(deployer, payer=stranger, authority=stranger)
        final = replace(deployer, level="finalized")
        with pytest.raises(ProgramNotDeployed):
            await deployment.upgrade(deployer, program_id, energy_program())
        await deployment.deploy(final, program_key, OLDER)
        with pytest.raises(ProgramDiffers):
            await deployment.deploy(deployer, program_key, energy_program())
        with pytest.raises(ProgramDiffers):
            await check_program(deployer.node, program_id)
        with pytest.raises(ProgramDiffers):
            await deployment.upgrade(theirs, program_id, energy_program())
        await deployment.upgrade(final, program_id, energy_program())
        held = await check_program(deployer.node, program_id)
        assert held.upgrade_authority == bytes(operator.pubkey())
        larger = energy_program() + b"\1" * (deployment.ROOM_FACTOR * len(energy_program()))
        cost = await deployment.upgrade_cost(deployer.node, program_id, larger)
        before = await deployer.node.lamports(operator.pubkey(), "finalized")
        await deployment.upgrade(final, program_id, larger)
        held = await get_program_data(deployer.node, program_id)
        assert held.content[: len(larger)] == larger and len(held.content) >= len(larger)
        spent = before - await deployer.node.lamports(operator.pubkey(), "finalized")
        assert cost.rent_lamports < spent <= cost.rent_lamports + cost.fee_lamports
        generous = replace(final, compute_unit_price_micro_lamports=1_000_000)
        before = await deployer.node.lamports(operator.pubkey(), "finalized")
        await deployment.set_upgrade_authority(generous, program_id, stranger.pubkey())
        spent = before - await deployer.node.lamports(operator.pubkey(), "finalized")
        assert spent == fees_lamports(1, 1, 1_000_000) > fees_lamports(1, 1, 0)
        with pytest.raises(TransactionRefused):
            await deployment.set_upgrade_authority(deployer, program_id, None)
        await deployment.set_upgrade_authority(replace(theirs, level="finalized"), program_id, None)
        assert (await get_program_data(deployer.node, program_id)).upgrade_authority is None
        with pytest.raises(ProgramDiffers):
            await deployment.upgrade(theirs, program_id, OLDER)

    with_deployer(cluster, operator, work)


def test_initialize_makes_a_mint_that_only_the_program_can_use(cluster):
    account = cluster.ask(lambda node: node.find_account(cluster.grid_mint))
    mint = decode_mint(cluster.grid_mint, account.data)
    assert mint.mint_authority == bytes(cluster.addresses.config())
    assert (mint.decimals, mint.freeze_authority, mint.extensions) == (9, None, (METADATA_POINTER, TOKEN_METADATA))
    assert b"https://community.example/grid.json" in account.data


def test_nobody_but_the_upgrade_authority_initializes_and_only_it_lets_a_paused_program_go_on(cluster, operator):
    program_key = keypair(f"program {next(_names)}")
    stranger = keypair(f"stranger {next(_names)}")
    cluster.fund(stranger.pubkey(), 10)
    name = TokenName("GRID", "GRID", "")
    program_id = program_key.pubkey()

    async def work(deployer):
        node = deployer.node
        await deployment.deploy(deployer, program_key, energy_program())
        with pytest.raises(TransactionRefused, match="not_the_upgrade_authority"):
            await deployment.initialize(node, stranger, program_id, b"D" * 8, cluster.roles, name, "confirmed")
        alike = replace(cluster.roles, validator=cluster.roles.issuer)
        with pytest.raises(TransactionRefused, match="validator_is_issuer"):
            await deployment.initialize(node, operator, program_id, b"D" * 8, alike, name, "confirmed")
        await deployment.initialize(node, operator, program_id, b"D" * 8, cluster.roles, name, "confirmed")
        at, hub, admin = Addresses(program_id), bytes(cluster.hub.pubkey()), bytes(operator.pubkey())
        await carry_out(node, [instructions.pause(at, hub, True)], [cluster.hub], "confirmed")
        with pytest.raises(TransactionRefused, match="not_the_admin"):
            await carry_out(node, [instructions.pause(at, hub, False)], [cluster.hub], "confirmed")
        await carry_out(node, [instructions.pause(at, admin, False)], [operator], "finalized")
        config = await get_config(node, program_id)
        assert (config.state, config.domain, config.decimals) == (ConfigState.RUNNING, b"D" * 8, 9)
        assert config.admin == bytes(operator.pubkey())
        with pytest.raises(TransactionRefused):
            await deployment.initialize(node, operator, program_id, b"D" * 8, cluster.roles, name, "confirmed")

    with_deployer(cluster, operator, work)


def test_the_buffers_key_is_the_payers_secret_and_the_programs_own(operator):
    first = deployment.buffer_key(operator, b"one")
    assert first == deployment.buffer_key(operator, b"one")
    assert first != deployment.buffer_key(operator, b"two")
    assert first != deployment.buffer_key(keypair("somebody else"), b"one")
    assert isinstance(first.pubkey(), Pubkey)
