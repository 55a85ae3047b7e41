"""`commonwatt member tokens`, `mints`, `provenance`: what your meters earned, by which transactions, from what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.terminal import show
from commonwatt.verify_bundle import grid


def tokens(context: typer.Context) -> None:
    """Of each of your meters: what is minted, still to come, held and written off, and what is next."""
    with open_client(context) as hub:
        meters = hub.get("/me/tokens")["meters"]
        found = [hub.get(path_of("meters", each["meter_id"], "minting")) for each in meters]
    show(
        ("meter", "GRID minted", "pending Wh", "held Wh", "written off Wh", "next"),
        (
            (
                each["meter_id"],
                grid(int(each["minted_units"])),
                *(each["total"][name] for name in ("pending_wh", "held_wh", "written_off_wh")),
                each["next_step"]["reason"] or each["next_step"]["detail"],
            )
            for each in found
        ),
    )


def mints(context: typer.Context, meter_id: Annotated[str, typer.Argument(metavar="METER_ID")]) -> None:
    """The transactions that minted for a meter of yours, newest first."""
    with open_client(context) as hub:
        found = list(hub.each(path_of("meters", meter_id, "mints"), "mints"))
    show(
        ("key epoch", "seals", "GRID", "transaction", "finalized"),
        (
            (
                each["key_epoch"],
                f"{each['first_sequence']} to {each['last_sequence']}",
                grid(int(each["amount_units"])),
                each["transaction_signature"],
                each["ended_at"],
            )
            for each in found
            if each["state"] == "finalized"
        ),
    )


def provenance(
    context: typer.Context,
    signature: Annotated[str, typer.Argument(metavar="TRANSACTION")],
    file: Annotated[Path, typer.Argument(metavar="FILE")],
) -> None:
    """Write everything behind a transaction that minted to a file, for `commonwatt verify`."""
    with open_client(context) as hub:
        length = hub.download(path_of("tokens", "provenance", signature), {}, file)
    typer.echo(f"Wrote {file}: {length} bytes. Check it, anywhere: commonwatt verify {file} --rpc URL")
