"""How a command reaches the hub: with an API key from a file, or as the member who signed in on this machine.

`commonwatt admin` takes either, `commonwatt member` the session alone. The commands themselves are in `admin.py`,
`member.py` and their neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import typer

from commonwatt.hub_client import ApiKey, CommandError, HubClient, read_secret_file
from commonwatt.member_session import MemberSession, Tokens
from commonwatt.terminal import refusing

URL_VARIABLE, KEY_FILE_VARIABLE = "COMMONWATT_API_URL", "COMMONWATT_API_KEY_FILE"
SESSION_FILE_VARIABLE, SESSION_FILE = "COMMONWATT_SESSION_FILE", Path("~/.config/commonwatt/session.json")
OLD_VARIABLE = "COMMONWATT_ADMIN_TOKEN_FILE"
_SESSION_OVER = ("unauthorized", "refresh_token_invalid")


@dataclass(frozen=True)
class Access:
    """Where the hub is and what opens it. Without a `url` it is the one that the session belongs to."""

    program: str
    url: str
    key_file: Path | None
    session: MemberSession
    idempotency_key: str


@contextmanager
def open_client(context: typer.Context) -> Iterator[HubClient]:
    """A client of the hub; an error ends the program with one clear line and status 1."""
    access: Access = context.obj
    with refusing(access.program):
        url, auth = _way_in(access)
        try:
            with HubClient(url, auth, access.idempotency_key, access.program) as client:
                yield client
        except CommandError as fault:
            if auth is not access.session or fault.code not in _SESSION_OVER:
                raise
            raise CommandError(fault.code, f"{fault.detail}; sign in again: commonwatt member sign-in") from fault


@contextmanager
def open_stranger(context: typer.Context, url: str = "") -> Iterator[HubClient]:
    """Likewise, in nobody's name: for whoever signs in or registers."""
    access: Access = context.obj
    with refusing(access.program):
        url = url or access.url
        if not url:
            raise _no_url()
        with HubClient(url, None, access.idempotency_key, access.program) as client:
            yield client


def stay_signed_in(context: typer.Context, hub: HubClient, answer: dict[str, Any]) -> None:
    """Keep the tokens of a sign-in."""
    access: Access = context.obj
    tokens = Tokens.of_answer(hub.url, answer)
    access.session.keep(tokens)
    typer.echo(f"Signed in as member {tokens.member_id}.")


def _way_in(access: Access) -> tuple[str, httpx.Auth]:
    """The address and who speaks. Raises CommandError if nobody does, and says what became of the old variable."""
    if access.key_file is not None:
        if not access.url:
            raise _no_url()
        return access.url, ApiKey(read_secret_file(access.key_file, "key_file"))
    if OLD_VARIABLE in os.environ and not access.session.exists():
        raise CommandError(
            "key_file",
            f"{OLD_VARIABLE} is no more: there is no admin token. `commonwatt hub bootstrap` writes the first admin's"
            f" API key to a file; name it in {KEY_FILE_VARIABLE}",
        )
    return access.url or access.session.read().url, access.session


def _no_url() -> CommandError:
    return CommandError("url", f"name the hub: --url or {URL_VARIABLE}")
