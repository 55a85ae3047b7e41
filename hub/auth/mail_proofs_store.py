"""The mails of this domain, most of which prove that their reader has the address: table, one statement a function.

A proof is shown by a token, which is not here: it is worked out of the hub's member secret and the proof's id. A row of
another purpose is a notice. What a row says of a person goes when it is used, and the row when it is old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Table,
    Text,
    Uuid,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.db import metadata

REGISTER, RESET, LINK = "register", "reset", "link"
"""Purposes of proofs: become a member, choose another password, add or change the address."""
PROOFS: Final = frozenset({REGISTER, RESET, LINK})
PASSWORD_CHANGED, EMAIL_CHANGED = "password_changed", "email_changed"
NOTICES: Final = frozenset({PASSWORD_CHANGED, EMAIL_CHANGED})
"""Of the others, about a member to whom it happened."""

TRIES_MAX: Final = 10
"""Of the password that a registration's proof is shown with."""

mail_proofs = Table(
    "mail_proofs",
    metadata,
    Column("proof_id", Uuid, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("member_id", Uuid, ForeignKey("members.member_id", name="mail_proofs_member_id_fk")),
    Column("detail", JSONB, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("expires_at", TIMESTAMP(timezone=True), nullable=False),
    Column("used_at", TIMESTAMP(timezone=True)),
    PrimaryKeyConstraint("proof_id", name="mail_proofs_pk"),
    Index("mail_proofs_email_idx", "email", "purpose"),
    Index("mail_proofs_member_id_idx", "member_id"),
    Index("mail_proofs_expires_at_idx", "expires_at"),
)


@dataclass(frozen=True)
class MailProof:
    """A mail that is to be sent, or was. `member_id` is who asked for it, if that is known.

    `detail` is what was asked for: `name`, `type` and `password_hash` of a registration, `password_hash` of a first
    address beside a wallet.
    """

    proof_id: UUID
    purpose: str
    email: str
    member_id: UUID | None
    detail: Mapping[str, Any]
    tries: int
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None

    def is_open(self, now: datetime) -> bool:
        """Whether it was neither used nor ended, and is not too old."""
        return self.used_at is None and now < self.expires_at


def lock_email(connection: Connection, email: str) -> None:
    """Let nobody else use a proof of this address, or become its owner, until the transaction ends.

    Before any row of the address is touched: so that two who use different proofs of one address take turns.
    """
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"commonwatt mail {email}", 0))))


def insert_mail_proof(connection: Connection, proof: MailProof) -> None:
    """Write a mail that is to be sent."""
    connection.execute(mail_proofs.insert().values(**vars(proof)))


def find_mail_proof(connection: Connection, proof_id: UUID) -> MailProof | None:
    """The mail with this id, also if it was used or is too old."""
    return _one(connection.execute(select(mail_proofs).where(mail_proofs.c.proof_id == proof_id)).one_or_none())


def count_try(connection: Connection, proof_id: UUID, now: datetime) -> MailProof | None:
    """One more try of an open proof, counted whatever comes of it; None if it is not open or has had too many."""
    tried = connection.execute(
        mail_proofs.update()
        .where(
            mail_proofs.c.proof_id == proof_id,
            mail_proofs.c.used_at.is_(None),
            mail_proofs.c.expires_at > now,
            mail_proofs.c.tries < TRIES_MAX,
        )
        .values(tries=mail_proofs.c.tries + 1)
        .returning(mail_proofs)
    )
    return _one(tried.one_or_none())


def use_proof(connection: Connection, proof_id: UUID, now: datetime) -> bool:
    """Use an open proof, once; False if somebody did before, or it is too old. What it said of a person goes."""
    used = connection.execute(
        mail_proofs.update()
        .where(mail_proofs.c.proof_id == proof_id, mail_proofs.c.used_at.is_(None), mail_proofs.c.expires_at > now)
        .values(used_at=now, detail={})
    )
    return used.rowcount == 1


def end_proofs(connection: Connection, email: str | None, member_id: UUID, now: datetime) -> None:
    """End what is open of this address, if there is one, and of what this member asked for: the answer to it is now
    another.

    Notices are not proofs, and are sent all the same.
    """
    ended = (
        select(mail_proofs.c.proof_id)
        .where(
            mail_proofs.c.purpose.in_(PROOFS),
            or_(mail_proofs.c.email == email, mail_proofs.c.member_id == member_id),
            mail_proofs.c.used_at.is_(None),
        )
        .order_by(mail_proofs.c.proof_id)  # rows are locked in one order by all
        .with_for_update()
    )
    connection.execute(
        mail_proofs.update().where(mail_proofs.c.proof_id.in_(ended.scalar_subquery())).values(used_at=now, detail={})
    )


def forget_mail_proofs(connection: Connection, expired_before: datetime) -> int:
    """Delete what had expired by then; returns how many."""
    return connection.execute(mail_proofs.delete().where(mail_proofs.c.expires_at <= expired_before)).rowcount


def _one(row: Row[tuple[object, ...]] | None) -> MailProof | None:
    return None if row is None else MailProof(**row._mapping)
