"""`commonwatt edge …`: the life of a meter's key and of what opens the broker to it. The agent is stopped meanwhile."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edge.certificate_request import install_certificate, make_request
from edge.clock import KernelClock
from edge.command_line import ConfigFile, errors_as_lines, finish, hex_or_file, open_journal, settings_in
from edge.credentials import renew_password as renew
from edge.endorsement import endorse as endorse_statement
from edge.endorsement import load_owner_key
from edge.errors import SettingsError
from edge.journal import Journal
from edge.replacement import Serials, accept_now, exchange_now
from edge.rotation import (
    REGISTER_NUMBERS,
    begin_rotation,
    discard_rotation,
    finish_rotation,
    hand_in_rotation,
    open_identity,
    request_of,
)
from edge.settings import Settings
from protocol.credential import NONCE_BYTES

app = typer.Typer()

REGISTERS = ", ".join(REGISTER_NUMBERS)


@app.command()
def accept_register(
    config: ConfigFile,
    register: Annotated[
        list[str] | None, typer.Option(help=f"{REGISTERS}; by default those that are not believed.")
    ] = None,
) -> None:
    """Go on from registers as they are now, because they are right. Their change is not counted as energy."""
    settings = settings_in(config)
    for name in finish(accept_now(settings, register or [])):
        typer.echo(f"{name}: accepted")


@app.command()
def replace_meter(
    config: ConfigFile,
    register: Annotated[list[str], typer.Option(help=f"Every one that the exchanged meter had: {REGISTERS}.")],
    old_serial: Annotated[str, typer.Option(help="The number on the plate of the meter that went.")],
    new_serial: Annotated[str, typer.Option(help="The number on the plate of the meter that came.")],
) -> None:
    """A meter was exchanged: go on from the new one, and tell the hub by a signed record and a new key."""
    settings = settings_in(config)
    with errors_as_lines(), open_journal(settings) as journal:
        for exchange in finish(exchange_now(settings, journal, register, Serials(old_serial, new_serial))):
            typer.echo(f"{exchange.register}: from {exchange.final_wh} Wh to {exchange.initial_wh} Wh, not energy")
        _rotate(settings, journal)


@app.command()
def rotate(
    config: ConfigFile,
    accepted: Annotated[bool, typer.Option("--accepted", help="The hub has taken the printed rotation.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="The hub has refused it: the old key goes on.")] = False,
) -> None:
    """Give the meter a new key; or finish a rotation whose outcome is not known."""
    if accepted and refused:
        raise typer.BadParameter("--accepted or --refused, not both")
    settings = settings_in(config)
    with errors_as_lines(), open_journal(settings) as journal:
        if accepted:
            typer.echo(f"key epoch {finish_rotation(settings, journal).key_epoch}")
        elif refused:
            discard_rotation(settings, journal)
            typer.echo("the old key goes on")
        else:
            _rotate(settings, journal)


def _rotate(settings: Settings, journal: Journal) -> None:
    """Hand the rotation in; without a hub to hand it to, print what an operator can."""
    if settings.hub.url:
        typer.echo(f"key epoch {hand_in_rotation(settings, journal).key_epoch}")
        return
    typer.echo(json.dumps(request_of(begin_rotation(settings, journal))))
    typer.echo(
        "Hand this in with `commonwatt admin rotate`, then say `commonwatt edge rotate --accepted` or `--refused`. "
        "Until then nothing is sealed.",
        err=True,
    )


@app.command()
def endorse(
    enrolment: Annotated[str, typer.Option(metavar="HEX|FILE", help="What `edge enrol --replaces` printed.")],
    owner_key_file: Annotated[Path | None, typer.Option(help="The owner's wallet key, mode 0600.")] = None,
    signature: Annotated[
        str | None, typer.Option(metavar="HEX", help="Or the wallet's signature over the first 180 bytes.")
    ] = None,
) -> None:
    """The owner's word for a device that takes the place of one whose key is lost. Prints the rotation as hex."""
    if (owner_key_file is None) == (signature is None):
        raise typer.BadParameter("--owner-key-file or --signature, one of them")
    statement = hex_or_file(enrolment)
    with errors_as_lines():
        key = load_owner_key(owner_key_file) if owner_key_file is not None else None
        typer.echo(endorse_statement(statement, key, hex_or_file(signature) if signature else b"").hex())


@app.command()
def renew_password(config: ConfigFile) -> None:
    """Fetch the broker password in force, proving by the meter's key that this is the meter."""
    settings = settings_in(config)
    with errors_as_lines():
        with open_journal(settings) as journal:
            identity, key_epoch = open_identity(settings, journal), journal.get_chain().key_epoch
        now_unix_s = KernelClock(settings.sampling.clock_check).now_unix_s()
        changed = renew(settings, identity, key_epoch, now_unix_s, secrets.token_bytes(NONCE_BYTES))
    typer.echo("renewed" if changed else "the password in force is the one that was here")


@app.command()
def certificate_request(
    config: ConfigFile,
    install: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead: the certificate that was signed for the request.")
    ] = None,
) -> None:
    """Print a request for a client certificate, in place of a broker password. Its key is made if there is none."""
    settings = settings_in(config)
    mqtt = settings.mqtt
    with errors_as_lines():
        if mqtt is None or mqtt.certificate_file is None or mqtt.certificate_key_file is None:
            why = "mqtt.certificate_file and mqtt.certificate_key_file: where the certificate and its key shall be"
            raise SettingsError("settings_missing", why)
        if install is None:
            typer.echo(make_request(settings.meter_id, mqtt.certificate_key_file), nl=False)
            return
        try:
            pem = install.read_bytes()
        except OSError as error:
            raise SettingsError("settings_unreadable", f"{install}: {error.strerror}") from None
        key_file, now = mqtt.certificate_key_file, datetime.now(UTC)
        end = install_certificate(pem, settings.meter_id, mqtt.certificate_file, key_file, now)
    typer.echo(f"{mqtt.certificate_file}: good until {end:%Y-%m-%d}")
