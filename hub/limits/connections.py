"""A client's connection, and how long it may keep the hub waiting. What uvicorn leaves open is closed here.

uvicorn ends a connection that is silent after an answer, and bounds the size of a request's head. It does not bound how
long a head may take, how long a client may take nothing of its answer, nor how many connections there are; and what is
no HTTP it answers in plain text.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import sys
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from hub import logs
from hub.errors import HeadersTooLarge, TooManyConnections
from hub.problems import FRAMEWORK_CODES, PROBLEM_TYPE, RETRY_AFTER_S, problem_document

HEAD_BYTES_MAX: Final = 16 * 1024
"""Request line and headers; a token is less than one of them, a cookie we have none."""
HEAD_TIMEOUT_S: Final = 15.0
"""From the connection, or the end of the answer before, to the end of a request's headers."""
STALLED_TIMEOUT_S: Final = 30.0
"""In which a client has to take at least PROGRESS_BYTES_MIN of what waits for it."""
PROGRESS_BYTES_MIN: Final = 4_096
CONNECTIONS_MAX: Final = 8_192
"""Of one process, WebSockets included; each that waits for something to happen costs some 50 kB."""
FILES_BESIDES: Final = 256
"""Open files that are no connections of clients: the database, logs, what a library opens."""
LOOK_EVERY_S: Final = 5.0

_LINGER_NOT: Final = struct.pack("ii", 1, 0)

log = logs.get_logger()


def allow_open_files() -> None:
    """Have the system let this process hold CONNECTIONS_MAX connections, as far as it may; and no more than it lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_BESIDES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    BoundedConnection.connections_max = min(CONNECTIONS_MAX, max(soft, allowed) - FILES_BESIDES)


class BoundedConnection(H11Protocol):
    """One connection of a client, looked at every few seconds."""

    head_timeout_s = HEAD_TIMEOUT_S
    stalled_timeout_s = STALLED_TIMEOUT_S
    look_every_s = LOOK_EVERY_S
    connections_max = CONNECTIONS_MAX

    _look_task: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0
    _taken_at_s = 0.0
    _unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; one connection too many is told so and closed."""
        super().connection_made(transport)
        # asyncio does so only where the socket names its protocol, which those of a listener made by hand do not; and
        # a body that is written behind its head would wait 40 ms for the client to acknowledge the head
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.connections_max:
            log.warning("connections_at_maximum", connections=len(self.connections))
            self._refuse(TooManyConnections.status, TooManyConnections.code, TooManyConnections.title)
            return
        self._idle_since_s = self._taken_at_s = self.loop.time()
        self._look_task = self.loop.call_later(self.look_every_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._look_task is not None:
            self._look_task.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From here on the next head is waited for."""
        self._idle_since_s = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        """The client has taken what waited for it."""
        self._taken_at_s = self.loop.time()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP, or a head that is too large, as every other refusal is answered."""
        if self._is_answering():
            self.transport.abort()  # in the midst of a body: the answer to it has its own way
            return
        status = getattr(sys.exception(), "error_status_hint", HTTPStatus.BAD_REQUEST)
        if status == HeadersTooLarge.status:
            self._refuse(status, HeadersTooLarge.code, HeadersTooLarge.title)
        else:
            bad = HTTPStatus.BAD_REQUEST
            self._refuse(bad, FRAMEWORK_CODES[bad], bad.phrase)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        if self.transport.get_protocol() is not self or (self.transport.is_closing() and not self._unsent()):
            return  # a WebSocket now, which has its own bounds; or over
        now_s, unsent = self.loop.time(), self._unsent()
        if unsent <= self._unsent_bytes - PROGRESS_BYTES_MIN or not unsent:
            self._taken_at_s, self._unsent_bytes = now_s, unsent
        self._unsent_bytes = max(self._unsent_bytes, unsent)  # the application may have added to it
        waited_for_head = not self._is_answering() and not unsent and now_s - self._idle_since_s > self.head_timeout_s
        if waited_for_head or now_s - self._taken_at_s > self.stalled_timeout_s:
            log.info("connection_too_slow", waited_for="a request" if waited_for_head else "an answer to be taken")
            self._reset()
            return
        self._look_task = self.loop.call_later(self.look_every_s, self._look)

    def _reset(self) -> None:
        """End it at once, and have the kernel forget what it would still deliver."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.transport.abort()

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def _refuse(self, status: int, code: str, title: str) -> None:
        """Answer without the application, and close."""
        request_id = logs.new_id()
        body = json.dumps(problem_document(request_id, status, code, title, "")).encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Type: {PROBLEM_TYPE}",
            f"Content-Length: {len(body)}",
            f"X-Request-ID: {request_id}",
            f"Retry-After: {RETRY_AFTER_S}" if status == HTTPStatus.SERVICE_UNAVAILABLE else "Cache-Control: no-store",
            "Connection: close",
        ]
        log.info("request_refused_unread", request_id=request_id, status=status, code=code)
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
