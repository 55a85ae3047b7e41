"""The keys of meters, kept for ever, and the records of exchanged meters: the tables, one statement per function."""

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
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Row,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    case,
    func,
    select,
    text,
)

from hub.db import metadata
from hub.registry.rules import KEY_REVOKED, KEY_SUPERSEDED
from protocol.enrolment import Enrolment, decode_enrolment

PUBLIC_KEY_TAKEN = "meter_keys_public_key_key"
"""Name of the constraint that gives a key to one meter, for ever."""

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
    Column("state", Text, nullable=False),
    Column("endorsed_by", Text, nullable=False),
    Column("endorsement", LargeBinary),
    Column("base_sequence", BigInteger, nullable=False),
    Column("base_sealed_at_unix_s", BigInteger, nullable=False),
    Column("base_reading_unix_s", BigInteger, nullable=False),
    Column("base_production_wh", BigInteger, nullable=False),
    Column("base_consumption_wh", BigInteger, nullable=False),
    Column("base_production_excess_ws", BigInteger, nullable=False),
    Column("base_consumption_excess_ws", BigInteger, nullable=False),
    Column("superseded_after_sequence", BigInteger),
    Column("superseded_at", TIMESTAMP(timezone=True)),
    Column("revoked_from", TIMESTAMP(timezone=True)),
    Column("registered_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("meter_no", "key_epoch", name="meter_keys_pk"),
    UniqueConstraint("public_key", name=PUBLIC_KEY_TAKEN),
    ForeignKeyConstraint(["meter_no"], ["meters.meter_no"], name="meter_keys_meter_no_fk"),
)
Index("meter_keys_active_idx", meter_keys.c.meter_no, unique=True, postgresql_where=meter_keys.c.state == "active")

meter_replacements = Table(
    "meter_replacements",
    metadata,
    Column("meter_no", Integer, nullable=False),
    Column("key_epoch", Integer, nullable=False),
    Column("register", SmallInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", TIMESTAMP(timezone=True), nullable=False),
    Column("final_wh", BigInteger, nullable=False),
    Column("initial_wh", BigInteger, nullable=False),
    Column("old_serial", Text, nullable=False),
    Column("new_serial", Text, nullable=False),
    PrimaryKeyConstraint("meter_no", "key_epoch", "register", name="meter_replacements_pk"),
    ForeignKeyConstraint(
        ["meter_no", "key_epoch"],
        ["meter_keys.meter_no", "meter_keys.key_epoch"],
        name="meter_replacements_meter_no_key_epoch_fk",
    ),
)


@dataclass(frozen=True)
class MeterKey:
    """A key epoch: the key's own statement, who endorsed it, where it began (`base_…`) and how it ended.

    The base is the last reading and the sealing time of the predecessor's last seal: energy is measured from there.
    """

    meter_no: int
    key_epoch: int
    public_key: bytes
    statement: bytes
    signature: bytes
    valid_from: datetime
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    state: str
    endorsed_by: str
    endorsement: bytes | None
    base_sequence: int
    base_sealed_at_unix_s: int
    base_reading_unix_s: int
    base_production_wh: int
    base_consumption_wh: int
    base_production_excess_ws: int
    base_consumption_excess_ws: int
    superseded_after_sequence: int | None
    superseded_at: datetime | None
    revoked_from: datetime | None
    registered_at: datetime

    @property
    def decoded(self) -> Enrolment:
        """The statement's fields."""
        return decode_enrolment(self.statement)


def insert_meter_key(connection: Connection, values: Mapping[str, object]) -> None:
    """Write a key. Raises IntegrityError naming PUBLIC_KEY_TAKEN."""
    connection.execute(meter_keys.insert().values(**values))


def list_keys(connection: Connection, meter_no: int) -> list[MeterKey]:
    """All keys that the meter ever had, oldest first."""
    rows = connection.execute(
        select(meter_keys).where(meter_keys.c.meter_no == meter_no).order_by(meter_keys.c.key_epoch)
    )
    return [_key(row) for row in rows]


def set_superseded(connection: Connection, meter_no: int, key_epoch: int, after_sequence: int, now: datetime) -> None:
    """End an epoch after one of its seals: nothing beyond counts. A revoked key stays revoked.

    An epoch that had ended before can only end earlier; when it first ended is kept.
    """
    connection.execute(
        meter_keys.update()
        .where(meter_keys.c.meter_no == meter_no, meter_keys.c.key_epoch == key_epoch)
        .values(
            state=case((meter_keys.c.state == KEY_REVOKED, KEY_REVOKED), else_=KEY_SUPERSEDED),
            superseded_after_sequence=func.least(meter_keys.c.superseded_after_sequence, after_sequence),
            superseded_at=func.coalesce(meter_keys.c.superseded_at, now),
        )
    )


def set_revoked(connection: Connection, meter_no: int, key_epoch: int, revoked_from: datetime) -> None:
    """Take a key's word back from a time on."""
    connection.execute(
        meter_keys.update()
        .where(meter_keys.c.meter_no == meter_no, meter_keys.c.key_epoch == key_epoch)
        .values(state=KEY_REVOKED, revoked_from=revoked_from)
    )


def insert_replacements(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Keep the records of exchanged meters, as signed and decoded."""
    if rows:
        connection.execute(meter_replacements.insert(), [dict(row) for row in rows])


def list_replacements(connection: Connection, meter_no: int) -> dict[int, list[bytes]]:
    """The signed records (record ‖ signature) by key epoch, in the order of their registers."""
    rows = connection.execute(
        select(meter_replacements)
        .where(meter_replacements.c.meter_no == meter_no)
        .order_by(meter_replacements.c.key_epoch, meter_replacements.c.register)
    )
    found: dict[int, list[bytes]] = {}
    for row in rows:
        found.setdefault(row.key_epoch, []).append(bytes(row.record + row.signature))
    return found


def insert_empty_stream(connection: Connection, meter_no: int, key_epoch: int) -> None:
    """Begin the stream of a key epoch: nothing received yet.

    The row is the readings domain's from then on; it is born here, so that a key without one cannot exist.
    """
    connection.execute(
        text("INSERT INTO meter_streams VALUES (:meter_no, :key_epoch, 0, 0, NULL)"),
        {"meter_no": meter_no, "key_epoch": key_epoch},
    )


def _key(row: Row[tuple[object, ...]]) -> MeterKey:
    return MeterKey(**row._mapping)
