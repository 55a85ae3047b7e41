"""Somebody has copies of a meter's keys, and operators do all sorts of things: no energy beyond the plate.

The meter seals honestly and rotates; the thief seals, forks and rotates with whatever keys it has taken; keys are
revoked from any time on, held seals released or rejected. After every step the energy shown is within what the counters
and the plate allow: what two devices measure of one home is not counted twice.
"""

import copy
import random
from datetime import UTC, datetime, timedelta

import pytest

from hub.db import transaction
from hub.errors import HubError, QuarantineNotReleasable
from hub.readings import key_life, rules
from simulators.sealing import SealedMessage, SimulatedMeter, seeded_key
from tests.hub.readings.conftest import COMMUNITY_ID, POLICY, START, Hub, fleet
from tests.hub.readings.test_liars import check

STEPS = 35


@pytest.mark.parametrize("seed", range(20))
def test_no_thief_of_keys_makes_energy(hub: Hub, seed: int) -> None:
    live(hub, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1_000, 1_300))
def test_no_thief_of_keys_makes_energy_in_hundreds_of_histories(hub: Hub, seed: int) -> None:
    live(hub, seed)


def live(hub: Hub, seed: int) -> None:
    rng = random.Random(seed)
    [honest] = fleet(1, seed + 1, readings_per_seal=rng.choice([1, 5, 15]))
    hub.register(honest)
    hub.now = START + timedelta(days=1)
    thief: SimulatedMeter | None = None
    late: list[SealedMessage] = []
    for step in range(STEPS):
        actor = thief if thief is not None and rng.random() < 0.4 else honest
        deed = rng.random()
        if deed < 0.1 or thief is None:
            thief = copy.deepcopy(honest)
        elif deed < 0.25:
            turn_key(hub, actor, rng, f"{seed}/{step}")
        elif deed < 0.35:
            revoke_something(hub, honest, rng)
        else:
            if actor is thief and rng.random() < 0.3:
                actor.leap(rng.choice([5, 300, 10**6]))
            (late if rng.random() < 0.2 else []).append(message := actor.next_message())
            if message not in late:
                hub.take(message)
        if late and rng.random() < 0.3:
            hub.take(late.pop(rng.randrange(len(late))))
        decide(hub, rng)
        check(hub)
    hub.take(*rng.sample(late, len(late)))
    check(hub)
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'internal_fault'") == 0
    assert hub.value("SELECT count(*) FROM meter_keys WHERE state = 'active'") in (0, 1)
    assert hub.value("SELECT max(key_epoch) FROM meter_keys") == hub.value("SELECT key_epoch FROM meters")


def turn_key(hub: Hub, meter: SimulatedMeter, rng: random.Random, name: str) -> None:
    """Rotate, if the hub takes it; sometimes the owner endorses, and sometimes the epoch named is the hub's next."""
    key = seeded_key(name)
    epoch = hub.value("SELECT key_epoch FROM meters")
    assert isinstance(epoch, int)
    changes = {"key_epoch": epoch + 1} if rng.random() < 0.5 else {}
    rotation = meter.rotation(key, rng.choice([None, meter.owner_key]), **changes)
    try:
        with transaction(hub.engine) as connection:
            installed, _ = key_life.rotate_key(connection, meter.meter_id, rotation, [], POLICY.domain, hub.now)
    except HubError as fault:
        assert fault.status in (409, 422)
        return
    meter.take_over(key)
    meter.key_epoch = installed.key_epoch


def revoke_something(hub: Hub, meter: SimulatedMeter, rng: random.Random) -> None:
    epoch = hub.value("SELECT key_epoch FROM meters")
    assert isinstance(epoch, int)
    since = datetime.fromtimestamp(int(START.timestamp()) + rng.randrange(0, 30_000), UTC)
    try:
        with transaction(hub.engine) as connection:
            key_life.revoke_key(
                connection, meter.meter_id, rng.randint(1, epoch), since, "stolen", COMMUNITY_ID, "operator", hub.now
            )
    except HubError as fault:
        assert fault.code == "key_already_revoked"


def decide(hub: Hub, rng: random.Random) -> None:
    """What operators do: resume, release and reject at random, but let no leap count."""
    if rng.random() < 0.5:
        hub.rows("UPDATE meters SET state = 'active' RETURNING 1")
    held = hub.rows("SELECT quarantine_id, reason, detail FROM quarantine WHERE state = 'held'")
    for quarantine_id, reason, detail in rng.sample(held, min(len(held), rng.randrange(3))):
        assert isinstance(quarantine_id, int)
        if rng.random() < 0.2:
            hub.reject(quarantine_id)
        elif reason != rules.OVER_CAPACITY and rules.OVER_CAPACITY not in str(detail):
            try:
                hub.release(quarantine_id)
            except QuarantineNotReleasable:
                continue
