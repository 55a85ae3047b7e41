"""What happens to a seal: accepted, quarantined, known already, or proof that a key signed two histories.

Pure. A `Stream` is everything already stored that a new seal of one meter and key epoch has to agree with; `judge`
decides about one seal and leaves the stream as it is after it, so a batch is judged message by message. No clock, no
database: the time is an argument and the caller has loaded the neighbours.

Seals come in any order (live before backlog). Each is held against its nearest known neighbours; its link to its
predecessor, hash and netting, is checked as soon as both are known, whichever came last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from hub.readings.envelope import Readings, VerifiedSeal
from protocol.limits import FUTURE_MAX_S
from protocol.settlement import Netting

CAPACITY_MARGIN_PERCENT = 110
"""Inverters and fuses bear a little more than their plate says."""


class State(StrEnum):
    """Where a stored seal stands. Only accepted and released ones count."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    REJECTED = "rejected"


METER_SUSPENDED: Final = "meter_suspended"
METER_RETIRED: Final = "meter_retired"
FROM_THE_FUTURE: Final = "from_the_future"
TOO_OLD: Final = "too_old"
OVER_CAPACITY: Final = "over_capacity"
TIME_ORDER: Final = "time_order"
COUNTER_DECREASED: Final = "counter_decreased"
SURPLUS_OUT_OF_BOUNDS: Final = "surplus_out_of_bounds"
CHAIN_MISMATCH: Final = "chain_mismatch"
NETTING_MISMATCH: Final = "netting_mismatch"
EQUIVOCATION: Final = "equivocation"

RELEASABLE: Final = frozenset({METER_SUSPENDED, METER_RETIRED, FROM_THE_FUTURE, TOO_OLD, OVER_CAPACITY})
"""An operator may overrule what is implausible, never what contradicts the meter's own signatures."""


@dataclass(slots=True, frozen=True)
class Policy:
    """What the deployment decided. The age is that of the oldest reading, against the hub's clock."""

    community_id: str
    domain: bytes
    backlog_age_max_s: int


class SealFacts(msgspec.Struct, gc=False):
    """What is remembered of a seal: its signed fields and the ends of its readings. Energy in Wh, unix seconds.

    The one with sequence 0 is the enrolment statement, seen as the predecessor of the first seal.
    """

    sequence: int
    state: State
    linked: bool
    seal_hash: bytes
    previous_seal_hash: bytes
    sealed_at_unix_s: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    first_reading_unix_s: int
    first_production_wh: int
    first_consumption_wh: int
    last_reading_unix_s: int
    last_production_wh: int
    last_consumption_wh: int
    reading_count: int
    readings: Readings | None = None
    """In memory only: what netting needs again when the predecessor comes after its successor."""


@dataclass(slots=True)
class Stream:
    """One meter under one key epoch. `gaps` are the missing ranges below `highest_sequence`, ascending.

    `known` holds what the seals about to be judged need: the highest seal, and both ends of each gap they fall into
    or the seal they repeat.
    """

    meter_no: int
    key_epoch: int
    meter_id: str
    meter_state: str
    production_capacity_w: int
    connection_capacity_w: int
    register_quantum_wh: int
    highest_sequence: int
    contiguous_sequence: int
    contiguous_seal_hash: bytes | None
    gaps: list[tuple[int, int]] = field(kw_only=True)
    gaps_changed: bool = False
    known: dict[int, SealFacts] = field(default_factory=dict)

    def gap_of(self, sequence: int) -> tuple[int, int] | None:
        """The missing range to which a sequence at or below the highest belongs."""
        for first, last in self.gaps:
            if first <= sequence <= last:
                return first, last
        return None

    def needed(self, sequence: int) -> Iterator[int]:
        """The sequences of the stored seals that judging this one looks at."""
        if sequence > self.highest_sequence:
            yield self.highest_sequence
        elif gap := self.gap_of(sequence):
            yield gap[0] - 1
            yield gap[1] + 1
        else:
            yield sequence

    def ranges_beyond(self) -> list[tuple[int, int]]:
        """What is stored above the contiguous sequence, as inclusive ranges."""
        edges = [(last + 1, first - 1) for (_, last), (first, _) in zip(self.gaps, self.gaps[1:], strict=False)]
        return [*edges, (self.gaps[-1][1] + 1, self.highest_sequence)] if self.gaps else []

    def admit(self, facts: SealFacts) -> None:
        """Take a seal into the stream: numbers, gaps, and the contiguous end."""
        sequence = facts.sequence
        self.known[sequence] = facts
        if sequence > self.highest_sequence:
            if sequence > self.highest_sequence + 1:
                self.gaps.append((self.highest_sequence + 1, sequence - 1))
                self.gaps_changed = True
            self.highest_sequence = sequence
        else:
            gap = self.gap_of(sequence)
            assert gap is not None, "a stored seal cannot be admitted again"
            rest = [(gap[0], sequence - 1), (sequence + 1, gap[1])]
            at = self.gaps.index(gap)
            self.gaps[at : at + 1] = [(first, last) for first, last in rest if first <= last]
            self.gaps_changed = True
        contiguous = self.gaps[0][0] - 1 if self.gaps else self.highest_sequence
        if contiguous != self.contiguous_sequence:
            self.contiguous_sequence = contiguous
            end = self.known.get(contiguous)
            self.contiguous_seal_hash = end.seal_hash if end else None


