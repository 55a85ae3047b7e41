"""A meter that holds a valid key and signs whatever suits it, and operators who believe it: no energy beyond the plate.

The liar seals in its own chain, so hashes and netting mostly fit; what does not fit is chosen by a seeded hand: leaps,
falls, times that run back or ahead, surplus from nowhere, foreign predecessors, missing numbers. Meters are suspended
and resumed, entries released and rejected, at any moment.
"""

import hashlib
import random
import struct

import pytest
from sqlalchemy import text

from hub.db import snapshot, transaction
from hub.errors import QuarantineNotReleasable
from hub.readings import queries, rules
from protocol.readings import Reading, encode_readings
from protocol.seal import LAYOUT, MAGIC, NO_PREDECESSOR, sha256
from protocol.settlement import Netting, first_closed_until
from simulators.sealing import (
    START_CONSUMPTION_WH,
    START_PRODUCTION_WH,
    START_SURPLUS_WH,
    SealedMessage,
    SimulatedMeter,
)
from tests.hub.readings.conftest import CAPACITY, POLICY, START, Hub, fleet

LIES = ("leap", "fall", "back in time", "ahead of time", "surplus", "predecessor", "skip", "creep")
STEPS = 40


class Liar:
    """Seals with the key of a registered meter, from a state that it may change as it likes."""

    def __init__(self, meter: SimulatedMeter, rng: random.Random) -> None:
        self.meter = meter
        self.rng = rng
        self.time = int(START.timestamp())
        self.wh = [START_PRODUCTION_WH, START_CONSUMPTION_WH]
        self.sequence = 0
        self.previous = NO_PREDECESSOR
        closed = first_closed_until(self.time)
        self.netting = Netting(closed, *self.wh, START_SURPLUS_WH, *self.wh)

    def seal(self, lie: str | None) -> SealedMessage:
        rng = self.rng
        if lie == "leap":
            self.wh[rng.randrange(2)] += rng.choice([300, 5_000, 10**9])
        elif lie == "fall":
            self.wh = [START_PRODUCTION_WH, START_CONSUMPTION_WH]
        elif lie == "back in time":
            self.time -= rng.choice([60, 900, 5_000])
        elif lie == "ahead of time":
            self.time += rng.choice([4_000, 90_000])
        elif lie == "skip":
            self.sequence += rng.randint(1, 3)
        readings = []
        for _ in range(rng.randint(1, 6)):
            self.time += 1 if lie == "creep" else rng.choice([60, 300, 450])
            step_wh = rng.randint(0, 10) if lie == "creep" else rng.randint(0, 3)
            self.wh = [self.wh[0] + step_wh, self.wh[1] + rng.randint(0, 3)]
            self.netting.add(self.time, *self.wh)
            readings.append(Reading(self.time, *self.wh))
        section = encode_readings(readings)
        self.sequence += 1
        surplus_wh = min(self.netting.surplus_wh, self.netting.production_wh)
        if lie == "surplus":
            surplus_wh = min(surplus_wh + rng.choice([1, 10**6]), self.netting.production_wh)
        previous = rng.randbytes(32) if lie == "predecessor" and self.sequence > 1 else self.previous
        if self.sequence > 1 and previous == NO_PREDECESSOR:
            previous = rng.randbytes(32)
        signed = struct.pack(
            LAYOUT, MAGIC, self.meter.domain, self.sequence, self.time,
            min(self.netting.closed_until_unix_s, self.time), self.netting.production_wh,
            self.netting.consumption_wh, surplus_wh, previous, sha256(section),
        )  # fmt: skip
        self.previous = hashlib.sha256(signed).digest()
        message = signed + self.meter.key.sign(signed).signature + section
        return SealedMessage(self.meter.meter_id, self.sequence, len(readings), message)


@pytest.mark.parametrize("seed", range(25))
def test_no_lie_and_no_credulous_operator_make_energy(hub: Hub, seed: int) -> None:
    tell_lies(hub, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1_000, 1_400))
def test_no_lie_in_hundreds_of_histories_makes_energy(hub: Hub, seed: int) -> None:
    tell_lies(hub, seed)


def tell_lies(hub: Hub, seed: int) -> None:
    rng = random.Random(seed)
    [meter] = fleet(1, seed + 1)
    hub.register(meter)
    liar = Liar(meter, rng)
    late: list[SealedMessage] = []
    for _ in range(STEPS):
        message = liar.seal(rng.choice(LIES) if rng.random() < 0.4 else None)
        if rng.random() < 0.2:
            late.append(message)
        else:
            hub.take(message)
        if late and rng.random() < 0.3:
            hub.take(*(late.pop(rng.randrange(len(late))) for _ in range(rng.randint(1, len(late)))))
        act(hub, rng)
        check(hub)
    hub.take(*rng.sample(late, len(late)))
    check(hub)
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'internal_fault'") == 0
    kept = {"accepted", "quarantined", "released", "rejected"}
    assert {row[0] for row in hub.rows("SELECT DISTINCT state FROM seals")} <= kept


def act(hub: Hub, rng: random.Random) -> None:
    """What operators do: anything, but let a leap count."""
    if rng.random() < 0.1:
        state = rng.choice(["suspended", "active"])
        with transaction(hub.engine) as connection:
            connection.execute(text("UPDATE meters SET state = :state"), {"state": state})
    held = hub.rows("SELECT quarantine_id, reason FROM quarantine WHERE state = 'held'")
    for quarantine_id, reason in rng.sample(held, min(len(held), rng.randrange(3))):
        assert isinstance(quarantine_id, int)
        if rng.random() < 0.3:
            hub.reject(quarantine_id)
        elif reason != rules.OVER_CAPACITY:
            try:
                hub.release(quarantine_id)
            except QuarantineNotReleasable:
                continue  # what contradicts the signatures; which reasons those are, test_ingest.py says


def check(hub: Hub) -> None:
    """The energy shown is what the installation can have carried, and what counted seals account for."""
    [(last_unix_s, production_wh, consumption_wh)] = hub.rows(
        "SELECT extract(epoch FROM max(last_reading_at))::bigint, max(production_wh), max(consumption_wh)"
        " FROM interval_closings"
    )
    if last_unix_s is None:
        return
    assert isinstance(last_unix_s, int) and isinstance(production_wh, int) and isinstance(consumption_wh, int)
    start_unix_s = int(START.timestamp())
    end_unix_s = -(-last_unix_s // 900) * 900
    with snapshot(hub.engine) as connection:
        energies = queries.list_energies(connection, 1, start_unix_s // 900 * 900, end_unix_s, 900)
    shown_wh = sum(energy.production_wh for energy in energies)
    used_wh = sum(energy.consumption_wh for energy in energies)
    time_s = last_unix_s - start_unix_s + 1
    most_wh = CAPACITY.production_capacity_w * time_s * 11 // 36_000 + CAPACITY.register_quantum_wh
    assert shown_wh <= most_wh
    assert shown_wh <= production_wh - START_PRODUCTION_WH
    assert used_wh <= consumption_wh - START_CONSUMPTION_WH
    assert sum(energy.surplus_wh for energy in energies) <= shown_wh
    assert POLICY.backlog_age_max_s > time_s
