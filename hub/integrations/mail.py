"""Mail by SMTP submission: one message to one address over a connection of its own.

Whether a refusal is for good is decided by what was refused. Of the recipient or the message (5xx): MailRefused, and no
repetition helps. Of anything else, from the network to our own password: MailAway, because mails must wait until an
operator has mended it. Neither ever tells an address, a text or a token: only the step and the server's numbers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Final, Literal, cast

from hub.errors import SettingsInvalid
from hub.settings import Settings, read_secret

STEP_TIMEOUT_S: Final = 10.0
SESSION_TIMEOUT_S: Final = 40.0
"""Of all steps together, resolving the name aside: within a job's lease, however slowly the server speaks."""

LINE_LENGTH_MAX: Final = 990
PERMANENT: Final = range(500, 600)
GREETING: Final = 220
TOO_LARGE: Final = 552
_ENHANCED_CODE = re.compile(rb"\s*([245]\.\d{1,3}\.\d{1,3})\b")

Security = Literal["starttls", "tls", "none"]


class MailRefused(Exception):
    """The server will never take this mail, or never for this address."""


class MailAway(Exception):
    """The mail could not be handed over now; or it was, and the answer was lost: the server may have it."""


@dataclass(frozen=True)
class Mail:
    """A plain text mail to one address. `message_id` is the same whenever the same mail is sent again."""

    to: str
    subject: str
    text: str
    message_id: str


class MailServer:
    """Where mail is handed in, and in whose name. Keeps no connection; safe to use from several threads."""

    def __init__(
        self,
        host: str,
        port: int,
        security: Security,
        sender: str,
        username: str = "",
        password: str = "",
        ca_file: Path | None = None,
        step_timeout_s: float = STEP_TIMEOUT_S,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> None:
        self._host, self._port, self._security = host, port, security
        self._sender = _parse_sender(sender)
        self._username, self._password = username, password
        self._step_timeout_s, self._session_timeout_s = step_timeout_s, session_timeout_s
        if not username.isascii():
            raise SettingsInvalid(f"smtp_username {username}: SMTP takes ASCII only")
        if security == "none" and not _is_loopback(host):
            raise SettingsInvalid(f"smtp_security none: only for this machine itself, which {host} is not")
        try:
            self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except OSError as fault:
            raise SettingsInvalid(f"smtp_ca_file {ca_file}: {fault}") from fault

    def message_id(self, unique: str) -> str:
        """A Message-ID in our name, of something that names the mail among all mails of this hub."""
        return f"<{unique}@{self._sender.domain}>"

    def send(self, mail: Mail) -> None:
        """Hand a mail over. Returns when the server has taken it on. Raises MailRefused, MailAway."""
        message = self._message(mail)
        step = "connect"
        try:
            with self._connection() as smtp:
                step = "greeting"
                _check(smtp.getreply(), GREETING)
                smtp.ehlo_or_helo_if_needed()
                if self._security == "starttls":
                    step = "STARTTLS"
                    self._start_tls(smtp)
                if self._username:
                    step = "AUTH"
                    smtp.login(self._username, self._password)
                step = "mail"
                smtp.send_message(message, self._sender.addr_spec, [mail.to])
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    smtp.quit()  # the server has the mail, whatever it says to this
        except smtplib.SMTPRecipientsRefused as fault:
            code, answer = fault.recipients[mail.to]
            raise _refusal("recipient", code, answer) from None
        except smtplib.SMTPDataError as fault:
            raise _refusal("message", fault.smtp_code, fault.smtp_error) from None
        except smtplib.SMTPResponseException as fault:
            if fault.smtp_code == TOO_LARGE:  # said as soon as the size is
                raise _refusal("message", fault.smtp_code, fault.smtp_error) from None
            raise MailAway(f"{step}: {_shown(fault.smtp_code, fault.smtp_error)}") from None
        except (smtplib.SMTPException, OSError) as fault:  # TLS and time-outs are among the latter
            raise MailAway(f"{step}: {type(fault).__name__}") from None

    @contextmanager
    def _connection(self) -> Iterator[smtplib.SMTP]:
        """A connection that is shut when its time is over, wherever it is then."""
        plain = socket.create_connection((self._host, self._port), self._step_timeout_s)
        same = plain.dup()
        guard = threading.Timer(self._session_timeout_s, _shut, (same,))
        guard.daemon = True
        guard.start()
        smtp = smtplib.SMTP(local_hostname=self._sender.domain, timeout=self._step_timeout_s)
        smtp.sock = plain
        try:
            if self._security == "tls":
                smtp.sock = self._tls.wrap_socket(plain, server_hostname=self._host)
            yield smtp
        finally:
            guard.cancel()
            same.close()
            smtp.close()
            plain.close()

    def _start_tls(self, smtp: smtplib.SMTP) -> None:
        """As RFC 3207 has it: nothing that was said before is believed afterwards."""
        if not smtp.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError
        _check(smtp.docmd("STARTTLS"), GREETING)
        assert smtp.sock is not None
        smtp.sock = self._tls.wrap_socket(smtp.sock, server_hostname=self._host)
        smtp.file = None
        smtp.helo_resp = smtp.ehlo_resp = None
        smtp.esmtp_features = {}
        smtp.does_esmtp = False
        smtp.ehlo_or_helo_if_needed()

    def _message(self, mail: Mail) -> EmailMessage:
        lines = mail.text.splitlines()
        plain = mail.text.isascii() and all(len(line) <= LINE_LENGTH_MAX for line in lines)
        message = EmailMessage(SMTP)
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = mail.message_id
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence notes, please
        message.set_content(mail.text, cte="7bit" if plain else "quoted-printable")
        return message


def mail_server_of(settings: Settings) -> MailServer | None:
    """The server that the settings name; None if they name none. Raises SettingsInvalid."""
    if not settings.smtp_host:
        return None
    return MailServer(
        settings.smtp_host,
        settings.smtp_port,
        settings.smtp_security,
        settings.mail_from,
        settings.smtp_username,
        read_secret(settings.smtp_password_file) if settings.smtp_password_file else "",
        settings.smtp_ca_file,
    )


def _parse_sender(text: str) -> Address:
    """`hub@example.org`, or with a name before it in angle brackets. Raises SettingsInvalid."""
    refusal = SettingsInvalid(f"mail_from {text!r}: not an address such as hub@example.org, or one in angle brackets")
    try:
        header = SMTP.header_factory("From", text)
    except (MessageError, IndexError) as fault:  # the library's parser does not expect every end
        raise refusal from fault
    if len(header.addresses) != 1 or header.defects or not text.isascii() or not header.addresses[0].domain:
        raise refusal
    return cast(Address, header.addresses[0])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(what: str, code: int, answer: bytes | str) -> MailRefused | MailAway:
    kind = MailRefused if code in PERMANENT else MailAway
    return kind(f"{what}: {_shown(code, answer)}")


def _shown(code: int, answer: bytes | str) -> str:
    """The numbers of an answer (RFC 3463): its words may repeat an address."""
    enhanced = _ENHANCED_CODE.match(answer.encode() if isinstance(answer, str) else answer)
    return f"{code} {enhanced[1].decode()}" if enhanced else str(code)


def _check(reply: tuple[int, bytes], expected: int) -> None:
    if reply[0] != expected:
        raise smtplib.SMTPResponseException(*reply)


def _shut(connection: socket.socket) -> None:
    """End a connection under whoever waits on it. The caller's own descriptor of it stays open."""
    with connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
