"""From registers to the two counters of a home: cumulative production and consumption in watt-hours, never
falling.

Pure. Each energy register is first made continuous (a wrap goes on, a reset adds nothing), then the counters
are formed:

    generation and grid   production = generation     consumption = generation + import − export
    net only              production = export         consumption = import

The registers of two meters are not rounded alike, so generation + import − export may dip by a quantum. The
counter is its running maximum: it waits until the sum has caught up, and then shows exactly that sum. Nothing
is lost or added.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge.errors import RegisterError
from protocol.enrolment import MEASURES_GENERATION_AND_GRID, MEASURES_NET_ONLY
from protocol.limits import ENERGY_WH_MAX

GENERATION = "generation"
GRID_IMPORT = "grid_import"
GRID_EXPORT = "grid_export"
REGISTERS_OF = {
    MEASURES_GENERATION_AND_GRID: (GENERATION, GRID_IMPORT, GRID_EXPORT),
    MEASURES_NET_ONLY: (GRID_IMPORT, GRID_EXPORT),
}
WRAP_MARGIN = 10
"""A fall is a wrap only from the last tenth of the range into the first; otherwise it is a reset."""
JUMP_ALLOWANCE_WH = 1_000
"""What a register may rise at once beside power × time: coarse registers step, and clocks have seconds."""
SECONDS_PER_HOUR = 3_600


@dataclass(frozen=True)
class RegisterState:
    """A register's last value, and what to add to it so that it has been continuous since enrolment."""

    last_wh: int
    offset_wh: int


@dataclass(frozen=True)
class CounterState:
    """Everything that the next poll needs to know of the ones before. Energy in watt-hours."""

    time_unix_s: int
    registers: Mapping[str, RegisterState]
    consumption_base_wh: int
    production_wh: int
    consumption_wh: int


@dataclass(frozen=True)
class Step:
    """The state after one poll, and the registers that had gone backwards."""

    state: CounterState
    resets: tuple[str, ...]


class RegisterFellError(RegisterError):
    """A register went backwards. Read again before believing it: meters say zero while they start."""


def start_counters(measurement: int, registers_wh: Mapping[str, int], time_unix_s: int) -> CounterState:
    """The counters of the first poll: the registers as they are, from which everything is a difference.

    A grid meter older than the generation meter makes the sum negative; the counter then starts at zero.
    """
    registers = {name: RegisterState(registers_wh[name], 0) for name in REGISTERS_OF[measurement]}
    production_wh, consumption_wh = _sums(registers)
    base_wh = max(0, -consumption_wh)
    return _checked(CounterState(time_unix_s, registers, base_wh, production_wh, consumption_wh + base_wh))


def advance_counters(
    state: CounterState,
    registers_wh: Mapping[str, int],
    moduli_wh: Mapping[str, int | None],
    time_unix_s: int,
    power_max_w: int,
    *,
    falls_confirmed: bool,
) -> Step:
    """The counters after the next poll.

    Raises RegisterFellError for a fall that is not `falls_confirmed`, and RegisterError `register_jumped` for
    a rise beyond what `power_max_w` could have moved since the last accepted poll: a glitch once sealed would
    stay for ever.
    """
    elapsed_s = max(0, time_unix_s - state.time_unix_s)
    rise_max_wh = power_max_w * elapsed_s // SECONDS_PER_HOUR + JUMP_ALLOWANCE_WH
    registers: dict[str, RegisterState] = {}
    resets: list[str] = []
    for name, before in state.registers.items():
        now_wh, offset_wh = registers_wh[name], before.offset_wh
        modulus_wh = moduli_wh.get(name)
        if now_wh < before.last_wh:
            if modulus_wh is not None and _wrapped(before.last_wh, now_wh, modulus_wh):
                offset_wh += modulus_wh
            elif falls_confirmed:
                offset_wh += before.last_wh - now_wh
                resets.append(name)
            else:
                raise RegisterFellError("register_fell", f"{name} from {before.last_wh} to {now_wh} Wh")
        rise_wh = now_wh + offset_wh - before.last_wh - before.offset_wh
        if rise_wh > rise_max_wh:
            raise RegisterError("register_jumped", f"{name} by {rise_wh} Wh in {elapsed_s} s")
        registers[name] = RegisterState(now_wh, offset_wh)
    production_wh, consumption_wh = _sums(registers)
    after = CounterState(
        time_unix_s,
        registers,
        state.consumption_base_wh,
        max(state.production_wh, production_wh),
        max(state.consumption_wh, consumption_wh + state.consumption_base_wh),
    )
    return Step(_checked(after), tuple(resets))


def _wrapped(before_wh: int, now_wh: int, modulus_wh: int) -> bool:
    margin_wh = modulus_wh // WRAP_MARGIN
    return before_wh < modulus_wh and before_wh >= modulus_wh - margin_wh and now_wh < margin_wh


def _sums(registers: Mapping[str, RegisterState]) -> tuple[int, int]:
    total = {name: register.last_wh + register.offset_wh for name, register in registers.items()}
    if GENERATION in total:
        return total[GENERATION], total[GENERATION] + total[GRID_IMPORT] - total[GRID_EXPORT]
    return total[GRID_EXPORT], total[GRID_IMPORT]


def _checked(state: CounterState) -> CounterState:
    for counter_wh in (state.production_wh, state.consumption_wh):
        if counter_wh > ENERGY_WH_MAX:
            raise RegisterError("register_range", f"{counter_wh} Wh is beyond any meter")
    return state
