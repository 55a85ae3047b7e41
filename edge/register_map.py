"""Register maps: which bytes of which meter mean what. Data in `edge/registers/*.toml`, checked here.

Strict: a key that is missing, unknown, or that a register of its type cannot have is one sentence that names it.
"""

import re
import struct
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from edge.errors import RegisterMapError
from edge.register import (
    FLOAT_LAYOUTS,
    TYPES,
    UNIT_SCALES,
    Block,
    Register,
    exact_value,
    plan_blocks,
    quantum,
    scaled_value,
    swapped_words,
)
from edge.toml_table import Table, integer, one_of, text_value

__all__ = [  # with what is done with a map's registers, so that who reads meters needs one module
    "UNIT_SCALES",
    "Block",
    "Identity",
    "Register",
    "RegisterMap",
    "exact_value",
    "load_register_map",
    "parse_register_map",
    "plan_blocks",
    "quantum",
    "scaled_value",
    "swapped_words",
]

T = TypeVar("T")
MAPS_DIRECTORY = Path(__file__).parent / "registers"
MAP_FILE_SUFFIX = ".toml"
"""A map whose name ends so is a file beside the configuration; any other is one of ours."""
QUANTITIES = ("energy_import", "energy_export", "energy_total", "power", "voltage", "frequency")
UNITS = {"energy": ("kWh", "Wh"), "power": ("W", "kW"), "voltage": ("V",), "frequency": ("Hz",)}
WORD_ORDERS = ("big", "little")
FUNCTION_CODES = (3, 4)
PARITIES = ("N", "E", "O")
ADDRESS_MAX = 0xFFFF
BAUD_RATE_MAX = 1_000_000
REGISTERS_PER_READ_LIMIT = 125
"""What one Modbus response can carry."""
IDENTITIES_MAX = 64
MAP_BYTES_MAX = 65_536
MAP_ID_LENGTH_MAX = 64
DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
HEX = re.compile(r"[0-9a-fA-F]+")
UNKNOWN = "unknown"
BY_SCALE_FACTOR = "scale_factor"


@dataclass(frozen=True)
class Identity:
    """Registers that say which meter this is, and each content that the map is for."""

    function_code: int
    address: int
    allowed: tuple[tuple[int, ...], ...]
    source: str

    @property
    def count(self) -> int:
        """How many registers to read."""
        return len(self.allowed[0])

    def matches(self, raw: bytes) -> bool:
        """Whether the meter that answered with these bytes is one that the map is for."""
        return raw in [struct.pack(f">{self.count}H", *words) for words in self.allowed]


@dataclass(frozen=True)
class RegisterMap:
    """One meter model.

    `phases_netted` is False if import and export are summed phase by phase (or nobody knows): such a meter counts
    energy that never left the house. Empty serial parameters: the meter has no serial line, or nothing is known.
    """

    map_id: str
    model: str
    source: str
    phases_netted: bool
    registers_per_read_max: int
    gap_registers_max: int
    registers: Mapping[str, Register]
    phases_source: str = ""
    identity: Identity | None = None
    baud_rates: tuple[int, ...] = ()
    parities: tuple[str, ...] = ()


def load_register_map(name: str, beside: Path | None = None, directory: Path = MAPS_DIRECTORY) -> RegisterMap:
    """The map called `name`; one that ends in `.toml` is a file in the directory `beside`.

    Raises RegisterMapError naming the file, the entry and why.
    """
    if name.endswith(MAP_FILE_SUFFIX):
        path = (beside or Path()) / name
    else:
        known = sorted(path.stem for path in directory.glob(f"*{MAP_FILE_SUFFIX}"))
        if name not in known:
            close = get_close_matches(name, known, 1) or known
            raise RegisterMapError("register_map_unknown", f"no map {name!r}; did you mean {close[0]!r}?")
        path = directory / f"{name}{MAP_FILE_SUFFIX}"
    try:
        with path.open("rb") as stream:
            data = stream.read(MAP_BYTES_MAX + 1)
        if len(data) > MAP_BYTES_MAX:
            raise RegisterMapError("register_map_too_long", f"{path}: more than {MAP_BYTES_MAX} bytes")
        document = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:  # no such file, not UTF-8, not TOML
        raise RegisterMapError("register_map_unreadable", f"{path}: {error}") from None
    return parse_register_map(document, path)


def parse_register_map(document: Mapping[str, object], file: Path) -> RegisterMap:
    """Check a decoded map. Raises RegisterMapError."""
    top = Table(file, "", document, RegisterMapError)
    meter = top.table("meter")
    entries = top.table("registers")
    serial = top.table("serial", {})
    identity = _parse_identity(top.table("identity")) if "identity" in top.names() else None
    top.finish()
    registers_per_read_max = meter.take("registers_per_read_max", integer(2, REGISTERS_PER_READ_LIMIT))
    loaded = RegisterMap(
        map_id=meter.take("id", _map_id),
        model=f"{meter.take('manufacturer', text_value)} {meter.take('model', text_value)}",
        source=meter.take("source", text_value),
        phases_netted=meter.take("phases_netted", _boolean),
        phases_source=meter.take("phases_source", text_value),
        registers_per_read_max=registers_per_read_max,
        gap_registers_max=meter.take("gap_registers_max", integer(0, REGISTERS_PER_READ_LIMIT)),
        registers={
            quantity: _parse_register(quantity, entries.table(quantity, None), registers_per_read_max)
            for quantity in QUANTITIES
            if quantity in entries.names()
        },
        identity=identity,
        baud_rates=serial.take("baud_rates", _list_of(integer(1, BAUD_RATE_MAX)), ()),
        parities=serial.take("parities", _list_of(one_of(PARITIES)), ()),
    )
    meter.finish()
    serial.finish()
    for name in entries.names():
        near = get_close_matches(name, QUANTITIES, 1, cutoff=0.0)
        raise entries.wrong(name, f"no such quantity; the nearest is {near[0]!r}", "settings_unknown_key")
    return loaded


