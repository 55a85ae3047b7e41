"""What a meter measures at an instant, before any model rounds it, scales it and puts it into registers.

Energy is whole watt-hours; volts, amperes and hertz only have to look alive. Import and positive power flow into
the home. A generation meter is wired so that generation counts as import.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from simulators.meters.energy import Energy

NOMINAL_V = 230.0
NOMINAL_HZ = 50.0
PARTIAL_RESET_AT_WH = 40_000
"""The trip counter that some meters have beside the total was last reset when the total stood here."""


@dataclass(frozen=True)
class Measured:
    """One meter at one instant. `seed` only varies the wobble of voltage and frequency."""

    import_wh: int
    export_wh: int
    power_w: int
    time_unix_s: int
    seed: int
    is_generation: bool = False

    def value(self, quantity: str, phase: int, phases: int) -> float:
        """A quantity of QUANTITIES, of phase 1 to `phases` or (0) of all; energies are exact integers."""
        return QUANTITIES[quantity](self, phase, phases)


def grid_meter(energy: Energy, time_unix_s: int, seed: int) -> Measured:
    """What the meter at the grid connection measures."""
    return Measured(energy.import_wh, energy.export_wh, energy.grid_power_w, time_unix_s, seed)


def generation_meter(energy: Energy, time_unix_s: int, seed: int) -> Measured:
    """What the meter of the panels measures."""
    return Measured(energy.generation_wh, 0, energy.generation_power_w, time_unix_s, seed, is_generation=True)


def _share_wh(energy_wh: int, phase: int, phases: int) -> int:
    """A phase's part of an energy; the parts add up to it, to the watt-hour."""
    return (energy_wh + phase - 1) // phases if phase else energy_wh


def _volt(measured: Measured, phase: int, phases: int) -> float:
    if not phase:
        return sum(_volt(measured, each, phases) for each in range(1, phases + 1)) / phases
    return NOMINAL_V + 1.5 * math.sin(measured.time_unix_s / 311 + measured.seed + phase - 1)


def _watt(measured: Measured, phase: int, phases: int) -> float:
    return measured.power_w / phases if phase else float(measured.power_w)


def _ampere(measured: Measured, phase: int, phases: int) -> float:
    if not phase:
        return sum(_ampere(measured, each, phases) for each in range(1, phases + 1))
    return abs(_watt(measured, phase, phases)) / _volt(measured, phase, phases)


def _injected_wh(measured: Measured) -> int:
    """What a generator, or a home, has given away: the DER models count from its side of the terminals."""
    return measured.import_wh if measured.is_generation else measured.export_wh


def _absorbed_wh(measured: Measured) -> int:
    return measured.export_wh if measured.is_generation else measured.import_wh


Quantity = Callable[[Measured, int, int], float]

QUANTITIES: dict[str, Quantity] = {
    "import": lambda m, phase, phases: _share_wh(m.import_wh, phase, phases),
    "export": lambda m, phase, phases: _share_wh(m.export_wh, phase, phases),
    "import_and_export": lambda m, phase, phases: (
        _share_wh(m.import_wh, phase, phases) + _share_wh(m.export_wh, phase, phases)
    ),
    "import_less_export": lambda m, phase, phases: (
        _share_wh(m.import_wh, phase, phases) - _share_wh(m.export_wh, phase, phases)
    ),
    "import_since_partial_reset": lambda m, phase, phases: max(0, m.import_wh - PARTIAL_RESET_AT_WH),
    "injected": lambda m, phase, phases: _share_wh(_injected_wh(m), phase, phases),
    "absorbed": lambda m, phase, phases: _share_wh(_absorbed_wh(m), phase, phases),
    "power": _watt,
    "power_injected": lambda m, phase, phases: _watt(m, phase, phases) * (1 if m.is_generation else -1),
    "power_export_less_import": lambda m, phase, phases: -_watt(m, phase, phases),
    "power_import": lambda m, phase, phases: max(0.0, _watt(m, phase, phases)),
    "power_export": lambda m, phase, phases: max(0.0, -_watt(m, phase, phases)),
    "apparent": lambda m, phase, phases: abs(_watt(m, phase, phases)),
    "voltage": _volt,
    "voltage_between_phases": lambda m, phase, phases: _volt(m, phase, phases) * math.sqrt(3),
    "current": _ampere,
    "current_average": lambda m, phase, phases: _ampere(m, 0, phases) / phases,
    "power_factor": lambda m, phase, phases: math.copysign(1.0, m.power_w),
    "frequency": lambda m, phase, phases: NOMINAL_HZ + 0.03 * math.sin(m.time_unix_s / 97 + m.seed),
    "time": lambda m, phase, phases: m.time_unix_s,
    "zero": lambda m, phase, phases: 0,
}
