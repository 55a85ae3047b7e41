"""The ingest worker: takes seals from the broker shard by shard and has them stored, batch by batch.

What meters say of themselves comes over the same sessions; it is handed on to whoever runs the worker (`hub/fleet`).

    sessions (event loop) ─► queue ─► open envelopes (thread) ─► commit (thread) ─► acknowledge, tell the meters

While one batch commits, the next is being verified. Batches are whatever has arrived by then, up to a limit: no
lingering when it is quiet, large transactions when it is not. Nothing is acknowledged before its commit. When the
database is away, or a lease is lost, the worker forgets everything it has not committed and closes its sessions: the
broker delivers it again, exactly as after a crash, so there is one way to recover and it is always in use.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from prometheus_client import start_http_server
from sqlalchemy import Engine

from hub import metrics
from hub.db import create_database_engine, driver, ensure_months, is_database_away, transaction
from hub.errors import LeaseLost
from hub.logs import bound, get_logger, new_id
from hub.readings import leases, service
from hub.readings.envelope import Arrival, Refusal, VerifiedSeal, open_envelopes
from hub.readings.rules import Outcome, Policy
from hub.readings.session import OnStatus, SessionFailed, ShardSession
from hub.settings import Settings
from protocol.committed import Committed

BATCH_MESSAGES_MAX: Final = 2_000
BATCH_BYTES_MAX: Final = 600_000
OPENERS: Final = 2
"""Threads that verify one batch: libsodium leaves Python's lock while it works."""
OPENER_MESSAGES_MIN: Final = 16
QUEUE_BYTES_HIGH: Final = 8_000_000
QUEUE_BYTES_LOW: Final = 2_000_000
MESSAGE_OVERHEAD_BYTES: Final = 300
"""What a message weighs in the queue besides its payload, so that a flood of empty ones is bounded too."""
RECEIPT_PAUSE_S: Final = 1.0
GC_THRESHOLDS: Final = (50_000, 20, 50)
"""A message makes a few dozen objects, none of them in a cycle: Python's default looks for cycles after each 700."""
DRAIN_TIMEOUT_S: Final = 10.0
SESSION_CHECK_S: Final = 0.2
RECOVERY_PAUSE_MAX_S: Final = 5.0

INTERNAL_FAULT: Final = "internal_fault"

_RECEIVED = metrics.MESSAGES_RECEIVED.labels("mqtt")

log = get_logger()


class Waiting(msgspec.Struct, gc=False):
    """A message on its way through the worker."""

    session: ShardSession
    arrival: Arrival
    packet_id: int | None
    since_s: float


@dataclass(slots=True)
class Opened:
    """A batch after verification, before its transaction."""

    waiting: list[Waiting]
    results: list[VerifiedSeal | Refusal]
    tokens: dict[int, int]
    generation: int


def must_start_over(fault: BaseException) -> bool:
    """Whether to forget the batch and wait, rather than to look for the message at fault."""
    return is_database_away(fault) or isinstance(fault, LeaseLost)


