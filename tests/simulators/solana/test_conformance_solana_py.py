"""solana-py, unmodified (AsyncClient and SolanaWsClient), finds on the simulated cluster what real ones have."""

from __future__ import annotations

import asyncio
import struct

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.core import RPCException
from solana.rpc.jsonrpc import SolanaJsonRpcError
from solana.rpc.models import MemcmpOpts, TokenAccountOpts
from solana.rpc.websocket_api import SolanaWsClient
from solders import system_program as system
from solders.address_lookup_table_account import AddressLookupTable, AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilterMentions
from solders.rpc.errors import RpcCustomErrorFieldless
from solders.rpc.responses import (
    AccountNotification,
    LogsNotification,
    ProgramNotification,
    RootNotification,
    SendTransactionPreflightFailureMessage,
    SignatureNotification,
    SlotNotification,
)
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from spl.token.constants import TOKEN_2022_PROGRAM_ID as TOKEN_2022
from spl.token.instructions import create_associated_token_account, get_associated_token_address

from tests.simulators.solana.conformance.python import (
    CHECKED,
    MEMO,
    POLL_S,
    SOL,
    UNCHECKED,
    confirmed,
    durable,
    funded,
    memo,
    readable,
    signed,
    writable,
)

GRID_DECIMALS = 9
UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
RENT = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
ED25519 = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")
NOBODY = Keypair().pubkey()
WRITE_BYTES = 900
WAIT_S = 15


@pytest.fixture
def run(solana_cluster):
    """Runs a story with a client of the cluster."""

    def begin(story):
        async def told():
            async with AsyncClient(solana_cluster.url, commitment=Confirmed) as client:
                await story(client)

        asyncio.run(asyncio.wait_for(told(), 60))

    return begin


async def slot_after(client, slot):
    """Preflight looks at the newest confirmed slot: what was made in a slot can be used after it."""
    while (await client.get_slot(Confirmed)).value <= slot:
        await asyncio.sleep(POLL_S)


def paying(payer, to, lamports):
    return system.transfer(system.TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))


def test_money_is_airdropped_sent_and_confirmed(run):
    async def story(client):
        assert (await client.is_connected()) is True
        assert (await client.get_version()).value.solana_core.count(".") == 2
        assert (await client.get_genesis_hash()).value != Hash.default()
        assert (await client.get_epoch_info()).value.slots_in_epoch == 432_000
        payer, friend = await funded(client), Keypair().pubkey()
        assert (await client.get_balance(payer.pubkey())).value == 10 * SOL
        transaction, latest = await signed(client, payer, paying(payer, friend, SOL), memo("from python"))
        assert (await client.get_fee_for_message(transaction.message)).value == 5_000
        simulated = (await client.simulate_transaction(transaction, sig_verify=True)).value
        assert simulated.err is None
        signature = (await client.send_transaction(transaction, CHECKED)).value
        assert signature == transaction.signatures[0]
        statuses = await client.confirm_transaction(signature, Confirmed, POLL_S, latest.last_valid_block_height)
        assert statuses.value[0].err is None
        assert (await client.get_balance(friend)).value == SOL
        assert (await client.get_balance(payer.pubkey())).value == 9 * SOL - 5_000

        found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
        assert found.transaction.meta.fee == 5_000
        assert found.transaction.meta.compute_units_consumed == simulated.units_consumed
        assert found.transaction.meta.log_messages == simulated.logs
        block = (await client.get_block(found.slot, max_supported_transaction_version=0)).value
        assert signature in [each.transaction.signatures[0] for each in block.transactions]
        assert (await client.get_block_time(found.slot)).value == block.block_time == found.block_time
        assert (await client.get_minimum_balance_for_rent_exemption(165)).value == 2_039_280
        assert (await client.get_first_available_block()).value <= found.slot

        await client.confirm_transaction(signature, Finalized, POLL_S, latest.last_valid_block_height)
        assert (await client.get_balance(friend, Finalized)).value == SOL

    run(story)


def test_a_transaction_that_is_sent_again_is_not_executed_again(run):
    async def story(client):
        payer, friend = await funded(client), Keypair().pubkey()
        transaction, _ = await signed(client, payer, paying(payer, friend, SOL))
        signature = (await client.send_transaction(transaction, CHECKED)).value
        await client.confirm_transaction(signature, Confirmed, POLL_S)
        with pytest.raises(RPCException) as refusal:
            await client.send_transaction(transaction, CHECKED)
        assert "already been processed" in refusal.value.args[0].message
        assert (await client.send_transaction(transaction, UNCHECKED)).value == signature
        assert (await client.get_balance(friend)).value == SOL

    run(story)


