"""What is compared: the hub and the two scripts, each over a fresh database, ready, and done at a known time."""

import json
import re
import sys
import time
from typing import Protocol

import httpx
import psycopg

from infra.bench.site import COMMUNITY_ID, RUN_TIMEOUT_S, Site
from infra.local.processes import LaunchError, free_port, pause_until, start_child, stop_child
from protocol.limits import SHARDS

HUB, SCRIPT, COPY = "hub", "script", "copy"
SUBJECTS = (HUB, SCRIPT, COPY)
START_TIMEOUT_S = 60.0
POLL_PAUSE_S = 0.02
GAUGE = re.compile(r"^commonwatt_ingest_shards_read (\d+)", re.MULTILINE)


class Subject(Protocol):
    """A running consumer of all seals."""

    pids: list[int]

    def wait_until_committed(self, messages: int) -> float:
        """The monotonic time at which the last of so many messages was committed. Raises LaunchError."""

    def stop(self) -> None:
        """End it in order."""

    def stored_readings(self) -> int:
        """How many readings the database holds."""


def start(name: str, site: Site, database_url: str, messages: int, workers: int) -> Subject:
    """Start a subject and return once it is subscribed. Raises LaunchError."""
    if name == HUB:
        return Hub(site, database_url, workers)
    module, table = {SCRIPT: ("naive_script", "script_readings"), COPY: ("copy_script", "copy_readings")}[name]
    return Script(site, database_url, messages, module, table)


class Hub:
    """`commonwatt hub ingest`, one or several."""

    def __init__(self, site: Site, database_url: str, workers: int) -> None:
        self._site = site
        self._database_url = database_url
        self._names = [f"ingest-{number}" for number in range(workers)]
        ports = [free_port() for _ in self._names]
        for name, port in zip(self._names, ports, strict=True):
            environment = {
                **site.community.environment(),
                "COMMONWATT_DATABASE_URL": database_url,
                "COMMONWATT_METRICS_PORT": str(port),
                "COMMONWATT_LOG_LEVEL": "warning",
            }
            site.community.run(name, "hub", "ingest", environment=environment)
        self.pids = [site.community.processes[name].pid for name in self._names]
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _all_shards_are_shared([_shards_read(port) for port in ports]):
            site.community.check_alive()
            if not pause_until(deadline_s, POLL_PAUSE_S):
                raise LaunchError(f"ingest does not read all shards; see {site.community.log}/ingest-*.log")

    def wait_until_committed(self, messages: int) -> float:
        """Ask the streams, a row per meter, how far they are without a gap."""
        deadline_s = time.monotonic() + RUN_TIMEOUT_S
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            while True:
                row = connection.execute("SELECT sum(contiguous_sequence) FROM meter_streams").fetchone()
                if row and row[0] == messages:
                    return time.monotonic()
                if dead := [name for name in self._names if self._site.community.processes[name].poll() is not None]:
                    raise LaunchError(f"{dead} ended; see {self._site.community.log}")
                if not pause_until(deadline_s, POLL_PAUSE_S):
                    raise LaunchError(
                        f"lost: {row and row[0]} of {messages} seals are stored after {RUN_TIMEOUT_S:.0f} s"
                    )

    def stop(self) -> None:
        """End the workers as an operator would."""
        for name in self._names:
            stop_child(self._site.community.processes.pop(name))

    def stored_readings(self) -> int:
        """Readings in accepted seals. Raises LaunchError if anything is in quarantine."""
        if held := _count(self._database_url, "quarantine"):
            raise LaunchError(f"{held} messages are in quarantine")
        return _count(self._database_url, "readings")


class Script:
    """One of the two scripts."""

    def __init__(self, site: Site, database_url: str, messages: int, module: str, table: str) -> None:
        broker = site.community.broker
        self._database_url = database_url
        self._table = table
        self._output = site.community.log / f"{module}.log"
        self._output.unlink(missing_ok=True)
        options = {
            "database-url": database_url,
            "host": broker.host,
            "port": broker.port,
            "ca-file": broker.ca_file,
            "password-file": site.reader_password_file,
            "community": COMMUNITY_ID,
            "messages": messages,
            "keys": site.keys_file,
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self._process = start_child([sys.executable, "-m", f"infra.bench.{module}", *arguments], log=self._output)
        self.pids = [self._process.pid]
        self._answer("ready", START_TIMEOUT_S)

    def wait_until_committed(self, messages: int) -> float:
        """The script says so itself."""
        return float(self._answer("at_s", RUN_TIMEOUT_S))

    def stop(self) -> None:
        """End it."""
        stop_child(self._process)

    def stored_readings(self) -> int:
        """Rows in its table."""
        return _count(self._database_url, self._table)

    def _answer(self, key: str, timeout_s: float) -> float:
        deadline_s = time.monotonic() + timeout_s
        while True:
            for line in self._output.read_text().splitlines() if self._output.exists() else ():
                if line.startswith("{") and line.endswith("}") and key in (said := json.loads(line)):
                    return float(said[key])
            if self._process.poll() is not None or not pause_until(deadline_s, POLL_PAUSE_S):
                raise LaunchError(f"the script does not say {key}; see {self._output}")


def _shards_read(port: int) -> int:
    try:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.TransportError:
        return 0
    found = GAUGE.search(text.replace(".0\n", "\n"))
    return int(found[1]) if found else 0


def _all_shards_are_shared(shards: list[int]) -> bool:
    return sum(shards) == SHARDS and max(shards) == -(-SHARDS // len(shards))


def _count(database_url: str, table: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own table names
    assert row is not None
    return int(row[0])
