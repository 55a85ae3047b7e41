"""Orno OR-WE-516, as in its register description (shared with WE-514, WE-515 and WE-517).

Function 3, big-endian floats: power in kilowatts with three decimals, energy in kilowatt-hours with two.
"""

from collections.abc import Mapping
from fractions import Fraction

from simulators.meters.registers import (
    READ_HOLDING,
    Model,
    Point,
    Table,
    Words,
    by_phase,
    float_words,
    serial_number,
    u32_words,
)

KILO = Fraction(1_000)
TWO_DECIMALS_WH = 10
BAUD_RATE, COMBINED_CODE = 9_600, 5


def _constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {
        0x0000: u32_words(serial_number(unit, seed)),
        0x0002: (unit, BAUD_RATE),
        0x0004: float_words(1.12),
        0x0006: float_words(2.0),
        0x0009: float_words(1_000.0),
        0x000B: (COMBINED_CODE,),
        0x000D: (5,),
    }


def _energy(address: int, quantity: str) -> tuple[Point, ...]:
    """Of all phases, then of each."""
    return tuple(
        Point(address + 2 * phase, "f32", quantity, phase, KILO, step_wh=TWO_DECIMALS_WH) for phase in range(4)
    )


WE516 = Model(
    "orno_we516",
    "Orno OR-WE-514/515/516/517 register description",
    3,
    (
        Table(
            (READ_HOLDING,),
            125,
            ((0x0000, 0x003C), (0x0100, 0x0160)),
            (
                *by_phase(0x0E, "f32", "voltage"),
                Point(0x14, "f32", "frequency"),
                *by_phase(0x16, "f32", "current"),
                Point(0x1C, "f32", "power", unit=KILO),
                *by_phase(0x1E, "f32", "power", KILO),
                Point(0x2C, "f32", "apparent", unit=KILO),
                *by_phase(0x2E, "f32", "apparent", KILO),
                Point(0x34, "f32", "power_factor"),
                *by_phase(0x36, "f32", "power_factor"),
                *_energy(0x0100, "import_and_export"),
                *_energy(0x0108, "import"),
                *_energy(0x0110, "export"),
                # tariff 1 of 4, total, forward and reverse; the others stand still
                Point(0x0130, "f32", "import_and_export", unit=KILO, step_wh=TWO_DECIMALS_WH),
                Point(0x0132, "f32", "import", unit=KILO, step_wh=TWO_DECIMALS_WH),
                Point(0x0134, "f32", "export", unit=KILO, step_wh=TWO_DECIMALS_WH),
            ),
            _constants,
        ),
    ),
)
