"""`commonwatt member email`: an address to sign in with and to be told by, and what the mails ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from commonwatt.access import Access, open_client, open_stranger, stay_signed_in
from commonwatt.hub_client import read_private_file
from commonwatt.member_proofs import ask_password, signed_challenge
from commonwatt.member_wallet import Wallet
from commonwatt.terminal import refusing

app = typer.Typer(help="Your e-mail address.", no_args_is_help=True)

_LINK_PATH = "/auth/verify#"


@app.command("set")
def set_email(
    context: typer.Context,
    email: Annotated[str, typer.Argument(metavar="ADDRESS")],
    wallet_file: Annotated[
        Path | None, typer.Option("--wallet", metavar="FILE", help="Confirm with this wallet of yours.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Confirm with the password in this file; asked for unless given.")
    ] = None,
    new_password_file: Annotated[
        Path | None, typer.Option(help="A first password, for who has only wallets; asked for unless given.")
    ] = None,
) -> None:
    """Sign in with this address from now on, and get mail there. A code is mailed to it: `email confirm`."""
    body: dict[str, Any] = {"email": email}
    with open_client(context) as hub:
        if wallet_file is None:
            body["existing"] = {"kind": "password", "password": ask_password(password_file, "Your password")}
        else:
            act = {"kind": "set_email", "email": email}
            signed = signed_challenge(hub, Wallet.read(wallet_file), "/me/proofs/challenge", {"act": act})
            body["existing"] = {"kind": "wallet", **signed}
        if hub.get("/me")["contact"]["email"] is None:
            body["new_password"] = ask_password(new_password_file, "A password for it", twice=True)
        hub.post("/me/email", body)
    typer.echo(f"A mail to {email} has a code: commonwatt member email confirm")


@app.command()
def confirm(
    context: typer.Context,
    code_file: Annotated[
        Path | None, typer.Option(help="File with the code or link, mode 0600; asked for unless given.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="For a link: the password of the registration; asked for unless given.")
    ] = None,
) -> None:
    """Give the code of a mail, and the address is yours; or the link of a registration, and you are a member."""
    access: Access = context.obj
    with refusing(access.program):
        text = read_private_file(code_file, "code_file") if code_file else ask_password(None, "The code, or the link")
    url, is_link, token = text.strip().rpartition(_LINK_PATH)
    if is_link:
        with open_stranger(context, access.url or url) as hub:
            password = ask_password(password_file, "The password that you registered with")
            stay_signed_in(context, hub, hub.post("/auth/verify", {"token": token, "password": password}))
    else:
        with open_client(context) as hub:
            typer.echo(f"You sign in with {hub.post('/me/email/verify', {'token': token})['email']} from now on.")
