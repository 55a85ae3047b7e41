"""Child processes that never outlive us: not after Ctrl-C, not after an exception, not after SIGKILL.

The kernel itself ends a child when its parent dies (PR_SET_PDEATHSIG), so no watchdog has to survive us.
Linux only. The kernel's parent is the *thread* that started the child: start children from a thread that
stays.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 15

PORT_MIN, PORT_MAX = 20_000, 30_000
"""Below Linux's ephemeral range: while a server is down, no outgoing connection may take its port, and a
client that keeps retrying a loopback port of that range can even end up connected to itself."""

_ONLY_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'
"""Closes the moment between fork and prctl, in which the parent's death would go unnoticed."""


class LaunchError(Exception):
    """A program could not be found, started or stopped. The message is a sentence for an operator."""


def start_child(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    prefix: Sequence[str] = (),
) -> "subprocess.Popen[bytes]":
    """Start a program that writes to `log` (appended) and gets `death_signal` when this process dies.

    It leads its own process group: Ctrl-C in a terminal reaches us alone, and we decide the order of
    stopping. `environment` is added to ours. `prefix` is a command that changes the user and executes the
    rest.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *prefix,
        *("setpriv", f"--pdeathsig={death_signal.name.removeprefix('SIG')}"),
        *("sh", "-c", _ONLY_IF_PARENT_LIVES, str(os.getpid())),
        *map(str, arguments),
    ]
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise LaunchError(
                f"{error.filename} is missing: Commonwatt runs locally on Linux with util-linux"
            ) from error


def stop_child(
    child: "subprocess.Popen[bytes]",
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    timeout_s: float = STOP_TIMEOUT_S,
) -> int:
    """Ask a child to end, kill it if it does not within `timeout_s`, and return its exit status (negative:
    signal)."""
    if child.poll() is None:
        child.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout_s)
        child.kill()
    return child.wait()


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log file, for an error message; empty if there is no file."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def pause_until(deadline_s: float, pause_s: float = 0.02) -> bool:
    """Sleep a moment; False once the monotonic clock is past `deadline_s`."""
    time.sleep(pause_s)
    return time.monotonic() < deadline_s


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(neighbours: int = 0) -> int:
    """A loopback port that is free now, as are so many after it. Raises LaunchError if none is found."""
    for _ in range(100):
        port = PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN)
        if _are_free(port, neighbours):
            return port
    raise LaunchError(f"no free port between {PORT_MIN} and {PORT_MAX} on {LOOPBACK}")


def remembered_port(file: Path, neighbours: int = 0) -> int:
    """The port written in `file` if it and so many after it are free, otherwise a new one, which is written there.

    So that addresses stay valid when a server is killed and started again.
    """
    if file.exists():
        port = int(file.read_text())
        if _are_free(port, neighbours):
            return port
    port = free_port(neighbours)
    file.write_text(f"{port}\n")
    return port


def _are_free(port: int, neighbours: int) -> bool:
    return all(is_free(port + offset) for offset in range(neighbours + 1))


def write_secret(file: Path, secret: str) -> None:
    """Create a file that only its owner can read. Raises FileExistsError rather than overwrite."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(secret)
