"""One socket: what its client says is done in turn, what it gets is taken from the tails at the pace at which it reads.

What its client has room for is written at once, by whoever brings it (`_pump`); a task waits only for a client whose
buffers are full. Another one reads, and does not read on before its answer is on its way. So a socket costs the same
whatever its client does or leaves undone. Who may open one, and what ends it from outside, is the switchboard's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from hub import logs, metrics
from hub.actor import Actor
from hub.errors import (
    AccessTokenExpired,
    AlreadySubscribed,
    AuthenticationTimeout,
    DatabaseAway,
    Forbidden,
    HubError,
    MalformedInput,
    MemberDiffers,
    NotSubscribed,
    TooManyMessages,
    TooManySockets,
    Unauthorized,
)
from hub.limits.requests import monotonic_us
from hub.limits.rules import Policy, take
from hub.live import messages
from hub.live.feed import Channel
from hub.live.messages import Authenticate, Message, Ping, Subscribe, Unsubscribe, parse_message
from hub.live.tails import ReadPage, Resync, Subscription
from hub.live.topics import TOPICS, may_follow, stored_topic
from hub.live.wire import FLUSH_TIMEOUT_S, wire_of

if TYPE_CHECKING:
    from hub.live.switchboard import Switchboard

AUTHENTICATION_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 10.0
"""A client must have taken what fills the buffers of one socket within this, or it is gone."""
TAKEN_AT_ONCE: Final = 16
"""Frames of one topic before another one has its turn."""
TURNS_AT_ONCE: Final = 4
"""Before other sockets have theirs."""
TOPIC_TIMEOUT_S: Final = 10.0
"""For the head of a topic that nobody here follows yet."""
MESSAGES: Final = Policy("live-messages", 60, 6, "a client subscribes a few times, and then says a word in a minute")

INTERNAL_ERROR: Final = 1011
CLOSE_CODES: Final[Mapping[type[HubError], int]] = {
    MalformedInput: 4400,
    Unauthorized: 4401,
    AccessTokenExpired: 4401,
    AuthenticationTimeout: 4401,
    MemberDiffers: 4409,
    TooManyMessages: 4429,
    TooManySockets: 4429,
    DatabaseAway: 1013,
}
"""With which code a refusal closes the socket, if it does (docs/live.md has the codes of the protocol itself, too)."""
CLOSE_CODE: Final = 4400
"""For a refusal that ends the socket and is not in the table."""

log = logs.get_logger()


@dataclass(frozen=True, eq=False)
class Followed:
    """A topic that this socket follows."""

    name: str
    channel: Channel
    subscription: Subscription


class LiveSocket:
    """A socket from its acceptance to its end."""

    def __init__(self, websocket: WebSocket, board: Switchboard, address: str) -> None:
        self.address = address
        self.actor: Actor | None = None
        self.checked_s = time.monotonic()
        self._websocket = websocket
        self._wire = wire_of(websocket.scope)
        self._board = board
        self._opened_s = time.monotonic()
        self._token = ""
        self._expires_at: datetime | None = None
        self._followed: dict[str, Followed] = {}
        self._by_subscription: dict[Subscription, Followed] = {}
        self._due: dict[Subscription, Followed] = {}
        self._replies: deque[bytes] = deque()
        self._left_over = asyncio.Event()
        self._replied = asyncio.Event()
        self._rested_at_us = 0
        self._blocked_since_s: float | None = None
        self._end: tuple[int, str] | None = None
        """Close code and reason, once it is decided."""
        self._ending_since_s = 0.0

    async def run(self, refusal: HubError | None) -> None:
        """Serve until the client leaves or must go; at once with a refusal."""
        await self._websocket.accept()
        if refusal is not None:
            self.end(refusal)
        tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._write())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except WebSocketDisconnect:
            pass
        except Exception:
            log.exception("live_socket_failed")
            self._end = (INTERNAL_ERROR, "internal_error")
            with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                async with asyncio.timeout(FLUSH_TIMEOUT_S):
                    await self._websocket.close(INTERNAL_ERROR)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for name in list(self._followed):
                self._leave(name)
            reason = "left" if self._end is None else self._end[1]
            metrics.LIVE_SOCKETS_ENDED.labels(reason).inc()
            member = None if self.actor is None else str(self.actor.member_id)
            duration_s = round(time.monotonic() - self._opened_s, 3)
            log.info("live_socket", client=self.address, member=member, ended=reason, duration_s=duration_s)

    def end(self, error: HubError) -> None:
        """Tell the client why, and close. The first reason counts."""
        if self._end is None:
            self._replies.append(messages.error_frame(error))
            self._end = (CLOSE_CODES.get(type(error), CLOSE_CODE), error.code)
            self._ending_since_s = time.monotonic()
            self._left_over.set()

    def watch(self, now_s: float, now: datetime) -> None:
        """End what has lasted too long. `now_s` is of the monotonic clock."""
        if self._end is not None:
            if now_s - self._ending_since_s > FLUSH_TIMEOUT_S:
                self._abort(self._end[1])
        elif self._blocked_since_s is not None and now_s - self._blocked_since_s > SEND_TIMEOUT_S:
            self._abort("stuck")
        elif self.actor is None:
            if now_s - self._opened_s > AUTHENTICATION_TIMEOUT_S:
                self.end(AuthenticationTimeout())
        elif self._expires_at is not None and self._expires_at <= now:
            self.end(AccessTokenExpired())

    async def check_rights(self) -> None:
        """Look again who this is and what it may. Raises DatabaseAway."""
        token = self._token
        try:
            actor, _ = await self._board.authenticate(token)
        except DatabaseAway:
            raise
        except HubError as refusal:
            if token == self._token:
                self.end(refusal)
            return
        if token != self._token:
            return  # the client has shown another token meanwhile, which was checked
        self.actor, self.checked_s = actor, time.monotonic()
        for name in list(self._followed):
            if not may_follow(actor, name):
                self._reply(messages.error_frame(Forbidden(), name))
                self._unfollow(name)

    # --- what the client says --------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            if self._end is not None:
                continue
            allowed, self._rested_at_us = take(MESSAGES, self._rested_at_us, monotonic_us())
            if not allowed:
                self.end(TooManyMessages(f"more than {MESSAGES.quota} in {MESSAGES.window_s} s"))
                continue
            try:
                text = received.get("text")
                if text is None:
                    raise MalformedInput("messages are text")
                await self._answer(parse_message(text))
            except HubError as refusal:
                self._refuse(refusal)
            while self._replies:
                self._replied.clear()
                await self._replied.wait()

    def _refuse(self, refusal: HubError, name: str | None = None) -> None:
        if self.actor is None or isinstance(refusal, Unauthorized | AccessTokenExpired | MemberDiffers):
            self.end(refusal)
        else:
            self._reply(messages.error_frame(refusal, name))

    async def _answer(self, message: Message) -> None:
        if self.actor is None and not isinstance(message, Authenticate):
            raise Unauthorized("the first message authenticates")
        if isinstance(message, Authenticate):
            await self._authenticate(message.token)
        elif isinstance(message, Ping):
            self._reply(messages.pong_frame())
        else:
            try:
                if isinstance(message, Subscribe):
                    await self._subscribe(message.topic, message.after)
                else:
                    self._unsubscribe(message)
            except HubError as refusal:
                self._refuse(refusal, message.topic)

    async def _authenticate(self, token: str) -> None:
        seen = self._board.rights_changes
        actor, expires_at = await self._board.authenticate(token)
        if self.actor is None:
            self._board.claim(self, actor)
        elif actor.member_id != self.actor.member_id:
            raise MemberDiffers
        else:
            self._board.reclaim(self, self.actor, actor)
        self.actor, self._token, self._expires_at = actor, token, expires_at
        self.checked_s = time.monotonic()
        if seen != self._board.rights_changes:
            self._board.check_again(self)  # it may have been this very session that ended, before we could hear of it
        topics = [name for name in TOPICS if may_follow(actor, name)]
        self._reply(messages.authenticated_frame(actor.member_id, expires_at, topics))

    async def _subscribe(self, name: str, after: int | None) -> None:
        assert self.actor is not None
        topic = stored_topic(self.actor, name)
        if name in self._followed:
            raise AlreadySubscribed
        feed = self._board.feed
        async with feed.opened(topic) as channel:
            try:
                async with asyncio.timeout(TOPIC_TIMEOUT_S):
                    await channel.ready.wait()
                    if after is not None and channel.tail is not None and after > channel.tail.head:
                        await feed.catch_up(channel)
            except TimeoutError:
                raise DatabaseAway from None
            if not may_follow(self.actor, name):  # a right was lost meanwhile
                raise Forbidden
            followed = Followed(name, channel, feed.follow(channel, after, self._stir))
        self._followed[name] = self._by_subscription[followed.subscription] = followed
        metrics.LIVE_SUBSCRIPTIONS.labels(name).inc()
        self._reply(messages.subscribed_frame(name, followed.subscription.tail.head))
        self._stir(followed.subscription)

    def _unsubscribe(self, message: Unsubscribe) -> None:
        if message.topic not in self._followed:
            raise NotSubscribed
        self._unfollow(message.topic)

    def _unfollow(self, name: str) -> None:
        self._leave(name)
        self._reply(messages.unsubscribed_frame(name))

    def _leave(self, name: str) -> None:
        followed = self._followed.pop(name)
        del self._by_subscription[followed.subscription]
        self._due.pop(followed.subscription, None)
        self._board.feed.leave(followed.channel, followed.subscription)
        metrics.LIVE_SUBSCRIPTIONS.labels(name).dec()

    # --- what the client gets --------------------------------------------------------------------------------

    def _stir(self, subscription: Subscription) -> None:
        """There may be something to take."""
        followed = self._by_subscription.get(subscription)
        if followed is not None:
            self._due[subscription] = followed
            self._pump()

    def _reply(self, frame: bytes) -> None:
        self._replies.append(frame)
        self._pump()

    def _pump(self) -> None:
        """Write what there is and the client has room for, up to a limit; what is left is left to `_write`."""
        if self._left_over.is_set() or self._blocked_since_s is not None:
            return  # it will be here soon, or waits
        for _ in range(TURNS_AT_ONCE):
            if not self._wire.is_writable or self._end is not None:
                break
            if self._replies:
                self._wire.write(b"".join(self._replies))
                self._replies.clear()
                self._replied.set()
            elif self._due:
                subscription = next(iter(self._due))
                self._write_some(self._due.pop(subscription))
            else:
                return
        if self._replies or self._due:
            self._left_over.set()

    def _write_some(self, followed: Followed) -> None:
        """Write what one subscription has, up to a limit; if there may be more, it has its turn behind the others."""
        subscription = followed.subscription
        taken = subscription.take(TAKEN_AT_ONCE)
        if isinstance(taken, ReadPage):
            self._board.feed.ask_for_page(followed.channel, subscription)
            return
        if isinstance(taken, Resync):
            metrics.LIVE_RESYNCS.labels(followed.name).inc()
            self._wire.write(messages.resync_frame(followed.name, taken.sequence))
        elif taken:
            self._wire.write(taken[0].wire if len(taken) == 1 else b"".join([frame.wire for frame in taken]))
            self._board.updates_sent += len(taken)
        if subscription.has_more:
            self._due[subscription] = followed

    async def _write(self) -> None:
        """Wait for the client, whenever it has no room for what there is; in the end, take leave."""
        while True:
            await self._left_over.wait()
            self._blocked_since_s = time.monotonic()
            await self._wire.wait_until_writable()
            self._blocked_since_s = None
            self._left_over.clear()
            if self._end is not None:
                self._wire.write(b"".join(self._replies))
                await self._websocket.close(*self._end)
                return
            self._pump()

    def _abort(self, reason: str) -> None:
        """Break the connection off: its buffers are full, and no word would arrive any more."""
        self._end = (INTERNAL_ERROR, reason)
        self._ending_since_s = time.monotonic()
        self._wire.abort()
