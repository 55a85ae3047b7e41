"""Solana's JavaScript clients as processes, and the simulated cluster that they drive.

The packages are installed from the lock file beside this module into var/cache, by the npm of this environment, once
per lock file; afterwards no network is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
CACHE = ROOT / "var" / "cache" / "solana-clients"
PROGRAMS = Path(sys.executable).parent
LOCKED = ("package.json", "package-lock.json", ".npmrc")
INSTALL_TIMEOUT_S = 240
SCENARIO_TIMEOUT_S = 60


@dataclass(frozen=True)
class Cluster:
    """A running simulator."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def web_socket_url(self) -> str:
        """Where validators have it: on the next port."""
        return f"ws://127.0.0.1:{self.port + 1}"

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(20)


@contextmanager
def running_cluster(directory: Path, slot_ms: int, finalized_after_slots: int) -> Iterator[Cluster]:
    """A cluster of its own genesis, with a faucet, on ports that the system chooses."""
    command = [sys.executable, "-m", "commonwatt", "simulate", "solana", "--directory", directory, "--port", "0"]
    pace = ["--slot-ms", str(slot_ms), "--finalized-after-slots", str(finalized_after_slots)]
    process = subprocess.Popen([*command, *pace], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Cluster(json.loads(process.stdout.readline())["port"], process)
    finally:
        killed = process.returncode is not None
        process.terminate()
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) == 0 or killed


def told(script: str, scenario: str, cluster: Cluster) -> dict[str, Any]:
    """What a client's scenario was told by the cluster, by name."""
    arguments = [installed(), scenario, cluster.url, cluster.web_socket_url]
    node = subprocess.run(
        [PROGRAMS / "node", HERE / script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=SCENARIO_TIMEOUT_S,
    )
    assert node.returncode == 0, node.stderr + node.stdout
    return dict(json.loads(line) for line in node.stdout.splitlines())


def installed() -> Path:
    """Where the packages are."""
    content = b"".join((HERE / name).read_bytes() for name in LOCKED)
    directory = CACHE / hashlib.sha256(content).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest runs several workers
        if not directory.exists():
            _install(directory)
    return directory


def _install(directory: Path) -> None:
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in LOCKED:
        shutil.copy(HERE / name, unfinished)
    npm = subprocess.run(
        [PROGRAMS / "npm", "ci", f"--cache={CACHE / 'npm'}"],
        cwd=unfinished,
        check=False,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    assert npm.returncode == 0, npm.stderr
    unfinished.rename(directory)
