"""HTTP for e-mail and password: register, sign in, choose another password, add or change the address; and two pages.

No route here needs an Idempotency-Key, and none could use it: a key is kept with a hash of the request, and a fast hash
of a password is what Argon2id is there to avoid. What may be done once is bound to a token or to the password in force;
a repeated request for a mail is another mail at most.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse
from pydantic import Field

from hub.api_types import AnswerBody, Count, MemberName, Strict, refusals
from hub.auth import email_service, pages
from hub.auth.email_rules import EmailText
from hub.auth.mail_proofs import TOKEN_LENGTH
from hub.auth.passwords import PasswordText
from hub.auth.proofs import Proof, ThisCircle, check_proof
from hub.auth.sessions_answers import TokensAnswer, tokens_answer
from hub.auth.sessions_api import CurrentClient
from hub.auth.wallets_service import setting_email
from hub.dependencies import CurrentActor, Now, TheGuard, TheHub, refuse_query
from hub.errors import (
    ChallengeUnusable,
    EmailOrPasswordWrong,
    MailNotConfigured,
    MailProofInvalid,
    MemberSuspended,
    PasswordsBusy,
    PasswordTooWeak,
    ProofRefused,
    RegistrationPasswordWrong,
)
from hub.limits import policies
from hub.permissions import Role

router = APIRouter(tags=["e-mail and password"], dependencies=[Depends(refuse_query)])

MailToken = Annotated[str, Field(min_length=TOKEN_LENGTH, max_length=TOKEN_LENGTH, pattern="^[A-Za-z0-9_-]+$")]


SessionText = Annotated[str, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


def require_mail(hub: TheHub) -> None:
    """For routes that need a mail to be sent. Raises MailNotConfigured."""
    if not hub.settings.smtp_host:
        raise MailNotConfigured


NeedsMail = Depends(require_mail)


class EmailRegistration(Strict):
    """Who wants to be a member. The password is asked for again with the mailed token."""

    email: EmailText
    password: PasswordText
    name: MemberName
    type: Literal[Role.PROSUMER, Role.CONSUMER]


class Verification(Strict):
    """The mailed token, and the password that was given with the registration."""

    token: MailToken
    password: PasswordText


class EmailSignIn(Strict):
    """An address and its password."""

    email: EmailText
    password: PasswordText
    known_session: SessionText | None = Field(
        default=None, description="A session that this client had before: what strangers try then delays it no more."
    )


class ForgottenPassword(Strict):
    """The address of whoever has forgotten."""

    email: EmailText


class NewPassword(Strict):
    """The mailed token, and the password from now on."""

    token: MailToken
    password: PasswordText


class PasswordChange(Strict):
    """The password in force, and the one from now on."""

    current: PasswordText
    new: PasswordText


class NewEmail(Strict):
    """The address to sign in with from now on, and the proof of a way in that the member has.

    A member who has signed in with wallets only chooses a password too.
    """

    email: EmailText
    existing: Proof
    new_password: PasswordText | None = None


class EmailConfirmation(Strict):
    """The code that was mailed to the new address."""

    token: MailToken


class MailAnswer(AnswerBody):
    """Heard. If there is something to say to this address, a mail says it; the answer is the same if there is not."""

    accepted: Literal[True]


class PasswordAnswer(AnswerBody):
    """The new password is in force. So many sessions were ended."""

    ended_sessions: Count


class EmailAnswer(AnswerBody):
    """The member signs in with this address now."""

    email: str


ACCEPTED = MailAnswer(accepted=True)


@router.post(
    "/auth/register",
    status_code=202,
    dependencies=[NeedsMail],
    responses=refusals(MailNotConfigured, PasswordTooWeak, PasswordsBusy),
)
def register_with_email(body: EmailRegistration, hub: TheHub, guard: TheGuard, now: Now) -> MailAnswer:
    """Have a link mailed. The answer is the same whether or not the address has an account; the mail is not."""
    guard.count_registration(body.email)
    registration = email_service.Registration(body.email, body.password, body.name, body.type)
    email_service.ask_to_register(hub.engine, registration, hub.settings.community_id, now)
    return ACCEPTED


@router.post(
    "/auth/verify", status_code=201, responses=refusals(MailProofInvalid, RegistrationPasswordWrong, PasswordsBusy)
)
def verify_email(body: Verification, hub: TheHub, guard: TheGuard, client: CurrentClient, now: Now) -> TokensAnswer:
    """Become a member, with the link and the password of the registration; signs in."""
    guard.count_client(policies.PROOF_BY_CLIENT)
    tokens = email_service.verify_registration(
        hub.engine, hub.member_secret, body.token, body.password, client, hub.token_keys, now
    )
    return tokens_answer(tokens)


@router.post("/auth/sign-in", responses=refusals(EmailOrPasswordWrong, MemberSuspended, PasswordsBusy))
def sign_in_with_password(
    body: EmailSignIn, hub: TheHub, guard: TheGuard, client: CurrentClient, now: Now
) -> TokensAnswer:
    """Sign in with an address and its password."""
    guard.count_sign_in(body.email, email_service.find_known_client(hub.engine, body.email, body.known_session))
    return tokens_answer(email_service.sign_in(hub.engine, body.email, body.password, client, hub.token_keys, now))


@router.post("/auth/password/forgot", status_code=202, dependencies=[NeedsMail], responses=refusals(MailNotConfigured))
def forget_password(body: ForgottenPassword, hub: TheHub, guard: TheGuard, now: Now) -> MailAnswer:
    """Have a link mailed if somebody has an account with this address; the answer is the same if nobody has."""
    guard.count_client(policies.RESET_BY_CLIENT)
    guard.count(policies.RESET_BY_ADDRESS, body.email)
    email_service.ask_to_reset(hub.engine, body.email, now)
    return ACCEPTED


@router.post("/auth/password/reset", responses=refusals(MailProofInvalid, PasswordTooWeak, PasswordsBusy))
def reset_password(body: NewPassword, hub: TheHub, guard: TheGuard, now: Now) -> PasswordAnswer:
    """Choose another password with a mailed link. Ends every session."""
    guard.count_client(policies.PROOF_BY_CLIENT)
    ended = email_service.reset_password(
        hub.engine, hub.member_secret, body.token, body.password, hub.settings.community_id, now
    )
    return PasswordAnswer(ended_sessions=ended)


@router.post("/me/password", responses=refusals(ProofRefused, PasswordTooWeak, PasswordsBusy))
def change_password(
    body: PasswordChange, actor: CurrentActor, hub: TheHub, guard: TheGuard, now: Now
) -> PasswordAnswer:
    """Change the password. Ends the member's other sessions."""
    guard.count(policies.PASSWORD_BY_MEMBER, str(actor.member_id))
    ended = email_service.change_password(hub.engine, actor, body.current, body.new, hub.settings.community_id, now)
    return PasswordAnswer(ended_sessions=ended)


