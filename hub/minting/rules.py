"""What is to be presented to the energy program next of one meter, or why nothing is. Pure: time is an argument.

The counters in a seal are cumulative, so the newest seal below which everything is resolved speaks for all before it:
late, re-ordered and back-filled seals need no path of their own. What keeps a meter from simply presenting its newest
seal are *barriers*: a seal that is held (wait), a missing one (wait, unless it is declared lost), a rejected one (write
it off), and the end of a key (rotate). They are taken one at a time, so each round of minting does one step a meter.

Whatever the program would refuse is not sent: `_checked` repeats its arithmetic.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hub.chain.accounts import MeterAccount, MeterState
from hub.readings.rules import CAPACITY_MARGIN_PERCENT, WATT_SECONDS_PER_WH, SealFacts, State
from hub.registry import rules as registry
from protocol.enrolment import KIND_SOLAR, KIND_WIND

UNITS_PER_WH: Final = 1_000_000
"""GRID has 9 decimals and 1 GRID is 1 kWh."""

KINDS_MINTED: Final = frozenset({KIND_SOLAR, KIND_WIND})

_PERCENT_WS: Final = 100 * WATT_SECONDS_PER_WH

BEYOND_TRIED_MAX: Final = 100
"""So many seals at a barrier are looked at for one that the program takes."""


class Reason(StrEnum):
    """Why nothing is presented now. The first four lines are as it should be; the others want somebody."""

    IN_FLIGHT = "in_flight"
    NOTHING_NEW = "nothing_new"
    MIRROR_BEHIND = "mirror_behind"
    FROM_THE_FUTURE = "from_the_future"

    KIND_NEVER_MINTS = "kind_never_mints"
    NOT_ON_CHAIN = "not_on_chain"
    MINTING_NOT_ALLOWED = "minting_not_allowed"
    METER_SUSPENDED = "meter_suspended"
    CHAIN_METER_NOT_ACTIVE = "chain_meter_not_active"
    CHAIN_PAUSED = "chain_paused"
    ACCOUNT_DIFFERS = "account_differs"
    GAP = "gap"
    HELD_SEAL = "held_seal"
    REJECTED_NOT_PASSED = "rejected_not_passed"
    OVER_CAPACITY = "over_capacity"
    SURPLUS_OUT_OF_BOUNDS = "surplus_out_of_bounds"
    COUNTER_DECREASED = "counter_decreased"
    ROTATION_OUT_OF_REACH = "rotation_out_of_reach"
    WRITE_OFF_OUT_OF_REACH = "write_off_out_of_reach"
    HELD = "held"


QUIET: Final = frozenset(
    {
        Reason.IN_FLIGHT,
        Reason.NOTHING_NEW,
        Reason.MIRROR_BEHIND,
        Reason.KIND_NEVER_MINTS,
        Reason.REJECTED_NOT_PASSED,
        Reason.FROM_THE_FUTURE,
    }
)
"""Nobody needs to look into these."""


class RunKind(StrEnum):
    """What a stretch of sequences is to minting."""

    COUNTED = "counted"
    REJECTED = "rejected"
    HELD = "held"
    MISSING = "missing"
    LOST = "lost"


@dataclass(frozen=True)
class Run:
    """Sequences from first to last, both included, that are of one kind."""

    kind: RunKind
    first: int
    last: int
    reason: str = ""


@dataclass(frozen=True)
class NextKey:
    """What the statement of the key after the one on the chain says. `base` is the seal it names, if it is stored."""

    key_epoch: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    base_sequence: int | None = None
    """Within the epoch before it; None if it begins at another epoch's seal, or at none."""


@dataclass(frozen=True)
class Line:
    """The seals of the key epoch that the chain knows, behind the last one presented.

    `runs` ascend without holes from the sequence after the last presented, up to the highest that can count.
    """

    runs: Sequence[Run]
    find: Callable[[int], SealFacts]
    """A stored seal of this epoch, by its sequence."""
    presented: SealFacts | None = None
    """The seal presented last, None at the start of an epoch."""
    next_key: NextKey | None = None


