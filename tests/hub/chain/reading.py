"""A hub that reads a cluster, step by step, as its chain process does in loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

import base58
from solana.rpc.models import TxOpts
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from sqlalchemy import Engine, text

from hub.chain import inbox_store, mirrors, reconcile
from hub.chain.inbox import Reactions, StoredEvent, Trouble, process_once
from hub.chain.messages import build_message, signers_of, transaction_of
from hub.chain.mirrors import MirroredAccount
from hub.chain.rpc import Node
from hub.chain.watcher import Deployment, Watcher
from hub.db import transaction
from tests.hub.chain.cluster import Cluster

T = TypeVar("T")


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Reader:
    """A database and what reads a cluster into it."""

    engine: Engine
    cluster: Cluster
    troubles: list[Trouble] = field(default_factory=list)
    told: list[StoredEvent] = field(default_factory=list)
    node_url: str | None = None
    """Of another node than the cluster's own."""

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.cluster.genesis_hash, self.cluster.program_id)

    def alarm(self, connection, trouble, now):
        self.troubles.append(trouble)

    def watcher(self, node: Node, patience_s: float = 60.0) -> Watcher:
        return Watcher(self.engine, node, self.deployment, self.alarm, utc_now, patience_s)

    def watch(self, patience_s: float = 60.0) -> int:
        """One reading by a watcher that has only just begun."""
        return self.ask(lambda node: self.watcher(node, patience_s).watch_once())

    def process(self) -> None:
        reactions = Reactions({}, [lambda _, stored, __, ___: self.told.append(stored)])
        while process_once(self.engine, reactions, self.alarm, utc_now()):
            pass

    def read(self) -> int:
        """Everything that is finalized, into the mirrors."""
        count = self.watch()
        self.process()
        return count

    def reconcile(self, catch_up_timeout_s: float = 0.0) -> reconcile.Compared:
        return self.ask(
            lambda node: reconcile.reconcile_once(
                self.engine,
                node,
                self.cluster.genesis_hash,
                self.cluster.program_id,
                self.alarm,
                utc_now,
                catch_up_timeout_s,
            )
        )

    def ask(self, work: Callable[[Node], Awaitable[T]]) -> T:
        async def run() -> T:
            async with Node(self.node_url or self.cluster.rpc_url) as node:
                return await work(node)

        return asyncio.run(run())

    def mirrored(self) -> dict[Pubkey, MirroredAccount]:
        with transaction(self.engine) as connection:
            return {address: mirror.account for address, mirror in mirrors.all_mirrors(connection).items()}

    def on_chain(self) -> dict[Pubkey, MirroredAccount]:
        """What the program's accounts hold, finalized."""
        slot, listed = self.cluster.ask(lambda node: node.program_accounts(self.cluster.program_id))
        listed_data = {each.pubkey: each.account.data for each in listed}
        found = reconcile.decode_all(slot, listed_data, self.cluster.addresses)
        assert not found.malformed
        return dict(found.accounts)

    def cursor(self) -> inbox_store.Cursor:
        with transaction(self.engine) as connection:
            found = inbox_store.find_cursor(connection)
        assert found is not None
        return found

    def events(self) -> list[tuple[str, int]]:
        """Transactions and events in the order of the chain."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                text("SELECT signature, event_no FROM chain_events ORDER BY slot, position, event_no")
            ).all()
        return [(base58.b58encode(bytes(row.signature)).decode(), row.event_no) for row in rows]


def land_anyway(cluster: Cluster, *steps: Instruction) -> str:
    """A transaction of the hub's that is not simulated first, so that it lands also if it fails; waits until final."""

    async def work(node: Node) -> str:
        blockhash = await node.latest_blockhash()
        message = build_message(cluster.hub.pubkey(), steps, 200_000, 0, blockhash.hash, uuid4())
        signatures = [bytes(cluster.hub.sign_message(message)) for _ in signers_of(message)]
        wire = VersionedTransaction.from_bytes(transaction_of(message, signatures))
        await node._client.send_raw_transaction(bytes(wire), TxOpts(skip_preflight=True))
        while True:
            [status] = (await node.statuses([signatures[0]])).found
            if status is not None and status.level == "finalized":
                return base58.b58encode(signatures[0]).decode()
            await asyncio.sleep(0.05)

    return cluster.ask(work)
