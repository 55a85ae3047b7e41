"""Reading the meters of a home over Modbus TCP. Bytes only: what they mean is decided elsewhere."""

import logging
import struct

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from edge.errors import ModbusError
from edge.poll import RawRegisters, wanted_registers
from edge.register_map import Block, plan_blocks
from edge.settings import ModbusSettings

LABORATORY_CLOCK_REGISTER = 0
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # each failure is reported once, by us, with its name


class HomeReader:
    """One connection to the meters of a home. After a failure the next read starts with a new connection."""

    def __init__(self, settings: ModbusSettings) -> None:
        self._settings = settings
        self._client: AsyncModbusTcpClient | None = None
        self._plan = [
            (meter, registers, plan_blocks(registers, map_.registers_per_read_max, map_.gap_registers_max))
            for meter in settings.meters
            for map_ in [meter.register_map]
            for registers in [wanted_registers(meter)]
        ]

    @property
    def time_max_s(self) -> int:
        """How long one `read` can take: a connection and each block at the end of its patience."""
        return self._settings.timeout_s * (1 + sum(len(blocks) for _, _, blocks in self._plan))

    async def read(self) -> RawRegisters:
        """Every wanted register of every meter, as near to the same instant as the bus allows.

        Raises ModbusError `modbus_…`.
        """
        raw: dict[tuple[str, str], bytes] = {}
        for meter, registers, blocks in self._plan:
            memory: dict[tuple[int, int], bytes] = {}
            for block in blocks:
                words = await self._read_block(meter.unit, block)
                memory.update(
                    ((block.function_code, block.address + i), words[2 * i : 2 * i + 2]) for i in range(block.count)
                )
            for register in registers:
                raw[meter.role, register.quantity] = b"".join(
                    memory[register.function_code, register.address + i] for i in range(register.count)
                )
        return raw

    async def set_laboratory_time(self, unit: int, time_unix_s: int) -> None:
        """Tell a simulated home that it is that time; 0: follow the real clock. Raises ModbusError."""
        words = struct.unpack(">4H", time_unix_s.to_bytes(8, "big"))
        client = await self._connected()
        try:
            response = await client.write_registers(LABORATORY_CLOCK_REGISTER, list(words), device_id=unit)
        except (ModbusException, OSError) as error:
            raise self._failed("modbus_no_answer", f"unit {unit}: {error}") from None
        if response.isError():
            raise self._failed("modbus_exception", f"unit {unit} has no laboratory clock: {response}")

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _connected(self) -> AsyncModbusTcpClient:
        if self._client is not None and not self._client.connected:
            self.close()  # gateways hang up on a silent line: that is no failure
        if self._client is None:
            settings = self._settings
            client = AsyncModbusTcpClient(
                settings.host, port=settings.port, timeout=settings.timeout_s, retries=0, reconnect_delay=0
            )
            self._client = client
            if not await client.connect():
                raise self._failed("modbus_unreachable", f"nothing answers at {settings.host}:{settings.port}")
        return self._client

    async def _read_block(self, unit: int, block: Block) -> bytes:
        client = await self._connected()
        read = client.read_holding_registers if block.function_code == 3 else client.read_input_registers
        what = f"unit {unit}, {block.count} registers from 0x{block.address:02x}"
        try:
            response = await read(block.address, count=block.count, device_id=unit)
        except (ModbusException, OSError) as error:
            raise self._failed("modbus_no_answer", f"{what}: {error}") from None
        if response.isError():
            raise self._failed("modbus_exception", f"{what}: {response}")
        if len(response.registers) != block.count:
            raise self._failed("modbus_short_answer", f"{what}: {len(response.registers)} came")
        return struct.pack(f">{block.count}H", *response.registers)

    def _failed(self, code: str, detail: str) -> ModbusError:
        self.close()
        return ModbusError(code, detail)
