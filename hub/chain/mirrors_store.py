"""What the program's accounts hold, as last heard: one table for each kind of account, named as its fields are.

A row is the account as it was behind one transaction: `slot`, and `position` among those of that slot. It is only
replaced by what is from later on, so it does not matter in which order, or how often, one hears of an account.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from solders.pubkey import Pubkey
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from hub.chain.accounts import ConfigAccount, ConfigState, MeterAccount, MeterState, UserAccount, UserKind
from hub.db import metadata

MirroredAccount = ConfigAccount | UserAccount | MeterAccount

_U64: Final = Numeric(20)
_TIME: Final = TIMESTAMP(timezone=True)


def _when() -> tuple[Column[Any], ...]:
    return (
        Column("slot", BigInteger, nullable=False),
        Column("position", Integer, nullable=False),
        Column("mirrored_at", _TIME, nullable=False),
    )


chain_config = Table(
    "chain_config",
    metadata,
    Column("address", LargeBinary),
    Column("state", SmallInteger, nullable=False),
    Column("decimals", SmallInteger, nullable=False),
    Column("domain", LargeBinary, nullable=False),
    Column("admin", LargeBinary, nullable=False),
    Column("hub", LargeBinary, nullable=False),
    Column("issuer", LargeBinary, nullable=False),
    Column("validator", LargeBinary, nullable=False),
    Column("grid_mint", LargeBinary, nullable=False),
    Column("capacity_w_max", _U64, nullable=False),
    Column("register_step_wh_max", BigInteger, nullable=False),
    *_when(),
    PrimaryKeyConstraint("address", name="chain_config_pk"),
)

chain_users = Table(
    "chain_users",
    metadata,
    Column("address", LargeBinary),
    Column("state", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("wallet", LargeBinary, nullable=False),
    Column("registered_at_unix_s", BigInteger, nullable=False),
    Column("meters", BigInteger, nullable=False),
    Column("meters_ever", BigInteger, nullable=False),
    *_when(),
    PrimaryKeyConstraint("address", name="chain_users_pk"),
    UniqueConstraint("wallet"),
)

chain_meters = Table(
    "chain_meters",
    metadata,
    Column("address", LargeBinary),
    Column("state", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("meter_id", Text, nullable=False),
    Column("owner", LargeBinary, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("grid_account", LargeBinary, nullable=False),
    Column("key_epoch", BigInteger, nullable=False),
    Column("measurement", SmallInteger, nullable=False),
    Column("flags", Integer, nullable=False),
    Column("capacity_w", _U64, nullable=False),
    Column("register_step_wh", BigInteger, nullable=False),
    Column("sequence", _U64, nullable=False),
    Column("closed_until_unix_s", BigInteger, nullable=False),
    Column("production_wh", _U64, nullable=False),
    Column("consumption_wh", _U64, nullable=False),
    Column("surplus_wh", _U64, nullable=False),
    Column("settled_wh", _U64, nullable=False),
    Column("written_off_production_wh", _U64, nullable=False),
    Column("written_off_surplus_wh", _U64, nullable=False),
    Column("base_production_wh", _U64, nullable=False),
    Column("base_surplus_wh", _U64, nullable=False),
    Column("registered_at_unix_s", BigInteger, nullable=False),
    Column("high_production_wh", _U64, nullable=False),
    Column("high_until_unix_s", BigInteger, nullable=False),
    *_when(),
    PrimaryKeyConstraint("address", name="chain_meters_pk"),
    UniqueConstraint("meter_id"),
    Index("chain_meters_owner_idx", "owner", "meter_id"),
)

chain_supply = Table(
    "chain_supply",
    metadata,
    Column("mint", LargeBinary),
    Column("units", _U64, nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("mirrored_at", _TIME, nullable=False),
    PrimaryKeyConstraint("mint", name="chain_supply_pk"),
)

_TABLES: Final[dict[type[MirroredAccount], Table]] = {
    ConfigAccount: chain_config,
    UserAccount: chain_users,
    MeterAccount: chain_meters,
}
assert all(
    [field.name for field in dataclasses.fields(kind)] == [column.name for column in table.columns][:-3]
    for kind, table in _TABLES.items()
), "a table of mirrors has other columns than its account has fields"


@dataclasses.dataclass(frozen=True)
class Mirror:
    """An account, and behind which transaction it was so: the place among those of its slot."""

    account: MirroredAccount
    slot: int
    position: int


@dataclasses.dataclass(frozen=True)
class Supply:
    """So much of a mint existed at that slot."""

    units: int
    slot: int
    mirrored_at: datetime


def write_mirror(connection: Connection, mirror: Mirror, now: datetime) -> bool:
    """Let the mirror show this, unless it shows something later; whether it does."""
    table = _TABLES[type(mirror.account)]
    values = {field.name: _stored(getattr(mirror.account, field.name)) for field in dataclasses.fields(mirror.account)}
    values |= {"slot": mirror.slot, "position": mirror.position, "mirrored_at": now}
    statement = insert(table).values(values)
    replaced = {name: statement.excluded[name] for name in values if name != "address"}
    shown = statement.on_conflict_do_update(
        index_elements=[table.c.address],
        set_=replaced,
        where=tuple_(table.c.slot, table.c.position) <= tuple_(statement.excluded.slot, statement.excluded.position),
    )
    return connection.execute(shown.returning(table.c.address)).first() is not None


def find_mirror(connection: Connection, kind: type[MirroredAccount], address: Pubkey) -> Mirror | None:
    """What is known of an account of this kind."""
    table = _TABLES[kind]
    return _find(connection, kind, table.c.address == bytes(address))


def find_mirror_by(connection: Connection, kind: type[MirroredAccount], column: str, value: object) -> Mirror | None:
    """What is known of the account that has this; the column must be unique."""
    return _find(connection, kind, _TABLES[kind].c[column] == value)


def list_mirrors(connection: Connection, kind: type[MirroredAccount]) -> list[Mirror]:
    """All accounts of this kind, in the order of their addresses."""
    table = _TABLES[kind]
    rows = connection.execute(select(table).order_by(table.c.address)).mappings()
    return [_mirror(kind, dict(row)) for row in rows]


def list_meters_of(connection: Connection, owner: bytes) -> list[Mirror]:
    """The meters of an owner, in the order of their ids."""
    query = select(chain_meters).where(chain_meters.c.owner == owner).order_by(chain_meters.c.meter_id)
    return [_mirror(MeterAccount, dict(row)) for row in connection.execute(query).mappings()]


def write_supply(connection: Connection, mint: bytes, units: int, slot: int, now: datetime) -> None:
    """Note how much of a mint exists, unless something later is known."""
    statement = insert(chain_supply).values(mint=mint, units=units, slot=slot, mirrored_at=now)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[chain_supply.c.mint],
            set_={name: statement.excluded[name] for name in ("units", "slot", "mirrored_at")},
            where=chain_supply.c.slot <= statement.excluded.slot,
        )
    )


def find_supply(connection: Connection, mint: bytes) -> Supply | None:
    """How much of a mint is known to exist."""
    row = connection.execute(select(chain_supply).where(chain_supply.c.mint == mint)).one_or_none()
    return None if row is None else Supply(int(row.units), row.slot, row.mirrored_at)


def _find(connection: Connection, kind: type[MirroredAccount], where: ColumnElement[bool]) -> Mirror | None:
    row = connection.execute(select(_TABLES[kind]).where(where)).mappings().one_or_none()
    return None if row is None else _mirror(kind, dict(row))


def _stored(value: object) -> object:
    return bytes(value) if isinstance(value, Pubkey) else value


def _mirror(kind: type[MirroredAccount], row: dict[str, Any]) -> Mirror:
    slot, position = row.pop("slot"), row.pop("position")
    del row["mirrored_at"]
    row = {name: int(value) if isinstance(value, Decimal) else value for name, value in row.items()}
    row["address"] = Pubkey.from_bytes(row["address"])
    if kind is ConfigAccount:
        row["state"] = ConfigState(row["state"])
    elif kind is UserAccount:
        row["kind"] = UserKind(row["kind"])
    else:
        row["state"] = MeterState(row["state"])
    return Mirror(kind(**row), slot, position)
