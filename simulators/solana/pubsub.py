"""Subscriptions over WebSocket: who wants to know what, and what they are told when something happens.

Facts come from the node in their order and are told in it. A subscription belongs to the socket that asked for it and
ends with it; one for a signature also ends with its notification.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from solders.account import Account
from solders.pubkey import Pubkey

from simulators.solana import filters
from simulators.solana.accounts import DataSlice, account_json
from simulators.solana.errors import RpcError
from simulators.solana.facts import AccountChanged, Fact, SlotConfirmed, SlotMade, SlotRooted, TransactionProcessed
from simulators.solana.ledger import Ledger
from simulators.solana.node import ConnectionCut, Node
from simulators.solana.parsed import SYSTEM
from simulators.solana.pubsub_requests import AccountView, BlockView, SignatureView, Topic, Wanted

GONE = Account(0, b"", SYSTEM, False, 0)
RECEIVED = "receivedSignature"
TOO_LARGE = "error: data too large for bs58 encoding"
NOTHING = DataSlice(0, 0)

Answer = Callable[[object], Awaitable[Any]]
"""Answers one JSON-RPC request over HTTP's methods."""


class Audience(Protocol):
    """Who is told."""

    def tell(self, message: dict[str, Any]) -> None:
        """Send this soon; never waits."""

    def forget(self, subscription: "Subscription") -> None:
        """This one has ended by itself."""


@dataclass(frozen=True)
class Subscription:
    """One client's wish."""

    number: int
    wanted: Wanted
    audience: Audience