def test_a_transaction_that_would_fail_is_a_preflight_failure_with_error_and_logs(run):
    async def story(client):
        payer, friend = await funded(client), Keypair().pubkey()
        transaction, _ = await signed(client, payer, paying(payer, friend, 1_000 * SOL))
        with pytest.raises(RPCException) as refusal:
            await client.send_transaction(transaction, CHECKED)
        message = refusal.value.args[0]
        assert isinstance(message, SendTransactionPreflightFailureMessage)
        assert message.data.err.err.code == 1
        assert any("insufficient lamports" in line for line in message.data.logs)

        signature = (await client.send_transaction(transaction, UNCHECKED)).value
        statuses = await client.confirm_transaction(signature, Confirmed, POLL_S)
        assert statuses.value[0].err.err.code == 1
        assert (await client.get_balance(payer.pubkey())).value == 10 * SOL - 5_000

        forged = VersionedTransaction.populate(transaction.message, [Signature.default()])
        with pytest.raises(RPCException) as refusal:
            await client.send_transaction(forged, CHECKED)
        assert refusal.value.args[0] == RpcCustomErrorFieldless.TransactionSignatureVerificationFailure

    run(story)


def test_compute_budget_is_held_and_its_price_is_charged(run):
    async def story(client):
        payer = await funded(client)
        transaction, _ = await signed(client, payer, set_compute_unit_limit(400), memo("x" * 500))
        with pytest.raises(RPCException) as refusal:
            await client.send_transaction(transaction, CHECKED)
        assert isinstance(refusal.value.args[0], SendTransactionPreflightFailureMessage)
        priced = [set_compute_unit_limit(50_000), set_compute_unit_price(1_000_000), memo("urgent")]
        signature = await confirmed(client, payer, *priced)
        found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
        assert found.transaction.meta.fee == 5_000 + 50_000

    run(story)


def test_the_history_of_an_address_is_paged_from_its_newest_transaction_back(run):
    async def story(client):
        payer, friend = await funded(client), Keypair().pubkey()
        sent = [await confirmed(client, payer, paying(payer, friend, SOL), memo(f"{each}")) for each in range(3)]
        newest = (await client.get_signatures_for_address(friend, limit=2, commitment=Confirmed)).value
        assert [each.signature for each in newest] == [sent[2], sent[1]]
        assert newest[0].memo == "[1] 2"
        before = newest[-1].signature
        rest = (await client.get_signatures_for_address(friend, before=before, commitment=Confirmed)).value
        assert [each.signature for each in rest] == [sent[0]]
        since = (await client.get_signatures_for_address(friend, until=sent[0], commitment=Confirmed)).value
        assert [each.signature for each in since] == [sent[2], sent[1]]

    run(story)


async def _mint(client, payer, mint):
    """A Token-2022 mint with a permanent delegate, nine decimals, and the payer for everything."""
    space = 165 + 1 + 4 + 32
    lamports = (await client.get_minimum_balance_for_rent_exemption(space)).value
    owner = bytes(payer.pubkey())
    await confirmed(
        client,
        payer,
        system.create_account(
            system.CreateAccountParams(
                from_pubkey=payer.pubkey(),
                to_pubkey=mint.pubkey(),
                lamports=lamports,
                space=space,
                owner=TOKEN_2022,
            )
        ),
        Instruction(TOKEN_2022, bytes([35]) + owner, [writable(mint.pubkey())]),
        Instruction(TOKEN_2022, bytes([20, GRID_DECIMALS]) + owner + b"\1" + owner, [writable(mint.pubkey())]),
        also=[mint],
    )


