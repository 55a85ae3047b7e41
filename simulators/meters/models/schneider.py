"""Schneider Electric iEM3155, of the iEM3000 series, as in its user manual (DOCA0005), register list.

Function 3. The list numbers registers from 1: register 3204 is address 3203 on the wire. Energy is a 64-bit whole
number of watt-hours; power is kilowatts in a float. What the list does not name cannot be read.
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
    serial_number,
    text_words,
    u32_words,
)

KW = Fraction(1_000)
RANGES = (
    (29, 49),
    (49, 69),
    (69, 89),
    (129, 131),
    (2999, 3005),
    (3009, 3011),
    (3019, 3033),
    (3035, 3037),
    (3053, 3061),
    (3067, 3069),
    (3075, 3077),
    (3083, 3085),
    (3109, 3111),
    (3203, 3211),
    (3219, 3227),
    (3255, 3259),
    (3517, 3529),
    (45099, 45109),
)


def _constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {
        29: text_words("Energy Meter", 20),
        49: text_words("iEM3155", 20),
        69: text_words("Schneider Electric", 20),
        129: u32_words(serial_number(unit, seed)),
    }


IEM3000 = Model(
    "schneider_iem3000",
    "Schneider Electric iEM3100 / iEM3200 / iEM3300 series user manual DOCA0005EN, Modbus register list",
    3,
    (
        Table(
            (READ_HOLDING,),
            125,
            RANGES,
            (
                *by_phase(2999, "f32", "current"),
                Point(3009, "f32", "current_average"),
                *by_phase(3019, "f32", "voltage_between_phases"),
                Point(3025, "f32", "voltage_between_phases"),
                *by_phase(3027, "f32", "voltage"),
                Point(3035, "f32", "voltage"),
                *by_phase(3053, "f32", "power", KW),
                Point(3059, "f32", "power", unit=KW),
                Point(3075, "f32", "apparent", unit=KW),
                Point(3083, "f32", "power_factor"),
                Point(3109, "f32", "frequency"),
                Point(3203, "i64", "import"),
                Point(3207, "i64", "export"),
                Point(3255, "i64", "import_since_partial_reset"),
                *by_phase(3517, "i64", "import"),
                Point(45099, "f32", "import"),
                Point(45101, "f32", "export"),
                Point(45107, "f32", "import_since_partial_reset"),
            ),
            _constants,
            split_refused=True,
        ),
    ),
)
