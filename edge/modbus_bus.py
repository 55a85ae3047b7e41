"""One Modbus bus as its only master: one request at a time, every answer checked, faults retried and named.

Over TCP a transaction number says which question an answer belongs to. A serial line has none, and
a gateway to one only invents them. So after a request that was not answered cleanly its answer may still come, and
would be taken for the answer to the next request of the same form. Before that unit is asked anything else it is
therefore asked for a number of registers that no other request to it has: units answer in order, so its answer to
*that* proves that nothing older is under way. A unit that never answers it is left alone until no answer can come
any more.
"""

import asyncio
import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil

from edge.bus_budget import block_s, budget_of, line_of, meter_blocks
from edge.bus_connection import Connection, open_connection
from edge.bus_settings import MeterSettings, SerialBus, TcpBus
from edge.errors import ModbusError
from edge.modbus_frames import WRITE_REGISTERS, Framing, Request, RtuFraming, TcpFraming
from edge.register import Block

EXCEPTIONS = {
    1: ("modbus_illegal_function", "it does not know this function code: wrong register map, or wrong variant of it"),
    2: ("modbus_illegal_address", "it has no such register: wrong register map, or another variant of the meter"),
    3: ("modbus_illegal_value", "it does not give so many registers at once, or not from here: wrong register map"),
    4: ("modbus_device_failure", "the meter reports that it has failed"),
    6: ("modbus_busy", "the meter is busy"),
    10: ("modbus_gateway_path", "the gateway has no path to this unit"),
    11: ("modbus_gateway_no_answer", "the gateway got no answer from this unit: no power, wrong unit or baud rate"),
}
RETRIED = {
    "modbus_no_answer",
    "modbus_damaged_answer",
    "modbus_stray_answer",
    "modbus_disconnected",
    "modbus_busy",
    "modbus_gateway_path",
    "modbus_gateway_no_answer",
}
GATEWAY_NO_ANSWER = 11
BUSY_PAUSE_S = 0.1
QUIET_S = 0.02
"""So long without a byte, and whoever was talking has finished."""
LATE_MAX_S = 10.0
"""No unit answers later than this."""
STEPS_FAILED_MAX = 3
"""So many attempts to come into step with a unit, and it is left alone for that time."""
HEARD_BYTES_MAX = 2048
"""Several times the longest answer: whoever says more than that to one question does not answer it."""


