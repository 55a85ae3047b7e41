"""Tables of minting, and the statements that write them.

A row of `mints` is one step of one meter: planned together with the intent that does it (`open`), then `finalized` or
`failed`. A meter has one open step at most, by a unique index, whoever else is planning at that moment. Which seals and
readings are minted follows from the ranges of the finalized rows; no reading is ever updated for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    RowMapping,
    Table,
    Text,
    Uuid,
    select,
    text,
)

from hub.db import metadata

OPEN, FINALIZED, FAILED = "open", "finalized", "failed"
SUBMIT, WRITE_OFF, MAKE_WAY, ROTATE = "submit", "write_off", "make_way", "rotate"

_TIME = TIMESTAMP(timezone=True)

mints = Table(
    "mints",
    metadata,
    Column("mint_id", BigInteger, Identity(always=True), primary_key=True),
    Column("meter_no", Integer, ForeignKey("meters.meter_no"), nullable=False),
    Column("intent_id", Uuid, nullable=False),
    Column("step", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("key_epoch", Integer, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("closed_from_unix_s", BigInteger, nullable=False),
    Column("closed_until_unix_s", BigInteger, nullable=False),
    Column("surplus_wh", BigInteger, nullable=False),
    Column("minted_wh", BigInteger, nullable=False),
    Column("written_off_wh", BigInteger, nullable=False),
    Column("written_off_production_wh", BigInteger, nullable=False),
    Column("earned_back_wh", BigInteger, nullable=False),
    Column("settled_wh", BigInteger, nullable=False),
    Column("planned_at", _TIME, nullable=False),
    Column("signature", Text),
    Column("slot", BigInteger),
    Column("ended_at", _TIME),
    Column("error_code", Text),
    CheckConstraint("step IN ('submit', 'write_off', 'make_way', 'rotate')", name="step"),
    CheckConstraint("state IN ('open', 'finalized', 'failed')", name="state"),
    CheckConstraint("surplus_wh = minted_wh + written_off_wh + earned_back_wh", name="sum"),
    CheckConstraint(
        "(state = 'open') = (ended_at IS NULL)"
        " AND (state = 'finalized') = (signature IS NOT NULL AND slot IS NOT NULL)",
        name="ended",
    ),
    Index("mints_open_idx", "meter_no", unique=True, postgresql_where=text("state = 'open'")),
    Index("mints_intent_id_idx", "intent_id"),
    Index("mints_seals_idx", "meter_no", "key_epoch", "last_sequence", postgresql_where=text("state = 'finalized'")),
    Index("mints_meter_no_idx", "meter_no", "mint_id"),
)

mint_days = Table(
    "mint_days",
    metadata,
    Column("mint_id", BigInteger, ForeignKey("mints.mint_id"), primary_key=True, autoincrement=False),
    Column("day", Date, primary_key=True),
    Column("minted_wh", BigInteger, nullable=False),
    Column("written_off_wh", BigInteger, nullable=False),
    Column("earned_back_wh", BigInteger, nullable=False),
)
"""How a step's figures fall on UTC days."""

