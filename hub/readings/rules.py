"""What happens to a seal: accepted, quarantined, known already, or proof that a key signed two histories.

Pure. A `Stream` is everything already stored that a new seal of one meter and key epoch has to agree with; `judge`
decides about one seal and leaves the stream as it is after it, so a batch is judged message by message. No clock, no
database: the time is an argument and the caller has loaded the neighbours.

Seals come in any order (live before backlog). Each is held against its nearest known neighbours; its link to its
predecessor, hash and netting, is checked as soon as both are known, whichever came last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import Final

import msgspec

from hub.readings.envelope import Readings, VerifiedSeal
from protocol.limits import FUTURE_MAX_S
from protocol.seal import NO_PREDECESSOR
from protocol.settlement import Netting

GAPS_PER_STREAM_MAX = 1_000
"""A seal that would open one more is not taken: the meter keeps it and sends it again."""

SUPERSEDED_KEPT_MAX = 100
"""So many seals of an old key beyond its end are kept as evidence. None can ever count."""

WATT_SECONDS_PER_WH = 3_600
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
KEY_REVOKED: Final = "key_revoked"
KEY_SUPERSEDED: Final = "key_superseded"
FROM_THE_FUTURE: Final = "from_the_future"
TOO_OLD: Final = "too_old"
OVER_CAPACITY: Final = "over_capacity"
TOO_MANY_GAPS: Final = "too_many_gaps"
TIME_ORDER: Final = "time_order"
COUNTER_DECREASED: Final = "counter_decreased"
SURPLUS_OUT_OF_BOUNDS: Final = "surplus_out_of_bounds"
CHAIN_MISMATCH: Final = "chain_mismatch"
NETTING_MISMATCH: Final = "netting_mismatch"
EQUIVOCATION: Final = "equivocation"
DECLARED_LOST: Final = "declared_lost"

LINK_FAULTS: Final = frozenset({CHAIN_MISMATCH, NETTING_MISMATCH, TIME_ORDER, COUNTER_DECREASED})
"""What leaves the link to the predecessor false, or unchecked because something graver came first."""

RELEASABLE: Final = frozenset(
    {METER_SUSPENDED, METER_RETIRED, FROM_THE_FUTURE, TOO_OLD, OVER_CAPACITY, KEY_REVOKED, DECLARED_LOST}
)
"""An operator may overrule what is implausible, never what contradicts the meter's own signatures: the next key's
statement says where the old one ended. What was declared lost only until minting has gone across (`service.py`)."""


@dataclass(slots=True, frozen=True)
class Policy:
    """What the deployment decided. The age is that of the oldest reading, against the hub's clock."""

    community_id: str
    domain: bytes
    backlog_age_max_s: int


