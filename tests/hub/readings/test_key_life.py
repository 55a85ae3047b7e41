"""A meter's keys come and go; its energy does not: none is made, doubled or lost where another key takes over."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from nacl.signing import SigningKey

from hub.db import snapshot, transaction
from hub.errors import (
    HubError,
    KeyAlreadyRevoked,
    KeyEpochDiffers,
    MeterKeyInUse,
    MeterRetired,
    QuarantineNotReleasable,
    RotationBaseDiffers,
    RotationInvalid,
)
from hub.readings import key_life, queries, rules, service
from hub.readings.rules import Outcome
from hub.registry.keys_store import MeterKey
from hub.registry.service import retire_meter
from protocol.readings import decode_readings
from protocol.topics import topic
from simulators import misbehaviour
from simulators.sealing import START_CONSUMPTION_WH, START_PRODUCTION_WH, SealedMessage, SimulatedMeter, seeded_key
from tests.hub.readings.conftest import COMMUNITY_ID, POLICY, START, Hub, fleet

SECOND, THIRD, THIEFS = seeded_key("second"), seeded_key("third"), seeded_key("thief's own")
BIG_WH = 50_000


@pytest.fixture(autouse=True)
def late_in_the_day(hub: Hub) -> None:
    hub.now = START + timedelta(days=1)


def rotate(
    hub: Hub, meter: SimulatedMeter, key: SigningKey = SECOND, endorser: SigningKey | None = None, **changes: object
) -> MeterKey:
    """Hand the rotation in and go on with the next key."""
    installed, created = hand_in(hub, meter.meter_id, meter.rotation(key, endorser, **changes))
    assert created
    meter.take_over(key)
    return installed


def hand_in(hub: Hub, meter_id: str, rotation: bytes) -> tuple[MeterKey, bool]:
    with transaction(hub.engine) as connection:
        return key_life.rotate_key(connection, meter_id, rotation, [], POLICY.domain, hub.now)


def revoke(hub: Hub, meter: SimulatedMeter, key_epoch: int, since_unix_s: int) -> tuple[list[int], int]:
    since = datetime.fromtimestamp(since_unix_s, UTC)
    with transaction(hub.engine) as connection:
        return key_life.revoke_key(
            connection, meter.meter_id, key_epoch, since, "stolen", COMMUNITY_ID, "operator", hub.now
        )


def shown(hub: Hub, bucket_s: int = 900) -> list[tuple[int, int, int, int]]:
    """Start, production, consumption and surplus of every bucket of the two days."""
    start = int(START.timestamp()) // 86_400 * 86_400
    with snapshot(hub.engine) as connection:
        energies = queries.list_energies(connection, 1, start, start + 2 * 86_400, bucket_s)
    return [(each.start_unix_s, each.production_wh, each.consumption_wh, each.surplus_wh) for each in energies]


def measured(messages: list[SealedMessage]) -> list[tuple[int, int, int, int]]:
    """The same, by hand, from the readings of these messages, whoever signed them."""
    closings: dict[int, tuple[int, int]] = {}
    for message in messages:
        for reading in decode_readings(misbehaviour.section_of(message.message)):
            end = -(-reading.time_unix_s // 900) * 900
            closings[end] = (reading.production_wh, reading.consumption_wh)
    before, found = (START_PRODUCTION_WH, START_CONSUMPTION_WH), []
    for end, after in sorted(closings.items()):
        produced, consumed = after[0] - before[0], after[1] - before[1]
        found.append((end - 900, produced, consumed, max(0, produced - consumed)))
        before = after
    return found


def outcomes(done: service.Ingested) -> list[tuple[str, str]]:
    return [(verdict.outcome.value, verdict.reason) for _, verdict in done.verdicts]


def held(hub: Hub) -> list[tuple[object, ...]]:
    return hub.rows("SELECT key_epoch, sequence, reason FROM quarantine WHERE state = 'held' ORDER BY 1, 2")


def last_reading_unix_s(message: SealedMessage) -> int:
    return decode_readings(misbehaviour.section_of(message.message))[-1].time_unix_s


@pytest.mark.parametrize("seed", range(8))
def test_days_and_quarter_hours_in_which_the_key_changed_sum_to_the_watt_hour(hub: Hub, seed: int) -> None:
    chance = random.Random(seed)
    [meter] = fleet(seed=seed + 1, readings_per_seal=chance.choice([1, 4, 7, 15, 40]), interval_s=60)
    hub.register(meter)
    sent: list[SealedMessage] = []
    for number in range(4):
        messages = meter.messages(chance.randint(0, 6))
        sent += messages
        hub.take(*chance.sample(messages, len(messages)))
        if number < 3:
            rotate(hub, meter, seeded_key(f"{seed}/{number}"), meter.owner_key if chance.random() < 0.5 else None)
    assert shown(hub) == measured(sent)
    days = shown(hub, 86_400)
    for column in (1, 2, 3):
        assert sum(day[column] for day in days) == sum(row[column] for row in measured(sent))
    assert hub.value("SELECT count(*) FROM seals WHERE state <> 'accepted' OR NOT linked") == 0
    assert hub.value("SELECT count(*) FROM meter_keys WHERE state = 'active'") == 1


def test_the_counters_that_a_new_key_seals_go_on_from_the_old_ones(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(3))
    key = rotate(hub, home)
    assert (key.key_epoch, key.endorsed_by, key.base_sequence) == (2, "old_key", 3)
    done = hub.take(*home.messages(4))
    assert outcomes(done) == [("accepted", "")] * 4
    expected = home.expected()
    assert hub.stored_energy_wh(home.meter_id) == (expected.production_wh, expected.consumption_wh)
    assert done.receipts[home.meter_id].key_epoch == 2


def test_what_a_thief_seals_with_the_old_key_after_the_rotation_never_counts(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(3)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, home)
    thief.leap(200)
    stolen = thief.messages(4)
    assert set(outcomes(hub.take(*stolen))) == {("quarantined", rules.KEY_SUPERSEDED)}
    mine = home.messages(4)
    assert outcomes(hub.take(*mine)) == [("accepted", "")] * 4
    assert shown(hub) == measured(honest + mine)
    for [number] in hub.rows("SELECT quarantine_id FROM quarantine"):
        assert isinstance(number, int)
        with pytest.raises(QuarantineNotReleasable):
            hub.release(number)
    assert hub.value("SELECT state FROM meters") == "active"


def a_thief(meter: SimulatedMeter) -> SimulatedMeter:
    """Somebody with a copy of everything that the meter is."""
    [thief] = fleet()
    thief.messages(meter.sequence)
    assert thief.last_seal_hash == meter.last_seal_hash
    return thief


def test_two_devices_that_seal_in_parallel_count_once(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, home)
    mine, stolen = home.messages(6), thief.messages(6)
    hub.take(*[message for pair in zip(stolen, mine, strict=True) for message in pair])
    assert shown(hub) == measured(honest + mine)
    assert len(held(hub)) == 6


def test_old_seals_sent_again_after_a_rotation_are_repeats(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(3)
    hub.take(*honest)
    rotate(hub, home)
    mine = home.messages(2)
    hub.take(*mine)
    done = hub.take(*honest)
    assert [verdict.outcome for _, verdict in done.verdicts] == [Outcome.REPEAT] * 3
    receipt = done.receipts[home.meter_id]
    assert (receipt.key_epoch, receipt.contiguous_sequence) == (2, 2), "receipts tell of the current key"
    assert receipt.contiguous_seal_hash == home.last_seal_hash
    assert shown(hub) == measured(honest + mine)


def test_what_was_on_its_way_when_the_key_changed_still_counts(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(5)
    hub.take(honest[0], honest[2], honest[4])
    rotate(hub, home)
    mine = home.messages(2)
    hub.take(*mine)
    assert outcomes(hub.take(honest[3], honest[1])) == [("accepted", "")] * 2
    assert shown(hub) == measured(honest + mine)
    assert hub.value("SELECT count(*) FROM seals WHERE NOT linked") == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"production_wh": START_PRODUCTION_WH, "surplus_wh": 0},
        {"consumption_wh": START_CONSUMPTION_WH},
        {"surplus_wh": 0},
        {"valid_from_unix_s": int(START.timestamp())},
        {"last_seal_hash": bytes(32)},
        {"last_seal_hash": b"\x07" * 32},
    ],
)
def test_a_rotation_from_anywhere_but_the_last_seal_is_refused(
    hub: Hub, home: SimulatedMeter, changes: dict[str, object]
) -> None:
    hub.take(*home.messages(3))
    with pytest.raises(RotationBaseDiffers, match="seal 3 of key epoch 1"):
        rotate(hub, home, **changes)
    assert hub.value("SELECT count(*) FROM meter_keys") == 1


def test_a_rotation_to_an_earlier_seal_is_refused(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    early = home.rotation(SECOND)
    hub.take(*home.messages(2))
    with pytest.raises(RotationBaseDiffers):
        hand_in(hub, home.meter_id, early)


def test_a_seal_that_is_held_is_no_base(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    home.leap(BIG_WH)
    hub.take(*home.messages(1))
    with pytest.raises(RotationBaseDiffers, match="seal 2"):
        rotate(hub, home)
    number = hub.value("SELECT quarantine_id FROM quarantine")
    assert isinstance(number, int)
    hub.release(number)
    rotate(hub, home)
    assert outcomes(hub.take(home.next_message())) == [("accepted", "")]


def test_a_seal_held_before_the_handover_cannot_count_beside_the_new_key(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief, base = a_thief(home), home.rotation(SECOND)
    thief.leap(BIG_WH)
    hub.take(thief.next_message())
    hand_in(hub, home.meter_id, base)
    home.take_over(SECOND)
    mine = home.messages(3)
    hub.take(*mine)
    number = hub.value("SELECT quarantine_id FROM quarantine WHERE key_epoch = 1")
    assert isinstance(number, int)
    with pytest.raises(QuarantineNotReleasable, match="another key has taken over"):
        hub.release(number)
    assert sum(row[1] for row in shown(hub)) <= sum(row[1] for row in measured(honest + mine))


@pytest.mark.parametrize("energy_wh", [500, BIG_WH])
def test_no_leap_hides_at_the_change_of_keys(hub: Hub, home: SimulatedMeter, energy_wh: int) -> None:
    """From the last reading of the old key to the first of the new one passes a minute, not a new allowance."""
    hub.take(*home.messages(2))
    rotate(hub, home)
    home.leap(energy_wh)
    assert outcomes(hub.take(home.next_message())) == [("quarantined", rules.OVER_CAPACITY)]


def test_many_rotations_are_no_way_around_the_register_step(hub: Hub) -> None:
    [meter] = fleet(readings_per_seal=1, interval_s=1)
    hub.register(meter)
    counted_wh = 0
    for number in range(20):
        meter.leap(12)  # 43 kW
        [(outcome, _)] = outcomes(hub.take(meter.next_message()))
        counted_wh += 12 * (outcome == "accepted")
        try:
            rotate(hub, meter, seeded_key(f"again {number}"))
        except RotationBaseDiffers:
            continue
    assert counted_wh <= 12, "one register step in all"


def test_the_first_seal_of_a_new_key_comes_after_the_last_of_the_old(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    thief = a_thief(home)
    rotate(hub, home)
    [again] = fleet()
    again.messages(1)
    again.take_over(SECOND)
    assert outcomes(hub.take(again.next_message())) == [("quarantined", rules.TIME_ORDER)]
    assert thief.sequence == 2


def test_a_lower_counter_under_a_new_key_is_held(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    rotate(hub, home)
    home.leap(-1_000)
    assert outcomes(hub.take(home.next_message())) == [("quarantined", rules.COUNTER_DECREASED)]


def test_surplus_is_netted_over_the_change_as_if_there_were_none(hub: Hub) -> None:
    [meter] = fleet(readings_per_seal=4, interval_s=60)
    hub.register(meter)
    hub.take(*meter.messages(2))
    rotate(hub, meter)
    message = meter.messages(12)[-1]
    [unchanged] = fleet(readings_per_seal=4, interval_s=60)
    other = unchanged.messages(14)[-1]
    assert misbehaviour.field_of(message.message, "surplus_wh") == misbehaviour.field_of(other.message, "surplus_wh")


# --- who may rotate --------------------------------------------------------------------------------------------


def test_the_same_bytes_again_change_nothing_and_others_are_refused(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    rotation = home.rotation(SECOND)
    first, created = hand_in(hub, home.meter_id, rotation)
    assert created
    home.take_over(SECOND)
    hub.take(*home.messages(2))
    assert hand_in(hub, home.meter_id, rotation) == (first, False)
    rotate(hub, home, THIRD)
    again, created = hand_in(hub, home.meter_id, rotation)
    assert (again.key_epoch, again.state, created) == (2, "superseded", False)
    [other] = fleet()
    other.messages(2)
    with pytest.raises(KeyEpochDiffers):
        hand_in(hub, home.meter_id, other.rotation(THIEFS))
    assert hub.value("SELECT count(*) FROM audit_log WHERE action = 'meter.rotate_key'") == 2


def test_nobody_but_the_old_key_and_the_owner_may_endorse(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    for endorser in (SECOND, THIEFS):
        with pytest.raises(RotationInvalid, match="neither"):
            rotate(hub, home, SECOND, endorser)
    assert rotate(hub, home, SECOND, home.owner_key).endorsed_by == "owner"


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": b"elsewher"},
        {"meter_id": "another"},
        {"owner": bytes(SECOND.verify_key)},
        {"kind": 2},
        {"measurement": 2},
    ],
)
def test_what_a_rotation_may_not_change_is_refused(hub: Hub, home: SimulatedMeter, changes: dict[str, object]) -> None:
    hub.take(*home.messages(2))
    with pytest.raises(RotationInvalid):
        rotate(hub, home, **changes)


def test_a_key_belongs_to_one_meter_and_one_epoch_for_ever(hub: Hub) -> None:
    first, second = fleet(2)
    hub.register(first, second)
    hub.take(*first.messages(1))
    for key in (first.key, second.key):
        with pytest.raises(MeterKeyInUse):
            rotate(hub, first, key)
    rotate(hub, first)
    with pytest.raises(MeterKeyInUse):
        rotate(hub, second, SECOND)


def test_epochs_follow_one_another_and_end_with_the_meter(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(1))
    with pytest.raises(KeyEpochDiffers):
        rotate(hub, home, key_epoch=3)
    with transaction(hub.engine) as connection:
        retire_meter(connection, home.meter_id, "demolished", "operator", hub.now)
    with pytest.raises(MeterRetired):
        rotate(hub, home)
    assert outcomes(hub.take(home.next_message())) == [("quarantined", rules.METER_RETIRED)]


# --- revocation ------------------------------------------------------------------------------------------------


def test_what_a_stolen_key_sealed_no_longer_counts(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(6)
    hub.take(*honest)
    since = last_reading_unix_s(honest[3])
    assert revoke(hub, home, 1, since) == ([1], 3)
    assert shown(hub) == measured(honest[:3])
    assert held(hub) == [(1, sequence, rules.KEY_REVOKED) for sequence in (4, 5, 6)]
    assert outcomes(hub.take(home.next_message())) == [("quarantined", rules.KEY_REVOKED)]
    with pytest.raises(KeyAlreadyRevoked):
        revoke(hub, home, 1, since)
    assert revoke(hub, home, 1, last_reading_unix_s(honest[1])) == ([1], 2), "it had been stolen earlier"
    assert shown(hub) == measured(honest[:1])


def test_a_revoked_key_may_not_endorse_and_the_owner_may(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(4)
    hub.take(*honest)
    revoke(hub, home, 1, last_reading_unix_s(honest[3]) + 1)
    with pytest.raises(RotationInvalid, match="revoked"):
        rotate(hub, home)
    rotate(hub, home, endorser=home.owner_key)
    mine = home.messages(3)
    assert outcomes(hub.take(*mine)) == [("accepted", "")] * 3
    assert shown(hub) == measured(honest + mine)
    assert hub.rows("SELECT key_epoch, state FROM meter_keys ORDER BY 1") == [(1, "revoked"), (2, "active")]


def test_a_revoked_stretch_that_was_honest_is_released_once_the_new_key_has_sealed(
    hub: Hub, home: SimulatedMeter
) -> None:
    honest = home.messages(6)
    hub.take(*honest)
    revoke(hub, home, 1, last_reading_unix_s(honest[2]))
    owner_rotates_back(hub, home, honest[:2])
    mine = home.messages(4)
    numbers = [number for [number] in hub.rows("SELECT quarantine_id FROM quarantine ORDER BY sequence")]
    with pytest.raises(QuarantineNotReleasable, match="first seal"):
        hub.release(int(str(numbers[0])))
    assert outcomes(hub.take(*mine)) == [("accepted", "")] * 4
    without = shown(hub)
    assert sum(row[1] for row in without) == sum(row[1] for row in measured(honest + mine)) - sum(
        row[1] for row in measured(honest)
    ) + sum(row[1] for row in measured(honest[:2])), "what is held is in the counters of the new key, and taken out"
    for number in numbers:
        hub.release(int(str(number)))
    assert shown(hub) == measured(honest + mine)


def owner_rotates_back(hub: Hub, meter: SimulatedMeter, counted: list[SealedMessage]) -> None:
    """The owner endorses a key that begins at an earlier seal; the meter's counters go on from where they are."""
    last = counted[-1].message
    rotation = meter.rotation(
        SECOND,
        meter.owner_key,
        last_seal_hash=service.sha256(last[:124]).digest(),
        valid_from_unix_s=misbehaviour.field_of(last, "closed_until_unix_s"),
        **{name: misbehaviour.field_of(last, name) for name in ("production_wh", "consumption_wh", "surplus_wh")},
    )
    hand_in(hub, meter.meter_id, rotation)
    netting = meter._netting
    netting.closed_until_unix_s = misbehaviour.field_of(last, "closed_until_unix_s")
    netting.production_wh = misbehaviour.field_of(last, "production_wh")
    netting.consumption_wh = misbehaviour.field_of(last, "consumption_wh")
    netting.surplus_wh = misbehaviour.field_of(last, "surplus_wh")
    reading = decode_readings(misbehaviour.section_of(last))[-1]
    netting.last_production_wh, netting.last_consumption_wh = reading.production_wh, reading.consumption_wh
    meter.take_over(SECOND)


