"""What a device makes of whatever answers where the hub should be."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from edge.errors import HubRefusedError, HubUnansweredError, SettingsError
from edge.hub_client import ANSWER_BYTES_MAX, post
from edge.uplink_settings import HubSettings

Answering = Callable[[bytes], HubSettings]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """A server on loopback that answers every request with these bytes, and ends the connection."""
    servers: list[socket.socket] = []

    def serve(server: socket.socket, answer: bytes) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(answer)

    def start(answer: bytes) -> HubSettings:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=serve, args=(server, answer), daemon=True).start()
        return HubSettings(f"http://127.0.0.1:{server.getsockname()[1]}", None, None)

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers])
    return head.encode() + b"\r\n\r\n" + body


def test_what_the_hub_answers_is_returned(answering: Answering) -> None:
    assert post(answering(http("201 Created", b'{"key_epoch": 2}')), "/meters/home-17/keys", {}) == {"key_epoch": 2}


def test_a_refusal_by_the_hub_itself_is_definite(answering: Answering) -> None:
    body = b'{"code": "rotation_base_differs", "title": "No", "detail": "seal 7"}'
    with pytest.raises(HubRefusedError, match="rotation_base_differs: No: seal 7"):
        post(answering(http("409 Conflict", body)), "/x", {})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        http("200 OK", b"<html>Please log in</html>", "Content-Type: text/html"),
        http("302 Found", b"", "Location: http://127.0.0.1:1/"),
        http("409 Conflict", b"<html>proxy</html>"),
        http("503 Service Unavailable", b'{"code": "database_away"}'),
        http("201 Created", b"[]"),
        http("201 Created", b'{"a": "' + b"x" * 2 * ANSWER_BYTES_MAX + b'"}'),
        http("201 Created", b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
    ],
)
def test_anything_else_tells_nothing_about_what_the_hub_did(answering: Answering, answer: bytes) -> None:
    with pytest.raises(HubUnansweredError, match="hub_unanswered"):
        post(answering(answer), "/x", {})


def test_without_an_address_nothing_is_asked() -> None:
    with pytest.raises(SettingsError, match=r"hub\.url"):
        post(HubSettings("", None, None), "/x", {})
