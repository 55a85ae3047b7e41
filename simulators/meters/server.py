"""Serves simulated homes over Modbus TCP: framing by pymodbus, answers by the register map and the energy.

Unit 1 is the grid meter, unit 2 the generation meter, unit 247 the laboratory clock of the home: a 64-bit
number of unix seconds over holding registers 0 to 3, big-endian. While it is not 0, every register of that
home answers as of that instant.
"""

import asyncio
import json
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pymodbus.constants import ExcCodes
from pymodbus.datastore import ModbusServerContext
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
)
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from protocol.limits import TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from simulators.meters import sdm630
from simulators.meters.configuration import Configuration, Home

HOST = "127.0.0.1"
GRID_UNIT, GENERATION_UNIT, CLOCK_UNIT = 1, 2, 247
ANY_UNIT = 0
"""pymodbus: the device that stands for all."""
CLOCK_REGISTERS = 4
READ_COUNT_MAX, WRITE_COUNT_MAX = 125, 123
"""Of the Modbus specification, for any device."""

READ_HOLDING, READ_INPUT, WRITE_HOLDING = 3, 4, 16
UNSUPPORTED_FUNCTIONS = (1, 2, 5, 6, 15, 20, 21, 22, 23, 24)
"""What pymodbus would otherwise answer from memory."""

Words = list[int]


@dataclass(frozen=True)
class Request:
    """A Modbus request for so many registers; `words` only if it writes them."""

    function: int
    address: int
    count: int
    words: Words | None


Answer = Callable[[Request], Words | ExcCodes]
"""Of one unit: the words read (of a write: anything), or the exception to answer."""