class ModbusBus:
    """The meters of one bus. Each failure is a ModbusError `modbus_…` that names bus, unit and registers."""

    def __init__(self, bus: TcpBus | SerialBus) -> None:
        self._bus = bus
        self._line = line_of(bus)
        self._framing: Framing = TcpFraming() if self._line is None else RtuFraming()
        self._connection: Connection | None = None
        self._unanswered_s: dict[int, float] = {}
        self._steps_failed: Counter[int] = Counter()
        self._counts_asked: defaultdict[int, set[int]] = defaultdict(set)
        self._identified: set[int] = set()
        self._last_s = 0.0
        self._deadline_s = self._end_s = 0.0
        self._plan = [(meter, block) for meter in bus.meters for block in meter_blocks(meter)]
        self._plan.sort(key=lambda read: not _has_energy(*read))
        self.counts: Counter[str] = Counter()

    @property
    def meters(self) -> Sequence[MeterSettings]:
        """The meters of this bus."""
        return self._bus.meters

    @property
    def time_max_s(self) -> int:
        """How long one `read` takes at most, also with identity checks and a request that is never answered: then it
        fails, even if every meter answers, each in the last moment."""
        identities = [_identity_block(meter) for meter in self._bus.meters]
        budget = budget_of(self._bus)
        all_s = budget.poll_s + sum(block_s(self._bus, block) for block in identities if block is not None)
        return ceil(2 * all_s + budget.retries_s + 2 * self._bus.timeout_s)

    async def read(self) -> dict[tuple[int, Block], bytes]:
        """All wanted registers: first of all meters those that count energy. Raises ModbusError.

        On a new connection every meter must first prove that it is the one its map is for, and also one that has
        been silent: it may have been exchanged meanwhile.
        """
        self._begin()
        await self._identify_all()
        words = {
            (meter.unit, block): await self._ask(_request(meter.unit, block), _names(meter, block))
            for meter, block in self._plan
        }
        await self._identify_all()
        return words

    async def check_identities(self) -> None:
        """Raises ModbusError `meter_is_another` if a meter is not the one that its map is for."""
        self._begin()
        self._identified.clear()
        await self._identify_all()

    async def write(self, unit: int, address: int, words: bytes) -> None:
        """Write registers. Raises ModbusError."""
        self._begin()
        request = Request(unit, WRITE_REGISTERS, address, len(words) // 2, words)
        await self._ask(request, "written")

    async def read_block(self, unit: int, block: Block) -> bytes:
        """Any registers of any unit. Raises ModbusError."""
        self._begin()
        return await self._ask(_request(unit, block), "asked for")

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._identified.clear()

    def _begin(self) -> None:
        """A retry may begin until the poll has taken its time, and nothing goes on for longer than `time_max_s`."""
        budget, now_s = budget_of(self._bus), _now_s()
        self._deadline_s = now_s + budget.poll_s + self._bus.retries * self._bus.timeout_s
        self._end_s = now_s + self.time_max_s

    async def _identify_all(self) -> None:
        for meter in self._bus.meters:
            await self._identify(meter)

    async def _identify(self, meter: MeterSettings) -> None:
        identity, block = meter.register_map.identity, _identity_block(meter)
        if identity is None or block is None or meter.unit in self._identified:
            return
        expected = " or ".join(struct.pack(f">{len(words)}H", *words).hex() for words in identity.allowed)
        where = f"{self._bus.name}: unit {meter.unit} ({meter.role})"
        what = f"{where} is configured as {meter.register_map.model}, which says"
        try:
            found = await self._ask(_request(meter.unit, block), "its identity")
        except ModbusError as error:
            if error.code in ("modbus_illegal_function", "modbus_illegal_address", "modbus_illegal_value"):
                why = f"{what} {expected} at 0x{block.address:04x}; it has no such register"
                raise ModbusError("meter_is_another", why) from None
            raise
        if not identity.matches(found):
            raise ModbusError("meter_is_another", f"{what} {expected} at 0x{block.address:04x}; it says {found.hex()}")
        self._identified.add(meter.unit)

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, request: Request, names: str) -> bytes:
        """The answer to a request, retried while there is time. Raises ModbusError."""
        for retries_left in range(self._bus.retries, -1, -1):
            try:
                return await self._attempt(request)
            except ModbusError as error:
                self.counts[error.code] += 1
                if error.code not in RETRIED or not retries_left or _now_s() > self._deadline_s:
                    raise ModbusError(error.code, f"{self._where(request)} ({names}): {error.detail}") from None
                if error.code == "modbus_busy":
                    await asyncio.sleep(BUSY_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _where(self, request: Request) -> str:
        registers = f"{request.count} registers from 0x{request.address:04x}, function {request.function_code}"
        return f"{self._bus.name}: unit {request.unit}, {registers}"

    async def _attempt(self, request: Request) -> bytes:
        """Ask once, coming into step with the unit before if need be. All within the patience of one request."""
        block = Block(request.function_code, request.address, request.count)
        patience_s = self._bus.timeout_s + (block_s(self._bus, block) if self._line is not None else 0)
        patient_until_s = _now_s() + patience_s
        connection = None
        try:
            async with asyncio.timeout_at(min(patient_until_s, self._end_s)):
                connection = await self._connected()
                await self._come_into_step(connection, request)
                self._counts_asked[request.unit].add(request.count)
                answer, exception = await self._exchange(connection, request)
        except TimeoutError:
            if self._end_s < patient_until_s:
                why = f"the meters are too slow: they have had {self.time_max_s} s for one poll"
                raise ModbusError("modbus_no_answer", why) from None
            if connection is None:
                raise ModbusError("modbus_unreachable", "no connection in time") from None
            raise ModbusError("modbus_no_answer", f"none within {self._bus.timeout_s} s") from None
        if exception:
            raise _refusal(exception)
        return answer

    async def _exchange(self, connection: Connection, request: Request) -> tuple[bytes, int]:
        """Send a request and wait for its answer: registers, or the number of an exception."""
        if self._line is not None:
            await self._silence(connection, self._line.silence_s)
        connection.discard()
        answer = None
        try:
            connection.send(self._framing.encode(request))
            received = b""
            while (answer := self._framing.find_answer(received, request)) is None:
                if len(received) > HEARD_BYTES_MAX:
                    raise ModbusError("modbus_damaged_answer", f"{len(received)} bytes, and no answer among them")
                received += await connection.receive()
        finally:
            self._last_s = _now_s()
            if answer is None or answer.exception == GATEWAY_NO_ANSWER:  # the meter may still say something
                self._unanswered_s[request.unit] = self._last_s
                self._identified.discard(request.unit)
            if answer is None and (connection.lost or isinstance(self._bus, TcpBus)):
                self.close()
        if answer.exception != GATEWAY_NO_ANSWER:
            self._unanswered_s.pop(request.unit, None)
        return answer.words, answer.exception

    async def _come_into_step(self, connection: Connection, request: Request) -> None:
        """Make sure that no answer to an earlier question can be taken for the answer to this one."""
        unit = request.unit
        if unit not in self._unanswered_s:
            return
        if _now_s() - self._unanswered_s[unit] > LATE_MAX_S:
            self._steps_failed.pop(unit, None)
            return
        if self._steps_failed[unit] >= STEPS_FAILED_MAX:
            why = f"it left several questions unanswered; asked again when it has had {LATE_MAX_S:.0f} s"
            raise ModbusError("modbus_no_answer", why)
        self._steps_failed[unit] += 1
        _, exception = await self._exchange(connection, self._question_like_no_other(request))
        if exception == GATEWAY_NO_ANSWER:
            raise _refusal(exception)
        del self._steps_failed[unit]

    async def _silence(self, connection: Connection, silence_s: float) -> None:
        """Wait until the line has been silent for so long. What others are still saying on it is not for us."""
        if self._unanswered_s:
            while True:
                try:
                    async with asyncio.timeout(max(QUIET_S, silence_s)):
                        await connection.receive()
                except TimeoutError:
                    return
        await asyncio.sleep(self._last_s + silence_s - _now_s())

    def _question_like_no_other(self, request: Request) -> Request:
        """A read of the same unit whose answer is as long as that of no other request to it."""
        taken = {request.count, *self._counts_asked[request.unit]}
        count = next(count for count in range(2, 2 * len(taken) + 4, 2) if count not in taken)
        function_code = 3 if request.function_code == WRITE_REGISTERS else request.function_code
        return Request(request.unit, function_code, request.address, count)

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.lost:
            self.close()  # gateways hang up on a silent line: that is no failure
        if self._connection is None:
            self._connection = await open_connection(self._bus)
        return self._connection


def _request(unit: int, block: Block) -> Request:
    return Request(unit, block.function_code, block.address, block.count)


def _refusal(exception: int) -> ModbusError:
    code, meaning = EXCEPTIONS.get(exception, ("modbus_exception", "the meter refuses"))
    return ModbusError(code, f"exception {exception}: {meaning}")


def _identity_block(meter: MeterSettings) -> Block | None:
    identity = meter.register_map.identity
    return None if identity is None else Block(identity.function_code, identity.address, identity.count)


def _within(meter: MeterSettings, block: Block) -> list[str]:
    end = block.address + block.count
    return [
        quantity
        for quantity, register in meter.register_map.registers.items()
        if register.function_code == block.function_code and block.address <= register.address < end
    ]


def _has_energy(meter: MeterSettings, block: Block) -> bool:
    return any(quantity.startswith("energy") for quantity in _within(meter, block))


def _names(meter: MeterSettings, block: Block) -> str:
    return ", ".join(_within(meter, block))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