@dataclass(frozen=True)
class Standing:
    """What the registry says of the meter."""

    kind: int
    state: str
    key_epoch: int
    owner: bytes
    minting_allowed: bool
    why_not_allowed: str = ""


@dataclass(frozen=True)
class Present:
    """Present a seal. Without a write-off it is `submit_reading`; `…_to_wh` are the absolute figures of `write_off`.

    `surplus_wh` is what it adds to the surplus on the chain: minted, written off, or earned back, which pays for GRID
    that was minted for a key whose word was taken back. A seal that only makes way for a rotation is not settled.
    """

    seal: SealFacts
    surplus_wh: int
    minted_wh: int
    written_off_wh: int = 0
    written_off_production_wh: int = 0
    writes_off: bool = False
    settles: bool = True
    written_off_surplus_to_wh: int = 0
    written_off_production_to_wh: int = 0

    @property
    def earned_back_wh(self) -> int:
        """What neither was minted nor written off."""
        return self.surplus_wh - self.minted_wh - self.written_off_wh if self.settles else 0


@dataclass(frozen=True)
class Rotate:
    """Let the chain know the meter's next key."""

    key_epoch: int


@dataclass(frozen=True)
class Nothing:
    """Nothing is to be done, or can be."""

    reason: Reason
    detail: str = ""


Step = Present | Rotate | Nothing


def standing_refusal(standing: Standing, chain: MeterAccount | None) -> Nothing | None:
    """Why nothing of this meter is presented, whatever it seals.

    A retired meter's accepted energy is still its owner's; a suspended one's waits for the operator's word.
    """
    reason, detail = None, ""
    if standing.kind not in KINDS_MINTED:
        reason, detail = Reason.KIND_NEVER_MINTS, "only solar and wind are minted"
    elif chain is None:
        reason, detail = Reason.NOT_ON_CHAIN, "the meter has no account on the chain"
    elif chain.owner != standing.owner or chain.kind != standing.kind or chain.key_epoch > standing.key_epoch:
        reason, detail = Reason.ACCOUNT_DIFFERS, "owner, kind or key epoch on the chain are not those registered here"
    elif not standing.minting_allowed:
        reason, detail = Reason.MINTING_NOT_ALLOWED, standing.why_not_allowed
    elif standing.state == registry.SUSPENDED:
        reason, detail = Reason.METER_SUSPENDED, "the meter is suspended"
    elif chain.state is not MeterState.ACTIVE:
        reason, detail = Reason.CHAIN_METER_NOT_ACTIVE, f"on the chain the meter is {chain.state.name.lower()}"
    return None if reason is None else Nothing(reason, detail)


def next_step(chain: MeterAccount, line: Line, now_unix_s: int) -> Step:
    """The next step of a meter whose standing allows one."""
    before: SealFacts | None = None
    """The last counted seal that was passed by because it closes no interval more."""
    after_barrier = _Barrier.after(line.presented)
    for run in line.runs:
        match run.kind:
            case RunKind.MISSING:
                return Nothing(Reason.GAP, f"seals {run.first} to {run.last} are missing")
            case RunKind.HELD:
                return Nothing(Reason.HELD_SEAL, f"seal {run.first} is held: {run.reason}")
            case RunKind.LOST:
                after_barrier.lost = True
            case RunKind.REJECTED:
                step = _write_off_rejected(chain, line, run, now_unix_s)
                if step is not None:
                    return step
                after_barrier.pass_rejected(chain, line.find, run, before)
            case RunKind.COUNTED:
                step = _present_counted(chain, line.find, run, after_barrier, now_unix_s)
                if step is not None:
                    return step
                before = line.find(run.last)
    if line.next_key is not None:
        return _next_key(chain, line.find, line.next_key, now_unix_s)
    return Nothing(Reason.NOTHING_NEW, "no interval was closed since")


