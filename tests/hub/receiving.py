"""A receiver of webhooks as the hub sees it: a process of its own, with faults that a test sets."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local.certificates import CA_FILE, KEY_FILE, SERVER_FILE

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Received:
    """A request that came. `refusal` is empty if the receiver thinks it good; `asked_for` is the name said in TLS."""

    asked_for: str | None
    path: str
    headers: dict[str, str]
    body: bytes
    refusal: str
    repeated: bool

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> dict[str, object]:
        return json.loads(self.body)


@dataclass(frozen=True)
class Receiver:
    """Where it listens, and its directory."""

    scheme: str
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hooks?house=7"

    def trust(self, *secrets: str) -> None:
        """The secrets of which any may have signed."""
        (self.directory / "secrets").write_text("\n".join(secrets))

    def fail(self, **faults: object) -> None:
        """What is wrong with it from now on; nothing without faults."""
        (self.directory / "faults.json").write_text(json.dumps(faults))

    def received(self) -> list[Received]:
        """What has come, in its order."""
        file = self.directory / "received.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [
            Received(
                line["asked_for"],
                line["path"],
                line["headers"],
                base64.b64decode(line["body_base64"]),
                line["refusal"],
                line["repeated"],
            )
            for line in map(json.loads, lines)
        ]


@contextlib.contextmanager
def running_receiver(directory: Path, certificates: Path | None = None) -> Iterator[Receiver]:
    """A receiver with nothing in its directory; with a certificate for the loopback address, if one is given."""
    arguments = ["--directory", str(directory)]
    if certificates is not None:
        arguments += ["--certificate-file", str(certificates / SERVER_FILE), "--key-file", str(certificates / KEY_FILE)]
    process = subprocess.Popen(
        [sys.executable, "-m", "commonwatt", "simulate", "webhooks", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield Receiver("http" if certificates is None else "https", port, directory)
    finally:
        process.terminate()
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) == 0


def authority(certificates: Path) -> Path:
    """Who vouches for the certificates in this directory."""
    return certificates / CA_FILE
