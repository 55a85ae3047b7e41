"""No client can make the hub wait for ever: not for its request, not for it to take its answer, not by being many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import uvicorn
from websockets.sync.client import connect

from hub.limits.connections import HEAD_BYTES_MAX, BoundedConnection

GIVE_UP_S = 20.0
CHUNK = b"x" * 65_536


class Impatient(BoundedConnection):
    """The same with less patience, so that the tests need less."""

    head_timeout_s = 0.8
    stalled_timeout_s = 1.5
    look_every_s = 0.1
    connections_max = 6
    newest = None

    def connection_made(self, transport):
        super().connection_made(transport)
        Impatient.newest = transport.get_extra_info("socket")


async def _answer(scope, receive, send):
    """A small application: `/big` is more than any buffer holds, `/slow` takes its time, a WebSocket speaks late."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(1.5)
        await send({"type": "websocket.send", "text": "still here"})
        await send({"type": "websocket.close"})
        return
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    chunks = 1_000 if scope["path"] == "/big" else 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(chunks):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": number + 1 < chunks})


@pytest.fixture
def server():
    config = uvicorn.Config(
        _answer,
        http=Impatient,
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        lifespan="off",
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def connected(server):
    with contextlib.ExitStack() as stack:

        def open_connection():
            connection = stack.enter_context(socket.create_connection(server))
            connection.settimeout(GIVE_UP_S)
            return connection

        yield open_connection


def _is_ended(connection, drip=b""):
    """Whether the hub ends the connection, while we go on sending a byte now and then."""
    deadline_s = time.monotonic() + GIVE_UP_S
    connection.settimeout(0.2)
    while time.monotonic() < deadline_s:
        try:
            if drip:
                connection.send(drip)
            if connection.recv(65_536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_connection_on_which_nothing_comes_is_ended(connected):
    assert _is_ended(connected())


def test_a_head_that_never_ends_is_ended_however_busily_it_drips(connected):
    connection = connected()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\n")
    assert _is_ended(connection, drip=b"X")


def test_nor_can_one_drip_behind_an_answer(connected):
    connection = connected()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert _is_ended(connection, drip=b"G")


def test_nor_behind_a_body_that_nobody_waits_for(connected):
    connection = connected()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert _is_ended(connection, drip=b"b")


def test_a_client_that_takes_nothing_of_its_answer_is_ended(connected):
    connection = connected()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.sendall(b"GET /big HTTP/1.1\r\nHost: hub\r\n\r\n")
    time.sleep(3.5)  # without reading
    taken = 0
    with contextlib.suppress(OSError):
        while part := connection.recv(1 << 20):
            taken += len(part)
    assert taken < 1_000 * len(CHUNK), "the rest was given up"


def test_a_client_that_takes_its_answer_slowly_but_steadily_gets_all_of_it(connected):
    connection = connected()
    connection.sendall(b"GET /big HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
    taken, begun_s = 0, time.monotonic()
    while part := connection.recv(1 << 20):
        taken += len(part)
        if time.monotonic() < begun_s + 3:
            time.sleep(0.05)
    assert taken >= 1_000 * len(CHUNK)


def test_the_body_of_an_answer_does_not_wait_until_its_head_is_acknowledged(connected):
    """It is written behind the head; the kernel would hold it back until then, for 40 ms, unless told not to."""
    connection = connected()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
    assert connection.recv(65_536)
    assert Impatient.newest.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_client_may_wait_for_us_as_long_as_we_need(server):
    assert httpx.get(f"http://{server[0]}:{server[1]}/slow", timeout=GIVE_UP_S).status_code == 200


def test_a_websocket_may_be_silent(server):
    with connect(f"ws://{server[0]}:{server[1]}/", proxy=None) as connection:
        assert connection.recv(timeout=GIVE_UP_S) == "still here"


def _problem(connection):
    answer = b""
    while part := connection.recv(65_536):
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    problem = json.loads(body)
    assert b"Content-Type: application/problem+json" in head
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["status"] == status
    return status, problem["code"]


def test_one_connection_too_many_is_told_so_and_the_others_go_on(connected):
    kept = [connected() for _ in range(Impatient.connections_max)]
    for connection in kept:  # that they are there
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: hub\r\n\r\n")
    deadline_s = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(ConnectionError):
            one_more = connected()
            assert _problem(one_more) == (503, "too_many_connections")
            break
    assert kept[0].recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00 not http at all\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_too(connected, garbage):
    connection = connected()
    connection.sendall(garbage)
    assert _problem(connection) == (400, "bad_request")


def test_headers_beyond_the_limit_are_a_problem_too(connected):
    connection = connected()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\nX: " + b"x" * (HEAD_BYTES_MAX - 1_000))
    connection.sendall(b"x" * 2_000)
    assert _problem(connection) == (431, "headers_too_large")


def test_the_hub_takes_as_many_connections_as_the_system_lets_it_have():
    """In a process of its own: what a process may open is for the whole of it."""
    script = (
        "import resource\n"
        "from hub.limits.connections import BoundedConnection, FILES_BESIDES, allow_open_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1_000))\n"
        "allow_open_files()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE), BoundedConnection.connections_max + FILES_BESIDES)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000", "1000", "1000"]
