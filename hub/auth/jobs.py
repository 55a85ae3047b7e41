"""Mails of this domain, sent by the outbox. Harmless to repeat: a mail sent twice is the same mail, with the same id.

What a mail says is decided here, by what its address is to us at this moment, and its link is made here: neither the
request nor the outbox knew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from hub.auth import mail_proofs_store, mails, members_service
from hub.auth.mail_proofs import SEND_MAIL, token_of
from hub.auth.mail_proofs_store import LINK, NOTICES, PASSWORD_CHANGED, REGISTER, RESET, MailProof
from hub.auth.mails import Letter, Sender
from hub.auth.members_store import EMAIL
from hub.db import transaction
from hub.integrations.mail import Mail, MailRefused, MailServer
from hub.outbox.jobs import Handler, JobImpossible
from hub.outbox.store import Job


def auth_mail_handlers(
    engine: Engine, server: MailServer | None, member_secret: bytes, community_id: str, public_url: str
) -> Mapping[str, Handler]:
    """The handlers of this domain, by kind of job. Without a server every mail is given up."""
    sender = Sender(community_id, public_url)

    def send_mail(job: Job, now: datetime) -> None:
        with transaction(engine) as connection:
            proof = mail_proofs_store.find_mail_proof(connection, UUID(job.subject))
            letter = None if proof is None else _letter(connection, proof, sender, member_secret)
        if proof is None or now >= proof.expires_at:
            raise JobImpossible("too late: what the mail would prove has expired")
        if letter is None or proof.used_at is not None:
            return
        if server is None:
            raise JobImpossible("this hub sends no mail")
        try:
            server.send(Mail(proof.email, letter.subject, letter.text, server.message_id(proof.proof_id.hex)))
        except MailRefused as fault:
            raise JobImpossible(f"refused for good: {fault}") from fault

    return {SEND_MAIL: send_mail}


def _letter(connection: Connection, proof: MailProof, sender: Sender, member_secret: bytes) -> Letter | None:
    """What to write to this address now; nothing to a stranger who is said to have forgotten a password."""
    purpose, email = proof.purpose, proof.email
    owner_id = members_service.find_member_by_identity(connection, EMAIL, email)
    known_id = proof.member_id if purpose in NOTICES else owner_id
    if known_id is None:
        token = token_of(member_secret, purpose, proof.proof_id)
        if purpose == REGISTER:
            return mails.confirm_registration(sender, email, token, proof.expires_at)
        return mails.confirm_email(sender, email, token, proof.expires_at) if purpose == LINK else None
    name = members_service.get_member(connection, known_id).name
    if purpose == REGISTER:
        return mails.already_registered(sender, email, name)
    if purpose == LINK:
        return mails.email_is_taken(sender, email, name)
    if purpose == RESET:
        token = token_of(member_secret, purpose, proof.proof_id)
        return mails.reset_password(sender, email, name, token, proof.expires_at)
    write = mails.password_changed if purpose == PASSWORD_CHANGED else mails.email_changed
    return write(sender, email, name, proof.created_at)