class Outcome(StrEnum):
    """What became of a verified seal."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    REPEAT = "repeat"
    EQUIVOCATION = "equivocation"


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The decision about one seal. `facts` is what to store, None for a repeat.

    `successor` is a stored or just judged seal whose link this one settled; with a `successor_fault`, its readings
    turned out not to give the energy it states, and it is quarantined from now on.
    """

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    facts: SealFacts | None = None
    successor: SealFacts | None = None
    successor_fault: tuple[str, str] | None = None


def judge(stream: Stream, sealed: VerifiedSeal, policy: Policy, now_unix_s: int) -> Verdict:
    """Decide about one verified seal and update the stream."""
    seal = sealed.seal
    if seal.sequence <= stream.highest_sequence and stream.gap_of(seal.sequence) is None:
        stored = stream.known[seal.sequence]
        if stored.seal_hash == sealed.seal_hash:
            return Verdict(Outcome.REPEAT)
        return Verdict(
            Outcome.EQUIVOCATION,
            EQUIVOCATION,
            f"stored {stored.seal_hash.hex()}, now {sealed.seal_hash.hex()}",
        )
    gap = stream.gap_of(seal.sequence)
    below = stream.known[gap[0] - 1 if gap else stream.highest_sequence]
    above = stream.known[gap[1] + 1] if gap else None
    follows = below.sequence == seal.sequence - 1
    facts = facts_of(sealed, linked=follows)
    fault = (
        _standing(stream)
        or _contradiction(facts, below, above)
        or (_broken_link(facts, below) if follows else _surplus_bounds(facts, below))
        or (_successor_disagrees(facts, above) if above else None)
        or _clock(facts, policy, now_unix_s)
        or _over_capacity(stream, sealed.readings, below)
    )
    if fault:
        facts.state = State.QUARANTINED
    stream.admit(facts)
    outcome, reason, detail = (Outcome.QUARANTINED, *fault) if fault else (Outcome.ACCEPTED, "", "")
    if above is None or above.linked or above.previous_seal_hash != facts.seal_hash:
        return Verdict(outcome, reason, detail, facts)
    above.linked = True
    broken = _broken_link(above, facts)
    if broken and above.state is State.ACCEPTED:
        above.state = State.QUARANTINED
        return Verdict(outcome, reason, detail, facts, above, broken)
    return Verdict(outcome, reason, detail, facts, above)


