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
from infra.mosquitto.client_authority import ClientAuthority

START_TIMEOUT_S = 10.0

ROOT = "root"
"""Whom the configuration names: started by root Mosquitto stays root (it would drop to a user who may not read its
key); started by anybody else, even by a user id without a name, it remains who it is and ignores the line."""


class Mosquitto:
    """One broker, a child of this process, and the directory with all it has.

    `directory` holds mosquitto.conf, state/ (sessions, accounts), certificates/, password,
    gateway-password, port and broker.log. `gateway` adds an account that may publish for every meter; it
    counts only at the first start. `client_certificates` adds a second port, `certificate_port`, for meters that show
    a certificate of `client_authority` (client-authority/) instead of a password.
    """

    host = "localhost"

    def __init__(
        self,
        directory: Path,
        installation: Installation,
        community_id: str,
        *,
        gateway: bool = False,
        client_certificates: bool = False,
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
        self.certificate_port = 0
        self.client_authority: ClientAuthority | None = None
        self._client_certificates = client_certificates
        self._broker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker and return once it accepts connections. Raises LaunchError."""
        if self._broker is not None:
            raise LaunchError("this broker is already running")
        self.state.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC)
        certificates.ensure_certificates(self.ca_file.parent, now)
        self._create_accounts()
        self.port = remembered_port(self.directory / "port")
        listener = None
        if self._client_certificates:
            authority = ClientAuthority(self.directory / "client-authority", self.community_id, now)
            self.client_authority = authority
            port_file = self.directory / "certificate-port"
            while (port := remembered_port(port_file)) == self.port:
                port_file.unlink()
            self.certificate_port = port
            listener = configuration.CertificateListener(self.certificate_port, authority.directory)
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
                certificate_listener=listener,
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

    def read_again(self) -> None:
        """SIGHUP: certificates and the list of revoked ones are read again. Returns before that is done."""
        if self._broker is None:
            raise LaunchError("there is no broker to tell")
        self._broker.send_signal(signal.SIGHUP)

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
