"""What the hub knows of the program's accounts without asking a node: each as it was when it was last heard of.

Everybody in the hub reads these; the inbox and the reconciliation alone write them. They are behind the chain by what
has not been finalized and read yet, so nothing may be decided by them that the program would not check again.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from solders.pubkey import Pubkey
from sqlalchemy import Connection

from hub.chain import mirrors_store
from hub.chain.accounts import ConfigAccount, MeterAccount, UserAccount
from hub.chain.mirrors_store import Mirror, MirroredAccount, Supply

__all__ = ["Mirror", "MirroredAccount", "Supply"]

_Kind = TypeVar("_Kind", ConfigAccount, UserAccount, MeterAccount)


def find_config(connection: Connection) -> ConfigAccount | None:
    """The deployment's Config; None before it was seen."""
    mirrors = mirrors_store.list_mirrors(connection, ConfigAccount)
    assert len(mirrors) <= 1, "a program has one Config"
    return None if not mirrors else _of(mirrors[0], ConfigAccount)


def find_user(connection: Connection, wallet: bytes) -> UserAccount | None:
    """The User of a wallet; None if none was seen."""
    mirror = mirrors_store.find_mirror_by(connection, UserAccount, "wallet", wallet)
    return None if mirror is None else _of(mirror, UserAccount)


def find_meter(connection: Connection, meter_id: str) -> MeterAccount | None:
    """The Meter of this id; None if none was seen."""
    mirror = mirrors_store.find_mirror_by(connection, MeterAccount, "meter_id", meter_id)
    return None if mirror is None else _of(mirror, MeterAccount)


def find_meter_mirror(connection: Connection, meter_id: str) -> Mirror | None:
    """The Meter of this id, and since which slot it is known so."""
    return mirrors_store.find_mirror_by(connection, MeterAccount, "meter_id", meter_id)


def list_meters_of(connection: Connection, owner: bytes) -> list[MeterAccount]:
    """The Meters of an owner, deactivated ones too, in the order of their ids."""
    return [_of(mirror, MeterAccount) for mirror in mirrors_store.list_meters_of(connection, owner)]


def find_grid_supply(connection: Connection) -> Supply | None:
    """How much GRID exists, in units, as the last reconciliation read it; holders may burn theirs."""
    config = find_config(connection)
    return None if config is None else mirrors_store.find_supply(connection, config.grid_mint)


def find_before(connection: Connection, account: MirroredAccount) -> Mirror | None:
    """What is known of the account with this address."""
    return mirrors_store.find_mirror(connection, type(account), account.address)


def show(connection: Connection, account: MirroredAccount, slot: int, position: int, now: datetime) -> bool:
    """Let the mirror show the account as a transaction left it, unless it shows something later; whether it does."""
    return mirrors_store.write_mirror(connection, Mirror(account, slot, position), now)


def all_mirrors(connection: Connection) -> dict[Pubkey, Mirror]:
    """Every account that is known, by address."""
    kinds: tuple[type[MirroredAccount], ...] = (ConfigAccount, UserAccount, MeterAccount)
    return {mirror.account.address: mirror for kind in kinds for mirror in mirrors_store.list_mirrors(connection, kind)}


def _of(mirror: Mirror, kind: type[_Kind]) -> _Kind:
    assert isinstance(mirror.account, kind)
    return mirror.account
