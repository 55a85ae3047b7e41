"""The `[[bus]]` tables of the configuration: how each meter of the home is reached. Parsed strictly, trusted inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import RegisterMapError, SettingsError
from edge.pulses import pulse_register_map
from edge.register_map import RegisterMap, load_register_map
from edge.toml_table import Table, host_name, integer, one_of, path_beside, text_value
from protocol.enrolment import MEASURES_GENERATION_AND_GRID

BUS_TYPES = ("tcp", "rtu_over_tcp", "rtu", "s0")
ROLES = ("grid", "generation")
ENERGY_REGISTERS = ("import", "export", "total")
PARITIES = {"none": "N", "even": "E", "odd": "O"}
UNIT_MIN, UNIT_MAX = 1, 247
TCP_UNIT_MIN, TCP_UNIT_MAX = 0, 255
"""There is no line behind it on which 0 speaks to everybody: some devices answer as 0 or 255 alone."""
PULSE_UNIT = 0
PORT_MAX = 65_535
TIMEOUT_MAX_S = 60
RETRIES_MAX = 10
PAUSE_MS_DEFAULT, PAUSE_MS_MAX = 50, 2_000
"""Silence before each request on a serial line: several meters miss a request that follows their answer at once."""
BAUD_MIN, BAUD_MAX = 1_200, 921_600
IMPULSES_PER_KWH_MAX = 100_000
PULSE_MIN_MS_MAX = 1_000
LINE_MAX = 1_023
START_WH_MAX = 10**12
NAME_LENGTH_MAX = 32


@dataclass(frozen=True)
class MeterSettings:
    """One meter on a bus. `energy` is the register that counts generation; a grid meter has both directions."""

    role: str
    unit: int
    register_map: RegisterMap
    energy: str


@dataclass(frozen=True)
class TcpBus:
    """Meters behind one TCP port: Modbus TCP, or with `framing` "rtu" a gateway that passes RTU frames through."""

    name: str
    host: str
    port: int
    framing: str
    timeout_s: int
    retries: int
    meters: tuple[MeterSettings, ...]
    pause_ms: int = PAUSE_MS_DEFAULT


@dataclass(frozen=True)
class SerialBus:
    """Meters on one RS-485 line: Modbus RTU. `parity` is N, E or O."""

    name: str
    device: Path
    baud: int
    parity: str
    stop_bits: int
    timeout_s: int
    retries: int
    meters: tuple[MeterSettings, ...]
    pause_ms: int = PAUSE_MS_DEFAULT


@dataclass(frozen=True)
class PulseBus:
    """One meter's S0 output on a line of a GPIO chip; its count is kept in `file`, beginning at `start_wh`."""

    name: str
    chip: Path
    line: int
    impulses_per_kwh: int
    pulse_min_ms: int
    file: Path
    start_wh: int
    meters: tuple[MeterSettings, ...]


BusSettings = TcpBus | SerialBus | PulseBus


def parse_buses(tables: Iterable[Table], file: Path, measurement: int) -> tuple[BusSettings, ...]:
    """Check the `[[bus]]` tables. Raises SettingsError."""
    buses: list[BusSettings] = []
    for table in tables:
        kind = table.take("type", one_of(BUS_TYPES))
        name = table.take("name", _name, f"bus {len(buses) + 1}")
        buses.append(_PARSERS[kind](table, name, file))
        table.finish()
    if doubled := [name for name, times in Counter(bus.name for bus in buses).items() if times > 1]:
        raise SettingsError("settings_invalid", f"{file}: bus: two are called {doubled[0]!r}")
    roles = [meter.role for bus in buses for meter in bus.meters]
    needed = ["generation", "grid"] if measurement == MEASURES_GENERATION_AND_GRID else ["grid"]
    if sorted(roles) != needed:
        found = ", ".join(roles) or "nothing"
        why = f"this measurement needs one meter each of {', '.join(needed)}, not {found}"
        raise SettingsError("settings_invalid", f"{file}: bus.meter: {why}")
    return tuple(buses)


def _parse_tcp(table: Table, name: str, file: Path) -> TcpBus:
    return _tcp_bus(table, name, file, "tcp")


def _parse_rtu_over_tcp(table: Table, name: str, file: Path) -> TcpBus:
    return _tcp_bus(table, name, file, "rtu")