@dataclass
class _Barrier:
    """What lies between the last seal presented and the next counted one: it cannot simply be presented then."""

    lost: bool = False
    rejected: bool = False
    claimed_production_wh: int = field(default=0)
    """How far the readings of rejected seals claim the production has come: more than those seals have closed."""
    counted_production_wh: int = 0
    """How far the readings of the last counted seal before them had come."""

    @classmethod
    def after(cls, presented: SealFacts | None) -> _Barrier:
        if presented is None or presented.state is not State.REJECTED:
            return cls()
        return cls(claimed_production_wh=presented.last_production_wh)

    def pass_rejected(
        self, chain: MeterAccount, find: Callable[[int], SealFacts], run: Run, before: SealFacts | None
    ) -> None:
        last = [find(sequence) for sequence in range(max(run.first, run.last - BEYOND_TRIED_MAX), run.last + 1)]
        self.rejected |= any(_counters(seal) != _counters(chain) for seal in last)
        self.claimed_production_wh = max([self.claimed_production_wh, *(seal.last_production_wh for seal in last)])
        self.counted_production_wh = 0 if before is None else before.last_production_wh

    def taken_out_wh(self, chain: MeterAccount, find: Callable[[int], SealFacts], behind: Run) -> int:
        """What rejected readings say was produced since their seal's last closed interval, and no counted one does.

        It is in the first interval that a counted seal closes behind them.
        """
        if not self.claimed_production_wh:
            return 0
        claimed_wh = min(self.claimed_production_wh, find(behind.first).first_production_wh)
        return max(0, claimed_wh - max(chain.production_wh, self.counted_production_wh))


def _present_counted(
    chain: MeterAccount, find: Callable[[int], SealFacts], run: Run, barrier: _Barrier, now_unix_s: int
) -> Step | None:
    """Present the newest of these; behind a barrier the first that the program takes. None if none closes more."""
    newest = find(run.last)
    if newest.closed_until_unix_s <= chain.closed_until_unix_s:
        return None
    taken_out_wh = barrier.taken_out_wh(chain, find, run)
    if not barrier.lost and not barrier.rejected and not taken_out_wh:
        return _checked(chain, newest, now_unix_s) or _submitted(chain, newest)
    refused: Nothing | None = None
    sequences = range(run.first, run.last + 1)
    closed_until_unix_s = chain.closed_until_unix_s
    for _ in range(BEYOND_TRIED_MAX):
        at = bisect_right(sequences, closed_until_unix_s, key=lambda sequence: find(sequence).closed_until_unix_s)
        if at == len(sequences):
            break
        seal = find(sequences[at])
        closed_until_unix_s = seal.closed_until_unix_s
        refused = _checked(chain, seal, now_unix_s)
        if refused is None:
            produced_wh = seal.production_wh - chain.production_wh
            consumed_wh = seal.consumption_wh - chain.consumption_wh
            surplus_wh = seal.surplus_wh - chain.surplus_wh
            credited_wh = min(max(0, surplus_wh - taken_out_wh), max(0, produced_wh - consumed_wh))
            step = _written_off(chain, seal, surplus_wh - credited_wh, min(produced_wh, taken_out_wh))
            if isinstance(step, Present):
                return step
            refused = step
    return refused


def _write_off_rejected(chain: MeterAccount, line: Line, run: Run, now_unix_s: int) -> Step | None:
    """Present the last of these seals that can be, with all that it adds written off.

    None if they add nothing that can be presented. They are only passed together with what follows: a seal whose
    counters lie above those of the next that counts would close the way for it.
    """
    following = _first_behind(line, run)
    for sequence in range(run.last, max(run.first, run.last - BEYOND_TRIED_MAX) - 1, -1):
        seal = line.find(sequence)
        closes_more = chain.closed_until_unix_s < seal.closed_until_unix_s <= now_unix_s
        if not closes_more or not _fits(chain, seal):
            continue
        if following is None:
            return Nothing(Reason.REJECTED_NOT_PASSED, f"seal {sequence} is rejected; no counted one follows it yet")
        if not _fits(seal, following):
            continue
        return _written_off(chain, seal, seal.surplus_wh - chain.surplus_wh, seal.production_wh - chain.production_wh)
    return None