def facts_of(sealed: VerifiedSeal, *, linked: bool) -> SealFacts:
    """What is to be remembered of a verified seal, as accepted."""
    seal, readings = sealed.seal, sealed.readings
    return SealFacts(
        sequence=seal.sequence,
        state=State.ACCEPTED,
        linked=linked,
        seal_hash=sealed.seal_hash,
        previous_seal_hash=seal.previous_seal_hash,
        sealed_at_unix_s=seal.sealed_at_unix_s,
        closed_until_unix_s=seal.closed_until_unix_s,
        production_wh=seal.production_wh,
        consumption_wh=seal.consumption_wh,
        surplus_wh=seal.surplus_wh,
        first_reading_unix_s=readings.times_unix_s[0],
        first_production_wh=readings.productions_wh[0],
        first_consumption_wh=readings.consumptions_wh[0],
        last_reading_unix_s=readings.times_unix_s[-1],
        last_production_wh=readings.productions_wh[-1],
        last_consumption_wh=readings.consumptions_wh[-1],
        reading_count=len(readings),
        readings=readings,
    )


_Fault = tuple[str, str] | None
"""A reason and its detail, or nothing."""


def _standing(stream: Stream) -> _Fault:
    if stream.meter_state == "suspended":
        return METER_SUSPENDED, "the meter is suspended"
    if stream.meter_state == "retired":
        return METER_RETIRED, "the meter is retired"
    return None


def _contradiction(facts: SealFacts, below: SealFacts, above: SealFacts | None) -> _Fault:
    """Whether the seal contradicts a neighbour, near or far: time and counters only grow along the sequence."""
    if facts.last_reading_unix_s > facts.sealed_at_unix_s:
        return TIME_ORDER, "a reading is later than its own seal"
    if fault := _out_of_order(below, facts):
        return fault
    return _out_of_order(facts, above) if above else None


def _out_of_order(earlier: SealFacts, later: SealFacts) -> _Fault:
    if (
        later.sealed_at_unix_s <= earlier.sealed_at_unix_s
        or later.first_reading_unix_s <= earlier.last_reading_unix_s
        or later.closed_until_unix_s < earlier.closed_until_unix_s
    ):
        return TIME_ORDER, f"seal {later.sequence} does not come after seal {earlier.sequence}"
    if (
        later.first_production_wh < earlier.last_production_wh
        or later.first_consumption_wh < earlier.last_consumption_wh
        or later.production_wh < earlier.production_wh
        or later.consumption_wh < earlier.consumption_wh
        or later.surplus_wh < earlier.surplus_wh
    ):
        return (
            COUNTER_DECREASED,
            f"a counter of seal {later.sequence} is below that of seal {earlier.sequence}",
        )
    return None


def _successor_disagrees(facts: SealFacts, above: SealFacts) -> _Fault:
    if above.sequence == facts.sequence + 1 and above.previous_seal_hash != facts.seal_hash:
        return CHAIN_MISMATCH, f"seal {above.sequence} names {above.previous_seal_hash.hex()} instead"
    return _surplus_bounds(above, facts)


def _surplus_bounds(later: SealFacts, earlier: SealFacts) -> _Fault:
    """What can be said of the surplus between two seals that do not touch."""
    produced_wh = later.production_wh - earlier.production_wh
    consumed_wh = later.consumption_wh - earlier.consumption_wh
    surplus_wh = later.surplus_wh - earlier.surplus_wh
    if max(0, produced_wh - consumed_wh) <= surplus_wh <= produced_wh:
        return None
    return SURPLUS_OUT_OF_BOUNDS, f"{surplus_wh} Wh of {produced_wh} Wh produced, {consumed_wh} Wh consumed"


def _broken_link(facts: SealFacts, predecessor: SealFacts) -> _Fault:
    """Check a seal against its direct predecessor: the hash, and the netting worked out again from the readings."""
    if facts.previous_seal_hash != predecessor.seal_hash:
        return CHAIN_MISMATCH, f"names {facts.previous_seal_hash.hex()} as its predecessor"
    assert facts.readings is not None, "the caller loads the readings of a seal whose link is open"
    netting = Netting(
        predecessor.closed_until_unix_s,
        predecessor.production_wh,
        predecessor.consumption_wh,
        predecessor.surplus_wh,
        predecessor.last_production_wh,
        predecessor.last_consumption_wh,
    )
    times = facts.readings.times_unix_s
    for _, last in facts.readings.closings:
        netting.add(times[last], facts.readings.productions_wh[last], facts.readings.consumptions_wh[last])
    stated = (facts.closed_until_unix_s, facts.production_wh, facts.consumption_wh, facts.surplus_wh)
    netted = (netting.closed_until_unix_s, netting.production_wh, netting.consumption_wh, netting.surplus_wh)
    if stated == netted:
        return None
    return (
        NETTING_MISMATCH,
        f"states {stated}, its readings give {netted} (until, produced, consumed, surplus)",
    )


