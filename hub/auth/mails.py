"""What our mails say: plain text, no word that a stranger could have chosen, and never more than one thing to do.

A name is only in mails to addresses that its owner has proven, because anybody can register anybody's address with any
name: a mail of ours must not carry somebody else's message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Letter:
    """Subject and text of a mail."""

    subject: str
    text: str


@dataclass(frozen=True)
class Sender:
    """In whose name we write: the community, and where people reach its hub."""

    community_id: str
    public_url: str

    def signed(self, subject: str, *paragraphs: str) -> Letter:
        """A letter of these paragraphs, with where it comes from at its end."""
        ending = f"-- \nEnergy community {self.community_id}\n{self.public_url}\n"
        return Letter(f"{subject} ({self.community_id})", "\n\n".join([*paragraphs, ending]))


def confirm_registration(sender: Sender, email: str, token: str, expires_at: datetime) -> Letter:
    """To somebody who may have registered: the link, good together with the password."""
    return sender.signed(
        "Confirm your e-mail address",
        f"Somebody, you we hope, wants to become a member of the energy community {sender.community_id} with the"
        f" address {email}.",
        f"To confirm, open this page before {_until(expires_at)} and type the password that you chose when you"
        " registered:",
        f"{sender.public_url}/auth/verify#{token}",
        "If this was not you, do nothing: without the password that was chosen, the link is good for nothing, and"
        " nobody becomes a member with your address. If you want to become one yourself, register yourself; you will"
        " get a mail of your own.",
    )


def already_registered(sender: Sender, email: str, name: str) -> Letter:
    """To a member whose address somebody tried to register again."""
    return sender.signed(
        "You are a member already",
        f"Dear {name},",
        f"somebody tried to register at the energy community {sender.community_id} with the address {email}, with"
        " which you are a member already. Nothing was changed.",
        "If this was you, sign in; if you have forgotten your password, ask for another one there. If this was not"
        " you, you need not do anything: who tried was not told that you are a member.",
    )


def reset_password(sender: Sender, email: str, name: str, token: str, expires_at: datetime) -> Letter:
    """To a member who may have forgotten the password: the link."""
    return sender.signed(
        "Choose another password",
        f"Dear {name},",
        f"somebody, you we hope, has asked for another password at the energy community {sender.community_id} for the"
        f" address {email}. To choose one, open this page before {_until(expires_at)}:",
        f"{sender.public_url}/auth/reset#{token}",
        "You will then be signed out everywhere. If this was not you, do nothing: your password stays as it is."
        " Nobody but you has this link; do not pass it on.",
    )


def confirm_email(sender: Sender, email: str, token: str, expires_at: datetime) -> Letter:
    """To an address that a member wants to sign in with: a code, good only where that member is signed in."""
    return sender.signed(
        "Confirm your e-mail address",
        f"A member of the energy community {sender.community_id}, you we hope, wants to sign in with the address"
        f" {email}.",
        f"To confirm, give this code where you are signed in, before {_until(expires_at)}:",
        token,
        "If this was not you, do nothing, and tell the code to nobody: nothing changes without it.",
    )


def email_is_taken(sender: Sender, email: str, name: str) -> Letter:
    """To a member whose address somebody tried to add to an account."""
    return sender.signed(
        "Somebody tried to use your e-mail address",
        f"Dear {name},",
        f"somebody tried to sign in to another account of the energy community {sender.community_id} with the address"
        f" {email} from now on. You are a member with this address, so nothing was changed.",
        "If this was you, remember that an address belongs to one account. If this was not you, you need not do"
        " anything: who tried was not told that you are a member.",
    )


def password_changed(sender: Sender, email: str, name: str, at: datetime) -> Letter:
    """To a member whose password was changed."""
    return sender.signed(
        "Your password was changed",
        f"Dear {name},",
        f"the password of your account {email} at the energy community {sender.community_id} was changed at"
        f" {_until(at)}. Sessions elsewhere were ended. API keys and linked wallets stay as they were.",
        "If this was you, all is well. If this was not you, ask for another password at once, look at your API keys"
        " and wallets, and tell those who run the community.",
    )


def email_changed(sender: Sender, email: str, name: str, at: datetime) -> Letter:
    """To the address that a member signed in with before."""
    return sender.signed(
        "Your e-mail address was changed",
        f"Dear {name},",
        f"at {_until(at)} another e-mail address took the place of {email} in your account at the energy community"
        f" {sender.community_id}. This address is no longer good for signing in.",
        "If this was you, all is well. If this was not you, somebody has your password or your wallet: tell those who"
        " run the community at once, by another way than this mail.",
    )


def _until(at: datetime) -> str:
    """An instant as people read it."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
