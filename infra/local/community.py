"""One community on this machine: PostgreSQL, Mosquitto, perhaps a mail server and a Solana cluster, and the hub's
processes, all of them children of ours."""

import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx

from infra.local.chain import Chain
from infra.local.mail import MailSimulator
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from infra.local.postgres import Postgres
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
from infra.local.solana import SolanaSimulator

READY_TIMEOUT_S = 60.0
READY_PAUSE_S = 0.1
SECRET_BYTES = 32
SECRETS = ("command-key", "broker-secret", "member-secret", "token-key")
COMMONWATT = (sys.executable, "-m", "commonwatt")


class Community:
    """Everything the hub needs and is. `directory` holds postgres/, mosquitto/, mail/, solana/, secrets/ and log/.

    Start with `start_servers`, `start_hub`; `processes` may be extended by more children (see `run`). The first admin's
    API key is in `admin_key_file`. Of several API processes `api_urls` has each by its name; `api_url` is the first.
    """

    def __init__(
        self,
        directory: Path,
        community_id: str,
        installation: Installation,
        *,
        gateway: bool = False,
        client_certificates: bool = False,
        database_settings: Sequence[str] = (),
        api_processes: int = 1,
        mail: bool = False,
        cluster: SolanaSimulator | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.community_id = community_id
        self.log = self.directory / "log"
        self.secrets = self.directory / "secrets"
        self.postgres = Postgres(self.directory / "postgres", database_settings)
        self.broker = Mosquitto(
            self.directory / "mosquitto",
            installation,
            community_id,
            gateway=gateway,
            client_certificates=client_certificates,
        )
        self.mail = MailSimulator(self.directory / "mail") if mail else None
        self.chain = None if cluster is None else Chain(cluster, self.secrets)
        self.settings = {} if settings is None else dict(settings)
        self.api_parts = ["api", *(f"api-{number}" for number in range(2, api_processes + 1))]
        self.api_urls: dict[str, str] = {}
        self.api_url = ""
        self.admin_key_file = self.secrets / "admin-key"
        self.database_url = ""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._servers = ExitStack()

    def start_servers(self) -> None:
        """Start PostgreSQL, Mosquitto and whatever else there is, and make the hub's secrets if there are none.

        Raises LaunchError.
        """
        self.secrets.mkdir(parents=True, exist_ok=True)
        for name in SECRETS:
            if not (self.secrets / name).exists():
                write_secret(self.secrets / name, secrets.token_hex(SECRET_BYTES))
        self._servers.enter_context(self.postgres)
        self._servers.enter_context(self.broker)
        if self.mail is not None:
            self._servers.enter_context(self.mail)
        if self.chain is not None:
            self._servers.enter_context(self.chain.cluster)
            self.chain.prepare()
        self.database_url = self.postgres.url()

    def start_hub(self) -> None:
        """Migrate the database, make what there is not yet of admin and program, start the hub.

        Returns when every API process says ready. Raises LaunchError.
        """
        for part in self.api_parts:
            self.api_urls[part] = f"http://{LOOPBACK}:{remembered_port(self.directory / f'{part}-port')}"
        self.api_url = self.api_urls["api"]
        self.finish(self.run("hub-migrate", "hub", "migrate", environment=self.environment()))
        if not self.admin_key_file.exists():
            bootstrap = ("hub", "bootstrap", "--key-file", self.admin_key_file)
            self.finish(self.run("hub-bootstrap", *bootstrap, environment=self.environment()))
        if self.chain is not None:
            for name, command in self.chain.deployment():
                self.finish(self.run(name, *command, environment=self.environment()))
        for part in self.parts:
            self.start_part(part)
        for part in self.api_parts:
            self.wait_until_ready(part)

    @property
    def parts(self) -> list[str]:
        """The hub's processes by name."""
        return [*self.api_parts, "ingest", "jobs", *([] if self.chain is None else ["chain"])]

    def start_part(self, part: str) -> None:
        """Start one of the hub's processes, at first or again: one of `parts`."""
        environment = self.environment()
        if part in self.api_parts:
            environment["COMMONWATT_API_PORT"] = self.api_urls[part].rpartition(":")[2]
        self.run(f"hub-{part}", "hub", part.partition("-")[0], environment=environment)

    def wait_until_ready(self, part: str) -> None:
        """Return when this API process would serve. Raises LaunchError."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready(part):
            self.check_alive()
            if not pause_until(deadline_s, READY_PAUSE_S):
                raise LaunchError(f"{part} is not ready after {READY_TIMEOUT_S:.0f} s; its logs are in {self.log}")

    def environment(self) -> dict[str, str]:
        """The hub's settings."""
        return {
            "COMMONWATT_DATABASE_URL": self.database_url,
            "COMMONWATT_COMMUNITY_ID": self.community_id,
            "COMMONWATT_MQTT_HOST": self.broker.host,
            "COMMONWATT_MQTT_PORT": str(self.broker.port),
            "COMMONWATT_MQTT_CA_FILE": str(self.broker.ca_file),
            "COMMONWATT_MQTT_PASSWORD_FILE": str(self.broker.password_file),
            "COMMONWATT_COMMAND_KEY_FILE": str(self.secrets / "command-key"),
            "COMMONWATT_BROKER_SECRET_FILE": str(self.secrets / "broker-secret"),
            "COMMONWATT_MEMBER_SECRET_FILE": str(self.secrets / "member-secret"),
            "COMMONWATT_TOKEN_KEY_FILE": str(self.secrets / "token-key"),
            "COMMONWATT_PUBLIC_URL": self.api_url,
            "COMMONWATT_WEBHOOK_NETWORKS_ALLOWED": f"{LOOPBACK}/32",
            **({} if self.mail is None else self.mail.environment()),
            **({} if self.chain is None else self.chain.environment()),
            **self.settings,
        }

    def run(self, name: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> str:
        """Start `commonwatt <arguments>` as a child called `name`, with a log of that name; returns the name."""
        log = self.log / f"{name}.log"
        self.processes[name] = start_child([*COMMONWATT, *arguments], log=log, environment=environment)
        return name

    def finish(self, name: str, timeout_s: float = READY_TIMEOUT_S) -> str:
        """Wait until a child has ended well and return what it wrote. Raises LaunchError."""
        process = self.processes[name]
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise LaunchError(f"{name} did not end within {timeout_s:.0f} s; see {self.log}/{name}.log") from error
        self._refuse_failure(name, status)
        del self.processes[name]
        return (self.log / f"{name}.log").read_text()

    def check_alive(self) -> None:
        """Raise LaunchError if a child has failed."""
        for name, process in self.processes.items():
            status = process.poll()
            if status is not None:
                self._refuse_failure(name, status)

    def client(self) -> httpx.Client:
        """An HTTP client of the API that is allowed everything that a machine may be."""
        key = self.admin_key_file.read_text().strip()
        return httpx.Client(base_url=self.api_url, headers={"Authorization": f"Bearer {key}"}, timeout=READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop everything in the order of the stream: what produces before what stores."""
        children = list(reversed(self.processes.values()))
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            stop_child(child)
        self.processes.clear()
        self._servers.close()

    def __enter__(self) -> Self:
        """For a `with` statement that stops everything at its end; starts nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _is_ready(self, part: str) -> bool:
        try:
            return httpx.get(f"{self.api_urls[part]}/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _refuse_failure(self, name: str, status: int) -> None:
        if status != 0:
            log = self.log / f"{name}.log"
            raise LaunchError(f"{name} ended with status {status}; the end of {log}:\n{log_tail(log)}")
