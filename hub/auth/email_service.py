"""Use cases of e-mail and password: register, sign in, choose another password, add or change the address.

Those that work on a password take the engine and make short transactions of their own, because a password is never
worked on inside one (`passwords.py`). Whether an address has an account is never looked up where the answer could show
it: a request for a mail writes the same row for every address and leaves the rest to the job; signing in compares the
password with a hash of nobody's if there is none.

Whoever changes how a member signs in locks, in this order, the addresses (`lock_email`), then the member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from hub.actor import Actor
from hub.audit import append_audit
from hub.auth import email_store, mail_proofs_store, members_service, notices, sessions_service, sessions_store
from hub.auth.mail_proofs import get_open_proof, queue_mail, read_token
from hub.auth.mail_proofs_store import EMAIL_CHANGED, LINK, PASSWORD_CHANGED, REGISTER, RESET, lock_email
from hub.auth.members_store import EMAIL
from hub.auth.passwords import check_strength, hash_password, is_password, should_hash_again, write_alike
from hub.auth.sessions_rules import Client
from hub.auth.sessions_service import Tokens
from hub.db import transaction
from hub.errors import (
    EmailOrPasswordWrong,
    IdentityTaken,
    MailProofInvalid,
    MalformedInput,
    ProofRefused,
    RegistrationPasswordWrong,
)
from hub.limits.guard import forget_sign_ins
from hub.permissions import Role
from hub.token_keys import TokenKeys

METHOD: Final = "email"
"""How sessions say that they were opened."""
EMAIL_WAS_CHANGED: Final = "email_changed"
PASSWORD_WAS_CHANGED: Final = "password_changed"  # noqa: S105 - a reason
"""Why sessions end."""


@dataclass(frozen=True)
class Registration:
    """Who wants to be a member, and with which password."""

    email: str
    password: str
    name: str
    type: Role


def ask_to_register(engine: Engine, registration: Registration, community_id: str, now: datetime) -> None:
    """Have a mail sent to the address, whoever has it: with a link if nobody has an account there, with a word of
    warning if somebody has. Several may be open for one address; each is good with its own password only.

    Raises PasswordTooWeak, PasswordsBusy.
    """
    check_strength(registration.password, [registration.name, registration.email, community_id])
    detail = {
        "name": registration.name,
        "type": registration.type,
        "password_hash": hash_password(registration.password),
    }
    with transaction(engine) as connection:
        queue_mail(connection, REGISTER, registration.email, now, detail=detail)


def verify_registration(
    engine: Engine,
    member_secret: bytes,
    token: str,
    password: str,
    client: Client,
    token_keys: TokenKeys,
    now: datetime,
) -> Tokens:
    """Make the member, and sign it in.

    The link shows who has the mailbox, the password who registered. Were the link enough, a stranger could register
    with somebody's address and wait for a careless click: the account, and all that its owner would then entrust to
    it, would open to the stranger's password. Raises MailProofInvalid, RegistrationPasswordWrong, PasswordsBusy.
    """
    proof_id = read_token(member_secret, REGISTER, token)
    with transaction(engine) as connection:
        proof = mail_proofs_store.count_try(connection, proof_id, now)
    if proof is None or proof.purpose != REGISTER:
        raise MailProofInvalid
    if not is_password(proof.detail["password_hash"], password):
        raise RegistrationPasswordWrong
    with transaction(engine) as connection:
        lock_email(connection, proof.email)
        if not mail_proofs_store.use_proof(connection, proof_id, now):
            raise MailProofInvalid
        member_type, name = Role(proof.detail["type"]), str(proof.detail["name"])
        member_id = members_service.create_member(connection, member_type, name, "", now)
        _take_email(connection, member_id, proof.email, f"member:{member_id}", now)
        email_store.put_hash(connection, member_id, proof.detail["password_hash"], now)
        mail_proofs_store.end_proofs(connection, proof.email, member_id, now)
        return sessions_service.open_session(connection, member_id, METHOD, client, token_keys, now, newcomer=True)


def sign_in(engine: Engine, email: str, password: str, client: Client, token_keys: TokenKeys, now: datetime) -> Tokens:
    """Open a session. The same work and the same refusal, whether nobody has this address or another password.

    Raises EmailOrPasswordWrong, MemberSuspended (to whoever knows the password), PasswordsBusy.
    """
    with transaction(engine) as connection:
        account = email_store.find_account(connection, email)
    if not is_password(account.hash if account else None, password) or account is None:
        raise EmailOrPasswordWrong
    again = hash_password(password) if should_hash_again(account.hash) else None
    with transaction(engine) as connection:
        sessions_store.lock_member(connection, account.member_id)
        if email_store.find_account(connection, email) != account:
            raise EmailOrPasswordWrong  # changed while we compared
        if again is not None:
            email_store.rewrite_hash(connection, account.member_id, again)
        return sessions_service.open_session(connection, account.member_id, METHOD, client, token_keys, now)


def find_known_client(engine: Engine, email: str, session_id: str | None) -> str | None:
    """The session, if it is or was one of whoever has this address: its client is counted apart from strangers."""
    if session_id is None:
        return None
    with transaction(engine) as connection:
        return session_id if email_store.has_session(connection, email, UUID(session_id)) else None


def check_password(engine: Engine, member_id: UUID, password: str) -> bool:
    """Whether this is the member's password; no if it has none. Call it outside any transaction.

    Raises PasswordsBusy.
    """
    with transaction(engine) as connection:
        stored = email_store.find_hash(connection, member_id)
    try:
        alike = write_alike(password)
    except ValueError:
        return False
    return is_password(stored, alike)


def ask_to_reset(engine: Engine, email: str, now: datetime) -> None:
    """Have a link sent to the address if somebody has an account there; nothing is sent to a stranger."""
    with transaction(engine) as connection:
        queue_mail(connection, RESET, email, now)


def reset_password(
    engine: Engine, member_secret: bytes, token: str, password: str, community_id: str, now: datetime
) -> int:
    """Give the address's owner another password, and end every session; returns how many. Audited.

    Who has tried at the password meanwhile no longer delays its owner.

    Raises MailProofInvalid, PasswordTooWeak (the link stays good), PasswordsBusy.
    """
    proof_id = read_token(member_secret, RESET, token)
    with transaction(engine) as connection:
        proof = get_open_proof(connection, proof_id, now)
        words = _known_of_owner(connection, proof.email)
    check_strength(password, [*words, community_id])
    password_hash = hash_password(password)
    with transaction(engine) as connection:
        lock_email(connection, proof.email)
        member_id = members_service.find_member_by_identity(connection, EMAIL, proof.email)
        if member_id is None or not mail_proofs_store.use_proof(connection, proof_id, now):
            raise MailProofInvalid
        actor = f"member:{member_id}"
        sessions_store.lock_member(connection, member_id)
        email_store.put_hash(connection, member_id, password_hash, now)
        mail_proofs_store.end_proofs(connection, proof.email, member_id, now)
        append_audit(connection, now, actor, "member.reset_password", actor, {})
        forget_sign_ins(connection, member_secret, proof.email)
        queue_mail(connection, PASSWORD_CHANGED, proof.email, now, member_id)
        ended = sessions_service.end_sessions_of_member(connection, member_id, PASSWORD_WAS_CHANGED, actor, now)
        notices.tell_password_changed(connection, member_id, ended, now)
        return ended


def change_password(engine: Engine, actor: Actor, current: str, new: str, community_id: str, now: datetime) -> int:
    """Change the password of a member who knows it, and end its other sessions; returns how many. Audited.

    Raises ProofRefused (also if it has none: the address comes first), PasswordTooWeak, PasswordsBusy, Unauthorized
    if its session has ended meanwhile.
    """
    with transaction(engine) as connection:
        stored = email_store.find_hash(connection, actor.member_id)
        email = members_service.email_of(connection, actor.member_id)
        name = members_service.get_member(connection, actor.member_id).name
    if not is_password(stored, current):
        raise ProofRefused("this is not the password in force")
    check_strength(new, [name, email or "", community_id])
    password_hash = hash_password(new)
    with transaction(engine) as connection:
        _lock_emails(connection, [email])
        sessions_service.lock_signed_in(connection, actor, now)
        if email_store.find_hash(connection, actor.member_id) != stored:
            raise ProofRefused("the password was changed while this was checked")
        email_store.put_hash(connection, actor.member_id, password_hash, now)
        subject = f"member:{actor.member_id}"
        append_audit(connection, now, actor.reference, "member.change_password", subject, {})
        if email is not None:
            mail_proofs_store.end_proofs(connection, email, actor.member_id, now)
            queue_mail(connection, PASSWORD_CHANGED, email, now, actor.member_id)
        ended = sessions_service.end_sessions_of_member(
            connection, actor.member_id, PASSWORD_WAS_CHANGED, actor.reference, now, actor.session_id
        )
        notices.tell_password_changed(connection, actor.member_id, ended, now)
        return ended


def ask_to_link(
    engine: Engine, actor: Actor, email: str, first_password: str | None, community_id: str, now: datetime
) -> None:
    """Have a code sent to the address that the member wants to sign in with from now on. The member has proven itself.

    A first address brings a first password. Raises MalformedInput if there is one too many or too few,
    PasswordTooWeak, PasswordsBusy, Unauthorized if its session has ended meanwhile.
    """
    with transaction(engine) as connection:
        has_password = email_store.find_hash(connection, actor.member_id) is not None
        name = members_service.get_member(connection, actor.member_id).name
    if has_password == (first_password is not None):
        raise MalformedInput("new_password: for a member who has none yet, and only then")
    detail = {}
    if first_password is not None:
        check_strength(first_password, [name, email, community_id])
        detail = {"password_hash": hash_password(first_password)}
    with transaction(engine) as connection:
        sessions_service.lock_signed_in(connection, actor, now)
        queue_mail(connection, LINK, email, now, actor.member_id, detail)


def confirm_email(engine: Engine, member_secret: bytes, actor: Actor, token: str, now: datetime) -> str:
    """Let the address that the code was sent to be the member's, and end its other sessions; returns it. Audited.

    The address before it is told. Only the member who asked may: a mail forwarded to somebody else changes nothing
    there. Raises MailProofInvalid, also if the address has become somebody's since; Unauthorized if the member's
    session has ended meanwhile.
    """
    proof_id = read_token(member_secret, LINK, token)
    with transaction(engine) as connection:
        proof = get_open_proof(connection, proof_id, now)
        before = members_service.email_of(connection, actor.member_id)
    if proof.member_id != actor.member_id:
        raise MailProofInvalid
    with transaction(engine) as connection:
        _lock_emails(connection, [before, proof.email])
        sessions_service.lock_signed_in(connection, actor, now)
        if members_service.email_of(connection, actor.member_id) != before:
            raise MailProofInvalid
        if not mail_proofs_store.use_proof(connection, proof_id, now):
            raise MailProofInvalid
        if before is not None:
            email_store.delete_email(connection, actor.member_id)
            subject = f"member:{actor.member_id}"
            append_audit(connection, now, actor.reference, "member.unlink", subject, {"kind": EMAIL})
            mail_proofs_store.end_proofs(connection, before, actor.member_id, now)
            queue_mail(connection, EMAIL_CHANGED, before, now, actor.member_id)
        _take_email(connection, actor.member_id, proof.email, actor.reference, now)
        if email_store.find_hash(connection, actor.member_id) is None:
            email_store.put_hash(connection, actor.member_id, proof.detail["password_hash"], now)
        mail_proofs_store.end_proofs(connection, proof.email, actor.member_id, now)
        ended = sessions_service.end_sessions_of_member(
            connection, actor.member_id, EMAIL_WAS_CHANGED, actor.reference, now, actor.session_id
        )
        notices.tell_email_linked(connection, actor.member_id, ended, now)
    return proof.email


def _take_email(connection: Connection, member_id: UUID, email: str, actor: str, now: datetime) -> None:
    """Only a token that we mailed to the address leads here, so this refusal tells its owner and nobody else."""
    try:
        members_service.add_identity(connection, member_id, EMAIL, email, None, actor, now)
    except IdentityTaken:
        raise MailProofInvalid from None


def _lock_emails(connection: Connection, emails: Sequence[str | None]) -> None:
    for email in sorted({each for each in emails if each is not None}):
        lock_email(connection, email)


def _known_of_owner(connection: Connection, email: str) -> list[str]:
    """What somebody might guess this owner's password from."""
    member_id = members_service.find_member_by_identity(connection, EMAIL, email)
    return [email] if member_id is None else [members_service.get_member(connection, member_id).name, email]
