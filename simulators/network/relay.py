"""The relay: listens on a loopback port, connects each caller to the other party, and passes packets by the line.

TLS on both sides if asked: the caller believes the relay's certificate (in tests the broker's own), the relay believes
the authority of the party behind it. What a line does can be changed at any time; `cut_all` cuts every connection.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simulators.network.framing import FRAMINGS
from simulators.network.line import GOOD, Badness, Line

LOOPBACK = "127.0.0.1"
HELD_BACK_S = 0.2
READ_BYTES = 65_536


@dataclass(frozen=True)
class Tls:
    """The certificate shown to callers, and the authority that the other party is judged by."""

    certificate_file: Path
    key_file: Path
    ca_file: Path
    server_name: str = "localhost"


class Relay:
    """One relay to one party. `outward` is what callers send, `inward` what they get."""

    def __init__(self, host: str, port: int, *, framing: str, seed: int, tls: Tls | None = None) -> None:
        self._party = (host, port)
        self.framing = framing
        self._tls = tls
        self._rng = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._lines: list[Line] = []
        self.outward: Badness = GOOD
        self.inward: Badness = GOOD
        self.refusing = False
        self.port = 0

    async def start(self) -> None:
        """Listen; `port` is set."""
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._tls.certificate_file, self._tls.key_file)
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            await self.cut_all()
            await self._server.wait_closed()
            self._server = None

    async def cut_all(self) -> None:
        """Cut every connection now."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def happened(self) -> Counter[str]:
        """What the lines have done so far, by kind."""
        total: Counter[str] = Counter()
        for line in self._lines:
            total.update(line.counts)
        return total

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._relay(reader, writer))
        self._connections.add(connection)

        def ended(_: asyncio.Task[None]) -> None:  # or cut before it began
            self._connections.discard(connection)
            writer.transport.abort()

        connection.add_done_callback(ended)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            return
        context = ssl.create_default_context(cafile=self._tls.ca_file) if self._tls else None
        name = self._tls.server_name if self._tls else None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._party, ssl=context, server_hostname=name)
        except OSError:
            return
        outward, inward = self._line(lambda: self.outward), self._line(lambda: self.inward)
        ways = [
            asyncio.ensure_future(self._pass(reader, far_writer, writer, outward)),
            asyncio.ensure_future(self._pass(far_reader, writer, far_writer, inward)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()

    def _line(self, badness: Callable[[], Badness]) -> Line:
        line = Line(badness, random.Random(self._rng.random()), mqtt=self.framing == "mqtt")
        self._lines.append(line)
        return line

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter, line: Line
    ) -> None:
        """Pass packets one way until either end or the line itself ends it."""
        framing = FRAMINGS[self.framing]()
        with suppress(OSError, ValueError):
            while True:
                try:
                    async with asyncio.timeout(HELD_BACK_S):
                        data = await reader.read(READ_BYTES)
                except TimeoutError:
                    writer.writelines(line.release())
                    continue
                if not data:
                    return
                for packet in framing.feed(data):
                    passage = line.pass_on(packet)
                    if passage.delay_s:
                        await asyncio.sleep(passage.delay_s)
                    if passage.cut:
                        return
                    writer.writelines(passage.forward)
                    back.write(passage.answer)
                await writer.drain()