def _parse_register(quantity: str, entry: Table, registers_max: int) -> Register:
    is_energy = quantity.startswith("energy")
    type_ = entry.take("type", one_of(TYPES))
    size = struct.calcsize(TYPES[type_])
    if size // 2 > registers_max:
        raise entry.wrong("type", f"{type_} is longer than registers_per_read_max ({registers_max})")
    register = Register(
        quantity=quantity,
        function_code=entry.take("function_code", integer(min(FUNCTION_CODES), max(FUNCTION_CODES))),
        address=entry.take("address", integer(0, ADDRESS_MAX + 1 - size // 2)),
        type=type_,
        word_order=entry.take("word_order", one_of(WORD_ORDERS)),
        unit=entry.take("unit", one_of(UNITS[quantity.split("_", maxsplit=1)[0]])),
        scale=entry.take("scale", _non_zero if quantity == "power" else _positive),
        quantum=entry.take("quantum", _positive_or(type_ if type_ in FLOAT_LAYOUTS else BY_SCALE_FACTOR)),
        modulus=entry.take("modulus", _positive_or(UNKNOWN)) if is_energy else None,
        unavailable=entry.take("unavailable", _list_of(_bytes_of(size)), ()),
        scale_factor_address=entry.take("scale_factor_address", integer(0, ADDRESS_MAX), None),
        source=entry.take("source", text_value),
    )
    entry.finish()
    _check_register(register, entry)
    return register


def _check_register(register: Register, entry: Table) -> None:
    """Refuse a quantum or a modulus that a register of this type cannot have."""
    scaled_by_register = register.scale_factor_address is not None
    if register.type in FLOAT_LAYOUTS:
        if scaled_by_register:
            raise entry.wrong("scale_factor_address", f"a {register.type} has no scale factor")
        return
    if (register.quantum is None) != scaled_by_register:
        needed = f"{BY_SCALE_FACTOR!r}" if scaled_by_register else "a number"
        raise entry.wrong("quantum", f"must be {needed} for this {register.type}")
    if scaled_by_register:
        return
    step = abs(register.scale)
    if register.quantum is not None and register.quantum % step:
        raise entry.wrong("quantum", f"must be a multiple of the scale, {step}")
    bits = 16 * register.count - (not register.type.startswith("u"))
    if register.modulus is not None and (register.modulus % step or register.modulus > 2**bits * step):
        raise entry.wrong("modulus", f"must be a multiple of the scale and fit into an {register.type}")


def _parse_identity(entry: Table) -> Identity:
    identity = Identity(
        entry.take("function_code", integer(min(FUNCTION_CODES), max(FUNCTION_CODES))),
        entry.take("address", integer(0, ADDRESS_MAX)),
        entry.take("allowed", _list_of(_list_of(integer(0, 0xFFFF)))),
        entry.take("source", text_value),
    )
    entry.finish()
    counts = {len(words) for words in identity.allowed}
    if len(counts) != 1 or not 1 <= min(counts) <= REGISTERS_PER_READ_LIMIT or len(identity.allowed) > IDENTITIES_MAX:
        raise entry.wrong("allowed", f"must be 1 to {IDENTITIES_MAX} lists of words, all of one length")
    if identity.address + identity.count > ADDRESS_MAX + 1:
        raise entry.wrong("address", "goes beyond the last register")
    return identity


def _map_id(value: object) -> str:
    """It travels in every status report and stands in messages to people."""
    text = text_value(value)
    if not 1 <= len(text) <= MAP_ID_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"must be 1 to {MAP_ID_LENGTH_MAX} printable characters")
    return text


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")  # noqa: TRY004  # wrong input, like any other
    return value


def _non_zero(value: object) -> Fraction:
    """A whole number, or a decimal as text: a TOML float would already be rounded."""
    is_number = type(value) is int or (isinstance(value, str) and DECIMAL.fullmatch(value))
    number = Fraction(str(value)) if is_number else Fraction(0)
    if number == 0:
        raise ValueError(f"must be a whole number other than zero, or a decimal in quotes, not {value!r}")
    return number


def _positive(value: object) -> Fraction:
    try:
        number = _non_zero(value)
    except ValueError:
        number = Fraction(0)
    if number <= 0:
        raise ValueError(f"must be a positive whole number, or a decimal in quotes, not {value!r}")
    return number


def _positive_or(word: str) -> Callable[[object], Fraction | None]:
    """A positive number, or the one word that stands for None."""

    def parse(value: object) -> Fraction | None:
        if value == word:
            return None
        try:
            return _positive(value)
        except ValueError as error:
            raise ValueError(f"{error} (or {word!r})") from None

    return parse


def _bytes_of(size: int) -> Callable[[object], bytes]:
    def parse(value: object) -> bytes:
        text = text_value(value)
        if len(text) != 2 * size or not HEX.fullmatch(text):
            raise ValueError(f"must be {size} bytes in hex, as they come over the wire, not {value!r}")
        return bytes.fromhex(text)

    return parse


def _list_of(parse_item: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    def parse(value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"must be a list, and not an empty one: {value!r}")
        return tuple(parse_item(item) for item in value)

    return parse
