"""Reading all meters of a home as near to the same instant as its buses allow. Bytes only: what they mean is decided
elsewhere.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from edge.bus_settings import BusSettings, PulseBus
from edge.errors import ModbusError
from edge.modbus_bus import ModbusBus
from edge.poll import RawRegisters, wanted_registers
from edge.pulse_input import PulseInput

T = TypeVar("T")
LABORATORY_CLOCK_REGISTER = 0


class HomeReader:
    """The buses of a home. They are read at the same time, the meters of each one after the other.

    Without `keeps_count` the count of pulses is not written to the disk: only for looking.
    """

    def __init__(self, buses: Sequence[BusSettings], *, keeps_count: bool = True) -> None:
        self._modbus = [ModbusBus(bus) for bus in buses if not isinstance(bus, PulseBus)]
        self._pulses = [PulseInput(bus, keeps_count=keeps_count) for bus in buses if isinstance(bus, PulseBus)]
        self._parts: list[ModbusBus | PulseInput] = [*self._modbus, *self._pulses]

    @property
    def time_max_s(self) -> int:
        """How long one `read` can take at most."""
        return max((bus.time_max_s for bus in self._modbus), default=1)

    @property
    def counts(self) -> Counter[str]:
        """What went wrong so far, retried or not, by name."""
        return sum((part.counts for part in self._parts), Counter())

    @property
    def problems(self) -> set[str]:
        """What the last reading must be held against, although it could be taken: `pulses_unobserved`."""
        return {problem for pulses in self._pulses for problem in pulses.problems}

    async def read(self) -> RawRegisters:
        """Every wanted register of every meter, by role and quantity.

        Raises ModbusError `modbus_…`, `meter_is_another` or `pulse…`; a bus ends its poll at its first failure, since
        without one meter nothing can be said of the home.
        """
        raw: dict[tuple[str, str], bytes] = {}
        for part in await _all([*map(_read_modbus, self._modbus), *map(_read_pulses, self._pulses)]):
            raw.update(part)
        return raw

    async def check_identities(self) -> None:
        """Raises ModbusError `meter_is_another` if a meter is not the one that its map is for."""
        await _all([bus.check_identities() for bus in self._modbus])

    async def set_laboratory_time(self, unit: int, time_unix_s: int) -> None:
        """Tell a simulated home, on all its buses, that it is that time; 0: follow the real clock.

        Raises ModbusError.
        """
        words = time_unix_s.to_bytes(8, "big")
        await _all([bus.write(unit, LABORATORY_CLOCK_REGISTER, words) for bus in self._modbus])

    def close(self) -> None:
        """Close all connections."""
        for part in self._parts:
            part.close()


async def _read_modbus(bus: ModbusBus) -> dict[tuple[str, str], bytes]:
    memory: dict[tuple[int, int, int], bytes] = {}
    for (unit, block), words in (await bus.read()).items():
        memory.update(
            ((unit, block.function_code, block.address + i), words[2 * i : 2 * i + 2]) for i in range(block.count)
        )
    return {
        (meter.role, register.quantity): b"".join(
            memory[meter.unit, function_code, address + i]
            for function_code, address, count in register.spans
            for i in range(count)
        )
        for meter in bus.meters
        for register in wanted_registers(meter)
    }


async def _read_pulses(pulses: PulseInput) -> dict[tuple[str, str], bytes]:
    return {
        (meter.role, register.quantity): await pulses.read()
        for meter in pulses.meters
        for register in wanted_registers(meter)
    }


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, each left to end in its own time; then the first failure is raised, naming the others."""
    results = await asyncio.gather(*work, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if not failures:
        return [result for result in results if not isinstance(result, BaseException)]
    for failure in failures:
        if not isinstance(failure, ModbusError):
            raise failure
    first = failures[0]
    assert isinstance(first, ModbusError)
    raise ModbusError(first.code, "; ".join([first.detail, *map(str, failures[1:])]))
