"""All sockets of one API process: who may open one, who has which, and who must be looked at again.

Rights are those of the database at the time of asking. Whoever changes them says so to every process (`NOTIFY`), and
the sockets concerned are authenticated again with the token that they showed; so a session that ends, a suspended
member, a revoked key or a role that was taken ends its sockets or subscriptions at once.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
from starlette.websockets import WebSocket

from hub import logs, metrics
from hub.actor import Actor
from hub.auth.authentication import authenticate
from hub.auth.tokens import read_access_token
from hub.db import is_database_away, transaction
from hub.dependencies import Hub, client_address
from hub.errors import (
    DatabaseAway,
    HubError,
    LiveFull,
    MalformedInput,
    OriginRefused,
    TokenInUrl,
    TooManySockets,
    Unauthorized,
)
from hub.live.feed import Feed
from hub.live.sockets import LiveSocket

SOCKETS_MAX: Final = 5_000
"""Of one process. With fewer file descriptors than these and OTHER_FILES_MAX it is as many less."""
OTHER_FILES_MAX: Final = 512
UNKNOWN_MAX: Final = 500
"""Of one process, sockets that have not yet said whose they are."""
UNKNOWN_PER_ADDRESS_MAX: Final = 100
SOCKETS_PER_MEMBER_MAX: Final = 20
"""In one process."""
AUTHENTICATIONS_AT_ONCE: Final = 2
"""Each needs a thread and a connection of the pool, which has a few more than requests may use."""
WATCH_EVERY_S: Final = 1.0
KEY_CHECKED_EVERY_S: Final = 60.0
"""Nobody says so when an API key expires."""
RETRY_PAUSE_S: Final = 1.0

SECRET_NAMES: Final = frozenset(
    {"token", "access_token", "refresh_token", "id_token", "jwt", "authorization", "auth", "bearer", "key", "api_key"}
    | {"apikey", "ticket", "session", "password", "secret"}
)
"""Query parameters in which people put what does not belong there."""

log = logs.get_logger()


class Switchboard:
    """The sockets of a process, and the feed that they share."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.feed = Feed(hub.settings.database_url, self._hear_of_rights)
        self.rights_changes = 0
        """Grows whenever anybody's rights change."""
        self.updates_sent = 0
        """Since they were counted last."""
        self._origins = frozenset({hub.settings.public_url, *hub.settings.cors_origins})
        self._sockets: set[LiveSocket] = set()
        self._sockets_max = sockets_for_files(*resource.getrlimit(resource.RLIMIT_NOFILE))
        self._unknown_by_address: Counter[str] = Counter()
        self._by_id: dict[str, set[LiveSocket]] = {}
        """By what may lose its rights: member, session, API key."""
        self._to_check: dict[LiveSocket, None] = {}
        self._check_wanted = asyncio.Event()
        self._authenticating = anyio.CapacityLimiter(AUTHENTICATIONS_AT_ONCE)

    async def run(self) -> None:
        """Keep everything going until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self.feed.run())
            loops.create_task(self._watch())
            loops.create_task(self._check_rights())

    # --- who comes and goes ----------------------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Serve a socket from its handshake to its end. Raises OriginRefused, LiveFull, TooManySockets before it."""
        address = client_address(websocket)
        self._admit(websocket, address)
        socket = LiveSocket(websocket, self, address)
        self._sockets.add(socket)
        self._unknown_by_address[address] += 1
        metrics.LIVE_SOCKETS.inc()
        try:
            await socket.run(_refusal_of_query(websocket.url.query))
        finally:
            metrics.LIVE_SOCKETS.dec()
            self._sockets.discard(socket)
            self._to_check.pop(socket, None)
            if socket.actor is None:
                self._forget_unknown(address)
            else:
                self._unindex(socket, socket.actor)

    def _admit(self, websocket: WebSocket, address: str) -> None:
        origin = websocket.headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            raise OriginRefused
        if len(self._sockets) >= self._sockets_max:
            raise LiveFull
        unknown = self._unknown_by_address
        if unknown.total() >= UNKNOWN_MAX or unknown[address] >= UNKNOWN_PER_ADDRESS_MAX:
            raise TooManySockets("too many have not yet authenticated")

    def claim(self, socket: LiveSocket, actor: Actor) -> None:
        """The socket is this member's from now on. Raises TooManySockets."""
        if len(self._by_id.get(str(actor.member_id), ())) >= SOCKETS_PER_MEMBER_MAX:
            raise TooManySockets(f"{SOCKETS_PER_MEMBER_MAX} are open")
        self._forget_unknown(socket.address)
        self._index(socket, actor)

    def reclaim(self, socket: LiveSocket, before: Actor, actor: Actor) -> None:
        """It is the same member's, by another session or key perhaps."""
        self._unindex(socket, before)
        self._index(socket, actor)

    def _forget_unknown(self, address: str) -> None:
        self._unknown_by_address[address] -= 1
        if not self._unknown_by_address[address]:
            del self._unknown_by_address[address]

    def _index(self, socket: LiveSocket, actor: Actor) -> None:
        for each in _ids_of(actor):
            self._by_id.setdefault(each, set()).add(socket)

    def _unindex(self, socket: LiveSocket, actor: Actor) -> None:
        for each in _ids_of(actor):
            sockets = self._by_id[each]
            sockets.discard(socket)
            if not sockets:
                del self._by_id[each]

    # --- whose they are, and for how long --------------------------------------------------------------------

    async def authenticate(self, token: str) -> tuple[Actor, datetime | None]:
        """Whose token this is, and until when it is good; None is an API key, asked again now and then.

        Raises Unauthorized, AccessTokenExpired, DatabaseAway.
        """
        return await anyio.to_thread.run_sync(self._authenticate, token, limiter=self._authenticating)

    def _authenticate(self, token: str) -> tuple[Actor, datetime | None]:
        now, keys = datetime.now(UTC), self._hub.token_keys
        try:
            with transaction(self._hub.engine) as connection:
                actor = authenticate(connection, keys, f"Bearer {token}", now)
        except Exception as fault:
            if is_database_away(fault):
                raise DatabaseAway from fault
            raise
        return actor, None if actor.session_id is None else read_access_token(keys, token, now).expires_at

    def check_again(self, socket: LiveSocket) -> None:
        """Have a socket's rights looked at soon."""
        self._to_check[socket] = None
        self._check_wanted.set()

    def _hear_of_rights(self, whose: str | None) -> None:
        self.rights_changes += 1
        concerned = self._sockets if whose is None else self._by_id.get(whose, ())
        for socket in concerned:
            if socket.actor is not None:
                self.check_again(socket)

    async def _check_rights(self) -> None:
        while True:
            await self._check_wanted.wait()
            self._check_wanted.clear()
            while self._to_check:
                socket = next(iter(self._to_check))
                del self._to_check[socket]
                try:
                    await socket.check_rights()
                except DatabaseAway:
                    self._to_check[socket] = None
                    await asyncio.sleep(RETRY_PAUSE_S)
                except Exception:
                    log.exception("live_rights_not_checked")
                    socket.end(Unauthorized())  # whoever cannot be checked is nobody

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now_s, now = time.monotonic(), datetime.now(UTC)
            metrics.LIVE_UPDATES_SENT.inc(self.updates_sent)
            self.updates_sent = 0
            for socket in list(self._sockets):
                try:
                    socket.watch(now_s, now)
                except Exception:  # one socket's trouble is none of the others'
                    log.exception("live_socket_not_watched")
                actor = socket.actor
                if actor is not None and actor.key_id is not None and now_s - socket.checked_s > KEY_CHECKED_EVERY_S:
                    self.check_again(socket)


def sockets_for_files(soft: int, hard: int) -> int:
    """How many sockets fit into a process that may have so many files; it takes what it may have."""
    wanted = SOCKETS_MAX + OTHER_FILES_MAX
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return SOCKETS_MAX if soft == resource.RLIM_INFINITY else max(1, min(SOCKETS_MAX, soft - OTHER_FILES_MAX))


def _ids_of(actor: Actor) -> list[str]:
    return [str(each) for each in (actor.member_id, actor.session_id, actor.key_id) if each is not None]


def _refusal_of_query(query: str) -> HubError | None:
    """The address of a socket has no parameters: what people put there is, as a rule, a secret."""
    if not query:
        return None
    names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    if names & SECRET_NAMES:
        return TokenInUrl("send it in the first message, and take this one back: it is in logs now")
    return MalformedInput("this address has no query parameters")
