"""Lines that meters hang on: a TCP port (with TCP or RTU frames) or a serial device.

A serial line takes what it hears between two silences for a frame, like the meters on it. A TCP stream has no
silences that mean anything: there a frame ends where its checksum fits, and what never becomes one is forgotten.
"""

import asyncio
import contextlib
import os
import struct
import termios
import tty
from collections.abc import Awaitable, Callable
from pathlib import Path

from simulators.meters.bus import Bus
from simulators.meters.framing import (
    FRAME_BYTES_MAX,
    TCP_HEADER_BYTES,
    TCP_LENGTH_MAX,
    TCP_LENGTH_MIN,
    is_rtu_frame,
    rtu_frame,
    rtu_reply,
    silence_s,
    tcp_frame,
    tcp_reply,
)

HOST = "127.0.0.1"
GATEWAY_GAP_S = 0.1
"""RTU over TCP: bytes that have not become a frame in this time never will."""
BAUD_RATES = {baud: getattr(termios, f"B{baud}") for baud in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)}


class TcpLine:
    """A port that answers for the units of a bus. framing: "tcp" or "rtu_over_tcp"."""

    def __init__(self, bus: Bus, port: int, framing: str) -> None:
        self._bus = bus
        self._port = port
        self._serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
        self._serve = self._serve_tcp if framing == "tcp" else self._serve_rtu
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen, and return the port. Raises OSError if it is taken."""
        self._server = await asyncio.start_server(self._connected, HOST, self._port)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and drop the connections."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # cancelled only by stop(); the stream's own callback must not hear of it
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await reader.readexactly(TCP_HEADER_BYTES)
            transaction, protocol, length, unit = struct.unpack(">HHHB", header)
            if protocol != 0 or not TCP_LENGTH_MIN <= length <= TCP_LENGTH_MAX:
                return
            reply = tcp_reply(self._bus, unit, await reader.readexactly(length - 1))
            if reply is not None:
                await asyncio.sleep(reply.delay_s)
                writer.write(tcp_frame(transaction, unit, reply))
                await writer.drain()

    async def _serve_rtu(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = b""
        while True:
            try:
                more = await asyncio.wait_for(reader.read(FRAME_BYTES_MAX), GATEWAY_GAP_S if heard else None)
            except TimeoutError:
                heard = b""
                continue
            if not more:
                return
            heard += more
            if not is_rtu_frame(heard):
                continue
            frame, heard = heard, b""
            reply = rtu_reply(self._bus, frame)
            if reply is not None:
                await asyncio.sleep(reply.delay_s)
                writer.write(rtu_frame(frame[0], reply))
                await writer.drain()


class SerialLine:
    """A serial device (or one end of a pseudo-terminal): 8 data bits, no parity, one stop bit."""

    def __init__(self, bus: Bus, device: Path, baud: int) -> None:
        self._bus = bus
        self._device = device
        self._baud = baud
        self._file: int | None = None
        self._heard = b""
        self._silence: asyncio.TimerHandle | None = None
        self._answering: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Open the device; there is no port, so 0. Raises OSError if it cannot be opened."""
        self._file = os.open(self._device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._file)
        attributes = termios.tcgetattr(self._file)
        attributes[4] = attributes[5] = BAUD_RATES[self._baud]
        termios.tcsetattr(self._file, termios.TCSANOW, attributes)
        asyncio.get_running_loop().add_reader(self._file, self._hear)
        return 0

    async def stop(self) -> None:
        """Fall silent and close the device."""
        if self._file is None:
            return
        asyncio.get_running_loop().remove_reader(self._file)
        for timer in (self._silence, self._answering):
            if timer is not None:
                timer.cancel()
        os.close(self._file)
        self._file = None

    def _hear(self) -> None:
        assert self._file is not None
        loop = asyncio.get_running_loop()
        try:
            self._heard += os.read(self._file, FRAME_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # the other end of a pseudo-terminal is gone: nobody will ever ask again
            loop.remove_reader(self._file)
            return
        if self._silence is not None:
            self._silence.cancel()
        self._silence = loop.call_later(silence_s(self._baud), self._frame_ends)

    def _frame_ends(self) -> None:
        frame, self._heard, self._silence = self._heard, b"", None
        reply = rtu_reply(self._bus, frame)
        if reply is None:
            return
        answer = rtu_frame(frame[0], reply)
        self._answering = asyncio.get_running_loop().call_later(reply.delay_s, self._say, answer)

    def _say(self, answer: bytes) -> None:
        if self._file is not None:
            with contextlib.suppress(BlockingIOError):  # nobody reads: on a wire it would be lost too
                os.write(self._file, answer)


Line = TcpLine | SerialLine
