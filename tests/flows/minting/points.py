"""Where a mint can be struck: every step of it, who dies there, and what is wrong with the cluster meanwhile.

A step is a row that is about to be written, or the COMMIT behind it (`hand.py`), or a request on its way, which the
cluster itself holds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from tests.flows.minting.hand import BEFORE, COMMIT, FROZEN, Step

ON_ITS_WAY: Final = "on its way"

STEPS: Final = (
    # the meter's message
    Step("a seal is stored", "seals", "INSERT", "true"),
    # planning
    Step("a step is planned", "mints", "INSERT", "NEW.state = 'open'"),
    Step("its intent is written", "chain_intents", "INSERT", "NEW.kind = 'mint'"),
    # building
    Step("the intent is leased", "chain_intents", "UPDATE",
         "OLD.state = 'planned' AND NEW.state = 'planned' AND NEW.leased_until IS NOT NULL AND NEW.kind = 'mint'"),
    Step("the signed transaction is stored", "chain_attempts", "INSERT", "true"),
    Step("the intent is opened", "chain_intents", "UPDATE",
         "OLD.state = 'planned' AND NEW.state = 'open' AND NEW.kind = 'mint'"),
    # sending
    Step("the try is counted", "chain_attempts", "UPDATE", "NEW.sends > OLD.sends"),
    Step("the try is noted", "chain_intents", "UPDATE",
         "OLD.state = 'open' AND NEW.state = 'open' AND NEW.next_at > OLD.next_at AND NEW.kind = 'mint'"),
    # hearing of it
    Step("the event is written", "chain_events", "INSERT", "true"),
    Step("the cursor moves", "chain_cursor", "UPDATE", "NEW.slot > OLD.slot"),
    Step("the mirror follows", "chain_meters", "UPDATE", "NEW.slot > OLD.slot"),
    Step("the intent ends", "chain_intents", "UPDATE",
         "NEW.state = 'finalized' AND OLD.state <> 'finalized' AND NEW.kind = 'mint'"),
    Step("the seals are marked", "mints", "UPDATE", "NEW.state = 'finalized'"),
    Step("the event is processed", "chain_events", "UPDATE", "NEW.state = 'processed'"),
)  # fmt: skip

SIMULATED: Final = "the simulation is asked for"
REQUESTS: Final[Mapping[str, Mapping[str, object]]] = {
    SIMULATED: {"answer_delay_s": 1.0},
    "the transaction is taken and not executed": {"execution_delay_s": 1.5},
    "the transaction is executed and not answered": {"answer_delay_s": 1.5},
}
"""Steps between which no row is written; the cluster itself holds them, until the strike has fallen."""

VICTIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "nobody": (),
    "chain": ("chain",),
    "cluster": ("cluster",),
    "database": ("database",),
    "api, jobs and ingest": ("api", "jobs", "ingest"),
    "chain, frozen while another works": (FROZEN,),
    "chain and cluster": ("chain", "cluster"),
    "everything": ("api", "jobs", "ingest", "chain", "cluster", "database"),
}

FAULTS: Final[Mapping[str, Mapping[str, object]]] = {
    "none": {},
    "delay": {"answer_delay_s": 0.4, "duration_s": 3},
    "late execution": {"execution_delay_s": 0.8, "duration_s": 3},
    "drop the transaction": {"dropped_transactions": 1},
    "drop the answer after executing": {"lost_answers": 1},
    "expire the blockhash": {"expired_blockhashes": True},
    "lag": {"lag_slots": 40, "duration_s": 2},
    "prune history": {"history_slots": 1, "duration_s": 2},
    "refuse": {"refused_s": 1.5},
    "lie about the genesis": {"genesis_hash": "11111111111111111111111111111111", "duration_s": 2},
}
FROM_THE_START: Final = frozenset({"drop the transaction", "drop the answer after executing"})
"""Faults that have to be there before the transaction is; the others begin when the strike falls."""

CHOSEN_AMONG: Final = 100
"""Of so many points the next is the one that is least like those before."""


@dataclass(frozen=True)
class Point:
    """One strike."""

    step: str
    moment: str
    """Before the row is written, at its COMMIT, or on its way."""
    victim: str
    fault: str

    def __str__(self) -> str:
        return f"{self.step} ({self.moment}) x {self.victim} x {self.fault}"


def all_points() -> list[Point]:
    """Every step and moment, by everybody who may die, and every fault."""
    places = [(step.name, moment) for step in STEPS for moment in (BEFORE, COMMIT)]
    places += [(name, ON_ITS_WAY) for name in REQUESTS]
    points = [Point(*place, victim, fault) for place, victim, fault in product(places, VICTIMS, FAULTS)]
    # while a request is held by one fault, another is not in force
    return [each for each in points if each.moment != ON_ITS_WAY or each.fault == "none"]


def choose(count: int, seed: int) -> list[Point]:
    """So many points: each place, victim and fault as often as the others, as far as that goes."""
    rng = random.Random(seed)
    left = all_points()
    often: dict[object, int] = {}
    chosen = []
    for _ in range(min(count, len(left))):
        some = rng.sample(left, min(CHOSEN_AMONG, len(left)))
        point = min(some, key=lambda each: sum(often.get(aspect, 0) for aspect in _aspects(each)))
        left.remove(point)
        chosen.append(point)
        for aspect in _aspects(point):
            often[aspect] = often.get(aspect, 0) + 1
    return chosen


def _aspects(point: Point) -> Iterator[object]:
    yield "step", point.step
    yield "place", point.step, point.moment
    yield "victim", point.victim
    yield "fault", point.fault
    yield "both", point.step, point.victim


def switches(point: Point) -> dict[str, Any]:
    """The faults that belong to a point."""
    return dict(REQUESTS.get(point.step, {})) | dict(FAULTS[point.fault])
