"""`commonwatt admin` on the keys, passwords and permissions of meters: each command is a request to the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import CommandError, path_of
from commonwatt.terminal import replace_secret_file, show

MeterId = Annotated[str, typer.Argument(metavar="METER", help="Meter id.")]
KeyEpoch = Annotated[int, typer.Argument(metavar="EPOCH", help="Number in the list of keys.", min=1)]
Note = Annotated[str, typer.Option(help="Why; goes to the audit log.")]


def keys(context: typer.Context, meter_id: MeterId) -> None:
    """All keys that a meter ever had: who endorsed them, where they began and ended."""
    with open_client(context) as hub:
        answer = hub.get(path_of("meters", meter_id, "keys"))
    show(
        ("epoch", "state", "endorsed by", "registered", "last sequence", "revoked from", "exchanged", "public key"),
        (
            (
                key["key_epoch"],
                key["state"],
                key["endorsed_by"],
                key["registered_at"],
                key["superseded_after_sequence"],
                key["revoked_from"],
                len(key["replacements"]) or None,
                key["public_key"],
            )
            for key in answer["keys"]
        ),
    )


def predecessor(
    context: typer.Context, meter_id: MeterId, file: Annotated[Path, typer.Argument(metavar="FILE")]
) -> None:
    """Write down where a meter's next key must begin, for `commonwatt edge enrol --replaces` on a new device."""
    with open_client(context) as hub:
        following = hub.get(path_of("meters", meter_id, "keys"))["next"]
        _write(file, following)
    typer.echo(f"Wrote {file}: seal {following['sequence']} of key epoch {following['seal_key_epoch']} is the base.")


def rotate(
    context: typer.Context,
    meter_id: MeterId,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help='{"rotation": hex, "replacements": [hex, …]}, or the hex alone.')
    ],
) -> None:
    """Hand in a rotation that its meter, or its owner, has signed. Repeating it is harmless."""
    body = _read_rotation(file)
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, "keys"), body)
    typer.echo(f"Key epoch {answer['key_epoch']} of {meter_id} is {answer['state']}, by {answer['endorsed_by']}.")
    if not answer["phases_netted"] and not answer["minting_allowed"]:
        typer.echo("Its meter sums the phases: what it measures is not minted unless you allow it (allow-minting).")


def revoke_key(
    context: typer.Context,
    meter_id: MeterId,
    key_epoch: KeyEpoch,
    since: Annotated[str, typer.Option("--from", help="Since when it was in other hands: 2026-11-20T06:00:00Z.")],
    reason: Note,
) -> None:
    """Take a key's word back: what it sealed since then is held, and whatever it seals from now on."""
    with open_client(context) as hub:
        path = path_of("meters", meter_id, "keys", key_epoch, "revoke")
        answer = hub.post(path, {"from": since, "reason": reason})
    epochs = ", ".join(str(epoch) for epoch in answer["revoked_key_epochs"])
    typer.echo(f"Revoked key epochs of {meter_id}: {epochs}. Withdrawn seals: {answer['withdrawn_seals']}.")


def renew_password(
    context: typer.Context,
    meter_id: MeterId,
    reason: Note,
    password_file: Annotated[
        Path | None, typer.Option(help="Where to write it, mode 0600; the meter can also ask for it by its key.")
    ] = None,
) -> None:
    """Give a meter another broker password; the old one ends as soon as the broker answers."""
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, "broker-password"), {"reason": reason})
        if password_file is not None:
            _write_secret(password_file, answer["broker"]["password"])
    typer.echo(f"Broker password {answer['password_generation']} of {meter_id} is in force.")


def allow_minting(context: typer.Context, meter_id: MeterId, reason: Note) -> None:
    """Let what a meter measures be minted although it sums its phases."""
    _decide_minting(context, meter_id, True, reason)


def forbid_minting(context: typer.Context, meter_id: MeterId, reason: Note) -> None:
    """Let nothing that a meter measures be minted."""
    _decide_minting(context, meter_id, False, reason)


def retire(
    context: typer.Context,
    meter_id: MeterId,
    reason: Note,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: it is final.")] = False,
) -> None:
    """End a meter's life for good: what it still sends is held, its broker account goes."""
    if not yes:
        typer.confirm(f"Retire {meter_id} for good?", abort=True)
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, "retire"), {"reason": reason})
    typer.echo(f"{meter_id} is {answer['state']}.")


COMMANDS = (keys, predecessor, rotate, revoke_key, renew_password, allow_minting, forbid_minting, retire)


def _decide_minting(context: typer.Context, meter_id: str, allowed: bool, reason: str) -> None:
    with open_client(context) as hub:
        answer = hub.post(path_of("meters", meter_id, "minting"), {"allowed": allowed, "reason": reason})
    typer.echo(f"Minting of {meter_id}: {'allowed' if answer['minting_allowed'] else 'not allowed'}.")


def _read_rotation(file: Path) -> dict[str, Any]:
    """The body of the request; the hub judges it."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise typer.BadParameter(f"{file}: {fault}") from fault
    if not text.startswith("{"):
        return {"rotation": text, "replacements": []}
    try:
        document = json.loads(text)
    except ValueError as fault:
        raise typer.BadParameter(f"{file}: {fault}") from fault
    return {"rotation": document.get("rotation", ""), "replacements": document.get("replacements", [])}


def _write(file: Path, document: dict[str, Any]) -> None:
    try:
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="ascii")
    except OSError as fault:
        raise CommandError("file", str(fault)) from fault


def _write_secret(file: Path, secret: str) -> None:
    """Replace a file by one that only its owner may read."""
    try:
        replace_secret_file(file, secret)
    except OSError as fault:
        raise CommandError(
            "password_file", f"{fault}; the password is in force: repeat with the same --idempotency-key"
        ) from fault
