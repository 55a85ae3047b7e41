"""The agent's one configuration file: parsed strictly at the door, trusted inside.

A mistake is one sentence that names the file, the key and the reason; an unknown key comes with the nearest
valid name. Paths are relative to the file. The buses are in `edge/bus_settings.py`, broker and hub in
`edge/uplink_settings.py`.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.bus_settings import UNIT_MAX, BusSettings, MeterSettings, parse_buses
from edge.errors import SettingsError
from edge.keys import key, key_or_empty
from edge.toml_table import Table, integer, number_named, one_of, path_beside, text_value
from edge.uplink_settings import (
    TRANSPORTS,
    HomeAssistantSettings,
    HttpsSettings,
    HubSettings,
    MqttSettings,
    check_transport,
    parse_home_assistant,
    parse_https,
    parse_hub,
    parse_mqtt,
)
from protocol.command import READING_INTERVAL_MAX_S, SEAL_INTERVAL_MAX_S
from protocol.enrolment import KIND_NAMES, MEASUREMENT_NAMES
from protocol.errors import ProtocolError
from protocol.topics import check_community_id, check_meter_id, domain_of

CLOCK_CHECKS = ("kernel", "trust")
SETTINGS_BYTES_MAX = 65_536
POWER_MAX_W = 100_000_000
JOURNAL_BYTES_MIN = 1024 * 1024
JOURNAL_BYTES_MAX = 64 * 1024**3


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
class Settings:
    """One agent. The table of the chosen transport is there; the others may be None."""

    community_id: str
    meter_id: str
    kind: int
    measurement: int
    owner: bytes
    domain: bytes
    key_file: Path
    buses: tuple[BusSettings, ...]
    sampling: SamplingSettings
    journal: JournalSettings
    transport: str
    mqtt: MqttSettings | None
    https: HttpsSettings | None
    hub: HubSettings
    home_assistant: HomeAssistantSettings | None
    laboratory_clock_unit: int | None

    @property
    def meters(self) -> tuple[MeterSettings, ...]:
        """The meters of the home, on whichever bus."""
        return tuple(meter for bus in self.buses for meter in bus.meters)

    @property
    def command_public_key(self) -> bytes | None:
        """Known once the hub has registered the meter; not needed to enrol."""
        return self.hub.command_public_key


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
    owner = top.take("owner", key)
    key_file = top.take("key_file", path_beside(file), file.parent / "meter.key")
    transport = top.take("transport", one_of(TRANSPORTS), "mqtt")
    domain = _parse_domain(top, community_id)
    settings = Settings(
        community_id=community_id,
        meter_id=meter_id,
        kind=kind,
        measurement=measurement,
        owner=owner,
        domain=domain,
        key_file=key_file,
        buses=parse_buses(top.tables("bus"), file, measurement),
        sampling=_parse_sampling(top.table("sampling", {})),
        journal=_parse_journal(top.table("journal", {}), file),
        transport=transport,
        mqtt=parse_mqtt(top.table("mqtt"), file) if top.has("mqtt") else None,
        https=parse_https(top.table("https"), file) if top.has("https") else None,
        hub=parse_hub(top.table("hub", {}), file),
        home_assistant=parse_home_assistant(top.table("home_assistant"), file) if top.has("home_assistant") else None,
        laboratory_clock_unit=_parse_laboratory(top.table("laboratory", {})),
    )
    top.finish()
    try:
        check_transport(transport, settings.mqtt, settings.https, settings.hub)
    except SettingsError as error:
        raise SettingsError(error.code, f"{file}: {error.detail}") from None
    return settings


def _parse_domain(top: Table, community_id: str) -> bytes:
    chain = top.table("chain", {})
    genesis_hash = chain.take("genesis_hash", key_or_empty, b"")
    program_id = chain.take("program_id", key_or_empty, b"")
    chain.finish()
    try:
        return domain_of(community_id, genesis_hash, program_id)
    except ProtocolError as error:
        raise top.wrong("chain", error.detail) from None


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


def _parse_laboratory(table: Table) -> int | None:
    unit = table.take("clock_unit", integer(0, UNIT_MAX), 0)
    table.finish()
    return unit or None


def _named(check: Callable[[str], str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        try:
            return check(text_value(value))
        except ProtocolError as error:
            raise ValueError(error.detail) from None

    return parse
