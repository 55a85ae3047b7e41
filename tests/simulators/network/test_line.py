import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.network.framing import Bytes, ModbusTcp, Mqtt, is_publication, packet_identifier, payload_start
from simulators.network.line import GOOD, Badness, Line

TOPIC = b"commonwatt/v1/street/3/home-17/seals"


def publication(payload: bytes, identifier: int = 7) -> bytes:
    """An MQTT 5 PUBLISH at QoS 1 without properties."""
    body = len(TOPIC).to_bytes(2, "big") + TOPIC + identifier.to_bytes(2, "big") + b"\0" + payload
    length, digits = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        digits += bytes([digit | (0x80 if length else 0)])
        if not length:
            return b"\x32" + digits + body


def through(line: Line, packets: list[bytes]) -> Iterator[bytes]:
    for packet in packets:
        yield from line.pass_on(packet).forward
    yield from line.release()


@given(st.lists(st.binary(min_size=0, max_size=300), max_size=6), st.data())
def test_packets_are_found_however_the_stream_is_cut_into_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    packets = [publication(payload) for payload in payloads]
    stream, found, framing = b"".join(packets), [], Mqtt()
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += framing.feed(stream[:cut])
        stream = stream[cut:]
    assert found == packets


def test_modbus_answers_are_found_by_their_header() -> None:
    answer = bytes.fromhex("000100000007010404435c0000")
    framing = ModbusTcp()
    assert list(framing.feed(answer + answer[:8])) == [answer]
    assert list(framing.feed(answer[8:])) == [answer]
    assert list(Bytes().feed(b"ab")) == [b"ab"]


def test_the_payload_of_a_publication_is_where_mqtt_says() -> None:
    packet = publication(b"seal", identifier=258)
    assert is_publication(packet)
    assert not is_publication(b"\x40\x02\x00\x07"), "a PUBACK is none"
    assert not is_publication(b"\x30\x03\x00\x01a"), "one that asks for no acknowledgement is not touched"
    assert packet_identifier(packet) == b"\x01\x02"
    assert packet[payload_start(packet) :] == b"\0seal"


def test_a_good_line_changes_nothing() -> None:
    packets = [publication(bytes([number])) for number in range(20)]
    assert list(through(Line(lambda: GOOD, random.Random(1), mqtt=True), packets)) == packets


@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_repeats_and_reorders_loses_nothing(seed: int) -> None:
    line = Line(lambda: Badness(repeated=0.3, reordered=0.3), random.Random(seed), mqtt=True)
    packets = [publication(bytes([number])) for number in range(100)]
    passed = [bytes([packet[0] & ~0x08]) + packet[1:] for packet in through(line, packets)]
    assert set(passed) == set(packets)
    assert len(passed) == len(packets) + line.counts["repeated"]
    assert list(dict.fromkeys(passed)) != packets, "the order is another"


def test_a_damaged_publication_differs_by_one_bit_of_its_payload() -> None:
    line = Line(lambda: Badness(damaged=1), random.Random(3), mqtt=True)
    for number in range(50):
        packet = publication(bytes(40), number + 1)
        [damaged] = line.pass_on(packet).forward
        difference = int.from_bytes(damaged, "big") ^ int.from_bytes(packet, "big")
        assert difference.bit_count() == 1
        assert damaged[: payload_start(packet) + 1] == packet[: payload_start(packet) + 1]


def test_a_swallowed_publication_is_acknowledged_to_its_sender_and_reaches_nobody() -> None:
    line = Line(lambda: Badness(swallowed=1), random.Random(4), mqtt=True)
    passage = line.pass_on(publication(b"seal", 513))
    assert passage.forward == []
    assert passage.answer == b"\x40\x02\x02\x01"


def test_acknowledgements_pass_whatever_happens_to_messages() -> None:
    line = Line(lambda: Badness(repeated=1, reordered=1, damaged=1, swallowed=1), random.Random(5), mqtt=True)
    assert line.pass_on(b"\x40\x02\x00\x07").forward == [b"\x40\x02\x00\x07"]


def test_a_line_that_cuts_passes_nothing_on() -> None:
    passage = Line(lambda: Badness(cut=1), random.Random(6), mqtt=False).pass_on(b"anything")
    assert passage.cut
    assert passage.forward == []
