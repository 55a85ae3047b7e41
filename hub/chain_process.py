"""The process that alone speaks with the chain: sends what the domains planned, reads what the program tells, mints.

Several loops share one event loop; what they do to the database runs in threads, in short transactions, and never with
a request to the node inside. A round that fails because the node or the database is away, or tells nonsense, is logged,
counted and tried again; anything else is a mistake of ours, and ends the process loudly. Any number of these processes
may run: rows are leased, and constraints keep them from doing anything twice.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from prometheus_client import start_http_server
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from sqlalchemy import Connection, Engine

from hub import logs, metrics
from hub.chain import inbox, inbox_store, lookup_tables, lookup_tables_store, reconcile, sender
from hub.chain.addresses import CLOCK_SYSVAR, Addresses
from hub.chain.chain_state import (
    CHECK_PAUSE_S,
    UNUSABLE_PAUSE_S,
    UNUSABLE_TOLD_AFTER_S,
    ChainExpected,
    ChainGate,
    Outage,
    check_chain_once,
)
from hub.chain.inbox import Reactions, Trouble
from hub.chain.intent import Ended, Reaction
from hub.chain.key import read_keypair
from hub.chain.loops import repeat, run_loops, wait_for
from hub.chain.node_socket import listen
from hub.chain.rpc import Node
from hub.chain.watcher import Deployment, Watcher
from hub.db import create_database_engine, is_database_away, transaction
from hub.errors import ChainNotConfigured, SettingsInvalid
from hub.minting import reactions as minting_reactions
from hub.minting.jobs import mint_once
from hub.registry import onboarding_reactions
from hub.registry.chain_notices import tell_of_trouble, tell_of_unknown
from hub.settings import Settings
from protocol.enrolment import KIND_SOLAR, KIND_WIND

THREADS: Final = 6
CONNECTIONS: Final = THREADS
"""No thread holds two."""
POLL_PAUSE_S: Final = 2.0
"""Between two looks at what was finalized, when nobody says that there is something, or somebody has just said so: a
node may tell of a transaction a moment before it lists it."""
POLL_PAUSE_LISTENING_S: Final = 15.0
"""And while the node's WebSocket is open and silent."""
WOKEN_FOR_S: Final = 10.0
PROCESS_PAUSE_S: Final = 1.0
RECONCILE_PAUSE_S: Final = 600.0
RECONCILE_LOOK_PAUSE_S: Final = 5.0
"""So soon the accounts are compared when something may have been missed."""
MEASURE_PAUSE_S: Final = 5.0
CLOCK_PAUSE_S: Final = 60.0
TABLES_PAUSE_S: Final = 60.0
READING_SHARE_MAX: Final = 0.1
"""Of the time, at most, all accounts are read: whoever cuts logs short makes the hub compare, and must not make it do
nothing else."""
CHAIN_UNUSABLE: Final = "chain_unusable"
"""Kind of an alarm."""
CLOCK_UNIX_TIMESTAMP: Final = slice(32, 40)
"""Where the chain's clock has the time of its newest block."""
MINTED_KINDS: Final = frozenset({KIND_SOLAR, KIND_WIND})

log = logs.get_logger()


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Chain:
    """What the loops share."""

    settings: Settings
    engine: Engine
    node: Node
    key: Keypair
    deployment: Deployment
    gate: ChainGate
    reactions: Reactions
    stop: asyncio.Event
    finalized: asyncio.Event = field(default_factory=asyncio.Event)
    """The node says that there is something to read."""
    hears: asyncio.Event = field(default_factory=asyncio.Event)
    """The node would say so."""
    read: asyncio.Event = field(default_factory=asyncio.Event)
    """There is something to process."""

    @property
    def expected(self) -> ChainExpected:
        """What must be on the chain before anything is signed."""
        settings = self.settings
        return ChainExpected(
            self.deployment.genesis_hash, self.deployment.program_id, settings.domain, bytes(self.key.pubkey())
        )


def run(settings: Settings) -> None:
    """Be the chain process until SIGTERM or SIGINT. Raises ChainNotConfigured, SettingsInvalid, ChainDiffers."""
    if not settings.rpc_url:
        raise ChainNotConfigured("COMMONWATT_RPC_URL is not set")
    if settings.chain_key_file is None:
        raise SettingsInvalid("COMMONWATT_CHAIN_KEY_FILE: the chain process needs the hub's key")
    key = read_keypair(settings.chain_key_file)
    asyncio.run(_run(settings, key))


