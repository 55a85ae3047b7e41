"""`commonwatt admin audit`: who did what, and the same as a file that anybody can check with `commonwatt verify`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from commonwatt.access import open_client
from commonwatt.terminal import show

app = typer.Typer(help="The log of everything that somebody decided.", no_args_is_help=True)


@app.command("list")
def list_entries(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only by these hands, e.g. member:<id>.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only to this, e.g. meter:roof-17.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. meter.suspend, or meter for all of them.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="ISO 8601 with offset.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="The same; not itself included.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """What was done, newest first."""
    filters = {"actor": actor, "subject": subject, "action": action, "from": start, "to": end}
    with open_client(context) as hub:
        found = list(islice(hub.each("/audit", "entries", filters), count))
    show(
        ("position", "at", "actor", "action", "subject", "detail"),
        (
            (
                *(entry[name] for name in ("position", "at", "actor", "action", "subject")),
                json.dumps(entry["detail"], ensure_ascii=False),
            )
            for entry in found
        ),
    )


@app.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    from_position: Annotated[int, typer.Option(min=1, help="Not from the beginning, but from here.")] = 1,
) -> None:
    """Write the log to a file, for `commonwatt verify`."""
    with open_client(context) as hub:
        length = hub.download("/audit/export", {"from_position": from_position}, file)
    typer.echo(f"Wrote {file}: {length} bytes. Check it, anywhere: commonwatt verify {file}")


@app.command()
def head(context: typer.Context) -> None:
    """How far the log goes, and its hash. Keep it where the hub's owner cannot reach: commonwatt verify --head …"""
    with open_client(context) as hub:
        found = hub.get("/audit", {"limit": 1})["head"]
    typer.echo(f"{found['position']}:{found['chain_hash']}")