def _first_behind(line: Line, run: Run) -> SealFacts | NextKey | None:
    """The first counted seal behind a run, or else the next key's statement, which names one."""
    counted = (each for each in line.runs if each.kind is RunKind.COUNTED and each.first > run.last)
    return next((line.find(each.first) for each in counted), line.next_key)


def _counters(one: SealFacts | NextKey | MeterAccount) -> tuple[int, int, int, int]:
    return one.closed_until_unix_s, one.production_wh, one.consumption_wh, one.surplus_wh


def _fits(earlier: SealFacts | MeterAccount, later: SealFacts | NextKey) -> bool:
    """Whether time and counters only grow from one to the other."""
    return all(one <= other for one, other in zip(_counters(earlier), _counters(later), strict=True))


def _next_key(chain: MeterAccount, find: Callable[[int], SealFacts], key: NextKey, now_unix_s: int) -> Step:
    """Rotate, or present the seal at which the next key's statement begins. That one may be taken back already: a key
    that was revoked with all it sealed still has its place in the row of keys, so nothing is settled on its way."""
    if all(one <= other for one, other in zip(_counters(key), _counters(chain), strict=True)):
        return Rotate(key.key_epoch)
    if key.base_sequence is None or key.base_sequence <= chain.sequence:
        return Nothing(Reason.ROTATION_OUT_OF_REACH, f"key {key.key_epoch} begins beyond what can be presented")
    seal = find(key.base_sequence)
    refused = _checked(chain, seal, now_unix_s)
    if refused is not None:
        return refused
    surplus_wh = seal.surplus_wh - chain.surplus_wh
    return Present(seal, surplus_wh, 0, settles=False)


def _checked(chain: MeterAccount, seal: SealFacts, now_unix_s: int) -> Nothing | None:
    """Why the program would refuse the seal, by its own arithmetic. Its clock may be 300 s behind ours without harm."""
    if seal.closed_until_unix_s > now_unix_s:
        return Nothing(Reason.FROM_THE_FUTURE, f"seal {seal.sequence} closes an interval that is not over")
    if not _fits(chain, seal):
        return Nothing(Reason.COUNTER_DECREASED, f"a counter of seal {seal.sequence} is below that on the chain")
    elapsed_s = seal.closed_until_unix_s - chain.closed_until_unix_s
    produced_wh = seal.production_wh - chain.production_wh
    consumed_wh = seal.consumption_wh - chain.consumption_wh
    surplus_wh = seal.surplus_wh - chain.surplus_wh
    if not _within_capacity(chain, produced_wh, elapsed_s):
        return Nothing(
            Reason.OVER_CAPACITY,
            f"up to seal {seal.sequence}: {produced_wh} Wh in {elapsed_s} s with {chain.capacity_w} W on the chain",
        )
    if not _within_mark(chain, seal):
        return Nothing(Reason.OVER_CAPACITY, f"seal {seal.sequence} goes beyond what an earlier key had come to")
    if not max(0, produced_wh - consumed_wh) <= surplus_wh <= produced_wh:
        return Nothing(
            Reason.SURPLUS_OUT_OF_BOUNDS,
            f"up to seal {seal.sequence}: {surplus_wh} Wh of {produced_wh} Wh produced, {consumed_wh} Wh consumed",
        )
    return None


def _within_capacity(chain: MeterAccount, produced_wh: int, elapsed_s: int) -> bool:
    """The chain's figures, exactly, in whole numbers."""
    allowed = chain.capacity_w * elapsed_s * CAPACITY_MARGIN_PERCENT + chain.register_step_wh * _PERCENT_WS
    return produced_wh * _PERCENT_WS <= allowed


