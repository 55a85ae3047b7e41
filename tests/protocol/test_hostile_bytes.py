"""Whatever the bytes: the decoders raise ProtocolError and nothing else, and what they accept survives a round trip."""

import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import msgpack
from protocol.command import COMMAND_BYTES, encode_command, split_command
from protocol.committed import decode_committed, encode_committed
from protocol.credential import encode_credential_request, split_credential_request
from protocol.enrolment import decode_enrolment, encode_enrolment, split_enrolment
from protocol.errors import ProtocolError
from protocol.limits import (
    ENERGY_WH_MAX,
    FREQUENCY_MHZ_MAX,
    POWER_W_ABS_MAX,
    TIME_MAX_UNIX_S,
    TIME_MIN_UNIX_S,
    VOLTAGE_DV_MAX,
)
from protocol.readings import FLAGS_ALL, Reading, decode_readings, encode_readings
from protocol.replacement import encode_replacement, split_replacement
from protocol.rotation import join_rotation, split_rotation
from protocol.seal import decode_seal, encode_seal, split_message
from protocol.topics import parse_topic, topic

VECTORS = Path(__file__).parents[1] / "vectors"
DECODERS = {
    "messages.json": split_message,
    "seals.json": decode_seal,
    "readings.json": decode_readings,
    "enrolments.json": decode_enrolment,
    "rotations.json": split_rotation,
    "replacements.json": split_replacement,
    "credentials.json": split_credential_request,
    "commands.json": split_command,
    "committed.json": decode_committed,
    "msgpack.json": msgpack.unpack,
}
FUZZ = settings(max_examples=400, deadline=None)


def valid_bytes(name: str) -> list[bytes]:
    cases = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return [
        bytes.fromhex(case["given"])
        for case in cases
        if case["operation"].startswith("decode_") and "result" in case and "+" not in case["given"]
    ]


