"""Whole lives of a meter, step by step: the rules against the program as its page describes it, without a database.

Seals that count, are rejected or get lost; leaps; rotations; revocations that go back, under a mark that the old keys
leave behind. Nothing may be sent that the program refuses, and no watt-hour minted that no honest seal had.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from hub.chain.accounts import MeterAccount, MeterState
from hub.minting.rules import Line, NextKey, Nothing, Present, Rotate, Run, RunKind, next_step
from hub.readings.rules import SealFacts, State
from protocol.seal import NO_PREDECESSOR, Seal, encode_seal
from tests.hub.minting.chain_model import ModelChain, take_key

QUARTER_S = 900
CAPACITY_W, STEP_WH = 10_000, 10
MOST_WH = CAPACITY_W // 4
DOMAIN = b"a domain"
STEPS_MAX = 400
START_UNIX_S, NOW_UNIX_S = 900 * 1_988_889, 2_000_000_000
ACCEPTED, REJECTED, LOST = "accepted", "rejected", "lost"

seals = st.tuples(
    st.sampled_from([ACCEPTED] * 6 + [REJECTED, REJECTED, LOST]),
    st.integers(0, 4),  # quarters that it closes
    st.integers(0, 100),  # per cent of the capacity
    st.integers(0, 3_000),  # Wh consumed
    st.sampled_from([0] * 8 + [700, 50_000]),  # a leap of the register, which is rejected
)
turns = st.lists(
    st.one_of(
        st.lists(seals, min_size=1, max_size=6),
        st.just("mint"),
        st.just("mint"),
        st.just("rotate"),
        st.integers(0, 12),  # a revocation, to so many counted seals ago
    ),
    max_size=25,
)


@dataclass(frozen=True)
class At:
    """Where the registers of a line stand, and what of the surplus honest seals brought."""

    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    earned_wh: int = 0


@dataclass
class Epoch:
    """One key: where it began, and what it sealed, as the hub looks at it."""

    base: At
    seals: dict[int, tuple[str, At]] = field(default_factory=dict)
    ends_after: int | None = None
    """The seal at which the next key took over, if it is one of this key's."""
    named: int | None = None
    """The seal that the next key's statement names; taken back since, if it lies beyond `ends_after`."""


