"""The receiver: an HTTP server that keeps every request it gets, checks it, and answers as its faults say.

In its directory: `received.jsonl`, a line for each request, written before the answer; `secrets`, one `whsec_…` a line,
read for each request, of which any may have signed; `faults.json`.
"""

import base64
import json
import os
import signal
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from simulators.webhooks import signature
from simulators.webhooks.faults import Faults, Switches

RECEIVED = "received.jsonl"
SECRETS = "secrets"
BODY_BYTES_MAX = 1_000_000
IDLE_TIMEOUT_S = 60
TAKEN, REFUSED = 204, 400
CHUNK = b"x" * 65_536


@dataclass(frozen=True)
class Configuration:
    """Where the receiver keeps things, and how it is reached. Without a certificate, no TLS."""

    directory: Path
    port: int = 0
    certificate_file: Path | None = None
    key_file: Path | None = None


class Receiver(ThreadingHTTPServer):
    """Listens on the loopback address."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(("127.0.0.1", configuration.port), Handler)
        self.directory = configuration.directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.switches = Switches(self.directory)
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self.tls: ssl.SSLContext | None = None
        if configuration.certificate_file is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(configuration.certificate_file, configuration.key_file)
            self.tls.sni_callback = lambda connection, name, _: setattr(connection, "asked_for", name)

    def get_request(self) -> tuple[Any, Any]:
        """A connection; who shakes hands slowly is waited for in its own thread."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves, or does not shake hands, is no news."""

    def judge(self, headers: dict[str, str], body: bytes) -> tuple[str, bool]:
        """What a careful receiver thinks of it, nothing if it is good; and whether this webhook-id came before."""
        file = self.directory / SECRETS
        secrets = file.read_text(encoding="ascii").split() if file.exists() else []
        try:
            message_id = signature.check(headers, body, secrets, int(time.time()))
            signature.check_body(headers, body)
        except signature.WebhookRefused as refusal:
            return str(refusal), False
        with self._lock:
            repeated = message_id in self._seen
            self._seen.add(message_id)
        return "", repeated

    def keep(self, record: dict[str, object]) -> None:
        """Write a line, durably."""
        line = json.dumps(record) + "\n"
        with self._lock, (self.directory / RECEIVED).open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Receiver
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S

    def do_POST(self) -> None:
        """Keep it, judge it, answer it."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(min(length, BODY_BYTES_MAX))
        headers = {name.lower(): value for name, value in self.headers.items()}
        refusal, repeated = self.server.judge(headers, body)
        faults, status, cut = self.server.switches.next()
        self.server.keep(
            {
                "received_unix_s": time.time(),
                "asked_for": getattr(self.connection, "asked_for", None),
                "path": self.path,
                "headers": headers,
                "body_base64": base64.b64encode(body).decode(),
                "refusal": refusal,
                "repeated": repeated,
            }
        )
        self.close_connection = True
        if not cut:
            self._answer(faults, status or (REFUSED if refusal else TAKEN))

    do_GET = do_PUT = do_POST  # noqa: N815 - what follows a redirect would arrive so

    def _answer(self, faults: Faults, status: int) -> None:
        if faults.hang:
            self.server.stopping.wait()
            return
        self.server.stopping.wait(faults.delay_s)
        if faults.garbage:
            self.wfile.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            return
        lines = [f"HTTP/1.1 {307 if faults.redirect else status} As Asked", "Connection: close"]
        if faults.redirect:
            lines.append(f"Location: {faults.redirect}")
        lines += [f"Content-Length: {faults.body_bytes}", "", ""]
        head = "\r\n".join(lines).encode()
        if faults.drip_s:
            for byte in head:
                self.wfile.write(bytes([byte]))
                if self.server.stopping.wait(faults.drip_s):
                    return
        else:
            self.wfile.write(head)
        left = faults.body_bytes
        while left > 0:
            left -= self.wfile.write(CHUNK[:left])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what came is in the file."""


def serve(configuration: Configuration) -> None:
    """Take webhooks until SIGTERM or SIGINT; prints one JSON line with the port."""
    stopping = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    with Receiver(configuration) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, name="receiver")
        thread.start()
        print(json.dumps({"port": receiver.server_port}), flush=True)
        signal.sigwait(stopping)
        receiver.stopping.set()
        receiver.shutdown()
        thread.join()