@functools.cache
def hostile_bytes(name: str) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=400) | damaged(valid_bytes(name))


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    changed = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        changed[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(changed)


@pytest.mark.parametrize("name", DECODERS)
@FUZZ
@given(data=st.data())
def test_damaged_bytes_end_in_a_protocol_error(name: str, data: st.DataObject) -> None:
    message = data.draw(hostile_bytes(name))
    try:
        DECODERS[name](message)
    except ProtocolError as error:
        assert error.code


@FUZZ
@given(st.text(max_size=90) | st.from_regex(r"commonwatt/v1/[a-z]{1,9}/[0-9]{1,2}/[a-z0-9-]{1,9}/seals"))
def test_hostile_topics_end_in_a_protocol_error(name: str) -> None:
    try:
        community, _, meter_id, channel = parse_topic(name)
    except ProtocolError:
        return
    assert topic(community, meter_id, channel) == name


@FUZZ
@given(damaged(valid_bytes("seals.json")))
def test_an_accepted_seal_is_the_same_124_bytes_again(data: bytes) -> None:
    try:
        seal = decode_seal(data)
    except ProtocolError:
        return
    assert encode_seal(seal) == data


@FUZZ
@given(damaged(valid_bytes("enrolments.json")))
def test_an_accepted_statement_is_the_same_180_bytes_again(data: bytes) -> None:
    try:
        statement, signed, _ = split_enrolment(data + bytes(64))
    except ProtocolError:
        return
    assert encode_enrolment(statement) == signed


@FUZZ
@given(damaged(valid_bytes("rotations.json")))
def test_an_accepted_rotation_is_the_same_308_bytes_again(data: bytes) -> None:
    try:
        statement, signed, signature, endorsement = split_rotation(data)
    except ProtocolError:
        return
    assert join_rotation(encode_enrolment(statement), signature, endorsement) == data
    assert encode_enrolment(statement) == signed


@FUZZ
@given(damaged(valid_bytes("replacements.json")))
def test_an_accepted_record_of_an_exchange_is_the_same_108_bytes_again(data: bytes) -> None:
    try:
        record, signed, signature = split_replacement(data)
    except ProtocolError:
        return
    assert encode_replacement(record) == signed
    assert signed + signature == data


@FUZZ
@given(damaged(valid_bytes("credentials.json")))
def test_an_accepted_request_for_a_password_is_the_same_72_bytes_again(data: bytes) -> None:
    try:
        request, signed, signature = split_credential_request(data)
    except ProtocolError:
        return
    assert encode_credential_request(request) == signed
    assert signed + signature == data


@FUZZ
@given(damaged(valid_bytes("commands.json")))
def test_an_accepted_command_is_the_same_80_bytes_again(data: bytes) -> None:
    try:
        command, signed, _ = split_command(data)
    except ProtocolError:
        return
    assert encode_command(command) == signed == data[:COMMAND_BYTES]


@FUZZ
@given(damaged(valid_bytes("committed.json")))
def test_an_accepted_receipt_says_the_same_again(data: bytes) -> None:
    try:
        receipt = decode_committed(data)
    except ProtocolError:
        return
    again = decode_committed(encode_committed(receipt))
    assert vars(again) == vars(receipt)


@st.composite
def reading_lists(draw: st.DrawFn) -> list[Reading]:
    count = draw(st.integers(1, 30))
    times = draw(
        st.lists(st.integers(TIME_MIN_UNIX_S, TIME_MAX_UNIX_S), min_size=count, max_size=count, unique=True).map(sorted)
    )
    counters = st.lists(st.integers(0, ENERGY_WH_MAX), min_size=count, max_size=count).map(sorted)
    productions, consumptions = draw(counters), draw(counters)
    columns: list[list[Any]] = []
    for low, high in (
        (-POWER_W_ABS_MAX, POWER_W_ABS_MAX),
        (0, VOLTAGE_DV_MAX),
        (0, FREQUENCY_MHZ_MAX),
    ):
        column = st.lists(st.integers(low, high), min_size=count, max_size=count)
        columns.append(draw(st.just([None] * count) | column))
    flags = draw(st.lists(st.integers(0, FLAGS_ALL), min_size=count, max_size=count))
    return [Reading(*row) for row in zip(times, productions, consumptions, *columns, flags, strict=True)]


@settings(max_examples=150, deadline=None)
@given(reading_lists())
def test_readings_survive_the_wire(readings: list[Reading]) -> None:
    assert decode_readings(encode_readings(readings)) == readings


@settings(max_examples=150, deadline=None)
@given(reading_lists(), st.data())
def test_an_optional_column_is_carried_only_when_every_reading_has_it(
    readings: list[Reading], data: st.DataObject
) -> None:
    data.draw(st.sampled_from(readings)).power_w = None
    assert all(reading.power_w is None for reading in decode_readings(encode_readings(readings)))


def sliver(depth: int) -> st.SearchStrategy[Any]:
    """Values that the protocol's MessagePack knows, arrays at most so deep."""
    leaf = st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300)
    if depth == 0:
        return leaf
    return leaf | st.lists(sliver(depth - 1), max_size=20)


@settings(max_examples=400, deadline=None)
@given(sliver(msgpack.DEPTH_MAX))
@example([0] * 70_000)
@example(bytes(70_000))
def test_our_messagepack_is_everybodys(value: Any) -> None:
    packed = msgpack.pack(value)
    assert packed == msgspec.msgpack.encode(value)
    assert msgpack.unpack(packed) == msgspec.msgpack.decode(packed) == value


@FUZZ
@given(damaged(valid_bytes("msgpack.json") + valid_bytes("readings.json")))
def test_what_our_messagepack_accepts_means_the_same_to_msgspec(data: bytes) -> None:
    try:
        value = msgpack.unpack(data)
    except ProtocolError:
        return
    assert msgspec.msgpack.decode(data) == value