def _within_mark(chain: MeterAccount, seal: SealFacts) -> bool:
    """Whether time that an earlier key has used already is not used for production again."""
    beyond_wh = seal.production_wh - chain.high_production_wh
    if chain.closed_until_unix_s >= chain.high_until_unix_s or beyond_wh <= 0:
        return True
    return _within_capacity(chain, beyond_wh, max(0, seal.closed_until_unix_s - chain.high_until_unix_s))


def _submitted(chain: MeterAccount, seal: SealFacts) -> Present:
    unsettled_wh = seal.surplus_wh - chain.written_off_surplus_wh - chain.settled_wh
    return Present(seal, seal.surplus_wh - chain.surplus_wh, max(0, unsettled_wh))


def _written_off(chain: MeterAccount, seal: SealFacts, surplus_wh: int, production_wh: int) -> Present | Nothing:
    """Present the seal with so much of what it adds written off.

    What was written off for a key that was revoked afterwards stays so, though the counters went back: until they are
    above it again the program takes no further write-off.
    """
    surplus_to_wh = chain.written_off_surplus_wh + surplus_wh
    production_to_wh = chain.written_off_production_wh + production_wh
    if surplus_to_wh > seal.surplus_wh or production_to_wh > seal.production_wh:
        return Nothing(
            Reason.WRITE_OFF_OUT_OF_REACH,
            f"seal {seal.sequence} states less than was written off for a revoked key:"
            f" {production_to_wh} Wh of production, {surplus_to_wh} Wh of surplus",
        )
    return Present(
        seal,
        seal.surplus_wh - chain.surplus_wh,
        max(0, seal.surplus_wh - surplus_to_wh - chain.settled_wh),
        written_off_wh=surplus_wh,
        written_off_production_wh=production_wh,
        writes_off=True,
        written_off_surplus_to_wh=surplus_to_wh,
        written_off_production_to_wh=production_to_wh,
    )


def runs_of(
    after: int,
    end: int,
    uncounted: Sequence[tuple[int, State, str]],
    gaps: Sequence[tuple[int, int]],
    lost: Sequence[tuple[int, int]],
) -> list[Run]:
    """The runs behind `after` up to `end`. `uncounted` (sequence, state, reason), `gaps` and `lost` ascend.

    What does not count inside a range that was declared lost is lost, whatever came of it late.
    """
    runs: list[Run] = []

    def is_lost(sequence: int) -> bool:
        return any(first <= sequence <= last for first, last in lost)

    def add(kind: RunKind, first: int, last: int, reason: str = "") -> None:
        first, last = max(first, after + 1), min(last, end)
        if first > last:
            return
        if runs and runs[-1].kind is kind:
            runs[-1] = Run(kind, runs[-1].first, last, runs[-1].reason)
        else:
            runs.append(Run(kind, first, last, reason))

    at = after + 1
    for kind, first, last, reason in sorted(_uncounted_runs(uncounted, gaps, lost, is_lost), key=lambda run: run[1]):
        add(RunKind.COUNTED, at, first - 1)
        add(kind, first, last, reason)
        at = max(at, last + 1)
    add(RunKind.COUNTED, at, end)
    return runs


def _uncounted_runs(
    uncounted: Sequence[tuple[int, State, str]],
    gaps: Sequence[tuple[int, int]],
    lost: Sequence[tuple[int, int]],
    is_lost: Callable[[int], bool],
) -> Iterator[tuple[RunKind, int, int, str]]:
    for sequence, state, reason in uncounted:
        kind = RunKind.LOST if is_lost(sequence) else RunKind.REJECTED if state is State.REJECTED else RunKind.HELD
        yield kind, sequence, sequence, reason
    for first, last in gaps:
        at = first
        for lost_first, lost_last in lost:
            start, stop = max(at, lost_first), min(last, lost_last)
            if start > stop:
                continue
            if at < start:
                yield RunKind.MISSING, at, start - 1, ""
            yield RunKind.LOST, start, stop, ""
            at = stop + 1
        if at <= last:
            yield RunKind.MISSING, at, last, ""
