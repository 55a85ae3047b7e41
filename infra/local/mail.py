"""A private mail server on a loopback port: the simulator, with an account and a certificate of this machine's own."""

import datetime
import json
import secrets
import smtplib
import ssl
import subprocess
import sys
import time
from pathlib import Path

from infra.local import certificates
from infra.local.processes import (
    LOOPBACK,
    LaunchError,
    log_tail,
    pause_until,
    remembered_port,
    start_child,
    stop_child,
    write_secret,
)

START_TIMEOUT_S = 20.0
USERNAME = "hub"
SENDER = "Commonwatt <hub@commonwatt.example>"
FAULTS_FILE = "faults.json"


class MailSimulator:
    """One mail server, a child of this process, and the directory with all it has.

    `directory` holds messages/ (one .eml file each), certificates/, password, port and mail.log.
    """

    host = "localhost"
    username = USERNAME

    def __init__(self, directory: Path, security: str = "starttls") -> None:
        self.directory = directory.absolute()
        self.security = security
        self.messages = self.directory / "messages"
        self.log = self.directory / "mail.log"
        self.ca_file = self.directory / "certificates" / certificates.CA_FILE
        self.password_file = self.directory / "password"
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return once it greets. Raises LaunchError."""
        if self._server is not None:
            raise LaunchError("this mail server is already running")
        self.messages.mkdir(parents=True, exist_ok=True)
        folder = self.ca_file.parent
        certificates.ensure_certificates(folder, datetime.datetime.now(datetime.UTC))
        if not self.password_file.exists():
            write_secret(self.password_file, secrets.token_urlsafe(32))
        self.port = remembered_port(self.directory / "port")
        self._server = start_child(
            [
                *(sys.executable, "-m", "commonwatt", "simulate", "mail"),
                *("--directory", self.messages, "--port", str(self.port), "--security", self.security),
                *("--certificate-file", folder / certificates.SERVER_FILE),
                *("--key-file", folder / certificates.KEY_FILE),
                *("--username", USERNAME, "--password-file", self.password_file),
            ],
            log=self.log,
        )
        try:
            self._wait_until_it_greets()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            stop_child(self._server)
            self._server = None

    def kill(self) -> None:
        """SIGKILL. `start` resumes on the same port, with the messages that there are."""
        if self._server is None:
            raise LaunchError("there is no mail server to kill")
        self._server.kill()
        self._server.wait()
        self._server = None

    def environment(self) -> dict[str, str]:
        """The hub's settings for this server."""
        return {
            "COMMONWATT_SMTP_HOST": self.host,
            "COMMONWATT_SMTP_PORT": str(self.port),
            "COMMONWATT_SMTP_SECURITY": self.security,
            "COMMONWATT_SMTP_USERNAME": self.username,
            "COMMONWATT_SMTP_PASSWORD_FILE": str(self.password_file),
            "COMMONWATT_SMTP_CA_FILE": str(self.ca_file),
            "COMMONWATT_MAIL_FROM": SENDER,
        }

    def fail(self, **faults: object) -> None:
        """Let these faults, and no others, happen from now on (simulators/mail/faults.py); none: all is well."""
        part = self.messages / f".{FAULTS_FILE}.part"
        part.write_text(json.dumps({**faults}))
        part.rename(self.messages / FAULTS_FILE)

    def __enter__(self) -> "MailSimulator":
        """Start, for a `with` statement that stops at its end."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _wait_until_it_greets(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._server is not None and self._server.poll() is None:
            try:
                with self._connect():
                    return
            except ConnectionRefusedError:
                if not pause_until(deadline_s):
                    break
        raise LaunchError(f"the mail server did not start; the end of {self.log}:\n{log_tail(self.log)}")

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            context = ssl.create_default_context(cafile=self.ca_file)
            return smtplib.SMTP_SSL(self.host, self.port, timeout=START_TIMEOUT_S, context=context)
        return smtplib.SMTP(LOOPBACK, self.port, timeout=START_TIMEOUT_S)
