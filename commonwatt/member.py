"""`commonwatt member`: a member's hands without a browser, and the worked example of how a client of the hub signs in.

A wallet signs what the hub asks (`member_proofs.py`), the tokens that this brings are kept and renewed
(`member_session.py`), and everything else is a request with them, or one WebSocket (`member_watch.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import typer

from commonwatt import (
    api_keys,
    member_account,
    member_email,
    member_notifications,
    member_tokens,
    member_watch,
    member_webhooks,
)
from commonwatt.access import SESSION_FILE, SESSION_FILE_VARIABLE, URL_VARIABLE, Access, open_stranger, stay_signed_in
from commonwatt.hub_client import CommandError
from commonwatt.member_proofs import ask_password, signed_challenge
from commonwatt.member_session import MemberSession
from commonwatt.member_wallet import Wallet
from commonwatt.terminal import refusing

PROGRAM = "commonwatt member"

app = typer.Typer(
    help="Be a member: sign in, see your meters, be told.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
key_app = typer.Typer(help="A wallet in a file.", no_args_is_help=True)
app.add_typer(key_app, name="key")
app.add_typer(member_account.sessions_app, name="sessions")
app.add_typer(member_email.app, name="email")
app.add_typer(member_notifications.app, name="notifications")
app.add_typer(member_webhooks.app, name="webhooks")
app.add_typer(api_keys.app, name="api-keys")

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="As solana-keygen writes it, mode 0600.")]
WalletFile = Annotated[Path | None, typer.Option("--wallet", metavar="FILE", help="Sign with the wallet in this file.")]
Email = Annotated[str | None, typer.Option(help="Use this e-mail address and a password.")]
PasswordFile = Annotated[Path | None, typer.Option(help="Its password, mode 0600; asked for unless given.")]


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar=URL_VARIABLE, help="Address of the hub; needed until you are signed in.")
    ] = "",
    session_file: Annotated[
        Path, typer.Option(envvar=SESSION_FILE_VARIABLE, help="Where you stay signed in, mode 0600.")
    ] = SESSION_FILE,
    idempotency_key: Annotated[
        str, typer.Option(help="To repeat an invocation whose answer was lost; a new one unless given.")
    ] = "",
) -> None:
    """Be a member: sign in, see your meters, be told."""
    session = MemberSession(session_file.expanduser())
    context.obj = Access(PROGRAM, url, None, session, idempotency_key or str(uuid4()))


@key_app.command()
def new(file: KeyFile) -> None:
    """Make a key in a new file and print its address."""
    with refusing(PROGRAM):
        typer.echo(Wallet.make(file).address)


@key_app.command("show")
def show_key(file: KeyFile) -> None:
    """Print the address of the key in a file: what a meter's enrolment names as its owner."""
    with refusing(PROGRAM):
        typer.echo(Wallet.read(file).address)


@app.command()
def register(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="How you are called.")],
    member_type: Annotated[
        Literal["prosumer", "consumer"], typer.Option("--type", help="Whether you also produce.")
    ] = "prosumer",
    wallet_file: WalletFile = None,
    email: Email = None,
    password_file: PasswordFile = None,
) -> None:
    """Become a member, with a wallet (and be signed in) or with an e-mail address (and get a link to confirm it)."""
    who: dict[str, Any] = {"type": member_type, "name": name}
    with open_stranger(context) as hub:
        if wallet_file is not None:
            signed = signed_challenge(hub, Wallet.read(wallet_file), "/auth/wallet/challenge", {"purpose": "register"})
            stay_signed_in(context, hub, hub.post("/auth/wallet/register", {**signed, **who}))
            return
        if email is None:
            raise CommandError("no_proof", "--wallet or --email?")
        password = ask_password(password_file, "A password for it", twice=True)
        hub.post("/auth/register", {**who, "email": email, "password": password})
        typer.echo(f"A mail to {email} says how it goes on: commonwatt member email confirm")


@app.command()
def sign_in(
    context: typer.Context,
    wallet_file: WalletFile = None,
    email: Email = None,
    password_file: PasswordFile = None,
) -> None:
    """Sign in, and stay so until you sign out or use it for two weeks no more."""
    with open_stranger(context) as hub:
        if wallet_file is not None:
            signed = signed_challenge(hub, Wallet.read(wallet_file), "/auth/wallet/challenge", {"purpose": "sign_in"})
            answer = hub.post("/auth/wallet/sign-in", signed)
        elif email is not None:
            body = {"email": email, "password": ask_password(password_file, "Password")}
            session: MemberSession = context.obj.session
            if known := session.id_at(hub.url):
                body["known_session"] = known  # what strangers try then delays us no more
            answer = hub.post("/auth/sign-in", body)
        else:
            raise CommandError("no_proof", "--wallet or --email?")
        stay_signed_in(context, hub, answer)


@app.command()
def sign_out(context: typer.Context) -> None:
    """End this session, here and at the hub."""
    session: MemberSession = context.obj.session
    with refusing(PROGRAM):
        tokens = session.read()
    with open_stranger(context, tokens.url) as hub:
        hub.post("/auth/sign-out", {"refresh_token": tokens.refresh_token})
        session.forget()
    typer.echo("Signed out.")


app.command()(member_account.me)
app.command()(member_account.profile)
app.command()(member_account.meters)
app.command()(member_tokens.tokens)
app.command()(member_tokens.mints)
app.command()(member_tokens.provenance)
app.command()(member_watch.watch)
