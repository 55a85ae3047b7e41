"""The doctor: looks at everything the agent depends on, once, and says what it sees. It changes nothing."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from edge.clock import KernelClock
from edge.connection import load_certificate, read_password, tls_context
from edge.counters import start_counters
from edge.credentials import password_file
from edge.enrolment import find_enrolment
from edge.errors import EdgeError, IdentityError, JournalError
from edge.home_reader import HomeReader
from edge.identity import load_identity
from edge.journal import Intervals, Journal
from edge.meter_findings import (
    RegisterLine,
    explain_bus,
    explain_identities,
    explain_phases,
    explain_registers,
    register_quantum_wh,
    word_order_suspicions,
)
from edge.poll import read_poll
from edge.rotation import open_identity
from edge.settings import Settings

UPLINK_TIMEOUT_S = 5.0


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
    """Read the meters once, and look at key, journal, clock and the way to the hub."""
    findings = Findings()
    for bus in settings.buses:
        findings.check(bus.name, partial(explain_bus, bus, settings.sampling.interval_s))
    await _examine_meters(settings, findings)
    findings.check("key", lambda: _key(settings))
    findings.check("journal", lambda: _journal(settings))
    findings.check("clock", lambda: _clock(settings))
    findings.check("command key", lambda: _command_key(settings))
    findings.check("password", lambda: _password(settings))
    try:
        findings.checks.append(await _uplink(settings))
    except EdgeError as error:
        findings.problems.append(error)
    return findings


async def _examine_meters(settings: Settings, findings: Findings) -> None:
    reader = HomeReader(settings.buses, keeps_count=False)
    try:
        await reader.check_identities()
        findings.checks.append(("identity", explain_identities(settings)))
        raw = await reader.read()
        findings.registers = explain_registers(settings, raw)
        findings.checks.append(("phases", explain_phases(settings)))
        findings.problems += word_order_suspicions(settings, raw)
        poll = read_poll(settings.meters, raw)
        counters = start_counters(settings.measurement, poll.registers_wh, 0)
        findings.production_wh, findings.consumption_wh = counters.production_wh, counters.consumption_wh
        step_wh = register_quantum_wh(settings, raw)
        findings.checks.append(("register step", f"register this meter with --register-quantum-wh {step_wh}"))
    except EdgeError as error:
        findings.problems.append(error)
    finally:
        reader.close()


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
        if find_enrolment(settings, open_identity(settings, journal), journal) is None:
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


def _password(settings: Settings) -> str:
    file = password_file(settings)
    return "none: a certificate takes its place" if file is None else f"{len(read_password(file))} characters"


async def _uplink(settings: Settings) -> tuple[str, str]:
    """Reach broker or hub and check its certificate; no login, which would end a running agent's session."""
    if settings.transport == "https":
        parts = urlsplit(settings.hub.url)
        host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
        context = tls_context(settings.hub.ca_file) if parts.scheme == "https" else None
        return "hub", await _reach("hub_unreachable", host, port, context)
    mqtt = settings.mqtt
    assert mqtt is not None, "the settings have the table of their transport"
    context = tls_context(mqtt.ca_file)
    if mqtt.certificate_file is not None and mqtt.certificate_key_file is not None:
        load_certificate(context, mqtt.certificate_file, mqtt.certificate_key_file)
    return "broker", await _reach("broker_unreachable", mqtt.host, mqtt.port, context)


async def _reach(code: str, host: str, port: int, context: ssl.SSLContext | None) -> str:
    try:
        async with asyncio.timeout(UPLINK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            secured = writer.get_extra_info("ssl_object")
            writer.close()
            await writer.wait_closed()
    except (OSError, ssl.SSLError) as error:  # a TimeoutError is an OSError
        raise EdgeError(code, f"{host}:{port}: {str(error) or type(error).__name__}") from None
    how = f"over {secured.version()} with a certificate that we trust" if secured else "without TLS"
    return f"{host}:{port} answers {how}"
