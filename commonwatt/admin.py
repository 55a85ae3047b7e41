"""`commonwatt admin`: an operator's hands. Every command is one or a few requests to the hub's REST API."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import typer

from commonwatt import admin_audit, admin_fleet, admin_keys, admin_members, admin_minting, api_keys
from commonwatt.access import (
    KEY_FILE_VARIABLE,
    SESSION_FILE,
    SESSION_FILE_VARIABLE,
    URL_VARIABLE,
    Access,
    open_client,
)
from commonwatt.hub_client import path_of
from commonwatt.member_session import MemberSession
from commonwatt.terminal import new_secret_file, show

app = typer.Typer(
    help="Operate a running community.", no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False
)

MeterId = Annotated[str, typer.Argument(metavar="METER", help="Meter id.")]
EntryId = Annotated[int, typer.Argument(metavar="ID", help="Number in the quarantine list.", min=1)]
Note = Annotated[str, typer.Option(help="Why; goes to the audit log.")]

_TWO_SEQUENCES = re.compile(r"(\d{1,16})-(\d{1,16})")


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar=URL_VARIABLE, help="Address of the hub's API; a session knows its own.")
    ] = "",
    key_file: Annotated[
        Path | None,
        typer.Option(envvar=KEY_FILE_VARIABLE, help="File with an API key, mode 0600; the session unless given."),
    ] = None,
    session_file: Annotated[
        Path, typer.Option(envvar=SESSION_FILE_VARIABLE, help="Where `commonwatt member sign-in` left the session.")
    ] = SESSION_FILE,
    idempotency_key: Annotated[
        str, typer.Option(help="To repeat an invocation whose answer was lost; a new one unless given.")
    ] = "",
) -> None:
    """Operate a running community over its REST API, as the owner of an API key or as who signed in here."""
    session = MemberSession(session_file.expanduser())
    context.obj = Access("commonwatt admin", url, key_file, session, idempotency_key or str(uuid4()))


for _command in (admin_fleet.meters, admin_fleet.status, admin_fleet.alarms, *admin_keys.COMMANDS):
    app.command()(_command)
app.add_typer(admin_members.app, name="members")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(admin_audit.app, name="audit")
app.add_typer(admin_minting.app, name="minting")


@app.command()
def register(
    context: typer.Context,
    enrolment: Annotated[
        str, typer.Option(metavar="HEX|FILE|-", help="The line that `commonwatt edge enrol` printed.")
    ],
    production_capacity_w: Annotated[int, typer.Option(min=0, help="What the installation can produce at most.")],
    connection_capacity_w: Annotated[int, typer.Option(min=1, help="What the grid connection carries.")],
    password_file: Annotated[Path, typer.Option(help="Where the meter's broker password is written, mode 0600.")],
    register_quantum_wh: Annotated[
        int | None, typer.Option(min=1, help="The smallest step of the meter's registers; the hub's default.")
    ] = None,
) -> None:
    """Register a meter by its enrolment statement."""
    body: dict[str, object] = {
        "enrolment": _read_enrolment(enrolment),
        "production_capacity_w": production_capacity_w,
        "connection_capacity_w": connection_capacity_w,
    }
    if register_quantum_wh is not None:
        body["register_quantum_wh"] = register_quantum_wh
    with open_client(context) as hub, new_secret_file(password_file, "password_file", hub.how_to_repeat) as file:
        meter = hub.post("/meters", body)
        file.write(meter["broker"]["password"])
    typer.echo(f"Registered {meter['meter_id']}, key epoch {meter['key_epoch']}, {meter['state']}.")
    typer.echo(f"Broker user: {meter['broker']['username']}; its password is in {password_file}")
    typer.echo(f"Command public key: {meter['command_public_key']}")
    typer.echo("\nThe agent's configuration needs the password file, copied to the device, and:\n")
    typer.echo(f'community_id = "{meter["community_id"]}"\nmeter_id = "{meter["meter_id"]}"\n')
    typer.echo('[mqtt]\npassword_file = "mqtt.password"\n')
    typer.echo(f'[hub]\ncommand_public_key = "{meter["command_public_key"]}"')


@app.command()
def readings(
    context: typer.Context,
    meter_id: MeterId,
    start: Annotated[str, typer.Option("--from", help="ISO 8601 with offset, e.g. 2026-11-20T06:00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="The same; not itself included.")],
    bucket: Annotated[Literal["raw", "15min", "hour", "day"], typer.Option(help="How to add up.")] = "hour",
    csv: Annotated[Path | None, typer.Option(help="Write CSV to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write Parquet to this file.")] = None,
) -> None:
    """Readings or energy of a meter, as a table or as a file."""
    path = path_of("meters", meter_id, "readings")
    parameters: dict[str, str | int | None] = {"from": start, "to": end, "bucket": bucket}
    with open_client(context) as hub:
        for kind, file in (("csv", csv), ("parquet", parquet)):
            if file is not None:
                length = hub.download(path, parameters | {"format": kind}, file)
                typer.echo(f"Wrote {file}: {length} bytes.")
        if csv is None and parquet is None:
            name = "readings" if bucket == "raw" else "buckets"
            items = list(hub.each(path, name, parameters | {"format": "json"}))
            columns = list(items[0]) if items else ["from", "to", "production_wh", "consumption_wh", "surplus_wh"]
            show(columns, (item.values() for item in items))


@app.command()
def gaps(context: typer.Context, meter_id: MeterId) -> None:
    """Sequences that are missing below the highest stored one."""
    with open_client(context) as hub:
        found = list(hub.each(path_of("meters", meter_id, "gaps"), "gaps"))
    names = ("key_epoch", "first_sequence", "last_sequence", "detected_at", "asked_at", "lost_at")
    show(names, ([gap[name] for name in names] for gap in found))


@app.command()
def declare_lost(
    context: typer.Context,
    meter_id: MeterId,
    key_epoch: Annotated[int, typer.Argument(metavar="EPOCH", min=1)],
    first_sequence: Annotated[int, typer.Argument(metavar="FIRST", min=1, help="Where the gap begins.")],
    note: Note,
) -> None:
    """Give up missing seals, so that minting can go across them.

    Of their surplus only what nobody can doubt is minted, the rest is written off. What comes late does not count.
    """
    with open_client(context) as hub:
        path = path_of("meters", meter_id, "gaps", key_epoch, first_sequence, "declare-lost")
        answer = hub.post(path, {"note": note})
    typer.echo(f"Seals {first_sequence} to {answer['last_sequence']} of {meter_id} are given up.")


@app.command()
def quarantine(
    context: typer.Context,
    state: Annotated[Literal["held", "released", "rejected", "all"], typer.Option(help="Which entries.")] = "held",
    reason: Annotated[str | None, typer.Option(help="Only of this reason, e.g. too_old.")] = None,
    meter_id: Annotated[str | None, typer.Option("--meter", help="Only of this meter.")] = None,
) -> None:
    """What is held, and why."""
    filters = {"state": None if state == "all" else state, "reason": reason, "meter_id": meter_id}
    with open_client(context) as hub:
        found = list(hub.each("/quarantine", "entries", filters))
    names = ("quarantine_id", "meter_id", "key_epoch", "sequence", "reason", "detail", "received_at", "state")
    show(
        ("id", "meter", "epoch", "sequence", "reason", "detail", "received", "state"),
        ([entry[name] for name in names] for entry in found),
    )


@app.command()
def release(context: typer.Context, quarantine_id: EntryId, note: Note) -> None:
    """Let a held seal count after all."""
    with open_client(context) as hub:
        hub.post(path_of("quarantine", quarantine_id, "release"), {"note": note})
    typer.echo(f"Released {quarantine_id}.")


@app.command()
def reject(context: typer.Context, quarantine_id: EntryId, note: Note) -> None:
    """Decide that a held message never counts."""
    with open_client(context) as hub:
        hub.post(path_of("quarantine", quarantine_id, "reject"), {"note": note})
    typer.echo(f"Rejected {quarantine_id}.")


@app.command()
def release_backlog(context: typer.Context, meter_id: MeterId, note: Note) -> None:
    """Release all seals of a meter that are held only for their age, as far as their chain verifies."""
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, "backlog", "release"), {"note": note})
    typer.echo(f"Released {answer['released']} seals of {meter_id}.")


@app.command()
def suspend(context: typer.Context, meter_id: MeterId, reason: Note) -> None:
    """Hold everything that a meter sends from now on."""
    _change_state(context, meter_id, "suspend", reason)


@app.command()
def resume(context: typer.Context, meter_id: MeterId, reason: Note) -> None:
    """Accept a meter's seals again."""
    _change_state(context, meter_id, "resume", reason)


