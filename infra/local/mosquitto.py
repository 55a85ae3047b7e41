"""A private Mosquitto on a loopback port: TLS, an account for everyone, the same configuration as a real
broker."""

import datetime
import secrets
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

from infra.local import certificates
from infra.local.mosquitto_package import Installation
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
from infra.mosquitto import configuration
from infra.mosquitto.accounts import SALT_BYTES, access_list, first_accounts

START_TIMEOUT_S = 10.0

ROOT = "root"
"""Whom the configuration names: started by root Mosquitto stays root (it would drop to a user who may not read its
key); started by anybody else, even by a user id without a name, it remains who it is and ignores the line."""


class Mosquitto:
    """One broker, a child of this process, and the directory with all it has.

    `directory` holds mosquitto.conf, state/ (sessions, accounts), certificates/, password,
    gateway-password, port and broker.log. `gateway` adds an account that may publish for every meter; it
    counts only at the first start.
    """

    host = "localhost"

    def __init__(
        self, directory: Path, installation: Installation, community_id: str, *, gateway: bool = False
    ) -> None:
        self.directory = directory.absolute()
        self.installation = installation
        self.community_id = community_id
        self.gateway = gateway
        self.state = self.directory / "state"
        self.log = self.directory / "broker.log"
        self.ca_file = self.directory / "certificates" / certificates.CA_FILE
        self.password_file = self.directory / "password"
        self.gateway_password_file = self.directory / "gateway-password"
        self.port = 0
        self._broker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker and return once it accepts connections. Raises LaunchError."""
        if self._broker is not None:
            raise LaunchError("this broker is already running")
        self.state.mkdir(parents=True, exist_ok=True)
        certificates.ensure_certificates(self.ca_file.parent, datetime.datetime.now(datetime.UTC))
        self._create_accounts()
        self.port = remembered_port(self.directory / "port")
        (self.state / "access-list").write_text(access_list(self.community_id))
        conf = self.directory / "mosquitto.conf"
        conf.write_text(
            configuration.render(
                user=ROOT,
                address=LOOPBACK,
                port=self.port,
                certificates=self.ca_file.parent,
                plugin=self.installation.plugin,
                state=self.state,
            )
        )
        self._broker = start_child(
            [self.installation.program, "-c", conf],
            log=self.log,
            environment=self.installation.environment,
            death_signal=signal.SIGTERM,
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the broker in order: sessions and queues are saved."""
        if self._broker is not None:
            stop_child(self._broker)
            self._broker = None

    def kill(self) -> None:
        """SIGKILL, as if the power failed: what was not saved yet is lost. `start` resumes on the same
        port."""
        if self._broker is None:
            raise LaunchError("there is no broker to kill")
        self._broker.kill()
        self._broker.wait()
        self._broker = None

    def __enter__(self) -> "Mosquitto":
        """Start, for a `with` statement that stops at its end."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _create_accounts(self) -> None:
        document = self.state / "dynamic-security.json"
        if document.exists():
            return
        for file in (self.password_file, self.gateway_password_file):
            if not file.exists():
                write_secret(file, secrets.token_urlsafe(32))
        gateway_password = self.gateway_password_file.read_text() if self.gateway else None
        salt = secrets.token_bytes(SALT_BYTES)
        first = first_accounts(self.password_file.read_text(), salt, gateway_password)
        write_secret(document, first.decode())

    def _wait_until_it_answers(self) -> None:
        context = ssl.create_default_context(cafile=self.ca_file)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._broker is not None and self._broker.poll() is None:
            try:
                with (
                    socket.create_connection((LOOPBACK, self.port), timeout=START_TIMEOUT_S) as plain,
                    context.wrap_socket(plain, server_hostname=self.host),
                ):
                    return
            except ConnectionRefusedError:
                if not pause_until(deadline_s):
                    break
        raise LaunchError(f"Mosquitto did not start; the end of {self.log}:\n{log_tail(self.log)}")
