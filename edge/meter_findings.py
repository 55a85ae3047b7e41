"""What the doctor says of the meters: buses, identity, every register, and what does not look right. Pure but for
reading them once.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from edge.bus_budget import budget_of, check_budget, check_parameters, check_units, describe
from edge.bus_settings import BusSettings, MeterSettings, PulseBus
from edge.errors import RegisterError
from edge.poll import PLAUSIBLE, RawRegisters, energy_registers, wanted_registers
from edge.register import UNIT_SCALES, Register, exact_value, quantum, scaled_value, swapped_words
from edge.settings import Settings

ENERGY_SUSPICIOUS_WH = 10**10
"""Ten gigawatt-hours: no display of a household's meter has so many digits."""
ENERGY_TINY_WH = Fraction(1, 1000)
"""A counter is zero or has counted something."""


@dataclass(frozen=True)
class RegisterLine:
    """One register as it was read, and the least it can change by. `problem` says why it is not believed, if so."""

    role: str
    unit: int
    quantity: str
    address: int
    raw: bytes
    value: Fraction | None
    value_unit: str
    step: Fraction
    step_unit: str
    problem: str


def explain_bus(bus: BusSettings, interval_s: int) -> str:
    """What a poll of the bus takes. Raises SettingsError `bus_…` if that cannot work."""
    if isinstance(bus, PulseBus):
        return f"S0 on line {bus.line} of {bus.chip}, {bus.impulses_per_kwh} impulses per kWh"
    check_units(bus)
    check_parameters(bus)
    check_budget(bus, interval_s)
    return f"{describe(bus, budget_of(bus))}, of {interval_s} s"


def explain_identities(settings: Settings) -> str:
    """Which meters have proved that they are what their map is for; call after they have."""
    modbus = [meter for meter in settings.meters if meter.register_map.registers_per_read_max]
    proved = [meter for meter in modbus if meter.register_map.identity is not None]
    silent = [meter for meter in modbus if meter.register_map.identity is None]
    said = [f"unit {meter.unit} is a {meter.register_map.model}" for meter in proved]
    return "; ".join([*said, *(f"unit {meter.unit}: this model cannot be told apart" for meter in silent)])


def explain_registers(settings: Settings, raw: RawRegisters) -> list[RegisterLine]:
    """Each register's bytes and what they are, believable or not."""
    return [
        _explain(meter, register, raw[meter.role, register.quantity])
        for meter in settings.meters
        for register in wanted_registers(meter)
    ]


def _explain(meter: MeterSettings, register: Register, data: bytes) -> RegisterLine:
    value, step, problem = None, Fraction(0), ""
    try:
        value, step = exact_value(register, data), quantum(register, data)
        if value < 0 and register.quantity != "power":
            problem = "negative"
        elif register.quantity in PLAUSIBLE:
            least, most = PLAUSIBLE[register.quantity]
            if not least <= value * UNIT_SCALES[register.unit] <= most:
                problem = "no grid has that"
    except RegisterError as error:
        problem = "not a number" if error.code == "register_not_a_number" else "no value"
    is_energy, unit = register.quantity.startswith("energy"), register.unit
    return RegisterLine(
        meter.role,
        meter.unit,
        register.quantity,
        register.address,
        data,
        value,
        unit,
        step if is_energy else step / UNIT_SCALES[unit],
        "Wh" if is_energy else unit,
        problem,
    )


def register_quantum_wh(settings: Settings, raw: RawRegisters) -> int:
    """The step that registration should be told: the coarsest of the energy registers. Raises RegisterError."""
    steps = [
        quantum(register, raw[role, register.quantity]) for role, register in energy_registers(settings.meters).values()
    ]
    return max(1, ceil(max(steps)))


def explain_phases(settings: Settings) -> str:
    """Whether import on one phase and export on another cancel out in the registers."""
    apart = [meter for meter in settings.meters if not meter.register_map.phases_netted]
    if not apart:
        return "netted"
    names = ", ".join(f"{meter.role} ({meter.register_map.map_id})" for meter in apart)
    return f"summed one by one: {names}; the community decides whether such a meter's surplus is minted"


def word_order_suspicions(settings: Settings, raw: RawRegisters) -> list[RegisterError]:
    """Energy registers that no meter can show as they are read, but could with their words the other way round."""
    found = []
    for role, register in energy_registers(settings.meters).values():
        data = raw[role, register.quantity]
        number, rest = data[: 2 * register.count], data[2 * register.count :]
        if _is_plausible(register, data) or not _is_plausible(register, swapped_words(number) + rest):
            continue
        other = "little" if register.word_order == "big" else "big"
        why = f"{role} {register.quantity} reads {data.hex()}: with word_order = {other!r} it would be a likely number"
        found.append(RegisterError("word_order_suspicious", why))
    return found


def _is_plausible(register: Register, data: bytes) -> bool:
    try:
        scaled_value(register, data)
        energy_wh = exact_value(register, data) * UNIT_SCALES.get(register.unit, 1)
    except RegisterError:
        return False
    return energy_wh == 0 or ENERGY_TINY_WH <= energy_wh <= ENERGY_SUSPICIOUS_WH
