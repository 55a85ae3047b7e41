"""The input registers of an Eastron SDM630 (V2), as in the maker's Modbus protocol document.

Every parameter is a big-endian 32-bit float over two registers. The meter counts whole watt-hours and shows
them as kilowatt-hours in that float, so a register beyond 16 MWh can no longer name every watt-hour.
Reserved slots inside its three blocks read as zero; anything beside them, or half a float, is an illegal
data address.
"""

import math
import struct

from simulators.meters.energy import Energy

BLOCKS = ((0x0000, 0x006C), (0x00C8, 0x010E), (0x014E, 0x017E))
"""First register and the one after the last."""
REGISTERS_PER_READ_MAX = 80
"""The document: forty parameters at most."""

NOMINAL_V = 230.0
NOMINAL_HZ = 50.0

SETTINGS = {0x0002: 60.0, 0x000A: 3.0, 0x000C: 60.0, 0x0012: 0.0, 0x001C: 2.0}
"""Holding registers: demand period, system type (3: three phases), pulse width, parity, baud rate."""
NODE_ADDRESS = 0x0014
SERIAL_NUMBER = 0xFC00
"""Holding registers: an unsigned 32-bit integer, unlike all the rest."""


def readable(address: int, count: int) -> bool:
    """Whether the meter answers a read of so many input registers from this address."""
    if address % 2 or count % 2:
        return False
    return any(first <= address and address + count <= end for first, end in BLOCKS)


def input_registers(import_wh: int, export_wh: int, power_w: int, time_unix_s: int, seed: int) -> dict[int, float]:
    """All non-zero parameters by address, in V, A, W, VA, Hz, degrees and kWh. Import is positive power."""
    wobble = math.sin(time_unix_s / 97 + seed)
    volts = [NOMINAL_V + 1.5 * math.sin(time_unix_s / 311 + seed + phase) for phase in range(3)]
    phase_w = power_w / 3
    amperes = [abs(phase_w) / volt for volt in volts]
    factor = math.copysign(1.0, power_w)
    values = {
        0x2A: sum(volts) / 3,
        0x2E: sum(amperes) / 3,
        0x30: sum(amperes),
        0x34: float(power_w),
        0x38: float(abs(power_w)),
        0x3E: factor,
        0x46: NOMINAL_HZ + 0.03 * wobble,
        0x48: import_wh / 1_000,
        0x4A: export_wh / 1_000,
        0x54: float(power_w),
        0xCE: sum(volts) / 3 * math.sqrt(3),
        0x156: (import_wh + export_wh) / 1_000,
    }
    for phase in range(3):
        step = 2 * phase
        values[0x00 + step] = volts[phase]
        values[0x06 + step] = amperes[phase]
        values[0x0C + step] = phase_w
        values[0x12 + step] = abs(phase_w)
        values[0x1E + step] = factor
        values[0xC8 + step] = volts[phase] * math.sqrt(3)
        values[0x15A + step] = import_wh / 3_000
        values[0x160 + step] = export_wh / 3_000
        values[0x166 + step] = (import_wh + export_wh) / 3_000
    return values


def read_input(values: dict[int, float], address: int, count: int) -> list[int]:
    """The registers asked for; the caller has checked `readable`."""
    return [word for slot in range(address, address + count, 2) for word in _float_words(values.get(slot, 0.0))]


def holding_registers(unit: int, seed: int) -> dict[int, list[int]]:
    """The settings of a meter: two registers each, by address."""
    registers = {address: _float_words(value) for address, value in SETTINGS.items()}
    registers[NODE_ADDRESS] = _float_words(float(unit))
    serial = (20_000_000 + seed * 256 + unit) & 0xFFFFFFFF
    registers[SERIAL_NUMBER] = [serial >> 16, serial & 0xFFFF]
    return registers


def grid_meter(energy: Energy, time_unix_s: int, seed: int) -> dict[int, float]:
    """What the meter at the grid connection shows."""
    return input_registers(energy.import_wh, energy.export_wh, energy.grid_power_w, time_unix_s, seed)


def generation_meter(energy: Energy, time_unix_s: int, seed: int) -> dict[int, float]:
    """What the meter of the panels shows: wired so that generation counts as import, and so as total."""
    return input_registers(energy.generation_wh, 0, energy.generation_power_w, time_unix_s, seed)


def _float_words(value: float) -> list[int]:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return [high, low]
