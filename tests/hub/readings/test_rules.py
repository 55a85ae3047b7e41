"""The judgement of seals, without a database: order, links, and what each lie is called."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.readings import rules
from hub.readings.envelope import Arrival, MeterKeys, VerifiedSeal, open_envelope
from hub.readings.rules import Outcome, Policy, State, Stream, Verdict, base_facts, judge
from protocol.enrolment import split_enrolment
from protocol.settlement import first_closed_until
from protocol.topics import domain_of, topic
from simulators import misbehaviour
from simulators.sealing import FleetPlan, SealedMessage, SimulatedMeter, seeded_key

START_UNIX_S = 1_790_000_100
POLICY = Policy("test-community", domain_of("test-community"), backlog_age_max_s=35 * 86_400)
NOW_UNIX_S = START_UNIX_S + 86_400


def a_meter(seed: int = 1, readings_per_seal: int = 15, interval_s: int = 60) -> SimulatedMeter:
    plan = FleetPlan("test-community", seed, 1, START_UNIX_S, interval_s, readings_per_seal)
    return next(plan.each_meter())


def empty_stream(meter: SimulatedMeter) -> Stream:
    statement, _, _ = split_enrolment(meter.enrolment())
    stream = Stream(1, 1, meter.meter_id, "active", 10_000, 20_000, 10, 0, 0, None, gaps=[])
    stream.known[0] = base_facts(
        closed_until_unix_s=first_closed_until(statement.valid_from_unix_s),
        production_wh=statement.production_wh,
        consumption_wh=statement.consumption_wh,
        surplus_wh=statement.surplus_wh,
        sealed_at_unix_s=statement.valid_from_unix_s - 1,
        last_reading_unix_s=statement.valid_from_unix_s - 1,
        last_production_wh=statement.production_wh,
        last_consumption_wh=statement.consumption_wh,
        production_excess_ws=0,
        consumption_excess_ws=0,
    )
    return stream


def opened(meter: SimulatedMeter, message: bytes) -> VerifiedSeal:
    keys = MeterKeys(1, meter.meter_id, ((1, bytes(meter.key.verify_key)),))
    arrival = Arrival(topic("test-community", meter.meter_id, "seals"), message)
    result = open_envelope(arrival, meter.meter_id, keys, POLICY.domain)
    assert isinstance(result, VerifiedSeal), result
    return result


def judged(stream: Stream, meter: SimulatedMeter, message: bytes | SealedMessage) -> Verdict:
    payload = message.message if isinstance(message, SealedMessage) else message
    return judge(stream, opened(meter, payload), POLICY, NOW_UNIX_S)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_order_every_seal_is_accepted_once_and_linked(data: st.DataObject) -> None:
    meter = a_meter(data.draw(st.integers(0, 50)), data.draw(st.sampled_from([1, 3, 15, 40])))
    messages = meter.messages(data.draw(st.integers(1, 9)))
    order = data.draw(st.permutations(messages))
    again = data.draw(st.lists(st.sampled_from(messages), max_size=5))
    stream = empty_stream(meter)
    stored: set[int] = set()
    for message in order:
        verdict = judged(stream, meter, message)
        assert verdict.outcome is Outcome.ACCEPTED, verdict
        stored.add(message.sequence)
        missing = set(range(1, max(stored) + 1)) - stored
        assert {n for first, last in stream.gaps for n in range(first, last + 1)} == missing
        beyond = {n for first, last in stream.ranges_beyond() for n in range(first, last + 1)}
        assert set(range(1, stream.contiguous_sequence + 1)) | beyond == stored
    assert all(judged(stream, meter, message).outcome is Outcome.REPEAT for message in again)
    assert stream.contiguous_sequence == len(messages)
    assert stream.contiguous_seal_hash == meter.last_seal_hash
    assert all(facts.linked for facts in stream.known.values())


WITHIN_THE_ENVELOPE = {
    "future": rules.FROM_THE_FUTURE,
    "invented_surplus": rules.NETTING_MISMATCH,
    "fallen_counter": rules.COUNTER_DECREASED,
    "broken_chain": rules.CHAIN_MISMATCH,
    "readings_beyond_the_seal": rules.TIME_ORDER,
}


@pytest.mark.parametrize(("kind", "reason"), WITHIN_THE_ENVELOPE.items())
def test_each_lie_that_the_key_itself_signed_is_quarantined_under_its_name(kind: str, reason: str) -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first, second = meter.messages(2)
    judged(stream, meter, first)
    lie = misbehaviour.BAD_MESSAGES[kind](meter.key, second.message, random.Random(7))
    now_unix_s = START_UNIX_S + 2 * 900
    verdict = judge(stream, opened(meter, lie), POLICY, now_unix_s)
    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINED, reason), verdict
    assert verdict.facts is not None and verdict.facts.state is State.QUARANTINED
    assert stream.contiguous_sequence == 2, "what is quarantined is stored, and the meter may forget it"


def test_two_seals_with_one_number_are_equivocation() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first = meter.next_message()
    judged(stream, meter, first)
    verdict = judged(stream, meter, misbehaviour.fork(meter.key, first.message))
    assert verdict.outcome is Outcome.EQUIVOCATION


def test_a_seal_over_readings_older_than_the_limit_is_held_even_if_just_sealed() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    late_unix_s = START_UNIX_S + POLICY.backlog_age_max_s + 120
    verdict = judge(stream, opened(meter, meter.next_message().message), POLICY, late_unix_s)
    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINED, rules.TOO_OLD)


@pytest.mark.parametrize(("state", "reason"), [("suspended", rules.METER_SUSPENDED), ("retired", rules.METER_RETIRED)])
def test_a_meter_that_is_not_active_is_held(state: str, reason: str) -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    stream.meter_state = state
    assert judged(stream, meter, meter.next_message()).reason == reason


def test_a_late_predecessor_shows_that_its_successor_invented_surplus() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first, second, third = meter.messages(3)
    lie = misbehaviour.invented_surplus(meter.key, second.message, random.Random(1))
    assert judged(stream, meter, lie).outcome is Outcome.ACCEPTED, "its predecessor is not known yet"
    verdict = judged(stream, meter, first)
    assert verdict.outcome is Outcome.ACCEPTED
    assert verdict.successor is stream.known[2] and stream.known[2].state is State.QUARANTINED
    assert verdict.successor_fault is not None and verdict.successor_fault[0] == rules.NETTING_MISMATCH
    assert judged(stream, meter, third).outcome is Outcome.QUARANTINED, "it follows the honest second seal"


def test_a_late_predecessor_that_its_successor_does_not_name_is_the_one_held() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first, second = meter.messages(2)
    judged(stream, meter, second)
    verdict = judged(stream, meter, misbehaviour.fork(meter.key, first.message))
    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINED, rules.CHAIN_MISMATCH)
    assert stream.known[2].state is State.ACCEPTED and not stream.known[2].linked


def test_between_seals_that_do_not_touch_surplus_stays_within_what_was_produced() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first, _, third = meter.messages(3)
    judged(stream, meter, first)
    produced_wh = misbehaviour.field_of(third.message, "production_wh") - misbehaviour.field_of(
        first.message, "production_wh"
    )
    surplus_wh = misbehaviour.field_of(first.message, "surplus_wh") + produced_wh + 1
    lie = misbehaviour.reseal(meter.key, third.message, surplus_wh=surplus_wh)
    assert judged(stream, meter, lie).reason == rules.SURPLUS_OUT_OF_BOUNDS


@given(
    st.integers(0, 20_000),
    st.integers(1, 1_000),
    st.lists(st.tuples(st.integers(1, 900), st.integers(0, 400)), min_size=1, max_size=30),
)
def test_over_any_stretch_an_installation_carries_its_capacity_a_tenth_more_and_one_register_step(
    capacity_w: int, quantum_wh: int, steps: list[tuple[int, int]]
) -> None:
    times, counters = [0], [0]
    for time_s, energy_wh in steps:
        times.append(times[-1] + time_s)
        counters.append(counters[-1] + energy_wh)
    limit_ws = quantum_wh * 3_600
    within = rules._excess_ws(0, capacity_w, limit_ws, times, counters) <= limit_ws
    worst_ws = max(
        (counters[j] - counters[i]) * 3_600 - (capacity_w * 110 // 100) * (times[j] - times[i])
        for i in range(len(times))
        for j in range(i, len(times))
    )
    assert within == (worst_ws <= limit_ws)


def test_a_reading_a_second_is_no_way_around_the_capacity() -> None:
    meter = a_meter(readings_per_seal=1, interval_s=1)
    stream = empty_stream(meter)
    outcomes = []
    for _ in range(60):
        meter.leap(12)  # 43 kW
        outcomes.append(judged(stream, meter, meter.next_message()).outcome)
    assert outcomes[0] is Outcome.ACCEPTED, "within one register step"
    assert outcomes.count(Outcome.QUARANTINED) > 40


def test_a_register_that_leaps_is_held_and_the_seals_after_it_count() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    judged(stream, meter, meter.next_message())
    meter.leap(5_000_000)
    verdict = judged(stream, meter, meter.next_message())
    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINED, rules.OVER_CAPACITY)
    assert judged(stream, meter, meter.next_message()).outcome is Outcome.ACCEPTED


def test_a_spike_inside_a_batch_is_seen_although_the_quarter_hour_looks_harmless() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    genuine = opened(meter, meter.next_message().message)
    start_wh = genuine.readings.productions_wh[0]
    counters = [start_wh] * 7 + [start_wh + 1_000] * 8
    spiked = msgspec.structs.replace(genuine.readings, productions_wh=counters)
    facts = msgspec.structs.replace(rules.facts_of(genuine), readings=spiked)
    fault = rules._over_capacity(stream, facts, stream.known[0])
    assert fault is not None and fault[0] == rules.OVER_CAPACITY


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1_000), st.sampled_from([1, 7, 60, 899, 900, 901]), st.integers(1, 40))
def test_closings_name_the_last_reading_of_every_interval_touched(seed: int, interval_s: int, count: int) -> None:
    meter = a_meter(seed, count, interval_s)
    readings = opened(meter, meter.next_message().message).readings
    expected: dict[int, int] = {}
    for index, time_unix_s in enumerate(readings.times_unix_s):
        expected[-(-time_unix_s // 900) * 900] = index
    assert dict(readings.closings) == expected


def test_a_seal_that_would_open_one_gap_too_many_is_left_with_the_meter() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    messages = meter.messages(4)
    judged(stream, meter, messages[0])
    stream.gaps = [(10 * n, 10 * n) for n in range(1, rules.GAPS_PER_STREAM_MAX + 1)]
    stream.highest_sequence = 1
    assert judged(stream, meter, messages[1]).outcome is Outcome.ACCEPTED, "it opens none"
    verdict = judged(stream, meter, messages[3])
    assert (verdict.outcome, verdict.reason, verdict.facts) == (Outcome.NOT_TAKEN, rules.TOO_MANY_GAPS, None)
    assert stream.highest_sequence == 2


def test_a_seal_that_names_a_far_predecessor_is_not_taken_for_its_successor() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first, *_, fifth = meter.messages(5)
    named = misbehaviour.reseal(meter.key, fifth.message, previous_seal_hash=opened(meter, first.message).seal_hash)
    judged(stream, meter, named)
    verdict = judged(stream, meter, first)
    assert (verdict.outcome, verdict.successor) == (Outcome.ACCEPTED, None)
    assert not stream.known[5].linked


@pytest.mark.parametrize("kind", ["broken_chain", "invented_surplus", "fallen_counter"])
def test_suspension_and_age_do_not_hide_a_contradiction(kind: str) -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    first, second = meter.messages(2)
    judged(stream, meter, first)
    stream.meter_state = "suspended"
    lie = misbehaviour.BAD_MESSAGES[kind](meter.key, second.message, random.Random(7))
    verdict = judge(stream, opened(meter, lie), POLICY, NOW_UNIX_S + POLICY.backlog_age_max_s)
    assert verdict.reason not in rules.RELEASABLE
    assert verdict.facts is not None and not verdict.facts.sound


def test_nothing_is_measured_from_a_seal_that_contradicts_another() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    judged(stream, meter, meter.next_message())
    meter.leap(10**6)
    second = meter.next_message()
    late = misbehaviour.reseal(
        meter.key, second.message, surplus_wh=misbehaviour.field_of(second.message, "surplus_wh") + 1
    )
    assert judged(stream, meter, late).reason == rules.NETTING_MISMATCH
    verdict = judged(stream, meter, meter.next_message())
    assert verdict.outcome is Outcome.QUARANTINED, "the leap is still there, seen from the last sound seal"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_of_an_old_key_only_what_comes_before_the_handover_is_accepted_in_any_order(data: st.DataObject) -> None:
    meter = a_meter(data.draw(st.integers(0, 50)))
    messages = meter.messages(data.draw(st.integers(1, 8)))
    last = data.draw(st.integers(1, len(messages)))
    stream = empty_stream(meter)
    judged(stream, meter, messages[last - 1])
    stream.superseded_after, stream.current_key_epoch = last, 2
    for message in data.draw(st.permutations(messages)):
        verdict = judged(stream, meter, message)
        if message.sequence == last:
            assert verdict.outcome is Outcome.REPEAT
        elif message.sequence < last:
            assert verdict.outcome is Outcome.ACCEPTED, verdict
        else:
            assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINED, rules.KEY_SUPERSEDED)
    assert stream.contiguous_sequence == len(messages), "all of it is stored, and the device may forget it"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(0, 6), st.integers(1, 6), st.sampled_from([1, 4, 15, 40]))
def test_a_stream_split_between_two_keys_carries_what_one_key_would(
    seed: int, before: int, after: int, readings_per_seal: int
) -> None:
    meter, alone = a_meter(seed, readings_per_seal), a_meter(seed, readings_per_seal)
    stream, whole = empty_stream(meter), empty_stream(alone)
    for _ in range(before):
        judged(stream, meter, meter.next_message())
        judged(whole, alone, alone.next_message())
    base = stream.known[before]
    meter.take_over(seeded_key("next"))
    second = empty_stream(a_meter(seed, readings_per_seal))
    second.known[0] = base_facts(
        closed_until_unix_s=base.closed_until_unix_s,
        production_wh=base.production_wh,
        consumption_wh=base.consumption_wh,
        surplus_wh=base.surplus_wh,
        sealed_at_unix_s=base.sealed_at_unix_s,
        last_reading_unix_s=base.last_reading_unix_s,
        last_production_wh=base.last_production_wh,
        last_consumption_wh=base.last_consumption_wh,
        production_excess_ws=base.production_excess_ws,
        consumption_excess_ws=base.consumption_excess_ws,
    )
    for number in range(1, after + 1):
        assert judged(second, meter, meter.next_message()).outcome is Outcome.ACCEPTED
        assert judged(whole, alone, alone.next_message()).outcome is Outcome.ACCEPTED
        mine, expected = second.known[number], whole.known[before + number]
        assert (mine.production_wh, mine.consumption_wh, mine.surplus_wh) == (
            expected.production_wh,
            expected.consumption_wh,
            expected.surplus_wh,
        )
        assert (mine.production_excess_ws, mine.consumption_excess_ws) == (
            expected.production_excess_ws,
            expected.consumption_excess_ws,
        )


def test_what_a_revoked_key_signs_is_held_and_a_leap_beside_it_is_named_too() -> None:
    meter = a_meter()
    stream = empty_stream(meter)
    judged(stream, meter, meter.next_message())
    stream.key_revoked = True
    assert judged(stream, meter, meter.next_message()).reason == rules.KEY_REVOKED
    meter.leap(5_000_000)
    verdict = judged(stream, meter, meter.next_message())
    assert verdict.reason == rules.KEY_REVOKED and rules.OVER_CAPACITY in verdict.detail
    lie = misbehaviour.BAD_MESSAGES["fallen_counter"](meter.key, meter.next_message().message, random.Random(7))
    assert judged(stream, meter, lie).reason == rules.COUNTER_DECREASED, "no release hides a contradiction"
