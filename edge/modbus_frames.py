"""Modbus requests and answers as bytes, over TCP (MBAP header) and over a serial line (RTU). Pure.

An answer is the one that was asked for only if everything that its frame says agrees with the request: transaction,
unit, function and length. Whatever else arrives is an answer to somebody else, or to an earlier question, or noise.
"""

import struct
from dataclasses import dataclass
from typing import Protocol

from edge.errors import ModbusError

READ_FUNCTIONS = (3, 4)
WRITE_REGISTERS = 16
EXCEPTION_BIT = 0x80
MBAP_BYTES = 7
PDU_BYTES_MAX = 253
RTU_OVERHEAD_BYTES = 3
"""Unit and checksum."""
TRANSACTIONS = 0x10000


@dataclass(frozen=True)
class Request:
    """Read `count` registers from `address` of a unit, or write `words` there (function 16)."""

    unit: int
    function_code: int
    address: int
    count: int
    words: bytes = b""

    @property
    def pdu(self) -> bytes:
        """What is asked, without the frame."""
        head = struct.pack(">BHH", self.function_code, self.address, self.count)
        return head + bytes([len(self.words)]) + self.words if self.words else head

    @property
    def answer_pdu_bytes(self) -> int:
        """How long the answer is, without the frame."""
        return 2 + 2 * self.count if self.function_code in READ_FUNCTIONS else 5

    def starts_answer(self, pdu: bytes) -> bool:
        """Whether these bytes begin as the answer, or as an exception to this request, begins."""
        if pdu[0] == self.function_code | EXCEPTION_BIT:
            return True
        if pdu[0] != self.function_code:
            return False
        if self.function_code in READ_FUNCTIONS:
            return len(pdu) < 2 or pdu[1] == 2 * self.count
        return pdu[1:5] == self.pdu[1:5][: len(pdu) - 1]


@dataclass(frozen=True)
class Answer:
    """The registers asked for (of a write: nothing), or the exception that the meter answered."""

    words: bytes = b""
    exception: int = 0


class Framing(Protocol):
    """One way to put requests and answers on a wire."""

    def encode(self, request: Request) -> bytes:
        """The bytes to send."""

    def find_answer(self, received: bytes, request: Request) -> Answer | None:
        """The answer to the request encoded last, if it is whole. Raises ModbusError if it cannot come any more."""


class TcpFraming:
    """The header counts transactions; numbers go on over connections, so that no answer fits a later question."""

    def __init__(self) -> None:
        self._transaction = 0

    def encode(self, request: Request) -> bytes:
        """The bytes to send, under a new transaction number."""
        self._transaction = (self._transaction + 1) % TRANSACTIONS
        return struct.pack(">HHHB", self._transaction, 0, 1 + len(request.pdu), request.unit) + request.pdu

    def find_answer(self, received: bytes, request: Request) -> Answer | None:
        """Skips answers of other transactions. Raises ModbusError `modbus_stray_answer`, `modbus_damaged_answer`."""
        start = 0
        while len(received) - start > MBAP_BYTES:
            transaction, protocol, length, unit = struct.unpack_from(">HHHB", received, start)
            if protocol != 0 or not 2 <= length <= 1 + PDU_BYTES_MAX:
                raise ModbusError("modbus_damaged_answer", f"no Modbus TCP header: {received[start:][:7].hex()}")
            end = start + MBAP_BYTES - 1 + length
            if len(received) < end:
                return None
            if transaction == self._transaction:
                pdu = received[start + MBAP_BYTES : end]
                answer = _answer(pdu, request) if unit == request.unit else None
                if answer is None:
                    what = f"unit {unit} answers {pdu[:2].hex()}… to {request.pdu.hex()} for unit {request.unit}"
                    raise ModbusError("modbus_stray_answer", what)
                return answer
            start = end
        return None


class RtuFraming:
    """A frame is unit, function, data and a checksum; nothing says which question it answers but its form."""

    def encode(self, request: Request) -> bytes:
        """The bytes to send."""
        frame = bytes([request.unit]) + request.pdu
        return frame + crc16(frame)

    def find_answer(self, received: bytes, request: Request) -> Answer | None:
        """Skips what is no answer to this. Raises ModbusError `modbus_damaged_answer`."""
        sent = self.encode(request)
        if received.startswith(sent):  # some adapters hear themselves
            received = received[len(sent) :]
        for start in range(len(received) - 1):
            if received[start] != request.unit or not request.starts_answer(received[start + 1 :]):
                continue
            is_exception = received[start + 1] & EXCEPTION_BIT
            length = RTU_OVERHEAD_BYTES + (2 if is_exception else request.answer_pdu_bytes)
            frame = received[start : start + length]
            if len(frame) == length and crc16(frame[:-2]) == frame[-2:]:
                return _answer(frame[1:-2], request)
            if len(frame) == length and start == 0:
                raise ModbusError("modbus_damaged_answer", f"wrong checksum: {frame.hex()}")
        return None


def _answer(pdu: bytes, request: Request) -> Answer | None:
    if len(pdu) == 2 and pdu[0] == request.function_code | EXCEPTION_BIT:
        return Answer(exception=pdu[1])
    if pdu[0] == request.function_code and len(pdu) == request.answer_pdu_bytes and request.starts_answer(pdu):
        return Answer(pdu[2:] if request.function_code in READ_FUNCTIONS else b"")
    return None


def crc16(data: bytes) -> bytes:
    """The checksum of a serial Modbus frame, as it is sent: low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0xA001 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]