@dataclass
class Life:
    epochs: list[Epoch]
    chain: MeterAccount
    model: ModelChain
    most_earned_wh: int = 0
    minted_wh: int = 0

    @classmethod
    def begin(cls) -> Life:
        start = At(START_UNIX_S, 1_000, 1_000, 500)
        chain = MeterAccount(
            Pubkey.default(), MeterState.ACTIVE, 1, "roof", bytes(32), bytes(32), bytes(32), 1, 1, 0, CAPACITY_W,
            STEP_WH, 0, START_UNIX_S, 1_000, 1_000, 500, 500, 0, 0, 1_000, 500, 0, 0, 0,
        )  # fmt: skip
        return cls([Epoch(start)], chain, ModelChain(None, DOMAIN))  # type: ignore[arg-type]

    def counted(self) -> list[tuple[int, int, At]]:
        """(epoch, sequence, where) of what counts of the line, the oldest first; sequence 0: where the first began."""
        found = [(0, 0, self.epochs[0].base)]
        for number, epoch in enumerate(self.epochs):
            last = max(epoch.seals, default=0) if epoch.ends_after is None else epoch.ends_after
            found += [(number, at, one) for at, (state, one) in epoch.seals.items() if state == ACCEPTED and at <= last]
        return found

    def newest(self) -> At:
        """The last seal of the present key, or where that key began."""
        epoch = self.epochs[-1]
        return epoch.seals[max(epoch.seals)][1] if epoch.seals else epoch.base

    def seal(self, state: str, quarters: int, percent: int, consumed_wh: int, leap_wh: int) -> None:
        before, epoch = self.newest(), self.epochs[-1]
        if leap_wh:
            state = REJECTED
        produced_wh = quarters * MOST_WH * percent // 100 if quarters else 0
        consumed_wh = consumed_wh if quarters else 0
        leap_wh = leap_wh if quarters else 0
        surplus_wh = max(0, produced_wh + leap_wh - consumed_wh)
        earned_wh = before.earned_wh + (surplus_wh if state != REJECTED else 0)
        at = At(
            before.closed_until_unix_s + quarters * QUARTER_S,
            before.production_wh + produced_wh + leap_wh,
            before.consumption_wh + consumed_wh,
            before.surplus_wh + surplus_wh,
            earned_wh,
        )
        epoch.seals[max(epoch.seals, default=0) + 1] = (state, at)
        self.most_earned_wh = max(self.most_earned_wh, earned_wh)

    def rotate(self) -> None:
        """The device's last seal must count, or there is no rotation."""
        epoch = self.epochs[-1]
        last = max(epoch.seals, default=0)
        if last and epoch.seals[last][0] != ACCEPTED:
            return
        epoch.ends_after = epoch.named = last
        self.epochs.append(Epoch(self.newest()))

    def revoke(self, back: int) -> None:
        """All behind a counted seal is taken back with its keys; the owner goes on from there with another."""
        counted = self.counted()
        number, sequence, base = counted[-1 - min(back, len(counted) - 1)]
        for later in self.epochs[number + 1 :]:
            later.ends_after = 0
        self.epochs[number].ends_after = sequence
        self.epochs.append(Epoch(base))

    def line(self) -> Line:
        number = self.chain.key_epoch - 1
        epoch = self.epochs[number]
        end = max(epoch.seals, default=0) if epoch.ends_after is None else epoch.ends_after
        kinds = {ACCEPTED: RunKind.COUNTED, REJECTED: RunKind.REJECTED, LOST: RunKind.LOST}
        runs: list[Run] = []
        for sequence in range(self.chain.sequence + 1, end + 1):
            kind = kinds[epoch.seals[sequence][0]]
            if runs and runs[-1].kind is kind:
                runs[-1] = replace(runs[-1], last=sequence)
            else:
                runs.append(Run(kind, sequence, sequence))
        presented = self.facts(epoch, self.chain.sequence) if self.chain.sequence else None
        return Line(runs, lambda sequence: self.facts(epoch, sequence), presented, self.next_key(number))

    def next_key(self, number: int) -> NextKey | None:
        if number + 1 == len(self.epochs):
            return None
        base = self.epochs[number + 1].base
        named = self.epochs[number].named
        if named is None:
            named = self.epochs[number].ends_after or None
        return NextKey(
            number + 2,
            base.closed_until_unix_s,
            base.production_wh,
            base.consumption_wh,
            base.surplus_wh,
            named or None,
        )

    @staticmethod
    def facts(epoch: Epoch, sequence: int) -> SealFacts:
        state, at = epoch.seals[sequence]
        before = epoch.seals[sequence - 1][1] if sequence > 1 else epoch.base
        return SealFacts(
            sequence, State.ACCEPTED if state == ACCEPTED else State.REJECTED, True, bytes(32), bytes(32), 0,
            at.closed_until_unix_s, at.production_wh, at.consumption_wh, at.surplus_wh,
            before.closed_until_unix_s + 1, before.production_wh, before.consumption_wh,
            at.closed_until_unix_s, at.production_wh, at.consumption_wh, 1,
        )  # fmt: skip

    def mint(self) -> Nothing:
        """Step by step until nothing is left; a refusal of the program fails the test."""
        for _ in range(STEPS_MAX):
            step = next_step(self.chain, self.line(), NOW_UNIX_S)
            if isinstance(step, Nothing):
                return step
            if isinstance(step, Rotate):
                base = self.epochs[step.key_epoch - 1].base
                self.chain = take_key(
                    self.chain, bytes(32), step.key_epoch, base.closed_until_unix_s,
                    (base.production_wh, base.consumption_wh, base.surplus_wh),
                )  # fmt: skip
                continue
            self.present(step)
            self.check()
        raise AssertionError("minting goes on for ever")

    def present(self, step: Present) -> None:
        one = step.seal
        data = encode_seal(
            Seal(
                DOMAIN, one.sequence, one.closed_until_unix_s, one.closed_until_unix_s, one.production_wh,
                one.consumption_wh, one.surplus_wh, NO_PREDECESSOR if one.sequence == 1 else b"p" * 32, bytes(32),
            )
        )  # fmt: skip
        if step.writes_off:
            figures = (step.written_off_production_to_wh, step.written_off_surplus_to_wh)
            self.chain = self.model._write_off(self.chain, data, *figures, NOW_UNIX_S)
        else:
            self.chain = self.model._submit(self.chain, data, NOW_UNIX_S)
        assert step.surplus_wh == step.minted_wh + step.written_off_wh + step.earned_back_wh or not step.settles
        assert min(step.minted_wh, step.written_off_wh, step.earned_back_wh) >= 0
        if step.minted_wh:
            before_wh = self.chain.settled_wh
            self.chain = self.model._settle(self.chain)
            assert self.chain.settled_wh - before_wh == step.minted_wh
            self.minted_wh += step.minted_wh

    def check(self) -> None:
        assert self.minted_wh == self.chain.settled_wh - self.chain.base_surplus_wh
        assert self.minted_wh <= self.most_earned_wh


@settings(max_examples=100, deadline=None)
@given(turns)
def test_no_life_mints_what_no_honest_seal_had_and_nothing_is_sent_in_vain(life):
    meter = Life.begin()
    for turn in life:
        if turn == "mint":
            meter.mint()
        elif turn == "rotate":
            meter.rotate()
        elif isinstance(turn, int):
            meter.revoke(turn)
        else:
            for one in turn:
                meter.seal(*one)
        meter.check()
    meter.mint()
    meter.check()
