"""The units on one line, and what they say to a request: protocol data units, without any framing."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulators.meters.meter import Meter
from simulators.meters.registers import ILLEGAL_FUNCTION, ILLEGAL_VALUE, READ_HOLDING, READ_INPUT, Read, Refusal, Words

NO_ANSWER_BEHIND_GATEWAY = 0x0B
READ_REQUEST_BYTES = 5


@dataclass(frozen=True)
class Reply:
    """What a unit puts on the line, after how long, and how many bytes of the frame get lost at its end."""

    pdu: bytes
    delay_s: float = 0.0
    bytes_lost: int = 0


Unit = Callable[[bytes], Reply | None]
"""A device on the line: a request's data unit in, a reply or silence out."""
Bus = Mapping[int, Unit]
"""The devices of one line by unit address."""


def meter_unit(meter: Meter, now_unix_s: Callable[[], int]) -> Unit:
    """A meter as a device that can be asked; it has no functions but reading registers."""

    def reply(request: bytes) -> Reply | None:
        function = request[0]
        if function not in (READ_HOLDING, READ_INPUT):
            return Reply(refusal_pdu(function, ILLEGAL_FUNCTION))
        if len(request) != READ_REQUEST_BYTES:
            return Reply(refusal_pdu(function, ILLEGAL_VALUE))
        answer = meter.read(Read(*struct.unpack(">BHH", request)), now_unix_s())
        if answer.words is None:
            return None
        return Reply(read_pdu(function, answer.words), answer.delay_s, answer.bytes_lost)

    return reply


def read_pdu(function: int, words: Words | Refusal) -> bytes:
    """The answer to a read."""
    if isinstance(words, Refusal):
        return refusal_pdu(function, words.code)
    return struct.pack(f">BB{len(words)}H", function, 2 * len(words), *words)


def refusal_pdu(function: int, code: int) -> bytes:
    """A Modbus exception."""
    return bytes((function | 0x80, code))