def test_tokens_of_a_mint_with_extensions_are_made_held_and_counted(run):
    async def story(client):
        payer, mint, holder = await funded(client), Keypair(), Keypair().pubkey()
        await _mint(client, payer, mint)
        account = get_associated_token_address(holder, mint.pubkey(), TOKEN_2022)
        making = create_associated_token_account(payer.pubkey(), holder, mint.pubkey(), TOKEN_2022)
        minting = Instruction(
            TOKEN_2022,
            struct.pack("<BQB", 14, 11_500_000_000, GRID_DECIMALS),
            [writable(mint.pubkey()), writable(account), readable(payer.pubkey(), signer=True)],
        )
        await confirmed(client, payer, making, minting)

        balance = (await client.get_token_account_balance(account)).value
        assert (balance.amount, balance.decimals, balance.ui_amount_string) == ("11500000000", 9, "11.5")
        assert (await client.get_token_supply(mint.pubkey())).value.amount == "11500000000"
        (largest,) = (await client.get_token_largest_accounts(mint.pubkey())).value
        assert (largest.address, largest.amount.amount) == (account, "11500000000")
        by_mint = await client.get_token_accounts_by_owner(holder, TokenAccountOpts(mint=mint.pubkey()))
        assert [each.pubkey for each in by_mint.value] == [account]
        options = TokenAccountOpts(program_id=TOKEN_2022)
        (shown,) = (await client.get_token_accounts_by_owner_json_parsed(holder, options)).value
        info = shown.account.data.parsed["info"]
        assert (info["mint"], info["owner"], info["state"]) == (str(mint.pubkey()), str(holder), "initialized")
        assert info["extensions"] == [{"extension": "immutableOwner"}]
        parsed = (await client.get_account_info_json_parsed(mint.pubkey())).value.data
        assert parsed.program == "spl-token-2022"
        delegate = {"extension": "permanentDelegate", "state": {"delegate": str(payer.pubkey())}}
        assert parsed.parsed["info"]["extensions"] == [delegate]
        filters = [MemcmpOpts(offset=0, bytes=str(mint.pubkey())), MemcmpOpts(offset=32, bytes=str(holder))]
        found = (await client.get_program_accounts(TOKEN_2022, encoding="base64", filters=filters)).value
        assert [each.pubkey for each in found] == [account]
        none = (await client.get_program_accounts(TOKEN_2022, encoding="base64", filters=[165, *filters])).value
        assert none == []

    run(story)


