"""From the commit to the sockets of this process: one connection listens, one reads what is new, one what is old.

A notification says only how far a topic has come; its updates are read once per process, made into frames once, and
kept in the tails (`tails.py`), from which each socket takes at its own pace. Nothing depends on a notification:
whenever the feed begins to listen, after every loss, and every SWEEP_S, it compares all followed topics with the table.
So a lost connection, or a database that was away, delays updates and loses none.

Runs in the event loop of the API, on three connections of its own: requests for the pool's are not its neighbours.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

import psycopg
from sqlalchemy import make_url

from hub import logs, metrics
from hub.db import CONNECT_TIMEOUT_S, GIVE_UP_ON_A_LOST_HOST, STATEMENT_TIMEOUT_MS, is_database_away
from hub.live import store
from hub.live.messages import update_frame
from hub.live.store import AsyncDriver, StoredUpdate
from hub.live.tails import BEHIND_MAX, Frame, Memory, Subscription, Tail
from hub.live.topics import public_name

SESSIONS_CHANNEL: Final = "commonwatt_sessions"
"""`NOTIFY`: the id of a session, member or API key whose rights have changed."""
MEMORY_BYTES_MAX: Final = 32 * 1024 * 1024
HEARTBEAT_S: Final = 5.0
HEARTBEAT_TIMEOUT_S: Final = 5.0
"""A connection that was cut without a word is noticed within both together."""
SWEEP_S: Final = 10.0
SWEPT_AT_ONCE: Final = 1_000
TOPICS_AT_ONCE: Final = 100
UPDATES_AT_ONCE: Final = 200
"""Of one topic."""
STIRRED_AT_ONCE: Final = 200
"""Sockets that are written to before the event loop goes on with something else: some 3 ms."""
PAGE_UPDATES_MAX: Final = 200
PAGE_BYTES_MAX: Final = 32 * 1024
"""A socket holds one page, and its peer may be one that never reads."""
PAUSE_MIN_S: Final = 0.05
PAUSE_MAX_S: Final = 5.0

log = logs.get_logger()


class Channel:
    """A topic that somebody here follows. `tail` is there once its head was read."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.tail: Tail | None = None
        self.ready = asyncio.Event()
        self.compared = asyncio.Event()
        """The tail is as far as the table was when it was last looked at."""
        self.told = 0
        """How far the topic has come, as far as was heard."""
        self.flushed_unix_s = 0.0
        """When the first update was written that was heard of and is not read yet."""
        self.followers: dict[Subscription, Callable[[Subscription], None]] = {}
        self.holders = 0