def _clock(facts: SealFacts, policy: Policy, now_unix_s: int) -> _Fault:
    if facts.sealed_at_unix_s > now_unix_s + FUTURE_MAX_S:
        return FROM_THE_FUTURE, f"sealed {facts.sealed_at_unix_s - now_unix_s} s ahead of the hub's clock"
    if facts.first_reading_unix_s < now_unix_s - policy.backlog_age_max_s:
        return TOO_OLD, f"its first reading is {now_unix_s - facts.first_reading_unix_s} s old"
    return None


def _over_capacity(stream: Stream, readings: Readings, below: SealFacts) -> _Fault:
    """Whether energy came faster, between any two readings, than the installation can make or draw it."""
    produces_w = stream.production_capacity_w
    consumes_w = stream.connection_capacity_w + produces_w
    quantum_wh = stream.register_quantum_wh
    first_step_s = readings.times_unix_s[0] - below.last_reading_unix_s
    produced_wh = readings.productions_wh[0] - below.last_production_wh
    consumed_wh = readings.consumptions_wh[0] - below.last_consumption_wh
    if produced_wh > most_energy_wh(produces_w, first_step_s) + quantum_wh:
        return OVER_CAPACITY, f"{produced_wh} Wh produced in {first_step_s} s"
    if consumed_wh > most_energy_wh(consumes_w, first_step_s) + quantum_wh:
        return OVER_CAPACITY, f"{consumed_wh} Wh consumed in {first_step_s} s"
    # one comparison settles nearly every seal: the largest step against the shortest time
    shortest_s = readings.time_step_min_s
    if (
        readings.production_step_max_wh <= most_energy_wh(produces_w, shortest_s) + quantum_wh
        and readings.consumption_step_max_wh <= most_energy_wh(consumes_w, shortest_s) + quantum_wh
    ):
        return None
    times = readings.times_unix_s
    for what, counters, capacity_w in (
        ("produced", readings.productions_wh, produces_w),
        ("consumed", readings.consumptions_wh, consumes_w),
    ):
        for i in range(1, len(times)):
            step_wh, step_s = counters[i] - counters[i - 1], times[i] - times[i - 1]
            if step_wh > most_energy_wh(capacity_w, step_s) + quantum_wh:
                return OVER_CAPACITY, f"{step_wh} Wh {what} in {step_s} s"
    return None


def most_energy_wh(capacity_w: int, time_s: int) -> int:
    """The most that an installation can carry in that time, with its margin, rounded down to whole Wh."""
    return capacity_w * time_s * CAPACITY_MARGIN_PERCENT // 360_000


def enrolment_facts(
    closed_until_unix_s: int,
    valid_from_unix_s: int,
    production_wh: int,
    consumption_wh: int,
    surplus_wh: int,
    statement_seal_hash: bytes,
) -> SealFacts:
    """The enrolment statement as the predecessor of seal 1, so that the first seal needs no rule of its own."""
    return SealFacts(
        sequence=0,
        state=State.ACCEPTED,
        linked=True,
        seal_hash=statement_seal_hash,
        previous_seal_hash=statement_seal_hash,
        sealed_at_unix_s=valid_from_unix_s - 1,  # a reading at that very instant is allowed
        closed_until_unix_s=closed_until_unix_s,
        production_wh=production_wh,
        consumption_wh=consumption_wh,
        surplus_wh=surplus_wh,
        first_reading_unix_s=valid_from_unix_s - 1,
        first_production_wh=production_wh,
        first_consumption_wh=consumption_wh,
        last_reading_unix_s=valid_from_unix_s - 1,
        last_production_wh=production_wh,
        last_consumption_wh=consumption_wh,
        reading_count=0,
    )