def test_a_lookup_table_is_made_and_lets_a_transaction_name_twenty_accounts(run):
    async def story(client):
        payer = await funded(client)
        many = [Keypair().pubkey() for _ in range(20)]
        recent = (await client.get_slot(Finalized)).value
        create, address = system.create_lookup_table(
            system.CreateLookupTableParams(
                authority_address=payer.pubkey(), payer_address=payer.pubkey(), recent_slot=recent
            )
        )
        extend = system.extend_lookup_table(
            system.ExtendLookupTableParams(
                lookup_table_address=address,
                authority_address=payer.pubkey(),
                payer_address=payer.pubkey(),
                new_addresses=many,
            )
        )
        signature = await confirmed(client, payer, create, extend)
        await slot_after(client, (await client.get_signature_statuses([signature])).value[0].slot)
        table = AddressLookupTable.deserialize((await client.get_account_info(address)).value.data)
        assert list(table.addresses) == many
        tables = [AddressLookupTableAccount(address, many)]
        paid = [paying(payer, each, SOL // 100) for each in many]
        transaction, _ = await signed(client, payer, *paid, tables=tables)
        assert len(bytes(transaction)) < 700
        signature = await confirmed(client, payer, *paid, tables=tables)
        accounts = (await client.get_multiple_accounts(many)).value
        assert [each.lamports for each in accounts] == [SOL // 100] * len(many)
        found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
        assert found.transaction.meta.loaded_addresses.readonly == []
        assert set(found.transaction.meta.loaded_addresses.writable) == set(many)

    run(story)


def test_a_durable_nonce_lets_a_transaction_wait_and_is_used_up_even_by_a_failure(run):
    async def story(client):
        payer, nonce, friend = await funded(client), Keypair(), Keypair().pubkey()
        lamports = (await client.get_minimum_balance_for_rent_exemption(80)).value
        making = system.create_nonce_account(payer.pubkey(), nonce.pubkey(), payer.pubkey(), lamports)
        born = await confirmed(client, payer, *making, also=[nonce])

        async def read():
            return Hash.from_bytes((await client.get_account_info(nonce.pubkey())).value.data[40:72])

        async def old(signature):
            await slot_after(client, (await client.get_signature_statuses([signature])).value[0].slot + 1)

        advance = system.advance_nonce_account(
            system.AdvanceNonceAccountParams(nonce_pubkey=nonce.pubkey(), authorized_pubkey=payer.pubkey())
        )
        await old(born)
        kept = durable(payer, await read(), advance, paying(payer, friend, SOL))
        signature = (await client.send_transaction(kept, CHECKED)).value
        await client.confirm_transaction(signature, Confirmed, POLL_S)
        assert (await client.get_balance(friend)).value == SOL
        await old(signature)
        value = await read()
        assert value != kept.message.recent_blockhash
        failing = durable(payer, value, advance, paying(payer, friend, 1_000 * SOL))
        signature = (await client.send_transaction(failing, UNCHECKED)).value
        statuses = await client.confirm_transaction(signature, Confirmed, POLL_S)
        assert statuses.value[0].err.index == 1
        assert await read() != value
        again = durable(payer, value, advance, paying(payer, friend, SOL))
        with pytest.raises(RPCException):
            await client.send_transaction(again, CHECKED)

    run(story)


def test_a_program_is_written_deployed_and_called_through_the_upgradeable_loader(run):
    async def story(client):
        payer, buffer, program = await funded(client, 100), Keypair(), Keypair()
        elf = (await client.get_account_info(MEMO)).value.data
        program_data, _ = Pubkey.find_program_address([bytes(program.pubkey())], UPGRADEABLE_LOADER)
        authority = readable(payer.pubkey(), signer=True)

        async def created(key, space):
            return system.create_account(
                system.CreateAccountParams(
                    from_pubkey=payer.pubkey(),
                    to_pubkey=key.pubkey(),
                    lamports=(await client.get_minimum_balance_for_rent_exemption(space)).value,
                    space=space,
                    owner=UPGRADEABLE_LOADER,
                )
            )

        def load(accounts, layout, *values):
            return Instruction(UPGRADEABLE_LOADER, struct.pack(layout, *values), accounts)

        begin = load([writable(buffer.pubkey()), readable(payer.pubkey())], "<I", 0)
        await confirmed(client, payer, await created(buffer, len(elf) + 37), begin, also=[buffer])
        accounts = [writable(buffer.pubkey()), authority]
        parts = [(at, elf[at : at + WRITE_BYTES]) for at in range(0, len(elf), WRITE_BYTES)]
        writes = [load(accounts, f"<IIQ{len(part)}s", 1, at, len(part), part) for at, part in parts]
        await asyncio.gather(*(confirmed(client, payer, each, opts=UNCHECKED) for each in writes))
        deploy = load(
            [
                writable(payer.pubkey(), signer=True),
                writable(program_data),
                writable(program.pubkey()),
                writable(buffer.pubkey()),
                readable(RENT),
                readable(CLOCK),
                readable(system.ID),
                authority,
            ],
            "<IQ",
            2,
            len(elf),
        )
        signature = await confirmed(client, payer, await created(program, 36), deploy, also=[program])
        await slot_after(client, (await client.get_signature_statuses([signature])).value[0].slot)
        data = (await client.get_account_info(program_data)).value.data
        assert data[45:] == elf
        called = await confirmed(client, payer, Instruction(program.pubkey(), b"by our own", []))
        logs = (await client.get_transaction(called, max_supported_transaction_version=0)).value.transaction.meta
        assert logs.log_messages[0] == f"Program {program.pubkey()} invoke [1]"
        assert any("by our own" in line for line in logs.log_messages)

    run(story)


def test_a_signature_in_an_instruction_is_verified_and_costs_as_much_as_one_of_the_transaction(run):
    async def story(client):
        payer, meter = await funded(client), Keypair()
        reading = b"11 Wh at noon"

        def witnessed(signature):
            body = bytes(meter.pubkey()) + bytes(signature) + reading
            head = struct.pack("<BBHHHHHHH", 1, 0, 48, 0xFFFF, 16, 0xFFFF, 112, len(reading), 0xFFFF)
            return Instruction(ED25519, head + body, [])

        good = witnessed(meter.sign_message(reading))
        transaction, _ = await signed(client, payer, good)
        assert (await client.get_fee_for_message(transaction.message)).value == 10_000
        signature = await confirmed(client, payer, good)
        found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
        assert found.transaction.meta.fee == 10_000
        forged, _ = await signed(client, payer, witnessed(meter.sign_message(b"99 Wh at noon")))
        with pytest.raises(RPCException) as refusal:
            await client.send_transaction(forged, CHECKED)
        assert isinstance(refusal.value.args[0], SendTransactionPreflightFailureMessage)

    run(story)


def test_every_other_answer_is_one_that_the_client_can_read(run):
    async def story(client):
        payer, friend = await funded(client), Keypair().pubkey()
        signature = await confirmed(client, payer, paying(payer, friend, SOL), memo("read me"))
        await client.confirm_transaction(signature, Finalized, POLL_S)
        parsed = (await client.get_transaction(signature, "jsonParsed", max_supported_transaction_version=0)).value
        transfer, note = parsed.transaction.transaction.message.instructions
        assert transfer.parsed["info"]["lamports"] == SOL
        assert note.parsed == "read me"
        raw = (await client.get_transaction(signature, "base64", max_supported_transaction_version=0)).value
        assert raw.transaction.transaction.signatures == [signature]
        for encoding in ("json", "jsonParsed", "base64"):
            block = (await client.get_block(parsed.slot, encoding, max_supported_transaction_version=0)).value
            assert block.block_height == parsed.slot
        assert parsed.slot in (await client.get_blocks(parsed.slot, parsed.slot + 2)).value
        assert (await client.get_block_height()).value >= parsed.slot
        assert (await client.get_transaction_count()).value > 0
        assert (await client.get_minimum_ledger_slot()).value <= parsed.slot
        assert (await client.get_epoch_schedule()).value.slots_per_epoch == 432_000
        assert (await client.get_recent_prioritization_fees()).value is not None
        identity = (await client.get_identity()).value.identity
        assert (await client.get_slot_leader()).value == identity
        assert identity in [each.pubkey for each in (await client.get_cluster_nodes()).value]
        several = (await client.get_multiple_accounts_json_parsed([CLOCK, RENT, NOBODY])).value
        assert [each and each.data.parsed["type"] for each in several] == ["clock", "rent", None]
        assert (await client.get_program_accounts_json_parsed(UPGRADEABLE_LOADER)).value is not None
        latest = (await client.get_latest_blockhash()).value
        assert latest.last_valid_block_height > parsed.slot

    run(story)


def test_every_kind_of_subscription_is_told_what_it_asked_for(run, solana_cluster):
    async def story(client):
        payer, friend = await funded(client), Keypair().pubkey()
        transaction, _ = await signed(client, payer, paying(payer, friend, SOL), memo("heard"))
        signature = transaction.signatures[0]
        mentions = RpcTransactionLogsFilterMentions(friend)
        async with SolanaWsClient(solana_cluster.web_socket_url) as socket:
            wanted = {
                "account": await socket.account_subscribe(pubkey=friend, commitment=Processed, encoding="base64"),
                "program": await socket.program_subscribe(
                    program_id=system.ID, commitment=Confirmed, encoding="base64", filters=[0]
                ),
                "logs": await socket.logs_subscribe(filter_=mentions, commitment=Confirmed),
                "signature": await socket.signature_subscribe(signature=signature, commitment=Finalized),
                "slot": await socket.slot_subscribe(),
                "root": await socket.root_subscribe(),
            }
            await client.send_transaction(transaction, CHECKED)
            heard = await _heard_of_all(socket, wanted, friend)
            assert heard["account"].result.value.lamports == SOL
            assert heard["program"].result.value.account.lamports == SOL
            assert heard["logs"].result.value.signature == signature
            assert heard["logs"].result.value.err is None
            assert heard["signature"].result.value.err is None
            assert heard["slot"].result.slot > heard["slot"].result.root
            assert heard["root"].result > 0

            for name in ("account", "program", "logs", "slot", "root"):
                await socket.unsubscribe(wanted[name])
            again = await socket.signature_subscribe(signature=signature, commitment=Finalized)
            note = await asyncio.wait_for(_next(socket, again), WAIT_S)
            assert note.result.value.err is None
            for update in [await socket.slots_updates_subscribe()]:
                assert await asyncio.wait_for(_next(socket, update), WAIT_S)

    run(story)


async def _next(socket, subscription):
    while True:
        note = await socket.recv()
        if note.subscription == subscription.subscription_id:
            return note


async def _heard_of_all(socket, wanted, friend):
    """The first notification of each subscription; of the program's, the first about our account."""
    types = {
        "account": AccountNotification,
        "program": ProgramNotification,
        "logs": LogsNotification,
        "signature": SignatureNotification,
        "slot": SlotNotification,
        "root": RootNotification,
    }
    names = {subscription.subscription_id: name for name, subscription in wanted.items()}
    heard = {}
    async with asyncio.timeout(WAIT_S):
        while len(heard) < len(wanted):
            note = await socket.recv()
            name = names[note.subscription]
            assert isinstance(note, types[name])
            if name != "program" or note.result.value.pubkey == friend:
                heard.setdefault(name, note)
    return heard


def test_a_subscription_that_the_node_does_not_know_is_refused_in_the_clients_own_error(run, solana_cluster):
    async def story(_):
        async with SolanaWsClient(solana_cluster.web_socket_url) as socket:
            with pytest.raises(SolanaJsonRpcError) as refusal:
                await socket.vote_subscribe()
            assert refusal.value.code == -32601
            assert await socket.slot_subscribe()

    run(story)
