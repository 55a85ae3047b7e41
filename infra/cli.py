"""`commonwatt demo`, `bench`: what concerns running on this machine, by command line."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
    from infra.demo import run_demo  # noqa: PLC0415 - `--help` needs neither psycopg nor httpx

    raise typer.Exit(run_demo(var.absolute(), once=once, console=Console()))


@app.command()
def bench(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Every subject once per round and message size.")] = 3,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Ingest processes of the hub.")] = 1,
    volume: Annotated[float, typer.Option(min=0.1, max=5, help="Times the usual number of messages.")] = 1.0,
    backlog: Annotated[bool, typer.Option("--backlog", help="Publish first, then measure the catching up.")] = False,
    only: Annotated[str | None, typer.Option(metavar="ingest|live", help="One part, not both.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny: shows that it works, measures nothing.")] = False,
    var: Annotated[Path, typer.Option(help="Everything is kept under this directory.")] = Path("var"),
) -> None:
    """Measure the hub: its ingest beside a script and a bare COPY; its live updates beside a bare broadcast."""
    from infra.bench.measurement import Shape  # noqa: PLC0415 - as above
    from infra.bench.run import PARTS, QUICK, Volumes, run_bench  # noqa: PLC0415

    if only not in (None, *PARTS):
        raise typer.BadParameter(f"--only: one of {', '.join(PARTS)}")

    volumes = QUICK if quick else Volumes(rounds=rounds).times(volume)
    volumes = replace(volumes, shape=Shape.BACKLOG if backlog else Shape.LIVE)
    now = datetime.now(UTC)
    parts = PARTS if only is None else (only,)
    raise typer.Exit(run_bench(var.absolute(), volumes, workers, now, Console(), parts))
