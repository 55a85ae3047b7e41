"""How long a bus needs for one reading, reckoned from what goes over the wire; a plan that does not fit is refused.
Pure.

A reading is so many polls of every meter, so that nothing is believed that was seen once. It fits its interval if it
ends before the next is due even when one request needs all its retries.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from edge.bus_settings import BusSettings, MeterSettings, PulseBus, SerialBus, TcpBus
from edge.confirming import READS_PER_READING
from edge.errors import SettingsError
from edge.poll import wanted_registers
from edge.register import Block, plan_blocks

REQUEST_CHARACTERS = 8
ANSWER_OVERHEAD_CHARACTERS = 5
SILENCE_CHARACTERS = 3.5
SILENCE_BAUD_MAX = 19_200
SILENCE_ABOVE_S = 0.00175
"""Of the serial line specification: above that baud rate the silence between frames is fixed."""
TURNAROUND_S = 0.05
"""What a meter takes to begin its answer; some take less, few more."""
TCP_ANSWER_S = 0.1
"""What a Modbus TCP meter or gateway takes to answer."""
GATEWAY_BAUD = 9_600
"""Behind a gateway we cannot see the line; this is how they are delivered."""
BAUD_RATES = (1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200)


@dataclass(frozen=True)
class Line:
    """How fast characters pass a serial line, and how long it must be silent between them."""

    character_s: float
    pause_s: float

    @property
    def silence_s(self) -> float:
        """Between an answer and the next request."""
        return max(self.pause_s, SILENCE_CHARACTERS * self.character_s, SILENCE_ABOVE_S)


def line_of(bus: TcpBus | SerialBus) -> Line | None:
    """The serial line of a bus; None if there is none to be reckoned with."""
    if isinstance(bus, SerialBus):
        bits = 1 + 8 + (bus.parity != "N") + bus.stop_bits
        return Line(bits / bus.baud, bus.pause_ms / 1000)
    return Line(10 / GATEWAY_BAUD, bus.pause_ms / 1000) if bus.framing == "rtu" else None


def block_s(bus: TcpBus | SerialBus, block: Block) -> float:
    """How long one read takes that is answered at once, the silence before it included."""
    line = line_of(bus)
    if line is None:
        return TCP_ANSWER_S
    characters = REQUEST_CHARACTERS + ANSWER_OVERHEAD_CHARACTERS + 2 * block.count
    return line.silence_s + characters * line.character_s + TURNAROUND_S


def meter_blocks(meter: MeterSettings) -> list[Block]:
    """The reads that fetch what is wanted of a meter."""
    map_ = meter.register_map
    return plan_blocks(wanted_registers(meter), map_.registers_per_read_max, map_.gap_registers_max)


@dataclass(frozen=True)
class Budget:
    """What one poll of a bus takes (all its reads), and one read that needs all its retries on top of a reading."""

    reads: int
    registers: int
    poll_s: float
    retries_s: float

    @property
    def needed_s(self) -> float:
        """What must fit between two readings."""
        return READS_PER_READING * self.poll_s + self.retries_s


def budget_of(bus: TcpBus | SerialBus) -> Budget:
    """What a poll of this bus takes."""
    blocks = [block for meter in bus.meters for block in meter_blocks(meter)]
    times_s = [block_s(bus, block) for block in blocks]
    # A retry is two requests: one to come into step again, one to ask again.
    retry_s = bus.timeout_s + 2 * max(times_s, default=0.0)
    return Budget(len(blocks), sum(block.count for block in blocks), sum(times_s), bus.retries * retry_s)


def shortest_interval_s(buses: Sequence[BusSettings]) -> int:
    """The shortest reading interval that all buses can keep."""
    return max((ceil(budget_of(bus).needed_s) for bus in buses if not isinstance(bus, PulseBus)), default=1)


def check_buses(buses: Sequence[BusSettings], interval_s: int) -> None:
    """Refuse what cannot work. Raises SettingsError `bus_…` with the figures, and what would fit."""
    modbus = [bus for bus in buses if not isinstance(bus, PulseBus)]
    ends = Counter(_end(bus) for bus in modbus)
    for bus in modbus:
        if ends[_end(bus)] > 1:
            raise SettingsError("bus_doubled", f"{bus.name}: {_end(bus)} is another bus already; list its meters there")
        check_units(bus)
        check_parameters(bus)
        check_budget(bus, interval_s)


def check_units(bus: TcpBus | SerialBus) -> None:
    """Raises SettingsError `bus_unit_doubled`."""
    for unit, times in Counter(meter.unit for meter in bus.meters).items():
        if times > 1:
            why = f"{bus.name}: {times} meters have unit {unit}; both would answer at once"
            raise SettingsError("bus_unit_doubled", why)


def check_parameters(bus: TcpBus | SerialBus) -> None:
    """Raises SettingsError `bus_parameters_unsupported` if a meter cannot talk as the line is set."""
    if not isinstance(bus, SerialBus):
        return
    for meter in bus.meters:
        map_ = meter.register_map
        where = f"{bus.name}: unit {meter.unit}, {map_.map_id}"
        if map_.baud_rates and bus.baud not in map_.baud_rates:
            can = ", ".join(map(str, map_.baud_rates))
            raise SettingsError("bus_parameters_unsupported", f"{where}: {bus.baud} baud; it can do {can}")
        if map_.parities and bus.parity not in map_.parities:
            can = ", ".join(map_.parities)
            raise SettingsError("bus_parameters_unsupported", f"{where}: parity {bus.parity}; it can do {can}")


def check_budget(bus: TcpBus | SerialBus, interval_s: int) -> Budget:
    """What a poll takes, if it fits the interval. Raises SettingsError `bus_budget_exceeded`."""
    budget = budget_of(bus)
    if budget.needed_s <= interval_s:
        return budget
    remedies = [f"interval_s = {ceil(budget.needed_s)}"]
    if isinstance(bus, SerialBus) and (baud := _baud_that_fits(bus, interval_s)) is not None:
        remedies.append(f"{baud} baud")
    if fitting := [retries for retries in range(bus.retries) if _fits(replace(bus, retries=retries), interval_s)]:
        remedies.append(f"retries = {fitting[-1]}")
    if bus.retries and bus.timeout_s > 1 and _fits(replace(bus, timeout_s=1), interval_s):
        remedies.append("a shorter timeout_s")
    raise SettingsError(
        "bus_budget_exceeded",
        f"{bus.name}: {describe(bus, budget)}, but a reading is due every {interval_s} s; "
        f"it fits with {' or '.join(remedies)}",
    )


def describe(bus: TcpBus | SerialBus, budget: Budget) -> str:
    """The budget in one line."""
    meters = f"{len(bus.meters)} meter{'s' if len(bus.meters) > 1 else ''}"
    over = f" at {bus.baud} baud" if isinstance(bus, SerialBus) else ""
    return (
        f"{meters}, {budget.reads} reads of {budget.registers} registers{over} take {budget.poll_s:.2f} s, "
        f"{READS_PER_READING} times with {bus.retries} retries after {bus.timeout_s} s each {budget.needed_s:.2f} s"
    )


def _fits(bus: TcpBus | SerialBus, interval_s: int) -> bool:
    return budget_of(bus).needed_s <= interval_s


def _baud_that_fits(bus: SerialBus, interval_s: int) -> int | None:
    for baud in BAUD_RATES:
        possible = all(
            not meter.register_map.baud_rates or baud in meter.register_map.baud_rates for meter in bus.meters
        )
        if baud > bus.baud and possible and _fits(replace(bus, baud=baud), interval_s):
            return baud
    return None


def _end(bus: TcpBus | SerialBus) -> str:
    return str(bus.device) if isinstance(bus, SerialBus) else f"{bus.host}:{bus.port}"
