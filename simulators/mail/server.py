"""The server process: SMTP submission (aiosmtpd), STARTTLS or TLS, one account, a size limit, and faults on demand."""

import asyncio
import hmac
import json
import logging
import signal
import ssl
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from simulators.mail.faults import Switches
from simulators.mail.mailbox import Mailbox, MailboxFull

LOOPBACK = "127.0.0.1"
NAME = "mail.simulated.example"
SIZE_MAX_BYTES = 1_000_000
IDLE_TIMEOUT_S = 60.0
CUT_WAIT_S = 10.0

Security = Literal["starttls", "tls", "none"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Configuration:
    """One server. Without a user name it takes mail from anybody, as only a server on loopback may."""

    directory: Path
    port: int
    security: Security
    certificate_file: Path | None
    key_file: Path | None
    username: str = ""
    password: str = ""
    size_max_bytes: int = SIZE_MAX_BYTES


class Deliveries:
    """What aiosmtpd asks at each step; the answers are a server's own words."""

    def __init__(self, mailbox: Mailbox, switches: Switches) -> None:
        self._mailbox = mailbox
        self._switches = switches

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """The sender."""
        if self._switches.drops_at("sender"):
            await cut(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 sender taken"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A recipient."""
        if self._switches.drops_at("recipient"):
            await cut(server)
        if address.lower() in self._switches.now.refused:
            return f"550 5.1.1 <{address}>: no such mailbox here"
        if self._switches.greylists(address):
            return f"451 4.7.1 <{address}>: greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient taken"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """The message."""
        await asyncio.sleep(self._switches.now.delay_s)
        if self._switches.drops_at("message"):
            await cut(server)
        if self._switches.now.full:
            return "452 4.3.1 no space for this message"
        content = envelope.content
        assert isinstance(content, bytes), "aiosmtpd decodes only if it is told to"
        try:
            self._mailbox.add(envelope.mail_from or "", envelope.rcpt_tos, content)
        except MailboxFull:
            return "452 4.3.1 no space for this message"
        if self._switches.loses_answer():
            await cut(server)
        return "250 2.0.0 taken on"


class Connection(SMTP):
    """A connection that can already be cut as it is made."""

    def __init__(self, switches: Switches, *arguments: Any, **options: Any) -> None:
        self._switches = switches
        self._greeted = False
        super().__init__(*arguments, **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or not."""
        super().connection_made(transport)
        if not self._greeted and self._switches.drops_at("greeting"):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        self._greeted = True  # STARTTLS makes the connection once more


async def cut(server: SMTP) -> None:
    """Break the connection without a word; the caller is cancelled by that."""
    transport = server.transport
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
    await asyncio.sleep(CUT_WAIT_S)


async def serve(configuration: Configuration) -> None:
    """Take mail until SIGTERM or SIGINT; {"mail": port} goes to stdout once it listens. Raises OSError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")  # of implicit TLS it does not know
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd warns of its own future at every connection
    mailbox, switches = Mailbox(configuration.directory), Switches(configuration.directory)
    tls = _tls_context(configuration)
    starts_tls = configuration.security == "starttls"

    def connection() -> Connection:
        return Connection(
            switches,
            Deliveries(mailbox, switches),
            hostname=NAME,
            ident="simulated mail server",
            data_size_limit=configuration.size_max_bytes,
            timeout=IDLE_TIMEOUT_S,
            tls_context=tls if starts_tls else None,
            require_starttls=starts_tls,
            auth_required=bool(configuration.username),
            auth_require_tls=starts_tls,
            authenticator=_authenticator(configuration),
            loop=loop,
        )

    server = await loop.create_server(
        connection, LOOPBACK, configuration.port, ssl=tls if configuration.security == "tls" else None
    )
    async with server:
        sys.stdout.write(json.dumps({"mail": server.sockets[0].getsockname()[1]}) + "\n")
        sys.stdout.flush()
        await stopping.wait()


def _tls_context(configuration: Configuration) -> ssl.SSLContext | None:
    if configuration.security == "none":
        return None
    assert configuration.certificate_file is not None, "TLS needs a certificate"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(configuration.certificate_file, configuration.key_file)
    return context


def _authenticator(configuration: Configuration) -> Any:
    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        good = isinstance(data, LoginPassword) and hmac.compare_digest(
            data.login + b"\0" + data.password, f"{configuration.username}\0{configuration.password}".encode()
        )
        if not good:
            log.warning("somebody's user name or password is wrong")
        return AuthResult(success=good, handled=False)

    return check if configuration.username else None
