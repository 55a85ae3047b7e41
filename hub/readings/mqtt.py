"""The dozen MQTT 5 packets that an ingest session exchanges, as bytes. No sockets here.

Why not a library: receiving is the hot path of the hub; docs/decisions/receiving-mqtt.md has the measurements. It is
only what a durable subscriber needs: QoS 1 in, QoS 0 out, no topic aliases, no QoS 2. Everywhere else in this project
MQTT is spoken by a library.
Format: MQTT Version 5.0, OASIS Standard, sections 1.5, 2.1 and 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

CONNACK: Final = 2
PUBLISH: Final = 3
SUBACK: Final = 9
PINGRESP: Final = 13
DISCONNECT: Final = 14

PINGREQ_PACKET: Final = b"\xc0\x00"
DISCONNECT_PACKET: Final = b"\xe0\x00"

SESSION_EXPIRY_INTERVAL: Final = 0x11
SERVER_KEEP_ALIVE: Final = 0x13
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_PACKET_SIZE: Final = 0x27

FAILURE_FROM: Final = 0x80
"""Reason codes from here on are refusals."""

PACKET_BYTES_MAX: Final = 268_435_455
"""What a variable byte integer can say."""

_FIXED_PROPERTY_BYTES: Final = {
    0x01: 1, 0x02: 4, 0x11: 4, 0x13: 2, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1,
    0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_STRING_PROPERTIES: Final = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})
_USER_PROPERTY: Final = 0x26


class ProtocolViolation(Exception):
    """The broker sent something that is not MQTT 5, or that this session never asked for."""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A message to us. `packet_id` is None for QoS 0, which needs no acknowledgement.

    `retained` is one that the broker had kept and gives to whoever subscribes: nobody says it now.
    """

    topic: str
    payload: bytes
    packet_id: int | None
    retained: bool = False


class Answer(msgspec.Struct, frozen=True):
    """CONNACK, SUBACK or DISCONNECT: its reason code, and the numeric properties that came with it.

    `packet_id` is that of the SUBSCRIBE which a SUBACK answers.
    """

    kind: int
    reason: int
    properties: dict[int, int]
    packet_id: int = 0


def connect_packet(
    client_id: str, username: str, password: str, keep_alive_s: int, session_expiry_s: int, packet_bytes_max: int
) -> bytes:
    """CONNECT to a durable session (clean start off)."""
    properties = struct.pack(
        ">BIBHBI", SESSION_EXPIRY_INTERVAL, session_expiry_s, RECEIVE_MAXIMUM, 65_535, MAXIMUM_PACKET_SIZE,
        packet_bytes_max,
    )  # fmt: skip
    flags = 0b1100_0000  # user name, password; no will, no clean start
    body = _string("MQTT") + struct.pack(">BBH", 5, flags, keep_alive_s) + _varint(len(properties)) + properties
    return _packet(0x10, body + _string(client_id) + _string(username) + _string(password))


def subscribe_packet(packet_id: int, topic_filter: str, qos: int) -> bytes:
    """SUBSCRIBE to one filter at QoS 0 or 1."""
    return _packet(0x82, struct.pack(">HB", packet_id, 0) + _string(topic_filter) + bytes([qos]))


def retained_packet(topic: str, payload: bytes) -> bytes:
    """PUBLISH at QoS 0, retained."""
    return _packet(0x31, _string(topic) + b"\x00" + payload)


def puback_packets(packet_ids: Iterable[int]) -> bytes:
    """PUBACK for each of these, in this order, to be written at once."""
    return b"".join([struct.pack(">BBH", 0x40, 2, packet_id) for packet_id in packet_ids])


class Decoder:
    """Turns a stream of bytes into Publications and Answers, however it is cut."""

    def __init__(self, packet_bytes_max: int = PACKET_BYTES_MAX) -> None:
        self._rest = b""
        self._packet_bytes_max = packet_bytes_max

    def feed(self, data: bytes) -> Iterator[Publication | Answer]:
        """Yield what is complete. Raises ProtocolViolation."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= 2:
            length, body = data[at + 1], at + 2
            if length & 0x80:
                found = _read_varint(data, at + 1)
                if found is None:
                    break
                length, body = found
            if length > self._packet_bytes_max:
                raise ProtocolViolation(f"a packet of {length} bytes")
            after = body + length
            if after > end:
                break
            first = data[at]
            if first >> 4 == PUBLISH:
                yield _publication(first, data[body:after])
            elif first >> 4 in (CONNACK, SUBACK, DISCONNECT):
                yield _answer(first >> 4, data[body:after])
            elif first >> 4 != PINGRESP:
                raise ProtocolViolation(f"packet type {first >> 4}")
            at = after
        self._rest = data[at:]


def _publication(first: int, body: bytes) -> Publication:
    qos = first >> 1 & 3
    if qos > 1 or len(body) < 3:
        raise ProtocolViolation("a PUBLISH that this session never asked for")
    at = 2 + (body[0] << 8 | body[1])
    packet_id = None
    if qos:
        if at + 2 > len(body):
            raise ProtocolViolation("a PUBLISH cut short")
        packet_id = body[at] << 8 | body[at + 1]
        at += 2
    found = _read_varint(body, at)
    if found is None or sum(found) > len(body):
        raise ProtocolViolation("a PUBLISH cut short")
    try:
        topic = body[2 : 2 + (body[0] << 8 | body[1])].decode()
    except UnicodeDecodeError as fault:
        raise ProtocolViolation("a topic that is not UTF-8") from fault
    return Publication(topic, body[sum(found) :], packet_id, bool(first & 1))


def _answer(kind: int, body: bytes) -> Answer:
    if kind == CONNACK:  # session present, reason, properties
        at_reason, at_properties = 1, 2
    elif kind == SUBACK:  # packet id, properties, one reason for our one filter
        at_reason, at_properties = len(body) - 1, 2
    else:  # DISCONNECT: reason and properties, both may be absent
        at_reason, at_properties = 0, 1
        if not body:
            return Answer(kind, 0, {})
    if at_reason < 0 or at_reason >= len(body):
        raise ProtocolViolation(f"packet type {kind} cut short")
    properties = _properties(body, at_properties) if len(body) > at_properties else {}
    return Answer(kind, body[at_reason], properties, int.from_bytes(body[:2], "big") if kind == SUBACK else 0)


def _properties(body: bytes, at: int) -> dict[int, int]:
    """The numeric properties; strings are stepped over."""
    found = _read_varint(body, at)
    if found is None or sum(found) > len(body):
        raise ProtocolViolation("properties cut short")
    length, at = found
    end = at + length
    values: dict[int, int] = {}
    while at < end:
        name, at = body[at], at + 1
        if name in _FIXED_PROPERTY_BYTES:
            size = _FIXED_PROPERTY_BYTES[name]
            values[name] = int.from_bytes(body[at : at + size], "big")
            at += size
        elif name in _STRING_PROPERTIES or name == _USER_PROPERTY:
            for _ in range(2 if name == _USER_PROPERTY else 1):
                at += 2 + int.from_bytes(body[at : at + 2], "big")
        else:
            raise ProtocolViolation(f"property 0x{name:02x}")
    if at != end:
        raise ProtocolViolation("properties of the wrong length")
    return values


def _read_varint(data: bytes, at: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends; None if it is not all there. Raises ProtocolViolation."""
    value = 0
    for place in range(4):
        if at + place >= len(data):
            return None
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return value, at + place + 1
    raise ProtocolViolation("a length of more than four bytes")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _varint(len(body)) + body
