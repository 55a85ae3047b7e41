"""Shelly Pro 3EM, as in the Gen2 API documentation, Modbus registers of the components EM and EMData.

Input registers (function 4): the documentation counts from 30000, so 31162 is address 1162 on the wire. Floats come
least significant word first, as its own examples read them. Energy is in watt-hours, each phase beside its own
perpetual count; the totals of all phases are perpetual. What the documentation leaves out cannot be read.
"""

from collections.abc import Mapping

from simulators.meters.registers import READ_INPUT, Model, Point, Table, Words, serial_number, text_words

MAC, MODEL, NAME = 0, 6, 16
EM, EMDATA = 1_000, 1_160
EM_PHASES, EMDATA_PHASES = (1_020, 1_040, 1_060), (1_170, 1_190, 1_210)


def _float(address: int, quantity: str, phase: int = 0) -> Point:
    return Point(address, "f32", quantity, phase, low_word_first=True)


def _timestamp(address: int) -> Point:
    return Point(address, "u32", "time", low_word_first=True)


def _measured(phase: int, first: int) -> tuple[Point, ...]:
    """Of one phase; between power factor and frequency are three error flags."""
    return (
        _float(first, "voltage", phase),
        _float(first + 2, "current", phase),
        _float(first + 4, "power", phase),
        _float(first + 6, "apparent", phase),
        _float(first + 8, "power_factor", phase),
        _float(first + 13, "frequency", phase),
    )


def _counted(phase: int, first: int) -> tuple[Point, ...]:
    """Of one phase: total and fundamental, returned likewise, reactive energies, perpetual counts."""
    return (
        _float(first, "import", phase),
        _float(first + 2, "import", phase),
        _float(first + 4, "export", phase),
        _float(first + 6, "export", phase),
        _float(first + 8, "zero", phase),
        _float(first + 10, "zero", phase),
        _float(first + 12, "import", phase),
        _float(first + 14, "export", phase),
    )


def _constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {
        MAC: text_words(f"{serial_number(unit, seed):012X}", 6),
        MODEL: text_words("SPEM-003CEBEU", 10),
        NAME: text_words("Simulated Pro 3EM", 32),
    }


PRO_3EM = Model(
    "shelly_pro_3em",
    "Shelly Gen2 API documentation, Modbus registers of Modbus, EM and EMData",
    3,
    (
        Table(
            (READ_INPUT,),
            125,
            (
                (MAC, NAME + 32),
                (EM, EM + 17),
                *((first, first + 15) for first in EM_PHASES),
                (EMDATA, EMDATA + 6),
                *((first, first + 16) for first in EMDATA_PHASES),
            ),
            (
                _timestamp(EM),
                _float(EM + 7, "zero"),  # neutral current; before and behind it, flags that stay 0
                _float(EM + 11, "current"),
                _float(EM + 13, "power"),
                _float(EM + 15, "apparent"),
                *(point for phase, first in enumerate(EM_PHASES, 1) for point in _measured(phase, first)),
                _timestamp(EMDATA),
                _float(EMDATA + 2, "import"),
                _float(EMDATA + 4, "export"),
                *(point for phase, first in enumerate(EMDATA_PHASES, 1) for point in _counted(phase, first)),
            ),
            _constants,
        ),
    ),
)
