"""Whoever has a stolen key or password can neither silence the honest meter, nor fill the hub, nor win a race."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hub.db import driver, transaction
from hub.errors import KeyAlreadyRevoked, RotationTooOften
from hub.readings import key_life, rules, service, store
from hub.readings.envelope import Arrival, open_envelopes
from hub.readings.rules import Outcome
from hub.registry.service import get_meter_for_update
from protocol.seal import SEAL_BYTES
from protocol.topics import topic
from simulators import misbehaviour
from simulators.sealing import SealedMessage, SimulatedMeter, seeded_key
from tests.hub.readings.conftest import COMMUNITY_ID, POLICY, START, Hub
from tests.hub.readings.test_key_life import (
    SECOND,
    THIEFS,
    THIRD,
    a_thief,
    held,
    last_reading_unix_s,
    measured,
    outcomes,
    revoke,
    rotate,
    shown,
)


@pytest.fixture(autouse=True)
def late_in_the_day(hub: Hub) -> None:
    hub.now = START + timedelta(days=1)


def test_a_revoked_key_cannot_suspend_the_meter(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(3)
    hub.take(*honest)
    revoke(hub, home, 1, last_reading_unix_s(honest[2]) + 1)
    fork = misbehaviour.fork(home.key, honest[1].message)
    done = hub.take(replace(honest[1], message=fork))
    assert [verdict.outcome for _, verdict in done.verdicts] == [Outcome.EQUIVOCATION]
    assert hub.value("SELECT state FROM meters") == "active"
    assert hub.value("SELECT count(*) FROM alarms WHERE kind = 'equivocation'") == 1
    rotate(hub, home, endorser=home.owner_key)
    assert outcomes(hub.take(home.next_message())) == [("accepted", "")]


def test_what_a_thiefs_key_sealed_before_it_was_revoked_itself_falls_with_the_key_that_endorsed_it(
    hub: Hub, home: SimulatedMeter
) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, thief, THIEFS)
    stolen = thief.messages(4)
    hub.take(*stolen)
    assert revoke(hub, home, 2, last_reading_unix_s(stolen[2])) == ([2], 2), "it is not known yet whose key that is"
    assert shown(hub) == measured(honest + stolen[:2])
    assert revoke(hub, home, 1, last_reading_unix_s(honest[1]) + 1) == ([1, 2], 2)
    assert shown(hub) == measured(honest)
    with pytest.raises(KeyAlreadyRevoked):
        revoke(hub, home, 2, last_reading_unix_s(stolen[2]))


def test_a_bare_seal_sent_before_its_message_hides_nothing_of_it(hub: Hub, home: SimulatedMeter) -> None:
    """The bare seal has the hash that its message is held under, and needs only the broker's password."""
    name = topic(COMMUNITY_ID, home.meter_id, "seals")
    honest = home.messages(2)
    home.leap(1_000)
    leap = home.next_message()
    hub.take(*honest, (name, leap.message[:SEAL_BYTES]))
    assert hub.rows("SELECT reason, verified FROM quarantine") == [("malformed", False)]
    assert outcomes(hub.take(leap)) == [("quarantined", rules.OVER_CAPACITY)]
    assert held(hub) == [(1, 3, rules.OVER_CAPACITY)]
    [[number, verified]] = hub.rows("SELECT quarantine_id, verified FROM quarantine")
    assert verified
    hub.release(int(str(number)))
    assert shown(hub) == measured([*honest, leap])


def test_a_bare_seal_of_an_old_key_takes_no_energy_from_the_new_one(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, home)
    stolen = thief.messages(2)
    name = topic(COMMUNITY_ID, home.meter_id, "seals")
    hub.take(*((name, message.message[:SEAL_BYTES]) for message in stolen))
    hub.take(*stolen)
    mine = home.messages(4)
    hub.take(*mine)
    assert shown(hub) == measured(honest + mine)


def test_who_keeps_an_old_key_cannot_fill_the_hub_with_it(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, home)
    stolen = thief.messages(rules.SUPERSEDED_KEPT_MAX + 20)
    done = hub.take(*random.Random(1).sample(stolen, len(stolen)))
    kept = [verdict for _, verdict in done.verdicts if verdict.outcome is Outcome.QUARANTINED]
    assert len(kept) == rules.SUPERSEDED_KEPT_MAX
    assert {(verdict.outcome, verdict.reason) for _, verdict in done.verdicts if verdict not in kept} == {
        (Outcome.NOT_TAKEN, rules.KEY_SUPERSEDED)
    }
    assert hub.value("SELECT count(*) FROM evidence") == 2 + rules.SUPERSEDED_KEPT_MAX
    mine = home.messages(3)
    assert outcomes(hub.take(*mine)) == [("accepted", "")] * 3
    assert shown(hub) == measured(honest + mine)


