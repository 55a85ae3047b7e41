"""What a hub process must be told, from the environment (`COMMONWATT_…`); secrets come in files, never in values.

`Settings.read()` either returns a complete, checked configuration or raises SettingsInvalid naming every fault.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, IPvAnyNetwork, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from hub.errors import SettingsInvalid
from protocol.errors import ProtocolError
from protocol.topics import check_community_id, domain_of

PREFIX = "COMMONWATT_"
MEMBER_SECRET_BYTES = 32
HOST_LENGTH_MAX = 253
HOST_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_:")
"""Of host names as browsers send them, and of addresses: wallets show them to people, who must not mistake them."""
PROXY_PREFIXES_MIN = {4: 8, 6: 24}
"""By version of IP: 10.0.0.0/8 is the widest that can be all one's own, and a provider of proxies has an IPv6 /29."""
OTHER_ROOMS = frozenset(
    {"COMMONWATT_API_URL", "COMMONWATT_API_KEY_FILE", "COMMONWATT_SESSION_FILE", "COMMONWATT_POSTGRES_BIN"}
)
"""Variables that the hub may inherit without being spoken to."""
GONE = {
    "COMMONWATT_ADMIN_TOKEN_FILE": "admins are members now: `commonwatt hub bootstrap` makes the first",
}
"""What earlier hubs were told, and what took its place."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_SEPARATED = (NoDecode, BeforeValidator(_split))
"""A list is written with commas."""


class Settings(BaseSettings):
    """The configuration of a hub process. Paths are files readable by the owner only."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    database_url: str
    community_id: str
    genesis_hash_hex: str = ""
    program_id_hex: str = ""

    mqtt_host: str
    mqtt_port: int = Field(ge=1, le=65_535)
    mqtt_ca_file: Path
    mqtt_password_file: Path

    command_key_file: Path
    broker_secret_file: Path
    member_secret_file: Path
    """From it come the tokens in mails, API keys and the secrets of webhooks."""
    token_key_file: Path
    """Seed of the Ed25519 key that signs access tokens."""
    retired_token_key_files: Annotated[list[Path], *_SEPARATED] = []
    """Seeds of keys that signed before: their tokens are good until they end."""

    public_url: str
    """Where people reach this hub: what wallets sign for, what links in mails begin with, who issues tokens."""
    cors_origins: Annotated[list[str], *_SEPARATED] = []
    """Pages that may use this hub from a browser, such as https://app.example."""
    trusted_proxies: Annotated[list[IPvAnyNetwork], *_SEPARATED] = []
    """Networks of the proxies before the API, whose X-Forwarded-For is believed."""

    smtp_host: str = ""
    """Nothing: this hub sends no mail, and says so where mail would be needed."""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_username: str = ""
    smtp_password_file: Path | None = None
    smtp_ca_file: Path | None = None
    """Who vouches for the mail server; nothing: the system's authorities."""
    mail_from: str = ""

    webhook_networks_allowed: Annotated[list[IPvAnyNetwork], *_SEPARATED] = []
    """Private networks to which webhooks may go all the same, for a receiver beside the hub."""

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8800, ge=0, le=65_535)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65_535, description="of ingest and jobs; 0 chooses a free one")

    rpc_url: str = ""
    """JSON-RPC of a Solana node. Nothing: this hub has no chain; it stores readings and mints nothing."""
    rpc_ws_url: str = ""
    """Its WebSocket; nothing: the same address with ws instead of http."""
    chain_key_file: Path | None = None
    """The hub's key on the chain, 64 bytes in a JSON array as Solana's tools write it; only `hub chain` reads it."""
    mint_interval_s: int = Field(default=60, ge=1, le=86_400)
    mint_meters_max: int = Field(default=50, ge=1, le=1_000)
    """So many meters are looked at in one round of minting."""
    compute_unit_price_micro_lamports: int = Field(default=0, ge=0, le=10_000_000)
    """What is offered for a place in a block, on top of the fee for signatures."""
    sponsor_lamports_per_member_max: int = Field(default=50_000_000, ge=0)
    """So much the hub pays in all for accounts that one member asks for."""
    sponsor_lamports_per_day_max: int = Field(default=5_000_000_000, ge=0)
    """And for those of all members within a day."""

    backlog_age_max_s: int = Field(default=35 * 86_400, ge=3_600)
    """A seal older than this is held for an operator (or released in bulk once its chain verifies)."""

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @classmethod
    def read(cls) -> Self:
        """Read the environment. Raises SettingsInvalid with every fault, by variable name."""
        faults = list(cls._unknown_names())
        try:
            settings = cls()
        except ValidationError as fault:
            faults += [
                f"{PREFIX}{'_'.join(str(part) for part in error['loc']).upper()}: {error['msg']}"
                for error in fault.errors()
            ]
        if faults:
            raise SettingsInvalid("; ".join(faults))
        return settings

    @classmethod
    def _unknown_names(cls) -> Iterator[str]:
        """A misspelt variable would otherwise be a silent default."""
        known = [PREFIX + name.upper() for name in cls.model_fields]
        for name in sorted(os.environ):
            if name.startswith(PREFIX) and name not in known and name not in OTHER_ROOMS:
                near = difflib.get_close_matches(name, known, 1)
                hint = GONE.get(name) or (f"perhaps {near[0]}" if near else "")
                yield f"{name}: no such setting{hint and ', '}{hint}"

    @field_validator("database_url")
    @classmethod
    def _database_is_postgresql(cls, value: str) -> str:
        try:
            backend = make_url(value).get_backend_name()
        except (ArgumentError, ValueError) as fault:
            raise ValueError("not an address such as postgresql://user@host/database") from fault
        if backend != "postgresql":
            raise ValueError(f"{backend} is not PostgreSQL")
        return value

    @field_validator("community_id")
    @classmethod
    def _community_is_named_well(cls, value: str) -> str:
        try:
            return check_community_id(value)
        except ProtocolError as fault:
            raise ValueError(str(fault)) from fault

    @field_validator("genesis_hash_hex", "program_id_hex")
    @classmethod
    def _chain_part_is_32_bytes(cls, value: str) -> str:
        if value and len(bytes.fromhex(value)) != 32:
            raise ValueError("32 bytes in hexadecimal, or nothing")
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_origin(cls, value: str) -> str:
        return _check_origin(value)

    @field_validator("cors_origins")
    @classmethod
    def _cors_origins_are_origins(cls, value: list[str]) -> list[str]:
        return [_check_origin(each) for each in value]

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_not_clients(cls, value: list[IPvAnyNetwork]) -> list[IPvAnyNetwork]:
        for network in value:
            if network.prefixlen < PROXY_PREFIXES_MIN[network.version]:
                raise ValueError(f"{network}: so wide that clients are in it, and could say to be anybody")
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
                raise ValueError(f"{network}: write it as a network of IPv4")
        return value

    @model_validator(mode="after")
    def _mail_is_whole(self) -> Self:
        if self.smtp_host and not self.mail_from:
            raise ValueError(f"{PREFIX}MAIL_FROM: mail needs a sender")
        if bool(self.smtp_username) != bool(self.smtp_password_file):
            raise ValueError(f"{PREFIX}SMTP_USERNAME and {PREFIX}SMTP_PASSWORD_FILE: both or neither")
        return self

    @model_validator(mode="after")
    def _chain_is_whole(self) -> Self:
        if bool(self.genesis_hash_hex) != bool(self.program_id_hex):
            raise ValueError(f"{PREFIX}GENESIS_HASH_HEX and {PREFIX}PROGRAM_ID_HEX: both or neither")
        if self.rpc_url and not self.program_id_hex:
            raise ValueError(f"{PREFIX}RPC_URL needs {PREFIX}GENESIS_HASH_HEX and {PREFIX}PROGRAM_ID_HEX")
        return self

    @field_validator("rpc_url", "rpc_ws_url")
    @classmethod
    def _node_is_reached_safely(cls, value: str) -> str:
        return value and check_node(value)

    @property
    def node_ws_url(self) -> str:
        """Where the node tells what happens."""
        return self.rpc_ws_url or "ws" + self.rpc_url.removeprefix("http")

    @property
    def domain(self) -> bytes:
        """The 8 bytes that every seal of this deployment carries."""
        return domain_of(self.community_id, bytes.fromhex(self.genesis_hash_hex), bytes.fromhex(self.program_id_hex))


