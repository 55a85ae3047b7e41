"""Each kind of bad message breaks the rule that it is named after, and nothing before it."""

import random

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from protocol.errors import ProtocolError
from protocol.readings import decode_readings
from protocol.seal import split_message
from simulators.misbehaviour import (
    BAD_MESSAGES,
    Mischief,
    fork,
    misbehave,
    reordered,
    with_duplicates,
    with_gap,
)
from simulators.sealing import FleetPlan, SimulatedMeter

START = 1_795_046_400
SHAPE_ERRORS = {
    "too_long": "message_too_long",
    "tampered_readings": "readings_hash",
    "wrong_magic": "seal_magic",
    "never_set_clock": "seal_time",
    "open_interval": "seal_time",
    "surplus_beyond_production": "seal_counter",
    "sequence_zero": "seal_sequence",
    "readings_not_messagepack": "msgpack_unsupported",
    "readings_of_wrong_shape": "readings_shape",
}
ANY_ERROR = {"garbage", "truncated"}
BAD_SIGNATURES = {"bad_signature", "tampered_seal", "foreign_key"}


def meter() -> SimulatedMeter:
    simulated = next(FleetPlan("sonnenhof", 1, 1, START).each_meter())
    simulated.next_message()
    return simulated


def error_of(data: bytes, key: VerifyKey) -> str | None:
    try:
        message = split_message(data)
        key.verify(message.seal_bytes, message.signature)
        decode_readings(message.section)
    except ProtocolError as error:
        return error.code
    except BadSignatureError:
        return "signature"
    return None


@pytest.mark.parametrize("kind", BAD_MESSAGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_bad_message_is_bad_in_its_own_way(kind: str, seed: int) -> None:
    honest = meter()
    message = honest.next_message().message
    bad = BAD_MESSAGES[kind](honest.key, message, random.Random(seed))
    assert bad != message
    assert bad == BAD_MESSAGES[kind](honest.key, message, random.Random(seed))
    error = error_of(bad, honest.key.verify_key)
    if kind in ANY_ERROR:
        assert error is not None
    elif kind in BAD_SIGNATURES:
        assert error == "signature"
    else:
        assert error == SHAPE_ERRORS.get(kind)


def test_a_fork_is_a_second_truth_with_the_same_number_and_energy() -> None:
    honest = meter()
    message = honest.next_message().message
    one, other = split_message(message), split_message(fork(honest.key, message))
    honest.key.verify_key.verify(other.seal_bytes, other.signature)
    assert one.seal.readings_hash != other.seal.readings_hash
    other.seal.readings_hash = one.seal.readings_hash
    assert one.seal == other.seal


def test_orders_lose_nothing() -> None:
    messages = meter().messages(40)
    rng = random.Random(1)
    live, late = with_gap(messages, 5, 9)
    assert [message.sequence for message in late] == [5, 6, 7, 8, 9]
    assert sorted(live + late, key=lambda message: message.sequence) == messages
    mixed = reordered(messages, 5, rng)
    assert mixed != messages
    assert set(mixed) == set(messages)
    assert all(place - messages.index(message) <= 5 for place, message in enumerate(mixed))
    doubled = with_duplicates(messages, 0.5, rng)
    assert len(doubled) > len(messages)
    assert list(dict.fromkeys(doubled)) == messages


def test_mischief_keeps_every_genuine_message() -> None:
    honest = meter()
    messages = honest.messages(30)
    mischief = Mischief(tuple(BAD_MESSAGES), 0.5, 0.3, 4, (10, 12), 20)
    sent = misbehave(messages, honest.key, mischief, "seed")
    assert sent == misbehave(messages, honest.key, mischief, "seed")
    assert set(messages) < set(sent)
    assert sum(message.sequence == 20 and message.readings == 0 for message in sent) >= 1
