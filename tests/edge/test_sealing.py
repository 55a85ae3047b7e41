import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from edge.sealing import Chain, first_chain, seal_due, seal_readings
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment
from protocol.limits import MESSAGE_BYTES_MAX, READINGS_PER_SEAL_MAX, SETTLEMENT_INTERVAL_S
from protocol.readings import Reading, decode_readings
from protocol.seal import seal_hash, split_message
from protocol.settlement import Netting

START = 1_800_000_000
DOMAIN = b"domain.."
KEY = SigningKey(b"k" * 32)


def sign(data: bytes) -> bytes:
    return KEY.sign(data).signature


def enrolled(production_wh: int = 0, consumption_wh: int = 0) -> Chain:
    return first_chain(
        Enrolment(
            DOMAIN, "home-17", KIND_SOLAR, MEASURES_GENERATION_AND_GRID, 1, b"o" * 32, bytes(KEY.verify_key),
            production_wh, consumption_wh, 0, START,
        )
    )  # fmt: skip


histories = st.lists(
    st.tuples(st.integers(1, 2_000), st.integers(0, 900), st.integers(0, 900)), min_size=1, max_size=80
)


@given(histories, st.integers(1, 40))
def test_however_readings_are_cut_into_seals_the_chain_holds_and_nets_the_same(
    history: list[tuple[int, int, int]], cut: int
) -> None:
    readings, at, production, consumption = [], START, 7, 11
    for seconds, produced, consumed in history:
        at, production, consumption = at + seconds, production + produced, consumption + consumed
        readings.append(Reading(at, production, consumption))
    chain, whole = enrolled(7, 11), Netting(START // 900 * 900, 7, 11, 0, 7, 11)
    previous, unsealed = bytes(32), readings
    while unsealed:
        part, unsealed = unsealed[:cut], unsealed[cut:]
        sealed = seal_readings(chain, part, part[-1].time_unix_s, DOMAIN, sign)
        message = split_message(sealed.message)
        KEY.verify_key.verify(message.seal_bytes, message.signature)
        assert message.seal.previous_seal_hash == previous
        assert message.seal.sequence == chain.sequence + 1
        assert message.seal.sealed_at_unix_s > chain.sealed_at_unix_s
        assert decode_readings(message.section) == part
        for reading in part:
            whole.add(reading.time_unix_s, reading.production_wh, reading.consumption_wh)
        assert message.seal.surplus_wh == whole.surplus_wh
        assert message.seal.closed_until_unix_s == whole.closed_until_unix_s
        chain, previous = sealed.chain, seal_hash(message.seal_bytes)
        assert previous == sealed.seal_hash


def test_more_readings_than_a_message_holds_are_sealed_in_parts() -> None:
    huge = 2**50
    readings = [
        Reading(
            START + 1 + 70_000 * i,
            i * huge // 1000,
            i * huge // 1000,
            (-1) ** i * 2**30,
            i % 2 * 90_000,
            i % 2 * 900_000,
        )
        for i in range(READINGS_PER_SEAL_MAX + 50)
    ]
    sealed = seal_readings(enrolled(), readings, readings[-1].time_unix_s, DOMAIN, sign)
    assert 0 < sealed.readings < READINGS_PER_SEAL_MAX
    assert len(sealed.message) <= MESSAGE_BYTES_MAX
    assert sealed.chain.last_reading_unix_s == readings[sealed.readings - 1].time_unix_s


def test_a_seal_is_due_when_its_boundary_has_passed_and_the_boundary_reading_belongs_to_it() -> None:
    assert not seal_due(START + 60, 14, START + 899, 900)
    assert seal_due(START + 60, 15, START + 900, 900)
    assert seal_due(START + 900, 1, START + 900, 900)
    assert not seal_due(START + 960, 1, START + 960, 900)


def test_live_mode_seals_every_reading() -> None:
    assert seal_due(START + 1, 1, START + 1, 0)


def test_a_full_message_is_sealed_before_its_boundary() -> None:
    assert seal_due(START + 1, READINGS_PER_SEAL_MAX, START + 950, 86_400)


@pytest.mark.parametrize("now", [START, START + 59])
def test_nothing_is_sealed_before_it_was_read(now: int) -> None:
    with pytest.raises(ValueError, match="out of order"):
        seal_readings(enrolled(), [Reading(START + 60, 1, 1)], now, DOMAIN, sign)


def test_the_open_interval_adds_no_surplus() -> None:
    sealed = seal_readings(enrolled(), [Reading(START + 60, 500, 0)], START + 60, DOMAIN, sign)
    assert sealed.chain.surplus_wh == 0
    closing = seal_readings(sealed.chain, [Reading(START + SETTLEMENT_INTERVAL_S, 800, 100)], START + 900, DOMAIN, sign)
    assert closing.chain.surplus_wh == 700