class Feed:
    """All followed topics of a process. `on_rights` hears of rights that changed: whose, or None: perhaps anybody's."""

    def __init__(
        self,
        database_url: str,
        on_rights: Callable[[str | None], None],
        sweep_s: float = SWEEP_S,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        url = make_url(database_url).set(drivername="postgresql")
        self._conninfo = url.render_as_string(hide_password=False)
        self._on_rights = on_rights
        self._sweep_s = sweep_s
        self._memory = Memory(memory_bytes_max)
        self._channels: dict[str, Channel] = {}
        self._fresh: dict[str, None] = {}
        """Topics of which something is to be read; a dictionary, for its order."""
        self._unswept: deque[str] = deque()
        self._wanted = asyncio.Event()
        self._pages: deque[tuple[Subscription, Channel]] = deque()
        self._page_wanted = asyncio.Event()

    async def run(self) -> None:
        """Feed until cancelled."""
        async with asyncio.TaskGroup() as loops:
            for name, loop in (("listen", self._listen), ("read", self._read), ("pages", self._read_pages)):
                loops.create_task(self._keep_up(name, loop), name=f"live-{name}")
            loops.create_task(self._sweep_now_and_then(), name="live-sweep")

    # --- for the sockets -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self, topic: str) -> AsyncIterator[Channel]:
        """The topic's channel, held open for this block; wait for its `ready` before anything else."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = Channel(topic)
            self._want(channel)
        channel.holders += 1
        try:
            yield channel
        finally:
            channel.holders -= 1
            self._drop_if_unused(channel)

    async def catch_up(self, channel: Channel) -> None:
        """Compare the channel with the table: another process may have told more of it than was heard here."""
        channel.compared.clear()
        self._unswept.append(channel.topic)
        self._wanted.set()
        await channel.compared.wait()

    def follow(self, channel: Channel, after: int | None, stir: Callable[[Subscription], None]) -> Subscription:
        """A subscription behind `after`. `stir` is called, in the event loop, when there may be something to take."""
        assert channel.tail is not None, "not ready"
        subscription = Subscription.begin(channel.tail, after)
        channel.followers[subscription] = stir
        return subscription

    def leave(self, channel: Channel, subscription: Subscription) -> None:
        """End a subscription."""
        del channel.followers[subscription]
        self._drop_if_unused(channel)

    def ask_for_page(self, channel: Channel, subscription: Subscription) -> None:
        """Have the subscription's next page read; then `stir` is called. Pages are read in turn."""
        self._pages.append((subscription, channel))
        self._page_wanted.set()

    def _drop_if_unused(self, channel: Channel) -> None:
        if not channel.holders and not channel.followers and self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]

    # --- loops -----------------------------------------------------------------------------------------------

    async def _keep_up(self, name: str, loop: Callable[[AsyncDriver], Awaitable[None]]) -> None:
        """Run a loop over a connection, and again over another one, with growing pauses while none lasts."""
        pause_s = PAUSE_MIN_S
        while True:
            begun_s = time.monotonic()
            try:
                async with await self._connect(name) as db:
                    await loop(db)
            except Exception as fault:
                if isinstance(fault, TimeoutError) or is_database_away(fault):
                    log.warning("live_database_away", connection=name, error=(str(fault).strip() or repr(fault))[:200])
                else:  # our mistake; the next round begins with a sweep
                    log.exception("live_loop_failed", connection=name)
            metrics.LIVE_CONNECTIONS_LOST.labels(name).inc()
            lasted = time.monotonic() - begun_s > PAUSE_MAX_S
            pause_s = PAUSE_MIN_S if lasted else min(PAUSE_MAX_S, 2 * pause_s)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - to spread reconnections

    async def _connect(self, name: str) -> AsyncDriver:
        return await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            application_name=f"commonwatt-live-{name}",
            connect_timeout=CONNECT_TIMEOUT_S,
            options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC -c jit=off",
            **GIVE_UP_ON_A_LOST_HOST,
        )

    async def _listen(self, db: AsyncDriver) -> None:
        await db.execute(f"LISTEN {store.CHANNEL}")
        await db.execute(f"LISTEN {SESSIONS_CHANNEL}")
        metrics.LIVE_LISTENING.set(1)
        try:
            self._sweep()
            self._on_rights(None)
            while True:
                async for notification in db.notifies(timeout=HEARTBEAT_S):
                    if notification.channel == SESSIONS_CHANNEL:
                        self._on_rights(notification.payload)
                    else:
                        self._hear(notification.payload)
                async with asyncio.timeout(HEARTBEAT_TIMEOUT_S):
                    await db.execute("SELECT 1")
        finally:
            metrics.LIVE_LISTENING.set(0)

    def _hear(self, payload: str) -> None:
        try:
            flushed, _, rest = payload.partition(" ")
            flushed_unix_s = float(flushed)
            heads = [part.rpartition(" ") for part in rest.split(",")]
            told = [(topic, int(sequence)) for topic, _, sequence in heads]
        except ValueError:
            log.warning("live_notification_malformed", payload=payload[:200])
            return
        for topic, sequence in told:
            channel = self._channels.get(topic)
            if channel is not None and sequence > channel.told:
                channel.told = sequence
                channel.flushed_unix_s = channel.flushed_unix_s or flushed_unix_s
                self._want(channel)

    def _want(self, channel: Channel) -> None:
        self._fresh[channel.topic] = None
        self._wanted.set()

    def _sweep(self) -> None:
        self._unswept = deque(self._channels)
        self._wanted.set()

    async def _sweep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            self._sweep()

    # --- what is new -----------------------------------------------------------------------------------------

    async def _read(self, db: AsyncDriver) -> None:
        self._sweep()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._fresh or self._unswept:
                if self._fresh:
                    await self._read_fresh(db)
                if self._unswept:
                    await self._sweep_once(db)

    async def _sweep_once(self, db: AsyncDriver) -> None:
        await self._read_heads(db, [self._unswept.popleft() for _ in range(min(SWEPT_AT_ONCE, len(self._unswept)))])

    async def _read_fresh(self, db: AsyncDriver) -> None:
        """Read of some topics what is new. One that is just being opened needs its head first."""
        topics = list(islice(self._fresh, TOPICS_AT_ONCE))
        for topic in topics:
            del self._fresh[topic]  # now: what is heard while we read is to be read after it
        channels = [self._channels[topic] for topic in topics if topic in self._channels]
        try:
            if new := [channel.topic for channel in channels if channel.tail is None]:
                await self._read_heads(db, new)
            behind = await self._behind(channels)
            if behind:
                after = [(channel.topic, tail.head) for channel, tail, _ in behind]
                await self._take_in(behind, await store.read_updates(db, after, UPDATES_AT_ONCE))
        except BaseException:
            self._fresh.update(dict.fromkeys(topics))
            raise

    async def _behind(self, channels: list[Channel]) -> list[tuple[Channel, Tail, int]]:
        """Those of which there is something to read, and up to where. Who is far behind begins anew at its head."""
        behind = []
        for channel in channels:
            if channel.tail is None:
                continue
            if channel.told - channel.tail.head > BEHIND_MAX:
                await self._skip(channel, channel.told)  # too much for who was up to date; the others read pages anyway
            elif channel.told > channel.tail.head:
                behind.append((channel, channel.tail, channel.told))
        return behind

    async def _take_in(self, behind: list[tuple[Channel, Tail, int]], updates: list[StoredUpdate]) -> None:
        """Put updates into the tails, and wake who follows them."""
        by_topic: dict[str, list[StoredUpdate]] = {}
        for update in updates:
            by_topic.setdefault(update.topic, []).append(update)
        for channel, tail, told in behind:
            found = by_topic.get(channel.topic, [])
            for update in found:
                if update.sequence != tail.head + 1:
                    tail.skip_to(update.sequence - 1)  # forgotten before it was read here
                self._memory.keep(tail, Frame(update.sequence, update_frame(update)))
            if len(found) == UPDATES_AT_ONCE:
                self._want(channel)
            elif not found:
                tail.skip_to(told)
            if tail.head >= told:
                channel.compared.set()
            flushed_unix_s, channel.flushed_unix_s = channel.flushed_unix_s, 0.0
            await self._stir(channel)
            if flushed_unix_s:
                metrics.LIVE_LAG.observe(max(0.0, time.time() - flushed_unix_s))

    async def _read_heads(self, db: AsyncDriver, topics: list[str]) -> None:
        """Compare topics with the table; begin those that are new here."""
        channels = [self._channels[topic] for topic in topics if topic in self._channels]
        heads = await store.read_sequences(db, [channel.topic for channel in channels])
        for channel in channels:
            head = heads.get(channel.topic, 0)
            if channel.tail is None:
                channel.tail = Tail(public_name(channel.topic), head)
                channel.told = max(channel.told, head)
                channel.ready.set()
            elif head < channel.tail.head:
                log.error("live_topic_went_back", topic=channel.topic, head=head, known=channel.tail.head)
                await self._skip(channel, head)  # a restored database: nobody's numbers mean anything
            elif head > channel.tail.head:
                channel.told = max(channel.told, head)
                self._want(channel)
            else:
                channel.compared.set()

    async def _skip(self, channel: Channel, head: int) -> None:
        assert channel.tail is not None
        channel.tail.skip_to(head)
        channel.told, channel.flushed_unix_s = head, 0.0
        channel.compared.set()
        await self._stir(channel)

    async def _stir(self, channel: Channel) -> None:
        """Have every follower take what is new; others of this process have their turn in between."""
        for place, (subscription, stir) in enumerate(list(channel.followers.items()), 1):
            self._wake(subscription, stir)
            if place % STIRRED_AT_ONCE == 0:
                await asyncio.sleep(0)

    @staticmethod
    def _wake(subscription: Subscription, stir: Callable[[Subscription], None]) -> None:
        try:
            stir(subscription)
        except Exception:  # one socket's trouble is none of the others'
            log.exception("live_socket_not_woken")

    # --- what is old -----------------------------------------------------------------------------------------

    async def _read_pages(self, db: AsyncDriver) -> None:
        self._page_wanted.set()  # the connection before may have left some
        while True:
            await self._page_wanted.wait()
            self._page_wanted.clear()
            while self._pages:
                subscription, channel = self._pages[0]
                if subscription in channel.followers:
                    await self._read_page(db, subscription, channel)
                self._pages.popleft()

    async def _read_page(self, db: AsyncDriver, subscription: Subscription, channel: Channel) -> None:
        updates = await store.read_updates(db, [(channel.topic, subscription.next - 1)], PAGE_UPDATES_MAX)
        page: list[Frame] = []
        page_bytes = 0
        for update in updates:
            frame = Frame(update.sequence, update_frame(update))
            page_bytes += len(frame.wire)
            if page and page_bytes > PAGE_BYTES_MAX:
                break
            page.append(frame)
        subscription.give_page(page)
        if stir := channel.followers.get(subscription):
            self._wake(subscription, stir)
