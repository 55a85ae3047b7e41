"""Modbus slaves by hand, byte by byte: they answer as the specification says, or as badly as a test wants."""

import asyncio
import os
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from edge.bus_settings import MeterSettings, SerialBus, TcpBus
from edge.register_map import RegisterMap, parse_register_map

FRAMINGS = ("tcp", "rtu", "rtu_over_tcp")


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    unit: int
    function: int
    address: int
    count: int
    transaction: int = 0


Behaviour = Callable[["Slave", Asked], None]


def checksum(frame: bytes) -> bytes:
    """Modbus CRC, written as the specification draws it: bit by bit."""
    register = 0xFFFF
    for byte in frame:
        register ^= byte
        for _ in range(8):
            carry, register = register & 1, register >> 1
            if carry:
                register ^= 0xA001
    return struct.pack("<H", register)


class Slave:
    """Every register of every unit reads as `word(unit, address)`. `script`: how the next requests are treated."""

    def __init__(self, rtu: bool) -> None:
        self.rtu = rtu
        self.asked: list[Asked] = []
        self.script: deque[Behaviour] = deque()
        self.held: list[bytes] = []
        self.units = {1, 2}
        self.generation = 0
        self.identity: dict[int, int] = {}
        self.send: Callable[[bytes], None] = lambda data: None
        self.hang_up: Callable[[], None] = lambda: None
        self.connections = 0
        self._received = b""

    def word(self, unit: int, address: int) -> int:
        return (unit << 13) + (self.generation << 10) + address & 0xFFFF

    def receive(self, data: bytes) -> None:
        self._received += data
        while (asked := self._next()) is not None:
            self.asked.append(asked)
            behaviour = self.script.popleft() if self.script else answer
            if asked.unit in self.units:
                behaviour(self, asked)

    def say(self, frame: bytes) -> None:
        """Send it after whatever is still owed: units answer in order."""
        self.send(b"".join([*self.held, frame]))
        self.held.clear()

    def forget(self) -> None:
        self._received = b""

    def frame(self, asked: Asked, pdu: bytes) -> bytes:
        if self.rtu:
            body = bytes([asked.unit]) + pdu
            return body + checksum(body)
        return struct.pack(">HHHB", asked.transaction, 0, len(pdu) + 1, asked.unit) + pdu

    def answer_to(self, asked: Asked) -> bytes:
        words = [self.word(asked.unit, asked.address + i) for i in range(asked.count)]
        words = [self.identity.get(asked.address + i, word) for i, word in enumerate(words)]
        return self.frame(asked, bytes([asked.function, 2 * asked.count]) + struct.pack(f">{asked.count}H", *words))

    def _next(self) -> Asked | None:
        size = 8 if self.rtu else 12
        if len(self._received) < size:
            return None
        frame, self._received = self._received[:size], self._received[size:]
        if self.rtu:
            assert checksum(frame[:6]) == frame[6:], "the master sends rubbish"
            return Asked(*struct.unpack(">BBHH", frame[:6]))
        transaction, protocol, length, unit, function, address, count = struct.unpack(">HHHBBHH", frame)
        assert (protocol, length) == (0, 6)
        return Asked(unit, function, address, count, transaction)


def answer(slave: Slave, asked: Asked) -> None:
    """As a meter should."""
    slave.say(slave.answer_to(asked))


def hold(slave: Slave, asked: Asked) -> None:
    """Slow: the answer comes with the next one."""
    slave.held.append(slave.answer_to(asked))


def say_nothing(slave: Slave, asked: Asked) -> None:
    """As if the request had been lost."""


def damage(slave: Slave, asked: Asked) -> None:
    """One bit of a register flips on the wire."""
    frame = bytearray(slave.answer_to(asked))
    frame[-3] ^= 0x10
    slave.say(bytes(frame))


def cut_short(slave: Slave, asked: Asked) -> None:
    """The end of the answer is missing."""
    slave.say(slave.answer_to(asked)[:-3])


def echo_and_noise(slave: Slave, asked: Asked) -> None:
    """A cheap adapter: what was sent comes back, the line rings, and the answer comes in pieces."""
    request = slave.frame(asked, struct.pack(">BHH", asked.function, asked.address, asked.count))
    frame = slave.answer_to(asked)
    slave.say(request)
    for part in (b"\x00\xff", frame[:1], frame[1:4], frame[4:]):
        asyncio.get_running_loop().call_soon(slave.send, part)


