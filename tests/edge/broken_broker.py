"""A broker as no broker should be: MQTT 3.1.1 and 5 by hand, so that it can say anything."""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from simulators.network.framing import Mqtt

CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8
GRANTED = b"\1\1"


def publication(topic: bytes, payload: bytes, version: int, first: int = 0x30) -> bytes:
    """A PUBLISH at QoS 0."""
    body = len(topic).to_bytes(2, "big") + topic + (b"\0" if version == 5 else b"") + payload
    assert len(body) < 128
    return bytes([first, len(body)]) + body


@dataclass
class BrokenBroker:
    """Accepts whoever comes, answers subscriptions with `grants`, then says `says`; it acknowledges every publish."""

    version: int
    grants: bytes = GRANTED
    says: bytes = b""
    port: int = 0
    connections: int = 0
    open: int = 0
    published: list[bytes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, certificates: Path | None, address: str = "127.0.0.1") -> asyncio.Server:
        """Listen on a loopback port, over TLS if there are certificates."""
        context = None
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        server = await asyncio.start_server(self._serve, address, 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        framing, five = Mqtt(), self.version == 5
        try:
            while data := await reader.read(4_096):
                for packet in framing.feed(data):
                    kind = packet[0] >> 4
                    if kind == CONNECT:
                        writer.write(b"\x20\x03\0\0\0" if five else b"\x20\x02\0\0")
                    elif kind == SUBSCRIBE:
                        body = packet[2:4] + (b"\0" if five else b"") + self.grants
                        writer.write(bytes([0x90, len(body)]) + body + self.says)
                    elif kind == PUBLISH and packet[0] & 0x06:
                        self.published.append(packet)
                        at = 2 if packet[1] < 0x80 else 3
                        at += 2 + int.from_bytes(packet[at : at + 2], "big")
                        writer.write(b"\x40\x02" + packet[at : at + 2])
                    self.changed.set()
        except OSError:
            pass
        finally:
            self.open -= 1
            self.changed.set()
            writer.transport.abort()

    async def wait(self, what: str) -> None:
        """Until something has changed."""
        self.changed.clear()
        async with asyncio.timeout(30):
            await self.changed.wait()
