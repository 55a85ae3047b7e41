"""`commonwatt member api-keys`, and the same of `commonwatt admin`: keys with which machines come in a member's name.

Only a session makes keys, and only within a quarter of an hour of signing in; no key makes or ends another.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.terminal import new_secret_file, show

app = typer.Typer(help="Keys with which machines come in your name.", no_args_is_help=True)

DAYS_MAX = 366


@app.command("list")
def list_keys(context: typer.Context) -> None:
    """Your keys that are not revoked."""
    with open_client(context) as hub:
        found = hub.get("/me/api-keys")["api_keys"]
    show(
        ("key", "name", "good for", "until", "last used"),
        (
            (key["key_id"], key["name"], " ".join(key["scopes"]), key["expires_at"], key["last_used_at"])
            for key in found
        ),
    )


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str], typer.Option(help="What it may do at most, e.g. meters.read; once for each.")],
    file: Annotated[Path, typer.Option(help="Where it is written, mode 0600; must not exist.")],
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="How long it is good.")] = DAYS_MAX,
) -> None:
    """Make a key. It can do what you can, if it is within its scopes, and nothing that you cannot any more."""
    life_s = int(timedelta(days=days).total_seconds())
    with open_client(context) as hub, new_secret_file(file, "key_file", hub.how_to_repeat) as secret:
        key = hub.post("/me/api-keys", {"name": name, "scopes": scope, "expires_in_s": life_s})
        secret.write(key["api_key"])
    typer.echo(f"API key {key['key_id']} is in {file}, good until {key['expires_at']}.")


@app.command()
def revoke(
    context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id in the list.")]
) -> None:
    """End a key at once."""
    with open_client(context) as hub:
        hub.post(path_of("me", "api-keys", key_id, "revoke"), {})
    typer.echo(f"API key {key_id} is revoked.")
