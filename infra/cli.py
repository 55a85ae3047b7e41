"""`commonwatt demo`, `broker`: what concerns installing and running, by command line."""

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from infra.local.mosquitto_package import find_installed
from infra.local.processes import write_secret
from infra.mosquitto import configuration
from infra.mosquitto.accounts import SALT_BYTES, access_list, first_accounts
from protocol.errors import ProtocolError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def root() -> None:
    """Install and run Commonwatt."""


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the day, with status 0 if it is exact.")] = False,
    var: Annotated[Path, typer.Option(help="Everything is kept under this directory.")] = Path("var"),
) -> None:
    """A street of homes on this machine, from Modbus to PostgreSQL."""
    from infra.demo import run_demo  # noqa: PLC0415 - `broker` needs neither psycopg nor httpx

    raise typer.Exit(run_demo(var.absolute(), once=once, console=Console()))


@app.command()
def bench(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Every subject once per round and message size.")] = 3,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Ingest processes of the hub.")] = 1,
    volume: Annotated[float, typer.Option(min=0.1, max=5, help="Times the usual number of messages.")] = 1.0,
    backlog: Annotated[bool, typer.Option("--backlog", help="Publish first, then measure the catching up.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny: shows that it works, measures nothing.")] = False,
    var: Annotated[Path, typer.Option(help="Everything is kept under this directory.")] = Path("var"),
) -> None:
    """Measure the hub's ingest beside a script and a bare COPY, with 60 readings per seal and with 1."""
    from infra.bench.measurement import Shape  # noqa: PLC0415 - as above
    from infra.bench.run import QUICK, Volumes, run_bench  # noqa: PLC0415

    volumes = QUICK if quick else Volumes(rounds=rounds).times(volume)
    volumes = replace(volumes, shape=Shape.BACKLOG if backlog else Shape.LIVE)
    now = datetime.now(UTC)
    raise typer.Exit(run_bench(var.absolute(), volumes, workers, now, Console()))


@app.command()
def broker(
    community: Annotated[str, typer.Option(help="Community id.")],
    certificates: Annotated[Path, typer.Option(help="Directory with server.crt and server.key.")],
    directory: Annotated[Path, typer.Option(help="Where the broker keeps its state; written here.")],
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - a broker is public
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8883,
    user: Annotated[str, typer.Option(help="The broker's system user.")] = "mosquitto",
    plugin: Annotated[
        Path | None, typer.Option(help="The dynamic-security plugin, if not this machine's.", exists=True)
    ] = None,
) -> None:
    """Write mosquitto.conf, the access list, the hub's accounts and their password. Overwrites no
    accounts."""
    if plugin is None:
        installation = find_installed()
        if installation is None:
            _refuse("Mosquitto with its dynamic-security plugin is not installed here: name it with --plugin")
        plugin = installation.plugin
    try:
        rights = access_list(community)
    except ProtocolError as error:
        _refuse(f"--community {community}: {error}")
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    accounts, password_file = directory / "dynamic-security.json", directory / "hub-password"
    if not accounts.exists():
        password = secrets.token_urlsafe(32)
        write_secret(password_file, password)
        write_secret(accounts, first_accounts(password, secrets.token_bytes(SALT_BYTES)).decode())
    (directory / "access-list").write_text(rights)
    (directory / "mosquitto.conf").write_text(
        configuration.render(
            user=user,
            address=address,
            port=port,
            certificates=certificates.absolute(),
            plugin=plugin,
            state=directory,
        )
    )
    typer.echo(f"Wrote {directory}. Give it to {user}, move {password_file.name} to the hub, and start:")
    typer.echo(f"  mosquitto -c {directory / 'mosquitto.conf'}")


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
