"""A node that lies: it asks a true one, and changes what that answers before it passes it on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

Lie = Callable[[str, list[Any], Any], Any]
"""What to answer, from the method, its parameters and the true result."""


@dataclass
class LyingNode:
    """`lie` may be changed at any time; None: it is honest."""

    url: str
    lie: Lie | None = None
    asked: list[str] = field(default_factory=list)


@contextmanager
def lying_node(true_url: str) -> Iterator[LyingNode]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every answer waits 40 ms

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = client.post(true_url, json=request).json()
            node.asked.append(request["method"])
            if node.lie is not None and "result" in answer:
                answer["result"] = node.lie(request["method"], request.get("params", []), answer["result"])
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with httpx.Client(timeout=20) as client, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        node = LyingNode(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield node
        finally:
            server.shutdown()
            thread.join()
