"""The oracle: what must be counted, worked out from what the meters truly showed, and never from what was believed.

Also the hub's end: every seal is opened and judged by the hub's own rules.
"""

from collections import Counter
from dataclasses import dataclass, field

from hub.readings.envelope import Arrival, MeterKeys, VerifiedSeal, open_envelope
from hub.readings.rules import Outcome, Policy, Stream, base_facts, judge
from protocol.enrolment import Enrolment
from protocol.settlement import first_closed_until

QUARTER_S = 900


@dataclass
class Books:
    """The energy registers of one home. Everything in Wh; a total is continuous since the enrolment.

    `measurement_pair`: a generation meter beside the grid meter; otherwise net only.
    """

    shown: dict[str, int]
    truth: dict[str, int]
    modulus_wh: int | None
    step_wh: int
    pair: bool
    totals: dict[str, int] = field(init=False)
    production_wh: int = field(init=False)
    consumption_wh: int = field(init=False)
    readings: dict[int, tuple[int, int]] = field(default_factory=dict)
    begun_again: set[str] = field(default_factory=set)
    lost: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.tolerance_wh = 2 * self.step_wh
        self.first_shown, self.first_truth = dict(self.shown), dict(self.truth)
        self.totals = dict(self.shown)
        production_wh, consumption_wh = self._sums()
        self._base_wh = max(0, -consumption_wh)
        self.production_wh, self.consumption_wh = production_wh, consumption_wh + self._base_wh
        self.start = self.production_wh, self.consumption_wh

    def _sums(self) -> tuple[int, int]:
        if self.pair:
            generation_wh = self.totals["generation"]
            return generation_wh, generation_wh + self.totals["grid_import"] - self.totals["grid_export"]
        return self.totals["grid_export"], self.totals["grid_import"]

    def take(self, shown: dict[str, int], truth: dict[str, int]) -> None:
        """A poll is believed that showed this: count its differences, and nothing where a register began again."""
        for name, now_wh in shown.items():
            passed_wh = truth[name] - self.truth[name]
            counted_wh = now_wh - self.shown[name]
            if name in self.begun_again:
                counted_wh = 0
                self.lost[name] += passed_wh + self._lag_wh(name)
                self.tolerance_wh += self.step_wh
            elif counted_wh < 0:
                assert self.modulus_wh is not None, f"{name} fell and did not begin again"
                counted_wh += self.modulus_wh
            self.totals[name] += counted_wh
            assert self.behind_wh(name, truth) >= -self.tolerance_wh  # never more than has truly passed
        self.shown, self.truth = dict(shown), dict(truth)
        self.begun_again.clear()
        production_wh, consumption_wh = self._sums()
        self.production_wh = max(self.production_wh, production_wh)
        self.consumption_wh = max(self.consumption_wh, consumption_wh + self._base_wh)

    def behind_wh(self, name: str, truth: dict[str, int]) -> int:
        """What has passed since the enrolment and is neither counted nor known to be lost."""
        counted_wh = self.totals[name] - self.first_shown[name] + self.lost[name]
        return truth[name] - self.first_truth[name] - counted_wh

    def _lag_wh(self, name: str) -> int:
        """What a register had not shown yet when it was last believed, because it stood still."""
        behind_wh = self.behind_wh(name, self.truth)
        return behind_wh if behind_wh > self.tolerance_wh else 0

    def replace(self, names: list[str], shown: dict[str, int], truth: dict[str, int]) -> None:
        """A person has accepted these registers as they are: what passed since the last reading is nobody's."""
        for name in names:
            self.lost[name] += truth[name] - self.truth[name] + self._lag_wh(name)
            self.tolerance_wh += self.step_wh
            self.shown[name], self.truth[name] = shown[name], truth[name]
            self.begun_again.discard(name)

    def surplus_wh(self, valid_from_unix_s: int, until_unix_s: int) -> int:
        """Σ over closed quarters of what production exceeds consumption by, from the readings that were kept."""
        closings: dict[int, tuple[int, int]] = {}
        for time_unix_s in sorted(self.readings):
            closings[-(-time_unix_s // QUARTER_S)] = self.readings[time_unix_s]
        surplus_wh, before = 0, self.start
        for quarter, after in closings.items():
            if quarter * QUARTER_S <= until_unix_s:
                surplus_wh += max(0, (after[0] - before[0]) - (after[1] - before[1]))
                before = after
        return surplus_wh


class Judge:
    """The hub for one meter, in memory."""

    def __init__(
        self, statement: Enrolment, production_capacity_w: int, connection_capacity_w: int, register_quantum_wh: int
    ) -> None:
        self._keys = MeterKeys(1, statement.meter_id, ((1, statement.public_key),))
        self._policy = Policy("faulty-street", statement.domain, 35 * 86_400)
        self._stream = Stream(
            1,
            1,
            statement.meter_id,
            "active",
            production_capacity_w,
            connection_capacity_w,
            register_quantum_wh,
            0,
            0,
            None,
            gaps=[],
        )
        self._stream.known[0] = base_facts(
            closed_until_unix_s=first_closed_until(statement.valid_from_unix_s),
            production_wh=statement.production_wh,
            consumption_wh=statement.consumption_wh,
            surplus_wh=0,
            sealed_at_unix_s=statement.valid_from_unix_s - 1,
            last_reading_unix_s=statement.valid_from_unix_s - 1,
            last_production_wh=statement.production_wh,
            last_consumption_wh=statement.consumption_wh,
            production_excess_ws=0,
            consumption_excess_ws=0,
        )

    def receive(self, message: bytes, now_unix_s: int) -> tuple[VerifiedSeal, str]:
        """Open and judge a message. Returns the seal and why it is quarantined, if it is."""
        opened = open_envelope(Arrival("", message), self._keys.meter_id, self._keys, self._policy.domain)
        assert isinstance(opened, VerifiedSeal), opened
        verdict = judge(self._stream, opened, self._policy, now_unix_s)
        assert verdict.outcome in (Outcome.ACCEPTED, Outcome.QUARANTINED), verdict
        highest = self._stream.highest_sequence
        self._stream.known = {highest: self._stream.known[highest]}
        self._stream.known[highest].readings = None
        return opened, f"{verdict.reason}: {verdict.detail}" if verdict.outcome == Outcome.QUARANTINED else ""