class SealFacts(msgspec.Struct, gc=False):
    """What is remembered of a seal: its signed fields and the ends of its readings. Energy in Wh, unix seconds.

    The one with sequence 0 is the base of the key epoch, seen as the predecessor of its first seal.
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
    production_excess_ws: int = 0
    consumption_excess_ws: int = 0
    """How far the counters are ahead of what the capacity allows, in watt-seconds: at most one register step."""
    sound: bool = True
    """Whether later seals may be measured from it: false once it contradicts what the meter signed elsewhere."""
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
    key_revoked: bool = field(default=False, kw_only=True)
    superseded_after: int | None = field(default=None, kw_only=True)
    """The last sequence that counts, once another key has taken over."""
    current_key_epoch: int = field(default=1, kw_only=True)
    lost: list[tuple[int, int]] = field(default_factory=list, kw_only=True)
    """Ranges that an operator has given up."""
    owner: bytes = field(default=bytes(32), kw_only=True)
    """The public key of the owner's wallet: for telling whom it concerns; no rule looks at it."""

    def gap_of(self, sequence: int) -> tuple[int, int] | None:
        """The missing range to which a sequence at or below the highest belongs."""
        at = bisect_right(self.gaps, sequence, key=itemgetter(0)) - 1
        return self.gaps[at] if at >= 0 and sequence <= self.gaps[at][1] else None

    def sound_below(self, sequence: int) -> SealFacts:
        """The nearest lower seal from which energy may be measured; at last the base of the epoch."""
        return max(
            (facts for facts in self.known.values() if facts.sound and facts.sequence < sequence),
            key=attrgetter("sequence"),
        )

    def sound_above(self, sequence: int) -> SealFacts | None:
        """The nearest higher one, if there is any."""
        return min(
            (facts for facts in self.known.values() if facts.sound and facts.sequence > sequence),
            key=attrgetter("sequence"),
            default=None,
        )

    def needed(self, sequence: int) -> Iterator[int]:
        """The sequences of the stored seals that judging this one looks at."""
        if sequence > self.highest_sequence:
            yield self.highest_sequence
        elif gap := self.gap_of(sequence):
            yield gap[0] - 1
            yield gap[1] + 1
        else:
            yield sequence

    def kept_beyond_the_end(self) -> int:
        """How many seals are stored beyond the last that counts, once another key has taken over."""
        if self.superseded_after is None or self.highest_sequence <= self.superseded_after:
            return 0
        missing = sum(max(0, last - max(first - 1, self.superseded_after)) for first, last in self.gaps)
        return self.highest_sequence - self.superseded_after - missing

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
    NOT_TAKEN = "not_taken"


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
    if len(stream.gaps) >= GAPS_PER_STREAM_MAX and _opens_a_gap(seal.sequence, gap, stream.highest_sequence):
        return Verdict(Outcome.NOT_TAKEN, TOO_MANY_GAPS, f"{len(stream.gaps)} gaps are open")
    if _is_beyond_the_end(stream, seal.sequence) and stream.kept_beyond_the_end() >= SUPERSEDED_KEPT_MAX:
        return Verdict(Outcome.NOT_TAKEN, KEY_SUPERSEDED, f"{SUPERSEDED_KEPT_MAX} such seals are kept already")
    below = stream.known[gap[0] - 1 if gap else stream.highest_sequence]
    above = stream.known[gap[1] + 1] if gap else None
    facts = facts_of(sealed)
    base = below if below.sound else stream.sound_below(seal.sequence)
    ceiling = above if above is None or above.sound else stream.sound_above(seal.sequence)
    follows = below.sequence == seal.sequence - 1
    contradiction = (
        _contradiction(facts, base, ceiling)
        or (_broken_link(facts, below) if follows else _surplus_bounds(facts, base))
        or (_successor_disagrees(facts, ceiling) if ceiling else None)
    )
    implausible = _over_capacity(stream, facts, base) or _clock(facts, policy, now_unix_s)
    fault = contradiction or _superseded(stream, facts) or _revoked(stream, implausible)
    fault = fault or _declared_lost(stream, facts, implausible) or implausible or _standing(stream)
    facts.sound = contradiction is None
    facts.linked = follows and (contradiction is None or contradiction[0] not in LINK_FAULTS)
    facts.state = State.QUARANTINED if fault else State.ACCEPTED
    stream.admit(facts)
    outcome, reason, detail = (Outcome.QUARANTINED, *fault) if fault else (Outcome.ACCEPTED, "", "")
    if (
        above is None
        or above.sequence != seal.sequence + 1
        or above.linked
        or above.previous_seal_hash != facts.seal_hash
    ):
        return Verdict(outcome, reason, detail, facts)
    broken = _broken_link(above, facts)
    above.linked = broken is None
    if broken:
        above.sound = False
        above.state = State.QUARANTINED
    return Verdict(outcome, reason, detail, facts, above, broken)


def _is_beyond_the_end(stream: Stream, sequence: int) -> bool:
    return stream.superseded_after is not None and sequence > stream.superseded_after


def _opens_a_gap(sequence: int, gap: tuple[int, int] | None, highest_sequence: int) -> bool:
    if gap is None:
        return sequence > highest_sequence + 1
    return gap[0] < sequence < gap[1]


