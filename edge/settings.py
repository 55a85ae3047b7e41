"""The agent's one configuration file: parsed strictly at the door, trusted inside.

A mistake is one sentence that names the file, the key and the reason; an unknown key comes with the nearest
valid name. Paths are relative to the file.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from edge.base58 import decode_base58
from edge.errors import RegisterMapError, SettingsError
from edge.register_map import RegisterMap, load_register_map
from edge.toml_table import Table, integer, number_named, one_of, path_beside, text_value
from protocol.command import READING_INTERVAL_MAX_S, SEAL_INTERVAL_MAX_S
from protocol.enrolment import KEY_BYTES, KIND_NAMES, MEASUREMENT_NAMES, MEASURES_GENERATION_AND_GRID
from protocol.errors import ProtocolError
from protocol.topics import check_community_id, check_meter_id, domain_of

ROLES = ("grid", "generation")
CLOCK_CHECKS = ("kernel", "trust")
ENERGY_REGISTERS = ("import", "export", "total")
UNIT_MAX = 247
PORT_MAX = 65_535
SETTINGS_BYTES_MAX = 65_536
TIMEOUT_MAX_S = 60
REPUBLISH_AFTER_MAX_S = 3_600
POWER_MAX_W = 100_000_000
JOURNAL_BYTES_MIN = 1024 * 1024
JOURNAL_BYTES_MAX = 64 * 1024**3
HOST_LENGTH_MAX = 253


@dataclass(frozen=True)
class MeterSettings:
    """One meter on the bus. `energy` is the register that counts generation; a grid meter has both directions."""

    role: str
    unit: int
    register_map: RegisterMap
    energy: str


@dataclass(frozen=True)
class ModbusSettings:
    """Where the meters answer."""

    host: str
    port: int
    timeout_s: int
    meters: tuple[MeterSettings, ...]


@dataclass(frozen=True)
class SamplingSettings:
    """How often to read and to seal (0: each reading), and what to believe."""

    interval_s: int
    seal_interval_s: int
    clock_check: str
    power_max_w: int


@dataclass(frozen=True)
class JournalSettings:
    """Where the journal is and how large it may grow."""

    file: Path
    bytes_max: int


@dataclass(frozen=True)
class MqttSettings:
    """The broker, and the files that make a connection trusted on both sides."""

    host: str
    port: int
    ca_file: Path
    password_file: Path
    republish_after_s: int


@dataclass(frozen=True)
class Settings:
    """One agent. `command_public_key` is None until the hub has told it (not needed to enrol)."""

    community_id: str
    meter_id: str
    kind: int
    measurement: int
    owner: bytes
    domain: bytes
    key_file: Path
    modbus: ModbusSettings
    sampling: SamplingSettings
    journal: JournalSettings
    mqtt: MqttSettings
    command_public_key: bytes | None
    laboratory_clock_unit: int | None


def load_settings(file: Path) -> Settings:
    """Read and check a configuration. Raises SettingsError and nothing else, whatever the file holds."""
    try:
        with file.open("rb") as stream:
            data = stream.read(SETTINGS_BYTES_MAX + 1)
        if len(data) > SETTINGS_BYTES_MAX:
            raise SettingsError("settings_unreadable", f"{file}: longer than {SETTINGS_BYTES_MAX} bytes")
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise SettingsError("settings_unreadable", f"{file}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError("settings_unreadable", f"{file}: {error}") from None
    return parse_settings(document, file)


def parse_settings(document: Mapping[str, object], file: Path) -> Settings:
    """Check a decoded configuration. Raises SettingsError."""
    top = Table(file, "", document, SettingsError)
    community_id = top.take("community_id", _named(check_community_id))
    meter_id = top.take("meter_id", _named(check_meter_id))
    kind = top.take("kind", number_named(KIND_NAMES))
    measurement = top.take("measurement", number_named(MEASUREMENT_NAMES))
    owner = top.take("owner", _key32)
    key_file = top.take("key_file", path_beside(file), file.parent / "meter.key")
    chain = top.table("chain", {})
    genesis_hash = chain.take("genesis_hash", _key32_or_empty, b"")
    program_id = chain.take("program_id", _key32_or_empty, b"")
    chain.finish()
    try:
        domain = domain_of(community_id, genesis_hash, program_id)
    except ProtocolError as error:
        raise top.wrong("chain", error.detail) from None
    settings = Settings(
        community_id=community_id,
        meter_id=meter_id,
        kind=kind,
        measurement=measurement,
        owner=owner,
        domain=domain,
        key_file=key_file,
        modbus=_parse_modbus(top.table("modbus"), measurement),
        sampling=_parse_sampling(top.table("sampling", {})),
        journal=_parse_journal(top.table("journal", {}), file),
        mqtt=_parse_mqtt(top.table("mqtt"), file),
        command_public_key=_parse_hub(top.table("hub", {})),
        laboratory_clock_unit=_parse_laboratory(top.table("laboratory", {})),
    )
    top.finish()
    return settings


def _parse_modbus(table: Table, measurement: int) -> ModbusSettings:
    host = table.take("host", _host)
    port = table.take("port", integer(1, PORT_MAX), 502)
    timeout_s = table.take("timeout_s", integer(1, TIMEOUT_MAX_S), 3)
    meters = tuple(_parse_meter(entry) for entry in table.tables("meter"))
    roles = [meter.role for meter in meters]
    needed = ["generation", "grid"] if measurement == MEASURES_GENERATION_AND_GRID else ["grid"]
    if sorted(roles) != needed:
        found = ", ".join(roles) or "nothing"
        raise table.wrong("meter", f"this measurement needs one meter each of {', '.join(needed)}, not {found}")
    table.finish()
    return ModbusSettings(host, port, timeout_s, meters)


def _parse_meter(table: Table) -> MeterSettings:
    role = table.take("role", one_of(ROLES))
    unit = table.take("unit", integer(1, UNIT_MAX))
    register_map = table.take("map", _register_map)
    energy = "import"
    if role == "generation":
        energy = table.take("energy", one_of(ENERGY_REGISTERS), energy)
    table.finish()
    needed = [energy] if role == "generation" else ["import", "export"]
    for name in needed:
        if f"energy_{name}" not in register_map.registers:
            raise table.wrong("map", f"{register_map.map_id} has no energy_{name} register")
    return MeterSettings(role, unit, register_map, energy)


def _parse_sampling(table: Table) -> SamplingSettings:
    interval_s = table.take("interval_s", integer(1, READING_INTERVAL_MAX_S), 60)
    seal_interval_s = table.take("seal_interval_s", integer(0, SEAL_INTERVAL_MAX_S), 900)
    if 0 < seal_interval_s < interval_s:
        raise table.wrong("seal_interval_s", f"shorter than interval_s ({interval_s}); 0 seals each reading")
    sampling = SamplingSettings(
        interval_s,
        seal_interval_s,
        table.take("clock_check", one_of(CLOCK_CHECKS), "kernel"),
        table.take("power_max_w", integer(1, POWER_MAX_W), 100_000),
    )
    table.finish()
    return sampling


def _parse_journal(table: Table, file: Path) -> JournalSettings:
    journal = JournalSettings(
        table.take("file", path_beside(file), file.parent / "journal.sqlite"),
        table.take("bytes_max", integer(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX), 64 * 1024 * 1024),
    )
    table.finish()
    return journal


def _parse_mqtt(table: Table, file: Path) -> MqttSettings:
    mqtt = MqttSettings(
        table.take("host", _host),
        table.take("port", integer(1, PORT_MAX), 8883),
        table.take("ca_file", path_beside(file)),
        table.take("password_file", path_beside(file)),
        table.take("republish_after_s", integer(1, REPUBLISH_AFTER_MAX_S), 30),
    )
    table.finish()
    return mqtt


def _parse_hub(table: Table) -> bytes | None:
    key = table.take("command_public_key", _key32_or_empty, b"")
    table.finish()
    return key or None


def _parse_laboratory(table: Table) -> int | None:
    unit = table.take("clock_unit", integer(0, UNIT_MAX), 0)
    table.finish()
    return unit or None


def _register_map(value: object) -> RegisterMap:
    try:
        return load_register_map(text_value(value))
    except RegisterMapError as error:
        raise ValueError(str(error)) from None


def _host(value: object) -> str:
    text = text_value(value)
    if not 1 <= len(text) <= HOST_LENGTH_MAX or any(not (c.isascii() and (c.isalnum() or c in ".-:")) for c in text):
        raise ValueError("must be a host name or address, without a port")
    if ":" in text:
        IPv6Address(text)
    return text


def _named(check: Callable[[str], str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        try:
            return check(text_value(value))
        except ProtocolError as error:
            raise ValueError(error.detail) from None

    return parse


def _key32(value: object) -> bytes:
    text = text_value(value)
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else decode_base58(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} bytes in hex or base58")
    return key


def _key32_or_empty(value: object) -> bytes:
    return b"" if value == "" else _key32(value)
