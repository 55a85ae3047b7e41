"""Huawei EMMA, an energy manager with a meter of its own, as published lists of its Modbus interface have it.

Function 3, big-endian: energy in 64 bits of 10 Wh, power in watts. Of the built-in meter "positive" is drawn from
the grid and "negative" fed into it; the names have misled others. Its "total active energy" is left out: whether that
is a sum or a balance no list says. The manager counts both directions once more, and its feed-in power has the other
sign. What the lists leave out cannot be read.
"""

from collections.abc import Mapping
from fractions import Fraction

from simulators.meters.registers import READ_HOLDING, Model, Point, Table, Words, by_phase, text_words

TENTH, HUNDREDTH, THOUSANDTH, HUNDREDTH_KWH = Fraction(1, 10), Fraction(1, 100), Fraction(1, 1_000), Fraction(10)
MODEL_NAME = 30_222


def _constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {MODEL_NAME: text_words("EMMA-A02", 20)}


EMMA = Model(
    "huawei_emma",
    "Huawei EMMA Modbus interface, as listed by integrators (huawei-solar-lib, evcc, openWB)",
    3,
    (
        Table(
            (READ_HOLDING,),
            125,
            (
                (MODEL_NAME, MODEL_NAME + 20),
                (30_332, 30_336),
                (30_338, 30_342),
                (30_358, 30_360),
                (31_639, 31_659),
                (31_661, 31_671),
                (31_679, 31_683),
                (31_687, 31_691),
            ),
            (
                Point(30_332, "u64", "export", unit=HUNDREDTH_KWH),
                Point(30_338, "u64", "import", unit=HUNDREDTH_KWH),
                Point(30_358, "i32", "power_export_less_import"),
                *by_phase(31_639, "u32", "voltage", HUNDREDTH),
                *by_phase(31_645, "u32", "voltage_between_phases", HUNDREDTH),
                *by_phase(31_651, "i32", "current", TENTH),
                Point(31_657, "i32", "power"),
                Point(31_661, "i32", "power_factor", unit=THOUSANDTH),
                Point(31_663, "i32", "apparent"),
                *by_phase(31_665, "i32", "power"),
                Point(31_679, "i64", "export", unit=HUNDREDTH_KWH),
                Point(31_687, "i64", "import", unit=HUNDREDTH_KWH),
            ),
            _constants,
        ),
    ),
)
