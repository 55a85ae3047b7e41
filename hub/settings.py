"""What a hub process must be told, from the environment (`COMMONWATT_…`); secrets come in files, never in values.

`Settings.read()` either returns a complete, checked configuration or raises SettingsInvalid naming every fault.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from hub.errors import SettingsInvalid
from protocol.errors import ProtocolError
from protocol.topics import check_community_id, domain_of

PREFIX = "COMMONWATT_"
OTHER_ROOMS = frozenset({"COMMONWATT_API_URL", "COMMONWATT_POSTGRES_BIN"})
"""Variables that the hub may inherit without being spoken to."""


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

    admin_token_file: Path
    command_key_file: Path
    broker_secret_file: Path

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8800, ge=0, le=65_535)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65_535, description="of ingest and jobs; 0 chooses a free one")

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
                yield f"{name}: no such setting{f', perhaps {near[0]}' if near else ''}"

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

    @model_validator(mode="after")
    def _chain_is_whole(self) -> Self:
        if bool(self.genesis_hash_hex) != bool(self.program_id_hex):
            raise ValueError(f"{PREFIX}GENESIS_HASH_HEX and {PREFIX}PROGRAM_ID_HEX: both or neither")
        return self

    @property
    def domain(self) -> bytes:
        """The 8 bytes that every seal of this deployment carries."""
        return domain_of(self.community_id, bytes.fromhex(self.genesis_hash_hex), bytes.fromhex(self.program_id_hex))


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
