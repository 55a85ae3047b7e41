"""A thousand sockets in one process, as light as can be: what is measured is the server, on the same two cores.

Opens the connections, says `ready`, and when every update has come to every socket writes when: for each update the
monotonic clock, in nanoseconds, of its arrival at each socket. Parses only what a server sends without extensions.
"""

import argparse
import asyncio
import json
import re
import resource
import time
from pathlib import Path

HANDSHAKE_TIMEOUT_S = 60.0
OPENING_AT_ONCE = 50
SEQUENCE = re.compile(rb'"sequence":(\d+)')
CLOSE, TEXT = 0x88, 0x81
MASK = bytes(4)
"""A mask of zeros masks nothing, and is one."""


class Socket(asyncio.Protocol):
    """One connection: a handshake, the first messages, and then arrivals."""

    def __init__(self, host: str, messages: list[bytes], arrivals: dict[int, list[int]]) -> None:
        self._host = host
        self._messages = messages
        self._arrivals = arrivals
        self._buffer = b""
        self._opened = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            f"GET /live HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take in frames: note the arrival of an update, answer what comes before the first with the next message."""
        now_ns = time.monotonic_ns()
        data = self._buffer + data if self._buffer else data
        start = 0
        if not self._opened:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(head.decode(errors="replace"))
                return
            self._opened = True
            self._say_next()
        while len(data) - start >= 2:
            length, body = data[start + 1], start + 2
            if length == 126:
                length, body = int.from_bytes(data[start + 2 : start + 4], "big"), start + 4
            if len(data) < body + length:
                break
            self._take(data[start], data[body : body + length], now_ns)
            start = body + length
        self._buffer = data[start:]

    def connection_lost(self, fault: Exception | None) -> None:
        """A socket that ends too early fails the run."""
        if not self.ready.done():
            self._fail(f"closed: {fault}")

    def _take(self, opcode: int, body: bytes, now_ns: int) -> None:
        if opcode != TEXT:
            if opcode == CLOSE:
                raise SystemExit(f"closed: {body!r}")
            return
        if body.startswith(b'{"type":"update"'):
            found = SEQUENCE.search(body)
            assert found is not None
            self._arrivals[int(found[1])].append(now_ns)
        elif self._messages:
            self._say_next()
        elif not self.ready.done():
            self.ready.set_result(None)

    def _say_next(self) -> None:
        if not self._messages:
            self.ready.set_result(None)
            return
        body = self._messages.pop(0)
        length = bytes([0x80 | len(body)]) if len(body) < 126 else bytes([0xFE]) + len(body).to_bytes(2, "big")
        self._transport.write(bytes([TEXT]) + length + MASK + body)

    def _fail(self, why: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))


async def run(given: argparse.Namespace) -> None:
    """Open all, wait for all, write down all."""
    arrivals: dict[int, list[int]] = {sequence: [] for sequence in range(1, given.updates + 1)}
    keys = json.loads(given.keys.read_text()) if given.keys else [None]
    loop, opening = asyncio.get_running_loop(), asyncio.Semaphore(OPENING_AT_ONCE)

    async def open_one(number: int) -> None:
        messages = [] if keys[0] is None else [{"type": "authenticate", "token": keys[number % len(keys)]}]
        if messages:
            messages.append({"type": "subscribe", "topic": given.topic})
        encoded = [json.dumps(message).encode() for message in messages]
        async with opening:
            _, socket = await loop.create_connection(
                lambda: Socket(f"{given.host}:{given.port}", encoded, arrivals), given.host, given.port
            )
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await socket.ready

    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(given.sockets):
            group.create_task(open_one(number))
    print(json.dumps({"ready": time.monotonic() - begun_s}), flush=True)
    last = arrivals[given.updates]
    deadline_s = time.monotonic() + given.timeout_s
    while any(len(each) < given.sockets for each in arrivals.values()):
        if time.monotonic() > deadline_s:
            missing = sum(given.sockets - len(each) for each in arrivals.values())
            raise SystemExit(f"{missing} deliveries are missing, {given.sockets - len(last)} of the last update")
        await asyncio.sleep(0.1)
    given.out.write_text(json.dumps(arrivals))
    print(json.dumps({"done": time.monotonic()}), flush=True)


def main() -> None:
    """Be the clients of one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keys", type=Path, help="a JSON list of API keys, used in turn; without it nothing is said")
    parser.add_argument("--topic", default="book")
    parser.add_argument("--sockets", type=int, required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--timeout-s", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > soft else soft, hard))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
