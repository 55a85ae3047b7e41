"""What members want registered on the chain, who pays the rent of it, and the accounts that came of it: the tables, one
statement per function.

A registration is an intent of `hub/chain/intents.py` seen from the member's side, under the same id: while it is open
its state is the intent's alone; how it ended is kept here too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Result,
    Row,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    case,
    func,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from hub.db import metadata

RESERVED: Final = "reserved"
PAID: Final = "paid"
GIVEN_BACK: Final = "given_back"

USER: Final = "user"
METER: Final = "meter"

chain_registrations = Table(
    "chain_registrations",
    metadata,
    Column("registration_id", Uuid),
    Column("member_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("wallet", LargeBinary, nullable=False),
    Column("meter_id", Text),
    Column("says", JSONB, nullable=False),
    Column("outcome", Text),
    Column("signature", Text),
    Column("slot", BigInteger),
    Column("error_code", Text),
    Column("error", Text),
    Column("requested_at", TIMESTAMP(timezone=True), nullable=False),
    Column("expires_at", TIMESTAMP(timezone=True), nullable=False),
    Column("ended_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("registration_id", name="chain_registrations_pk"),
    ForeignKeyConstraint(["member_id"], ["members.member_id"], name="chain_registrations_member_id_fk"),
    ForeignKeyConstraint(["meter_id"], ["meters.meter_id"], name="chain_registrations_meter_id_fk"),
    CheckConstraint("kind IN ('user.register', 'meter.register')", name="kind"),
    CheckConstraint("outcome IN ('finalized', 'failed', 'expired')", name="outcome"),
    CheckConstraint("(kind = 'meter.register') = (meter_id IS NOT NULL)", name="meter"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
    CheckConstraint("outcome <> 'finalized' OR signature IS NOT NULL", name="finalized"),
    Index("chain_registrations_member_id_idx", "member_id", "requested_at", "registration_id"),
    Index("chain_registrations_requested_at_idx", "requested_at", "registration_id"),
)
Index(
    "chain_registrations_open_idx",
    chain_registrations.c.subject,
    unique=True,
    postgresql_where=chain_registrations.c.outcome.is_(None),
)

rent_sponsorships = Table(
    "rent_sponsorships",
    metadata,
    Column("registration_id", Uuid),
    Column("payer", LargeBinary, nullable=False),
    Column("member_id", Uuid, nullable=False),
    Column("lamports", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reserved_at", TIMESTAMP(timezone=True), nullable=False),
    Column("ended_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("registration_id", name="rent_sponsorships_pk"),
    ForeignKeyConstraint(
        ["registration_id"],
        ["chain_registrations.registration_id"],
        name="rent_sponsorships_registration_id_fk",
    ),
    ForeignKeyConstraint(["member_id"], ["members.member_id"], name="rent_sponsorships_member_id_fk"),
    CheckConstraint("lamports > 0", name="lamports"),
    CheckConstraint("state IN ('reserved', 'paid', 'given_back')", name="state"),
    CheckConstraint("(state = 'reserved') = (ended_at IS NULL)", name="ended"),
    Index("rent_sponsorships_member_id_idx", "member_id"),
    Index("rent_sponsorships_reserved_at_idx", "reserved_at"),
)

chain_accounts = Table(
    "chain_accounts",
    metadata,
    Column("address", LargeBinary),
    Column("kind", Text, nullable=False),
    Column("wallet", LargeBinary, nullable=False),
    Column("meter_id", Text),
    Column("state", Text, nullable=False),
    Column("signature", Text),
    Column("slot", BigInteger, nullable=False),
    Column("linked_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("address", name="chain_accounts_pk"),
    UniqueConstraint("meter_id", name="chain_accounts_meter_id_key"),
    CheckConstraint("kind IN ('user', 'meter')", name="kind"),
    CheckConstraint("state IN ('active', 'suspended', 'deactivated')", name="state"),
    CheckConstraint("(kind = 'meter') = (meter_id IS NOT NULL)", name="meter"),
)
Index(
    "chain_accounts_user_idx",
    chain_accounts.c.wallet,
    unique=True,
    postgresql_where=chain_accounts.c.kind == literal_column("'user'"),
)


@dataclass(frozen=True)
class Registration:
    """What a member asked for. `says` is what the transaction does, in fields; without `outcome` it is not over."""

    registration_id: UUID
    member_id: UUID
    kind: str
    subject: str
    wallet: bytes
    meter_id: str | None
    says: Mapping[str, Any]
    outcome: str | None
    signature: str | None
    slot: int | None
    error_code: str | None
    error: str | None
    requested_at: datetime
    expires_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Sponsorship:
    """Rent that `payer` (a public key) pays, or would, or did not have to, for what a member registers; in lamports."""

    registration_id: UUID
    payer: bytes
    member_id: UUID
    lamports: int
    state: str
    reserved_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class ChainAccount:
    """An account on the chain that is a wallet's or a meter's here. `signature` is of the transaction that made it."""

    address: bytes
    kind: str
    wallet: bytes
    meter_id: str | None
    state: str
    signature: str | None
    slot: int
    linked_at: datetime


def lock_planning(connection: Connection) -> None:
    """One transaction at a time plans registrations: what is open and what is spent holds until it ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('commonwatt chain registrations'))"))


def insert_registration(connection: Connection, registration: Registration) -> None:
    """Write a registration that has just been asked for."""
    connection.execute(chain_registrations.insert().values(**asdict(registration)))


