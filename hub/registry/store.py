"""Meters and their keys: the tables, and one statement per function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Identity,
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
    text,
)

from hub.db import metadata
from hub.errors import MeterNotFound

METER_ID_TAKEN = "meters_meter_id_key"
PUBLIC_KEY_TAKEN = "meter_keys_public_key_key"
"""Names of the constraints that decide a race of two registrations."""

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
    PrimaryKeyConstraint("meter_no", name="meters_pk"),
    UniqueConstraint("meter_id", name=METER_ID_TAKEN),
)

meter_keys = Table(
    "meter_keys",
    metadata,
    Column("meter_no", Integer, nullable=False),
    Column("key_epoch", Integer, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("valid_from", TIMESTAMP(timezone=True), nullable=False),
    Column("production_wh", BigInteger, nullable=False),
    Column("consumption_wh", BigInteger, nullable=False),
    Column("surplus_wh", BigInteger, nullable=False),
    PrimaryKeyConstraint("meter_no", "key_epoch", name="meter_keys_pk"),
    UniqueConstraint("public_key", name=PUBLIC_KEY_TAKEN),
    ForeignKeyConstraint(["meter_no"], ["meters.meter_no"], name="meter_keys_meter_no_fk"),
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


def insert_meter(connection: Connection, values: Mapping[str, object]) -> int:
    """Write a meter; returns its number. Raises IntegrityError naming METER_ID_TAKEN."""
    inserted = connection.execute(meters.insert().values(**values).returning(meters.c.meter_no))
    return int(inserted.scalar_one())


def insert_meter_key(connection: Connection, values: Mapping[str, object]) -> None:
    """Write a key. Raises IntegrityError naming PUBLIC_KEY_TAKEN."""
    connection.execute(meter_keys.insert().values(**values))


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


def list_meters(connection: Connection, after_meter_id: str, limit: int) -> Sequence[Meter]:
    """Meters in the order of their ids, beginning behind `after_meter_id`."""
    rows = connection.execute(
        select(meters).where(meters.c.meter_id > after_meter_id).order_by(meters.c.meter_id).limit(limit)
    )
    return [_meter(row) for row in rows]


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


def insert_empty_stream(connection: Connection, meter_no: int, key_epoch: int) -> None:
    """Begin the stream of a key epoch: nothing received yet.

    The row is the readings domain's from then on; it is born here, so that a meter without one cannot exist.
    """
    connection.execute(
        text("INSERT INTO meter_streams VALUES (:meter_no, :key_epoch, 0, 0, NULL)"),
        {"meter_no": meter_no, "key_epoch": key_epoch},
    )


def _meter(row: Row[tuple[object, ...]]) -> Meter:
    return Meter(**row._mapping)


def list_meter_ids(connection: Connection) -> list[str]:
    """The ids of all meters, also of suspended ones."""
    return list(connection.execute(select(meters.c.meter_id).order_by(meters.c.meter_id)).scalars())