def test_the_keys_that_a_thief_rotated_to_fall_with_the_stolen_one(hub: Hub, home: SimulatedMeter) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, thief, THIEFS)
    hub.take(*thief.messages(3))
    rotate(hub, thief, THIRD)
    hub.take(*thief.messages(3))
    assert revoke(hub, home, 1, last_reading_unix_s(honest[1]) + 1) == ([1, 2, 3], 6)
    assert shown(hub) == measured(honest)
    with pytest.raises(RotationInvalid, match="revoked"):
        rotate(hub, thief, seeded_key("once more"))
    rotate(hub, home, SECOND, home.owner_key, key_epoch=4)
    home.key_epoch = 4
    mine = home.messages(3)
    assert outcomes(hub.take(*mine)) == [("accepted", "")] * 3
    assert sum(row[1] for row in shown(hub)) <= sum(row[1] for row in measured(honest + mine))
    assert hub.rows("SELECT state FROM meter_keys ORDER BY key_epoch") == [("revoked",)] * 3 + [("active",)]


def test_a_key_endorsed_before_the_theft_stays(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    rotate(hub, home)
    hub.take(*home.messages(2))
    hub.now += timedelta(hours=1)
    assert revoke(hub, home, 1, int(hub.now.timestamp()) - 60) == ([1], 0)
    assert outcomes(hub.take(home.next_message())) == [("accepted", "")]


def test_a_bulk_release_for_age_lets_no_revoked_key_through(hub: Hub, home: SimulatedMeter) -> None:
    messages = home.messages(4)
    hub.now += timedelta(seconds=POLICY.backlog_age_max_s + 7_200)
    hub.take(*messages[:3])
    revoke(hub, home, 1, last_reading_unix_s(messages[1]))
    hub.take(messages[3])
    with transaction(hub.engine) as connection:
        assert service.release_backlog(connection, home.meter_id, "operator", "a month in the cellar", hub.now) == 1
    assert [row[1:] for row in held(hub)] == [(sequence, rules.KEY_REVOKED) for sequence in (2, 3, 4)]


# --- races and abuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_of_a_rotation_and_a_seal_that_come_at_once_one_comes_first(hub: Hub, seed: int) -> None:
    [meter] = fleet(seed=seed + 1)
    hub.register(meter)
    honest = meter.messages(2)
    hub.take(*honest)
    rotation, late = meter.rotation(SECOND), meter.next_message()
    together = threading.Barrier(2)

    def take() -> list[tuple[str, str]]:
        together.wait()
        return outcomes(hub.take(late))

    def rotated() -> bool:
        together.wait()
        try:
            hand_in(hub, meter.meter_id, rotation)
        except RotationBaseDiffers:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        taken, done = pool.submit(take), pool.submit(rotated)
        expected = ("quarantined", rules.KEY_SUPERSEDED) if done.result() else ("accepted", "")
        assert taken.result() == [expected]
    assert shown(hub) == measured(honest + ([] if done.result() else [late]))


def test_of_many_rotations_at_once_one_wins_and_all_are_told(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(*home.messages(2))
    rotations = [home.rotation(seeded_key(f"candidate {number // 2}")) for number in range(8)]

    def hand(rotation: bytes) -> str:
        try:
            return "created" if hand_in(hub, home.meter_id, rotation)[1] else "same"
        except HubError as fault:
            return fault.code

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(hand, rotations))
    assert answers == ["created", *["key_epoch_differs"] * 6, "same"]
    assert hub.value("SELECT count(*) FROM meter_keys") == 2


def test_a_revocation_and_seals_that_come_at_once_leave_nothing_that_counts_after_it(
    hub: Hub, home: SimulatedMeter
) -> None:
    honest = home.messages(2)
    hub.take(*honest)
    since, messages = last_reading_unix_s(honest[1]) + 1, home.messages(12)
    with ThreadPoolExecutor(3) as pool:
        parts = [pool.submit(lambda part=part: hub.take(*part)) for part in (messages[:6], messages[6:])]
        pool.submit(revoke, hub, home, 1, since).result()
        for part in parts:
            part.result()
    assert shown(hub) == measured(honest)
    assert hub.value("SELECT count(*) FROM seals WHERE state = 'quarantined'") == 12
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'key_revoked'") == 12


def test_a_late_lie_of_an_old_key_takes_nothing_from_the_new_one(hub: Hub, home: SimulatedMeter) -> None:
    """A seal beyond the handover is disproved by its predecessor: it never brought readings, so it takes none away."""
    honest = home.messages(2)
    hub.take(*honest)
    thief = a_thief(home)
    rotate(hub, home)
    mine = home.messages(4)
    hub.take(*mine)
    third, fourth = thief.messages(2)
    lie = misbehaviour.invented_surplus(thief.key, fourth.message, random.Random(1))
    hub.take(replace(fourth, message=lie))
    hub.take(third)
    assert shown(hub) == measured(honest + mine)
    assert hub.value("SELECT count(*) FROM readings") == 15 * 6


def test_who_keeps_an_old_key_cannot_silence_the_new_one(hub: Hub, home: SimulatedMeter) -> None:
    first = home.next_message()
    hub.take(first)
    old = home.key
    rotate(hub, home)
    done = hub.take(replace(first, message=misbehaviour.fork(old, first.message)))
    assert [verdict.outcome for _, verdict in done.verdicts] == [Outcome.EQUIVOCATION]
    assert hub.value("SELECT state FROM meters") == "active"
    assert hub.value("SELECT count(*) FROM alarms WHERE kind = 'equivocation'") == 1
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'equivocation'") == 1
    assert outcomes(hub.take(home.next_message())) == [("accepted", "")]


def test_a_device_with_a_stolen_name_raises_one_alarm_a_day(hub: Hub, home: SimulatedMeter) -> None:
    name = topic(COMMUNITY_ID, home.meter_id, "seals")
    forged = [(name, misbehaviour.reseal(THIEFS, message.message)) for message in home.messages(30)]
    hub.take(*forged[: service.STOLEN_NAME_MESSAGES - 1])
    assert hub.value("SELECT count(*) FROM alarms") == 0, "a few may be flipped bits"
    hub.take(*forged[service.STOLEN_NAME_MESSAGES - 1 : 15])
    hub.take(*forged[15:])
    assert hub.rows("SELECT kind, detail FROM alarms") == [
        ("stolen_name", {"day": f"{hub.now:%Y-%m-%d}", "messages": 15})
    ]
    hub.now += timedelta(days=1)
    hub.take(*forged)
    assert hub.value("SELECT count(*) FROM alarms WHERE kind = 'stolen_name'") == 2
    assert hub.value("SELECT state FROM meters") == "active"
