"""A connection to a bus: bytes out, bytes in, and whether it still stands. A TCP socket or a serial line."""

import asyncio
import os
import termios
from abc import ABC, abstractmethod
from contextlib import suppress

import serial  # type: ignore[import-untyped]

from edge.bus_settings import SerialBus, TcpBus
from edge.errors import ModbusError

CHUNK_BYTES = 4096
UNREAD_BYTES_MAX = 16_384
"""Only so much is kept of what nobody waits for: a noisy line and a talkative device never fill the memory."""


class Connection(ABC):
    """What has arrived waits here until it is received or discarded. `lost` says why it does not stand any more."""

    def __init__(self) -> None:
        self.lost = ""
        self._arrived = bytearray()
        self._news = asyncio.Event()

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send all of it; a failure shows as `lost`."""

    @abstractmethod
    def close(self) -> None:
        """Close it at once."""

    async def receive(self) -> bytes:
        """What has arrived, at least one byte. Raises ModbusError `modbus_disconnected`."""
        while not self._arrived:
            if self.lost:
                raise ModbusError("modbus_disconnected", self.lost)
            self._news.clear()
            await self._news.wait()
        data = bytes(self._arrived)
        self._arrived.clear()
        return data

    def discard(self) -> None:
        """Forget what has arrived."""
        self._arrived.clear()

    def take_in(self, data: bytes) -> None:
        """The wire brought this."""
        self._arrived += data
        del self._arrived[:-UNREAD_BYTES_MAX]
        self._news.set()

    def lose(self, why: str) -> None:
        """The wire brings no more."""
        self.lost = self.lost or why
        self._news.set()


class TcpConnection(Connection):
    """A TCP socket."""

    _transport: asyncio.Transport

    @classmethod
    async def open(cls, bus: TcpBus) -> "TcpConnection":
        """Connect. Raises ModbusError `modbus_unreachable`."""
        connection = cls()
        loop = asyncio.get_running_loop()
        try:
            connection._transport, _ = await loop.create_connection(lambda: _Receiver(connection), bus.host, bus.port)
        except OSError as error:
            raise ModbusError("modbus_unreachable", f"nothing answers at {bus.host}:{bus.port}: {error}") from None
        return connection

    def send(self, data: bytes) -> None:
        """Send all of it; a failure shows as `lost`."""
        self._transport.write(data)

    def close(self) -> None:
        """Close it at once."""
        self._transport.abort()
        self.lose("closed")


class _Receiver(asyncio.Protocol):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._connection.take_in(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lose(str(exc) if exc else "the other side hung up")


class SerialConnection(Connection):
    """A serial line, kept for us alone."""

    def __init__(self, port: serial.Serial) -> None:
        super().__init__()
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(port.fileno(), self._readable)

    @classmethod
    async def open(cls, bus: SerialBus) -> "SerialConnection":
        """Open the device. Raises ModbusError `modbus_unreachable`."""
        try:
            port = serial.Serial(
                str(bus.device),
                bus.baud,
                parity=bus.parity,
                stopbits=bus.stop_bits,
                timeout=0,
                exclusive=True,
            )
        except (OSError, ValueError, termios.error) as error:  # a SerialException is an OSError
            raise ModbusError("modbus_unreachable", f"{bus.device} cannot be opened: {error}") from None
        return cls(port)

    def send(self, data: bytes) -> None:
        """Send all of it; a failure shows as `lost`."""
        try:
            written = os.write(self._port.fileno(), data)  # pyserial's own would try a full line for ever
        except BlockingIOError:
            written = 0
        except OSError as error:
            self.lose(str(error))
            return
        if written != len(data):
            self.lose("the serial line takes no more bytes")

    def close(self) -> None:
        """Close it at once."""
        if self._port.is_open:
            self._stop_reading()
            with suppress(termios.error):  # a device that is gone has nothing left to say
                termios.tcflush(self._port.fileno(), termios.TCOFLUSH)  # else closing waits for a line that is stuck
            self._port.close()
        self.lose("closed")

    def _readable(self) -> None:
        try:
            data, why = os.read(self._port.fileno(), CHUNK_BYTES), "the serial device is gone"
        except BlockingIOError:
            return
        except OSError as error:
            data, why = b"", str(error)
        if data:
            self.take_in(data)
        else:
            self._stop_reading()
            self.lose(why)

    def _stop_reading(self) -> None:
        with suppress(RuntimeError):  # its loop may have ended before us
            self._loop.remove_reader(self._port.fileno())


async def open_connection(bus: TcpBus | SerialBus) -> Connection:
    """Connect to a bus. Raises ModbusError `modbus_unreachable`."""
    return await (SerialConnection.open(bus) if isinstance(bus, SerialBus) else TcpConnection.open(bus))
