"""What the agent's commands have in common. An error is one line on stderr and exit code 1; misuse is 2."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from edge.errors import EdgeError
from edge.journal import Journal
from edge.settings import Settings, load_settings

T = TypeVar("T")

ConfigFile = Annotated[Path, typer.Option("--config", help="The agent's configuration, a TOML file.")]


def fail(error: EdgeError) -> NoReturn:
    """One line, and exit code 1."""
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1)


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Whatever the agent cannot do is one line."""
    try:
        yield
    except EdgeError as error:
        fail(error)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run what waits for meters or the network."""
    with errors_as_lines():
        return asyncio.run(work)


def settings_in(config: Path) -> Settings:
    """The configuration, or the mistake in it."""
    with errors_as_lines():
        return load_settings(config)


@contextmanager
def open_journal(settings: Settings) -> Iterator[Journal]:
    """The journal, for as long as the command runs; the agent must be stopped. Raises JournalError."""
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    try:
        yield journal
    finally:
        journal.close()


def hex_or_file(text: str) -> bytes:
    """Bytes in hex, given as such or as the last line of a file. Raises typer.BadParameter."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return bytes.fromhex(Path(text).read_text("ascii").split()[-1])
    except (OSError, ValueError, IndexError):
        raise typer.BadParameter(f"{text[:80]}: neither hex nor a file that ends in a line of hex") from None


def parse_instant(text: str) -> int:
    """Whole seconds since 1970 of an ISO 8601 time with its offset from UTC. Raises typer.BadParameter."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text}: say the offset from UTC, for instance {text}Z")
    if instant.microsecond:
        raise typer.BadParameter(f"{text}: whole seconds, please")
    return int(instant.timestamp())
