"""Eastron SDM120, SDM220, SDM230, SDM72D-M and SDM630 (V2), as in the maker's Modbus protocol documents.

Input registers (function 4) hold big-endian 32-bit floats over two registers; the meter counts whole watt-hours and
shows them as kilowatt-hours in that float, so a register beyond 16 MWh can no longer name every watt-hour. Half a
float is an illegal data address; reserved slots inside a block read as zero. The SDM72D-M lists single parameters
and no blocks. Settings are holding registers (function 3), each read whole and alone.
"""

from collections.abc import Mapping
from fractions import Fraction

from simulators.meters.registers import (
    READ_HOLDING,
    READ_INPUT,
    Model,
    Point,
    Table,
    Words,
    by_phase,
    float_words,
    serial_number,
    u32_words,
)

KWH = Fraction(1_000)
FORTY_PARAMETERS, THIRTY_PARAMETERS = 80, 60
SETTINGS = {0x0002: 60.0, 0x000A: 3.0, 0x000C: 60.0, 0x0012: 0.0, 0x001C: 2.0}
"""Demand period, system type (3: three phases), pulse width, parity, baud rate."""
NODE_ADDRESS, SERIAL_NUMBER, METER_CODE, SOFTWARE_VERSION = 0x0014, 0xFC00, 0xFC02, 0xFC03


def _float(address: int, quantity: str, unit: Fraction = Fraction(1), phase: int = 0) -> Point:
    return Point(address, "f32", quantity, phase, unit)


def _with_reserved_slots(ranges: tuple[tuple[int, int], ...], points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Every slot of two registers is a parameter; those that the document leaves out are zero."""
    named = {point.address for point in points}
    slots = (address for first, end in ranges for address in range(first, end, 2))
    return (*points, *(_float(address, "zero") for address in slots if address not in named))


def _inputs(ranges: tuple[tuple[int, int], ...], registers_max: int, points: tuple[Point, ...]) -> Table:
    return Table((READ_INPUT,), registers_max, ranges, _with_reserved_slots(ranges, points), split_refused=True)


def _settings(meter_code: int) -> Table:
    def constants(unit: int, seed: int) -> Mapping[int, Words]:
        return {
            **{address: float_words(value) for address, value in SETTINGS.items()},
            NODE_ADDRESS: float_words(float(unit)),
            SERIAL_NUMBER: u32_words(serial_number(unit, seed)),
            METER_CODE: (meter_code,),
            SOFTWARE_VERSION: (0x0112,),
        }

    ranges = tuple((address, address + len(words)) for address, words in constants(0, 0).items())
    return Table((READ_HOLDING,), 2, ranges, (), constants)


ENERGY = (
    _float(0x48, "import", KWH),
    _float(0x4A, "export", KWH),
    _float(0x156, "import_and_export", KWH),
)
ONE_PHASE = (
    *ENERGY,
    _float(0x00, "voltage"),
    _float(0x06, "current"),
    _float(0x0C, "power"),
    _float(0x12, "apparent"),
    _float(0x1E, "power_factor"),
    _float(0x46, "frequency"),
)
THREE_PHASES = (
    *ENERGY,
    *by_phase(0x00, "f32", "voltage"),
    *by_phase(0x06, "f32", "current"),
    *by_phase(0x0C, "f32", "power"),
    *by_phase(0x12, "f32", "apparent"),
    *by_phase(0x1E, "f32", "power_factor"),
    _float(0x2A, "voltage"),
    _float(0x2E, "current_average"),
    _float(0x30, "current"),
    _float(0x34, "power"),
    _float(0x38, "apparent"),
    _float(0x3E, "power_factor"),
    _float(0x46, "frequency"),
    _float(0x54, "power"),
    *by_phase(0xC8, "f32", "voltage_between_phases"),
    _float(0xCE, "voltage_between_phases"),
    *by_phase(0x15A, "f32", "import", KWH),
    *by_phase(0x160, "f32", "export", KWH),
    *by_phase(0x166, "f32", "import_and_export", KWH),
)
SDM72D_POINTS = (
    *ENERGY,
    _float(0x34, "power"),
    _float(0x180, "import_since_partial_reset", KWH),
    _float(0x184, "import_since_partial_reset", KWH),
    _float(0x186, "zero"),
    _float(0x500, "power_import"),
    _float(0x502, "power_export"),
)
ONE_PHASE_BLOCKS = ((0x00, 0x26), (0x46, 0x60), (0x102, 0x10A), (0x156, 0x15A))

SDM120 = Model(
    "eastron_sdm120",
    "Eastron SDM120-Modbus, smart meter Modbus protocol implementation",
    1,
    (_inputs(ONE_PHASE_BLOCKS, FORTY_PARAMETERS, ONE_PHASE), _settings(0x0020)),
)
SDM220 = Model(
    "eastron_sdm220",
    "Eastron SDM220-Modbus, user manual, register list",
    1,
    (_inputs(((0x00, 0x26), (0x46, 0x50), (0x156, 0x15A)), THIRTY_PARAMETERS, ONE_PHASE), _settings(0x0028)),
)
SDM230 = Model(
    "eastron_sdm230",
    "Eastron SDM230-Modbus, smart meter Modbus protocol implementation",
    1,
    (_inputs(ONE_PHASE_BLOCKS, FORTY_PARAMETERS, ONE_PHASE), _settings(0x002B)),
)
SDM72D_M = Model(
    "eastron_sdm72d_m",
    "Eastron SDM72D-M user manual V1.5, part 3",
    3,
    (
        _inputs(
            ((0x34, 0x36), (0x48, 0x4C), (0x156, 0x158), (0x180, 0x182), (0x184, 0x188), (0x500, 0x504)),
            THIRTY_PARAMETERS,
            SDM72D_POINTS,
        ),
        _settings(0x0084),
    ),
)
SDM630 = Model(
    "eastron_sdm630",
    "Eastron SDM630-Modbus V2, smart meter Modbus protocol implementation",
    3,
    (
        _inputs(((0x0000, 0x006C), (0x00C8, 0x010E), (0x014E, 0x017E)), FORTY_PARAMETERS, THREE_PHASES),
        _settings(0x0070),
    ),
)
MODELS = (SDM120, SDM220, SDM230, SDM72D_M, SDM630)
