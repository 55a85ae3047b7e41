"""`commonwatt simulate`: the outside world, by command line."""

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from protocol.errors import ProtocolError
from simulators import fleet, misbehaviour
from simulators.fleet_connection import Account, FleetError, Report, Target
from simulators.mail import server as mail_server
from simulators.meters import configuration, server
from simulators.sealing import FleetPlan, SealedMessage
from simulators.webhooks import server as webhook_server

app = typer.Typer(help="Simulate the outside world over its real protocols.", no_args_is_help=True)
fleet_app = typer.Typer(help="Seal and publish for thousands of meters.", no_args_is_help=True)
app.add_typer(fleet_app, name="fleet")

ConfigFile = Annotated[Path, typer.Option(help="TOML file that lists the homes.", exists=True, dir_okay=False)]
Meters = Annotated[int, typer.Option(help="How many meters.")]
Seed = Annotated[int, typer.Option(help="Keys and energy follow from it.")]
Community = Annotated[str, typer.Option(help="Community id; also fixes the domain.")]
Start = Annotated[str, typer.Option(help="Enrolment time, ISO 8601 with offset; readings follow it.")]


@app.command()
def meters(config: ConfigFile) -> None:
    """Serve homes over Modbus until SIGTERM; prints one JSON line with the port or device of each."""
    try:
        homes = configuration.load(config)
    except configuration.ConfigurationError as error:
        _refuse(f"{config}: {error}")
    asyncio.run(server.serve(homes))