def find_registration(connection: Connection, registration_id: UUID) -> Registration | None:
    """The registration with this id, whosever it is."""
    query = select(chain_registrations).where(chain_registrations.c.registration_id == registration_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _registration(row)


def find_registration_for_update(connection: Connection, registration_id: UUID) -> Registration | None:
    """The registration with this id, its row locked."""
    query = select(chain_registrations).where(chain_registrations.c.registration_id == registration_id)
    row = connection.execute(query.with_for_update()).one_or_none()
    return None if row is None else _registration(row)


def find_open_registration(connection: Connection, subject: str) -> Registration | None:
    """The one registration of this wallet or meter that is not over."""
    query = select(chain_registrations).where(
        chain_registrations.c.subject == subject, chain_registrations.c.outcome.is_(None)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _registration(row)


def list_registrations(
    connection: Connection, member_id: UUID | None, before: tuple[datetime, UUID] | None, limit: int
) -> list[Registration]:
    """Registrations of this member, or of all, newest first, beginning behind one of them."""
    columns = chain_registrations.c
    query = select(chain_registrations).order_by(columns.requested_at.desc(), columns.registration_id.desc())
    if member_id is not None:
        query = query.where(columns.member_id == member_id)
    if before is not None:
        query = query.where(tuple_(columns.requested_at, columns.registration_id) < before)
    return [_registration(row) for row in connection.execute(query.limit(limit))]


def end_registration(
    connection: Connection,
    registration_id: UUID,
    outcome: str,
    signature: str | None,
    slot: int | None,
    error_code: str | None,
    error: str | None,
    now: datetime,
) -> bool:
    """Note how it ended. False if it was over: nothing changed."""
    ended = connection.execute(
        chain_registrations.update()
        .where(chain_registrations.c.registration_id == registration_id, chain_registrations.c.outcome.is_(None))
        .values(outcome=outcome, signature=signature, slot=slot, error_code=error_code, error=error, ended_at=now)
    )
    return ended.rowcount == 1


def insert_sponsorship(connection: Connection, sponsorship: Sponsorship) -> None:
    """Write what is reserved for a registration."""
    connection.execute(rent_sponsorships.insert().values(**asdict(sponsorship)))


def end_sponsorship(connection: Connection, registration_id: UUID, state: str, now: datetime) -> None:
    """What was reserved is paid, or given back."""
    connection.execute(
        rent_sponsorships.update()
        .where(rent_sponsorships.c.registration_id == registration_id, rent_sponsorships.c.state == RESERVED)
        .values(state=state, ended_at=now)
    )


def map_sponsorships(connection: Connection, registration_ids: Collection[UUID]) -> dict[UUID, Sponsorship]:
    """Who pays for these registrations."""
    query = select(rent_sponsorships).where(rent_sponsorships.c.registration_id.in_(registration_ids))
    return {row.registration_id: Sponsorship(**row._mapping) for row in connection.execute(query)}


def sum_sponsored(connection: Connection, member_id: UUID) -> int:
    """Lamports paid or reserved for this member, ever."""
    return _sum_lamports(connection, rent_sponsorships.c.member_id == member_id)


def sum_sponsored_since(connection: Connection, since: datetime) -> int:
    """Lamports paid or reserved for anybody since then."""
    return _sum_lamports(connection, rent_sponsorships.c.reserved_at >= since)


def _sum_lamports(connection: Connection, which: Any) -> int:
    query = select(func.coalesce(func.sum(rent_sponsorships.c.lamports), 0)).where(
        which, rent_sponsorships.c.state != GIVEN_BACK
    )
    return int(connection.execute(query).scalar_one())


def link_account(connection: Connection, account: ChainAccount) -> bool:
    """Note an account of the chain, or what is newer of it; whether it is new here.

    An older slot changes nothing, but for the transaction that made the account, which may be learnt later.
    Within a slot the one that is told last counts.
    """
    new = insert(chain_accounts).values(**asdict(account))
    old, later = chain_accounts.c, new.excluded.slot >= chain_accounts.c.slot
    linked: Result[Any] = connection.execute(
        new.on_conflict_do_update(
            index_elements=["address"],
            set_={
                "state": case((later, new.excluded.state), else_=old.state),
                "slot": func.greatest(old.slot, new.excluded.slot),
                "signature": func.coalesce(old.signature, new.excluded.signature),
            },
        ).returning(literal_column("xmax = 0"))  # no earlier row was locked: it is new
    )
    return bool(linked.scalar_one())


def map_meter_accounts(connection: Connection, meter_ids: Collection[str]) -> dict[str, ChainAccount]:
    """The accounts of these meters; those that have none are left out."""
    query = select(chain_accounts).where(chain_accounts.c.meter_id.in_(meter_ids))
    return {row.meter_id: ChainAccount(**row._mapping) for row in connection.execute(query)}


def map_user_accounts(connection: Connection, wallets: Collection[bytes]) -> dict[bytes, ChainAccount]:
    """The accounts of these wallets as users; those that have none are left out."""
    query = select(chain_accounts).where(chain_accounts.c.kind == USER, chain_accounts.c.wallet.in_(wallets))
    return {bytes(row.wallet): ChainAccount(**row._mapping) for row in connection.execute(query)}


def _registration(row: Row[tuple[object, ...]]) -> Registration:
    return Registration(**row._mapping)
