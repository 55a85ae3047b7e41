"""Janitza UMG 604 / 605 / 96, as in the Modbus address list's "frequently required readings" from 19000.

Functions 3 and 4, big-endian floats in V, A, W and Wh. 19060 is the balance of both directions; consumed energy is
at 19068, delivered energy at 19076.
"""

from simulators.meters.registers import READ_HOLDING, READ_INPUT, Model, Point, Table, by_phase


def _with_total(address: int, quantity: str) -> tuple[Point, ...]:
    return (*by_phase(address, "f32", quantity), Point(address + 6, "f32", quantity))


UMG = Model(
    "janitza_umg",
    "Janitza UMG 604/605/96-PA Modbus address list, frequently required readings",
    3,
    (
        Table(
            (READ_HOLDING, READ_INPUT),
            125,
            ((19_000, 19_122),),
            (
                *by_phase(19_000, "f32", "voltage"),
                *by_phase(19_006, "f32", "voltage_between_phases"),
                *by_phase(19_012, "f32", "current"),
                *_with_total(19_020, "power"),
                *_with_total(19_028, "apparent"),
                *by_phase(19_044, "f32", "power_factor"),
                Point(19_050, "f32", "frequency"),
                *_with_total(19_054, "import_less_export"),
                *_with_total(19_062, "import"),
                *_with_total(19_070, "export"),
            ),
        ),
    ),
)
