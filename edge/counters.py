"""From registers to the two counters of a home: cumulative production and consumption in watt-hours, never
falling.

Pure. Each energy register is first made continuous (a wrap goes on, a reset adds nothing; `edge.believing` says
what is believed), then the counters are formed:

    generation and grid   production = generation     consumption = generation + import − export
    net only              production = export         consumption = import

The registers of two meters are not rounded alike, so generation + import − export may dip by a quantum. The
counter is its running maximum: it waits until the sum has caught up, and then shows exactly that sum. Nothing
is lost or added.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from edge.believing import RegisterState, Verdict, judge_register, rebased, shifted
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


@dataclass(frozen=True)
class CounterState:
    """Everything that the next poll needs to know of the ones before. Energy in watt-hours."""

    time_unix_s: int
    registers: Mapping[str, RegisterState]
    consumption_base_wh: int
    production_wh: int
    consumption_wh: int
    swapped: bool = False
    """A person has accepted other registers since the last reading."""
    frozen_wh: Mapping[str, int] = field(default_factory=dict)
    """The registers that stand still although energy passes, and where: nothing is believed until they move."""


@dataclass(frozen=True)
class Step:
    """The state after one poll, to be journaled; the registers that were reset or wrapped; or why the poll is not
    believed.

    After a refused poll the counters are as they were; the state only remembers what was suspicious.
    """

    state: CounterState
    resets: tuple[str, ...] = ()
    refused: RegisterError | None = None
    wraps: tuple[str, ...] = ()


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
) -> Step:
    """The counters after the next poll, or unchanged with the reason if a register is not believed.

    A poll is believed whole or not at all: the counters of a home are sums over its registers.
    """
    verdicts = judge_registers(state, registers_wh, moduli_wh, time_unix_s, power_max_w)
    refusals = [(name, verdict) for name, verdict in verdicts.items() if verdict.refused]
    if refusals:
        name, verdict = min(refusals, key=lambda refusal: refusal[1].refused)
        before_wh = state.registers[name].last_wh
        why = f"{name} from {before_wh} to {registers_wh[name]} Wh in {time_unix_s - state.time_unix_s} s"
        suspected = {
            name: verdicts[name].register if verdicts[name].refused else _unsuspected(before, registers_wh[name])
            for name, before in state.registers.items()
        }
        return Step(replace(state, registers=suspected), refused=RegisterError(verdict.refused, why))
    registers = {name: verdict.register for name, verdict in verdicts.items()}
    resets = tuple(name for name, verdict in verdicts.items() if verdict.reset)
    wraps = tuple(name for name, verdict in verdicts.items() if verdict.wrapped)
    counted = _counted(replace(state, time_unix_s=time_unix_s, registers=registers, swapped=False))
    return Step(counted, resets, wraps=wraps)


def judge_registers(
    state: CounterState,
    registers_wh: Mapping[str, int],
    moduli_wh: Mapping[str, int | None],
    time_unix_s: int,
    power_max_w: int,
) -> dict[str, Verdict]:
    """What to think of each register of a poll."""
    return {
        name: judge_register(
            before, registers_wh[name], moduli_wh.get(name), state.time_unix_s, time_unix_s, power_max_w
        )
        for name, before in state.registers.items()
    }


def accept_registers(
    state: CounterState, registers_wh: Mapping[str, int], names: Collection[str], time_unix_s: int
) -> CounterState:
    """Go on from these registers as they are now, because a person says so. Their change is not energy."""
    registers = {
        name: rebased(before, registers_wh[name]) if name in names else before
        for name, before in state.registers.items()
    }
    return _counted(replace(state, time_unix_s=max(time_unix_s, state.time_unix_s), registers=registers, swapped=True))


def shift_time(state: CounterState, by_s: int) -> CounterState:
    """The state as the same device remembers it after its clock was set by so many seconds: durations stay true.

    Forward, nobody knows whether the clock was wrong or the device stood still, as a paused virtual machine does:
    the energy may then have taken all that time to pass.
    """
    registers = {name: shifted(register, by_s) for name, register in state.registers.items()}
    return replace(state, time_unix_s=state.time_unix_s + min(0, by_s), registers=registers)


def _unsuspected(before: RegisterState, now_wh: int) -> RegisterState:
    return before if now_wh < before.last_wh else replace(before, fall=None)


def _counted(state: CounterState) -> CounterState:
    production_wh, consumption_wh = _sums(state.registers)
    return _checked(
        replace(
            state,
            production_wh=max(state.production_wh, production_wh),
            consumption_wh=max(state.consumption_wh, consumption_wh + state.consumption_base_wh),
        )
    )


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
