"""Challenges that wallets are asked to sign, and what only wallets need of identities: one statement a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    Column,
    Connection,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    select,
)

from hub.auth.addresses import Chain
from hub.auth.members_store import identities
from hub.db import metadata

challenges = Table(
    "challenges",
    metadata,
    Column("nonce", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="challenges_member_id_fk")),
    Column("statement", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("issued_at", TIMESTAMP(timezone=True), nullable=False),
    Column("expires_at", TIMESTAMP(timezone=True), nullable=False),
    PrimaryKeyConstraint("nonce", name="challenges_pk"),
    Index("challenges_address_idx", "address", "client"),
    Index("challenges_client_idx", "client"),
    Index("challenges_expires_at_idx", "expires_at"),
)


@dataclass(frozen=True)
class Challenge:
    """What the hub remembers of a text it wrote for a wallet; `client` is who asked for it."""

    nonce: str
    chain: Chain
    purpose: str
    address: str
    origin: str
    member_id: UUID | None
    statement: str
    client: str
    issued_at: datetime
    expires_at: datetime


def insert_challenge(connection: Connection, challenge: Challenge) -> None:
    """Remember a challenge."""
    connection.execute(challenges.insert().values(**vars(challenge)))


def delete_challenge(connection: Connection, nonce: str) -> Challenge | None:
    """Forget a challenge and return it: of two at once, one gets it."""
    row = connection.execute(challenges.delete().where(challenges.c.nonce == nonce).returning(challenges)).one_or_none()
    return None if row is None else Challenge(**row._mapping)


def delete_challenges_but_newest(connection: Connection, equal: Mapping[str, str], kept: int, nonce: str) -> int:
    """Forget the oldest challenges whose columns are `equal`, all but `kept` besides `nonce`; returns how many."""
    oldest = (
        select(challenges.c.nonce)
        .where(*(challenges.c[name] == value for name, value in equal.items()), challenges.c.nonce != nonce)
        .order_by(challenges.c.issued_at.desc(), challenges.c.nonce)
        .offset(kept)
        .with_for_update(skip_locked=True)  # what another transaction has locked, it is forgetting
    )
    return connection.execute(challenges.delete().where(challenges.c.nonce.in_(oldest))).rowcount


def delete_expired_challenges(connection: Connection, now: datetime) -> int:
    """Forget what can no longer be answered; returns how many."""
    return connection.execute(challenges.delete().where(challenges.c.expires_at <= now)).rowcount


def delete_wallet(connection: Connection, member_id: UUID, chain: Chain, address: str) -> bool:
    """Unlink a wallet; whether the member had it."""
    deleted = connection.execute(
        identities.delete().where(
            identities.c.kind == chain, identities.c.value == address, identities.c.member_id == member_id
        )
    )
    return deleted.rowcount == 1
