"""`commonwatt edge …`: enrol, run, doctor, replay. An error is one line on stderr and exit code 1; misuse is 2."""

import asyncio
import time
from collections.abc import Coroutine
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edge.clock import KernelClock
from edge.counters import start_counters
from edge.doctor import Findings, examine
from edge.enrolment import enrol as enrol_meter
from edge.enrolment import find_enrolment
from edge.errors import EdgeError, EnrolmentError
from edge.identity import load_or_create_identity
from edge.journal import Journal
from edge.logs import log_to_stderr
from edge.modbus import HomeReader
from edge.poll import read_poll
from edge.service import accept_now, release_laboratory, run_agent
from edge.service import replay as replay_home
from edge.settings import Settings, load_settings

T = TypeVar("T")

app = typer.Typer(help="The meter agent.", no_args_is_help=True, pretty_exceptions_enable=False)
ConfigFile = Annotated[Path, typer.Option("--config", help="The agent's configuration, a TOML file.")]
REPLAY_TIMEOUT_S = 120.0


def _finish(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except EdgeError as error:
        _fail(error)


def _fail(error: EdgeError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1)


def _settings(config: Path) -> Settings:
    try:
        return load_settings(config)
    except EdgeError as error:
        _fail(error)


def parse_instant(text: str) -> int:
    """Whole seconds since 1970 of an ISO 8601 time with its offset from UTC. Raises typer.BadParameter."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text}: say the offset from UTC, for instance {text}Z")
    if instant.microsecond:
        raise typer.BadParameter(f"{text}: whole seconds, please")
    return int(instant.timestamp())


@app.command()
def enrol(
    config: ConfigFile,
    valid_from: Annotated[
        str | None,
        typer.Option(help="When the counters start (ISO 8601), now by default. A simulated home is read as of then."),
    ] = None,
    renew: Annotated[bool, typer.Option(help="Make a new statement: the hub takes none that is old.")] = False,
) -> None:
    """Make the key if there is none, read the meters, and print the signed enrolment statement as hex."""
    settings = _settings(config)
    valid_from_unix_s = None if valid_from is None else parse_instant(valid_from)
    if valid_from_unix_s is not None and valid_from_unix_s > time.time():
        raise typer.BadParameter(f"--valid-from {valid_from} is in the future: the counters are read now")
    typer.echo(_finish(_enrol(settings, valid_from_unix_s, renew=renew)).hex())


async def _enrol(settings: Settings, valid_from_unix_s: int | None, *, renew: bool) -> bytes:
    identity = load_or_create_identity(settings.key_file)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    reader = HomeReader(settings.modbus)
    unit = settings.laboratory_clock_unit
    try:
        found = find_enrolment(settings, identity, journal)
        if found is not None and not renew:
            return found[1]
        if found is not None and (sequence := journal.get_chain().sequence):
            raise EnrolmentError("enrolment_in_use", f"{sequence} seals follow from it; it cannot be renewed")
        if valid_from_unix_s is None:
            if not KernelClock(settings.sampling.clock_check).synchronised():
                raise EdgeError("clock_unsynchronised", "an enrolment needs the time")
            valid_from_unix_s = int(time.time())
        elif unit is not None:
            await reader.set_laboratory_time(unit, valid_from_unix_s)
        try:
            poll = read_poll(settings.modbus.meters, await reader.read())
        finally:
            if unit is not None:
                await release_laboratory(reader, unit)
        counters = start_counters(settings.measurement, poll.registers_wh, valid_from_unix_s)
        return enrol_meter(settings, identity, journal, counters)
    finally:
        reader.close()
        journal.close()


@app.command()
def run(config: ConfigFile) -> None:
    """Read, seal and publish until stopped. Logs are JSON on stderr."""
    settings = _settings(config)
    log_to_stderr()
    _finish(run_agent(settings))


@app.command()
def replay(
    config: ConfigFile,
    first: Annotated[str, typer.Option("--from", help="First reading (ISO 8601).")],
    last: Annotated[str, typer.Option("--to", help="Last reading (ISO 8601).")],
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for receipts.")] = REPLAY_TIMEOUT_S,
) -> None:
    """Run a simulated home through a stretch of time as fast as it goes, with true timestamps."""
    from_unix_s, to_unix_s = parse_instant(first), parse_instant(last)
    if from_unix_s >= to_unix_s:
        raise typer.BadParameter("--from must be before --to")
    settings = _settings(config)
    log_to_stderr()
    status = _finish(replay_home(settings, from_unix_s, to_unix_s, timeout_s))
    summary = f"sequence {status['sequence']}, everything committed, {status['counts']}"
    typer.echo(f"{settings.meter_id}: {summary}", err=True)


@app.command()
def accept_register(
    config: ConfigFile,
    register: Annotated[
        list[str] | None,
        typer.Option(help="generation, grid_import or grid_export; by default those that are not believed."),
    ] = None,
) -> None:
    """Go on from registers as they are now, after a meter was replaced. Their change is not counted as energy.

    Stop the agent first.
    """
    settings = _settings(config)
    for name in _finish(accept_now(settings, register or [])):
        typer.echo(f"{name}: accepted")


@app.command()
def doctor(config: ConfigFile) -> None:
    """Read everything once and explain it. Exit code 1 if anything would keep the agent from working."""
    settings = _settings(config)
    findings = _finish(examine(settings))
    _show(findings, Console())
    if findings.problems:
        raise typer.Exit(1)


def _show(findings: Findings, console: Console) -> None:
    if findings.registers:
        columns = ("meter", "register", "address", "bytes", "value", "one step")
        table = Table(*columns, title="What the meters say", box=SIMPLE_HEAD)
        for line in findings.registers:
            value = line.problem or f"{_decimal(line.value)} {line.value_unit}"
            step = "" if line.problem else f"{float(line.step):.2g} {line.step_unit}"
            meter = f"{line.role} {line.unit}"
            table.add_row(meter, line.quantity.replace("_", " "), f"0x{line.address:02x}", line.raw.hex(), value, step)
        console.print(table)
    if findings.production_wh is not None:
        console.print(f"production {findings.production_wh} Wh, consumption {findings.consumption_wh} Wh")
    for name, seen in findings.checks:
        console.print(f"ok       {name}: {seen}", markup=False, highlight=False, soft_wrap=True)
    for problem in findings.problems:
        console.print(f"problem  {problem}", markup=False, highlight=False, soft_wrap=True, style="bold red")


def _decimal(value: Fraction | None) -> str:
    """For eyes only: ten significant digits."""
    return "–" if value is None else f"{Decimal(value.numerator) / Decimal(value.denominator):.10g}"


if __name__ == "__main__":
    app()
