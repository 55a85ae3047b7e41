"""What a meter's own power says of its energy: a register that stands still although energy passes, and a rise that
nothing explains. Pure.

A meter is frozen when none of its registers moves: a bidirectional one must move its import or its export, so a power
with the wrong sign accuses nobody. The witness is heard with care: power is known only at the polls, so between two
of them the lesser counts, half of it, and only if it is well above what a meter may ignore. A freeze is over when the
register that should have moved does: until then the other direction is not believed either, since what a home exports
is surplus only if what it imports is counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from edge.poll import Poll

REGISTER_FROZEN = "register_frozen"
REGISTER_UNEXPLAINED = "register_unexplained"
POWER_MIN_W = 100
"""Below, a meter may count nothing and be right: it needs a current to start."""
WITNESS_MARGIN = 2
"""What the power says may be so many times too much, or too little."""
STEPS_MIN = 2
PASSED_MIN_WH = 10
"""A register is frozen when so many of its steps, and so much beside, have passed it by."""
WITNESS_GAP_MAX_S = 900
"""Between polls further apart, power says nothing."""
SURGE_W = 3_000
"""A kettle may come and go between two polls: what so much draws beside needs no explanation."""


@dataclass(frozen=True)
class Stillness:
    """The energy registers of one meter, unmoved since they were first seen so, and what has passed meanwhile.

    `power_w` has the meter's sign: positive is import.
    """

    registers_wh: Mapping[str, int]
    time_unix_s: int
    power_w: int
    passed_ws: int = 0


def watch(before: Stillness | None, registers_wh: Mapping[str, int], power_w: int, time_unix_s: int) -> Stillness:
    """The same after another poll of the meter."""
    if before is None or before.registers_wh != registers_wh:
        return Stillness(dict(registers_wh), time_unix_s, power_w)
    if before.power_w * power_w < 0:  # another register's turn
        return Stillness(before.registers_wh, time_unix_s, power_w)
    elapsed_s = time_unix_s - before.time_unix_s
    lesser_w = min(abs(before.power_w), abs(power_w))
    witnessed = 0 < elapsed_s <= WITNESS_GAP_MAX_S and lesser_w >= POWER_MIN_W
    passed_ws = before.passed_ws + (lesser_w * elapsed_s if witnessed else 0)
    return Stillness(before.registers_wh, time_unix_s, power_w, passed_ws)


def frozen(stillness: Stillness, quantum_wh: Fraction) -> bool:
    """Whether registers that step by `quantum_wh` must have moved."""
    return stillness.passed_ws > (STEPS_MIN * quantum_wh + PASSED_MIN_WH) * 3_600 * WITNESS_MARGIN


class PowerWitness:
    """What the power of each meter has witnessed so far. `names_of` are the energy registers of each meter by role,
    import before export."""

    def __init__(self, names_of: Mapping[str, tuple[str, ...]]) -> None:
        self._names_of = names_of
        self._stillness: dict[str, Stillness] = {}
        self._frozen_wh: dict[str, int] = {}
        self._unexplained_wh: Mapping[str, int] | None = None

    def objects(self, poll: Poll, time_unix_s: int, before_wh: Mapping[str, int], before_unix_s: int) -> str:
        """Hear one poll; the registers were `before_wh` when they were last believed.

        Returns why it is not to be believed: REGISTER_UNEXPLAINED, unless the poll before it showed the same rise;
        REGISTER_FROZEN; or nothing.
        """
        unexplained = not self._explains(poll, time_unix_s, before_wh, before_unix_s)
        seen, self._unexplained_wh = self._unexplained_wh, poll.registers_wh if unexplained else None
        if unexplained and not (seen and all(value >= seen[name] for name, value in poll.registers_wh.items())):
            return REGISTER_UNEXPLAINED
        return REGISTER_FROZEN if self._frozen_after(poll, time_unix_s) else ""

    def _explains(self, poll: Poll, time_unix_s: int, before_wh: Mapping[str, int], before_unix_s: int) -> bool:
        elapsed_s = max(0, time_unix_s - before_unix_s)
        for role, power_w in poll.powers_w.items():
            last = self._stillness.get(role)
            if last is None or time_unix_s - last.time_unix_s > WITNESS_GAP_MAX_S:
                continue
            greater_w = max(abs(power_w), abs(last.power_w)) * WITNESS_MARGIN + SURGE_W
            for name in self._names_of[role]:
                step_wh = STEPS_MIN * poll.quanta_wh.get(name, 1) + PASSED_MIN_WH
                if (poll.registers_wh[name] - before_wh[name] - step_wh) * 3_600 > greater_w * elapsed_s:
                    return False
        return True

    def _frozen_after(self, poll: Poll, time_unix_s: int) -> bool:
        self._frozen_wh = {name: wh for name, wh in self._frozen_wh.items() if poll.registers_wh[name] == wh}
        for role, names in self._names_of.items():
            power_w = poll.powers_w.get(role)
            if power_w is None:
                self._stillness.pop(role, None)
                continue
            registers_wh = {name: poll.registers_wh[name] for name in names}
            stillness = watch(self._stillness.get(role), registers_wh, power_w, time_unix_s)
            self._stillness[role] = stillness
            if power_w and frozen(stillness, max(poll.quanta_wh.get(name, Fraction(1)) for name in names)):
                name = names[0] if power_w > 0 else names[-1]
                self._frozen_wh.setdefault(name, registers_wh[name])
        return bool(self._frozen_wh)
