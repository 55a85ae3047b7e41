"""The simulated meters over a real TCP connection, read as anybody would read the real ones."""

import asyncio
import json
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from simulators.meters import configuration
from simulators.meters.faults import Fault, Kind, Schedule
from simulators.meters.pty import NullModem
from simulators.meters.server import HomeServer

MIDNIGHT = int(datetime(2026, 11, 19, tzinfo=UTC).timestamp())
NOW = MIDNIGHT + 40 * 3_600
GRID, GENERATION, CLOCK = 1, 2, 247
START_TIMEOUT_S = 20

HOME: dict[str, Any] = {
    "id": "golden",
    "measurement": "generation_and_grid",
    "household": "H0-A",
    "solar": "PV1",
    "solar_peak_w": 5_000,
    "seed": 1,
    "golden_day": "2026-11-19",
    "import_start_wh": 100_000,
    "export_start_wh": 50_000,
    "generation_start_wh": 200_000,
}

Scene = Callable[[AsyncModbusTcpClient], Awaitable[None]]


@asynccontextmanager
async def meter(**changes: Any) -> AsyncIterator[AsyncModbusTcpClient]:
    described = {key: value for key, value in (HOME | changes).items() if value is not None}
    (home,) = configuration.parse({"homes": [described]}, Path()).homes
    server = HomeServer(home, lambda: NOW)
    client = AsyncModbusTcpClient("127.0.0.1", port=await server.start(), timeout=5)
    try:
        assert await client.connect()
        yield client
    finally:
        client.close()
        await server.stop()
        await asyncio.sleep(0)


def play(scene: Scene, **changes: Any) -> None:
    async def run() -> None:
        async with meter(**changes) as client:
            await scene(client)

    asyncio.run(run())


async def floats(client: AsyncModbusTcpClient, address: int, count: int = 1, unit: int = GRID) -> list[float]:
    answer = await client.read_input_registers(address, count=2 * count, device_id=unit)
    assert not answer.isError(), answer
    return list(struct.unpack(f">{count}f", struct.pack(f">{2 * count}H", *answer.registers)))


async def energy_wh(client: AsyncModbusTcpClient) -> tuple[int, int, int]:
    """Generation, import, export in whole Wh."""
    (generation,) = await floats(client, 0x48, unit=GENERATION)
    imported, exported = await floats(client, 0x48, 2)
    return round(generation * 1_000), round(imported * 1_000), round(exported * 1_000)


async def set_clock(client: AsyncModbusTcpClient, time_unix_s: int) -> None:
    words = list(struct.unpack(">4H", struct.pack(">q", time_unix_s)))
    answer = await client.write_registers(0, words, device_id=CLOCK)
    assert not answer.isError()


async def exception_code(answer: Awaitable[Any]) -> int:
    code: int = (await answer).exception_code
    return code


def test_the_golden_day_comes_out_of_the_registers_to_the_watt_hour() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        before = (200_000, 100_000, 50_000)
        for end in range(MIDNIGHT, MIDNIGHT + 86_401, 900):
            await set_clock(client, end)
            found = await energy_wh(client)
            hour = (end - MIDNIGHT) / 3_600
            production = found[0] - before[0]
            net = production - (production + found[1] - before[1] - (found[2] - before[2]))
            expected = (0, 0)
            if 6 < hour <= 8:
                expected = (625, 375)
            elif 8 < hour <= 10:
                expected = (1_250, 1_000)
            elif 12.5 < hour <= 17.5:
                expected = (250, 0)
            assert (production, net) == expected, hour
            before = found
        assert before[0] == 220_000

    play(scene)


def test_the_registers_of_the_document_hold_what_it_says() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        await set_clock(client, MIDNIGHT + 9 * 3_600 + 30)
        volts = await floats(client, 0x00, 3)
        assert all(225 < volt < 235 for volt in volts)
        (power_w,) = await floats(client, 0x34)
        assert power_w == pytest.approx(-4_000, abs=100)
        assert sum(await floats(client, 0x0C, 3)) == pytest.approx(power_w, abs=1)
        (frequency,) = await floats(client, 0x46)
        assert 49.9 < frequency < 50.1
        imported, exported = await floats(client, 0x48, 2)
        (total,) = await floats(client, 0x156)
        assert total == pytest.approx(imported + exported, abs=1e-4)
        assert sum(await floats(client, 0x15A, 3)) == pytest.approx(imported, abs=1e-3)
        (generated,) = await floats(client, 0x48, unit=GENERATION)
        assert await floats(client, 0x156, unit=GENERATION) == [generated]
        assert await floats(client, 0x4A, unit=GENERATION) == [0.0]

    play(scene)