@app.command()
def mail(
    *,
    directory: Annotated[Path, typer.Option(help="Messages are put here, one .eml file each; faults.json is read.")],
    port: Annotated[int, typer.Option(help="On the loopback address; 0: the system chooses.")] = 0,
    security: Annotated[mail_server.Security, typer.Option(help="How the connection is encrypted.")] = "starttls",
    certificate_file: Annotated[Path | None, typer.Option(help="The server's certificate, PEM.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    username: Annotated[str, typer.Option(help="The one account; without it, anybody may hand in mail.")] = "",
    password_file: Annotated[Path | None, typer.Option(help="Its password.")] = None,
    size_max_bytes: Annotated[int, typer.Option(help="Of a message.")] = mail_server.SIZE_MAX_BYTES,
) -> None:
    """Take mail by SMTP until SIGTERM; prints one JSON line with the port."""
    if security != "none" and (certificate_file is None or key_file is None):
        _refuse(f"--security {security}: give --certificate-file and --key-file")
    if bool(username) != bool(password_file):
        _refuse("--username and --password-file: both or neither")
    configuration = mail_server.Configuration(
        directory,
        port,
        security,
        certificate_file,
        key_file,
        username,
        password_file.read_text(encoding="utf-8").strip() if password_file else "",
        size_max_bytes,
    )
    asyncio.run(mail_server.serve(configuration))


@app.command()
def webhooks(
    *,
    directory: Annotated[Path, typer.Option(help="What comes is put into received.jsonl; faults.json is read.")],
    port: Annotated[int, typer.Option(help="On the loopback address; 0: the system chooses.")] = 0,
    certificate_file: Annotated[Path | None, typer.Option(help="Its certificate, PEM; without it, no TLS.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
) -> None:
    """Receive webhooks until SIGTERM; prints one JSON line with the port."""
    if (certificate_file is None) != (key_file is None):
        _refuse("--certificate-file and --key-file: both or neither")
    webhook_server.serve(webhook_server.Configuration(directory, port, certificate_file, key_file))


@app.command()
def solana(
    *,
    directory: Annotated[Path, typer.Option(help="The ledger is kept here; faults.json is read.")],
    port: Annotated[
        int, typer.Option(help="HTTP and WebSocket; WebSocket also on the next. 0: the system chooses.")
    ] = 0,
    ready_file: Annotated[Path | None, typer.Option(help="Gets the ports, as JSON, once they answer.")] = None,
    slot_ms: Annotated[int, typer.Option(help="How long a slot is.", min=1)] = 400,
    finalized_after_slots: Annotated[int, typer.Option(help="How far behind finalized is.", min=1)] = 32,
    faucet: Annotated[bool, typer.Option(help="Whether requestAirdrop gives lamports.")] = True,
) -> None:
    """Be a Solana cluster of one node until SIGTERM; prints one JSON line with the ports."""
    from simulators.solana.ledger import Pace  # noqa: PLC0415 - the other simulators need neither LiteSVM nor uvicorn
    from simulators.solana.node import Configuration  # noqa: PLC0415
    from simulators.solana.server import Listening, serve  # noqa: PLC0415
    from simulators.solana.storage import LedgerInUse, LedgerUnreadable  # noqa: PLC0415

    configuration = Configuration(directory, Pace(slot_ms, finalized_after_slots), faucet)
    try:
        asyncio.run(serve(configuration, Listening(port, ready_file)))
    except (LedgerInUse, LedgerUnreadable, OSError) as error:
        _refuse(str(error))


@fleet_app.command()
def enrol(community: Community, start: Start, meters: Meters = 10, seed: Seed = 1) -> None:
    """Print {"meter_id", "enrolment"} per meter: the signed statement (hex) to register it with."""
    for meter in _plan(community, start, meters, seed).each_meter():
        typer.echo(json.dumps({"meter_id": meter.meter_id, "enrolment": meter.enrolment().hex()}))


@fleet_app.command()
def publish(
    *,
    community: Community,
    start: Start,
    meters: Meters = 10,
    seed: Seed = 1,
    interval_s: Annotated[int, typer.Option(help="Seconds between readings.")] = 60,
    readings_per_seal: Annotated[int, typer.Option(help="1 to 900.")] = 15,
    seals: Annotated[int, typer.Option(help="Seals per meter.")] = 4,
    host: Annotated[str, typer.Option(help="The broker.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 8883,
    ca_file: Annotated[Path | None, typer.Option(help="CA of its certificate; without it, no TLS.")] = None,
    credentials: Annotated[
        Path | None, typer.Option(help='JSON lines {"meter_id", "username", "password"}: own connections.')
    ] = None,
    gateway_user: Annotated[str | None, typer.Option(help="One account for all meters.")] = None,
    gateway_password_file: Annotated[Path | None, typer.Option(help="Its password.")] = None,
    connections: Annotated[int, typer.Option(help="How many, with a gateway account.")] = 4,
    window: Annotated[int, typer.Option(help="Unacknowledged messages per connection.")] = 100,
    rate: Annotated[float, typer.Option(help="Seals per second over all; 0 is flat out.")] = 0.0,
    timeout_s: Annotated[float, typer.Option(help="Give up after.")] = 300.0,
    leave_after: Annotated[int | None, typer.Option(help="Disconnect after so many seals.")] = None,
    kill_after: Annotated[int | None, typer.Option(help="SIGKILL itself after so many seals.")] = None,
    expected: Annotated[Path | None, typer.Option(help="Write the sums here before publishing.")] = None,
    bad: Annotated[list[str] | None, typer.Option(help="Kind of bad message to mix in; repeatable.")] = None,
    bad_share: Annotated[float, typer.Option(help="Of seals that a bad message precedes.")] = 0.1,
    duplicates: Annotated[float, typer.Option(help="Share of seals sent twice.")] = 0.0,
    reorder: Annotated[int, typer.Option(help="Seals may be late by so many places.")] = 0,
    gap: Annotated[str | None, typer.Option(help="FIRST-LAST sequences that come after all others.")] = None,
    fork: Annotated[int | None, typer.Option(help="Sequence that every meter seals twice.")] = None,
) -> None:
    """Publish a fleet's seals and print a JSON report: what was sent and acknowledged, and the exact
    energy."""
    plan = _plan(
        community,
        start,
        meters,
        seed,
        interval_s=interval_s,
        readings_per_seal=readings_per_seal,
        seals=seals,
    )
    unknown = set(bad or ()) - set(misbehaviour.BAD_MESSAGES)
    if unknown:
        _refuse(f"--bad {', '.join(sorted(unknown))}: not one of {', '.join(misbehaviour.BAD_MESSAGES)}")
    mischief = misbehaviour.Mischief(
        bad_kinds=tuple(bad or ()),
        bad_share=bad_share,
        duplicate_share=duplicates,
        reorder_window=reorder,
        gap=_range(gap),
        fork_sequence=fork,
    )
    target = Target(host, port, ca_file, community, window, rate, timeout_s, leave_after, kill_after)
    messages: dict[str, list[SealedMessage]] = {}
    sums = []
    for meter in plan.each_meter():
        messages[meter.meter_id] = misbehaviour.misbehave(
            meter.messages(plan.seals_per_meter), meter.key, mischief, f"{seed}/{meter.meter_id}"
        )
        sums.append(asdict(meter.expected()))
    if expected is not None:
        expected.write_text("".join(json.dumps(each) + "\n" for each in sums), encoding="utf-8")
    report = Report()
    try:
        if gateway_user is not None and gateway_password_file is not None and credentials is None:
            password = gateway_password_file.read_text(encoding="utf-8").strip()
            account = Account(gateway_user, password, gateway_user)
            opened = fleet.connections_of_gateway(messages, account, connections, target, report)
        elif credentials is not None and gateway_user is None:
            accounts = fleet.read_credentials(credentials)
            opened = fleet.connections_of_meters(messages, accounts, target, report)
        else:
            _refuse("give either --credentials or --gateway-user with --gateway-password-file")
        fleet.publish(opened, target, report)
    except (FleetError, OSError, ValueError) as error:
        typer.echo(json.dumps({**asdict(report), "error": str(error), "expected": sums}))
        raise typer.Exit(1) from error
    typer.echo(json.dumps({**asdict(report), "expected": sums}))


def _plan(
    community: str,
    start: str,
    meters: int,
    seed: int,
    *,
    interval_s: int = 60,
    readings_per_seal: int = 15,
    seals: int = 4,
) -> FleetPlan:
    try:
        moment = datetime.fromisoformat(start)
        if moment.tzinfo is None:
            _refuse(f"--start {start}: give the offset from UTC too")
        start_unix_s = int(moment.astimezone(UTC).timestamp())
        return FleetPlan(community, seed, meters, start_unix_s, interval_s, readings_per_seal, seals)
    except (ProtocolError, ValueError) as error:
        _refuse(str(error))


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split("-"))
    except ValueError:
        _refuse(f"--gap {text}: give FIRST-LAST")
    return first, last


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
