"""Carlo Gavazzi EM24-DIN (RS-485), EM24_E1 (Ethernet) and EM340, as in the maker's communication protocols.

Functions 3 and 4 read the same registers: signed 32-bit numbers, least significant word first, in steps of 100 Wh.
The two EM24 share a name and little else: 0x42 is the resettable partial counter of the one and phase 2 of the
other. The identification code is at 0x0B, read as one word alone, in the midst of a voltage. An EM24-DIN whose version
or application has no export counters answers their addresses, the last of its table, with an exception.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from simulators.meters.registers import (
    READ_HOLDING,
    READ_INPUT,
    Model,
    Point,
    Table,
    Words,
    by_phase,
    serial_number,
    text_words,
)

BOTH = (READ_HOLDING, READ_INPUT)
TENTH, THOUSANDTH, TENTH_KWH = Fraction(1, 10), Fraction(1, 1_000), Fraction(100)
ELEVEN, FIFTY = 11, 50
"""Registers in one request: EM24-DIN; EM24_E1 and EM340."""
COUNTER_MODULUS = 1 << 31
"""A counter is never negative, so it ends at the sign."""
IDENTIFICATION, SERIAL_NUMBER, APPLICATION = 0x000B, 0x5000, 0xA000
APPLICATION_H = 7


def _number(address: int, quantity: str, unit: Fraction, phase: int = 0) -> Point:
    return Point(address, "i32", quantity, phase, unit, low_word_first=True)


def _counter(address: int, quantity: str, phase: int = 0) -> Point:
    return Point(address, "i32", quantity, phase, TENTH_KWH, modulus=COUNTER_MODULUS, low_word_first=True)


def _power_factors(address: int) -> tuple[Point, ...]:
    return (
        *(Point(address + index, "i16", "power_factor", index + 1, THOUSANDTH) for index in range(3)),
        Point(address + 3, "i16", "power_factor", 0, THOUSANDTH),
    )


INSTANTANEOUS = (
    *by_phase(0x00, "i32", "voltage", TENTH, low_word_first=True),
    *by_phase(0x06, "i32", "voltage_between_phases", TENTH, low_word_first=True),
    *by_phase(0x0C, "i32", "current", THOUSANDTH, low_word_first=True),
    *by_phase(0x12, "i32", "power", TENTH, low_word_first=True),
    *by_phase(0x18, "i32", "apparent", TENTH, low_word_first=True),
    _number(0x24, "voltage", TENTH),
    _number(0x26, "voltage_between_phases", TENTH),
    _number(0x28, "power", TENTH),
    _number(0x2A, "apparent", TENTH),
)
EM24_DIN = Table(
    BOTH,
    ELEVEN,
    ((0x00, 0x60),),
    (
        *INSTANTANEOUS,
        _number(0x2E, "power", TENTH),
        _number(0x30, "apparent", TENTH),
        *_power_factors(0x32),
        Point(0x37, "i16", "frequency", 0, TENTH),
        _counter(0x3E, "import"),
        _counter(0x42, "import_since_partial_reset"),
        *(_counter(0x46 + 2 * index, "import", index + 1) for index in range(3)),
        _counter(0x4C, "import"),  # tariff 1; the others stand still
        _counter(0x5C, "export"),
    ),
    alone={IDENTIFICATION: 71},
)
NEGATIVE_COUNTERS = 0x5C
EM24_DIN_IMPORT = replace(
    EM24_DIN,
    ranges=((0x00, NEGATIVE_COUNTERS),),
    points=tuple(point for point in EM24_DIN.points if point.address < NEGATIVE_COUNTERS),
)
NEWER = (
    *INSTANTANEOUS,
    *_power_factors(0x2E),
    Point(0x33, "i16", "frequency", 0, TENTH),
    _counter(0x34, "import"),
    _number(0x38, "power", TENTH),
    _counter(0x3C, "import_since_partial_reset"),
    *(_counter(0x40 + 2 * index, "import", index + 1) for index in range(3)),
    _counter(0x46, "import"),  # tariff 1
    _counter(0x4E, "export"),
)


def _newer_constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {SERIAL_NUMBER: text_words(f"CG{serial_number(unit, seed):010d}", 7), APPLICATION: (APPLICATION_H,)}


def _newer(identification: int) -> Table:
    ranges = ((0x00, 0x52), (SERIAL_NUMBER, SERIAL_NUMBER + 7), (APPLICATION, APPLICATION + 1))
    return Table(BOTH, FIFTY, ranges, NEWER, _newer_constants, alone={IDENTIFICATION: identification})


EM24 = Model("carlo_gavazzi_em24", "Carlo Gavazzi EM24-DIN communication protocol V2 R0 and V3 R1", 3, (EM24_DIN,))
EM24_IMPORT = Model(
    "carlo_gavazzi_em24_import",
    "EM24-DIN as above; exception 2 at 0x5C reported in evcc issue 31143",
    3,
    (EM24_DIN_IMPORT,),
)
EM24_E1 = Model(
    "carlo_gavazzi_em24_e1", "Carlo Gavazzi EM24_E1 (Ethernet) communication protocol V0 R1.2", 3, (_newer(1648),)
)
EM340 = Model("carlo_gavazzi_em340", "Carlo Gavazzi EM300/ET300 communication protocol V2 R17", 3, (_newer(340),))
MODELS = (EM24, EM24_IMPORT, EM24_E1, EM340)