def test_a_block_of_forty_parameters_is_read_at_once_and_reserved_slots_are_zero() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        block = await floats(client, 0x00, 40)
        assert block[0x2C // 2] == 0.0
        assert block[0x48 // 2] == pytest.approx((await floats(client, 0x48))[0])

    play(scene)


@pytest.mark.parametrize(
    ("address", "count", "unit", "code"),
    [
        (0x35, 2, GRID, 2),
        (0x34, 1, GRID, 2),
        (0x34, 3, GRID, 2),
        (0x6A, 4, GRID, 2),
        (0x6C, 2, GRID, 2),
        (0x70, 2, GRID, 2),
        (0x17E, 2, GRID, 2),
        (0x7531, 2, GRID, 2),
        (0xFFFE, 2, GENERATION, 2),
        (0x00, 82, GRID, 3),
        (0x00, 125, GRID, 3),
        (0x34, 2, 3, 11),
    ],
)
def test_what_the_meter_does_not_have_it_refuses(address: int, count: int, unit: int, code: int) -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        request = client.read_input_registers(address, count=count, device_id=unit)
        assert await exception_code(request) == code

    play(scene)


def test_energy_is_not_in_the_holding_registers() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        assert await exception_code(client.read_holding_registers(0x48, count=2, device_id=GRID)) == 2
        assert await exception_code(client.read_coils(0, count=8, device_id=GRID)) == 1
        assert await exception_code(client.write_registers(0x02, [0, 0], device_id=GRID)) == 1
        assert await exception_code(client.write_register(0x02, 0, device_id=GRID)) == 1

    play(scene)


def test_two_meters_have_two_serial_numbers() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        grid = await client.read_holding_registers(0xFC00, count=2, device_id=GRID)
        generation = await client.read_holding_registers(0xFC00, count=2, device_id=GENERATION)
        assert not grid.isError()
        assert grid.registers != generation.registers

    play(scene)


def test_a_request_for_more_registers_than_modbus_allows_is_an_illegal_value() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        port = client.comm_params.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for function, count in ((4, 126), (3, 126), (4, 0), (4, 0xFFFF)):
                writer.write(struct.pack(">HHHBBHH", 7, 0, 6, GRID, function, 0, count))
                answer = await asyncio.wait_for(reader.readexactly(9), 5)
                assert answer == struct.pack(">HHHBBB", 7, 0, 3, GRID, function | 0x80, 3)
        finally:
            writer.close()
            await writer.wait_closed()

    play(scene)


def test_a_large_register_can_no_longer_name_every_watt_hour() -> None:
    """Between 65,536 and 131,072 kWh a float has a step of 7.8 Wh."""

    async def scene(client: AsyncModbusTcpClient) -> None:
        (imported,) = await floats(client, 0x48)
        exact_wh = 100_000_003
        assert imported * 1_000 != exact_wh
        assert abs(imported * 1_000 - exact_wh) <= 4
        assert imported == struct.unpack(">f", struct.pack(">f", exact_wh / 1_000))[0]
        await set_clock(client, MIDNIGHT)

    play(scene, golden_day=None, installed="2027-01-01", import_start_wh=100_000_003)


def test_the_laboratory_clock_moves_the_home_and_lets_it_go_again() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        real = await energy_wh(client)
        await set_clock(client, MIDNIGHT + 8 * 3_600)
        answer = await client.read_holding_registers(0, count=4, device_id=CLOCK)
        assert struct.unpack(">q", struct.pack(">4H", *answer.registers)) == (MIDNIGHT + 8 * 3_600,)
        assert (await energy_wh(client))[0] == 205_000
        await set_clock(client, 0)
        assert await energy_wh(client) == real

    play(scene)


def test_the_laboratory_clock_takes_a_whole_plausible_time_or_nothing() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        for address, words, code in (
            (0, [0, 0, 1], 2),
            (1, [0, 0, 0, 1], 2),
            (4, [1], 2),
            (0, [0, 0, 0, 1], 3),
            (0, [0xFFFF] * 4, 3),
        ):
            assert await exception_code(client.write_registers(address, words, device_id=CLOCK)) == code
        assert await exception_code(client.read_input_registers(0, count=4, device_id=CLOCK)) == 1
        assert await exception_code(client.read_holding_registers(1, count=4, device_id=CLOCK)) == 2
        assert (await client.read_holding_registers(0, count=4, device_id=CLOCK)).registers == [0] * 4

    play(scene)


def test_a_net_only_home_has_no_generation_meter() -> None:
    async def scene(client: AsyncModbusTcpClient) -> None:
        assert len(await floats(client, 0x48, 2)) == 2
        assert await exception_code(client.read_input_registers(0x48, count=2, device_id=GENERATION)) == 11

    play(scene, measurement="net_only", golden_day=None, installed="2026-11-01")


def test_a_fault_of_the_file_befalls_the_meter_at_its_time_and_one_switched_on_at_once() -> None:
    async def run() -> None:
        fault = {"role": "generation", "kind": "zero", "start": "2026-11-19T12:00:00Z", "end": "2026-11-19T12:01:00Z"}
        (home,) = configuration.parse({"homes": [HOME | {"faults": [fault]}]}, Path()).homes
        server = HomeServer(home, lambda: NOW)
        client = AsyncModbusTcpClient("127.0.0.1", port=await server.start(), timeout=5)
        try:
            assert await client.connect()
            await set_clock(client, MIDNIGHT + 12 * 3_600 + 30)
            assert await floats(client, 0x48, unit=GENERATION) == [0.0]
            await set_clock(client, MIDNIGHT + 12 * 3_600 + 60)
            assert (await floats(client, 0x48, unit=GENERATION))[0] > 200
            server.meters["generation"].faults = Schedule([Fault(Kind.EXCEPTION, 0, size=6)])
            assert await exception_code(client.read_input_registers(0x48, count=2, device_id=GENERATION)) == 6
        finally:
            client.close()
            await server.stop()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_the_command_serves_a_home_on_a_serial_device_and_says_which(tmp_path: Path) -> None:
    with NullModem() as cable:
        config = tmp_path / "homes.toml"
        config.write_text(
            '[[homes]]\nid = "home-01"\nmeasurement = "net_only"\nhousehold = "H0-B"\nseed = 3\n'
            'installed = "2026-11-01"\nframing = "rtu"\nbaud = 115200\ngrid_model = "siemens_pac2200"\n'
            f'device = "{cable.meter_end}"\n',
            encoding="utf-8",
        )
        process = subprocess.Popen(
            [sys.executable, "-c", "from simulators.cli import app; app()", "meters", "--config", str(config)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            assert line == {"home": "home-01", "device": str(cable.meter_end)}

            async def read() -> float:
                client = AsyncModbusSerialClient(str(cable.master_end), baudrate=115_200, timeout=5)
                assert await client.connect()
                answer = await client.read_holding_registers(801, count=4, device_id=GRID)
                client.close()
                return float(struct.unpack(">d", struct.pack(">4H", *answer.registers))[0])

            assert asyncio.run(read()) >= 100_000
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_TIMEOUT_S) == 0
        finally:
            process.kill()
            process.communicate()


def test_the_command_serves_every_home_until_it_is_told_to_stop(tmp_path: Path) -> None:
    homes = ""
    for home_id in ("home-01", "home-02"):
        homes += (
            f'[[homes]]\nid = "{home_id}"\nmeasurement = "net_only"\nhousehold = "H0-B"\n'
            'seed = 3\ninstalled = "2026-11-01"\n'
        )
    config = tmp_path / "homes.toml"
    config.write_text('ports_file = "ports.json"\n' + homes, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", "from simulators.cli import app; app()", "meters", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        ports = {line["home"]: line["port"] for line in lines}
        assert list(ports) == ["home-01", "home-02"]

        async def read() -> None:
            for port in ports.values():
                client = AsyncModbusTcpClient("127.0.0.1", port=port)
                assert await client.connect()
                assert len(await floats(client, 0x48, 2)) == 2
                client.close()

        asyncio.run(read())
        assert json.loads((tmp_path / "ports.json").read_text(encoding="utf-8")) == ports
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_TIMEOUT_S) == 0
    finally:
        process.kill()
        process.communicate()
