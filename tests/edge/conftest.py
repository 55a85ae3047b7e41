"""Real meters over real Modbus TCP, and a home configured to read them."""

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from nacl.signing import SigningKey
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.settings import Settings, load_settings

# Tests run in parallel on small machines: how long one example takes says nothing.
hypothesis.settings.register_profile("edge", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("edge")

IMPORT, EXPORT, TOTAL, POWER, VOLTAGE, FREQUENCY = 0x48, 0x4A, 0x156, 0x34, 0x00, 0x46
GRID, GENERATION, LABORATORY_CLOCK = 1, 2, 247
# An authority that signed nothing: enough for a context that will never connect.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhR+Uw1JH7EnCMfvs7meSAqNi9PbTzAFBgMrZXAwDzENMAsG
A1UEAwwEdGVzdDAgFw0yNjExMjAxMDA0MzdaGA8yMTI2MTAyNzEwMDQzN1owDzEN
MAsGA1UEAwwEdGVzdDAqMAUGAytlcAMhAMpCPE4luCWjTVhjl5e6RI2OQN3nCjyH
HzgWgePLHyCqo1MwUTAdBgNVHQ4EFgQUctjoGJLdPqLk158iIWZH9cpHZ4MwHwYD
VR0jBBgwFoAUctjoGJLdPqLk158iIWZH9cpHZ4MwDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQB1Pi1/8Gydv/Kg4UGrzG16pgCnWV5eoxNcxWLui4xzgLX43Gz2yL6J
qTl92fUF9WQk5AKuHA+sSdrFxSNjT6cA
-----END CERTIFICATE-----
"""


class Meters:
    """A Modbus TCP server with two SDM630 and a laboratory clock. Values are float32, or raw bytes to lie with."""

    def __init__(self) -> None:
        self.raw: dict[tuple[int, int], bytes] = {}
        self.refuse: ExcCodes | None = None
        self.reads = 0
        self.at_time: Callable[[int], None] | None = None
        self.laboratory_times: list[int] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def set(self, unit: int, address: int, value: float) -> None:
        self.raw[unit, address] = struct.pack(">f", value)

    def home_wh(self, generation: int, imported: int, exported: int) -> None:
        self.set(GENERATION, IMPORT, generation / 1000)
        self.set(GRID, IMPORT, imported / 1000)
        self.set(GRID, EXPORT, exported / 1000)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        floats = SimData(0, count=0x180, values=0, datatype=DataType.REGISTERS)
        devices = [
            SimDevice(GRID, [floats], action=self._meter(GRID)),
            SimDevice(GENERATION, [floats], action=self._meter(GENERATION)),
            SimDevice(
                LABORATORY_CLOCK,
                [SimData(0, count=4, values=0, datatype=DataType.REGISTERS)],
                action=self._clock,
            ),
        ]
        server = ModbusTcpServer(devices, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        assert isinstance(server.transport, asyncio.Server)
        self.port = server.transport.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await server.shutdown()

    def _meter(self, unit: int):  # type: ignore[no-untyped-def]
        async def answer(
            function: int, start: int, address: int, count: int, registers: list[int], new: object
        ) -> ExcCodes | None:
            self.reads += 1
            for (of_unit, at), raw in list(self.raw.items()):
                if of_unit == unit and start <= at < start + len(registers) - 1:
                    registers[at - start : at - start + 2] = struct.unpack(">HH", raw)
            return self.refuse

        return answer

    async def _clock(
        self, function: int, start: int, address: int, count: int, registers: list[int], new: object
    ) -> None:
        if new is not None:
            assert isinstance(new, list)
            now = int.from_bytes(struct.pack(">4H", *new), "big")
            self.laboratory_times.append(now)
            if self.at_time is not None and now:
                self.at_time(now)


@pytest.fixture
def meters() -> Iterator[Meters]:
    server = Meters()
    server.set(GRID, POWER, -250.0)
    server.set(GRID, VOLTAGE, 230.5)
    server.set(GRID, FREQUENCY, 49.98)
    server.home_wh(100_000, 50_000, 20_000)
    yield server
    server.stop()


@pytest.fixture
def hub_key() -> SigningKey:
    return SigningKey(b"h" * 32)


@pytest.fixture
def config_text(hub_key: SigningKey) -> Callable[..., str]:
    def make(port: int, broker_port: int = 1, sampling: str = "") -> str:
        return f"""
community_id = "sunny-street"
meter_id = "home-17"
kind = "solar"
measurement = "generation_and_grid"
owner = "{"0f" * 32}"
[[bus]]
type = "tcp"
host = "127.0.0.1"
port = {port}
timeout_s = 1
retries = 0
[[bus.meter]]
role = "grid"
unit = {GRID}
map = "eastron_sdm630"
[[bus.meter]]
role = "generation"
unit = {GENERATION}
map = "eastron_sdm630"
[sampling]
clock_check = "trust"
{sampling}
[mqtt]
host = "127.0.0.1"
port = {broker_port}
ca_file = "ca.crt"
password_file = "mqtt.password"
[hub]
command_public_key = "{bytes(hub_key.verify_key).hex()}"
[laboratory]
clock_unit = {LABORATORY_CLOCK}
"""

    return make


@pytest.fixture
def config_file(tmp_path: Path, meters: Meters, config_text: Callable[..., str]) -> Path:
    file = tmp_path / "edge.toml"
    file.write_text(config_text(meters.port))
    (tmp_path / "mqtt.password").touch(mode=0o600)
    (tmp_path / "mqtt.password").write_text("not-a-secret\n")
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    return file


@pytest.fixture
def settings(config_file: Path) -> Settings:
    return load_settings(config_file)


@pytest.fixture
def quarter() -> int:
    """A boundary of the settlement interval, not long ago."""
    return int(time.time()) // 900 * 900 - 86_400


class HubApi:
    """What a hub says to a device, at the wire: `answer` turns path and body into a status and a JSON object."""

    def __init__(self) -> None:
        self.answer: Callable[[str, dict[str, Any]], tuple[int, object]] = lambda _path, _body: (201, {})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hub.asked.append((self.path, body))
                status, answer = hub.answer(self.path, body)
                if status:  # 0: the connection ends without an answer
                    data = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def hub() -> Iterator[HubApi]:
    made = HubApi()
    yield made
    made.stop()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[], ModbusTcpServer]], int]]:
    """Runs a Modbus TCP server until the test ends; gives its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: list[ModbusTcpServer] = []

    def start(make: Callable[[], ModbusTcpServer]) -> int:
        async def begin() -> int:
            server = make()
            await server.serve_forever(background=True)
            servers.append(server)
            assert isinstance(server.transport, asyncio.Server)
            return int(server.transport.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(begin(), loop).result(10)

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.shutdown(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