class HomeServer:
    """One home on one port. `now_unix_s` is the real clock."""

    def __init__(self, home: Home, now_unix_s: Callable[[], int]) -> None:
        self.home = home
        self._now_unix_s = now_unix_s
        self._clock_unix_s = 0
        self._server: ModbusTcpServer | None = None

    async def start(self) -> int:
        """Listen and return the port. Raises OSError if the configured port is taken."""
        units: dict[int, Answer] = {GRID_UNIT: self._grid_meter, CLOCK_UNIT: self._clock}
        if self.home.has_generation_meter:
            units[GENERATION_UNIT] = self._generation_meter
        self._server = ModbusTcpServer(
            SimDevice(ANY_UNIT, simdata=SimData(0, datatype=DataType.INVALID)),
            address=(HOST, self.home.port),
            custom_pdu=_requests(units),
        )
        if not await self._server.listen():
            raise OSError(f"{self.home.home_id}: cannot listen on port {self.home.port}")
        transport = self._server.transport
        if not isinstance(transport, asyncio.Server):
            raise TypeError("pymodbus no longer listens through asyncio.Server")
        port: int = transport.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and drop the connections."""
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]

    def time_unix_s(self) -> int:
        """The instant as of which this home answers."""
        return self._clock_unix_s or self._now_unix_s()

    def _grid_meter(self, request: Request) -> Words | ExcCodes:
        moment = self.time_unix_s()
        values = sdm630.grid_meter(self.home.energy.at(moment), moment, self.home.seed)
        return _meter(request, values, sdm630.holding_registers(GRID_UNIT, self.home.seed))

    def _generation_meter(self, request: Request) -> Words | ExcCodes:
        moment = self.time_unix_s()
        values = sdm630.generation_meter(self.home.energy.at(moment), moment, self.home.seed)
        return _meter(request, values, sdm630.holding_registers(GENERATION_UNIT, self.home.seed))

    def _clock(self, request: Request) -> Words | ExcCodes:
        end = request.address + request.count
        if request.function not in (READ_HOLDING, WRITE_HOLDING):
            return ExcCodes.ILLEGAL_FUNCTION
        if end > CLOCK_REGISTERS or (request.words is not None and request.count != CLOCK_REGISTERS):
            return ExcCodes.ILLEGAL_ADDRESS
        if request.words is not None:
            (moment,) = struct.unpack(">q", struct.pack(">4H", *request.words))
            if moment != 0 and not TIME_MIN_UNIX_S <= moment <= TIME_MAX_UNIX_S:
                return ExcCodes.ILLEGAL_VALUE
            self._clock_unix_s = moment
        registers = struct.unpack(">4H", struct.pack(">q", self._clock_unix_s))
        return list(registers[request.address : end])


def _meter(request: Request, values: dict[int, float], settings: dict[int, Words]) -> Words | ExcCodes:
    if request.function == READ_INPUT:
        if request.count > sdm630.REGISTERS_PER_READ_MAX:
            return ExcCodes.ILLEGAL_VALUE
        if not sdm630.readable(request.address, request.count):
            return ExcCodes.ILLEGAL_ADDRESS
        return sdm630.read_input(values, request.address, request.count)
    if request.function == READ_HOLDING:
        setting = settings.get(request.address, [])
        return setting if len(setting) == request.count else ExcCodes.ILLEGAL_ADDRESS
    return ExcCodes.ILLEGAL_FUNCTION


def _requests(units: Mapping[int, Answer]) -> list[type[ModbusPDU]]:
    """The requests that are answered register by register, by unit; pymodbus knows no such device of its own.

    It would also drop a request for too many registers as undecodable, where a meter answers with exception 3.
    """

    def answer(unit: int, request: Request) -> Words | ExcCodes:
        if unit not in units:
            return ExcCodes.GATEWAY_NO_RESPONSE  # what a gateway says of a unit that is not on its bus
        return units[unit](request)

    class ReadHolding(ReadHoldingRegistersRequest):
        response: type[ModbusPDU] = ReadHoldingRegistersResponse

        def decode(self, data: bytes) -> None:
            self.address, self.count = struct.unpack(">HH", data[:4])

        async def datastore_update(self, context: ModbusServerContext, device_id: int) -> ModbusPDU:
            words: Words | ExcCodes = ExcCodes.ILLEGAL_VALUE
            if 1 <= self.count <= READ_COUNT_MAX:
                words = answer(device_id, Request(self.function_code, self.address, self.count, None))
            if isinstance(words, ExcCodes):
                return ExceptionResponse(self.function_code, words)
            return self.response(registers=words)

    class ReadInput(ReadHolding):
        function_code = READ_INPUT
        response = ReadInputRegistersResponse

    class WriteHolding(WriteMultipleRegistersRequest):
        async def datastore_update(self, context: ModbusServerContext, device_id: int) -> ModbusPDU:
            words: Words | ExcCodes = ExcCodes.ILLEGAL_VALUE
            if 1 <= self.count <= WRITE_COUNT_MAX and len(self.registers) * 2 == self.count * 2 == self.byte_count:
                request = Request(self.function_code, self.address, self.count, list(self.registers))
                words = answer(device_id, request)
            if isinstance(words, ExcCodes):
                return ExceptionResponse(self.function_code, words)
            return WriteMultipleRegistersResponse(address=self.address, count=self.count)

    class Unsupported(ModbusPDU):
        """A function that no meter has."""

        async def datastore_update(self, context: ModbusServerContext, device_id: int) -> ModbusPDU:
            return ExceptionResponse(self.function_code, ExcCodes.ILLEGAL_FUNCTION)

    unsupported = [type(f"Function{code}", (Unsupported,), {"function_code": code}) for code in UNSUPPORTED_FUNCTIONS]
    return [ReadHolding, ReadInput, WriteHolding, *unsupported]


async def serve(configuration: Configuration, now_unix_s: Callable[[], int] = lambda: int(time.time())) -> None:
    """Serve every home until SIGTERM or SIGINT.

    One JSON line {"home": …, "port": …} per home goes to stdout; then the ports file, if any, is written.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    servers: list[HomeServer] = []
    ports: dict[str, int] = {}
    try:
        for home in configuration.homes:
            server = HomeServer(home, now_unix_s)
            servers.append(server)
            ports[home.home_id] = await server.start()
            sys.stdout.write(json.dumps({"home": home.home_id, "port": ports[home.home_id]}) + "\n")
        sys.stdout.flush()
        if configuration.ports_file is not None:
            _write_whole(configuration.ports_file, json.dumps(ports) + "\n")
        await stopping.wait()
    finally:
        for server in servers:
            await server.stop()


def _write_whole(path: Path, text: str) -> None:
    """Whoever waits for the file never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
