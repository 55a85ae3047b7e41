"""Opening envelopes: the fast decoder is the protocol's decoder, and no bytes on any topic raise."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.readings.envelope import (
    BAD_SIGNATURE,
    Arrival,
    KeyRing,
    MeterKeys,
    Refusal,
    VerifiedSeal,
    decode_readings,
    open_envelopes,
)
from protocol import msgpack
from protocol.errors import ProtocolError
from protocol.limits import ENERGY_WH_MAX, READINGS_PER_SEAL_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from protocol.readings import decode_readings as protocol_decode
from protocol.topics import domain_of, topic
from simulators.misbehaviour import section_of
from simulators.sealing import FleetPlan, SimulatedMeter, seeded_key

VECTORS = Path(__file__).parents[2] / "vectors"
COMMUNITY_ID = "test-community"
DOMAIN = domain_of(COMMUNITY_ID)
FUZZ = settings(max_examples=1_500, deadline=None)


def a_meter() -> SimulatedMeter:
    return next(FleetPlan(COMMUNITY_ID, 3, 1, 1_790_000_100).each_meter())


METER = a_meter()
GENUINE = a_meter().next_message().message
SECTION = section_of(GENUINE)


def by_the_hub(section: bytes) -> list[tuple[Any, ...]] | str:
    try:
        decoded = decode_readings(section)
    except ProtocolError:
        return "refused"
    count = len(decoded)
    nothing = [None] * count
    columns = [
        decoded.times_unix_s,
        decoded.productions_wh,
        decoded.consumptions_wh,
        decoded.powers_w or nothing,
        decoded.voltages_dv or nothing,
        decoded.frequencies_mhz or nothing,
        decoded.flags or [0] * count,
    ]
    return list(zip(*columns, strict=True))


def by_the_protocol(section: bytes) -> list[tuple[Any, ...]] | str:
    try:
        return [reading._key() for reading in protocol_decode(section)]
    except ProtocolError:
        return "refused"


def test_both_decoders_agree_on_every_vector() -> None:
    cases = json.loads((VECTORS / "readings.json").read_text(encoding="utf-8"))
    sections = [
        bytes.fromhex(case["given"])
        for case in cases
        if case["operation"] == "decode_readings" and isinstance(case["given"], str) and "+" not in case["given"]
    ]
    assert len(sections) > 20
    for section in sections:
        assert by_the_hub(section) == by_the_protocol(section), section.hex()


integers = st.one_of(
    st.integers(-3, 130),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([TIME_MIN_UNIX_S, TIME_MAX_UNIX_S, TIME_MAX_UNIX_S + 1, ENERGY_WH_MAX, ENERGY_WH_MAX + 1, 2**31]),
)
columns = st.lists(integers, max_size=6)


@FUZZ
@given(
    st.tuples(
        st.one_of(st.integers(TIME_MIN_UNIX_S, TIME_MAX_UNIX_S), integers),
        st.one_of(st.integers(0, 10**9), integers),
        st.one_of(st.integers(0, 10**9), integers),
        st.one_of(st.lists(st.integers(0, 900), max_size=3), columns),
        st.one_of(st.lists(st.integers(0, 900), max_size=3), columns),
        st.one_of(st.lists(st.integers(0, 900), max_size=3), columns),
        st.none() | st.lists(st.integers(-300, 300), max_size=4) | columns,
        st.none() | st.lists(st.integers(0, 300), max_size=4) | columns,
        st.none() | st.lists(st.integers(0, 300), max_size=4) | columns,
        st.none() | st.lists(st.integers(0, 17), max_size=4) | columns,
    )
)
def test_both_decoders_agree_on_any_ten_columns(values: tuple[Any, ...]) -> None:
    section = msgpack.pack(list(values))
    assert by_the_hub(section) == by_the_protocol(section)


@FUZZ
@given(st.data())
def test_both_decoders_agree_on_damaged_sections(data: st.DataObject) -> None:
    section = bytearray(SECTION)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(section)))
        section[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert by_the_hub(bytes(section)) == by_the_protocol(bytes(section))


@pytest.mark.parametrize("count", [READINGS_PER_SEAL_MAX, READINGS_PER_SEAL_MAX + 1])
def test_both_decoders_count_alike(count: int) -> None:
    steps = [1] * (count - 1)
    section = msgpack.pack([TIME_MIN_UNIX_S, 0, 0, steps, steps, steps, None, None, None, None])
    assert by_the_hub(section) == by_the_protocol(section)


def ring(*keys: tuple[int, bytes]) -> KeyRing:
    return KeyRing(lambda meter_ids: [MeterKeys(1, METER.meter_id, keys)] if METER.meter_id in meter_ids else [])


KEYS = ((1, bytes(METER.key.verify_key)),)
SEALS = topic(COMMUNITY_ID, METER.meter_id, "seals")


@FUZZ
@given(
    st.one_of(st.just(SEALS), st.text(max_size=60), st.sampled_from([topic(COMMUNITY_ID, "nobody", "seals")])),
    st.binary(max_size=400),
)
@example(SEALS, b"")
@example("commonwatt/v1/" + COMMUNITY_ID + "/0/\x00/seals", GENUINE)
def test_no_bytes_on_any_topic_raise(name: str, payload: bytes) -> None:
    [result] = open_envelopes([Arrival(name, payload)], COMMUNITY_ID, DOMAIN, ring(*KEYS))
    assert isinstance(result, Refusal) and result.reason


@FUZZ
@given(st.integers(0, len(GENUINE) * 8 - 1))
def test_no_bit_of_a_message_can_change_unnoticed(bit: int) -> None:
    changed = bytearray(GENUINE)
    changed[bit // 8] ^= 1 << bit % 8
    [result] = open_envelopes([Arrival(SEALS, bytes(changed))], COMMUNITY_ID, DOMAIN, ring(*KEYS))
    assert isinstance(result, Refusal)


def test_the_key_that_verifies_names_the_epoch() -> None:
    newer = (2, bytes(seeded_key("the key after it").verify_key))
    [result] = open_envelopes([Arrival(SEALS, GENUINE)], COMMUNITY_ID, DOMAIN, ring(newer, *KEYS))
    assert isinstance(result, VerifiedSeal) and result.key_epoch == 1


def test_a_key_enrolled_since_is_looked_up_once_more() -> None:
    known = [((1, bytes(seeded_key("an old key").verify_key)),), KEYS]
    keys = KeyRing(lambda meter_ids: [MeterKeys(1, METER.meter_id, known.pop(0))])
    arrivals = [Arrival(SEALS, GENUINE), Arrival(SEALS, GENUINE)]
    assert all(isinstance(result, VerifiedSeal) for result in open_envelopes(arrivals, COMMUNITY_ID, DOMAIN, keys))


def test_a_signature_by_no_key_of_the_meter_is_refused_under_that_name() -> None:
    stranger = (1, bytes(seeded_key("a stranger").verify_key))
    [result] = open_envelopes([Arrival(SEALS, GENUINE)], COMMUNITY_ID, DOMAIN, ring(stranger))
    assert isinstance(result, Refusal) and result.reason == BAD_SIGNATURE