@router.post(
    "/me/email",
    status_code=202,
    dependencies=[NeedsMail],
    responses=refusals(MailNotConfigured, ChallengeUnusable, ProofRefused, PasswordTooWeak, PasswordsBusy),
)
def set_email(body: NewEmail, actor: CurrentActor, hub: TheHub, circle: ThisCircle) -> MailAnswer:
    """Have a code mailed to the address to sign in with from now on; the answer is the same if it is taken."""
    circle.guard.count_registration(body.email)
    check_proof(circle, body.existing, actor.member_id, setting_email(body.email))
    email_service.ask_to_link(hub.engine, actor, body.email, body.new_password, hub.settings.community_id, circle.now)
    return ACCEPTED


@router.post("/me/email/verify", responses=refusals(MailProofInvalid))
def confirm_email(body: EmailConfirmation, actor: CurrentActor, hub: TheHub, guard: TheGuard, now: Now) -> EmailAnswer:
    """Sign in with the new address from now on. Only where the member who asked for it is signed in."""
    guard.count_client(policies.PROOF_BY_CLIENT)
    return EmailAnswer(email=email_service.confirm_email(hub.engine, hub.member_secret, actor, body.token, now))


@router.get("/auth/verify", response_class=HTMLResponse)
async def get_verify_page() -> HTMLResponse:
    """The page that the link of a registration opens."""
    return pages.VERIFY.response()


@router.get("/auth/reset", response_class=HTMLResponse)
async def get_reset_page() -> HTMLResponse:
    """The page that the link for another password opens."""
    return pages.RESET.response()