def facts_of(sealed: VerifiedSeal) -> SealFacts:
    """What is to be remembered of a verified seal, before it is judged."""
    seal, readings = sealed.seal, sealed.readings
    return SealFacts(
        sequence=seal.sequence,
        state=State.ACCEPTED,
        linked=False,
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


def _superseded(stream: Stream, facts: SealFacts) -> _Fault:
    if not _is_beyond_the_end(stream, facts.sequence):
        return None
    return KEY_SUPERSEDED, f"another key took over behind seal {stream.superseded_after}"


def _revoked(stream: Stream, implausible: _Fault) -> _Fault:
    """What a revoked key signs is held whatever time it claims to be from: that, too, is only the key's word."""
    if not stream.key_revoked:
        return None
    return KEY_REVOKED, "the key is revoked" + _also(implausible)


def _declared_lost(stream: Stream, facts: SealFacts, implausible: _Fault) -> _Fault:
    """What comes after all does not count by itself: minting may have gone across, and the rest was written off."""
    if not any(first <= facts.sequence <= last for first, last in stream.lost):
        return None
    return DECLARED_LOST, "an operator had declared it lost" + _also(implausible)


def _also(implausible: _Fault) -> str:
    return f"; also {implausible[0]}: {implausible[1]}" if implausible else ""


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


def _over_capacity(stream: Stream, facts: SealFacts, base: SealFacts) -> _Fault:
    """Whether energy came faster than the installation can make or draw it, and how far ahead the counters are now.

    Over any stretch of readings, also across seals, the energy is at most capacity × time and one register step, since
    registers move in such. So many small steps are no way around: the excess is carried from seal to seal, like the
    level of a bucket that the capacity empties.
    """
    readings = facts.readings
    assert readings is not None
    produces_w = stream.production_capacity_w
    consumes_w = produces_w + stream.connection_capacity_w
    limit_ws = stream.register_quantum_wh * WATT_SECONDS_PER_WH
    times = [base.last_reading_unix_s, *readings.times_unix_s]
    produced_wh = [base.last_production_wh, *readings.productions_wh]
    consumed_wh = [base.last_consumption_wh, *readings.consumptions_wh]
    production = _excess_ws(base.production_excess_ws, produces_w, limit_ws, times, produced_wh)
    consumption = _excess_ws(base.consumption_excess_ws, consumes_w, limit_ws, times, consumed_wh)
    facts.production_excess_ws = min(production, limit_ws)
    facts.consumption_excess_ws = min(consumption, limit_ws)
    for what, excess_ws, capacity_w in (("produced", production, produces_w), ("consumed", consumption, consumes_w)):
        if excess_ws > limit_ws:
            return OVER_CAPACITY, f"{excess_ws // WATT_SECONDS_PER_WH} Wh {what} beyond {capacity_w} W"
    return None


def _excess_ws(excess_ws: int, capacity_w: int, limit_ws: int, times_unix_s: list[int], counters_wh: list[int]) -> int:
    """The excess after these readings; or the first one above the limit."""
    allowed_w = capacity_w * CAPACITY_MARGIN_PERCENT // 100
    steps = zip(times_unix_s, times_unix_s[1:], counters_wh, counters_wh[1:], strict=False)
    for before_s, after_s, before_wh, after_wh in steps:
        excess_ws += (after_wh - before_wh) * WATT_SECONDS_PER_WH - allowed_w * (after_s - before_s)
        if excess_ws > limit_ws:
            return excess_ws
        excess_ws = max(excess_ws, 0)
    return excess_ws


def base_facts(
    *,
    closed_until_unix_s: int,
    production_wh: int,
    consumption_wh: int,
    surplus_wh: int,
    sealed_at_unix_s: int,
    last_reading_unix_s: int,
    last_production_wh: int,
    last_consumption_wh: int,
    production_excess_ws: int,
    consumption_excess_ws: int,
) -> SealFacts:
    """The base of a key epoch as the predecessor of its seal 1, so that the first seal needs no rule of its own.

    For the first key that is its enrolment statement, for a later one the last seal of the key before: what was
    counted, and how far ahead of the capacity, goes on across the change.
    """
    return SealFacts(
        sequence=0,
        state=State.ACCEPTED,
        linked=True,
        seal_hash=NO_PREDECESSOR,
        previous_seal_hash=NO_PREDECESSOR,
        sealed_at_unix_s=sealed_at_unix_s,
        closed_until_unix_s=closed_until_unix_s,
        production_wh=production_wh,
        consumption_wh=consumption_wh,
        surplus_wh=surplus_wh,
        first_reading_unix_s=last_reading_unix_s,
        first_production_wh=last_production_wh,
        first_consumption_wh=last_consumption_wh,
        last_reading_unix_s=last_reading_unix_s,
        last_production_wh=last_production_wh,
        last_consumption_wh=last_consumption_wh,
        reading_count=0,
        production_excess_ws=production_excess_ws,
        consumption_excess_ws=consumption_excess_ws,
    )
