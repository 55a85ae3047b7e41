"""Modbus frames: the RTU frame with its checksum and silences, and the header that TCP puts in its place."""

import struct

from simulators.meters.bus import NO_ANSWER_BEHIND_GATEWAY, Bus, Reply, refusal_pdu

BROADCAST_UNIT = 0
FRAME_BYTES_MIN, FRAME_BYTES_MAX = 4, 256
CRC_BYTES = 2
BITS_PER_CHARACTER = 11
"""On an RTU line: start bit, eight data bits, parity, stop bit (or two stop bits)."""
SILENCE_CHARACTERS = 3.5
FAST_BAUD, FAST_SILENCE_S = 19_200, 0.00175
"""Above this rate the silence is fixed."""
TCP_HEADER_BYTES = 7
TCP_LENGTH_MIN, TCP_LENGTH_MAX = 2, 254


def crc(data: bytes) -> bytes:
    """The two checksum bytes that follow this data on an RTU line."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def silence_s(baud: int) -> float:
    """How long a line must be silent before what was heard is a frame."""
    return FAST_SILENCE_S if baud > FAST_BAUD else SILENCE_CHARACTERS * BITS_PER_CHARACTER / baud


def is_rtu_frame(data: bytes) -> bool:
    """Whether what was heard between two silences is a frame and undamaged."""
    return FRAME_BYTES_MIN <= len(data) <= FRAME_BYTES_MAX and crc(data[:-CRC_BYTES]) == data[-CRC_BYTES:]


def rtu_reply(bus: Bus, frame: bytes) -> Reply | None:
    """What the line answers to what was heard; None is silence: a damaged frame, an absent unit, a broadcast."""
    if not is_rtu_frame(frame) or frame[0] == BROADCAST_UNIT or frame[0] not in bus:
        return None
    return bus[frame[0]](frame[1:-CRC_BYTES])


def rtu_frame(unit: int, reply: Reply) -> bytes:
    """The frame that goes out, without the bytes that get lost."""
    frame = bytes((unit,)) + reply.pdu
    frame += crc(frame)
    return frame[: len(frame) - reply.bytes_lost]


def tcp_reply(bus: Bus, unit: int, pdu: bytes) -> Reply | None:
    """What a gateway answers; it says so itself if there is no such unit."""
    if unit not in bus:
        return Reply(refusal_pdu(pdu[0], NO_ANSWER_BEHIND_GATEWAY))
    return bus[unit](pdu)


def tcp_frame(transaction: int, unit: int, reply: Reply) -> bytes:
    """The frame that goes out; of a short reply, header and function code always arrive."""
    pdu = reply.pdu[: max(1, len(reply.pdu) - reply.bytes_lost)]
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu
