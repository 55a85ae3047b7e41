"""One poll of a home: which registers of its meters to read, and what their bytes say. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from edge.bus_settings import MeterSettings
from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT
from edge.errors import RegisterError
from edge.register_map import Register, quantum, scaled_value, swapped_words
from protocol.limits import FREQUENCY_MHZ_MAX, POWER_W_ABS_MAX, VOLTAGE_DV_MAX

RawRegisters = Mapping[tuple[str, str], bytes]
"""The bytes of each register, by the meter's role and the quantity."""

REGISTER_WORD_ORDER = "register_word_order"
PLAUSIBLE = {"voltage": (500, 5_000), "frequency": (40_000, 70_000)}
"""What a low-voltage grid can be, in tenths of a volt and thousandths of a hertz, generously."""
COARSE_WH = 10
"""A register whose step grows is too coarse beyond this: a quarter of an hour of an ordinary load is a few such steps.
A step that is always the same is the meter's own, and chosen with it."""


@dataclass(frozen=True)
class Poll:
    """What the meters said at one instant: energy registers by name in Wh, and the optional columns.

    `powers_w` is each meter's own power by its role. `quanta_wh` is the step that each energy register makes at
    its present value, and `coarse` names those that have grown too wide.
    """

    registers_wh: Mapping[str, int]
    power_w: int | None = None
    voltage_dv: int | None = None
    frequency_mhz: int | None = None
    powers_w: Mapping[str, int] = field(default_factory=dict)
    quanta_wh: Mapping[str, Fraction] = field(default_factory=dict)
    coarse: tuple[str, ...] = ()


def wanted_registers(meter: MeterSettings) -> list[Register]:
    """What to read of a meter: its energy, its power if the map has it (it witnesses the energy), and at the grid
    connection the other optional columns."""
    quantities = ["energy_import", "energy_export", "power", "voltage", "frequency"]
    if meter.role == "generation":
        quantities = [f"energy_{meter.energy}", "power"]
    known = meter.register_map.registers
    return [known[quantity] for quantity in quantities if quantity in known]


def energy_registers(meters: Sequence[MeterSettings]) -> dict[str, tuple[str, Register]]:
    """The energy registers of a home by name, each with the role of its meter."""
    found: dict[str, tuple[str, Register]] = {}
    for meter in meters:
        known = meter.register_map.registers
        if meter.role == "generation":
            found[GENERATION] = meter.role, known[f"energy_{meter.energy}"]
        else:
            found[GRID_IMPORT] = meter.role, known["energy_import"]
            found[GRID_EXPORT] = meter.role, known["energy_export"]
    return found


def moduli_wh(meters: Sequence[MeterSettings]) -> dict[str, int | None]:
    """Where each energy register starts again from zero, if its map says so."""
    return {name: register.modulus_scaled for name, (_, register) in energy_registers(meters).items()}


def read_poll(meters: Sequence[MeterSettings], raw: RawRegisters) -> Poll:
    """What the bytes mean. Raises RegisterError for energy that no meter can mean, and `register_word_order` when
    voltage or frequency make sense only with their words exchanged: the energy beside them is then nonsense too.

    An optional value that no grid has (or no number at all) is left out: it is never worth losing energy for.
    """
    grid = next(meter for meter in meters if meter.role == "grid")
    voltage_dv = _ordered(grid, raw, "voltage", VOLTAGE_DV_MAX)
    frequency_mhz = _ordered(grid, raw, "frequency", FREQUENCY_MHZ_MAX)
    registers_wh: dict[str, int] = {}
    quanta_wh: dict[str, Fraction] = {}
    coarse = []
    for name, (role, register) in energy_registers(meters).items():
        data = raw[role, register.quantity]
        registers_wh[name] = scaled_value(register, data)
        quanta_wh[name] = quantum(register, data)
        if quanta_wh[name] > COARSE_WH and register.quantum is None:
            coarse.append(name)
    powers_w = {}
    for meter in meters:
        power_w = _optional(meter, raw, "power", -POWER_W_ABS_MAX, POWER_W_ABS_MAX)
        if power_w is not None:
            powers_w[meter.role] = power_w
    return Poll(
        registers_wh,
        powers_w.get(grid.role),
        voltage_dv,
        frequency_mhz,
        powers_w,
        quanta_wh,
        tuple(coarse),
    )


def swapped_registers_wh(meters: Sequence[MeterSettings], raw: RawRegisters) -> dict[str, int]:
    """The energy registers as they would be with their words exchanged; those that would be no energy are left out."""
    found = {}
    for name, (role, register) in energy_registers(meters).items():
        value = _find_value(register, _swapped(register, raw[role, register.quantity]))
        if value is not None:
            found[name] = value
    return found


def _ordered(meter: MeterSettings, raw: RawRegisters, quantity: str, high: int) -> int | None:
    value = _optional(meter, raw, quantity, 0, high)
    plausible_min, plausible_max = PLAUSIBLE[quantity]
    register = meter.register_map.registers.get(quantity)
    if register is None or register.count == 1 or (value is not None and plausible_min <= value <= plausible_max):
        return value
    data = raw[meter.role, quantity]
    swapped = _find_value(register, _swapped(register, data))
    if swapped is not None and plausible_min <= swapped <= plausible_max:
        raise RegisterError(REGISTER_WORD_ORDER, f"{quantity} reads {data.hex()}: {swapped} with its words exchanged")
    return value


def _optional(meter: MeterSettings, raw: RawRegisters, quantity: str, low: int, high: int) -> int | None:
    register = meter.register_map.registers.get(quantity)
    if register is None:
        return None
    value = _find_value(register, raw[meter.role, quantity])
    return value if value is not None and low <= value <= high else None


def _find_value(register: Register, data: bytes) -> int | None:
    try:
        return scaled_value(register, data)
    except RegisterError:
        return None


def _swapped(register: Register, data: bytes) -> bytes:
    """The number's words exchanged; a scale factor after them stays."""
    end = 2 * register.count
    return swapped_words(data[:end]) + data[end:]
