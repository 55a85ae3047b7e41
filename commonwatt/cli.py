"""`commonwatt`: mounts the command lines of the rooms. A room is imported only when its command is given.

So that a meter agent on a small board needs none of the hub's dependencies, nor the hub those of a laptop.
"""

import importlib
import importlib.metadata
import sys
from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Room:
    """Where a command's Typer application is, and which extra of the distribution it needs, if any."""

    module: str
    extra: str
    help: str
    command: tuple[str, ...] = ()
    """The command inside that application, if not the whole of it."""


ROOMS = {
    "demo": Room("infra.cli", "local", "A street of homes on this machine, end to end.", ("demo",)),
    "hub": Room("hub.cli", "hub", "The service: API, ingest, jobs, migrations."),
    "edge": Room("edge.cli", "edge", "The meter agent."),
    "admin": Room("commonwatt.admin", "admin", "Operate a running community."),
    "member": Room("commonwatt.member", "admin", "Be a member: sign in, see your meters, be told."),
    "wallet": Room("commonwatt.wallet", "admin", "Your wallet on the chain: register, sign, see what it holds."),
    "verify": Room("commonwatt.verify", "", "Check evidence offline."),
    "simulate": Room("simulators.cli", "local", "The outside world over its real protocols."),
    "bench": Room("infra.cli", "local", "Measure throughput on this machine.", ("bench",)),
    "broker": Room("infra.broker_cli", "local", "A real broker: its configuration, and certificates for meters."),
}

HOUSE = ("protocol", "edge", "hub", "simulators", "infra", "commonwatt")

_PASS_EVERYTHING_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("commonwatt"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Commonwatt runs an energy community, from the register of a meter to the money in a member's wallet."""


def main() -> None:
    """The console script."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # names have letters that not every terminal has
    app()


def _enter(context: typer.Context) -> None:
    """Import the room of the given command and let it handle the rest of the command line."""
    name = context.info_name or ""
    room = ROOMS[name]
    arguments = [*room.command, *context.args]
    program = "commonwatt" if room.command else f"commonwatt {name}"
    try:
        importlib.import_module(room.module).app(args=arguments, prog_name=program)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == room.module or room.module.startswith(missing + "."):
            why = "this installation does not contain it"
        elif missing.partition(".")[0] in HOUSE:
            raise  # our own mistake
        else:
            needed = f"commonwatt[{room.extra}]" if room.extra else "commonwatt"
            why = f"the Python package {missing.partition('.')[0]!r} is missing; install {needed}"
        typer.echo(f"commonwatt {name}: {why}", err=True)
        raise typer.Exit(2) from error


for _name, _room in ROOMS.items():
    app.command(_name, help=_room.help, context_settings=_PASS_EVERYTHING_ON, add_help_option=False)(_enter)
