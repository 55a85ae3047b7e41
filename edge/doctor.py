"""The doctor: looks at everything the agent depends on, once, and says what it sees. It changes nothing."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from edge.clock import KernelClock
from edge.counters import start_counters
from edge.enrolment import find_enrolment
from edge.errors import EdgeError, IdentityError, JournalError, RegisterError
from edge.identity import load_identity
from edge.journal import Intervals, Journal
from edge.modbus import HomeReader
from edge.poll import RawRegisters, read_poll, wanted_registers
from edge.register_map import exact_value, quantum
from edge.settings import Settings
from edge.transport import read_password, tls_context

BROKER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RegisterLine:
    """One register as it was read, and the least it can change by. `problem` says why it is not believed, if so."""

    role: str
    unit: int
    quantity: str
    address: int
    raw: bytes
    value: Fraction | None
    value_unit: str
    step: Fraction
    step_unit: str
    problem: str


@dataclass
class Findings:
    """What was seen. Counters in watt-hours, None if the registers could not be understood."""

    registers: list[RegisterLine] = field(default_factory=list)
    production_wh: int | None = None
    consumption_wh: int | None = None
    checks: list[tuple[str, str]] = field(default_factory=list)
    problems: list[EdgeError] = field(default_factory=list)

    def check(self, name: str, look: Callable[[], str]) -> None:
        """Note what `look` says, or the error that it raises."""
        try:
            self.checks.append((name, look()))
        except EdgeError as error:
            self.problems.append(error)


async def examine(settings: Settings) -> Findings:
    """Read the meters once, and look at key, journal, clock and broker."""
    findings = Findings()
    await _examine_meters(settings, findings)
    findings.check("key", lambda: _key(settings))
    findings.check("journal", lambda: _journal(settings))
    findings.check("clock", lambda: _clock(settings))
    findings.check("command key", lambda: _command_key(settings))
    findings.check("password", lambda: f"{len(read_password(settings.mqtt.password_file))} characters")
    try:
        findings.checks.append(("broker", await _broker(settings)))
    except EdgeError as error:
        findings.problems.append(error)
    return findings


async def _examine_meters(settings: Settings, findings: Findings) -> None:
    reader = HomeReader(settings.modbus)
    try:
        raw = await reader.read()
        findings.registers = explain_registers(settings, raw)
        poll = read_poll(settings.modbus.meters, raw)
        counters = start_counters(settings.measurement, poll.registers_wh, 0)
        findings.production_wh, findings.consumption_wh = counters.production_wh, counters.consumption_wh
    except EdgeError as error:
        findings.problems.append(error)
    finally:
        reader.close()


def explain_registers(settings: Settings, raw: RawRegisters) -> list[RegisterLine]:
    """Each register's bytes and what they are, believable or not."""
    lines = []
    for meter in settings.modbus.meters:
        for register in wanted_registers(meter):
            data = raw[meter.role, register.quantity]
            value, problem = None, ""
            step, energy = quantum(register, data), register.quantity.startswith("energy")
            try:
                value = exact_value(register, data)
                if value < 0 and register.quantity != "power":
                    problem = "negative"
            except RegisterError:
                problem = "not a number"
            lines.append(
                RegisterLine(
                    meter.role,
                    meter.unit,
                    register.quantity,
                    register.address,
                    data,
                    value,
                    register.unit,
                    step if energy else step / register.scale,
                    "Wh" if energy else register.unit,
                    problem,
                )
            )
    return lines


def _key(settings: Settings) -> str:
    return load_identity(settings.key_file).public_key.hex()


def _journal(settings: Settings) -> str:
    if not settings.journal.file.exists():
        why = f"{settings.journal.file} does not exist; run `commonwatt edge enrol` first"
        raise JournalError("not_enrolled", why)
    try:
        journal = Journal(settings.journal.file, settings.journal.bytes_max)
    except JournalError as error:
        if error.code == "journal_in_use":
            return "in use: the agent is running"
        raise
    try:
        if find_enrolment(settings, load_identity(settings.key_file), journal) is None:
            raise JournalError("not_enrolled", "run `commonwatt edge enrol` first")
        unsealed = journal.find_unsealed()
        return (
            f"{journal.used_bytes()} of {settings.journal.bytes_max} bytes, "
            f"{len(journal.unconfirmed_sequences())} seals without a receipt, "
            f"{unsealed.count if unsealed else 0} readings not yet sealed{_intervals(settings, journal)}"
        )
    finally:
        journal.close()


def _intervals(settings: Settings, journal: Journal) -> str:
    found, sampling = journal.find_intervals(), settings.sampling
    if found is None or found == Intervals(sampling.interval_s, sampling.seal_interval_s):
        return ""
    return f"; set by command, not by the file: interval_s = {found.reading_s}, seal_interval_s = {found.seal_s}"


def _clock(settings: Settings) -> str:
    if settings.sampling.clock_check == "trust":
        return "trusted, as configured"
    if not KernelClock("kernel").synchronised():
        why = "no time source disciplines the clock: nothing would be sealed"
        raise EdgeError("clock_unsynchronised", why)
    return "synchronised"


def _command_key(settings: Settings) -> str:
    if settings.command_public_key is None:
        why = "hub.command_public_key: it is in the hub's answer to registration"
        raise IdentityError("command_key_missing", why)
    return settings.command_public_key.hex()


async def _broker(settings: Settings) -> str:
    """Reach it and check its certificate; no login, which would end a running agent's session."""
    mqtt = settings.mqtt
    context = tls_context(mqtt.ca_file)
    try:
        async with asyncio.timeout(BROKER_TIMEOUT_S):
            _, writer = await asyncio.open_connection(mqtt.host, mqtt.port, ssl=context)
            version = writer.get_extra_info("ssl_object").version()
            writer.close()
            await writer.wait_closed()
    except (OSError, ssl.SSLError) as error:  # a TimeoutError is an OSError
        why = str(error) or type(error).__name__
        raise EdgeError("broker_unreachable", f"{mqtt.host}:{mqtt.port}: {why}") from None
    return f"{mqtt.host}:{mqtt.port} answers over {version} with a certificate that we trust"
