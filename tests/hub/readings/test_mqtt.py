"""The MQTT packets of an ingest session: cut anywhere, hostile, and as an independent implementation writes them."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hub.readings import mqtt
from hub.readings.mqtt import Answer, Decoder, ProtocolViolation, Publication


def length_of(count: int) -> bytes:
    out = bytearray()
    while True:
        count, low = divmod(count, 128)
        out.append(low | (128 if count else 0))
        if not count:
            return bytes(out)


def publish(
    topic: str, payload: bytes, packet_id: int | None, properties: bytes = b"\x00", *, retained: bool = False
) -> bytes:
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name
    body += b"" if packet_id is None else struct.pack(">H", packet_id)
    body += properties + payload
    return bytes([(0x30 if packet_id is None else 0x32) | retained]) + length_of(len(body)) + body


publications = st.builds(
    Publication,
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.binary(max_size=300),
    st.none() | st.integers(1, 65_535),
    st.booleans(),
)


@given(st.lists(publications, max_size=6), st.lists(st.integers(1, 200), max_size=12))
def test_messages_arrive_whole_however_the_stream_is_cut(sent: list[Publication], cuts: list[int]) -> None:
    stream = b"".join(publish(each.topic, each.payload, each.packet_id, retained=each.retained) for each in sent)
    decoder = Decoder()
    received: list[Publication | Answer] = []
    for cut in cuts:
        received += decoder.feed(stream[:cut])
        stream = stream[cut:]
    received += decoder.feed(stream)
    assert received == sent


def test_properties_that_another_implementation_writes_are_stepped_over() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = 60
    properties.ContentType = "application/octet-stream"
    properties.UserProperty = [("a", "b"), ("c", "")]
    packed = bytes(properties.pack())
    [received] = Decoder().feed(publish("t", b"payload", 7, packed))
    assert received == Publication("t", b"payload", 7)


def test_what_the_broker_says_at_connecting_is_read() -> None:
    properties = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    properties.ServerKeepAlive = 20
    properties.ReceiveMaximum = 40
    properties.AssignedClientIdentifier = "hub-3"
    body = b"\x01\x00" + bytes(properties.pack())
    [answer] = Decoder().feed(b"\x20" + length_of(len(body)) + body)
    assert answer == Answer(mqtt.CONNACK, 0, {mqtt.SERVER_KEEP_ALIVE: 20, mqtt.RECEIVE_MAXIMUM: 40})


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (b"\x20\x03\x00\x87\x00", Answer(mqtt.CONNACK, 0x87, {})),
        (b"\x90\x04\x00\x01\x00\x01", Answer(mqtt.SUBACK, 1, {}, packet_id=1)),
        (b"\x90\x04\x00\x02\x00\x87", Answer(mqtt.SUBACK, 0x87, {}, packet_id=2)),
        (b"\xe0\x00", Answer(mqtt.DISCONNECT, 0, {})),
        (b"\xe0\x01\x8e", Answer(mqtt.DISCONNECT, 0x8E, {})),
    ],
)
def test_answers_carry_their_reason(packet: bytes, answer: Answer) -> None:
    assert list(Decoder().feed(packet)) == [answer]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x10\x00",  # a CONNECT to a client
        b"\x34\x07\x00\x01t\x00\x01\x00x",  # QoS 2
        b"\x32\x02\x00\x01",  # no room for a packet id
        b"\x30\x05\x00\x02\xff\xff\x00",  # a topic that is not UTF-8
        b"\x30\x04\x00\x01t\x09",  # properties longer than the packet
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30\xff\xff\xff\x7f",  # longer than we said we take
        b"\x20\x03\x00\x00\x05",  # properties of a CONNACK cut short
        b"\x20\x04\x00\x00\x01\x7f",  # a property that does not exist
    ],
)
def test_what_is_not_for_us_ends_the_session_by_name(packet: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        list(Decoder(packet_bytes_max=40_000).feed(packet))


@settings(max_examples=2_000)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_no_bytes_raise_anything_else(chunks: list[bytes]) -> None:
    decoder = Decoder(1_000)
    try:
        for chunk in chunks:
            for packet in decoder.feed(chunk):
                assert isinstance(packet, Publication | Answer)
    except ProtocolViolation:
        pass


def test_acknowledgements_leave_in_order_and_at_once() -> None:
    assert mqtt.puback_packets([1, 2, 65_535]) == b"\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\xff\xff"


def test_statuses_are_asked_for_at_a_quality_that_needs_no_acknowledgement() -> None:
    assert mqtt.subscribe_packet(2, "a/+/status", qos=0) == b"\x82\x10\x00\x02\x00\x00\x0aa/+/status\x00"
    assert mqtt.subscribe_packet(1, "a/+/seals", qos=1)[-1] == 1
