"""Serves simulated homes over Modbus TCP, RTU over TCP or a serial line.

Unit 1 is the grid meter, unit 2 the generation meter, unit 247 the laboratory clock of the home. Protocol and
frames are our own (simulators/meters/bus, framing, lines), so that no library is tested against itself.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from simulators.meters import measured
from simulators.meters.bus import Unit, meter_unit
from simulators.meters.configuration import GENERATION, GRID, RTU, Configuration, Home
from simulators.meters.laboratory_clock import LaboratoryClock
from simulators.meters.lines import Line, SerialLine, TcpLine
from simulators.meters.meter import Meter
from simulators.meters.models import MODELS

GRID_UNIT, GENERATION_UNIT, CLOCK_UNIT = 1, 2, 247


class HomeServer:
    """One home on one line. `now_unix_s` is the real clock; `meters` by role, whose faults may be changed."""

    def __init__(self, home: Home, now_unix_s: Callable[[], int]) -> None:
        self.home = home
        self.clock = LaboratoryClock()
        self._now_unix_s = now_unix_s
        energy, seed = home.energy, home.seed
        self.meters = {
            GRID: Meter(
                MODELS[home.grid_model],
                GRID_UNIT,
                lambda moment: measured.grid_meter(energy.at(moment), moment, seed),
                home.grid_faults,
            )
        }
        if home.has_generation_meter:
            self.meters[GENERATION] = Meter(
                MODELS[home.generation_model],
                GENERATION_UNIT,
                lambda moment: measured.generation_meter(energy.at(moment), moment, seed),
                home.generation_faults,
            )
        bus: dict[int, Unit] = {meter.unit: meter_unit(meter, self.time_unix_s) for meter in self.meters.values()}
        bus[CLOCK_UNIT] = self.clock.reply
        self._line: Line = (
            SerialLine(bus, Path(home.device), home.baud)
            if home.framing == RTU
            else TcpLine(bus, home.port, home.framing)
        )

    async def start(self) -> int:
        """Listen and return the port, 0 for a serial line. Raises OSError if the port or device cannot be had."""
        try:
            return await self._line.start()
        except OSError as error:
            raise OSError(f"{self.home.home_id}: cannot serve: {error}") from error

    async def stop(self) -> None:
        """Stop listening and drop the connections."""
        await self._line.stop()

    def time_unix_s(self) -> int:
        """The instant as of which this home answers."""
        return self.clock.time_unix_s or self._now_unix_s()


async def serve(configuration: Configuration, now_unix_s: Callable[[], int] = lambda: int(time.time())) -> None:
    """Serve every home until SIGTERM or SIGINT.

    One JSON line {"home": …, "port": …} (or "device") per home goes to stdout; then the ports file, if any, is
    written.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    servers: list[HomeServer] = []
    ports: dict[str, int] = {}
    try:
        for home in configuration.homes:
            server = HomeServer(home, now_unix_s)
            servers.append(server)
            port = await server.start()
            where: dict[str, str | int] = {"device": home.device} if home.framing == RTU else {"port": port}
            if home.framing != RTU:
                ports[home.home_id] = port
            sys.stdout.write(json.dumps({"home": home.home_id, **where}) + "\n")
        sys.stdout.flush()
        if configuration.ports_file is not None:
            _write_whole(configuration.ports_file, json.dumps(ports) + "\n")
        await stopping.wait()
    finally:
        for server in servers:
            await server.stop()


def _write_whole(path: Path, text: str) -> None:
    """Whoever waits for the file never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
