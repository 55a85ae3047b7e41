"""How a member proves who it is: a wallet's signature over the hub's challenge, or a password."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import typer

from commonwatt.hub_client import CommandError, HubClient, address_of, read_private_file
from commonwatt.member_wallet import Wallet
from commonwatt.terminal import clean

_SHOWN_MAX = 100


def signed_challenge(hub: HubClient, wallet: Wallet, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for a challenge, look at it, show it, sign it; the answer to it, as the API takes it.

    Raises CommandError `message_refused` rather than sign for another.
    """
    challenge = hub.post(path, {"chain": "solana", "address": wallet.address, **body})
    text = str(challenge["message"])
    check_message(text, address_of(hub.url), wallet.address)
    typer.echo("Signing:\n" + "\n".join(f"  {clean(line)}" for line in text.split("\n")), err=True)
    message = text.encode()
    return {
        "nonce": challenge["nonce"],
        "signed_message": base64.b64encode(message).decode(),
        "signature": base64.b64encode(wallet.sign(message)).decode(),
    }


def check_message(text: str, url: httpx.URL, address: str) -> None:
    """What every wallet looks at before it signs: that a text is for the hub one is talking to, and for this account.

    The first line names the site and the second the account, in every sign-in message (CAIP-122). A site that passes on
    a hub's challenge, to sign in there itself, is found out by that. Raises CommandError `message_refused`.
    """
    site = f"{url.host}:{url.port}" if url.port else url.host
    first, _, rest = text.partition("\n")
    account, _, rest = rest.partition("\n")
    if first != f"{site} wants you to sign in with your Solana account:":
        raise CommandError("message_refused", f"it is not for {site}: {first[:_SHOWN_MAX]}")
    if account != address:
        raise CommandError("message_refused", f"it is for another account: {account[:_SHOWN_MAX]}")
    if not all(letter.isprintable() or letter == "\n" for letter in rest):
        raise CommandError("message_refused", "it has letters that cannot be shown")


def ask_password(file: Path | None, prompt: str, *, twice: bool = False) -> str:
    """From a file that only its owner reads, or typed unseen; never an argument: everybody here can read those."""
    if file is not None:
        return read_private_file(file, "password_file")
    try:
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=twice))
    except typer.Abort as fault:
        raise CommandError("password", "none was given") from fault
