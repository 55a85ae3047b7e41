"""One socket: what its client says is done in turn, what it gets is taken from the tails at the pace at which it reads.

Two tasks. The one that reads does not read on before its answer is on its way; the one that writes holds one piece of
text at a time. So a socket costs the same whatever its client does or leaves undone. Who may open one, and what ends it
from outside, is the switchboard's.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    TooManySubscriptions,
    Unauthorized,
)
from hub.limits.requests import monotonic_us
from hub.limits.rules import Policy, take
from hub.live import messages
from hub.live.feed import Channel
from hub.live.messages import Authenticate, Message, Ping, Subscribe, Unsubscribe, parse_message
from hub.live.tails import Frame, ReadPage, Resync, Subscription
from hub.live.topics import TOPICS, may_follow, stored_topic
from hub.live.wire import ABORT_EXTENSION, FLUSH_TIMEOUT_S

if TYPE_CHECKING:
    from hub.live.switchboard import Switchboard

AUTHENTICATION_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 10.0
"""A client must have taken what fills the buffers of one socket within this, or it is gone."""
SUBSCRIPTIONS_MAX: Final = 16
TAKEN_AT_ONCE: Final = 16
"""Frames of one topic before another one has its turn."""
TOPIC_TIMEOUT_S: Final = 10.0
"""For the head of a topic that nobody here follows yet."""
MESSAGES: Final = Policy("live-messages", 60, 6, "a client subscribes a few times, and then says a word in a minute")

NORMAL: Final = 1000
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
        self._board = board
        self._opened_s = time.monotonic()
        self._token = ""
        self._expires_at: datetime | None = None
        self._followed: dict[str, Followed] = {}
        self._by_subscription: dict[Subscription, Followed] = {}
        self._due: dict[Subscription, Followed] = {}
        self._replies: deque[str] = deque()
        self._stirred = asyncio.Event()
        self._replied = asyncio.Event()
        self._rested_at_us = 0
        self._sending_since_s: float | None = None
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
            metrics.LIVE_SOCKETS_ENDED.labels("left" if self._end is None else self._end[1]).inc()

    def end(self, error: HubError) -> None:
        """Tell the client why, and close. The first reason counts."""
        if self._end is None:
            self._replies.append(messages.error_frame(error))
            self._end = (CLOSE_CODES.get(type(error), CLOSE_CODE), error.code)
            self._ending_since_s = time.monotonic()
            self._stirred.set()

    def watch(self, now_s: float, now: datetime) -> None:
        """End what has lasted too long. `now_s` is of the monotonic clock."""
        if self._sending_since_s is not None and now_s - self._sending_since_s > SEND_TIMEOUT_S:
            self._abort("stuck")
        elif self._end is not None:
            if now_s - self._ending_since_s > FLUSH_TIMEOUT_S:
                self._abort(self._end[1])
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
                self._replies.append(messages.error_frame(Forbidden(), name))
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
        if len(self._followed) >= SUBSCRIPTIONS_MAX:
            raise TooManySubscriptions(f"{SUBSCRIPTIONS_MAX} are followed")
        feed = self._board.feed
        async with contextlib.AsyncExitStack() as stack:
            channel = await stack.enter_async_context(feed.opened(topic))
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
            self._stirred.set()

    def _reply(self, text: str) -> None:
        self._replies.append(text)
        self._stirred.set()

    async def _write(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while True:
                while self._replies:
                    await self._send(self._replies.popleft())
                self._replied.set()
                if self._end is not None:
                    await self._websocket.close(*self._end)
                    return
                if not self._due:
                    break
                subscription = next(iter(self._due))
                await self._send_some(self._due.pop(subscription))

    async def _send_some(self, followed: Followed) -> None:
        """Send what one subscription has, up to a limit; if there may be more, it has its turn behind the others."""
        subscription = followed.subscription
        taken = subscription.take(TAKEN_AT_ONCE)
        if isinstance(taken, ReadPage):
            self._board.feed.ask_for_page(followed.channel, subscription)
            return
        if isinstance(taken, Resync):
            metrics.LIVE_RESYNCS.labels(followed.name).inc()
            await self._send(messages.resync_frame(followed.name, taken.sequence))
        elif taken:
            for frame in taken:
                await self._send(frame.text)
            self._note_sent(taken[-1], len(taken))
        else:
            return
        if subscription in self._by_subscription:
            self._due[subscription] = followed

    @staticmethod
    def _note_sent(last: Frame, count: int) -> None:
        metrics.LIVE_UPDATES_SENT.inc(count)
        if last.flushed_unix_s:
            metrics.LIVE_LAG.observe(max(0.0, time.time() - last.flushed_unix_s))

    async def _send(self, text: str) -> None:
        self._sending_since_s = time.monotonic()
        await self._websocket.send({"type": "websocket.send", "text": text})
        self._sending_since_s = None

    def _abort(self, reason: str) -> None:
        """Break the connection off: its buffers are full, and no word would arrive any more."""
        self._end = (INTERNAL_ERROR, reason)
        extension = self._websocket.scope.get("extensions", {}).get(ABORT_EXTENSION)
        if extension is not None:
            extension["abort"]()
