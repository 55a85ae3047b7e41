"""One strike after the other on a town that lives on: seals are posted, a mint is under way, somebody dies.

What each meter does at a point is chosen by a seed: seals in order, late, out of order, with a hole that is filled
behind the strike, with one that is rejected, with one that is lost for ever, with a new key in between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from simulators.sealing import SealedMessage
from tests.flows.minting import points
from tests.flows.minting.books import judge, unrest
from tests.flows.minting.hand import REACHED_TIMEOUT_S, Hand
from tests.flows.minting.points import FROM_THE_START, REQUESTS, SIMULATED, STEPS, VICTIMS, Point
from tests.flows.minting.roofs import LOST, REJECTED, Roof
from tests.flows.minting.town import Town

SETTLED_TIMEOUT_S: Final = 120.0
IN_FLIGHT_S: Final = 0.4
"""After the try was counted: by then the request is at the cluster, which holds it for longer."""
LEAP_WH: Final = 1_000_000
ROTATIONS_MAX: Final = 20
"""Of a meter in a day, by the hub's own rule 24."""

_IN_FLIGHT = (
    "SELECT 1 FROM chain_intents AS i LEFT JOIN chain_attempts AS a USING (intent_id) WHERE kind = 'mint'"
    " AND ended_at IS NULL AND leased_until IS NOT NULL AND coalesce(sends, 0) = %s"
)

Later = Callable[[], None]


class Strikes:
    """Points struck at one after the other."""

    def __init__(self, town: Town, seed: int) -> None:
        self._town = town
        self._rng = random.Random(seed)
        self._posting = ThreadPoolExecutor(1)
        self._hand = Hand(town, STEPS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._hand.let_go()
        self._posting.shutdown()

    def strike(self, point: Point) -> None:
        """Live through one point; afterwards all books agree."""
        town, rng = self._town, self._rng
        messages, later = self._make_seals()
        faults = points.switches(point)
        if point.fault in FROM_THE_START or point.step in REQUESTS:
            town.cluster.fail(**faults)
        if point.step not in REQUESTS:
            self._hand.hold(point.step, point.moment)
        began_s = time.monotonic()
        posting = self._posting.submit(town.take, *messages)
        self._wait_until_reached(point)
        reached_s = time.monotonic()
        if faults and point.fault not in FROM_THE_START and point.step not in REQUESTS:
            town.cluster.fail(**faults)
        self._hand.strike(VICTIMS[point.victim], let_go_first=rng.random() < 0.5)
        if point.step in REQUESTS:
            town.cluster.fail()
        revived_s = time.monotonic()
        posting.result(SETTLED_TIMEOUT_S)
        for work in later:
            work()
        done_s = time.monotonic()
        self._settle(point)
        settled_s = time.monotonic()
        town.cluster.fail()
        self._hand.rest()
        judge(town)
        laps = began_s, reached_s, revived_s, done_s, settled_s, time.monotonic()
        print("  reached, revived, posted, settled, judged:", *(f"{b - a:.1f}" for a, b in pairwise(laps)))

    # --- what the meters do

    def _make_seals(self) -> tuple[list[SealedMessage], list[Later]]:
        """What is posted before the strike, and what happens behind it."""
        rng, first, later = self._rng, [], []
        sure = rng.choice(self._town.roofs)
        for roof in self._town.roofs:
            if roof is sure or rng.random() < 0.6:
                roof.let_the_sun_shine()
            act = rng.choice([_in_order, _late, _filled_later, _rejected, _lost, _rotated])
            if act is _rotated and roof.rotations >= ROTATIONS_MAX:
                act = _in_order
            now, behind = act(self._town, roof, rng)
            first += now
            later += behind
        return first, later

    # --- the strike

    def _wait_until_reached(self, point: Point) -> None:
        if point.step not in REQUESTS:
            self._hand.wait_until_held(point.step, point.moment)
            return
        town, sends = self._town, 0 if point.step == SIMULATED else 1
        town.wait_until(f"{point}", lambda: town.rows(_IN_FLIGHT, [sends]), REACHED_TIMEOUT_S)
        time.sleep(IN_FLIGHT_S)

    def _settle(self, point: Point) -> None:
        """Until nothing is under way and what is minted is what was earned."""
        deadline_s = time.monotonic() + SETTLED_TIMEOUT_S
        while reason := unrest(self._town):
            self._town.community.check_alive()
            assert time.monotonic() < deadline_s, f"{point}: {reason}\n{self._town.last_words()}"
            time.sleep(0.1)


# --- what a meter does at a point: what it posts before the strike, and what happens behind it

Act = tuple[list[SealedMessage], list[Later]]


def _in_order(_town: Town, roof: Roof, rng: random.Random) -> Act:
    return roof.seals(rng.randint(1, 3)), []


def _late(_town: Town, roof: Roof, rng: random.Random) -> Act:
    messages = roof.seals(3)
    rng.shuffle(messages)
    return messages, []


def _filled_later(town: Town, roof: Roof, _rng: random.Random) -> Act:
    first, second, third = roof.seals(3)
    return [first, third], [lambda: _take(town, second)]


def _rejected(town: Town, roof: Roof, _rng: random.Random) -> Act:
    """The register leaps: the seal is held, an operator looks at it and rejects it."""
    [good] = roof.seals(1)
    roof.leap(LEAP_WH)
    bad, *behind = roof.seals(3)
    roof.mark(bad, REJECTED)
    return [good, bad, *behind], [lambda: _reject(town, roof, bad)]


def _lost(town: Town, roof: Roof, _rng: random.Random) -> Act:
    """A seal never comes, and an operator says so."""
    first, lost, third = roof.seals(3)
    roof.mark(lost, LOST)
    path = f"/meters/{roof.meter_id}/gaps/{roof.key_epoch}/{lost.sequence}/declare-lost"
    return [first, third], [lambda: _declare_lost(town, path)]


def _rotated(town: Town, roof: Roof, _rng: random.Random) -> Act:
    """A new key takes over behind the strike, and seals once more."""
    return roof.seals(2), [lambda: _rotate(town, roof)]


def _take(town: Town, message: SealedMessage) -> None:
    assert town.take(message) == ["accepted"]


def _reject(town: Town, roof: Roof, bad: SealedMessage) -> None:
    entries = town.get(f"/quarantine?state=held&meter_id={roof.meter_id}")["entries"]
    [entry] = [each for each in entries if each["sequence"] == bad.sequence]
    town.post(f"/quarantine/{entry['quarantine_id']}/reject", {"note": "the register leapt"})


def _declare_lost(town: Town, path: str) -> None:
    town.post(path, {"note": "the device burnt"})


def _rotate(town: Town, roof: Roof) -> None:
    rotation, key = roof.rotate()
    town.post(f"/meters/{roof.meter_id}/keys", {"rotation": rotation.hex()})
    roof.take_over(key)
    [message] = roof.seals(1)
    _take(town, message)
