"""`commonwatt admin minting`: where a meter's surplus is, what was minted of it, and what is stuck."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.terminal import show

app = typer.Typer(help="What became of surplus, and why not.", no_args_is_help=True)

MeterId = Annotated[str, typer.Argument(metavar="METER", help="Meter id.")]

_FIGURES = ("accepted_wh", "minted_wh", "pending_wh", "held_wh", "written_off_wh", "taken_back_wh", "earned_back_wh")


@app.command()
def blocked(context: typer.Context) -> None:
    """Meters of which nothing is minted although somebody could do something about it."""
    with open_client(context) as hub:
        found = list(hub.each("/minting", "meters"))
    names = ("meter_id", "reason", "detail", "since")
    show(("meter", "reason", "detail", "since"), ([meter[name] for name in names] for meter in found))


@app.command("show")
def show_meter(
    context: typer.Context,
    meter_id: MeterId,
    days: Annotated[int, typer.Option(min=1, help="How many days, newest first.")] = 14,
) -> None:
    """Where a meter's surplus is, in watt-hours: in all and by UTC day. Taken back is what a revoked key had minted."""
    with open_client(context) as hub:
        answer = hub.get(path_of("meters", meter_id, "minting"), {"limit": days})
    step = answer["next_step"]
    typer.echo(f"Next: {step['does']}{': ' + step['reason'] if step['reason'] else ''}. {step['detail']}")
    rows = [("in all", answer["total"]), *((day["day"], day) for day in answer["days"])]
    show(
        ("day", *(name.removesuffix("_wh").replace("_", " ") for name in _FIGURES)),
        ([name, *(figures[figure] for figure in _FIGURES)] for name, figures in rows),
    )


@app.command("list")
def list_mints(
    context: typer.Context,
    meter_id: MeterId,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
) -> None:
    """What was presented to the chain of a meter, newest first."""
    with open_client(context) as hub:
        found = list(islice(hub.each(path_of("meters", meter_id, "mints"), "mints"), count))
    names = ("mint_id", "step", "state", "key_epoch", "last_sequence", "minted_wh", "written_off_wh", "error_code")
    show(
        (*names, "transaction"),
        ([*(mint[name] for name in names), mint["transaction_signature"]] for mint in found),
    )


@app.command()
def retry(
    context: typer.Context, meter_id: MeterId, reason: Annotated[str, typer.Option(help="Why; goes to the audit log.")]
) -> None:
    """Let a meter go on whose last step the chain refused."""
    with open_client(context) as hub:
        hub.post(path_of("meters", meter_id, "minting", "retry"), {"reason": reason})
    typer.echo(f"Minting of {meter_id} goes on.")