def _tcp_bus(table: Table, name: str, file: Path, framing: str) -> TcpBus:
    units = (TCP_UNIT_MIN, TCP_UNIT_MAX) if framing == "tcp" else (UNIT_MIN, UNIT_MAX)
    return TcpBus(
        name,
        table.take("host", host_name),
        table.take("port", integer(1, PORT_MAX), 502),
        framing,
        table.take("timeout_s", integer(1, TIMEOUT_MAX_S), 3),
        table.take("retries", integer(0, RETRIES_MAX), 1),
        _parse_meters(table, file, units),
        table.take("pause_ms", integer(0, PAUSE_MS_MAX), PAUSE_MS_DEFAULT),
    )


def _parse_serial(table: Table, name: str, file: Path) -> SerialBus:
    return SerialBus(
        name,
        table.take("device", path_beside(file)),
        table.take("baud", integer(BAUD_MIN, BAUD_MAX), 9_600),
        PARITIES[table.take("parity", one_of(PARITIES), "none")],
        table.take("stop_bits", integer(1, 2), 1),
        table.take("timeout_s", integer(1, TIMEOUT_MAX_S), 1),
        table.take("retries", integer(0, RETRIES_MAX), 1),
        _parse_meters(table, file, (UNIT_MIN, UNIT_MAX)),
        table.take("pause_ms", integer(0, PAUSE_MS_MAX), PAUSE_MS_DEFAULT),
    )


def _parse_pulses(table: Table, name: str, file: Path) -> PulseBus:
    impulses_per_kwh = table.take("impulses_per_kwh", integer(1, IMPULSES_PER_KWH_MAX))
    meter = MeterSettings("generation", PULSE_UNIT, pulse_register_map(impulses_per_kwh), "total")
    return PulseBus(
        name,
        table.take("chip", path_beside(file), Path("/dev/gpiochip0")),
        table.take("line", integer(0, LINE_MAX)),
        impulses_per_kwh,
        table.take("pulse_min_ms", integer(1, PULSE_MIN_MS_MAX), 20),
        table.take("file", path_beside(file), file.parent / "pulses.json"),
        table.take("start_wh", integer(0, START_WH_MAX), 0),
        (meter,),
    )


_PARSERS: dict[str, Callable[[Table, str, Path], BusSettings]] = {
    "tcp": _parse_tcp,
    "rtu_over_tcp": _parse_rtu_over_tcp,
    "rtu": _parse_serial,
    "s0": _parse_pulses,
}


def _parse_meters(table: Table, file: Path, units: tuple[int, int]) -> tuple[MeterSettings, ...]:
    meters = tuple(_parse_meter(entry, file, units) for entry in table.tables("meter"))
    if not meters:
        raise table.wrong("meter", "there is none on this bus")
    if doubled := _doubled([meter.unit for meter in meters]):
        raise table.wrong("meter", f"two meters have unit {doubled[0]}: both would answer at once")
    return meters


def _doubled(units: Sequence[int]) -> list[int]:
    return [unit for unit, times in Counter(units).items() if times > 1]


def _parse_meter(table: Table, file: Path, units: tuple[int, int]) -> MeterSettings:
    role = table.take("role", one_of(ROLES))
    unit = table.take("unit", integer(*units))
    register_map = table.take("map", _register_map(file))
    energy = "import"
    if role == "generation":
        energy = table.take("energy", one_of(ENERGY_REGISTERS), energy)
    table.finish()
    for needed in [energy] if role == "generation" else ["import", "export"]:
        if f"energy_{needed}" not in register_map.registers:
            raise table.wrong("map", f"{register_map.map_id} has no energy_{needed} register")
    return MeterSettings(role, unit, register_map, energy)


def _register_map(file: Path) -> Callable[[object], RegisterMap]:
    def parse(value: object) -> RegisterMap:
        try:
            return load_register_map(text_value(value), beside=file.parent)
        except RegisterMapError as error:
            raise ValueError(str(error)) from None

    return parse


def _name(value: object) -> str:
    text = text_value(value)
    if not 1 <= len(text) <= NAME_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"must be 1 to {NAME_LENGTH_MAX} printable characters")
    return text
