"""The laboratory clock of a home: no meter has it. Holding registers 0 to 3 are a 64-bit number of unix seconds.

Big-endian, read with function 3 and written whole with function 16. While it is not 0, every register of the home
answers as of that instant.
"""

import struct

from protocol.limits import TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from simulators.meters.bus import Reply, read_pdu, refusal_pdu
from simulators.meters.registers import (
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    READ_COUNT_MAX,
    READ_HOLDING,
    Refusal,
    Words,
)

WRITE_HOLDING = 16
WRITE_COUNT_MAX = 123
"""Of the Modbus specification, for any device."""
REGISTERS = 4
HEADER_BYTES = 6
"""Of a write, before the registers: function, address, count, bytes."""


class LaboratoryClock:
    """time_unix_s: what it was set to; 0 leaves the home to the real clock."""

    def __init__(self) -> None:
        self.time_unix_s = 0

    def reply(self, request: bytes) -> Reply:
        """To a request's data unit."""
        function = request[0]
        if function == READ_HOLDING:
            return Reply(read_pdu(function, self._read(request)))
        if function == WRITE_HOLDING:
            refusal = self._write(request)
            return Reply(refusal_pdu(function, refusal.code) if refusal else request[:5])
        return Reply(refusal_pdu(function, ILLEGAL_FUNCTION))

    def _read(self, request: bytes) -> Words | Refusal:
        if len(request) != struct.calcsize(">BHH"):
            return Refusal(ILLEGAL_VALUE)
        _, address, count = struct.unpack(">BHH", request)
        if not 1 <= count <= READ_COUNT_MAX:
            return Refusal(ILLEGAL_VALUE)
        if address + count > REGISTERS:
            return Refusal(ILLEGAL_ADDRESS)
        words: Words = struct.unpack(">4H", struct.pack(">q", self.time_unix_s))
        return words[address : address + count]

    def _write(self, request: bytes) -> Refusal | None:
        if len(request) < HEADER_BYTES:
            return Refusal(ILLEGAL_VALUE)
        _, address, count, size = struct.unpack(">BHHB", request[:HEADER_BYTES])
        if not 1 <= count <= WRITE_COUNT_MAX or size != 2 * count or len(request) != HEADER_BYTES + size:
            return Refusal(ILLEGAL_VALUE)
        if address != 0 or count != REGISTERS:
            return Refusal(ILLEGAL_ADDRESS)
        (moment,) = struct.unpack(">q", request[HEADER_BYTES:])
        if moment != 0 and not TIME_MIN_UNIX_S <= moment <= TIME_MAX_UNIX_S:
            return Refusal(ILLEGAL_VALUE)
        self.time_unix_s = moment
        return None
