"""API processes of their own, and clients that do what no library does: read nothing, ping without end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from hub.settings import Settings

ROOT = Path(__file__).parents[3]
STOP_TIMEOUT_S = 30


@dataclass
class ApiProcess:
    """`commonwatt hub api`, listening."""

    process: subprocess.Popen[str]
    url: str

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def open_connections(self) -> int:
        """Connections of clients that the process holds."""
        port = urlsplit(self.url).port
        return sum(
            each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
            for each in psutil.Process(self.process.pid).net_connections("tcp")
        )

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def running_process(settings: Settings, log: Path, files: int | None = None) -> Iterator[ApiProcess]:
    values = {
        f"COMMONWATT_{name.upper()}": ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in settings.model_dump(exclude_unset=True).items()
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMONWATT_")}
    environment = inherited | values | {"COMMONWATT_API_PORT": "0", "PYTHONPATH": str(ROOT)}
    limit = [] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*limit, sys.executable, "-m", "commonwatt", "hub", "api"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                output.write(line)
                if '"api_listening"' in line:
                    address = json.loads(line)["address"]
                    break
            else:
                raise AssertionError(f"the API does not start; see {log}")
            draining = subprocess.Popen(["cat"], stdin=process.stderr, stdout=output)
            yield ApiProcess(process, address)
        finally:
            process.kill()
            process.wait()
            draining.wait(STOP_TIMEOUT_S)
            process.stderr.close()


class RawSocket:
    """A WebSocket by hand: nothing is read unless it is asked to, nothing is answered."""

    def __init__(self, url: str, receive_buffer_bytes: int = 4_096) -> None:
        parts = urlsplit(url)
        self._protocol = ClientProtocol(parse_uri(f"ws://{parts.netloc}/live"), max_size=None)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(15)
        self.socket.connect((parts.hostname, parts.port))
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        while not self._protocol.events_received():
            self._protocol.receive_data(self.socket.recv(4_096))
        assert self._protocol.handshake_exc is None
        self._frames: deque[Frame] = deque()

    def send(self, **message: object) -> None:
        self._protocol.send_text(json.dumps(message).encode())
        self._flush()

    def ping(self) -> None:
        self._protocol.send_ping(bytes(125))
        self._flush()

    def read_frame(self) -> dict[str, object]:
        """The next one. Raises EOFError at the end."""
        while not self._frames:
            data = self.socket.recv(4_096)
            if not data:
                raise EOFError
            self._protocol.receive_data(data)
            self._frames += self._protocol.events_received()
        frame = self._frames.popleft()
        if frame.opcode is Opcode.CLOSE:
            raise EOFError
        return json.loads(frame.data)

    def close(self) -> None:
        self.socket.close()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.socket.sendall(data)