@app.command(context_settings={"ignore_unknown_options": True})
def command(
    context: typer.Context,
    meter_id: MeterId,
    order: Annotated[list[str], typer.Argument(metavar="restart | resend A-B | interval S SEAL_S")],
    expires_in_s: Annotated[int, typer.Option(min=1, help="The meter ignores it afterwards.")] = 3_600,
) -> None:
    """Sign an order for a meter: restart, publish seals A to B again, or read every S and seal every SEAL_S seconds.

    SEAL_S 0 is live mode: each reading is sealed.
    """
    body = {**parse_order(order), "expires_in_s": expires_in_s}
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, "commands"), body)
    typer.echo(f"Command {answer['counter']} for {meter_id} is signed; the broker gets it as soon as it answers.")


@app.command()
def export(
    context: typer.Context,
    meter_id: MeterId,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    from_sequence: Annotated[int | None, typer.Option(min=1)] = None,
    to_sequence: Annotated[int | None, typer.Option(min=1)] = None,
    key_epoch: Annotated[int | None, typer.Option(min=1, help="All unless given; the current one for a range.")] = None,
) -> None:
    """Write a meter's evidence to a file, for `commonwatt verify`."""
    parameters = {"from_sequence": from_sequence, "to_sequence": to_sequence, "key_epoch": key_epoch}
    with open_client(context) as hub:
        length = hub.download(path_of("meters", meter_id, "evidence"), parameters, file)
    typer.echo(f"Wrote {file}: {length} bytes. Check it, anywhere: commonwatt verify {file}")


def parse_order(words: list[str]) -> dict[str, str | int]:
    """What the API calls an order. Raises typer.BadParameter."""
    match words:
        case ["restart"]:
            return {"kind": "restart"}
        case ["resend", span] if parts := _TWO_SEQUENCES.fullmatch(span):
            return {"kind": "resend", "first": int(parts[1]), "last": int(parts[2])}
        case ["interval", interval_s, seal_s] if re.fullmatch(r"\d{1,6} \d{1,6}", f"{interval_s} {seal_s}"):
            return {"kind": "set_interval", "first": int(interval_s), "last": int(seal_s)}
    raise typer.BadParameter("restart, resend A-B or interval S SEAL_S is expected")


def _change_state(context: typer.Context, meter_id: str, action: str, reason: str) -> None:
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, action), {"reason": reason})
    typer.echo(f"{meter_id} is {answer['state']}.")


def _read_enrolment(source: str) -> str:
    """The enrolment's hex from the argument itself, a file or standard input; the hub judges it."""
    if re.fullmatch("[0-9a-f]{100,}", source):
        return source
    try:
        return (sys.stdin.read() if source == "-" else Path(source).read_text(encoding="ascii")).strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise typer.BadParameter(f"--enrolment {source}: {fault}") from fault
