"""Register maps: which bytes of which meter mean what. Data in `edge/registers/*.toml`, checked here.

Conversion is exact: a register's bytes are one rational number, and an *absolute* register reading is rounded
half to even to the agent's integer unit. Deltas are taken between rounded absolute values and never rounded
themselves, so the residue of one reading is carried into the next and nothing accumulates.
"""

import struct
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import isfinite
from pathlib import Path

from edge.errors import RegisterError, RegisterMapError
from edge.toml_table import Table, integer, one_of, text_value

MAPS_DIRECTORY = Path(__file__).parent / "registers"
QUANTITIES = ("energy_import", "energy_export", "energy_total", "power", "voltage", "frequency")
UNITS = {"energy": ("kWh", "Wh"), "power": ("W", "kW"), "voltage": ("V",), "frequency": ("Hz",)}
TYPE_REGISTERS = {"float32": 2}
WORD_ORDERS = ("big",)
FUNCTION_CODES = (3, 4)
ADDRESS_MAX = 0xFFFF
REGISTERS_PER_READ_LIMIT = 125
"""What one Modbus response can carry."""
MAP_BYTES_MAX = 65_536


@dataclass(frozen=True)
class Register:
    """One value of a meter. `scale` turns its own unit into Wh, W, tenths of a volt or thousandths of a hertz."""

    quantity: str
    function_code: int
    address: int
    type: str
    word_order: str
    unit: str
    scale: Fraction
    quantum: str
    modulus: Fraction | None
    source: str

    @property
    def count(self) -> int:
        """How many 16-bit registers it takes."""
        return TYPE_REGISTERS[self.type]

    @property
    def modulus_scaled(self) -> int | None:
        """Where the register starts again from zero, in the scaled unit; None if it is not known to."""
        return None if self.modulus is None else round(self.modulus * self.scale)


@dataclass(frozen=True)
class RegisterMap:
    """One meter model."""

    map_id: str
    model: str
    source: str
    registers_per_read_max: int
    gap_registers_max: int
    registers: Mapping[str, Register]


@dataclass(frozen=True)
class Block:
    """One Modbus read: `count` registers from `address`."""

    function_code: int
    address: int
    count: int


def load_register_map(name: str, directory: Path = MAPS_DIRECTORY) -> RegisterMap:
    """The map called `name`. Raises RegisterMapError naming the file, the entry and why."""
    known = sorted(path.stem for path in directory.glob("*.toml"))
    if name not in known:
        close = get_close_matches(name, known, 1) or known
        raise RegisterMapError("register_map_unknown", f"no map {name!r}; did you mean {close[0]!r}?")
    path = directory / f"{name}.toml"
    try:
        data = path.read_bytes()
        if len(data) > MAP_BYTES_MAX:
            raise RegisterMapError("register_map_too_long", f"{path}: {len(data)} bytes")
        document = tomllib.loads(data.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RegisterMapError("register_map_unreadable", f"{path}: {error}") from None
    return parse_register_map(document, path)


def parse_register_map(document: Mapping[str, object], file: Path) -> RegisterMap:
    """Check a decoded map. Raises RegisterMapError."""
    top = Table(file, "", document, RegisterMapError)
    meter = top.table("meter")
    entries = top.table("registers")
    top.finish()
    loaded = RegisterMap(
        map_id=meter.take("id", text_value),
        model=f"{meter.take('manufacturer', text_value)} {meter.take('model', text_value)}",
        source=meter.take("source", text_value),
        registers_per_read_max=meter.take("registers_per_read_max", integer(2, REGISTERS_PER_READ_LIMIT)),
        gap_registers_max=meter.take("gap_registers_max", integer(0, REGISTERS_PER_READ_LIMIT)),
        registers={
            quantity: _parse_register(quantity, entries.table(quantity, None))
            for quantity in QUANTITIES
            if quantity in entries.names()
        },
    )
    meter.finish()
    for name in entries.names():
        near = get_close_matches(name, QUANTITIES, 1, cutoff=0.0)
        raise entries.wrong(name, f"no such quantity; the nearest is {near[0]!r}", "settings_unknown_key")
    return loaded


def _parse_register(quantity: str, entry: Table) -> Register:
    kind = entry.take("type", one_of(TYPE_REGISTERS))
    register = Register(
        quantity=quantity,
        function_code=entry.take("function_code", integer(min(FUNCTION_CODES), max(FUNCTION_CODES))),
        address=entry.take("address", integer(0, ADDRESS_MAX + 1 - TYPE_REGISTERS[kind])),
        type=kind,
        word_order=entry.take("word_order", one_of(WORD_ORDERS)),
        unit=entry.take("unit", one_of(UNITS[quantity.split("_", maxsplit=1)[0]])),
        scale=entry.take("scale", _positive),
        quantum=entry.take("quantum", one_of(TYPE_REGISTERS)),
        modulus=entry.take("modulus", _positive, None),
        source=entry.take("source", text_value),
    )
    entry.finish()
    return register


def _positive(value: object) -> Fraction:
    """A whole number, or a decimal as text: a TOML float would already be rounded."""
    try:
        number = Fraction(value) if type(value) is int or isinstance(value, str) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if number <= 0:
        raise ValueError(f"must be a positive whole number, or a decimal in quotes, not {value!r}")
    return number


def plan_blocks(registers: Iterable[Register], registers_max: int, gap_max: int) -> list[Block]:
    """The fewest reads that fetch all `registers`, none longer than `registers_max` nor across a wider gap."""
    blocks: list[Block] = []
    for register in sorted(registers, key=lambda register: (register.function_code, register.address)):
        end = register.address + register.count
        if blocks and blocks[-1].function_code == register.function_code:
            last = blocks[-1]
            gap = register.address - (last.address + last.count)
            if gap <= gap_max and end - last.address <= registers_max:
                blocks[-1] = Block(last.function_code, last.address, max(last.count, end - last.address))
                continue
        blocks.append(Block(register.function_code, register.address, register.count))
    return blocks


def exact_value(register: Register, raw: bytes) -> Fraction:
    """The number that the register's bytes are, in its own unit. Raises RegisterError `register_not_a_number`."""
    value: float = struct.unpack(">f", raw)[0]  # every float32 is a float64: nothing is rounded here
    if not isfinite(value):
        raise RegisterError("register_not_a_number", f"{register.quantity} reads {raw.hex()}")
    return Fraction(value)


def scaled_value(register: Register, raw: bytes) -> int:
    """The register in whole Wh, W, dV or mHz, rounded half to even. Raises RegisterError.

    An energy register may not be negative; power may.
    """
    value = exact_value(register, raw) * register.scale
    if value < 0 and register.quantity != "power":
        raise RegisterError("register_negative", f"{register.quantity} reads {raw.hex()}")
    return round(value)


def quantum(register: Register, raw: bytes) -> Fraction:
    """The smallest step that the register can take at its present value, in the scaled unit."""
    exponent = (int.from_bytes(raw, "big") >> 23) & 0xFF
    return Fraction(2) ** (max(exponent, 1) - 127 - 23) * register.scale
