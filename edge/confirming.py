"""One scheduled reading from several reads of the meters: nothing is believed that was seen once. Pure.

A bit that flips, a value torn while the meter updates it, an answer meant for somebody else: most nonsense is not
there when the same register is read again at once, and much of it looks plausible. So every reading is read twice,
and each energy register is what two reads agree on. A register that moves too fast for that is the median of its
reads, as long as these only rise and no faster than the home can draw: with one of them wrong the median still lies
between two that are right.

What is agreed on is judged by `edge.believing`, and by the power that the same meter shows (`edge.frozen`). A rise that
its power does not explain is held until the next reading shows it too: a shower or a cloud then costs no reading, and a
value that was wrong for one round is forgotten.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from edge.believing import SECONDS_PER_HOUR
from edge.counters import CounterState, Step, advance_counters, judge_registers
from edge.errors import ModbusError, RegisterError
from edge.frozen import REGISTER_FROZEN, REGISTER_UNEXPLAINED, PowerWitness
from edge.poll import REGISTER_WORD_ORDER, Poll

READS_PER_READING = 2
"""Reads of every meter that an ordinary reading takes."""
DISAGREEING_MAX = 5
"""Reads in a row that do not agree."""
READS_MAX = 9
"""In all, for one reading."""
FAILURES_MAX = 3
"""Reads that fail, and what was agreed on but is not believed, before the reading is given up."""
MOVEMENT_S = 3
"""How long two reads of one reading may be apart beside what their times say: a punctual read carries its scheduled
instant."""
METER_UNREADABLE = "meter_unreadable"
METER_IS_ANOTHER = "meter_is_another"
REGISTER_UNSTEADY = "register_unsteady"
REGISTER_DISAGREED = "register_disagreed"


@dataclass(frozen=True)
class Taken:
    """A believed reading: the poll that two reads agree on, the instant of the first, and the counters after it."""

    poll: Poll
    time_unix_s: int
    step: Step


class Round:
    """The reads of one scheduled reading, until it is `taken`, `held` or given up.

    `counters`, `moduli_wh` and `power_max_w` are what the poll is judged by; `witness` hears it. `held` is what an
    earlier round has left waiting; if this one shows it too, it is `confirmed`, and comes before what is taken.
    `pause` says that the next read is to wait a moment, `problem` why there is no reading yet, and `suspicion` is the
    state that remembers what was suspicious.
    """

    def __init__(
        self,
        counters: CounterState,
        moduli_wh: Mapping[str, int | None],
        power_max_w: int,
        witness: PowerWitness,
        held: Taken | None = None,
    ) -> None:
        self.confirmed: Taken | None = None
        self.taken: Taken | None = None
        self.held = held
        self.problem = METER_UNREADABLE
        self.pause = False
        self.suspicion: CounterState | None = None
        self._counters = counters
        self._moduli_wh = moduli_wh
        self._power_max_w = power_max_w
        self._witness = witness
        self._reads: list[tuple[int, Poll]] = []
        self._failures = 0
        self._count = 0

    @property
    def over(self) -> bool:
        """Whether there is nothing more to read."""
        return self.taken is not None or self._failures >= FAILURES_MAX or self._count >= READS_MAX

    def failed(self, error: ModbusError | RegisterError) -> None:
        """A read that gave nothing. What was read before it still counts."""
        self._count += 1
        self._failures += 1
        self.pause = True
        self.problem = error.code if error.code in (REGISTER_WORD_ORDER, METER_IS_ANOTHER) else METER_UNREADABLE

    def heard(
        self, poll: Poll, time_unix_s: int, swapped_wh: Callable[[], Mapping[str, int]] = dict
    ) -> list[RegisterError]:
        """A read; `swapped_wh` gives its registers with their words exchanged. Returns what is wrong, to be counted."""
        self._count += 1
        self.pause = False
        self._reads.append((time_unix_s, poll))
        agreed = agreed_poll(self._reads, self._power_max_w)
        if agreed is not None:
            return self._judge(agreed, self._reads[0][0], swapped_wh)
        if len(self._reads) >= DISAGREEING_MAX:
            self._begin_again(REGISTER_UNSTEADY)
        elif len(self._reads) == READS_PER_READING and not _only_moves(self._reads, self._power_max_w):
            before = self._reads[0][1].registers_wh
            return [RegisterError(REGISTER_DISAGREED, f"{dict(before)}, then {dict(poll.registers_wh)} Wh")]
        return []

    def _judge(self, poll: Poll, time_unix_s: int, swapped_wh: Callable[[], Mapping[str, int]]) -> list[RegisterError]:
        shown_before = self._shows_what_is_held(poll, time_unix_s)
        step = self._advanced(poll.registers_wh, time_unix_s)
        if step.refused is not None:
            refused = step.refused
            if self._makes_sense_swapped(poll.registers_wh, swapped_wh(), time_unix_s):
                refused = RegisterError(REGISTER_WORD_ORDER, refused.detail)
            else:
                self.suspicion = step.state
            self._begin_again(refused.code)
            return [refused]
        before_wh = {name: register.last_wh for name, register in self._counters.registers.items()}
        if step.resets:
            before_wh = dict(poll.registers_wh)
        explained = self._witness.explains(poll, time_unix_s, before_wh, self._counters.time_unix_s)
        now = Taken(poll, time_unix_s, step)
        if not explained and not shown_before:
            self.held = now
            return self._give_up(REGISTER_UNEXPLAINED, before_wh, poll)
        frozen_wh = self._witness.frozen_wh(poll, time_unix_s, self._counters.frozen_wh)
        if frozen_wh:
            self.suspicion = replace(self._counters, frozen_wh=frozen_wh)
            return self._give_up(REGISTER_FROZEN, before_wh, poll)
        self.taken = _unfrozen(now)
        return []

    def _shows_what_is_held(self, poll: Poll, time_unix_s: int) -> bool:
        """Whether the rise that is held is still there and not believed. If it is to be believed, it is `confirmed`,
        and what follows is judged from there."""
        held, self.held = self.held, None
        if held is None or time_unix_s <= held.time_unix_s:
            return False
        if any(poll.registers_wh[name] < wh for name, wh in held.poll.registers_wh.items()):
            return False
        if self._witness.frozen_wh(held.poll, held.time_unix_s, self._counters.frozen_wh):
            return True
        self.confirmed = _unfrozen(held)
        self._counters = self.confirmed.step.state
        return False

    def _give_up(self, problem: str, before_wh: Mapping[str, int], poll: Poll) -> list[RegisterError]:
        """End the round: reading again at once would prove nothing."""
        self._failures = FAILURES_MAX
        self.problem = problem
        why = f"{dict(before_wh)}, now {dict(poll.registers_wh)} Wh at {dict(poll.powers_w)} W"
        return [RegisterError(problem, why)]

    def _begin_again(self, problem: str) -> None:
        self._reads = []
        self._failures += 1
        self.pause = True
        self.problem = problem

    def _advanced(self, registers_wh: Mapping[str, int], time_unix_s: int) -> Step:
        return advance_counters(self._counters, registers_wh, self._moduli_wh, time_unix_s, self._power_max_w)

    def _makes_sense_swapped(
        self, registers_wh: Mapping[str, int], swapped_wh: Mapping[str, int], time_unix_s: int
    ) -> bool:
        """Whether each register that is not believed would be, with its words exchanged."""
        verdicts = judge_registers(self._counters, registers_wh, self._moduli_wh, time_unix_s, self._power_max_w)
        refused = {name for name, verdict in verdicts.items() if verdict.refused}
        if not refused <= swapped_wh.keys():
            return False
        mixed_wh = {name: swapped_wh[name] if name in refused else value for name, value in registers_wh.items()}
        step = self._advanced(mixed_wh, time_unix_s)
        return step.refused is None and not step.resets


def _unfrozen(taken: Taken) -> Taken:
    return replace(taken, step=replace(taken.step, state=replace(taken.step.state, frozen_wh={})))


def agreed_poll(reads: Sequence[tuple[int, Poll]], power_max_w: int) -> Poll | None:
    """What reads in a row, each with its time, agree on; None while one more is needed.

    The optional columns are those of the last.
    """
    _, poll = reads[-1]
    agreed_wh = agreed_registers([read.registers_wh for _, read in reads])
    if agreed_wh is None and len(reads) >= DISAGREEING_MAX and _only_moves(reads, power_max_w):
        agreed_wh = dict(reads[len(reads) // 2][1].registers_wh)  # the median, since they only rise
    return None if agreed_wh is None else replace(poll, registers_wh=agreed_wh)


def agreed_registers(reads: Sequence[Mapping[str, int]]) -> dict[str, int] | None:
    """Each register as two reads have it; None while one has no such value."""
    agreed = {}
    for name in reads[0]:
        seen: set[int] = set()
        for read in reads:
            if read[name] in seen:
                agreed[name] = read[name]
                break
            seen.add(read[name])
        else:
            return None
    return agreed


def _only_moves(reads: Sequence[tuple[int, Poll]], power_max_w: int) -> bool:
    """Whether registers only rise from read to read, no faster than can be."""
    for (before_unix_s, before), (after_unix_s, after) in pairwise(reads):
        elapsed_s = max(0, after_unix_s - before_unix_s) + MOVEMENT_S
        for name, after_wh in after.registers_wh.items():
            step_wh = round(2 * after.quanta_wh.get(name, 1)) + 1
            if not 0 <= after_wh - before.registers_wh[name] <= power_max_w * elapsed_s // SECONDS_PER_HOUR + step_wh:
                return False
    return True