class IngestWorker:
    """One worker process. `run` returns when asked to stop and everything taken in is committed."""

    def __init__(self, settings: Settings, engine: Engine, worker_id: str, on_status: OnStatus | None) -> None:
        self._settings = settings
        self._engine = engine
        self._id = worker_id
        self._on_status = on_status
        self._policy = Policy(settings.community_id, settings.domain, settings.backlog_age_max_s)
        self._keys = service.key_ring(engine)
        self._tokens: dict[int, int] = {}
        self._sessions: dict[int, ShardSession] = {}
        self._queue: deque[Waiting] = deque()
        self._queue_bytes = 0
        self._arrived = asyncio.Event()
        self._opened: asyncio.Queue[Opened] = asyncio.Queue(maxsize=1)
        self._in_pipeline = 0
        self._generation = 0
        self._receipts: dict[str, tuple[int, Committed]] = {}
        self._receipt_sent_s: dict[str, float] = {}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask for a graceful end."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped. Database and broker may be away at any time, also at the start."""
        loops = [
            asyncio.create_task(loop(), name=loop.__name__)
            for loop in (self._lease_loop, self._session_loop, self._open_loop, self._commit_loop, self._receipt_loop)
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([*loops, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a loop that ends is our bug: let it be seen, the supervisor starts us again
            await self._drain()
        finally:
            for task in [*loops, stopping]:
                task.cancel()
            await asyncio.gather(*loops, stopping, return_exceptions=True)
            held = list(self._tokens)
            self._close_sessions(held)
            self._leave(held)

    def _leave(self, shards: Sequence[int]) -> None:
        """Let others take over at once; if the database is away, the leases run out by themselves."""
        try:
            with transaction(self._engine) as connection:
                leases.release_leases(driver(connection), self._id, shards)
                leases.dismiss_worker(driver(connection), self._id)
        except Exception as fault:
            if not is_database_away(fault):
                raise
            log.warning("leases_not_released", shards=list(shards), error=str(fault).strip())

    async def _drain(self) -> None:
        for session in self._sessions.values():
            session.pause()
        deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
        while (self._queue or self._in_pipeline) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        self._send_receipts(everything=True)
        await asyncio.sleep(0.05)

    # --- leases and sessions ---------------------------------------------------------------------------------

    async def _lease_loop(self) -> None:
        while True:
            try:
                await self._lease_once()
            except Exception as fault:
                if not is_database_away(fault):
                    raise
                log.warning("leases_not_renewed", error=str(fault).strip())
            await asyncio.sleep(leases.RENEW_EVERY_S)

    async def _lease_once(self) -> None:
        workers, kept = await asyncio.to_thread(self._renew, dict(self._tokens))
        self._close_sessions([shard for shard in self._tokens if shard not in kept])
        share = leases.fair_share(workers)
        surplus = sorted(kept)[share:]
        if surplus:
            await self._hand_over(surplus)
        elif len(self._tokens) < share:
            gained = await asyncio.to_thread(self._acquire, list(self._tokens), share - len(self._tokens))
            self._tokens.update(gained)
            if gained:
                log.info("shards_gained", shards=sorted(gained), workers=workers)
        metrics.LEASES_HELD.set(len(self._tokens))

    async def _session_loop(self) -> None:
        """See that each shard we hold is read; a broker that is away is tried again with growing pauses."""
        failures = 0
        while True:
            try:
                await self._open_sessions()
                failures = 0
                metrics.SHARDS_READ.set(len(self._sessions))
            except SessionFailed as fault:
                failures += 1
                log.warning("broker_away", error=str(fault))
            pause_s = min(RECOVERY_PAUSE_MAX_S, SESSION_CHECK_S * 2**failures)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - to spread reconnections

    async def _open_sessions(self) -> None:
        opened = []
        for shard in [shard for shard in self._tokens if shard not in self._sessions and not self._stopping.is_set()]:
            session = ShardSession(self._settings, shard, self._take, self._lost, self._on_status)
            self._sessions[shard] = session
            try:
                await session.open()
            except SessionFailed:
                self._sessions.pop(shard, None)
                raise
            if shard not in self._tokens or self._sessions.get(shard) is not session:  # lost while it was opening
                session.close()
                continue
            opened.append(shard)
            if self._queue_bytes > QUEUE_BYTES_HIGH:
                session.pause()
        if opened:
            log.info("shards_read", shards=opened)

    def _renew(self, tokens: dict[int, int]) -> tuple[int, set[int]]:
        with transaction(self._engine) as connection:
            db = driver(connection)
            return leases.announce_worker(db, self._id), leases.renew_leases(db, self._id, tokens)

    def _acquire(self, known: Sequence[int], limit: int) -> dict[int, int]:
        with transaction(self._engine) as connection:
            return leases.acquire_leases(driver(connection), self._id, known, limit)

    async def _hand_over(self, shards: Sequence[int]) -> None:
        """Give shards to another worker: finish what is under way, then let go."""
        for shard in shards:
            if shard in self._sessions:
                self._sessions[shard].pause()
        deadline_s = time.monotonic() + leases.LEASE_S / 2
        while time.monotonic() < deadline_s and any(
            self._sessions[shard].outstanding for shard in shards if shard in self._sessions
        ):
            await asyncio.sleep(0.02)
        self._close_sessions(shards)

        def release() -> None:
            with transaction(self._engine) as connection:
                leases.release_leases(driver(connection), self._id, shards)

        await asyncio.to_thread(release)
        log.info("shards_handed_over", shards=list(shards))

    def _close_sessions(self, shards: Sequence[int]) -> None:
        for shard in shards:
            self._tokens.pop(shard, None)
            if session := self._sessions.pop(shard, None):
                session.close()

    def _lost(self, session: ShardSession, why: str) -> None:
        log.warning("broker_session_lost", shard=session.shard, reason=why)
        if self._sessions.get(session.shard) is session:
            del self._sessions[session.shard]
            metrics.SHARDS_READ.set(len(self._sessions))

    # --- the pipeline ----------------------------------------------------------------------------------------

    def _take(self, session: ShardSession, arrival: Arrival, packet_id: int | None) -> None:
        self._queue.append(Waiting(session, arrival, packet_id, time.monotonic()))
        self._queue_bytes += len(arrival.payload) + MESSAGE_OVERHEAD_BYTES
        self._arrived.set()
        if self._queue_bytes > QUEUE_BYTES_HIGH:
            for each in self._sessions.values():
                each.pause()

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        batch_bytes = 0
        while self._queue and len(batch) < BATCH_MESSAGES_MAX and batch_bytes < BATCH_BYTES_MAX:
            waiting = self._queue.popleft()
            batch_bytes += len(waiting.arrival.payload) + MESSAGE_OVERHEAD_BYTES
            batch.append(waiting)
        self._queue_bytes -= batch_bytes
        _RECEIVED.inc(len(batch))
        if self._queue_bytes < QUEUE_BYTES_LOW and not self._stopping.is_set():
            for session in self._sessions.values():
                session.resume()
        return batch

    async def _open_loop(self) -> None:
        while True:
            await self._arrived.wait()
            generation = self._generation
            batch = self._next_batch()
            if not self._queue:
                self._arrived.clear()
            if not batch:
                continue
            self._in_pipeline += 1
            tokens = {shard: self._tokens.get(shard, -1) for shard in {waiting.session.shard for waiting in batch}}
            try:
                results = await self._open([waiting.arrival for waiting in batch])
            except Exception as fault:
                self._in_pipeline -= 1
                if not must_start_over(fault):
                    raise
                self._start_over(fault)
                continue
            await self._opened.put(Opened(batch, results, tokens, generation))

    async def _open(self, arrivals: list[Arrival]) -> list[VerifiedSeal | Refusal]:
        size = max(OPENER_MESSAGES_MIN, -(-len(arrivals) // OPENERS))
        parts = await asyncio.gather(
            *(
                asyncio.to_thread(
                    open_envelopes,
                    arrivals[start : start + size],
                    self._settings.community_id,
                    self._policy.domain,
                    self._keys,
                )
                for start in range(0, len(arrivals), size)
            )
        )
        return [result for part in parts for result in part]

    async def _commit_loop(self) -> None:
        while True:
            batch = await self._opened.get()
            if batch.generation != self._generation:  # the worker has started over since: all this comes again
                self._in_pipeline -= 1
                continue
            with bound(batch_id=new_id()):
                try:
                    done = await asyncio.to_thread(self._store, batch)
                except Exception as fault:
                    if not must_start_over(fault):
                        raise
                    self._start_over(fault)
                    await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311
                else:
                    if batch.generation == self._generation:
                        self._committed(batch, done)
                finally:
                    self._in_pipeline -= 1

    def _store(self, batch: Opened) -> list[service.Ingested]:
        """Commit a batch; if something in it cannot be stored, each message on its own, and the culprit set aside."""
        started_s = time.monotonic()
        now = datetime.now(UTC)
        ensure_months(self._engine, service.months_of(batch.results, self._policy, now))
        try:
            done = [self._commit(batch.results, batch.tokens, now)]
        except Exception as fault:
            if must_start_over(fault):
                raise
            log.exception("batch_cannot_be_stored", messages=len(batch.results))
            done = [self._commit_alone(result, batch.tokens, now) for result in batch.results]
        metrics.BATCH_SIZE.observe(len(batch.results))
        metrics.BATCH_DURATION.observe(time.monotonic() - started_s)
        return done

    def _commit(
        self, results: Sequence[VerifiedSeal | Refusal], tokens: dict[int, int], now: datetime
    ) -> service.Ingested:
        with transaction(self._engine) as connection:
            leases.check_leases_for_share(driver(connection), self._id, tokens)
            return service.ingest(connection, results, self._policy, now)

    def _commit_alone(self, result: VerifiedSeal | Refusal, tokens: dict[int, int], now: datetime) -> service.Ingested:
        try:
            return self._commit([result], tokens, now)
        except Exception as fault:
            if must_start_over(fault):
                raise
            log.exception("message_cannot_be_stored", topic=result.arrival.topic)
            refusal = Refusal(result.arrival, result.meter_id, result.meter_no, INTERNAL_FAULT, repr(fault)[:500])
            return self._commit([refusal], tokens, now)

    def _committed(self, batch: Opened, done: Sequence[service.Ingested]) -> None:
        now_s = time.monotonic()
        received: dict[ShardSession, list[int | None]] = {}
        for waiting in batch.waiting:
            received.setdefault(waiting.session, []).append(waiting.packet_id)
        for session, packet_ids in received.items():
            session.acknowledge(packet_ids, len(packet_ids))
        metrics.COMMIT_LAG.observe(now_s - batch.waiting[0].since_s)
        shards = {
            result.meter_id: waiting.session.shard
            for waiting, result in zip(batch.waiting, batch.results, strict=True)
            if result.meter_id is not None
        }
        for part in done:
            service.count(part)
            report(part)
            for meter_id, receipt in part.receipts.items():
                self._receipts[meter_id] = (shards[meter_id], receipt)
        self._send_receipts()

    def _start_over(self, fault: BaseException) -> None:
        """Forget what is not committed; the broker will deliver it again."""
        log.warning("ingest_starts_over", error=str(fault).strip(), dropped_messages=len(self._queue))
        metrics.DATABASE_RETRIES.inc()
        self._generation += 1
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        if isinstance(fault, LeaseLost):
            self._tokens.clear()
        self._queue.clear()
        self._queue_bytes = 0
        while not self._opened.empty():
            self._opened.get_nowait()
            self._in_pipeline -= 1

    # --- receipts --------------------------------------------------------------------------------------------

    async def _receipt_loop(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self._send_receipts()

    def _send_receipts(self, *, everything: bool = False) -> None:
        """Send the receipts that are due: at once for a meter not told for a second, so live meters hear each seal."""
        now_s = time.monotonic()
        for meter_id in list(self._receipts):
            if not everything and now_s - self._receipt_sent_s.get(meter_id, -1e9) < RECEIPT_PAUSE_S:
                continue
            shard, receipt = self._receipts.pop(meter_id)
            if session := self._sessions.get(shard):
                session.publish_receipt(meter_id, receipt)
                self._receipt_sent_s[meter_id] = now_s
                metrics.RECEIPTS_PUBLISHED.inc()


def report(done: service.Ingested) -> None:
    """Log what an operator may want to look into, one line for each device and reason however much it sends."""
    held: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for sealed, verdict in done.verdicts:
        if verdict.outcome in (Outcome.QUARANTINED, Outcome.EQUIVOCATION, Outcome.NOT_TAKEN):
            held.setdefault((sealed.meter_id, verdict.reason), []).append((sealed.seal.sequence, verdict.detail))
    for (meter_id, reason), seals in held.items():
        sequence, detail = seals[0]
        log.warning(
            "seals_quarantined", meter_id=meter_id, reason=reason, count=len(seals), sequence=sequence, detail=detail
        )
    refused: dict[tuple[str, str], list[str]] = {}
    for refusal in done.refusals:
        refused.setdefault((refusal.arrival.topic, refusal.reason), []).append(refusal.detail)
    for (topic, reason), details in refused.items():
        log.warning("messages_refused", topic=topic, reason=reason, count=len(details), detail=details[0])
    if done.not_kept:
        log.error("messages_not_kept", count=done.not_kept)


async def _run(settings: Settings, on_status: OnStatus | None) -> None:
    engine = create_database_engine(settings.database_url, "commonwatt-ingest", pool_size=3)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    worker = IngestWorker(settings, engine, worker_id, on_status)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    server, _ = start_http_server(settings.metrics_port, settings.metrics_host, metrics.REGISTRY)
    log.info("ingest_started", worker_id=worker_id, metrics_port=server.server_port)
    try:
        await worker.run()
    finally:
        server.shutdown()
        engine.dispose()
        log.info("ingest_stopped", worker_id=worker_id)


def run(settings: Settings, on_status: OnStatus | None = None) -> None:
    """Be an ingest worker until SIGTERM or SIGINT; statuses go to `on_status`, if it is given."""
    gc.freeze()  # modules and tables live as long as we do
    gc.set_threshold(*GC_THRESHOLDS)
    asyncio.run(_run(settings, on_status))
