"""The tables of registers that a meter answers from, and what it refuses.

A model is data (simulators/meters/models, written from the makers' documents); this is how such data becomes
words on the wire, and which exception a request earns that the document does not allow. It is not how an agent
reads meters: that has tables of its own, so that two readings of one document have to agree.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from simulators.meters.measured import Measured

READ_HOLDING, READ_INPUT = 3, 4
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
READ_COUNT_MAX = 125
"""Of the Modbus specification, for any device."""

Words = tuple[int, ...]
WORDS = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4}
"""Formats by how many registers they take: unsigned, signed, IEEE 754."""
WORDS_MAX = 4
UNAVAILABLE = "unavailable"
"""The quantity of a register that this very meter has no value for."""


@dataclass(frozen=True)
class Refusal:
    """A Modbus exception in place of words."""

    code: int


@dataclass(frozen=True)
class Read:
    """A request for so many registers."""

    function: int
    address: int
    count: int


@dataclass(frozen=True)
class Point:
    """One value in one or more registers.

    unit: what 1 in the register stands for, in Wh, W, V, A or Hz. step_wh: how finely a floating energy register
    counts. modulus: where the register starts again from zero, in its own unit; 0 if only its width ends it.
    unavailable: what it reads where the meter has no such value, or no such phase; zero if the document is silent.
    """

    address: int
    format: str
    quantity: str
    phase: int = 0
    unit: Fraction = Fraction(1)
    step_wh: int = 1
    modulus: int = 0
    low_word_first: bool = False
    unavailable: bytes = b""

    @cached_property
    def words(self) -> int:
        """How many registers."""
        return WORDS[self.format]

    @cached_property
    def _unit(self) -> float:
        return float(self.unit)

    def encode(self, measured: Measured, phases: int) -> Words:
        """The registers of this value at an instant, in the order of their addresses."""
        is_absent = self.quantity == UNAVAILABLE or self.phase > phases
        raw = self.unavailable.ljust(2 * self.words, b"\0") if is_absent else self._raw(measured, phases)
        words = struct.unpack(f">{self.words}H", raw)
        return words[::-1] if self.low_word_first else words

    def _raw(self, measured: Measured, phases: int) -> bytes:
        value = measured.value(self.quantity, self.phase, phases)
        if self.format[0] == "f":
            return struct.pack(">f" if self.format == "f32" else ">d", self._floating(value))
        number = value // self.unit if isinstance(value, int) else round(value / self._unit)
        return _integer_bytes(self.format, number % self.modulus if self.modulus else number, isinstance(value, int))

    def _floating(self, value: float) -> float:
        if isinstance(value, int):
            value = value // self.step_wh * self.step_wh
            if self.modulus:
                value = int(value % (self.modulus * self.unit))
        return value / self._unit


def _integer_bytes(integer_format: str, number: int, is_counter: bool) -> bytes:
    """A counter wraps at the width of its register; anything else stops at its ends."""
    bits = int(integer_format[1:])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if integer_format[0] == "i" else (0, (1 << bits) - 1)
    number = number % (1 << bits) if is_counter else min(max(number, low), high) % (1 << bits)
    return number.to_bytes(bits // 8, "big")


Constants = Callable[[int, int], Mapping[int, Words]]
"""Of a unit address and a seed: registers that never change, by first address."""


def _no_constants(unit: int, seed: int) -> Mapping[int, Words]:
    return {}


@dataclass(frozen=True)
class Table:
    """What one or two function codes read.

    ranges: first readable register and the one after the last; a read must lie within one of them. What neither a
    point nor a constant fills in a range reads as zero. split_refused: a read may not begin or end within a
    value. alone: a register that, read as one word, says something else than as part of its value.
    """

    functions: tuple[int, ...]
    registers_max: int
    ranges: tuple[tuple[int, int], ...]
    points: tuple[Point, ...]
    constants: Constants = _no_constants
    split_refused: bool = False
    alone: Mapping[int, int] = field(default_factory=dict)

    def refusal(self, read: Read) -> Refusal | None:
        """Why this meter does not answer the read, if it does not."""
        if read.count > self.registers_max:
            return Refusal(ILLEGAL_VALUE)
        end = read.address + read.count
        if not any(first <= read.address and end <= after for first, after in self.ranges):
            return Refusal(ILLEGAL_ADDRESS)
        if self.split_refused and any(
            point.address < edge < point.address + point.words
            for point in self.points_near(read)
            for edge in (read.address, end)
        ):
            return Refusal(ILLEGAL_ADDRESS)
        return None

    def points_near(self, read: Read) -> list[Point]:
        """The points of which a read touches at least one register."""
        candidates = map(self._by_address.get, range(read.address - WORDS_MAX + 1, read.address + read.count))
        return [point for point in candidates if point is not None and read.address < point.address + point.words]

    @cached_property
    def _by_address(self) -> dict[int, Point]:
        return {point.address: point for point in self.points}


@dataclass(frozen=True)
class Model:
    """One make of meter. name: that of its register map, which knows nothing of this one. source: the document."""

    name: str
    source: str
    phases: int
    tables: tuple[Table, ...]

    def table(self, function: int) -> Table | None:
        """The table that a function code reads; None if the meter does not have the function."""
        return next((table for table in self.tables if function in table.functions), None)

    def read(self, read: Read, measured: Measured, unit: int) -> Words | Refusal:
        """The words of a read of this meter at an instant, or the exception it answers."""
        table = self.table(read.function)
        if table is None:
            return Refusal(ILLEGAL_FUNCTION)
        if not 1 <= read.count <= READ_COUNT_MAX:
            return Refusal(ILLEGAL_VALUE)
        if read.count == 1 and read.address in table.alone:
            return (table.alone[read.address],)
        refusal = table.refusal(read)
        if refusal is not None:
            return refusal
        words = [0] * read.count
        for address, constant in table.constants(unit, measured.seed).items():
            _lay(words, read.address, address, constant)
        for point in table.points_near(read):
            _lay(words, read.address, point.address, point.encode(measured, self.phases))
        return tuple(words)


def _lay(words: list[int], first: int, address: int, value: Iterable[int]) -> None:
    """Put the registers of a value where a read from `first` sees them."""
    for at, word in enumerate(value, address - first):
        if 0 <= at < len(words):
            words[at] = word


def text_words(text: str, words: int) -> Words:
    """ASCII, two characters a register, filled up with zeros."""
    return struct.unpack(f">{words}H", text.encode("ascii").ljust(2 * words, b"\0"))


def u32_words(number: int) -> Words:
    """An unsigned 32-bit number over two registers, high word first."""
    return (number >> 16 & 0xFFFF, number & 0xFFFF)


def float_words(number: float) -> Words:
    """A 32-bit float over two registers, high word first."""
    return struct.unpack(">2H", struct.pack(">f", number))


def serial_number(unit: int, seed: int) -> int:
    """Two meters have two serial numbers."""
    return (20_000_000 + seed * 256 + unit) & 0xFFFFFFFF


def by_phase(
    address: int, number_format: str, quantity: str, unit: Fraction = Fraction(1), **more: object
) -> tuple[Point, ...]:
    """The same quantity of phases 1, 2 and 3 in consecutive registers."""
    step = WORDS[number_format]
    return tuple(
        Point(address + step * index, number_format, quantity, index + 1, unit, **more)  # type: ignore[arg-type]
        for index in range(3)
    )
