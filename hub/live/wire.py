"""uvicorn's WebSocket protocol, with the bounds that it lacks. What is said over it is in `sockets.py`.

uvicorn leaves a connection whose peer does not read to the kernel: `transport.close()` waits for ever for a buffer that
never empties, in the keep-alive's time-out, at the end of the application and at shutdown. It answers each ping whether
or not the answers are taken, keeps every message of one read, and any number of empty fragments. Here each of these
ends, and the application gets at the wire (the ASGI extension `commonwatt.wire`): to write frames that were made once
for a thousand sockets, to ask whether the peer takes them, and to break the connection off.
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

EXTENSION: Final = "commonwatt.wire"
MESSAGE_BYTES_MAX: Final = 8_192
PING_INTERVAL_S: Final = 20.0
PING_TIMEOUT_S: Final = 20.0
WRITE_BUFFER_BYTES_MAX: Final = 32 * 1024
"""In this process, for one socket; beyond it `send` waits."""
KERNEL_BUFFER_BYTES_MAX: Final = 64 * 1024
"""In the kernel, for one socket (which doubles it): by itself it would go up to megabytes."""
MESSAGES_WAITING_MAX: Final = 32
FRAGMENTS_MAX: Final = 32
FLUSH_TIMEOUT_S: Final = 3.0
"""For the last words to a peer that is being left. Shorter than the shutdown of the process may take."""


def text_frame(text: str) -> bytes:
    """A message as a server sends it (RFC 6455): in one frame, not masked, and so the same for everybody."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def wire_of(scope: Scope) -> BoundedWebSocket:
    """The connection behind a socket of an application that is served as it must be (`UVICORN_OPTIONS`)."""
    wire = scope["extensions"][EXTENSION]["wire"]
    assert isinstance(wire, BoundedWebSocket)
    return wire


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One connection, from the handshake to a certain end."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Bound what waits for the peer, here and in the kernel."""
        super().connection_made(transport)
        self.close_timeout = FLUSH_TIMEOUT_S
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES_MAX)

    def handle_connect(self, event: Request) -> None:
        """Give the application its way out."""
        super().handle_connect(event)
        if not self.close_sent:
            extensions = self.scope["extensions"]
            assert extensions is not None
            extensions[EXTENSION] = {"wire": self}

    def write(self, frames: bytes) -> None:
        """Send frames, once the handshake is over and `is_writable`. What comes after the end is lost."""
        if self.conn.state is State.OPEN and not self.transport.is_closing():
            self.transport.write(frames)

    @property
    def is_writable(self) -> bool:
        """Whether the peer has taken enough of what was written before."""
        return self.writable.is_set()

    async def wait_until_writable(self) -> None:
        """Wait for that, or for the end."""
        await self.writable.wait()

    def abort(self) -> None:
        """End the connection now, whatever waits to be sent."""
        self.stop_keepalive()
        self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        """Take in another fragment, if it is not one of too many."""
        if len(self.frames) >= FRAGMENTS_MAX:
            self._refuse("too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Pass a message on, if the application is not too far behind: nothing more is read meanwhile."""
        if self.queue.qsize() >= MESSAGES_WAITING_MAX and not self.close_sent:
            self._refuse("too many messages at once")
        else:
            super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, if the answers are taken."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.abort()

    def keepalive_timeout(self) -> None:
        """Leave a peer that does not answer."""
        super().keepalive_timeout()
        self._abort_later()

    def shutdown(self) -> None:
        """Say that the server goes, and go."""
        self.stop_keepalive()
        if not self.handshake_complete:
            self.send_500_response()
        elif self.conn.state is State.OPEN and not self.close_sent:
            self._send_close(CloseCode.GOING_AWAY, "the hub stops")
        self.transport.close()
        self._abort_later()

    async def run_asgi(self) -> None:
        """Run the application; after it, the connection ends."""
        await super().run_asgi()
        self._abort_later()

    def _refuse(self, reason: str) -> None:
        if self.conn.state is State.OPEN:
            self._send_close(CloseCode.POLICY_VIOLATION, reason)
        self.transport.close()
        self._abort_later()

    def _send_close(self, code: CloseCode, reason: str) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True

    def _abort_later(self) -> None:
        self.loop.call_later(2 * FLUSH_TIMEOUT_S, self.transport.abort)


UVICORN_OPTIONS: Final[Mapping[str, Any]] = {
    "ws": BoundedWebSocket,
    "ws_max_size": MESSAGE_BYTES_MAX,
    "ws_ping_interval": PING_INTERVAL_S,
    "ws_ping_timeout": PING_TIMEOUT_S,
    "ws_per_message_deflate": False,
}
"""How uvicorn must be configured. No compression: updates are short, and its windows would cost 64 KiB a socket."""