def hang_up(slave: Slave, asked: Asked) -> None:
    """The gateway closes the connection instead of answering."""
    slave.hang_up()


def refuse(code: int) -> Behaviour:
    """Answer with an exception."""

    def behaviour(slave: Slave, asked: Asked) -> None:
        slave.say(slave.frame(asked, bytes([asked.function | 0x80, code])))

    return behaviour


def answer_as(**changes: int) -> Behaviour:
    """Answer to a request that was never made: another unit, function, count or transaction."""

    def behaviour(slave: Slave, asked: Asked) -> None:
        slave.send(slave.answer_to(Asked(**{**vars(asked), **changes})))

    return behaviour


@asynccontextmanager
async def tcp_slave(rtu: bool) -> AsyncIterator[tuple[Slave, int]]:
    """A slave behind a TCP port: Modbus TCP, or the frames of a serial line."""
    slave = Slave(rtu)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slave.connections += 1
        slave.forget()
        writers.append(writer)
        slave.send, slave.hang_up = writer.write, writer.close
        try:
            while data := await reader.read(1024):
                slave.receive(data)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield slave, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


class Pty:
    """A serial cable: the slave at one end, a device file for the master at the other."""

    def __init__(self, slave: Slave) -> None:
        self.slave = slave
        self.plug_in()

    def plug_in(self) -> None:
        self.end, self._far_end = os.openpty()
        os.set_blocking(self.end, False)
        self.device = Path(os.ttyname(self._far_end))
        self.slave.send = self._write
        asyncio.get_running_loop().add_reader(self.end, self._readable)

    def _write(self, data: bytes) -> None:
        os.write(self.end, data)

    def _readable(self) -> None:
        self.slave.receive(os.read(self.end, 1024))

    def pull_out(self) -> None:
        asyncio.get_running_loop().remove_reader(self.end)
        os.close(self._far_end)
        os.close(self.end)


@asynccontextmanager
async def a_bus(framing: str, **changes: Any) -> AsyncIterator[tuple[Slave, Any]]:
    """A slave, and the settings of the bus that leads to it."""
    if framing == "rtu":
        slave = Slave(rtu=True)
        cable = Pty(slave)
        settings: Any = {"name": "attic", "device": cable.device, "baud": 115_200, "parity": "N", "stop_bits": 1}
        try:
            yield slave, SerialBus(**{**settings, **COMMON, **changes})
        finally:
            cable.pull_out()
        return
    async with tcp_slave(framing == "rtu_over_tcp") as (slave, port):
        name = "rtu" if framing == "rtu_over_tcp" else "tcp"
        settings = {"name": "attic", "host": "127.0.0.1", "port": port, "framing": name}
        yield slave, TcpBus(**{**settings, **COMMON, **changes})


def a_map(identity: tuple[int, int] | None = None, per_read: int = 20, **addresses: int) -> RegisterMap:
    """A meter with 32-bit counters in tenths of a kilowatt-hour at these addresses."""
    document: dict[str, Any] = {
        "meter": {
            "id": "hand_made",
            "manufacturer": "Hand",
            "model": "Made",
            "source": "a test",
            "phases_netted": True,
            "phases_source": "a test",
            "registers_per_read_max": per_read,
            "gap_registers_max": 8,
        },
        "registers": {
            quantity: {
                "function_code": 4,
                "address": address,
                "type": "uint32",
                "word_order": "big",
                "unit": "kWh",
                "scale": 100,
                "quantum": 100,
                "modulus": "unknown",
                "source": "a test",
            }
            for quantity, address in addresses.items()
        },
    }
    if identity is not None:
        address, word = identity
        document["identity"] = {"function_code": 3, "address": address, "allowed": [[word]], "source": "a test"}
    return parse_register_map(document, Path("hand_made.toml"))


GRID = MeterSettings("grid", 1, a_map(energy_import=0x10, energy_export=0x100), "import")
GENERATION = MeterSettings("generation", 2, a_map(energy_import=0x10), "import")
COMMON: dict[str, Any] = {"timeout_s": 1, "retries": 1, "meters": (GRID, GENERATION), "pause_ms": 1}
STEP = Fraction(100)
