"""S0 pulse outputs (EN 62053-31): a meter that says so many watt-hours by closing a contact. Counting is pure.

A pulse is counted when the contact opens again. Nothing is ever counted that was not seen whole: where the kernel had
to drop events, their number is known and their pulses are not invented.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from edge.register import Register
from edge.register_map import RegisterMap

PULSE_QUANTITY = "energy_total"
NO_FUNCTION_CODE = 0
"""The count does not come over Modbus."""
COUNT_BYTES = 8
COUNT_MODULUS = 1 << 8 * COUNT_BYTES

LINE_EVENT = struct.Struct("=QIIII24x")
"""The kernel's gpio_v2_line_event: timestamp_ns, id, offset, seqno, line_seqno, padding."""
RISING, FALLING = 1, 2
LINE_SEQNO_MODULUS = 2**32
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class LineEvent:
    """The contact closed (rising) or opened. `line_seqno` counts the events of the line, also those that were lost."""

    timestamp_ns: int
    rising: bool
    line_seqno: int


def split_events(data: bytes, line: int) -> tuple[list[LineEvent], bytes]:
    """The events of one line in what was read from the kernel, and the beginning of a record that is still to come."""
    whole = len(data) - len(data) % LINE_EVENT.size
    return list(_events_of(data[:whole], line)), data[whole:]


def _events_of(data: bytes, line: int) -> Iterator[LineEvent]:
    for timestamp_ns, what, offset, _, line_seqno in LINE_EVENT.iter_unpack(data):
        if offset == line and what in (RISING, FALLING):
            yield LineEvent(timestamp_ns, what == RISING, line_seqno)


class PulseCounter:
    """Counts the pulses of one line from its events.

    A level counts once it has lasted `pulse_min_ms`: shorter changes are the contact's bounce. `counted`: pulses since
    this counter was made; `bounces`: changes that were none; `events_lost`: what the kernel could not keep for us.
    """

    def __init__(self, pulse_min_ms: int) -> None:
        self.counted = 0
        self.bounces = 0
        self.events_lost = 0
        self._min_ns = pulse_min_ms * NS_PER_MS
        self._closed = False
        self._level_closed = False
        self._since_ns: int | None = None
        self._last_seqno = 0

    def take(self, event: LineEvent) -> None:
        """One event, in the order in which the kernel gave them."""
        lost = (event.line_seqno - self._last_seqno - 1) % LINE_SEQNO_MODULUS
        if lost >= LINE_SEQNO_MODULUS // 2:
            return  # told before
        self._last_seqno = event.line_seqno
        if lost:
            self.events_lost += lost
        seen_whole = not lost and self._since_ns is not None and self._level_closed != event.rising
        if seen_whole:
            self._level_ends(event.timestamp_ns)
        self._level_closed = event.rising
        self._since_ns = event.timestamp_ns

    def _level_ends(self, at_ns: int) -> None:
        assert self._since_ns is not None
        if at_ns - self._since_ns < self._min_ns:
            self.bounces += 1
        elif self._level_closed != self._closed:
            self._closed = self._level_closed
            self.counted += self._closed


def first_count(start_wh: int, impulses_per_kwh: int) -> int:
    """The number of pulses that stand for what the meter showed when counting began, in whole pulses."""
    return start_wh * impulses_per_kwh // 1000


def count_bytes(count: int) -> bytes:
    """A count as the bytes of the register that stands for it."""
    return (count % COUNT_MODULUS).to_bytes(COUNT_BYTES, "big")


def pulse_register_map(impulses_per_kwh: int) -> RegisterMap:
    """A map with one register: the number of pulses ever counted, as eight bytes."""
    step_wh = Fraction(1000, impulses_per_kwh)
    source = "EN 62053-31: one pulse is a fixed amount of energy"
    count = Register(
        quantity=PULSE_QUANTITY,
        function_code=NO_FUNCTION_CODE,
        address=0,
        type="uint64",
        word_order="big",
        unit="pulses",
        scale=step_wh,
        quantum=step_wh,
        modulus=None,
        unavailable=(),
        scale_factor_address=None,
        source=source,
    )
    return RegisterMap(
        map_id="s0_pulses",
        model=f"S0 pulse output, {impulses_per_kwh} impulses per kWh",
        source=source,
        phases_netted=True,
        phases_source="the meter's own display: a pulse is a step of its total",
        registers_per_read_max=0,
        gap_registers_max=0,
        registers={PULSE_QUANTITY: count},
    )
