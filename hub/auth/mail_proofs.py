"""Tokens that are mailed: whoever shows one has read the mail.

A token is the proof's id and an HMAC of it under the hub's member secret, so that it is stored nowhere, neither with
the proof nor in the outbox: who reads the database, or a copy of it, can use none. It is good for one purpose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import Connection

from hub.auth import mail_proofs_store as store
from hub.auth.mail_proofs_store import EMAIL_CHANGED, LINK, PASSWORD_CHANGED, REGISTER, RESET, MailProof
from hub.errors import MailProofInvalid
from hub.outbox.store import add_job

SEND_MAIL: Final = "auth.send_mail"
"""Kind of outbox job; `jobs.py` does it."""

LIVES: Final = {
    REGISTER: timedelta(hours=24),
    RESET: timedelta(hours=1),
    LINK: timedelta(hours=24),
    PASSWORD_CHANGED: timedelta(days=7),
    EMAIL_CHANGED: timedelta(days=7),
}
"""How long a proof is good, and how long it is worth trying to send a notice."""

ID_BYTES: Final = 16
TOKEN_LENGTH: Final = (ID_BYTES + hashlib.sha256().digest_size) * 4 // 3


def token_of(member_secret: bytes, purpose: str, proof_id: UUID) -> str:
    """What the mail shows: TOKEN_LENGTH letters of URL-safe base64."""
    return base64.urlsafe_b64encode(proof_id.bytes + _mac(member_secret, purpose, proof_id.bytes)).decode()


def read_token(member_secret: bytes, purpose: str, token: str) -> UUID:
    """Which proof somebody shows. Raises MailProofInvalid."""
    try:
        content = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MailProofInvalid from None
    proof_id, mac = content[:ID_BYTES], content[ID_BYTES:]
    if len(proof_id) != ID_BYTES or not hmac.compare_digest(mac, _mac(member_secret, purpose, proof_id)):
        raise MailProofInvalid
    return UUID(bytes=proof_id)


def queue_mail(
    connection: Connection,
    purpose: str,
    email: str,
    now: datetime,
    member_id: UUID | None = None,
    detail: Mapping[str, str] | None = None,
) -> None:
    """Have a mail sent. Which one it is, the job decides by what the address is to us at that time.

    So nothing that a request does, or takes, depends on whether the address has an account.
    """
    proof = MailProof(uuid4(), purpose, email, member_id, detail or {}, 0, now, now + LIVES[purpose], None)
    store.insert_mail_proof(connection, proof)
    add_job(connection, SEND_MAIL, str(proof.proof_id), {}, now)


def get_open_proof(connection: Connection, proof_id: UUID, now: datetime) -> MailProof:
    """A proof that can still be used. Raises MailProofInvalid."""
    proof = store.find_mail_proof(connection, proof_id)
    if proof is None or not proof.is_open(now):
        raise MailProofInvalid
    return proof


def _mac(member_secret: bytes, purpose: str, proof_id: bytes) -> bytes:
    return hmac.new(member_secret, f"mail-{purpose}".encode() + b"\x00" + proof_id, hashlib.sha256).digest()
