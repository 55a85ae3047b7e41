"""`commonwatt edge discover`: which SunSpec meters a device has, written down as maps that the agent then reads by."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.bus_settings import (
    BAUD_MAX,
    BAUD_MIN,
    PARITIES,
    PORT_MAX,
    TCP_UNIT_MAX,
    TCP_UNIT_MIN,
    UNIT_MAX,
    UNIT_MIN,
    SerialBus,
    TcpBus,
)
from edge.command_line import fail, finish
from edge.errors import DiscoveryError
from edge.modbus_bus import ModbusBus
from edge.register import Block
from edge.sunspec import SunspecMeter
from edge.sunspec import discover as discover_meters

READ_HOLDING_REGISTERS = 3
TIMEOUT_S = 3
RETRIES = 2

app = typer.Typer()


@app.command()
def discover(
    host: Annotated[str | None, typer.Option(help="Address of the device, or of a gateway to its line.")] = None,
    port: Annotated[int, typer.Option(min=1, max=PORT_MAX)] = 502,
    rtu_over_tcp: Annotated[bool, typer.Option("--rtu-over-tcp", help="The gateway passes RTU frames on.")] = False,
    device: Annotated[Path | None, typer.Option(help="Or: the serial device, such as /dev/ttyUSB0.")] = None,
    baud: Annotated[int, typer.Option(min=BAUD_MIN, max=BAUD_MAX)] = 9_600,
    parity: Annotated[Literal["none", "even", "odd"], typer.Option()] = "none",
    stop_bits: Annotated[int, typer.Option(min=1, max=2)] = 1,
    unit: Annotated[
        int,
        typer.Option(
            min=TCP_UNIT_MIN,
            max=TCP_UNIT_MAX,
            help=f"Its unit number; on a line and behind a gateway to one {UNIT_MIN} to {UNIT_MAX}.",
        ),
    ] = 1,
    directory: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Where the maps are written: beside the configuration.")
    ] = Path(),
) -> None:
    """Ask a SunSpec device for its meters, and write the register map of each. Overwrites nothing."""
    if (host is None) == (device is None):
        raise typer.BadParameter("--host or --device, one of them")
    if (device is not None or rtu_over_tcp) and not UNIT_MIN <= unit <= UNIT_MAX:
        raise typer.BadParameter(f"--unit: {unit} is not from {UNIT_MIN} to {UNIT_MAX}, as on any serial line")
    bus: TcpBus | SerialBus
    if host is not None:
        bus = TcpBus("the bus", host, port, "rtu" if rtu_over_tcp else "tcp", TIMEOUT_S, RETRIES, ())
    else:
        assert device is not None
        bus = SerialBus("the bus", device, baud, PARITIES[parity], stop_bits, TIMEOUT_S, RETRIES, ())
    meters = finish(_discover(bus, unit))
    files = [directory / _file_name(unit, number) for number, _ in enumerate(meters, 1)]
    if present := [str(file) for file in files if file.exists()]:
        fail(DiscoveryError("map_exists", f"{', '.join(present)}: move it away, a map that is in use is not replaced"))
    for meter, file in zip(meters, files, strict=True):
        try:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(meter.map_toml)
        except OSError as error:
            fail(DiscoveryError("map_unwritable", f"{file}: {error.strerror}"))
        typer.echo(f'{file}: model {meter.model_id}; in the configuration, map = "{file.name}"')
        for remark in meter.remarks:
            typer.echo(f"  {remark}")


async def _discover(bus: TcpBus | SerialBus, unit: int) -> list[SunspecMeter]:
    asked = ModbusBus(bus)

    async def read(address: int, count: int) -> bytes:
        return await asked.read_block(unit, Block(READ_HOLDING_REGISTERS, address, count))

    try:
        return await discover_meters(read)
    finally:
        asked.close()


def _file_name(unit: int, number: int) -> str:
    return f"sunspec-unit-{unit}.toml" if number == 1 else f"sunspec-unit-{unit}-{number}.toml"
