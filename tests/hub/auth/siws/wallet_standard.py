"""The wallet standard's own code, `@solana/wallet-standard-util`, as a process that tests ask.

Installed from the lock file beside this module into var/cache, by the npm of this environment, once per lock file;
afterwards no network is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parents[3] / "var" / "cache" / "siws"
PROGRAMS = Path(sys.executable).parent
LOCKED = ("package.json", "package-lock.json", ".npmrc")
INSTALL_TIMEOUT_S = 240


class Judge:
    """A running Node.js with the packages; answers in the order of the questions."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, task: str, questions: Iterable[Mapping[str, object]]) -> list[dict[str, Any]]:
        asked = [json.dumps({"task": task, **question}) + "\n" for question in questions]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        writer = threading.Thread(target=self._write, args=(asked,))  # or both pipes could fill up
        writer.start()
        answers = [json.loads(self._process.stdout.readline()) for _ in asked]
        writer.join()
        return answers

    def _write(self, lines: list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.writelines(lines)
        self._process.stdin.flush()


@contextmanager
def running_judge() -> Iterator[Judge]:
    command = [PROGRAMS / "node", HERE / "judge.mjs", installed()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Judge(process)


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
