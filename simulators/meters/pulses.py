"""The S0 output of a meter, as the edges that Linux reports of a GPIO line: `struct gpio_v2_line_event`, as bytes.

A contact closes once for a fixed amount of energy. It bounces, and a kernel whose queue overflows drops events and
leaves a gap in their numbers. Pure: what a test writes into a pipe, a character device would have delivered.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

EVENT = struct.Struct("=QIIII24x")
"""timestamp_ns, id, offset, seqno, line_seqno and six reserved words, in the byte order of the machine."""
RISING_EDGE, FALLING_EDGE = 1, 2
"""The contact closes; it opens. (The output pulls the line low, so a line is requested as active low.)"""
NS_PER_S, NS_PER_MS = 10**9, 10**6
WH_PER_KWH = 1_000
BOUNCE_NS_MAX = 2 * NS_PER_MS
"""A contact has come to rest this long after it moved."""


@dataclass(frozen=True)
class PulseOutput:
    """A meter's output and the line it is wired to.

    pulse_ms: how long the contact stays closed (at least 30 by the standard), less if the next impulse is near.
    bounces: at each movement the contact opens and closes up to so many times more. lost_share: how many of the
    events the kernel drops, 0 to 1.
    """

    impulses_per_kwh: int
    line: int = 0
    pulse_ms: int = 40
    bounces: int = 0
    lost_share: float = 0.0
    seed: int = 0

    def impulses(self, energy_wh: int) -> int:
        """How many impulses an energy has made since the counter stood at zero."""
        return energy_wh * self.impulses_per_kwh // WH_PER_KWH


def line_events(
    output: PulseOutput,
    energy_wh: Callable[[int], int],
    start_unix_s: int,
    end_unix_s: int,
    start_monotonic_ns: int = 0,
) -> Iterator[bytes]:
    """The events from one instant to another, 48 bytes each, in order.

    energy_wh: what the meter has counted at an instant. Within a second the impulses come evenly. Time stamps
    follow CLOCK_MONOTONIC, which stood at `start_monotonic_ns` when it began.
    """
    rng = random.Random(f"pulses/{output.seed}")
    for number, (timestamp_ns, edge) in enumerate(_edges(output, energy_wh, start_unix_s, end_unix_s, rng), 1):
        if rng.random() >= output.lost_share:
            yield EVENT.pack(start_monotonic_ns + timestamp_ns, edge, output.line, number, number)


def _edges(
    output: PulseOutput, energy_wh: Callable[[int], int], start_unix_s: int, end_unix_s: int, rng: random.Random
) -> Iterator[tuple[int, int]]:
    """Nanoseconds since the start, and which edge."""
    made = output.impulses(energy_wh(start_unix_s))
    for second in range(start_unix_s, end_unix_s):
        reached = output.impulses(energy_wh(second + 1))
        spacing_ns = NS_PER_S // max(1, reached - made)
        pulse_ns = min(output.pulse_ms * NS_PER_MS, spacing_ns // 2)
        for index in range(reached - made):
            closed_ns = (second - start_unix_s) * NS_PER_S + index * spacing_ns
            yield from _movement(closed_ns, RISING_EDGE, pulse_ns, output.bounces, rng)
            yield from _movement(closed_ns + pulse_ns, FALLING_EDGE, pulse_ns, output.bounces, rng)
        made = reached


def _movement(at_ns: int, edge: int, pulse_ns: int, bounces_max: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """One movement of the contact: its edge, and pairs of the opposite one and itself while it bounces."""
    yield at_ns, edge
    bounces = rng.randint(0, bounces_max)
    moments_ns = sorted(rng.sample(range(1, min(BOUNCE_NS_MAX, pulse_ns // 2)), 2 * bounces))
    for index, moment_ns in enumerate(moments_ns):
        yield at_ns + moment_ns, (RISING_EDGE + FALLING_EDGE - edge) if index % 2 == 0 else edge