minting_holds = Table(
    "minting_holds",
    metadata,
    Column("meter_no", Integer, ForeignKey("meters.meter_no"), primary_key=True, autoincrement=False),
    Column("mint_id", BigInteger, ForeignKey("mints.mint_id"), nullable=False),
    Column("error_code", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("held_at", _TIME, nullable=False),
)
"""Meters whose step the program refused: not tried again before an operator says so."""

minting_turns = Table(
    "minting_turns",
    metadata,
    Column("meter_no", Integer, ForeignKey("meters.meter_no"), primary_key=True, autoincrement=False),
    Column("looked_at", _TIME, nullable=False),
    Column("alone", Boolean, nullable=False),
    Index("minting_turns_looked_at_idx", "looked_at"),
)
"""Whose turn it is. `alone`: a transaction that it shared with others failed, so the next is its own."""


@dataclass(frozen=True)
class NewMint:
    """A step that is planned. Sequences are those that it covers; energy in Wh; `settled_wh` as it will be after."""

    meter_no: int
    intent_id: UUID
    step: str
    key_epoch: int
    first_sequence: int
    last_sequence: int
    closed_from_unix_s: int
    closed_until_unix_s: int
    surplus_wh: int
    minted_wh: int
    written_off_wh: int
    written_off_production_wh: int
    earned_back_wh: int
    settled_wh: int


@dataclass(frozen=True)
class Mint(NewMint):
    """A step as it is stored."""

    mint_id: int
    state: str
    planned_at: datetime
    signature: str | None
    slot: int | None
    ended_at: datetime | None
    error_code: str | None


@dataclass(frozen=True)
class DayShare:
    """What of a step falls on a UTC day, in Wh."""

    day: date
    minted_wh: int
    written_off_wh: int
    earned_back_wh: int


@dataclass(frozen=True)
class Hold:
    """Why a meter is not tried again."""

    error_code: str
    error: str
    held_at: datetime


def take_turns(connection: Connection, limit: int, now: datetime) -> list[tuple[str, bool]]:
    """(meter id, alone) of meters whose turn it is, locked, those looked at longest ago first.

    Only those of which the chain lacks something that a seal or key here may give; not those with an open step or a
    hold. Another process takes other meters meanwhile.
    """
    connection.execute(
        text(
            "INSERT INTO minting_turns (meter_no, looked_at, alone)"
            " SELECT m.meter_no, m.registered_at, false FROM chain_meters AS c JOIN meters AS m USING (meter_id)"
            " WHERE NOT EXISTS (SELECT FROM minting_turns AS t WHERE t.meter_no = m.meter_no)"
            " ON CONFLICT DO NOTHING"
        )
    )
    rows = connection.execute(
        text(
            "SELECT m.meter_no, m.meter_id, t.alone FROM minting_turns AS t JOIN meters AS m USING (meter_no)"
            " JOIN chain_meters AS c USING (meter_id)"
            " WHERE c.kind IN (1, 2) AND m.minting_allowed AND m.state <> 'suspended'"
            " AND NOT EXISTS (SELECT FROM mints AS o WHERE o.meter_no = m.meter_no AND o.state = 'open')"
            " AND NOT EXISTS (SELECT FROM minting_holds AS h WHERE h.meter_no = m.meter_no)"
            " AND (m.key_epoch > c.key_epoch OR EXISTS ("
            "  SELECT FROM meter_streams AS s WHERE s.meter_no = m.meter_no AND s.key_epoch = c.key_epoch"
            "  AND s.highest_sequence > c.sequence))"
            " ORDER BY t.looked_at, m.meter_no LIMIT :limit FOR UPDATE OF t SKIP LOCKED"
        ),
        {"limit": limit},
    ).all()
    connection.execute(
        minting_turns.update().where(minting_turns.c.meter_no.in_([row.meter_no for row in rows])).values(looked_at=now)
    )
    return [(row.meter_id, row.alone) for row in rows]


def set_alone(connection: Connection, meter_nos: Sequence[int], alone: bool) -> None:
    """Whether the next transaction of these meters is for each alone."""
    connection.execute(minting_turns.update().where(minting_turns.c.meter_no.in_(meter_nos)).values(alone=alone))


def insert_mint(connection: Connection, mint: NewMint, days: Sequence[DayShare], now: datetime) -> int:
    """Keep a planned step. Raises IntegrityError if the meter has an open one."""
    values = asdict(mint) | {"state": OPEN, "planned_at": now}
    mint_id = int(connection.execute(mints.insert().values(values).returning(mints.c.mint_id)).scalar_one())
    if days:
        connection.execute(mint_days.insert(), [asdict(day) | {"mint_id": mint_id} for day in days])
    return mint_id


def list_open_for_update(connection: Connection, intent_id: UUID) -> list[Mint]:
    """The open steps of an intent, locked; none if they have ended."""
    query = select(mints).where(mints.c.intent_id == intent_id, mints.c.state == OPEN).order_by(mints.c.meter_no)
    return [_mint(row) for row in connection.execute(query.with_for_update()).mappings()]


def list_of_intent(connection: Connection, intent_id: UUID) -> list[Mint]:
    """The steps of an intent."""
    query = select(mints).where(mints.c.intent_id == intent_id).order_by(mints.c.meter_no)
    return [_mint(row) for row in connection.execute(query).mappings()]


def set_finalized(connection: Connection, intent_id: UUID, signature: str, slot: int, now: datetime) -> None:
    """All open steps of an intent have happened, in this transaction."""
    connection.execute(
        mints.update()
        .where(mints.c.intent_id == intent_id, mints.c.state == OPEN)
        .values(state=FINALIZED, signature=signature, slot=slot, ended_at=now)
    )


def set_failed(connection: Connection, intent_id: UUID, error_code: str, now: datetime) -> None:
    """None of an intent's open steps has happened, and none will by it."""
    connection.execute(
        mints.update()
        .where(mints.c.intent_id == intent_id, mints.c.state == OPEN)
        .values(state=FAILED, error_code=error_code, ended_at=now)
    )


def insert_hold(connection: Connection, mint: Mint, error_code: str, error: str, now: datetime) -> None:
    """Try nothing of this meter again."""
    connection.execute(
        minting_holds.insert().values(
            meter_no=mint.meter_no, mint_id=mint.mint_id, error_code=error_code, error=error, held_at=now
        )
    )


def delete_hold(connection: Connection, meter_no: int) -> bool:
    """Try again; whether it was held."""
    return connection.execute(minting_holds.delete().where(minting_holds.c.meter_no == meter_no)).rowcount == 1


def find_hold(connection: Connection, meter_no: int) -> Hold | None:
    """Why the meter is not tried again."""
    columns = (minting_holds.c.error_code, minting_holds.c.error, minting_holds.c.held_at)
    row = connection.execute(select(*columns).where(minting_holds.c.meter_no == meter_no)).one_or_none()
    return None if row is None else Hold(*row)


def find_open(connection: Connection, meter_no: int) -> Mint | None:
    """The meter's open step."""
    query = select(mints).where(mints.c.meter_no == meter_no, mints.c.state == OPEN)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _mint(row)


def find_newest_finalized(connection: Connection, meter_no: int) -> Mint | None:
    """The last step of the meter that has happened."""
    query = select(mints).where(mints.c.meter_no == meter_no, mints.c.state == FINALIZED)
    row = connection.execute(query.order_by(mints.c.mint_id.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else _mint(row)


def list_mints(connection: Connection, meter_no: int, before_mint_id: int, limit: int) -> list[Mint]:
    """The meter's steps, newest first, beginning below an id."""
    query = select(mints).where(mints.c.meter_no == meter_no, mints.c.mint_id < before_mint_id)
    return [_mint(row) for row in connection.execute(query.order_by(mints.c.mint_id.desc()).limit(limit)).mappings()]


def _mint(row: RowMapping) -> Mint:
    return Mint(**{str(name): value for name, value in row.items()})
