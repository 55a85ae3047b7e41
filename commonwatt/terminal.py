"""What programs at a terminal show: tables, lists, texts, and nothing that steers it; errors as one clear line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commonwatt.hub_client import CommandError

PIPED_WIDTH = 1_000
"""Columns keep their width in a file or another program."""


@contextmanager
def refusing(program: str) -> Iterator[None]:
    """An error ends the program with one clear line and status 1."""
    try:
        yield
    except CommandError as fault:
        typer.echo(f"{program}: {clean(str(fault))}", err=True)
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


def show_list(lines: Iterable[tuple[str, object]]) -> None:
    """Names and values below one another, likewise."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(Text(clean(name)), Text("" if value is None else clean(str(value))))
    console().print(grid)


def console() -> Console:
    """Standard output, as wide as the terminal, or as wide as need be where there is none."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def clean(text: str) -> str:
    """The text without anything that could steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


@contextmanager
def new_secret_file(path: Path, code: str, way_out: str = "") -> Iterator[IO[str]]:
    """A file for a secret, made before the secret exists, so that none is lost; gone again if nothing comes of it.

    Raises CommandError with this code if it cannot be made or is there already, or, with the `way_out`, if it cannot be
    written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as fault:
        raise CommandError(code, str(fault)) from fault
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            yield file
    except OSError as fault:
        path.unlink()
        raise CommandError(code, "; ".join(part for part in (f"{path}: {fault}", way_out) if part)) from fault
    except BaseException:
        path.unlink()
        raise


def replace_secret_file(path: Path, secret: str) -> None:
    """Replace a file by one that only its owner may read, at once and whole. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secret)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
