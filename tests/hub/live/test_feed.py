"""The feed by itself, over a real database: what it does when nobody tells it anything, or nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from hub.db import transaction
from hub.live import feed as feeds
from hub.live.feed import Channel, Feed
from hub.live.tails import BEHIND_MAX, Frame, ReadPage, Resync, Subscription
from hub.live.topics import BOOK
from tests.hub.live.conftest import tell

TIMEOUT_S = 20


class Follower:
    """Takes whatever there is as soon as it is stirred."""

    def __init__(self, feed: Feed, channel: Channel) -> None:
        self.feed, self.channel = feed, channel
        self.got: list[int | str] = []
        self.more = asyncio.Event()
        self.subscription: Subscription | None = None

    def begin(self, after: int | None) -> None:
        self.subscription = self.feed.follow(self.channel, after, self.stir)
        self.stir(self.subscription)

    def stir(self, subscription: Subscription) -> None:
        while subscription.has_more:
            taken = subscription.take(1_000)
            if isinstance(taken, ReadPage):
                self.feed.ask_for_page(self.channel, subscription)
            elif isinstance(taken, Resync):
                self.got.append(f"resync {taken.sequence}")
            else:
                self.got += [frame.sequence for frame in taken]
        self.more.set()

    async def until(self, condition: Callable[[list[int | str]], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition(self.got):
                self.more.clear()
                await self.more.wait()


@asynccontextmanager
async def following(database_url: str, after: int | None = None, sweep_s: float = 60.0, memory_bytes_max: int = 10**7):
    heard: list[str | None] = []
    feed = Feed(database_url, heard.append, sweep_s, memory_bytes_max)
    running = asyncio.create_task(feed.run())
    try:
        async with feed.opened(BOOK) as channel, asyncio.timeout(TIMEOUT_S):
            await channel.ready.wait()
            while not heard:  # it listens
                await asyncio.sleep(0.01)
            follower = Follower(feed, channel)
            follower.begin(after)
        yield follower, heard
        feed.leave(channel, follower.subscription)
        assert not feed._channels, "a topic that nobody follows is let go of"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def run(test: Coroutine[object, object, None]) -> None:
    asyncio.run(test)


def test_updates_of_which_nobody_was_told_are_found_by_the_sweep(engine, database_url):
    async def check() -> None:
        async with following(database_url, sweep_s=0.2) as (follower, _):
            await asyncio.to_thread(without_a_word)
            await follower.until(lambda got: got == [1, 2])

    def without_a_word() -> None:
        with transaction(engine) as connection:
            connection.execute(text("INSERT INTO live_topics VALUES ('book', 2)"))
            connection.execute(
                text("INSERT INTO live_updates SELECT 'book', n, now(), 'test.told', '{}' FROM generate_series(1, 2) n")
            )

    run(check())


def test_a_notification_that_is_nonsense_is_ignored(engine, database_url):
    async def check() -> None:
        async with following(database_url) as (follower, heard):
            await asyncio.to_thread(nonsense)
            await asyncio.to_thread(tell, engine, BOOK, 1)
            await follower.until(lambda got: got == [1])
            assert heard == [None, "somebody"]

    def nonsense() -> None:
        with transaction(engine) as connection:
            for payload in ("", "x", "1.5", "1.5 book", "1.5 book one", "now book 1", ","):
                connection.execute(text("SELECT pg_notify('commonwatt_live', :payload)"), {"payload": payload})
            connection.execute(text("SELECT pg_notify('commonwatt_sessions', 'somebody')"))

    run(check())


def test_an_update_that_is_announced_and_not_there_is_a_gap_and_nothing_hangs(engine, database_url):
    async def check() -> None:
        async with following(database_url) as (follower, _):
            await asyncio.to_thread(lie)
            await follower.until(lambda got: got == ["resync 7"])

    def lie() -> None:
        with transaction(engine) as connection:
            connection.execute(text("SELECT pg_notify('commonwatt_live', '1.5 book 7')"))

    run(check())


def test_a_restored_database_is_a_gap(engine, database_url):
    def restore() -> None:
        with transaction(engine) as connection:
            connection.execute(text("DELETE FROM live_updates WHERE sequence > 2"))
            connection.execute(text("UPDATE live_topics SET sequence = 2"))

    async def check() -> None:
        async with following(database_url, sweep_s=0.2) as (follower, _):
            await asyncio.to_thread(tell, engine, BOOK, 1, 2, 3, 4)
            await follower.until(lambda got: got == [1, 2, 3, 4])
            await asyncio.to_thread(restore)
            await follower.until(lambda got: got[4:] == ["resync 2"])
            await asyncio.to_thread(tell, engine, BOOK, 3)
            await follower.until(lambda got: got[5:] == [3])

    run(check())


@pytest.mark.parametrize("memory_bytes_max", [10**7, 2_000, 0])
def test_what_is_no_longer_in_memory_is_read_from_the_table(engine, database_url, memory_bytes_max):
    """The last case keeps nothing at all in memory: every update is read again, for each follower."""

    async def check() -> None:
        tell(engine, BOOK, *range(900))
        async with following(database_url, 17, memory_bytes_max=memory_bytes_max) as (follower, _):
            for _ in range(5):
                await asyncio.to_thread(tell, engine, BOOK, *range(20))
            await follower.until(lambda got: len(got) >= 983)
            assert follower.got == list(range(18, 1_001))

    run(check())


def test_a_flood_is_told_to_whoever_keeps_up_and_a_gap_if_the_feed_itself_does_not(engine, database_url):
    async def check() -> None:
        async with following(database_url) as (follower, _):
            await asyncio.to_thread(tell, engine, BOOK, *range(BEHIND_MAX))
            await follower.until(lambda got: len(got) == BEHIND_MAX)
            assert follower.got == list(range(1, BEHIND_MAX + 1))
            await asyncio.to_thread(tell, engine, BOOK, *range(BEHIND_MAX + 1))
            await follower.until(lambda got: got[BEHIND_MAX:] == [f"resync {2 * BEHIND_MAX + 1}"])

    run(check())


def test_one_page_is_bounded_in_number_and_in_bytes(engine, database_url):
    pages: list[list[Frame]] = []

    class Watched(Subscription):
        def give_page(self, page) -> None:
            pages.append(list(page))
            super().give_page(page)

    async def check() -> None:
        tell(engine, BOOK, *range(60), text="x" * 7_000)
        tell(engine, BOOK, *range(400))
        async with following(database_url) as (follower, _):
            watched = Watched(follower.subscription.tail, 1, up_to_date=False)
            follower.channel.followers[watched] = follower.stir
            follower.stir(watched)
            await follower.until(lambda got: len(got) >= 460)
            assert follower.got == list(range(1, 461))
            del follower.channel.followers[watched]

    run(check())
    assert max(map(len, pages)) <= feeds.PAGE_UPDATES_MAX
    assert max(sum(len(frame.wire) for frame in page) for page in pages) <= feeds.PAGE_BYTES_MAX + 8_000