class PubSub:
    """All subscriptions of a node."""

    def __init__(self, node: Node, answer: Answer, now_unix_ms: Callable[[], int]) -> None:
        self._node = node
        self._answer = answer
        self._now_unix_ms = now_unix_ms
        self._numbers = itertools.count()
        self._topics: dict[Topic, dict[int, Subscription]] = {}
        self._facts: asyncio.Queue[Fact] = asyncio.Queue()

    async def run(self) -> None:
        """Tell facts as they come, until cancelled."""
        stop = self._node.listen(self._facts.put_nowait)
        try:
            while True:
                await self._tell_fact(await self._facts.get())
        finally:
            stop()

    def subscribe(self, wanted: Wanted, audience: Audience) -> Subscription:
        """From now on tell this audience. For a signature, `catch_up` must follow."""
        subscription = Subscription(next(self._numbers), wanted, audience)
        self._topics.setdefault(wanted.topic, {})[subscription.number] = subscription
        return subscription

    def unsubscribe(self, subscription: Subscription) -> bool:
        """Tell no more; whether it was still told."""
        there = self._topics.get(subscription.wanted.topic, {})
        found = there.pop(subscription.number, None)
        if found is not None and not there:
            del self._topics[subscription.wanted.topic]
        return found is not None

    async def catch_up(self, subscription: Subscription) -> None:
        """Tell what has happened to a signature before the subscription began."""
        topic = subscription.wanted.topic

        def find(ledger: Ledger) -> tuple[int, Any] | None:
            status = ledger.find_status(topic.key)
            if status is None or status.slot > self._node.slot_at(topic.commitment):
                return None
            return status.slot, status.err

        found = await self._node.ask(find)
        if found is not None:
            slot, err = found
            self._tell_signature(subscription, slot, err)

    async def _tell_fact(self, fact: Fact) -> None:
        match fact:
            case TransactionProcessed():
                await self._tell_transactions("processed", fact.slot, [fact])
                self._tell_received(fact)
            case SlotMade():
                self._tell_slot(fact)
            case SlotConfirmed():
                self._tell_update({"slot": fact.slot, "type": "optimisticConfirmation"})
                await self._tell_transactions("confirmed", fact.slot, fact.transactions)
                await self._tell_block("confirmed", fact.slot, fact.transactions)
            case SlotRooted():
                self._tell_all(self._of("root"), "root", fact.slot)
                self._tell_update({"slot": fact.slot, "type": "root"})
                await self._tell_transactions("finalized", fact.slot, fact.transactions)
                await self._tell_block("finalized", fact.slot, fact.transactions)

    # ---- transactions

    async def _tell_transactions(
        self, commitment: str, slot: int, transactions: Iterable[TransactionProcessed]
    ) -> None:
        """Tell logs and signatures of each; of each account what it is after the last of them."""
        last: dict[Pubkey, Account | None] = {}
        for each in transactions:
            last |= {changed.address: changed.account for changed in each.accounts}
            self._tell_logs(commitment, each)
            for subscription in self._of("signature", commitment, each.signature):
                self._tell_signature(subscription, slot, each.err)
        for address, account in last.items():
            await self._tell_account(commitment, slot, AccountChanged(address, account))

    def _tell_logs(self, commitment: str, transaction: TransactionProcessed) -> None:
        value = {"signature": transaction.signature, "err": transaction.err, "logs": list(transaction.logs)}
        for key in ("", *dict.fromkeys(transaction.mentions)):
            self._tell_all(self._of("logs", commitment, key), "logs", value, transaction.slot)

    def _tell_signature(self, subscription: Subscription, slot: int, err: Any) -> None:
        if self.unsubscribe(subscription):
            self._tell_one(subscription, "signature", {"err": err}, slot)
            subscription.audience.forget(subscription)

    def _tell_received(self, transaction: TransactionProcessed) -> None:
        """Those who wait for more than that it was processed learn that it has come."""
        for commitment in ("confirmed", "finalized"):
            for subscription in self._of("signature", commitment, transaction.signature):
                view = subscription.wanted.view
                if isinstance(view, SignatureView) and view.received:
                    self._tell_one(subscription, "signature", RECEIVED, transaction.slot)

    async def _tell_account(self, commitment: str, slot: int, changed: AccountChanged) -> None:
        for subscription in self._of("account", commitment, str(changed.address)):
            shown = await self._show(subscription, slot, changed)
            self._tell_one(subscription, "account", shown, slot)
        if changed.account is None:
            return
        for subscription in self._of("program", commitment, str(changed.account.owner)):
            view = subscription.wanted.view
            assert isinstance(view, AccountView)
            if filters.matches(changed.account.data, view.filters):
                shown = await self._show(subscription, slot, changed)
                self._tell_one(subscription, "program", {"pubkey": str(changed.address), "account": shown}, slot)

    async def _show(self, subscription: Subscription, slot: int, changed: AccountChanged) -> dict[str, Any]:
        view = subscription.wanted.view
        assert isinstance(view, AccountView)
        account = GONE if changed.account is None else changed.account

        def show(ledger: Ledger) -> dict[str, Any]:
            form = view.form
            try:
                return account_json(
                    changed.address,
                    account,
                    form.encoding,
                    form.data_slice,
                    lambda address: ledger.account_at(address, slot),
                )
            except RpcError:
                shown = account_json(changed.address, account, form.encoding, NOTHING, lambda _: None)
                return {**shown, "data": TOO_LARGE if form.encoding == "binary" else [TOO_LARGE, form.encoding]}

        return await self._node.ask(show)

    # ---- slots

    def _tell_slot(self, made: SlotMade) -> None:
        slot = {"slot": made.slot, "parent": made.parent, "root": made.root}
        self._tell_all(self._of("slot"), "slot", slot)
        self._tell_update({"slot": made.parent, "type": "completed"})
        self._tell_update({"slot": made.slot, "parent": made.parent, "type": "createdBank"})

    def _tell_update(self, update: dict[str, Any]) -> None:
        stamped = {**update, "timestamp": self._now_unix_ms()}
        self._tell_all(self._of("slotsUpdates"), "slotsUpdates", stamped)

    async def _tell_block(self, commitment: str, slot: int, transactions: Iterable[TransactionProcessed]) -> None:
        mentioned = {key for each in transactions for key in each.mentions}
        for key in ("", *sorted(mentioned)):
            for subscription in self._of("block", commitment, key):
                view = subscription.wanted.view
                assert isinstance(view, BlockView)
                request = {"jsonrpc": "2.0", "id": 0, "method": "getBlock", "params": [slot, dict(view.config)]}
                try:
                    answer = await self._answer(request)
                except ConnectionCut:  # the node refuses everything now, and has cut every socket
                    return
                value = {"slot": slot, "err": None, "block": answer.get("result")}
                self._tell_one(subscription, "block", value, slot)

    # ---- telling

    def _of(self, kind: str, commitment: str = "", key: str = "") -> list[Subscription]:
        return list(self._topics.get(Topic(kind, commitment, key), {}).values())

    def _tell_all(self, subscriptions: Iterable[Subscription], kind: str, value: Any, slot: int | None = None) -> None:
        for subscription in subscriptions:
            self._tell_one(subscription, kind, value, slot)

    def _tell_one(self, subscription: Subscription, kind: str, value: Any, slot: int | None = None) -> None:
        result = value if slot is None else {"context": {"slot": slot}, "value": value}
        params = {"result": result, "subscription": subscription.number}
        subscription.audience.tell({"jsonrpc": "2.0", "method": f"{kind}Notification", "params": params})