def _check_origin(value: str) -> str:
    """An origin as browsers write it: scheme, host, port unless it is the scheme's own, nothing behind."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as fault:
        raise ValueError(f"{value}: not an origin such as https://hub.example") from fault
    host = parts.hostname or ""
    written = f"[{host}]" if ":" in host else host
    own = port is None or port == {"http": 80, "https": 443}.get(parts.scheme)
    if (
        parts.scheme not in ("http", "https")
        or not 0 < len(host) <= HOST_LENGTH_MAX
        or not HOST_LETTERS.issuperset(host)
        or value != f"{parts.scheme}://{written}{'' if own else f':{port}'}"
    ):
        raise ValueError(f"{value}: not an origin such as https://hub.example, in lower case and without a path")
    if parts.scheme == "http" and host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"{value}: only on this machine may it be http")
    return value


def check_node(value: str) -> str:
    """An address of a node: encrypted, or on this machine. A key of a provider may be in its path or query."""
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as fault:
        raise ValueError("not an address such as https://node.example") from fault
    if not host or parts.scheme not in ("http", "https", "ws", "wss") or parts.fragment:
        raise ValueError("not an address such as https://node.example")
    if parts.scheme in ("http", "ws") and host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"{host}: only on this machine may it be {parts.scheme}")
    return value


def read_secret(path: Path) -> str:
    """The stripped content of a secret file. Raises SettingsInvalid if others may read it, or it is empty."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise SettingsInvalid(f"{path}: {fault}") from fault
    if mode & 0o077:
        raise SettingsInvalid(f"{path}: others may read it (mode {mode:04o}); make it 0600")
    if not content:
        raise SettingsInvalid(f"{path}: it is empty")
    return content


def read_secret_bytes(path: Path, length: int) -> bytes:
    """A secret of so many bytes, kept in hexadecimal."""
    try:
        secret = bytes.fromhex(read_secret(path))
    except ValueError as fault:
        raise SettingsInvalid(f"{path}: not hexadecimal") from fault
    if len(secret) != length:
        raise SettingsInvalid(f"{path}: {len(secret)} bytes instead of {length}")
    return secret
