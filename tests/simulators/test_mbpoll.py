"""mbpoll, a master built on libmodbus, reads our simulated homes and finds in them what really flowed."""

import asyncio
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.local.mbpoll_package import Mbpoll, find_or_fetch
from simulators.meters import configuration
from simulators.meters.pty import NullModem
from simulators.meters.server import HomeServer

CACHE = Path(__file__).parents[2] / "var" / "cache" / "mbpoll"
NOW = int(datetime(2026, 11, 20, 16, tzinfo=UTC).timestamp())
TIMEOUT_S = 60
GRID, GENERATION = 1, 2

HOME: dict[str, Any] = {
    "id": "golden",
    "measurement": "generation_and_grid",
    "household": "H0-A",
    "solar": "PV1",
    "solar_peak_w": 5_000,
    "seed": 1,
    "golden_day": "2026-11-19",
}


@pytest.fixture(scope="module")
def mbpoll() -> Mbpoll:
    return find_or_fetch(CACHE)


def polled(mbpoll: Mbpoll, *arguments: str) -> list[str]:
    """The values that one poll prints, in the order of their registers."""
    done = subprocess.run(
        [mbpoll.program, "-0", "-1", "-q", "-o", "10", *arguments],
        env={**os.environ, **mbpoll.environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^\[\d+\]:\s+(\S+)", done.stdout, re.MULTILINE)


async def poll_home(home: configuration.Home, mbpoll: Mbpoll, requests: list[list[str]], where: list[str]) -> list[Any]:
    server = HomeServer(home, lambda: NOW)
    port = await server.start()
    try:
        at = where if home.framing == "rtu" else [*where, "-p", str(port), "127.0.0.1"]
        return [await asyncio.to_thread(polled, mbpoll, *request, *at) for request in requests]
    finally:
        await server.stop()


def home_of(**changes: Any) -> configuration.Home:
    (home,) = configuration.parse({"homes": [HOME | changes]}, Path()).homes
    return home


def test_mbpoll_reads_over_tcp_what_the_profile_says(mbpoll: Mbpoll) -> None:
    home = home_of(grid_model="carlo_gavazzi_em24", generation_model="eastron_sdm630")
    truth = home.energy.at(NOW)
    requests = [
        ["-m", "tcp", "-a", str(GRID), "-t", "3:int", "-r", str(0x3E)],
        ["-m", "tcp", "-a", str(GRID), "-t", "4:int", "-r", str(0x5C)],
        ["-m", "tcp", "-a", str(GRID), "-t", "4", "-r", str(0x0B)],
        ["-m", "tcp", "-a", str(GENERATION), "-t", "3:float", "-B", "-r", str(0x48)],
    ]
    imported, exported, identification, generated = asyncio.run(poll_home(home, mbpoll, requests, []))
    assert (imported, exported) == ([str(truth.import_wh // 100)], [str(truth.export_wh // 100)])
    assert identification == ["71"]
    assert float(generated[0]) == pytest.approx(truth.generation_wh / 1_000, rel=1e-5)


def test_mbpoll_reads_over_a_serial_line_what_the_profile_says(mbpoll: Mbpoll) -> None:
    with NullModem() as cable:
        home = home_of(
            framing="rtu",
            device=str(cable.meter_end),
            baud=19_200,
            grid_model="janitza_umg",
            generation_model="orno_we516",
        )
        truth = home.energy.at(NOW)
        line = ["-m", "rtu", "-b", "19200", "-P", "none", str(cable.master_end)]
        requests = [
            ["-a", str(GRID), "-t", "4:float", "-B", "-r", "19068"],
            ["-a", str(GRID), "-t", "3:float", "-B", "-r", "19076"],
            ["-a", str(GENERATION), "-t", "4:float", "-B", "-r", str(0x0108)],
        ]
        imported, exported, generated = asyncio.run(poll_home(home, mbpoll, requests, line))
    assert float(imported[0]) == pytest.approx(truth.import_wh, rel=1e-5)
    assert float(exported[0]) == pytest.approx(truth.export_wh, rel=1e-5)
    assert float(generated[0]) == pytest.approx(truth.generation_wh // 10 * 10 / 1_000, rel=1e-5)
