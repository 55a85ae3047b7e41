"""Where one packet ends and the next begins: MQTT's fixed header, Modbus TCP's MBAP header, or bytes as they come.

A line that repeats or re-orders does so with whole packets: half of one would only be a cut connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

MQTT_LENGTH_BYTES_MAX = 4
MBAP_BYTES = 6
PUBLISH = 3
QOS_MASK = 0x06
DUPLICATE_FLAG = 0x08


class Framing(Protocol):
    """Splits a stream into packets."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes as they arrive and yield every packet that is complete."""


class Bytes:
    """No packets: whatever arrives together."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bytes themselves."""
        if data:
            yield data


class Mqtt:
    """MQTT control packets, of any version."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield control packets."""
        self._rest += data
        while (length := _mqtt_length(self._rest)) is not None and length <= len(self._rest):
            packet = bytes(self._rest[:length])
            del self._rest[:length]
            yield packet


class ModbusTcp:
    """Modbus TCP application data units."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield application data units."""
        self._rest += data
        while len(self._rest) >= MBAP_BYTES:
            length = MBAP_BYTES + int.from_bytes(self._rest[4:6], "big")
            if length > len(self._rest):
                return
            packet = bytes(self._rest[:length])
            del self._rest[:length]
            yield packet


FRAMINGS: dict[str, type[Bytes] | type[Mqtt] | type[ModbusTcp]] = {
    "bytes": Bytes,
    "mqtt": Mqtt,
    "modbus_tcp": ModbusTcp,
}


def is_publication(packet: bytes) -> bool:
    """Whether this is an MQTT PUBLISH that asks for an acknowledgement."""
    return packet[0] >> 4 == PUBLISH and packet[0] & QOS_MASK != 0


def again(packet: bytes) -> bytes:
    """The same PUBLISH, marked as sent again."""
    return bytes([packet[0] | DUPLICATE_FLAG]) + packet[1:]


def payload_start(packet: bytes) -> int:
    """Where the variable part of a PUBLISH behind topic and packet identifier begins (MQTT 5: its properties)."""
    at = 1
    while packet[at] & 0x80:
        at += 1
    at += 1
    topic_length = int.from_bytes(packet[at : at + 2], "big")
    return at + 2 + topic_length + 2


def packet_identifier(packet: bytes) -> bytes:
    """The two bytes by which a PUBLISH is acknowledged."""
    end = payload_start(packet)
    return packet[end - 2 : end]


def _mqtt_length(data: bytearray) -> int | None:
    """The length of the packet at the start, header included; None until it is known."""
    length, shift = 0, 0
    for index in range(1, 1 + MQTT_LENGTH_BYTES_MAX):
        if index >= len(data):
            return None
        length |= (data[index] & 0x7F) << shift
        shift += 7
        if not data[index] & 0x80:
            return 1 + index + length
    raise ValueError("not an MQTT packet")