async def _run(settings: Settings, key: Keypair) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="chain"))
    engine = create_database_engine(settings.database_url, "commonwatt-chain", CONNECTIONS)
    deployment = Deployment(
        bytes.fromhex(settings.genesis_hash_hex), Pubkey.from_bytes(bytes.fromhex(settings.program_id_hex))
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server, _ = start_http_server(settings.metrics_port, settings.metrics_host, metrics.REGISTRY)
    try:
        await asyncio.to_thread(_open_inbox, engine, deployment)
        async with Node(settings.rpc_url) as node:
            log.info("chain_started", metrics_port=server.server_port, program_id=str(deployment.program_id))
            chain = Chain(settings, engine, node, key, deployment, ChainGate(), all_reactions(), stop)
            await run_loops(loops_of(chain), stop)
    finally:
        server.shutdown()
        engine.dispose()
        log.info("chain_stopped")


def _open_inbox(engine: Engine, deployment: Deployment) -> None:
    """Refuse at once to mix what two chains tell; a database that is away is waited for by the loops."""
    try:
        with transaction(engine) as connection:
            inbox.open_cursor(connection, deployment.genesis_hash, deployment.program_id)
    except Exception as fault:
        if not is_database_away(fault):
            raise
        log.warning("chain_database_away", error=str(fault).strip().splitlines()[0])


def all_reactions() -> Reactions:
    """What every domain does when something happened on the chain."""
    tables = {kind: _alarming(reaction) for kind, reaction in lookup_tables.lookup_table_reactions().items()}
    parts: Sequence[Mapping[str, Reaction]] = [
        onboarding_reactions.REACTIONS,
        minting_reactions.REACTIONS,
        tables,
    ]
    by_kind = {kind: reaction for part in parts for kind, reaction in part.items()}
    assert len(by_kind) == sum(map(len, parts)), "a kind of intent has two reactions"
    return Reactions(by_kind, [*onboarding_reactions.EVENT_REACTIONS, *minting_reactions.EVENT_REACTIONS])


def _alarming(reaction: Reaction) -> Reaction:
    """The reaction of a kind that concerns no member: operators hear of what is unknown."""

    def react(connection: Connection, ended: Ended, now: datetime) -> None:
        if ended.outcome == "unknown":
            tell_of_unknown(connection, ended, (), now)
        reaction(connection, ended, now)

    return react


# --- loops -----------------------------------------------------------------------------------------------------


def loops_of(chain: Chain) -> dict[str, Callable[[], Awaitable[None]]]:
    """Every loop by name; each runs until `stop`."""
    work = sender.Sender(
        chain.engine,
        chain.node,
        chain.key,
        chain.deployment.genesis_hash,
        chain.gate,
        chain.reactions.by_intent_kind,
        chain.settings.compute_unit_price_micro_lamports,
        utc_now,
    )
    watcher = Watcher(chain.engine, chain.node, chain.deployment, tell_of_trouble, utc_now)
    comparison = Comparison(chain)
    stop = chain.stop

    loop = asyncio.get_running_loop()
    woken_s = loop.time()

    async def watch() -> None:
        nonlocal woken_s
        if chain.finalized.is_set():
            woken_s = loop.time()
        chain.finalized.clear()
        if await watcher.watch_once():
            chain.read.set()

    async def process() -> None:
        chain.read.clear()
        while (
            await asyncio.to_thread(inbox.process_once, chain.engine, chain.reactions, tell_of_trouble, utc_now())
            and not stop.is_set()
        ):
            pass

    def until_next_watch_s() -> float:
        quiet = chain.hears.is_set() and loop.time() - woken_s > WOKEN_FOR_S
        return POLL_PAUSE_LISTENING_S if quiet else POLL_PAUSE_S

    def every(pause_s: float) -> Callable[[], float]:
        return lambda: pause_s

    return {
        "check": lambda: _check(chain),
        "build": lambda: sender.run_steps(sender.build_once, work, stop),
        "send": lambda: sender.run_steps(sender.send_once, work, stop),
        "ask": lambda: sender.run_steps(sender.reconcile_once, work, stop),
        "websocket": lambda: listen(
            chain.settings.node_ws_url, chain.deployment.program_id, chain.finalized, chain.hears, stop
        ),
        "watch": lambda: repeat("watch", until_next_watch_s, watch, stop, chain.finalized),
        "process": lambda: repeat("process", every(PROCESS_PAUSE_S), process, stop, chain.read),
        "reconcile": lambda: repeat("reconcile", every(RECONCILE_LOOK_PAUSE_S), comparison.compare_once, stop),
        "mint": lambda: repeat("mint", every(chain.settings.mint_interval_s), lambda: _mint(chain), stop),
        "tables": lambda: repeat("tables", every(TABLES_PAUSE_S), lambda: _plan_tables(chain), stop),
        "measure": lambda: repeat("measure", every(MEASURE_PAUSE_S), lambda: asyncio.to_thread(_measure, chain), stop),
        "clock": lambda: repeat("clock", every(CLOCK_PAUSE_S), lambda: _measure_node(chain), stop),
    }


# --- what they do ----------------------------------------------------------------------------------------------


async def _check(chain: Chain) -> None:
    """Set the gate, every minute, and sooner while something is wrong; it raises nothing of the chain's."""
    outage, loop = Outage(), asyncio.get_running_loop()
    while not chain.stop.is_set():
        usable = await check_chain_once(chain.node, chain.expected, chain.gate)
        if outage.is_to_be_told(usable, loop.time()) and await asyncio.to_thread(_tell_of_outage, chain):
            outage.set_told()
        await wait_for(chain.stop, CHECK_PAUSE_S if usable else UNUSABLE_PAUSE_S)


def _tell_of_outage(chain: Chain) -> bool:
    """Raise an alarm; whether the database took it."""
    gate = chain.gate
    why = f"For {UNUSABLE_TOLD_AFTER_S / 60:g} minutes nothing could be signed, so nothing is registered or minted."
    trouble = Trouble(
        CHAIN_UNUSABLE, f"{why} The reason: {gate.reason}.", {"reason": gate.reason, "error": gate.detail}
    )
    try:
        with transaction(chain.engine) as connection:
            tell_of_trouble(connection, trouble, utc_now())
    except Exception as fault:
        if not is_database_away(fault):
            raise
        log.warning("chain_database_away", error=str(fault).strip().splitlines()[0])
        return False
    return True


class Comparison:
    """When to compare accounts with mirrors: at the start, every so often, and when something may be missing."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._due_s = 0.0
        self._not_before_s = 0.0

    async def compare_once(self) -> None:
        """Compare, if it is time."""
        loop, chain = asyncio.get_running_loop(), self._chain
        cursor = await asyncio.to_thread(_find_cursor, chain.engine)
        asked = cursor is not None and cursor.reconcile_because is not None
        if loop.time() < (self._not_before_s if asked else self._due_s):
            return
        done = await reconcile.reconcile_once(
            chain.engine,
            chain.node,
            chain.deployment.genesis_hash,
            chain.deployment.program_id,
            tell_of_trouble,
            utc_now,
            reactions=onboarding_reactions.ACCOUNT_REACTIONS,
        )
        self._due_s = loop.time() + RECONCILE_PAUSE_S
        self._not_before_s = loop.time() + done.read_s / READING_SHARE_MAX
        log.info("chain_reconciled", slot=done.slot, accounts=done.accounts, repaired=done.repaired, missed=done.missed)


def _find_cursor(engine: Engine) -> inbox_store.Cursor | None:
    with transaction(engine) as connection:
        return inbox_store.find_cursor(connection)


async def _mint(chain: Chain) -> None:
    """Plan mints, while the chain is there to take them."""
    if chain.gate.usable:
        await asyncio.to_thread(mint_once, chain.engine, chain.settings, utc_now())


async def _plan_tables(chain: Chain) -> None:
    """Have the accounts of all meters that may mint in lookup tables."""
    if not chain.gate.usable or chain.gate.config is None:
        return
    slot = (await chain.node.finalized()).slot
    mint = Pubkey.from_bytes(chain.gate.config.grid_mint)
    common = lookup_tables.common_addresses(Addresses(chain.deployment.program_id), mint)

    def plan() -> None:
        with transaction(chain.engine) as connection:
            wanted = lookup_tables_store.list_unplaced(connection, MINTED_KINDS, lookup_tables.PAIRS_PER_ROUND_MAX)
            placed = lookup_tables.plan_tables_once(connection, chain.key.pubkey(), common, wanted, slot, utc_now())
        if placed:
            log.info("lookup_tables_planned", meters=placed)

    await asyncio.to_thread(plan)


def _measure(chain: Chain) -> None:
    with transaction(chain.engine) as connection:
        sender.measure_intents_once(connection, utc_now())
        counts = inbox_store.count_unprocessed(connection)
    for state, count in counts.items():
        metrics.CHAIN_EVENTS_UNPROCESSED.labels(state).set(count)


async def _measure_node(chain: Chain) -> None:
    """How old the newest finalized block is, by the chain's own clock."""
    clock = await chain.node.find_account(CLOCK_SYSVAR)
    if clock is not None and len(clock.data) >= CLOCK_UNIX_TIMESTAMP.stop:
        block_unix_s = int.from_bytes(clock.data[CLOCK_UNIX_TIMESTAMP], "little", signed=True)
        metrics.CHAIN_NODE_LAG.set(utc_now().timestamp() - block_unix_s)
