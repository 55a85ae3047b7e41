"""Several meters on one line, over TCP, RTU over TCP and a serial cable, asked by a client that is not ours."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from simulators.meters.bus import Bus, meter_unit
from simulators.meters.faults import Fault, Kind, Schedule
from simulators.meters.framing import crc, silence_s
from simulators.meters.lines import SerialLine, TcpLine
from simulators.meters.measured import Measured
from simulators.meters.meter import Meter
from simulators.meters.models import MODELS
from simulators.meters.pty import NullModem

NOW = 1_795_176_000
TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 0.3
"""How long a client here waits for an answer that must not come."""
UNITS = {1: "eastron_sdm630", 5: "carlo_gavazzi_em24", 9: "abb_b23", 30: "siemens_pac2200"}

Client = AsyncModbusTcpClient | AsyncModbusSerialClient
Scene = Callable[[Client], Awaitable[None]]


def meters(faults: Schedule | None = None) -> dict[int, Meter]:
    return {
        unit: Meter(
            MODELS[name],
            unit,
            lambda moment, unit=unit: Measured(1_000_000 * unit, 500_000, 1_200, moment, unit),
            faults or Schedule(),
        )
        for unit, name in UNITS.items()
    }


def bus_of(on_the_line: dict[int, Meter]) -> Bus:
    return {unit: meter_unit(meter, lambda: NOW) for unit, meter in on_the_line.items()}


@asynccontextmanager
async def tcp(framing: str, timeout_s: float, faults: Schedule | None = None) -> AsyncIterator[AsyncModbusTcpClient]:
    line = TcpLine(bus_of(meters(faults)), 0, framing)
    framer = FramerType.SOCKET if framing == "tcp" else FramerType.RTU
    port = await line.start()
    client = AsyncModbusTcpClient("127.0.0.1", port=port, framer=framer, timeout=timeout_s, retries=0)
    try:
        assert await client.connect()
        yield client
    finally:
        client.close()
        await line.stop()
        await asyncio.sleep(0)


@asynccontextmanager
async def serial(
    timeout_s: float, faults: Schedule | None = None, cable: NullModem | None = None
) -> AsyncIterator[AsyncModbusSerialClient]:
    with cable or NullModem() as modem:
        line = SerialLine(bus_of(meters(faults)), modem.meter_end, 115_200)
        await line.start()
        client = AsyncModbusSerialClient(str(modem.master_end), baudrate=115_200, timeout=timeout_s, retries=0)
        try:
            assert await client.connect()
            yield client
        finally:
            client.close()
            await line.stop()
            await asyncio.sleep(0)


def play(framing: str, scene: Scene, timeout_s: float = TIMEOUT_S, faults: Schedule | None = None) -> None:
    async def run() -> None:
        async with serial(timeout_s, faults) if framing == "rtu" else tcp(framing, timeout_s, faults) as client:
            await scene(client)

    asyncio.run(run())


async def imports_wh(client: Client) -> list[int]:
    """Of the four meters, each in its own way."""
    sdm = await client.read_input_registers(0x48, count=2, device_id=1)
    em24 = await client.read_input_registers(0x3E, count=2, device_id=5)
    b23 = await client.read_holding_registers(0x5000, count=4, device_id=9)
    pac = await client.read_holding_registers(801, count=4, device_id=30)
    (kwh,) = struct.unpack(">f", struct.pack(">2H", *sdm.registers))
    (tenths,) = struct.unpack(">i", struct.pack(">2H", *reversed(em24.registers)))
    (hundredths,) = struct.unpack(">Q", struct.pack(">4H", *b23.registers))
    (wh,) = struct.unpack(">d", struct.pack(">4H", *pac.registers))
    return [round(kwh * 1_000), tenths * 100, hundredths * 10, int(wh)]


async def answered(client: Client) -> None:
    """The SDM630 answers, if need be at the third attempt: the client here is impatient, the machine may be busy."""
    for _ in range(2):
        with suppress(ModbusIOException):
            assert not (await client.read_input_registers(0x48, count=2, device_id=1)).isError()
            return
    assert not (await client.read_input_registers(0x48, count=2, device_id=1)).isError()


FRAMINGS = ["tcp", "rtu_over_tcp", "rtu"]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_four_makes_of_meter_share_a_line(framing: str) -> None:
    async def scene(client: Client) -> None:
        for _ in range(3):
            assert await imports_wh(client) == [1_000_000, 5_000_000, 9_000_000, 30_000_000]

    play(framing, scene)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_meter_refuses_alike_on_every_line(framing: str) -> None:
    async def scene(client: Client) -> None:
        for function, address, count, code in ((3, 0x48, 2, 2), (4, 0x6A, 4, 2), (4, 0, 82, 3)):
            read = client.read_holding_registers if function == 3 else client.read_input_registers
            assert (await read(address, count=count, device_id=1)).exception_code == code
        assert (await client.read_coils(0, count=1, device_id=1)).exception_code == 1
        assert (await client.read_input_registers(0x5000, count=4, device_id=9)).exception_code == 1

    play(framing, scene)


def test_a_gateway_says_that_a_unit_is_not_there_and_a_serial_line_says_nothing() -> None:
    async def refused(client: Client) -> None:
        assert (await client.read_input_registers(0x48, count=2, device_id=7)).exception_code == 0x0B

    async def silent(client: Client) -> None:
        with pytest.raises(ModbusIOException):
            await client.read_input_registers(0x48, count=2, device_id=7)
        await answered(client)

    play("tcp", refused)
    for framing in ("rtu", "rtu_over_tcp"):
        play(framing, silent, SILENCE_TIMEOUT_S)


def test_a_damaged_request_is_met_with_silence_and_the_next_one_with_an_answer() -> None:
    damaged: list[bytes] = []

    def flip_once(sent: bytes) -> bytes:
        if damaged:
            return sent
        damaged.append(sent)
        return sent[:3] + bytes((sent[3] ^ 0x10,)) + sent[4:]

    async def run() -> None:
        async with serial(SILENCE_TIMEOUT_S, cable=NullModem(flip_once)) as client:
            with pytest.raises(ModbusIOException):
                await client.read_input_registers(0x48, count=2, device_id=1)
            assert len(damaged) == 1
            await answered(client)

    asyncio.run(run())


def test_noise_before_a_request_spoils_it_unless_a_silence_lies_between() -> None:
    request = b"\x01\x04\x00\x48\x00\x02"
    request += crc(request)

    async def answer(reader: asyncio.StreamReader) -> bytes:
        return await asyncio.wait_for(reader.readexactly(9), TIMEOUT_S)

    async def run() -> None:
        line = TcpLine(bus_of(meters()), 0, "rtu_over_tcp")
        reader, writer = await asyncio.open_connection("127.0.0.1", await line.start())
        try:
            writer.write(b"\x00\xff" + request)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), SILENCE_TIMEOUT_S)
            writer.write(request[:4])
            await writer.drain()
            writer.write(request[4:])
            whole = await answer(reader)
            assert whole[:3] == b"\x01\x04\x04"
            assert crc(whole[:-2]) == whole[-2:]
            writer.write(b"\x00" + request[1:-2] + crc(b"\x00" + request[1:-2]))  # a broadcast
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), SILENCE_TIMEOUT_S)
        finally:
            writer.close()
            await writer.wait_closed()
            await line.stop()

    asyncio.run(run())


def test_the_checksum_and_the_silence_are_those_of_the_specification() -> None:
    """The document of the SDM320Y, an Eastron like ours, prints these frames."""
    assert crc(bytes.fromhex("010401560002")) == bytes.fromhex("9027")
    assert crc(bytes.fromhex("01040443663334")) == bytes.fromhex("1b38")
    assert silence_s(9_600) == pytest.approx(0.00401, abs=1e-5)
    assert silence_s(115_200) == 0.00175


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_meter_that_keeps_silent_or_answers_half_gives_no_reading(framing: str) -> None:
    async def scene(client: Client) -> None:
        with pytest.raises(ModbusIOException):
            await client.read_input_registers(0x48, count=2, device_id=1)

    for fault in (Fault(Kind.SILENT, 0), Fault(Kind.SHORT, 0, size=3)):
        play(framing, scene, SILENCE_TIMEOUT_S, Schedule([fault]))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_slow_meter_answers_in_the_end_and_a_busy_one_refuses(framing: str) -> None:
    async def slow(client: Client) -> None:
        assert not (await client.read_input_registers(0x48, count=2, device_id=1)).isError()

    async def busy(client: Client) -> None:
        assert (await client.read_input_registers(0x48, count=2, device_id=1)).exception_code == 6

    play(framing, slow, faults=Schedule([Fault(Kind.SLOW, 0, size=150)]))
    play(framing, busy, faults=Schedule([Fault(Kind.EXCEPTION, 0, size=6)]))


def test_a_stream_that_is_not_modbus_is_hung_up_on() -> None:
    async def run() -> None:
        line = TcpLine(bus_of(meters()), 0, "tcp")
        reader, writer = await asyncio.open_connection("127.0.0.1", await line.start())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
        writer.close()
        await line.stop()

    asyncio.run(run())


def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        asyncio.run(SerialLine({}, tmp_path / "nowhere", 9_600).start())


@pytest.mark.parametrize("number", [203, 213, 701])
def test_the_alliances_own_client_discovers_a_sunspec_meter(number: int) -> None:
    meter = Meter(MODELS[f"sunspec_{number}"], 1, lambda moment: Measured(1_234_560, 77_770, 900, moment, 4))

    def discover(port: int) -> tuple[str, float, float]:
        device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr="127.0.0.1", ipport=port, timeout=TIMEOUT_S)
        device.scan()
        model = device.models[number][0]
        names = ("TotWhAbs", "TotWhInj") if number == 701 else ("TotWhImp", "TotWhExp")
        found = [model.points[name].cvalue for name in names]
        maker = device.models[1][0].points["Mn"].value
        device.close()
        return maker, *found

    async def run() -> None:
        line = TcpLine({1: meter_unit(meter, lambda: NOW)}, 0, "tcp")
        port = await line.start()
        try:
            maker, imported, exported = await asyncio.to_thread(discover, port)
        finally:
            await line.stop()
        assert (maker, imported, exported) == ("Simulated Meters", 1_234_560, 77_770)

    asyncio.run(run())
