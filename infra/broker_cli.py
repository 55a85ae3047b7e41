"""`commonwatt broker`: the configuration of a real broker, and the certificates that open it to meters."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from infra.local.mosquitto_package import find_installed
from infra.local.processes import write_secret
from infra.mosquitto import configuration
from infra.mosquitto.accounts import SALT_BYTES, access_list, first_accounts
from infra.mosquitto.client_authority import CERTIFICATE_VALIDITY, AuthorityError, ClientAuthority
from protocol.errors import ProtocolError

ACCOUNTS_FILE = "dynamic-security.json"
AUTHORITY = "client-authority"
COMMUNITY_FILE = "community"

app = typer.Typer(help="A real broker: its configuration, and certificates for meters.", no_args_is_help=True)

State = Annotated[Path, typer.Option(help="Where the broker keeps its state.")]
MeterId = Annotated[str, typer.Option(help="Meter id.")]


@app.command()
def configure(
    community: Annotated[str, typer.Option(help="Community id.")],
    certificates: Annotated[Path, typer.Option(help="Directory with server.crt and server.key.")],
    directory: Annotated[Path, typer.Option(help="Where the broker keeps its state; written here.")],
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - a broker is public
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8883,
    certificate_port: Annotated[
        int | None, typer.Option(help="A second port, for meters with a certificate instead of a password.")
    ] = None,
    user: Annotated[str, typer.Option(help="The broker's system user.")] = "mosquitto",
    plugin: Annotated[
        Path | None, typer.Option(help="The dynamic-security plugin, if not this machine's.", exists=True)
    ] = None,
) -> None:
    """Write mosquitto.conf, the access list, the hub's accounts and their password. Overwrites no
    accounts and no authority."""
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
    accounts, password_file = directory / ACCOUNTS_FILE, directory / "hub-password"
    if not accounts.exists():
        password = secrets.token_urlsafe(32)
        write_secret(password_file, password)
        write_secret(accounts, first_accounts(password, secrets.token_bytes(SALT_BYTES)).decode())
    (directory / "access-list").write_text(rights)
    (directory / COMMUNITY_FILE).write_text(community)
    listener = None
    if certificate_port is not None:
        with _refusing():
            authority = ClientAuthority(directory / AUTHORITY, community, datetime.now(UTC))
        listener = configuration.CertificateListener(certificate_port, authority.directory)
    (directory / "mosquitto.conf").write_text(
        configuration.render(
            user=user,
            address=address,
            port=port,
            certificates=certificates.absolute(),
            plugin=plugin,
            state=directory,
            certificate_listener=listener,
        )
    )
    typer.echo(f"Wrote {directory}. Give it to {user}, move {password_file.name} to the hub, and start:")
    typer.echo(f"  mosquitto -c {directory / 'mosquitto.conf'}")


@app.command()
def sign(
    directory: State,
    meter_id: MeterId,
    request: Annotated[Path, typer.Option(help="What `commonwatt edge certificate-request` printed.", exists=True)],
    days: Annotated[int, typer.Option(min=1, help="How long the certificate is good.")] = CERTIFICATE_VALIDITY.days,
) -> None:
    """Sign a registered meter's request. The certificate is for `commonwatt edge certificate-request --install`."""
    if meter_id not in _accounts(directory):
        _refuse(f"{meter_id} has no account at this broker: register it at the hub first")
    with _refusing():
        certificate = _authority(directory).sign(
            request.read_bytes(), meter_id, datetime.now(UTC), timedelta(days=days)
        )
    typer.echo(certificate.decode("ascii"), nl=False)


@app.command()
def revoke(directory: State, meter_id: MeterId) -> None:
    """Revoke every certificate of a meter. The broker must be told (SIGHUP), and an open connection ended."""
    with _refusing():
        revoked = _authority(directory).revoke(meter_id, datetime.now(UTC))
    typer.echo(f"{revoked} certificates of {meter_id} revoked.")
    typer.echo("Send the broker SIGHUP; then end an open connection by giving the meter a new password at the hub.")


def _authority(directory: Path) -> ClientAuthority:
    if not (directory / AUTHORITY).exists():
        _refuse(f"{directory} has no authority for meters: `commonwatt broker configure … --certificate-port …`")
    return ClientAuthority(directory / AUTHORITY, (directory / COMMUNITY_FILE).read_text(), datetime.now(UTC))


def _accounts(directory: Path) -> set[str]:
    try:
        document = json.loads((directory / ACCOUNTS_FILE).read_bytes())
        return {client["username"] for client in document["clients"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _refuse(f"{directory / ACCOUNTS_FILE} is not the accounts of a broker: {error!r}")


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except AuthorityError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
