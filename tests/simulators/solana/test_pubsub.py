"""Subscriptions on the wire: who is told what, when, and no more; what is refused, and in which words."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Processed
from solders import system_program as system
from solders.keypair import Keypair
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from simulators.solana.pubsub_socket import BATCH_REQUESTS_MAX, SUBSCRIPTIONS_MAX, UNSENT_BYTES_MAX
from tests.simulators.solana.conformance.clients import running_cluster
from tests.simulators.solana.conformance.python import CHECKED, SOL, UNCHECKED, confirmed, funded, memo, signed

WAIT_S = 10
QUIET_S = 0.3
SLOT_MS, FINALIZED_AFTER_SLOTS = 50, 40
NOBODY = str(Keypair().pubkey())


class Wire:
    """A WebSocket as it is, without a client's kindness."""

    def __init__(self, socket):
        self.socket = socket
        self.notes = []

    async def say(self, message):
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def hear(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), WAIT_S))

    async def ask(self, method, *params, number=7):
        """The answer; what is notified before it is kept."""
        await self.say({"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)})
        while "id" not in (answer := await self.hear()):
            self.notes.append(answer)
        assert answer["id"] == number
        return answer.get("result", answer.get("error"))

    async def subscribe_often(self, count, method, *params):
        """So many subscriptions to the same."""
        numbers = []
        for at in range(0, count, BATCH_REQUESTS_MAX):
            batch = range(at, min(count, at + BATCH_REQUESTS_MAX))
            requests = [{"jsonrpc": "2.0", "id": each, "method": method, "params": list(params)} for each in batch]
            await self.say(requests)
            numbers += [(await self.hear())["result"] for _ in batch]
        return numbers

    async def note(self, subscription):
        """The next notification of a subscription, of those that came, then of those to come."""
        while True:
            for each in self.notes:
                if each["params"]["subscription"] == subscription:
                    self.notes.remove(each)
                    return each["params"]["result"]
            self.notes.append(await self.hear())

    async def silent(self):
        """Nothing comes for a while."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.socket.recv(), QUIET_S)
        return not self.notes


@pytest.fixture
def run(solana_cluster):
    """Runs a story with a client and a WebSocket."""

    def begin(story):
        async def told():
            client = AsyncClient(solana_cluster.url, commitment=Confirmed)
            async with client, connect(solana_cluster.web_socket_url) as socket:
                await story(client, Wire(socket))

        asyncio.run(asyncio.wait_for(told(), 60))

    return begin


def paying(payer, to, lamports):
    return system.transfer(system.TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))


def test_each_commitment_is_told_of_the_same_payment_in_its_turn_and_once(run):
    async def story(client, wire):
        payer, friend = await funded(client), Keypair().pubkey()
        numbers = {
            await wire.ask("accountSubscribe", str(friend), {"commitment": each, "encoding": "base64"}): each
            for each in ("finalized", "confirmed", "processed")
        }
        await confirmed(client, payer, paying(payer, friend, SOL))
        heard = [await wire.hear() for _ in numbers]
        order = [numbers[each["params"]["subscription"]] for each in heard]
        assert order == ["processed", "confirmed", "finalized"]
        results = [each["params"]["result"] for each in heard]
        assert len({each["context"]["slot"] for each in results}) == 1
        assert [each["value"]["lamports"] for each in results] == [SOL] * 3
        assert await wire.silent()

    run(story)


def test_an_account_is_shown_as_it_is_after_the_slots_last_transaction_once_that_is_confirmed(run):
    async def story(client, wire):
        payer, friend = await funded(client), Keypair().pubkey()
        number = await wire.ask("accountSubscribe", str(friend), {"commitment": "confirmed", "encoding": "base64"})
        for each in range(1, 4):
            transaction, _ = await signed(client, payer, paying(payer, friend, SOL), memo(str(each)))
            await client.send_transaction(transaction, CHECKED)
        slots = []
        while (note := await wire.note(number))["value"]["lamports"] < 3 * SOL:
            slots.append(note["context"]["slot"])
        assert [*slots, note["context"]["slot"]] == sorted({*slots, note["context"]["slot"]})

    run(story)


def test_an_account_that_is_gone_is_shown_empty_and_owned_by_nobody_in_particular(run):
    async def story(client, wire):
        payer, spent = await funded(client), await funded(client, 1)
        number = await wire.ask("accountSubscribe", str(spent.pubkey()), {"commitment": "processed"})
        await confirmed(client, payer, paying(spent, payer.pubkey(), SOL), also=[spent])
        value = (await wire.note(number))["value"]
        assert (value["lamports"], value["owner"], value["space"], value["data"]) == (0, "1" * 32, 0, "")

    run(story)


def test_a_nonce_account_is_shown_parsed_or_a_slice_of_it_as_each_subscription_wants(run):
    async def story(client, wire):
        payer, nonce = await funded(client), Keypair()
        key, sure = str(nonce.pubkey()), {"commitment": "confirmed"}
        parsed = await wire.ask("accountSubscribe", key, {**sure, "encoding": "jsonParsed"})
        part = {"encoding": "base64", "dataSlice": {"offset": 4, "length": 1}}
        sliced = await wire.ask("accountSubscribe", key, {**sure, **part})
        packed = await wire.ask("accountSubscribe", key, {**sure, "encoding": "base58"})
        lamports = (await client.get_minimum_balance_for_rent_exemption(80)).value
        making = system.create_nonce_account(payer.pubkey(), nonce.pubkey(), payer.pubkey(), lamports)
        await confirmed(client, payer, *making, also=[nonce])
        shown = (await wire.note(parsed))["value"]["data"]
        assert (shown["program"], shown["parsed"]["info"]["authority"]) == ("nonce", str(payer.pubkey()))
        assert (await wire.note(sliced))["value"]["data"] == ["AQ==", "base64"]
        assert (await wire.note(packed))["value"]["data"][1] == "base58"

    run(story)


def test_an_account_too_long_for_base58_is_announced_without_its_data(run):
    async def story(client, wire):
        payer, long = await funded(client), Keypair()
        number = await wire.ask("accountSubscribe", str(long.pubkey()), {"commitment": "processed"})
        lamports = (await client.get_minimum_balance_for_rent_exemption(200)).value
        creating = system.create_account(
            system.CreateAccountParams(
                from_pubkey=payer.pubkey(), to_pubkey=long.pubkey(), lamports=lamports, space=200, owner=system.ID
            )
        )
        await confirmed(client, payer, creating, also=[long])
        value = (await wire.note(number))["value"]
        assert (value["data"], value["space"]) == ("error: data too large for bs58 encoding", 200)

    run(story)


def test_a_program_is_followed_by_filters_and_logs_by_one_address(run):
    async def story(client, wire):
        payer, friend = await funded(client), Keypair().pubkey()
        owner = Keypair().pubkey()
        wanted = {"commitment": "confirmed", "encoding": "base64", "filters": [{"dataSize": 9}]}
        program = await wire.ask("programSubscribe", str(owner), wanted)
        logs = await wire.ask("logsSubscribe", {"mentions": [str(friend)]}, {"commitment": "confirmed"})
        small, large = Keypair(), Keypair()
        for key, space in ((large, 10), (small, 9)):
            lamports = (await client.get_minimum_balance_for_rent_exemption(space)).value
            creating = system.create_account(
                system.CreateAccountParams(
                    from_pubkey=payer.pubkey(), to_pubkey=key.pubkey(), lamports=lamports, space=space, owner=owner
                )
            )
            await confirmed(client, payer, creating, also=[key])
        signature = await confirmed(client, payer, paying(payer, friend, SOL))
        value = (await wire.note(program))["value"]
        assert (value["pubkey"], value["account"]["owner"]) == (str(small.pubkey()), str(owner))
        value = (await wire.note(logs))["value"]
        assert (value["signature"], value["err"], len(value["logs"])) == (str(signature), None, 2)
        assert await wire.silent()

    run(story)


def test_a_failed_transaction_is_told_with_its_error(run):
    async def story(client, wire):
        payer, friend = await funded(client), Keypair().pubkey()
        transaction, _ = await signed(client, payer, paying(payer, friend, 1_000 * SOL))
        signature = str(transaction.signatures[0])
        number = await wire.ask("signatureSubscribe", signature, {"commitment": "confirmed"})
        logs = await wire.ask("logsSubscribe", "all", {"commitment": "processed"})
        await client.send_transaction(transaction, UNCHECKED)
        err = {"InstructionError": [0, {"Custom": 1}]}
        assert (await wire.note(number))["value"] == {"err": err}
        while (value := (await wire.note(logs))["value"])["signature"] != signature:
            continue  # another's
        assert value["err"] == err

    run(story)


def test_a_signature_subscription_ends_with_its_notification(run):
    async def story(client, wire):
        payer = await funded(client)
        signature = str(await confirmed(client, payer, memo("done")))
        number = await wire.ask("signatureSubscribe", signature, {"commitment": "confirmed"})
        assert (await wire.note(number))["value"] == {"err": None}
        refusal = await wire.ask("signatureUnsubscribe", number)
        assert refusal == {"code": -32602, "message": "Invalid subscription id."}
        assert await wire.silent()

    run(story)


def test_received_comes_before_the_status_and_only_if_it_is_wanted(run):
    async def story(client, wire):
        payer = await funded(client)
        transaction, _ = await signed(client, payer, memo("arriving"))
        signature = str(transaction.signatures[0])
        told = {"commitment": "confirmed", "enableReceivedNotification": True}
        wanted = await wire.ask("signatureSubscribe", signature, told)
        plain = await wire.ask("signatureSubscribe", signature, {"commitment": "confirmed"})
        await client.send_transaction(transaction, CHECKED)
        assert (await wire.note(wanted))["value"] == "receivedSignature"
        assert (await wire.note(wanted))["value"] == {"err": None}
        assert (await wire.note(plain))["value"] == {"err": None}
        assert await wire.silent()

    run(story)


def test_who_unsubscribes_or_never_subscribed_is_not_told(run, solana_cluster):
    async def story(client, wire):
        payer, friend = await funded(client), Keypair().pubkey()
        mine = await wire.ask("accountSubscribe", str(friend), {"commitment": "processed"})
        async with connect(solana_cluster.web_socket_url) as socket:
            other = Wire(socket)
            theirs = await other.ask("accountSubscribe", str(friend), {"commitment": "processed"})
            assert theirs != mine
            stolen = await other.ask("accountUnsubscribe", mine)
            assert stolen["message"] == "Invalid subscription id."
            assert await wire.ask("accountUnsubscribe", mine) is True
            await confirmed(client, payer, paying(payer, friend, SOL))
            assert (await other.note(theirs))["value"]["lamports"] == SOL
        assert await wire.silent()

    run(story)


def test_slots_follow_each_other_and_roots_follow_them(run):
    async def story(_, wire):
        slots, roots = await wire.ask("slotSubscribe"), await wire.ask("rootSubscribe")
        heard = [await wire.note(slots) for _ in range(4)]
        assert all(set(each) == {"slot", "parent", "root"} for each in heard)
        assert [each["slot"] for each in heard] == sorted({each["slot"] for each in heard})
        assert all(each["root"] < each["slot"] for each in heard)
        first, second = await wire.note(roots), await wire.note(roots)
        assert first < second

    run(story)


def test_updates_of_slots_carry_the_time(run):
    async def story(_, wire):
        number = await wire.ask("slotsUpdatesSubscribe")
        now_unix_ms = time.time() * 1000
        heard = [await wire.note(number) for _ in range(8)]
        assert all(abs(each["timestamp"] - now_unix_ms) < 60_000 for each in heard)
        assert {each["type"] for each in heard} == {"completed", "createdBank", "optimisticConfirmation", "root"}

    run(story)


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("nothingSubscribe", [], -32601, "Method not found"),
        ("getSlot", [], -32601, "Method not found"),
        ("accountSubscribe", [], -32602, "at least 1 argument"),
        ("accountSubscribe", ["no address"], -32602, "Invalid"),
        ("accountSubscribe", [5], -32602, "integer `5`, expected a string"),
        ("accountSubscribe", [NOBODY, "base64"], -32602, "expected a map"),
        ("accountSubscribe", [NOBODY, {"commitment": "hopeful"}], -32602, "unknown variant `hopeful`"),
        ("accountSubscribe", [NOBODY, {"encoding": "gzip"}], -32602, "unknown variant `gzip`"),
        ("accountSubscribe", [NOBODY, {"dataSlice": {"offset": -1, "length": 2}}], -32602, "`-1`"),
        ("programSubscribe", [NOBODY, {"filters": [{"dataSize": 1}] * 5}], -32602, "Too many filters"),
        ("programSubscribe", [NOBODY, {"filters": [{"color": 1}]}], -32602, "unknown variant `color`"),
        ("logsSubscribe", ["some"], -32602, "RpcTransactionLogsFilter"),
        ("logsSubscribe", [{"mentions": []}], -32602, "Only 1 address supported"),
        ("logsSubscribe", [{"mentions": [NOBODY, NOBODY]}], -32602, "Only 1 address supported"),
        ("signatureSubscribe", [NOBODY], -32602, "WrongSize"),
        ("blockSubscribe", ["all", {"commitment": "processed"}], -32602, "below `confirmed`"),
        ("accountUnsubscribe", [10**9], -32602, "Invalid subscription id."),
        ("accountUnsubscribe", ["1"], -32602, "Invalid subscription id."),
        ("accountUnsubscribe", [], -32602, "Invalid subscription id."),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused_and_the_socket_goes_on(run, method, params, code, words):
    async def story(_, wire):
        refusal = await wire.ask(method, *params)
        assert refusal["code"] == code
        assert words in refusal["message"]
        assert isinstance(await wire.ask("slotSubscribe"), int)

    run(story)


def test_what_is_no_request_is_answered_and_a_ping_without_an_id_is_not(run):
    async def story(_, wire):
        await wire.say("{")
        assert (await wire.hear())["error"]["code"] == -32700
        too_many = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"}] * (BATCH_REQUESTS_MAX + 1))
        for nonsense in (too_many, "5", "[]", "[1]", '{"id": 1}', '{"id": 1, "method": 5}'):
            await wire.say(nonsense)
            assert (await wire.hear())["error"]["code"] == -32600
        await wire.say({"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe", "params": {"a": 1}})
        assert (await wire.hear())["error"]["code"] == -32602
        await wire.say({"jsonrpc": "2.0", "method": "ping"})
        batch = [{"jsonrpc": "2.0", "id": each, "method": "rootUnsubscribe", "params": [each]} for each in (1, 2)]
        await wire.say(batch)
        assert sorted([(await wire.hear())["id"], (await wire.hear())["id"]]) == [1, 2]

    run(story)


def test_bytes_instead_of_text_end_the_connection(run):
    async def story(_, wire):
        await wire.say(b"\x00\x01")
        with pytest.raises(ConnectionClosed) as closed:
            await wire.hear()
        assert closed.value.rcvd.code == 1003

    run(story)


def test_a_socket_may_have_so_many_subscriptions_and_no_more_until_it_gives_some_up(run):
    async def story(_, wire):
        numbers = await wire.subscribe_often(SUBSCRIPTIONS_MAX, "accountSubscribe", NOBODY)
        assert len(set(numbers)) == SUBSCRIPTIONS_MAX
        refusal = await wire.ask("accountSubscribe", NOBODY)
        assert refusal["code"] == -32603
        assert "limit reached" in refusal["message"]
        assert await wire.ask("accountUnsubscribe", numbers[0]) is True
        assert isinstance(await wire.ask("accountSubscribe", NOBODY), int)

    run(story)


def test_a_client_that_does_not_read_is_cut_off_and_the_others_hear_everything(run, solana_cluster):
    async def story(client, wire):
        payer, noisy = await funded(client), Keypair()
        everything = await wire.ask("logsSubscribe", {"mentions": [str(noisy.pubkey())]}, {"commitment": "processed"})
        async with connect(solana_cluster.web_socket_url, max_queue=1, close_timeout=1, compression=None) as socket:
            deaf = Wire(socket)
            wanted = [{"mentions": [str(noisy.pubkey())]}, {"commitment": "processed"}]
            await deaf.subscribe_often(SUBSCRIPTIONS_MAX, "logsSubscribe", *wanted)
            sent = []
            note_bytes = 1_000  # at least: each tells the memo of 700 letters
            for each in range(2 * UNSENT_BYTES_MAX // (note_bytes * SUBSCRIPTIONS_MAX)):
                loud = memo(f"{each} " + "x" * 700)
                transaction, _ = await signed(client, payer, loud, paying(payer, noisy.pubkey(), SOL // 100))
                sent.append((await client.send_transaction(transaction, CHECKED)).value)
            heard = [(await wire.note(everything))["value"]["signature"] for _ in sent]
            assert heard == list(map(str, sent))
            with pytest.raises(ConnectionClosed):
                for _ in range(SUBSCRIPTIONS_MAX * len(sent)):
                    await deaf.hear()

    run(story)


def test_many_clients_come_and_go_while_others_listen(run, solana_cluster):
    async def story(client, wire):
        payer, friend = await funded(client), Keypair().pubkey()
        number = await wire.ask("accountSubscribe", str(friend), {"commitment": "processed"})

        async def visit():
            async with connect(solana_cluster.web_socket_url) as socket:
                guest = Wire(socket)
                await guest.ask("slotSubscribe")
                await guest.ask("accountSubscribe", str(friend), {"commitment": "processed"})
            socket.transport.abort()

        await asyncio.gather(*(visit() for _ in range(30)))
        await confirmed(client, payer, paying(payer, friend, SOL))
        assert (await wire.note(number))["value"]["lamports"] == SOL

    run(story)


def test_a_subscription_made_after_a_crash_is_told_of_what_was_processed_before_it(tmp_path):
    async def before(cluster):
        async with AsyncClient(cluster.url, commitment=Confirmed) as client:
            payer = await funded(client)
            transaction, _ = await signed(client, payer, memo("before the crash"))
            return (await client.send_transaction(transaction, CHECKED)).value

    async def after(cluster, signature):
        async with connect(cluster.web_socket_url) as socket:
            wire = Wire(socket)
            number = await wire.ask("signatureSubscribe", str(signature), {"commitment": "finalized"})
            return await wire.note(number)

    with running_cluster(tmp_path, SLOT_MS, FINALIZED_AFTER_SLOTS) as cluster:
        signature = asyncio.run(before(cluster))
        cluster.kill()
    with running_cluster(tmp_path, SLOT_MS, FINALIZED_AFTER_SLOTS) as cluster:
        assert asyncio.run(after(cluster, signature))["value"] == {"err": None}


def test_a_node_that_refuses_cuts_its_subscribers_off_and_takes_them_again_afterwards(tmp_path):
    async def story(cluster):
        async with connect(cluster.web_socket_url) as socket:
            wire = Wire(socket)
            blocks = await wire.ask("blockSubscribe", "all", {"commitment": "confirmed", "rewards": False})
            assert (await wire.note(blocks))["value"]["err"] is None
            (tmp_path / "faults.json").write_text(json.dumps({"refused_s": 0.5}))
            with pytest.raises(ConnectionClosed):
                while True:
                    await wire.hear()
        async with await connected_in_the_end(cluster) as again:
            wire = Wire(again)
            slots = await wire.ask("slotSubscribe")
            first, second = await wire.note(slots), await wire.note(slots)
            assert first["slot"] < second["slot"]

    async def connected_in_the_end(cluster):
        while True:
            try:
                return await connect(cluster.web_socket_url)
            except (OSError, EOFError, InvalidMessage):  # still refusing
                await asyncio.sleep(0.05)

    with running_cluster(tmp_path, SLOT_MS, FINALIZED_AFTER_SLOTS) as cluster:
        asyncio.run(asyncio.wait_for(story(cluster), 30))


def test_a_node_that_lags_tells_late_what_it_shows_late(tmp_path):
    lag_slots = 20  # a second

    async def story(cluster):
        async with AsyncClient(cluster.url, commitment=Confirmed) as client, connect(cluster.web_socket_url) as socket:
            payer, friend, wire = await funded(client), Keypair().pubkey(), Wire(socket)
            transaction, _ = await signed(client, payer, paying(payer, friend, SOL))
            signature = str(transaction.signatures[0])
            number = await wire.ask("accountSubscribe", str(friend), {"commitment": "processed"})
            (tmp_path / "faults.json").write_text(json.dumps({"lag_slots": lag_slots}))
            sent_s = time.monotonic()
            await client.send_transaction(transaction, UNCHECKED)
            late = await wire.ask("signatureSubscribe", signature, {"commitment": "processed"})
            note = await wire.note(number)
            assert time.monotonic() - sent_s > lag_slots * SLOT_MS / 1000 / 2
            assert (await wire.note(late))["context"] == note["context"]
            assert (await client.get_slot(Processed)).value >= note["context"]["slot"]
            assert (await client.get_balance(friend, Processed)).value == SOL

    with running_cluster(tmp_path, SLOT_MS, FINALIZED_AFTER_SLOTS) as cluster:
        asyncio.run(asyncio.wait_for(story(cluster), 30))


def test_the_websocket_is_on_the_port_of_http_too(solana_cluster):
    async def story():
        async with connect(f"ws://127.0.0.1:{solana_cluster.port}") as socket:
            assert isinstance(await Wire(socket).ask("slotSubscribe"), int)

    asyncio.run(story())
