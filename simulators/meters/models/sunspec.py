"""SunSpec meters: the marker at 40000, the common model, one meter model, the end; offsets as the alliance publishes.

201 to 204 are integers with scale factors, 211 to 214 floats, 701 the DER model with 64-bit energy. The four of a
family differ in how the mains are wired, not in where a value is. Function 3; nothing lies beyond the end marker.
"""

from collections.abc import Mapping
from fractions import Fraction

from simulators.meters.registers import (
    READ_HOLDING,
    UNAVAILABLE,
    Constants,
    Model,
    Point,
    Table,
    Words,
    by_phase,
    serial_number,
    text_words,
)

BASE = 40_000
COMMON_LENGTH, INTEGER_LENGTH, FLOAT_LENGTH, DER_LENGTH = 66, 105, 124, 153
METER = BASE + 2 + 2 + COMMON_LENGTH
"""Address of the meter model's own id, from which the offsets below count."""
END = 0xFFFF
NOT_IMPLEMENTED = {"i16": b"\x80\x00", "u16": b"\xff\xff", "f32": b"\x7f\xc0\0\0", "u32": b"\0\0\0\0"}
"""What stands where there is no value; u32 is an accumulator, whose zero means the same."""
ENERGY_SCALE_FACTOR = {201: 0, 202: 1, 203: 1, 204: 2, 701: 0}
"""Powers of ten of Wh, different from model to model, as from vendor to vendor."""


def _signed(number: int) -> int:
    return number & 0xFFFF


def _not_implemented(*offsets: int) -> tuple[Point, ...]:
    return tuple(Point(METER + offset, "i16", UNAVAILABLE, unavailable=NOT_IMPLEMENTED["i16"]) for offset in offsets)


def _with_phases(
    offset: int, number_format: str, quantity: str, unit: Fraction = Fraction(1), step: int = 1
) -> tuple[Point, ...]:
    """A quantity of all phases, then of each."""
    absent = NOT_IMPLEMENTED[number_format]
    return tuple(
        Point(METER + offset + step * phase, number_format, quantity, phase, unit, unavailable=absent)
        for phase in range(4)
    )


def _integer_points(scale_factor: int) -> tuple[Point, ...]:
    energy = Fraction(10**scale_factor)
    return (
        *_with_phases(2, "i16", "current", Fraction(1, 100)),
        *_with_phases(7, "i16", "voltage", Fraction(1, 10)),
        Point(METER + 11, "i16", "voltage_between_phases", 0, Fraction(1, 10)),
        *by_phase(METER + 12, "i16", "voltage_between_phases", Fraction(1, 10), unavailable=NOT_IMPLEMENTED["i16"]),
        Point(METER + 16, "i16", "frequency", 0, Fraction(1, 100)),
        *_with_phases(18, "i16", "power"),
        *_with_phases(23, "i16", "apparent"),
        *_not_implemented(28, 29, 30, 31, 32),
        *_with_phases(33, "i16", "power_factor", Fraction(1, 100)),
        *_with_phases(38, "u32", "export", energy, 2),
        *_with_phases(46, "u32", "import", energy, 2),
        *_not_implemented(71, 104),
    )


def _float_points() -> tuple[Point, ...]:
    return (
        *_with_phases(2, "f32", "current", step=2),
        *_with_phases(10, "f32", "voltage", step=2),
        *_with_phases(18, "f32", "voltage_between_phases", step=2),
        Point(METER + 26, "f32", "frequency"),
        *_with_phases(28, "f32", "power", step=2),
        *_with_phases(36, "f32", "apparent", step=2),
        *_with_phases(52, "f32", "power_factor", step=2),
        *_with_phases(60, "f32", "export", step=2),
        *_with_phases(68, "f32", "import", step=2),
    )


def _der_phase(phase: int) -> tuple[Point, ...]:
    first = METER + 41 + 23 * (phase - 1)
    return (
        Point(first, "i16", "power_injected", phase),
        Point(first + 1, "i16", "apparent", phase),
        Point(first + 4, "i16", "current", phase, Fraction(1, 100)),
        Point(first + 5, "u16", "voltage_between_phases", phase, Fraction(1, 10)),
        Point(first + 6, "u16", "voltage", phase, Fraction(1, 10)),
        Point(first + 7, "u64", "injected", phase),
        Point(first + 11, "u64", "absorbed", phase),
    )


def _der_points() -> tuple[Point, ...]:
    return (
        Point(METER + 10, "i16", "power_injected"),
        Point(METER + 11, "i16", "apparent"),
        *_not_implemented(12, 13),
        Point(METER + 14, "i16", "current", 0, Fraction(1, 100)),
        Point(METER + 15, "u16", "voltage_between_phases", 0, Fraction(1, 10)),
        Point(METER + 16, "u16", "voltage", 0, Fraction(1, 10)),
        Point(METER + 17, "u32", "frequency", 0, Fraction(1, 100)),
        Point(METER + 19, "u64", "injected"),
        Point(METER + 23, "u64", "absorbed"),
        *_not_implemented(*range(35, 41)),
        *(point for phase in (1, 2, 3) for point in _der_phase(phase)),
        Point(METER + 110, "u16", UNAVAILABLE, unavailable=NOT_IMPLEMENTED["u16"]),
        *_not_implemented(122),
    )


def _scale_factors(model: int) -> Mapping[int, Words]:
    """By offset: of current, voltage, frequency, powers, power factor and energy; of 701 also its state."""
    if model in (211, 212, 213, 214):
        return {}
    energy = _signed(ENERGY_SCALE_FACTOR[model])
    if model == 701:
        return {2: (2, 1), 113: (_signed(-2), _signed(-1), _signed(-2), 0, _signed(-2), 0, 0, energy, 0)}
    return {6: (_signed(-2),), 15: (_signed(-1),), 17: (_signed(-2),), 22: (0,), 27: (0,), 37: (0,), 54: (energy,)}


def _constants(model: int, length: int) -> Constants:
    def constants(unit: int, seed: int) -> Mapping[int, Words]:
        return {
            BASE: text_words("SunS", 2),
            BASE + 2: (1, COMMON_LENGTH),
            BASE + 4: text_words("Simulated Meters", 16),
            BASE + 20: text_words(f"M{model}", 16),
            BASE + 44: text_words("1.0", 8),
            BASE + 52: text_words(str(serial_number(unit, seed)), 16),
            BASE + 68: (unit, 0x8000),
            METER: (model, length),
            **{METER + offset: words for offset, words in _scale_factors(model).items()},
            METER + 2 + length: (END, 0),
        }

    return constants


def _meter(model: int, phases: int, length: int, points: tuple[Point, ...]) -> Model:
    ranges = ((BASE, METER + 2 + length + 2),)
    table = Table((READ_HOLDING,), 125, ranges, points, _constants(model, length))
    return Model(f"sunspec_{model}", f"SunSpec information model {model}", phases, (table,))


MODELS = (
    *(
        _meter(model, phases, INTEGER_LENGTH, _integer_points(ENERGY_SCALE_FACTOR[model]))
        for model, phases in ((201, 1), (202, 2), (203, 3), (204, 3))
    ),
    *(
        _meter(model, phases, FLOAT_LENGTH, _float_points())
        for model, phases in ((211, 1), (212, 2), (213, 3), (214, 3))
    ),
    _meter(701, 3, DER_LENGTH, _der_points()),
)
