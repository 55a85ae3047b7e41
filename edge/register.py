"""One register of a meter: where its bytes are, and the exact number that they mean.

Conversion is exact: a register's bytes are one rational number, and an *absolute* register reading is rounded
half to even to the agent's integer unit. Deltas are taken between rounded absolute values and never rounded
themselves, so the residue of one reading is carried into the next and nothing accumulates.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from edge.errors import RegisterError

UNIT_SCALES = {"kWh": 1_000, "Wh": 1, "W": 1, "kW": 1_000, "V": 10, "Hz": 1_000}
"""How many of the agent's units (Wh, W, dV, mHz) one of a register's units is."""
TYPES = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}
FLOAT_LAYOUTS = {"float32": (8, 23), "float64": (11, 52)}
"""Bits of the exponent and of the fraction."""
SCALE_FACTOR_ABS_MAX = 10
SCALE_FACTOR_ABSENT = -0x8000


@dataclass(frozen=True)
class Block:
    """One Modbus read: `count` registers from `address`."""

    function_code: int
    address: int
    count: int


@dataclass(frozen=True)
class Register:
    """One value of a meter. `scale` turns its number into Wh, W, tenths of a volt or thousandths of a hertz.

    `quantum` and `modulus` are in that scaled unit: its smallest step (None: it floats, or the scale factor says
    it) and where it starts again from zero (None: not known to). `unavailable` are the bytes that mean "no value".
    """

    quantity: str
    function_code: int
    address: int
    type: str
    word_order: str
    unit: str
    scale: Fraction
    quantum: Fraction | None
    modulus: Fraction | None
    unavailable: tuple[bytes, ...]
    scale_factor_address: int | None
    source: str

    @property
    def count(self) -> int:
        """How many 16-bit registers its number takes, a scale factor aside."""
        return struct.calcsize(TYPES[self.type]) // 2

    @property
    def spans(self) -> list[tuple[int, int, int]]:
        """What to fetch, as (function code, address, count): its raw bytes are those of all spans, joined."""
        spans = [(self.function_code, self.address, self.count)]
        if self.scale_factor_address is not None:
            spans.append((self.function_code, self.scale_factor_address, 1))
        return spans

    @property
    def modulus_scaled(self) -> int | None:
        """`modulus` as the whole number that readings are compared with."""
        return None if self.modulus is None else round(self.modulus)


def plan_blocks(registers: Iterable[Register], registers_max: int, gap_max: int) -> list[Block]:
    """The fewest reads that fetch all `registers`, none longer than `registers_max` nor across a wider gap."""
    blocks: list[Block] = []
    spans = {span for register in registers for span in register.spans}
    for function_code, address, count in sorted(spans):
        end = address + count
        if blocks and blocks[-1].function_code == function_code:
            last = blocks[-1]
            gap = address - (last.address + last.count)
            if gap <= gap_max and end - last.address <= registers_max:
                blocks[-1] = Block(last.function_code, last.address, max(last.count, end - last.address))
                continue
        blocks.append(Block(function_code, address, count))
    return blocks


def exact_value(register: Register, raw: bytes) -> Fraction:
    """The number that the register's bytes are, in its own unit.

    Raises RegisterError `register_unavailable`, `register_not_a_number` or `register_scale_factor`.
    """
    unit = UNIT_SCALES.get(register.unit, register.scale)  # pulses are worth what their meter says
    return _exact_scaled(register, raw) / unit


def scaled_value(register: Register, raw: bytes) -> int:
    """The register in whole Wh, W, dV or mHz, rounded half to even. Raises RegisterError.

    An energy register may not be negative; power may.
    """
    value = _exact_scaled(register, raw)
    if value < 0 and register.quantity != "power":
        raise RegisterError("register_negative", f"{register.quantity} reads {raw.hex()}")
    if register.modulus is not None and register.scale_factor_address is None and value >= register.modulus:
        raise RegisterError("register_out_of_range", f"{register.quantity} reads {raw.hex()}: it would have wrapped")
    return round(value)


def quantum(register: Register, raw: bytes) -> Fraction:
    """The smallest step that the register can take at its present value, in the scaled unit. Raises RegisterError."""
    step = abs(register.scale) * _scale_factor(register, raw)
    if register.type in FLOAT_LAYOUTS:
        exponent_bits, fraction_bits = FLOAT_LAYOUTS[register.type]
        number = int.from_bytes(_number_bytes(register, raw), "big")
        exponent = number >> fraction_bits & ((1 << exponent_bits) - 1)
        step *= Fraction(2) ** (max(exponent, 1) - ((1 << (exponent_bits - 1)) - 1) - fraction_bits)
    return max(step, register.quantum or Fraction(0))


def swapped_words(raw: bytes) -> bytes:
    """The same words in the other order: what a register would be if its map had the word order wrong."""
    return b"".join(raw[i : i + 2] for i in range(len(raw) - 2, -2, -2))


def _exact_scaled(register: Register, raw: bytes) -> Fraction:
    data = _number_bytes(register, raw)
    if raw[: len(data)] in register.unavailable:
        raise RegisterError("register_unavailable", f"{register.quantity} reads {raw.hex()}: no value")
    value: float = struct.unpack(TYPES[register.type], data)[0]  # every float32 is a float64: nothing is rounded here
    if not isfinite(value):
        raise RegisterError("register_not_a_number", f"{register.quantity} reads {raw.hex()}")
    return Fraction(value) * register.scale * _scale_factor(register, raw)


def _number_bytes(register: Register, raw: bytes) -> bytes:
    assert len(raw) == 2 * sum(count for _, _, count in register.spans), "not the bytes of this register's spans"
    data = raw[: 2 * register.count]
    return data if register.word_order == "big" else swapped_words(data)


def _scale_factor(register: Register, raw: bytes) -> Fraction:
    """The power of ten that a SunSpec meter says beside its number; 1 for any other register."""
    if register.scale_factor_address is None:
        return Fraction(1)
    exponent = int.from_bytes(raw[-2:], "big", signed=True)
    if exponent == SCALE_FACTOR_ABSENT:
        raise RegisterError("register_unavailable", f"{register.quantity}: the meter has no scale factor for it")
    if not -SCALE_FACTOR_ABS_MAX <= exponent <= SCALE_FACTOR_ABS_MAX:
        raise RegisterError("register_scale_factor", f"{register.quantity}: scale factor reads {raw[-2:].hex()}")
    return Fraction(10) ** exponent
