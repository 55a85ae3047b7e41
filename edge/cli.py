"""`commonwatt edge`: enrol, run, doctor, replay; what concerns keys is in `edge/key_cli.py`, finding out registers in
`edge/discover_cli.py`."""

import time
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edge import discover_cli, key_cli
from edge.clock import KernelClock
from edge.command_line import ConfigFile, finish, parse_instant, settings_in
from edge.counters import start_counters
from edge.doctor import Findings, examine
from edge.enrolment import FIRST_KEY_EPOCH, check_follows, enrol_successor, find_enrolment, netting_flag
from edge.enrolment import enrol as enrol_meter
from edge.errors import EdgeError, EnrolmentError
from edge.home_reader import HomeReader
from edge.identity import load_or_create_identity
from edge.journal import Journal
from edge.logs import log_to_stderr
from edge.predecessor import continue_counters, load_predecessor, rebase_counters
from edge.sampler import read_agreed
from edge.service import release_laboratory, run_agent
from edge.service import replay as replay_home
from edge.settings import Settings

app = typer.Typer(help="The meter agent.", no_args_is_help=True, pretty_exceptions_enable=False)
REPLAY_TIMEOUT_S = 120.0


@app.command()
def enrol(
    config: ConfigFile,
    valid_from: Annotated[
        str | None,
        typer.Option(help="When the counters start (ISO 8601), now by default. A simulated home is read as of then."),
    ] = None,
    renew: Annotated[bool, typer.Option(help="Make a new statement: the hub takes none that is old.")] = False,
    replaces: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Replace a device whose key is lost: what `admin predecessor` wrote."),
    ] = None,
    registers: Annotated[
        Literal["continue", "anew"] | None,
        typer.Option(help="With --replaces: the meters are the same, and count since; or others, and begin here."),
    ] = None,
) -> None:
    """Make the key if there is none, read the meters, and print the signed enrolment statement as hex.

    A statement that --replaces another device needs the owner's endorsement: `commonwatt edge endorse`.
    """
    settings = settings_in(config)
    if (replaces is None) != (registers is None):
        raise typer.BadParameter("--replaces and --registers belong together")
    valid_from_unix_s = None if valid_from is None else parse_instant(valid_from)
    if valid_from_unix_s is not None and valid_from_unix_s > time.time():
        raise typer.BadParameter(f"--valid-from {valid_from} is in the future: the counters are read now")
    if netting_flag(settings):
        typer.echo(
            "warning: the grid meter does not net its phases, so it overstates import and export. What it measures is "
            "stored and shown; nothing is minted from it unless an operator allows that.",
            err=True,
        )
    successor = _Successor(replaces, registers == "continue") if replaces is not None else None
    typer.echo(finish(_enrol(settings, valid_from_unix_s, successor, renew=renew)).hex())


@dataclass(frozen=True)
class _Successor:
    """What a device that replaces another needs to know: the other's last seal, and whether the meters are its."""

    predecessor_file: Path
    same_meters: bool


async def _enrol(
    settings: Settings, valid_from_unix_s: int | None, successor: _Successor | None, *, renew: bool
) -> bytes:
    predecessor = load_predecessor(successor.predecessor_file) if successor else None
    identity = load_or_create_identity(settings.key_file)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    reader = HomeReader(settings.buses)
    unit = settings.laboratory_clock_unit
    try:
        found = find_enrolment(settings, identity, journal, other_netting=renew)
        if found is not None and not renew:
            check_follows(found[0], predecessor)
            return found[1]
        if found is not None and (sequence := journal.get_chain().sequence):
            raise EnrolmentError("enrolment_in_use", f"{sequence} seals follow from it; it cannot be renewed")
        if found is not None and found[0].key_epoch != FIRST_KEY_EPOCH and predecessor is None:
            raise EnrolmentError("enrolment_in_use", f"it begins key epoch {found[0].key_epoch}; it cannot be renewed")
        if valid_from_unix_s is None:
            if not KernelClock(settings.sampling.clock_check).synchronised():
                raise EdgeError("clock_unsynchronised", "an enrolment needs the time")
            valid_from_unix_s = int(time.time())
        elif unit is not None:
            await reader.set_laboratory_time(unit, valid_from_unix_s)
        try:
            power_max_w = settings.sampling.power_max_w
            registers_wh = (await read_agreed(settings.meters, reader, power_max_w)).registers_wh
        finally:
            if unit is not None:
                await release_laboratory(reader, unit)
        if predecessor is None or successor is None:
            counters = start_counters(settings.measurement, registers_wh, valid_from_unix_s)
            return enrol_meter(settings, identity, journal, counters)
        if successor.same_meters:
            counters = continue_counters(
                settings.measurement, registers_wh, valid_from_unix_s, predecessor, power_max_w
            )
        else:
            counters = rebase_counters(settings.measurement, registers_wh, valid_from_unix_s, predecessor)
        return enrol_successor(settings, identity, journal, counters, predecessor)
    finally:
        reader.close()
        journal.close()


@app.command()
def run(config: ConfigFile) -> None:
    """Read, seal and publish until stopped. Logs are JSON on stderr."""
    settings = settings_in(config)
    log_to_stderr()
    finish(run_agent(settings))


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
    settings = settings_in(config)
    log_to_stderr()
    status = finish(replay_home(settings, from_unix_s, to_unix_s, timeout_s))
    summary = f"sequence {status['sequence']}, everything committed, {status['counts']}"
    typer.echo(f"{settings.meter_id}: {summary}", err=True)


@app.command()
def doctor(config: ConfigFile) -> None:
    """Read everything once and explain it. Exit code 1 if anything would keep the agent from working."""
    settings = settings_in(config)
    findings = finish(examine(settings))
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


app.add_typer(key_cli.app)
app.add_typer(discover_cli.app)

if __name__ == "__main__":
    app()
