"""A private receiver of webhooks on a loopback port: the simulator, and what it got."""

import base64
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from infra.local.processes import (
    LOOPBACK,
    LaunchError,
    log_tail,
    pause_until,
    remembered_port,
    start_child,
    stop_child,
)

START_TIMEOUT_S = 20.0


class WebhookReceiver:
    """One receiver, a child of this process. Secrets that sign for it belong into `secrets_file`, one a line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log = self.directory.parent / f"{self.directory.name}.log"
        self.secrets_file = self.directory / "secrets"
        self.url = ""
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it listens. Raises LaunchError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        port = remembered_port(self.directory / "port")
        self.url = f"http://{LOOPBACK}:{port}/notifications"
        self._server = start_child(
            [
                *(sys.executable, "-m", "commonwatt", "simulate", "webhooks"),
                *("--directory", self.directory, "--port", str(port)),
            ],
            log=self.log,
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            if self._server.poll() is not None or not pause_until(deadline_s):
                raise LaunchError(f"the receiver did not start; the end of {self.log}:\n{log_tail(self.log)}")

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            stop_child(self._server)
            self._server = None

    def fail(self, **faults: object) -> None:
        """Let these faults, and no others, happen from now on (simulators/webhooks/faults.py); none: all is well."""
        part = self.directory / ".faults.json.part"
        part.write_text(json.dumps(faults))
        part.rename(self.directory / "faults.json")

    def received(self, kind: str) -> list[dict[str, Any]]:
        """What came of this kind: `headers`, `refusal` (empty if its signature is good), `repeated`, `payload`."""
        file = self.directory / "received.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        records = [json.loads(line) for line in lines]
        for record in records:
            record["payload"] = json.loads(base64.b64decode(record["body_base64"]))
        return [record for record in records if record["payload"]["type"] == kind]

    def __enter__(self) -> "WebhookReceiver":
        """Start, for a `with` statement that stops at its end."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=START_TIMEOUT_S):
            return True
    except ConnectionRefusedError:
        return False
