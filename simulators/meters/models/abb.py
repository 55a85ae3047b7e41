"""ABB B23 (Bronze: active energy in both directions), as in the B23/B24 user manual, mapping tables.

Function 3, big-endian integers: energy in 64 bits of 10 Wh, power in 0.01 W. A quantity that this grade of the
meter does not measure reads as all ones (unsigned) or the largest number (signed).
"""

from collections.abc import Mapping
from fractions import Fraction

from simulators.meters.registers import (
    READ_HOLDING,
    UNAVAILABLE,
    WORDS,
    Model,
    Point,
    Table,
    Words,
    by_phase,
    serial_number,
    text_words,
    u32_words,
)

TENTH, HUNDREDTH, THOUSANDTH, HUNDREDTH_KWH = Fraction(1, 10), Fraction(1, 100), Fraction(1, 1_000), Fraction(10)
RANGES = (
    *((0x5000, 0x5024), (0x5460, 0x5484), (0x5B00, 0x5B3E)),
    *((0x8900, 0x8902), (0x8908, 0x8910), (0x8960, 0x8966)),
)


def _unavailable(address: int, *formats: str) -> tuple[Point, ...]:
    """Quantities of a better grade, one after the other."""
    points = []
    for number_format in formats:
        width = 2 * WORDS[number_format]
        pattern = b"\xff" * width if number_format[0] == "u" else b"\x7f" + b"\xff" * (width - 1)
        points.append(Point(address, number_format, UNAVAILABLE, unavailable=pattern))
        address += WORDS[number_format]
    return tuple(points)


def _constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {
        0x8900: u32_words(serial_number(unit, seed)),
        0x8908: text_words("B1.27.0", 8),
        0x8960: text_words("B23 112-100", 6),
    }


B23 = Model(
    "abb_b23",
    "ABB B23/B24 user manual 2CMC485003M0201, section 9.3",
    3,
    (
        Table(
            (READ_HOLDING,),
            125,
            (
                (0x5000, 0x5024),
                (0x5460, 0x5484),
                (0x5B00, 0x5B3E),
                (0x8900, 0x8902),
                (0x8908, 0x8910),
                (0x8960, 0x8966),
            ),
            (
                Point(0x5000, "u64", "import", unit=HUNDREDTH_KWH),
                Point(0x5004, "u64", "export", unit=HUNDREDTH_KWH),
                Point(0x5008, "i64", "import_less_export", unit=HUNDREDTH_KWH),
                *_unavailable(0x500C, "u64", "u64", "i64", "u64", "u64", "i64"),
                *by_phase(0x5460, "u64", "import", HUNDREDTH_KWH),
                *by_phase(0x546C, "u64", "export", HUNDREDTH_KWH),
                *by_phase(0x5478, "i64", "import_less_export", HUNDREDTH_KWH),
                *by_phase(0x5B00, "u32", "voltage", TENTH),
                *by_phase(0x5B06, "u32", "voltage_between_phases", TENTH),
                *by_phase(0x5B0C, "u32", "current", HUNDREDTH),
                *_unavailable(0x5B12, "u32"),
                Point(0x5B14, "i32", "power", unit=HUNDREDTH),
                *by_phase(0x5B16, "i32", "power", HUNDREDTH),
                *_unavailable(0x5B1C, "i32", "i32", "i32", "i32"),
                *_unavailable(0x5B24, "i32", "i32", "i32", "i32"),
                Point(0x5B2C, "u16", "frequency", unit=HUNDREDTH),
                *_unavailable(0x5B2D, *("i16",) * 13),
                Point(0x5B3A, "i16", "power_factor", unit=THOUSANDTH),
                *by_phase(0x5B3B, "i16", "power_factor", THOUSANDTH),
            ),
            _constants,
        ),
    ),
)