def test_nobody_fills_the_hub_with_keys_and_no_thief_keeps_the_owner_from_endorsing(
    hub: Hub, home: SimulatedMeter
) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    for number in range(key_life.ROTATIONS_PER_DAY_MAX):
        rotate(hub, thief, seeded_key(f"key {number}"))
    with pytest.raises(RotationTooOften):
        rotate(hub, thief, THIEFS)
    assert hub.value("SELECT count(*) FROM meter_keys") == 1 + key_life.ROTATIONS_PER_DAY_MAX
    revoked, _ = revoke(hub, home, 1, last_reading_unix_s(honest[1]) + 1)
    rotate(hub, home, SECOND, home.owner_key, key_epoch=len(revoked) + 1)
    home.key_epoch = len(revoked) + 1
    mine = home.messages(2)
    assert outcomes(hub.take(*mine)) == [("accepted", "")] * 2
    assert shown(hub) == measured(honest + mine)
    hub.now += timedelta(days=1)
    assert rotate(hub, home, THIRD).key_epoch == len(revoked) + 2


# --- races -----------------------------------------------------------------------------------------------------


def until_waiting(hub: Hub, count: int, otherwise: threading.Event | None = None, of: str = "") -> None:
    """Until so many of the hub's sessions wait for a lock (in a statement that has `of` in it), or the event came."""
    pause = otherwise or threading.Event()
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        f" AND query LIKE '%{of}%'"
    )
    while hub.value(query) != count and not pause.wait(0.01):
        continue


def test_a_thiefs_next_key_that_comes_while_the_stolen_one_is_being_revoked_counts_for_nothing(
    hub: Hub, home: SimulatedMeter
) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    since = last_reading_unix_s(honest[1]) + 1
    thief = a_thief(home)
    rotation = thief.rotation(THIEFS)
    go_on, held, judged, over, revoked = (threading.Event() for _ in range(5))

    def hold_the_meter() -> None:
        with transaction(hub.engine) as connection:
            get_meter_for_update(connection, home.meter_id)
            held.set()
            go_on.wait()

    def take(message: SealedMessage) -> service.Ingested:
        arrival = Arrival(topic(COMMUNITY_ID, home.meter_id, "seals"), message.message)
        opened = open_envelopes([arrival], COMMUNITY_ID, POLICY.domain, service.key_ring(hub.engine))
        with transaction(hub.engine) as connection:
            done = service.ingest(connection, opened, POLICY, hub.now)
            judged.set()
            revoked.wait()
        return done

    with ThreadPoolExecutor(3) as pool:
        with transaction(hub.engine) as rotating:
            key_life.rotate_key(rotating, home.meter_id, rotation, [], POLICY.domain, hub.now)
            revoking = pool.submit(revoke, hub, home, 1, since)
            until_waiting(hub, 1)
            revoking.add_done_callback(lambda _: over.set())
            holding = pool.submit(hold_the_meter)
            until_waiting(hub, 2)
        thief.take_over(THIEFS)
        held.wait()
        until_waiting(hub, 1, over, of="FROM meters")  # the revocation, which has every stream by now, or is over
        taking = pool.submit(take, thief.next_message())
        until_waiting(hub, 2, judged)
        go_on.set()
        assert revoking.result()[0] == [1, 2]
        revoked.set()
        holding.result()
        assert outcomes(taking.result()) == [("quarantined", rules.KEY_REVOKED)]
    assert shown(hub) == measured(honest)


@pytest.mark.parametrize("in_bulk", [False, True])
def test_a_release_and_a_revocation_that_come_at_once_do_not_block_one_another(
    hub: Hub, home: SimulatedMeter, in_bulk: bool
) -> None:
    messages = home.messages(2)
    hub.now += timedelta(seconds=POLICY.backlog_age_max_s + 7_200)
    hub.take(*messages)
    since = datetime.fromtimestamp(last_reading_unix_s(messages[0]), UTC)

    def release() -> int:
        if not in_bulk:
            hub.release(int(str(hub.value("SELECT min(quarantine_id) FROM quarantine"))))
            return 1
        with transaction(hub.engine) as connection:
            return service.release_backlog(connection, home.meter_id, "operator", "a month in the cellar", hub.now)

    with ThreadPoolExecutor(1) as pool:
        with transaction(hub.engine) as connection:
            store.lock_streams_for_update(driver(connection), [(1, 1)])
            releasing = pool.submit(release)
            until_waiting(hub, 1)
            arguments = (home.meter_id, 1, since, "stolen", COMMUNITY_ID, "operator", hub.now)
            assert key_life.revoke_key(connection, *arguments) == ([1], 0)
        assert releasing.result() == (0 if in_bulk else 1)
