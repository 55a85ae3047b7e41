"""Siemens SENTRON PAC2200, as in its equipment manual (L1V30415167B), section A.1.

Functions 3 and 4 read the same registers at the offsets of the manual: floats, and energy as doubles of watt-hours
per tariff. That they overflow at 10¹² was read in the manuals of PAC3120/3220 and PAC4220, whose table is the same. A
read that begins or ends within a value is an error. All energy runs on tariff 1.
"""

from simulators.meters.registers import READ_HOLDING, READ_INPUT, Model, Point, Table, by_phase

OVERFLOW_WH = 10**12


def _energy(offset: int, quantity: str) -> Point:
    return Point(offset, "f64", quantity, modulus=OVERFLOW_WH)


PAC2200 = Model(
    "siemens_pac2200",
    "Siemens SENTRON PAC2200 equipment manual L1V30415167B-03, A.1 Modbus TCP",
    3,
    (
        Table(
            (READ_HOLDING, READ_INPUT),
            125,
            ((1, 71), (801, 841)),
            (
                *by_phase(1, "f32", "voltage"),
                *by_phase(7, "f32", "voltage_between_phases"),
                *by_phase(13, "f32", "current"),
                *by_phase(19, "f32", "apparent"),
                *by_phase(25, "f32", "power"),
                *by_phase(31, "f32", "zero"),
                *by_phase(37, "f32", "power_factor"),
                *(Point(offset, "f32", "zero") for offset in range(43, 55, 2)),
                Point(55, "f32", "frequency"),
                Point(57, "f32", "voltage"),
                Point(59, "f32", "voltage_between_phases"),
                Point(61, "f32", "current_average"),
                Point(63, "f32", "apparent"),
                Point(65, "f32", "power"),
                Point(67, "f32", "zero"),
                Point(69, "f32", "power_factor"),
                _energy(801, "import"),
                _energy(809, "export"),
                *(_energy(offset, "zero") for offset in (805, *range(813, 841, 4))),
            ),
            split_refused=True,
        ),
    ),
)
