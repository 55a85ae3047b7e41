"""Meters: the table, and one statement per function. Their keys are in `keys_store.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Row,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    select,
)

from hub.db import metadata
from hub.errors import MeterNotFound

METER_ID_TAKEN = "meters_meter_id_key"
"""Name of the constraint that decides a race of two registrations."""

meters = Table(
    "meters",
    metadata,
    Column("meter_no", Integer, Identity(always=True)),
    Column("meter_id", Text, nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("measurement", SmallInteger, nullable=False),
    Column("owner", LargeBinary, nullable=False),
    Column("production_capacity_w", BigInteger, nullable=False),
    Column("connection_capacity_w", BigInteger, nullable=False),
    Column("register_quantum_wh", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("key_epoch", Integer, nullable=False),
    Column("command_counter", BigInteger, nullable=False, server_default="0"),
    Column("broker_ready_at", TIMESTAMP(timezone=True)),
    Column("registered_at", TIMESTAMP(timezone=True), nullable=False),
    Column("phases_netted", Boolean, nullable=False),
    Column("minting_allowed", Boolean, nullable=False),
    Column("password_generation", Integer, nullable=False, server_default="1"),
    PrimaryKeyConstraint("meter_no", name="meters_pk"),
    UniqueConstraint("meter_id", name=METER_ID_TAKEN),
    Index("meters_owner_idx", "owner"),
)


@dataclass(frozen=True)
class Meter:
    """What the registry knows of a meter. Capacities in watts, the register's smallest step in watt-hours."""

    meter_no: int
    meter_id: str
    shard: int
    kind: int
    measurement: int
    owner: bytes
    production_capacity_w: int
    connection_capacity_w: int
    register_quantum_wh: int
    state: str
    key_epoch: int
    command_counter: int
    broker_ready_at: datetime | None
    registered_at: datetime
    phases_netted: bool
    minting_allowed: bool
    password_generation: int


def insert_meter(connection: Connection, values: Mapping[str, object]) -> int:
    """Write a meter; returns its number. Raises IntegrityError naming METER_ID_TAKEN."""
    inserted = connection.execute(meters.insert().values(**values).returning(meters.c.meter_no))
    return int(inserted.scalar_one())


def get_meter_id(connection: Connection, meter_no: int) -> str:
    """The id of a meter that exists."""
    return str(connection.execute(select(meters.c.meter_id).where(meters.c.meter_no == meter_no)).scalar_one())


def find_meter(connection: Connection, meter_id: str) -> Meter | None:
    """The meter with this id."""
    row = connection.execute(select(meters).where(meters.c.meter_id == meter_id)).one_or_none()
    return None if row is None else _meter(row)


def get_meter(connection: Connection, meter_id: str) -> Meter:
    """The meter with this id. Raises MeterNotFound."""
    meter = find_meter(connection, meter_id)
    if meter is None:
        raise MeterNotFound(meter_id)
    return meter


def get_meter_for_update(connection: Connection, meter_id: str) -> Meter:
    """The meter with this id, its row locked. Raises MeterNotFound."""
    row = connection.execute(select(meters).where(meters.c.meter_id == meter_id).with_for_update()).one_or_none()
    if row is None:
        raise MeterNotFound(meter_id)
    return _meter(row)


def list_meters(
    connection: Connection, owners: Collection[bytes] | None, after_meter_id: str, limit: int
) -> Sequence[Meter]:
    """Meters of these owners, or of all, in the order of their ids, beginning behind `after_meter_id`."""
    query = select(meters).where(meters.c.meter_id > after_meter_id).order_by(meters.c.meter_id).limit(limit)
    if owners is not None:
        query = query.where(meters.c.owner.in_(owners))
    return [_meter(row) for row in connection.execute(query)]


def count_meters(connection: Connection, owners: Collection[bytes]) -> int:
    """How many meters these owners have, retired ones included."""
    return connection.execute(select(func.count()).where(meters.c.owner.in_(owners))).scalar_one()


def set_state(connection: Connection, meter_no: int, before: str, after: str) -> bool:
    """Change the state, if it still is `before`; whether it was."""
    changed = connection.execute(
        meters.update().where(meters.c.meter_no == meter_no, meters.c.state == before).values(state=after)
    )
    return changed.rowcount == 1


def next_command_counter(connection: Connection, meter_no: int) -> int:
    """Count one more command for this meter, in the caller's transaction; returns the new count."""
    counted = connection.execute(
        meters.update()
        .where(meters.c.meter_no == meter_no)
        .values(command_counter=meters.c.command_counter + 1)
        .returning(meters.c.command_counter)
    )
    return int(counted.scalar_one())


def set_broker_ready(connection: Connection, meter_id: str, at: datetime) -> None:
    """Note that the broker knows this meter's account; the first time counts."""
    connection.execute(
        meters.update()
        .where(meters.c.meter_id == meter_id)
        .values(broker_ready_at=func.coalesce(meters.c.broker_ready_at, at))
    )


def set_minting_allowed(connection: Connection, meter_no: int, allowed: bool) -> None:
    """Whether what the meter measures may be minted."""
    connection.execute(meters.update().where(meters.c.meter_no == meter_no).values(minting_allowed=allowed))


def next_password_generation(connection: Connection, meter_no: int) -> int:
    """Make the meter's broker password another one; returns its generation."""
    counted = connection.execute(
        meters.update()
        .where(meters.c.meter_no == meter_no)
        .values(password_generation=meters.c.password_generation + 1)
        .returning(meters.c.password_generation)
    )
    return int(counted.scalar_one())


def set_current_key(
    connection: Connection, meter_no: int, key_epoch: int, phases_netted: bool, minting_allowed: bool
) -> None:
    """Let another key be the meter's current one, with what its statement says."""
    connection.execute(
        meters.update()
        .where(meters.c.meter_no == meter_no)
        .values(key_epoch=key_epoch, phases_netted=phases_netted, minting_allowed=minting_allowed)
    )


def _meter(row: Row[tuple[object, ...]]) -> Meter:
    return Meter(**row._mapping)


def list_meter_ids(connection: Connection) -> list[str]:
    """The ids of all meters, also of suspended ones."""
    return list(connection.execute(select(meters.c.meter_id).order_by(meters.c.meter_id)).scalars())
