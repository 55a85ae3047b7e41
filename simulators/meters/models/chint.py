"""CHINT DTSU666, as in its user manual, table of Modbus addresses.

Function 3, big-endian floats. 0x2000 to 0x2005 are the voltages between phases; those against neutral follow at
0x2006. Measured values come in tenths, hundredths and thousandths; energy in kilowatt-hours with two decimals.
"""

from collections.abc import Mapping
from fractions import Fraction

from simulators.meters.registers import READ_HOLDING, Model, Point, Table, Words, by_phase

TENTH, HUNDREDTH, THOUSANDTH, KWH = Fraction(1, 10), Fraction(1, 100), Fraction(1, 1_000), Fraction(1_000)
TWO_DECIMALS_WH = 10
SOFTWARE_VERSION, PROGRAMMING_CODE = 204, 701


def _constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {0x0000: (SOFTWARE_VERSION, PROGRAMMING_CODE), 0x0006: (1, 10), 0x002C: (3, 3, unit)}


def _energy(address: int, quantity: str) -> tuple[Point, ...]:
    return tuple(Point(address + 2 * phase, "f32", quantity, phase, KWH, step_wh=TWO_DECIMALS_WH) for phase in range(4))


DTSU666 = Model(
    "chint_dtsu666",
    "CHINT DTSU666/DSSU666 user manual, Modbus address table",
    3,
    (
        Table(
            (READ_HOLDING,),
            125,
            ((0x0000, 0x000D), (0x002C, 0x002F), (0x101E, 0x1032), (0x2000, 0x2052)),
            (
                *_energy(0x101E, "import"),
                Point(0x1026, "f32", "import", unit=KWH, step_wh=TWO_DECIMALS_WH),
                *_energy(0x1028, "export"),
                Point(0x1030, "f32", "export", unit=KWH, step_wh=TWO_DECIMALS_WH),
                *by_phase(0x2000, "f32", "voltage_between_phases", TENTH),
                *by_phase(0x2006, "f32", "voltage", TENTH),
                *by_phase(0x200C, "f32", "current", THOUSANDTH),
                Point(0x2012, "f32", "power", unit=TENTH),
                *by_phase(0x2014, "f32", "power", TENTH),
                Point(0x202A, "f32", "power_factor", unit=THOUSANDTH),
                *by_phase(0x202C, "f32", "power_factor", THOUSANDTH),
                Point(0x2044, "f32", "frequency", unit=HUNDREDTH),
                Point(0x2050, "f32", "power_import", unit=TENTH),
            ),
            _constants,
        ),
    ),
)
