"""The process: JSON-RPC over HTTP and subscriptions over WebSocket on one port, WebSocket also on the next, as
validators have it; CORS for every origin.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from simulators.solana import errors
from simulators.solana.node import Configuration, ConnectionCut, Node, now_unix_ms
from simulators.solana.pubsub import PubSub
from simulators.solana.pubsub_socket import Socket

LOOPBACK = "127.0.0.1"
BODY_BYTES_MAX = 50 * 1024
WEBSOCKET_BYTES_MAX = 1024 * 1024
KEEP_ALIVE_S = 75
CORS_MAX_AGE_S = 86_400
PORT_TRIES = 50
SHUTDOWN_S = 2
NOT_JSON = "Supplied content type is not allowed. Content-Type: application/json is required\n"
NOT_POST = "Used HTTP Method is not allowed. POST or OPTIONS is required\n"


@dataclass(frozen=True)
class Listening:
    """Where the node is reached."""

    port: int = 0
    ready_file: Path | None = None


class Connections:
    """The transports of all clients, so that they can be cut."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._open: weakref.WeakValueDictionary[tuple[str, int], asyncio.Transport] = weakref.WeakValueDictionary()

    def add(self, transport: asyncio.Transport) -> None:
        """Somebody has connected."""
        self._open[transport.get_extra_info("peername")[:2]] = transport
        if self.node.refusing:
            transport.abort()

    def cut(self, client: tuple[str, int]) -> None:
        """End one connection without a word."""
        transport = self._open.pop(client, None)
        if transport is not None:
            transport.abort()

    def cut_all(self) -> None:
        """End all of them."""
        for client in list(self._open):
            self.cut(client)


def protocol_of(connections: Connections) -> type[H11Protocol]:
    """uvicorn's protocol, whose connections can be cut."""

    class Cuttable(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections.add(transport)

    return Cuttable


def application(node: Node, connections: Connections, pubsub: PubSub) -> Starlette:
    """HTTP and WebSocket, on whichever port they come."""

    async def rpc(request: Request) -> Response | Cut:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return PlainTextResponse(NOT_JSON, 415)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                return PlainTextResponse("Payload too large\n", 413)
        try:
            answer = await _answer(node, body)
        except ConnectionCut:
            return Cut(connections)
        text = "" if answer is None else json.dumps(answer, separators=(",", ":"))
        return Response(text, media_type="application/json", headers={"Access-Control-Allow-Origin": "*"})

    async def preflight(request: Request) -> Response:
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "OPTIONS, POST",
            "Access-Control-Allow-Headers": request.headers.get("access-control-request-headers", "content-type"),
            "Access-Control-Max-Age": str(CORS_MAX_AGE_S),
        }
        return Response(headers=headers)

    async def other(_: Request) -> Response:
        return PlainTextResponse(NOT_POST, 405)

    async def health(_: Request) -> Response:
        answer = await node.answer({"jsonrpc": "2.0", "id": 1, "method": "getHealth"})
        return PlainTextResponse("ok" if "result" in answer else "behind")

    async def websocket(client: WebSocket) -> None:
        await Socket(client, pubsub).serve()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(node.tick(connections.cut_all)), asyncio.create_task(pubsub.run())]
        for task in tasks:
            task.add_done_callback(_die_with)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    routes = [
        Route("/", rpc, methods=["POST"]),
        Route("/", preflight, methods=["OPTIONS"]),
        Route("/health", health),
        Route("/", other, methods=["GET", "PUT", "DELETE", "PATCH"]),
        WebSocketRoute("/", websocket),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


class Cut:
    """Instead of a response."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cut the connection that the request came by."""
        self._connections.cut(tuple(scope["client"]))


async def _answer(node: Node, body: bytes) -> Any:
    try:
        asked = json.loads(body)
    except ValueError:
        return {"jsonrpc": "2.0", "error": errors.parse_error().as_json(), "id": None}
    if isinstance(asked, list):
        answers = [await node.answer(each) for each in asked]
        return [each for each in answers if each is not None] or None
    return await node.answer(asked)


class Server(uvicorn.Server):
    """uvicorn without handlers of signals: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them."""
        yield


async def serve(configuration: Configuration, listening: Listening) -> None:
    """Be a cluster until SIGTERM or SIGINT; {"port", "websocket_port"} goes to stdout, and into the ready file, once it
    answers. Raises LedgerUnreadable, OSError.
    """
    sockets = bind(listening.port)
    port = sockets[0].getsockname()[1]
    node = Node(configuration)
    await node.start()
    connections = Connections(node)
    pubsub = PubSub(node, node.answer, now_unix_ms)
    server = Server(
        uvicorn.Config(
            application(node, connections, pubsub),
            http=protocol_of(connections),
            ws="websockets-sansio",
            ws_max_size=WEBSOCKET_BYTES_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
            lifespan="on",
        )
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, _stop, server)
    serving = asyncio.create_task(server.serve(sockets))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    if server.started:
        _say_ready(listening.ready_file, {"port": port, "websocket_port": port + 1})
    await serving
    await node.stop()


def bind(port: int) -> list[socket.socket]:
    """Sockets on a port and the next; 0: some that are free. Raises OSError."""
    for attempt in range(PORT_TRIES):
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) for _ in range(2))
        for each in (first, second):  # asyncio sets TCP_NODELAY only on sockets that say that they are TCP's
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            first.bind((LOOPBACK, port))
            second.bind((LOOPBACK, first.getsockname()[1] + 1))
        except (OSError, OverflowError):
            first.close()
            second.close()
            if port or attempt == PORT_TRIES - 1:
                raise
            continue
        return [first, second]
    raise AssertionError("the last attempt returns or raises")


def _die_with(task: asyncio.Task[None]) -> None:
    """Without its ticks or its notices a node is none: better that everybody sees it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)
        os._exit(1)


def _stop(server: Server) -> None:
    server.should_exit = True


def _say_ready(ready_file: Path | None, ports: dict[str, int]) -> None:
    text = json.dumps(ports)
    if ready_file is not None:
        part = ready_file.with_name(f".{ready_file.name}.part")
        part.write_text(text, encoding="utf-8")
        part.rename(ready_file)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
