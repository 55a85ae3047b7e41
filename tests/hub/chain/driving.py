"""A sender that tests drive step by step, against a real node and a real database. Its clock can be set forward, so
that nobody has to wait until something is due."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from sqlalchemy import Connection, Engine

from hub.chain.chain_state import ChainGate, check_chain_once
from hub.chain.intents import Ended, Intent, IntentState, Plan, Reaction, get_intent, plan_intent
from hub.chain.rpc import Node
from hub.chain.sender import Sender, build_once, reconcile_once, send_once
from hub.db import transaction
from tests.hub.chain.cluster import Cluster, utc_now

Step = Callable[[Sender], Awaitable[bool]]
STEPS: tuple[Step, ...] = (build_once, send_once, reconcile_once)
ENDS_WITHIN_S = 60.0
PAY = "test.pay"
REGISTER = "test.register"


_lapses = itertools.count(1_000)


def lapse(driver: Driver) -> None:
    """So many slots pass that no transaction signed before can land any more, and that is final. Ends other faults."""
    before = driver.cluster.ask(lambda node: node.finalized()).block_height
    # a fault happens anew if the file is another one
    driver.cluster.simulator.fail(expired_blockhashes=True, duration_s=next(_lapses))
    while driver.cluster.ask(lambda node: node.finalized()).block_height < before + 160:
        time.sleep(0.05)


class Driver:
    """One sender. What its reactions were told is in `told`; `ahead` is how far its clock is ahead of ours."""

    def __init__(self, cluster: Cluster, engine: Engine, rpc_url: str | None = None) -> None:
        self.cluster = cluster
        self.engine = engine
        self.rpc_url = rpc_url or cluster.rpc_url
        self.gate = ChainGate()
        self.ahead = timedelta()
        self.told: list[Ended] = []
        self.reactions: dict[str, Reaction] = {PAY: self._react, REGISTER: self._react}

    def now(self) -> datetime:
        return utc_now() + self.ahead

    def pass_time(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)

    def sender(self, node: Node) -> Sender:
        return Sender(
            engine=self.engine,
            node=node,
            key=self.cluster.hub,
            genesis_hash=self.cluster.genesis_hash,
            gate=self.gate,
            reactions=self.reactions,
            compute_unit_price_micro_lamports=0,
            clock=self.now,
        )

    def check(self) -> bool:
        """Look whether the chain is ours."""

        async def run() -> bool:
            async with Node(self.rpc_url) as node:
                return await check_chain_once(node, self.cluster.expected, self.gate)

        return asyncio.run(run())

    def step(self, step: Step) -> bool:
        """One step of the sender."""

        async def run() -> bool:
            async with Node(self.rpc_url) as node:
                return await step(self.sender(node))

        return asyncio.run(run())

    def plan(
        self,
        *steps: Instruction,
        kind: str = PAY,
        subject: str = "wallet:test",
        intent_id: UUID | None = None,
        wallet: Keypair | None = None,
        valid_for_s: int | None = None,
        lookup_tables: tuple[Pubkey, ...] = (),
    ) -> UUID:
        """Plan an intent of these instructions."""
        plan = Plan(
            intent_id or uuid4(),
            kind,
            subject,
            steps,
            200_000,
            None if wallet is None else bytes(wallet.pubkey()),
            lookup_tables,
            {"of": "a test"},
            valid_for_s,
        )
        with transaction(self.engine) as connection:
            plan_intent(connection, plan, self.now())
        return plan.intent_id

    def plan_payment(self, to: Pubkey, lamports: int = 5_000_000) -> UUID:
        """The hub pays somebody: what arrived tells how often it happened."""
        hub = self.cluster.hub.pubkey()
        return self.plan(transfer(TransferParams(from_pubkey=hub, to_pubkey=to, lamports=lamports)))

    def intent(self, intent_id: UUID) -> Intent:
        with transaction(self.engine) as connection:
            return get_intent(connection, intent_id)

    def state(self, intent_id: UUID) -> IntentState:
        return self.intent(intent_id).state

    def run_until(self, intent_id: UUID, *states: IntentState) -> Intent:
        """Do all steps, again and again, with time passing as fast as it must, until the intent is in such a state."""
        deadline_s = time.monotonic() + ENDS_WITHIN_S

        async def run() -> None:
            async with Node(self.rpc_url) as node:
                sender = self.sender(node)
                while self.state(intent_id) not in states:
                    assert time.monotonic() < deadline_s, self.intent(intent_id)
                    for step in STEPS:
                        await step(sender)
                    self.pass_time(1)
                    await asyncio.sleep(0.1)

        asyncio.run(run())
        return self.intent(intent_id)

    def finish(self, intent_id: UUID) -> Intent:
        """Until it is finalized."""
        return self.run_until(intent_id, IntentState.FINALIZED)

    def lamports(self, address: Pubkey) -> int:
        return self.cluster.ask(lambda node: node.lamports(address, "finalized"))

    def _react(self, connection: Connection, ended: Ended, now: datetime) -> None:
        self.told.append(ended)
