"""Seals into a real PostgreSQL: nothing lost, nothing doubled, every refusal kept and named."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hub.db import driver, ensure_monthly_partitions, transaction
from hub.errors import (
    MeterNotFound,
    QuarantineAlreadyDecided,
    QuarantineNotReleasable,
    SealEquivocates,
    SealUnverifiable,
)
from hub.readings import rules, service, store
from hub.readings.envelope import Readings
from hub.readings.rules import Outcome
from hub.registry.service import resume_meter
from protocol.readings import decode_readings
from protocol.topics import topic
from simulators import misbehaviour
from simulators.misbehaviour import BAD_MESSAGES
from simulators.sealing import SimulatedMeter
from tests.hub.readings.conftest import COMMUNITY_ID, POLICY, Hub, fleet

REFUSED_FOR = {
    "garbage": "malformed",
    "truncated": "malformed",
    "too_long": "malformed",
    "bad_signature": "bad_signature",
    "tampered_seal": "bad_signature",
    "tampered_readings": "malformed",
    "foreign_key": "bad_signature",
    "wrong_magic": "malformed",
    "wrong_domain": "wrong_domain",
    "never_set_clock": "malformed",
    "open_interval": "malformed",
    "surplus_beyond_production": "malformed",
    "sequence_zero": "malformed",
    "readings_not_messagepack": "malformed",
    "readings_of_wrong_shape": "malformed",
}
QUARANTINED_FOR = {
    "future": rules.FROM_THE_FUTURE,
    "invented_surplus": rules.NETTING_MISMATCH,
    "impossible_energy": rules.NETTING_MISMATCH,
    "fallen_counter": rules.COUNTER_DECREASED,
    "broken_chain": rules.CHAIN_MISMATCH,
    "readings_beyond_the_seal": rules.TIME_ORDER,
}

LEAP_WH = 5_000_000


def test_every_way_to_be_bad_has_a_name() -> None:
    assert set(REFUSED_FOR) | set(QUARANTINED_FOR) == set(BAD_MESSAGES)


@pytest.mark.parametrize("kind", BAD_MESSAGES)
def test_a_bad_message_is_kept_and_named_and_stores_no_energy(hub: Hub, home: SimulatedMeter, kind: str) -> None:
    first, second = home.messages(2)
    hub.take(first)
    before = hub.rows("SELECT * FROM readings ORDER BY time")
    bad = BAD_MESSAGES[kind](home.key, second.message, random.Random(3))
    hub.take(replace(second, message=bad))
    [(reason, verified, state)] = hub.rows("SELECT reason, verified, state FROM quarantine")
    assert state == "held"
    assert (reason, verified) == ((REFUSED_FOR[kind], False) if kind in REFUSED_FOR else (QUARANTINED_FOR[kind], True))
    assert hub.rows("SELECT * FROM readings ORDER BY time") == before
    hub.take(replace(second, message=bad))
    assert hub.value("SELECT count(*) FROM quarantine") == 1, "the same bytes again are not kept twice"
    if kind in REFUSED_FOR:
        assert hub.take(second).verdicts[0][1].outcome is Outcome.ACCEPTED, "the genuine seal is not in its way"


def test_every_byte_of_evidence_is_kept(hub: Hub, home: SimulatedMeter) -> None:
    messages = home.messages(4)
    hub.take(*messages)
    assert hub.rows("SELECT sequence, message FROM evidence ORDER BY sequence") == [
        (message.sequence, message.message) for message in messages
    ]


@pytest.mark.parametrize("seed", range(12))
def test_any_order_any_batches_any_repeats_give_the_same_energy(hub: Hub, seed: int) -> None:
    rng = random.Random(seed)
    meters = fleet(2, seed, readings_per_seal=rng.choice([1, 4, 15]))
    hub.register(*meters)
    messages = [message for meter in meters for message in meter.messages(6)]
    arriving = messages + rng.choices(messages, k=rng.randrange(7))
    rng.shuffle(arriving)
    while arriving:
        size = rng.randint(1, len(arriving))
        hub.take(*arriving[:size])
        arriving = arriving[size:]
        assert (
            hub.value(
                "SELECT count(*) FROM meter_streams s"
                " WHERE (SELECT coalesce(sum(last_sequence - first_sequence + 1), 0)"
                " FROM seal_gaps g WHERE (g.meter_no, g.key_epoch) = (s.meter_no, s.key_epoch))"
                " + (SELECT count(*) FROM seals x WHERE (x.meter_no, x.key_epoch) = (s.meter_no, s.key_epoch))"
                " <> highest_sequence"
            )
            == 0
        )
    for meter in meters:
        expected = meter.expected()
        assert hub.stored_energy_wh(meter.meter_id) == (expected.production_wh, expected.consumption_wh)
        assert hub.value(
            "SELECT count(*) FROM readings JOIN meters USING (meter_no) WHERE meter_id = :id", id=meter.meter_id
        ) == (expected.readings)
        assert hub.rows(
            "SELECT contiguous_sequence, contiguous_seal_hash FROM meter_streams JOIN meters USING (meter_no)"
            " WHERE meter_id = :id",
            id=meter.meter_id,
        ) == [(6, meter.last_seal_hash)]
    assert hub.value("SELECT count(*) FROM seals WHERE NOT linked OR state <> 'accepted'") == 0
    assert hub.value("SELECT count(*) FROM seal_gaps") == 0


def test_a_receipt_names_what_lies_beyond_a_gap_and_heals_with_it(hub: Hub, home: SimulatedMeter) -> None:
    messages = home.messages(9)
    hub.take(messages[0], messages[1])
    receipt = hub.take(messages[4], messages[8]).receipts[home.meter_id]
    assert (receipt.contiguous_sequence, receipt.ranges) == (2, [(5, 5), (9, 9)])
    assert hub.rows("SELECT first_sequence, last_sequence FROM seal_gaps ORDER BY 1") == [(3, 4), (6, 8)]
    receipt = hub.take(messages[3], messages[2]).receipts[home.meter_id]
    assert (receipt.contiguous_sequence, receipt.ranges) == (5, [(9, 9)])
    assert receipt.contiguous_seal_hash == hub.value("SELECT seal_hash FROM seals WHERE sequence = 5")
    receipt = hub.take(messages[0], *messages[5:8]).receipts[home.meter_id]
    assert (receipt.contiguous_sequence, receipt.ranges) == (9, [])
    assert receipt.contiguous_seal_hash == home.last_seal_hash


def test_a_repeat_is_answered_with_a_receipt_again_and_stores_nothing(hub: Hub, home: SimulatedMeter) -> None:
    message = home.next_message()
    hub.take(message)
    done = hub.take(message, message)
    assert [verdict.outcome for _, verdict in done.verdicts] == [Outcome.REPEAT, Outcome.REPEAT]
    assert done.receipts[home.meter_id].contiguous_sequence == 1
    assert hub.value("SELECT count(*) FROM readings") == 15


def test_a_key_that_signs_two_histories_is_suspended_and_both_are_kept(hub: Hub, home: SimulatedMeter) -> None:
    first, second = home.messages(2)
    fork = misbehaviour.fork(home.key, first.message)
    done = hub.take(first, replace(first, message=fork), second)
    assert [verdict.outcome for _, verdict in done.verdicts][:2] == [Outcome.ACCEPTED, Outcome.EQUIVOCATION]
    assert hub.value("SELECT state FROM meters") == "suspended"
    assert hub.value("SELECT message FROM evidence WHERE sequence = 1") == first.message
    assert hub.value("SELECT message FROM quarantine WHERE reason = 'equivocation'") == fork
    assert hub.value("SELECT count(*) FROM alarms WHERE kind = 'equivocation'") == 1
    assert hub.value("SELECT count(*) FROM audit_log WHERE action = 'meter.suspend'") == 1
    third = home.next_message()
    [(_, verdict)] = hub.take(third).verdicts
    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINED, rules.METER_SUSPENDED)


def test_what_a_late_predecessor_disproves_is_taken_out_again(hub: Hub, home: SimulatedMeter) -> None:
    first, second = home.messages(2)
    lie = misbehaviour.invented_surplus(home.key, second.message, random.Random(1))
    hub.take(replace(second, message=lie))
    assert hub.value("SELECT count(*) FROM readings") == 15
    hub.take(first)
    assert hub.value("SELECT count(*) FROM readings") == 15, "those of the first seal alone"
    assert hub.rows("SELECT sequence, state FROM seals ORDER BY 1") == [(1, "accepted"), (2, "quarantined")]
    assert hub.value("SELECT reason FROM quarantine") == rules.NETTING_MISMATCH
    assert hub.value("SELECT message FROM evidence WHERE sequence = 2") == lie
    produced_wh = misbehaviour.field_of(first.message, "production_wh")
    assert hub.stored_energy_wh(home.meter_id)[0] == produced_wh


def test_a_batch_in_which_the_lie_and_its_disproof_meet_stores_only_the_truth(hub: Hub, home: SimulatedMeter) -> None:
    first, second = home.messages(2)
    lie = misbehaviour.invented_surplus(home.key, second.message, random.Random(1))
    hub.take(replace(second, message=lie), first)
    assert hub.rows("SELECT sequence, state, linked FROM seals ORDER BY 1") == [
        (1, "accepted", True),
        (2, "quarantined", False),
    ]
    assert hub.value("SELECT count(*) FROM readings") == 15


def test_an_operator_may_release_what_was_only_implausible(hub: Hub, home: SimulatedMeter) -> None:
    hub.take(home.next_message())
    home.leap(LEAP_WH)
    hub.take(home.next_message())
    quarantine_id = hub.value("SELECT quarantine_id FROM quarantine")
    assert isinstance(quarantine_id, int)
    before_wh = hub.stored_energy_wh(home.meter_id)[0]
    hub.release(quarantine_id)
    assert hub.stored_energy_wh(home.meter_id)[0] >= before_wh + LEAP_WH
    assert hub.value("SELECT state FROM seals WHERE sequence = 2") == "released"
    assert hub.rows("SELECT actor, action FROM audit_log WHERE subject LIKE 'quarantine%'") == [
        ("operator", "quarantine.released")
    ]
    with pytest.raises(QuarantineAlreadyDecided):
        hub.reject(quarantine_id)


@pytest.mark.parametrize("kind", ["bad_signature", "broken_chain", "invented_surplus", "fallen_counter"])
def test_no_operator_can_release_what_contradicts_the_signatures(hub: Hub, home: SimulatedMeter, kind: str) -> None:
    first, second = home.messages(2)
    hub.take(first, replace(second, message=BAD_MESSAGES[kind](home.key, second.message, random.Random(1))))
    quarantine_id = hub.value("SELECT quarantine_id FROM quarantine")
    assert isinstance(quarantine_id, int)
    with pytest.raises(QuarantineNotReleasable):
        hub.release(quarantine_id)
    assert hub.value("SELECT state FROM quarantine") == "held"
    hub.reject(quarantine_id)
    assert hub.value("SELECT state FROM quarantine") == "rejected"


def test_an_old_backlog_is_held_and_released_at_once_when_its_chain_verifies(hub: Hub, home: SimulatedMeter) -> None:
    messages = home.messages(5)
    hub.now += timedelta(seconds=POLICY.backlog_age_max_s + 7_200)
    hub.take(*messages[:2], *messages[3:])
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'too_old'") == 4
    with transaction(hub.engine) as connection:
        released = service.release_backlog(connection, home.meter_id, "operator", "a month in the cellar", hub.now)
    assert released == 2, "what lies beyond a gap waits for it"
    hub.take(messages[2])
    with transaction(hub.engine) as connection:
        assert service.release_backlog(connection, home.meter_id, "operator", "and the rest", hub.now) == 3
    assert hub.stored_energy_wh(home.meter_id) == (home.expected().production_wh, home.expected().consumption_wh)


def test_workers_that_race_over_the_same_seals_store_each_once(hub: Hub) -> None:
    meters = fleet(4)
    hub.register(*meters)
    messages = [message for meter in meters for message in meter.messages(8)]
    shuffled = [random.Random(seed).sample(messages, len(messages)) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda part: [hub.take(*part[i : i + 5]) for i in range(0, len(part), 5)], shuffled))
    assert hub.value("SELECT count(*) FROM seals WHERE linked AND state = 'accepted'") == len(messages)
    for meter in meters:
        expected = meter.expected()
        assert hub.stored_energy_wh(meter.meter_id) == (expected.production_wh, expected.consumption_wh)


def test_a_device_that_babbles_cannot_fill_the_disk(hub: Hub, home: SimulatedMeter) -> None:
    name = topic(COMMUNITY_ID, home.meter_id, "seals")
    done = hub.take(*[(name, b"noise %d" % number) for number in range(service.UNVERIFIED_KEPT_MAX + 5)])
    assert done.not_kept == 5
    assert hub.value("SELECT count(*) FROM quarantine") == service.UNVERIFIED_KEPT_MAX
    assert hub.take(home.next_message()).verdicts[0][1].outcome is Outcome.ACCEPTED


def test_a_key_that_signs_ever_new_histories_cannot_fill_the_disk(hub: Hub, home: SimulatedMeter) -> None:
    first = home.next_message()
    hub.take(first)
    sealed_at_unix_s = misbehaviour.field_of(first.message, "sealed_at_unix_s")
    forks = [
        replace(first, message=misbehaviour.reseal(home.key, first.message, sealed_at_unix_s=sealed_at_unix_s + 1 + i))
        for i in range(service.FORKS_KEPT_MAX + 20)
    ]
    assert hub.take(*forks[:60]).not_kept == 0
    assert hub.take(*forks[60:]).not_kept == 20
    assert hub.value("SELECT count(*) FROM quarantine") == service.FORKS_KEPT_MAX
    assert hub.value("SELECT count(*) FROM alarms") == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("commonwatt/v1/elsewhere/0/home/seals", "bad_topic"),
        ("commonwatt/v1/test-community/99/home/seals", "bad_topic"),
        ("anything", "bad_topic"),
        (topic(COMMUNITY_ID, "nobody", "seals"), "unknown_meter"),
    ],
)
def test_a_message_for_no_meter_of_ours_is_refused_by_name(hub: Hub, name: str, reason: str) -> None:
    hub.take((name, b"whatever"))
    assert hub.rows("SELECT reason, meter_no FROM quarantine") == [(reason, None)]


def test_a_clock_far_away_creates_no_partition(hub: Hub, home: SimulatedMeter) -> None:
    first, second = home.messages(2)
    hub.take(first)
    before = hub.value("SELECT count(*) FROM pg_inherits")
    hub.take(
        replace(second, message=BAD_MESSAGES["readings_beyond_the_seal"](home.key, second.message, random.Random(1)))
    )
    assert hub.value("SELECT count(*) FROM pg_inherits") == before


def test_a_posted_seal_is_stored_by_the_same_rules(hub: Hub, home: SimulatedMeter) -> None:
    message = home.next_message()
    posted = service.receive_posted(hub.engine, POLICY, home.meter_id, message.message, hub.now)
    assert (posted.state, posted.sequence, posted.receipt.contiguous_sequence) == ("accepted", 1, 1)
    assert service.receive_posted(hub.engine, POLICY, home.meter_id, message.message, hub.now).state == "repeat"
    with pytest.raises(SealUnverifiable):
        service.receive_posted(hub.engine, POLICY, home.meter_id, message.message[:-1], hub.now)
    with pytest.raises(MeterNotFound):
        service.receive_posted(hub.engine, POLICY, "nobody", message.message, hub.now)
    assert hub.value("SELECT count(*) FROM quarantine") == 0, "anybody may post, so nothing unverifiable is kept"


def test_the_packed_copy_holds_every_column_of_every_shape(hub: Hub) -> None:
    [meter] = fleet(readings_per_seal=3)
    hub.register(meter)
    [first] = meter.messages(1)
    hub.take(first)
    rows = hub.rows(
        "SELECT extract(epoch FROM time)::bigint, production_wh, consumption_wh, power_w, voltage_dv, frequency_mhz,"
        " flags FROM readings ORDER BY time"
    )
    assert rows == [reading._key() for reading in decode_readings(misbehaviour.section_of(first.message))]


@pytest.mark.parametrize("present", range(8))
def test_optional_columns_may_be_absent_in_any_combination(hub: Hub, present: int) -> None:
    values = [[100, -5, 0], [2_300, 2_301, 2_302], [50_000, 49_990, 50_010]]
    power, voltage, frequency = [column if present >> i & 1 else None for i, column in enumerate(values)]
    times = [1_775_000_000, 1_775_000_060, 1_775_000_120]
    columns = Readings(times, [1, 2, 3], [4, 5, 6], power, voltage, frequency, [0, 8, 1], [])
    other = Readings([time + 600 for time in times], [1, 2, 3], [4, 5, 6], None, None, None, None, [])
    with transaction(hub.engine) as connection:
        ensure_monthly_partitions(connection, [(2026, 3)])
        store.copy_readings(driver(connection), [(1, columns), (1, other)])
    rows = hub.rows("SELECT power_w, voltage_dv, frequency_mhz, flags FROM readings ORDER BY time")
    assert rows[:3] == [
        (power and power[i], voltage and voltage[i], frequency and frequency[i], [0, 8, 1][i]) for i in range(3)
    ]
    assert rows[3:] == [(None, None, None, 0)] * 3


def test_a_seal_over_a_long_outage_touches_every_month_in_between() -> None:
    first = datetime(2025, 12, 31, 23, 59, tzinfo=UTC)
    last = datetime(2026, 2, 1, tzinfo=UTC)
    assert service.months_between(int(first.timestamp()), int(last.timestamp())) == {(2025, 12), (2026, 1), (2026, 2)}
    assert service.months_between(int(last.timestamp()), int(first.timestamp())) == set()


@pytest.mark.parametrize("name", ["x" * 60_000, "with a \x00 inside", "commonwatt/v1/" + "é" * 5_000])
def test_no_topic_is_too_strange_to_be_kept(hub: Hub, name: str) -> None:
    hub.take((name, b"whatever"))
    assert hub.value("SELECT reason FROM quarantine") == "bad_topic"


def test_a_key_that_goes_on_forking_is_suspended_again_after_every_resumption(hub: Hub, home: SimulatedMeter) -> None:
    first = home.next_message()
    hub.take(first)
    sealed_at_unix_s = misbehaviour.field_of(first.message, "sealed_at_unix_s")
    forks = [
        replace(first, message=misbehaviour.reseal(home.key, first.message, sealed_at_unix_s=sealed_at_unix_s + 1 + i))
        for i in range(service.FORKS_KEPT_MAX + 1)
    ]
    hub.take(*forks[:-1])
    with transaction(hub.engine) as connection:
        resume_meter(connection, home.meter_id, "new firmware", "operator", hub.now)
    hub.take(forks[-1])
    assert hub.value("SELECT state FROM meters") == "suspended"
    assert hub.value("SELECT count(*) FROM alarms") == 2


def test_a_released_seal_that_a_late_predecessor_disproves_is_held_again(hub: Hub, home: SimulatedMeter) -> None:
    first, second = home.messages(2)
    lie = misbehaviour.invented_surplus(home.key, second.message, random.Random(1))
    hub.now += timedelta(seconds=POLICY.backlog_age_max_s + 7_200)
    hub.take(replace(second, message=lie))
    quarantine_id = hub.value("SELECT quarantine_id FROM quarantine")
    assert isinstance(quarantine_id, int)
    hub.release(quarantine_id)
    assert hub.value("SELECT count(*) FROM readings") == 15
    hub.take(first)
    assert hub.rows("SELECT reason, state FROM quarantine WHERE sequence = 2") == [(rules.NETTING_MISMATCH, "held")]
    assert hub.value("SELECT count(*) FROM readings") == 0
    assert hub.rows("SELECT state, sound FROM seals WHERE sequence = 2") == [("quarantined", False)]


def test_a_posted_second_history_is_refused_by_name(hub: Hub, home: SimulatedMeter) -> None:
    first = home.next_message()
    service.receive_posted(hub.engine, POLICY, home.meter_id, first.message, hub.now)
    with pytest.raises(SealEquivocates):
        service.receive_posted(hub.engine, POLICY, home.meter_id, misbehaviour.fork(home.key, first.message), hub.now)
    assert hub.value("SELECT state FROM meters") == "suspended", "the refusal undoes nothing"
