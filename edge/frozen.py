"""What a meter's own power says of its energy: a register that stands still although energy passes, and a rise that
nothing explains. Pure.

A meter is frozen when none of its registers moves: a bidirectional one must move its import or its export, so a power
with the wrong sign accuses nobody; with which sign a meter counts is learnt from it. The witness is heard with care:
power is known only at the polls, so between two of them the lesser counts, half of it, and only if it is well above
what a meter may ignore. A freeze is over when the register that should have moved does: until then the other direction
is not believed either, since what a home exports is surplus only if what it imports is counted.
"""

from collections.abc import Collection, Mapping
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
VOTES_MIN, VOTES_MAX = 1, 9
"""Movements for and against decide with which sign of its power a meter counts; it begins as its map says."""
SURGE_W = 3_000
"""A kettle may come and go between two polls: what so much draws beside needs no explanation."""


@dataclass(frozen=True)
class Stillness:
    """The energy registers of one meter, unmoved since they were first seen so, and what has passed meanwhile.

    `power_w` and `passed_ws` have the meter's sign: positive is import.
    """

    registers_wh: Mapping[str, int]
    time_unix_s: int
    power_w: int
    passed_ws: int = 0


def watch(before: Stillness | None, registers_wh: Mapping[str, int], power_w: int, time_unix_s: int) -> Stillness:
    """The same after another poll of the meter."""
    if before is None or before.registers_wh != registers_wh:
        return Stillness(dict(registers_wh), time_unix_s, power_w)
    if before.power_w * power_w < 0 or before.passed_ws * power_w < 0:  # another register's turn
        return Stillness(before.registers_wh, time_unix_s, power_w)
    elapsed_s = time_unix_s - before.time_unix_s
    lesser_w = min(before.power_w, power_w, key=abs)
    witnessed = 0 < elapsed_s <= WITNESS_GAP_MAX_S and abs(lesser_w) >= POWER_MIN_W
    passed_ws = before.passed_ws + (lesser_w * elapsed_s if witnessed else 0)
    return Stillness(before.registers_wh, time_unix_s, power_w, passed_ws)


def frozen(stillness: Stillness, quantum_wh: Fraction) -> bool:
    """Whether registers that step by `quantum_wh` must have moved."""
    return abs(stillness.passed_ws) > (STEPS_MIN * quantum_wh + PASSED_MIN_WH) * 3_600 * WITNESS_MARGIN


class PowerWitness:
    """What the power of each meter has witnessed so far.

    `names_of` are the energy registers of each meter by role, import before export; `against` the roles of which the
    first register should move while the power is negative.
    """

    def __init__(self, names_of: Mapping[str, tuple[str, ...]], against: Collection[str] = ()) -> None:
        self._names_of = names_of
        self._stillness: dict[str, Stillness] = {}
        self._votes = {role: -VOTES_MIN if role in against else VOTES_MIN for role in names_of}

    def forget_polls(self) -> None:
        """Nobody knows how long ago they were."""
        self._stillness.clear()

    def explains(self, poll: Poll, time_unix_s: int, before_wh: Mapping[str, int], before_unix_s: int) -> bool:
        """Whether the powers of this poll and the one before it allow what the registers have risen since they were
        `before_wh`."""
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

    def frozen_wh(self, poll: Poll, time_unix_s: int, frozen_wh: Mapping[str, int]) -> dict[str, int]:
        """Hear one poll: the registers that are frozen, and where. `frozen_wh` are those that were."""
        frozen_now = {name: wh for name, wh in frozen_wh.items() if poll.registers_wh[name] == wh}
        for role, names in self._names_of.items():
            power_w = poll.powers_w.get(role)
            if power_w is None:
                self._stillness.pop(role, None)
                continue
            registers_wh = {name: poll.registers_wh[name] for name in names}
            before = self._stillness.get(role)
            stillness = self._stillness[role] = watch(before, registers_wh, power_w, time_unix_s)
            if before is not None:
                self._learn_sign(role, before, stillness)
            if frozen(stillness, max(poll.quanta_wh.get(name, Fraction(1)) for name in names)):
                name = self._should_move(role, stillness.passed_ws)
                if name is not None:
                    frozen_now.setdefault(name, registers_wh[name])
        return frozen_now

    def _learn_sign(self, role: str, before: Stillness, now: Stillness) -> None:
        """Count for and against: the first register moves while the power is positive. One step may have been filled
        before the power turned."""
        names = self._names_of[role]
        moved = [name for name in names if now.registers_wh[name] > before.registers_wh[name]]
        plain = before.power_w * now.power_w > 0 and min(abs(before.power_w), abs(now.power_w)) >= POWER_MIN_W
        if plain and len(moved) == 1:
            agrees = (now.power_w > 0) == (moved[0] == names[0])
            votes = self._votes[role] + (1 if agrees else -1)
            self._votes[role] = max(-VOTES_MAX, min(VOTES_MAX, votes))

    def _should_move(self, role: str, passed_ws: int) -> str | None:
        """The register that so much energy moves. A meter of which one register is read may owe it nothing: a battery
        behind the panels' meter is charged through it, and moves the register that nobody reads."""
        names = self._names_of[role]
        if passed_ws * self._votes[role] > 0:
            return names[0]
        return names[-1] if len(names) > 1 else None
