"""One poll of a home: which registers of its meters to read, and what their bytes say. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT
from edge.errors import RegisterError
from edge.register_map import Register, scaled_value
from edge.settings import MeterSettings
from protocol.limits import FREQUENCY_MHZ_MAX, POWER_W_ABS_MAX, VOLTAGE_DV_MAX

RawRegisters = Mapping[tuple[str, str], bytes]
"""The bytes of each register, by the meter's role and the quantity."""


@dataclass(frozen=True)
class Poll:
    """What the meters said at one instant: energy registers by name in Wh, and the optional columns."""

    registers_wh: Mapping[str, int]
    power_w: int | None = None
    voltage_dv: int | None = None
    frequency_mhz: int | None = None


def wanted_registers(meter: MeterSettings) -> list[Register]:
    """What to read of a meter: its energy, and at the grid connection the optional columns that its map has."""
    if meter.role == "generation":
        return [meter.register_map.registers[f"energy_{meter.energy}"]]
    quantities = ("energy_import", "energy_export", "power", "voltage", "frequency")
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
    """What the bytes mean. Raises RegisterError for energy that no meter can mean.

    An optional value that no grid has (or no number at all) is left out: it is never worth losing energy for.
    """
    registers_wh = {
        name: scaled_value(register, raw[role, register.quantity])
        for name, (role, register) in energy_registers(meters).items()
    }
    grid = next(meter for meter in meters if meter.role == "grid")

    def optional(quantity: str, low: int, high: int) -> int | None:
        register = grid.register_map.registers.get(quantity)
        if register is None:
            return None
        try:
            value = scaled_value(register, raw[grid.role, quantity])
        except RegisterError:
            return None
        return value if low <= value <= high else None

    return Poll(
        registers_wh,
        optional("power", -POWER_W_ABS_MAX, POWER_W_ABS_MAX),
        optional("voltage", 0, VOLTAGE_DV_MAX),
        optional("frequency", 0, FREQUENCY_MHZ_MAX),
    )
