"""How operators' commands reach the hub and show what it says: the client, tables, nothing that steers a terminal.

The commands themselves are in `admin.py` and its neighbours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commonwatt.admin_client import AdminClient, AdminError, read_token

PIPED_WIDTH = 1_000
"""Columns keep their width in a file or another program."""


@dataclass(frozen=True)
class Access:
    """Where the hub is and what opens it."""

    url: str
    token_file: Path
    idempotency_key: str


@contextmanager
def open_client(context: typer.Context) -> Iterator[AdminClient]:
    """A client of the hub; an error ends the program with one clear line and status 1."""
    access: Access = context.obj
    try:
        with AdminClient(access.url, read_token(access.token_file), access.idempotency_key) as client:
            yield client
    except AdminError as fault:
        typer.echo(f"commonwatt admin: {clean(str(fault))}", err=True)
        raise typer.Exit(1) from fault


def show(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table, of which nothing is cut off. What came from outside is text in it, never markup or terminal control."""
    table = Table()
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.endswith(("_wh", "_w", "sequence")) else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else clean(str(value))) for value in row))
    console().print(table)


def console() -> Console:
    """Standard output, as wide as the terminal, or as wide as need be where there is none."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def clean(text: str) -> str:
    """The text without anything that could steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
