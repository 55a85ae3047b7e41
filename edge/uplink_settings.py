"""The `[mqtt]`, `[https]`, `[hub]` and `[home_assistant]` tables: whom the agent talks to. Parsed strictly."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from edge.errors import SettingsError
from edge.keys import key_or_empty
from edge.toml_table import Table, host_name, integer, path_beside, text_value

PORT_MAX = 65_535
REPUBLISH_AFTER_MAX_S = 3_600
REPUBLISH_AFTER_S = 30
MQTT_VERSIONS = (3, 5)
TRANSPORTS = ("mqtt", "https")
URL_LENGTH_MAX = 500
USERNAME_LENGTH_MAX = 100
PREFIX_LENGTH_MAX = 100


@dataclass(frozen=True)
class MqttSettings:
    """The broker, and what makes a connection trusted on both sides: a password, or a certificate and its key."""

    host: str
    port: int
    version: int
    ca_file: Path
    password_file: Path | None
    certificate_file: Path | None
    certificate_key_file: Path | None
    republish_after_s: int


@dataclass(frozen=True)
class HttpsSettings:
    """How an agent without a broker speaks to the hub."""

    password_file: Path
    republish_after_s: int


@dataclass(frozen=True)
class HubSettings:
    """The hub's API (`url` is empty if the device does not know it) and the key by which its commands are known.

    `ca_file` None: the system's authorities are trusted.
    """

    url: str
    ca_file: Path | None
    command_public_key: bytes | None


@dataclass(frozen=True)
class HomeAssistantSettings:
    """The member's own broker. `ca_file` None: no TLS; `username` empty: anonymous."""

    host: str
    port: int
    ca_file: Path | None
    username: str
    password_file: Path | None
    discovery_prefix: str


def parse_mqtt(table: Table, file: Path) -> MqttSettings:
    """The `[mqtt]` table. Raises SettingsError."""
    mqtt = MqttSettings(
        host=table.take("host", host_name),
        port=table.take("port", integer(1, PORT_MAX), 8883),
        version=table.take("version", _mqtt_version, 5),
        ca_file=table.take("ca_file", path_beside(file)),
        password_file=table.take("password_file", path_beside(file), None),
        certificate_file=table.take("certificate_file", path_beside(file), None),
        certificate_key_file=table.take("certificate_key_file", path_beside(file), None),
        republish_after_s=table.take("republish_after_s", integer(1, REPUBLISH_AFTER_MAX_S), REPUBLISH_AFTER_S),
    )
    table.finish()
    if (mqtt.certificate_file is None) != (mqtt.certificate_key_file is None):
        raise table.wrong("certificate_file", "a certificate and its key belong together")
    if (mqtt.certificate_file is None) == (mqtt.password_file is None):
        why = "missing: a password_file, or a certificate_file and a certificate_key_file, but not both"
        raise table.wrong("password_file", why, "settings_missing")
    return mqtt


def parse_https(table: Table, file: Path) -> HttpsSettings:
    """The `[https]` table. Raises SettingsError."""
    https = HttpsSettings(
        table.take("password_file", path_beside(file)),
        table.take("republish_after_s", integer(1, REPUBLISH_AFTER_MAX_S), REPUBLISH_AFTER_S),
    )
    table.finish()
    return https


def parse_hub(table: Table, file: Path) -> HubSettings:
    """The `[hub]` table. Raises SettingsError."""
    hub = HubSettings(
        table.take("url", _url, ""),
        table.take("ca_file", path_beside(file), None),
        table.take("command_public_key", key_or_empty, b"") or None,
    )
    table.finish()
    return hub


def parse_home_assistant(table: Table, file: Path) -> HomeAssistantSettings:
    """The `[home_assistant]` table. Raises SettingsError."""
    ours = HomeAssistantSettings(
        table.take("host", host_name),
        table.take("port", integer(1, PORT_MAX), 1883),
        table.take("ca_file", path_beside(file), None),
        table.take("username", _username, ""),
        table.take("password_file", path_beside(file), None),
        table.take("discovery_prefix", _prefix, "homeassistant"),
    )
    table.finish()
    if bool(ours.username) != (ours.password_file is not None):
        raise table.wrong("username", "a user name and a password_file belong together")
    return ours


def check_transport(transport: str, mqtt: MqttSettings | None, https: HttpsSettings | None, hub: HubSettings) -> None:
    """Whether the chosen transport has what it needs. Raises SettingsError `settings_missing`."""
    if transport == "mqtt" and mqtt is None:
        raise SettingsError("settings_missing", "mqtt: the transport is mqtt, so there must be such a table")
    if transport == "https" and https is None:
        raise SettingsError("settings_missing", "https: the transport is https, so there must be such a table")
    if transport == "https" and not hub.url:
        raise SettingsError("settings_missing", "hub.url: the transport is https")


def _url(value: object) -> str:
    """An https address; http only to this machine itself."""
    text = text_value(value)
    if not text:
        return ""
    parts = urlsplit(text)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an address like https://hub.example")
    if len(text) > URL_LENGTH_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"must be printable ASCII, at most {URL_LENGTH_MAX} characters")
    host_name(host)
    _ = parts.port  # raises ValueError if it is no port
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("must be https: passwords travel on it; http is for this machine itself")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _mqtt_version(value: object) -> int:
    if value not in MQTT_VERSIONS or isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be 5, or 3 for MQTT 3.1.1, not {value!r}")
    return value


def _username(value: object) -> str:
    text = text_value(value)
    if len(text) > USERNAME_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"must be at most {USERNAME_LENGTH_MAX} printable characters")
    return text


def _prefix(value: object) -> str:
    text = text_value(value)
    if not 1 <= len(text) <= PREFIX_LENGTH_MAX or any(letter in text for letter in "+#\0") or text != text.strip("/"):
        raise ValueError("must be a topic without wildcards and without a slash at either end")
    return text
