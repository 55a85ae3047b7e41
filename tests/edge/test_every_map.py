"""Every register map against its simulated meter, over TCP, over a gateway and over a serial line.

The tables of the simulated meters were written from the makers' documents without looking at our maps, so where both
agree on the energy, twice somebody read the document so.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from edge.bus_settings import SerialBus, TcpBus
from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT
from edge.errors import SettingsError
from edge.home_reader import HomeReader
from edge.modbus_bus import ModbusBus
from edge.poll import energy_registers, read_poll
from edge.register import UNIT_SCALES, Block, Register, quantum
from edge.register_map import MAPS_DIRECTORY
from edge.settings import Settings, load_settings
from edge.sunspec import discover
from simulators.meters.bus import meter_unit
from simulators.meters.lines import SerialLine, TcpLine
from simulators.meters.measured import Measured
from simulators.meters.meter import Meter
from simulators.meters.models import MODELS
from simulators.meters.pty import NullModem

FRAMINGS = ("tcp", "rtu_over_tcp", "rtu")
"""For every meter, also where it has only one of them itself: a gateway may stand before it."""
WITHOUT_EXPORT = {"carlo_gavazzi_em24_import": "carlo_gavazzi_em24"}
"""They can count generation only; by the map and model of the meter that is at the grid connection beside them."""
MAPS = sorted(path.stem for path in MAPS_DIRECTORY.glob("*.toml"))
SUNSPEC = sorted(name for name in MODELS if name.startswith("sunspec"))
DER = "sunspec_701"
BAUD = 19_200
NOW_UNIX_S = 1_800_000_000
POWER_W = -1_500
GRID_WH = [
    (0, 0),
    (1, 999),
    (12_345, 54_321),
    (8_192_001, 16_777_217),
    (99_999_999, 123_456_789),
    (999_999_900, 999_999_899),
]
GENERATED_BEFORE_WH = 7_654_321


class Truth:
    """What really passed through the two meters."""

    def __init__(self) -> None:
        self.import_wh, self.export_wh, self.generated_wh = 0, 0, GENERATED_BEFORE_WH

    def moved(self, import_wh: int, export_wh: int) -> None:
        """So much passed the grid connection, and as much as came in was generated on top of what there was."""
        self.import_wh, self.export_wh, self.generated_wh = import_wh, export_wh, GENERATED_BEFORE_WH + import_wh

    def grid(self, time_unix_s: int) -> Measured:
        return Measured(self.import_wh, self.export_wh, POWER_W, time_unix_s, 1)

    def generation(self, time_unix_s: int) -> Measured:
        return Measured(self.generated_wh, 0, 1_500, time_unix_s, 1, is_generation=True)


@asynccontextmanager
async def a_home(model: str, framing: str) -> AsyncIterator[tuple[Truth, str]]:
    """Two simulated meters, of one model if it can be both, on one line, and the `[[bus]]` keys that lead to it."""
    truth = Truth()
    grid_model = MODELS[WITHOUT_EXPORT.get(model, model)]
    meters = Meter(grid_model, 1, truth.grid), Meter(MODELS[model], 2, truth.generation)
    units = {meter.unit: meter_unit(meter, lambda: NOW_UNIX_S) for meter in meters}
    if framing == "rtu":
        with NullModem() as cable:
            line = SerialLine(units, cable.meter_end, BAUD)
            await line.start()
            yield truth, f'device = "{cable.master_end}"\nbaud = {BAUD}'
            await line.stop()
        return
    port = TcpLine(units, 0, framing)
    yield truth, f'host = "127.0.0.1"\nport = {await port.start()}'
    await port.stop()


def configuration(
    directory: Path, framing: str, where: str, map_: str, energy: str, grid_map: str | None = None
) -> Settings:
    file = directory / "edge.toml"
    file.write_text(f"""
community_id = "sunny-street"
meter_id = "home-17"
kind = "solar"
measurement = "generation_and_grid"
owner = "{"0f" * 32}"
[[bus]]
type = "{framing}"
{where}
pause_ms = 2
[[bus.meter]]
role = "grid"
unit = 1
map = "{grid_map or map_}"
[[bus.meter]]
role = "generation"
unit = 2
map = "{map_}"
energy = "{energy}"
[mqtt]
host = "127.0.0.1"
ca_file = "ca.crt"
password_file = "mqtt.password"
""")
    return load_settings(file)


def shown_wh(register: Register, energy_wh: int, raw: bytes) -> int:
    """What a register with this step and type shows of an energy, in whole watt-hours."""
    if register.modulus_scaled is not None:
        energy_wh %= register.modulus_scaled
    if register.type.startswith("float"):
        step = register.quantum or Fraction(1)
        number = float(energy_wh // step * step / UNIT_SCALES[register.unit])
        (number,) = struct.unpack(">f", struct.pack(">f", number)) if register.type == "float32" else (number,)
        return round(Fraction(number) * UNIT_SCALES[register.unit])
    step = quantum(register, raw)
    return round(energy_wh // step * step)


async def check(settings: Settings, truth: Truth) -> None:
    reader = HomeReader(settings.buses)
    registers = energy_registers(settings.meters)
    turned_over = [(wh, wh) for _, register in registers.values() if (wh := (register.modulus_scaled or 0) + 12_345)]
    for import_wh, export_wh in GRID_WH + turned_over:
        truth.moved(import_wh, export_wh)
        raw = await reader.read()
        poll = read_poll(settings.meters, raw)
        passed_wh = {GRID_IMPORT: truth.import_wh, GRID_EXPORT: truth.export_wh, GENERATION: truth.generated_wh}
        for name, (role, register) in registers.items():
            assert poll.registers_wh[name] == shown_wh(register, passed_wh[name], raw[role, register.quantity]), name
        assert poll.power_w is None or abs(poll.power_w - POWER_W) <= 1
        assert poll.voltage_dv is None or abs(poll.voltage_dv - 2_300) <= 20
        assert poll.frequency_mhz is None or abs(poll.frequency_mhz - 50_000) <= 100
    assert not reader.counts
    reader.close()


def run(story: Callable[[], object]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("map_", MAPS)
def test_the_energy_that_a_meter_measured_is_the_energy_that_we_read(tmp_path: Path, map_: str, framing: str) -> None:
    async def story() -> None:
        async with a_home(map_, framing) as (truth, where):
            grid_map = WITHOUT_EXPORT.get(map_, map_)
            await check(configuration(tmp_path, framing, where, map_, "import", grid_map), truth)

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("model", SUNSPEC)
def test_a_sunspec_meter_is_read_by_the_map_that_discovery_writes(tmp_path: Path, model: str, framing: str) -> None:
    async def story() -> None:
        async with a_home(model, framing) as (truth, where):
            to_find = configuration(tmp_path, framing, where, "eastron_sdm630", "import").buses[0]
            assert isinstance(to_find, TcpBus | SerialBus)
            bus = ModbusBus(to_find)
            found = await discover(lambda address, count: bus.read_block(1, Block(3, address, count)))
            bus.close()
            assert [f"sunspec_{meter.model_id}" for meter in found] == [model]
            (tmp_path / "found.toml").write_text(found[0].map_toml)
            energy = "export" if model == DER else "import"
            await check(configuration(tmp_path, framing, where, "found.toml", energy), truth)

    run(story)


@pytest.mark.parametrize("map_", WITHOUT_EXPORT)
def test_a_meter_that_counts_no_export_is_refused_at_the_grid_connection(tmp_path: Path, map_: str) -> None:
    with pytest.raises(SettingsError, match=f"{map_} has no energy_export register"):
        configuration(tmp_path, "tcp", 'host = "127.0.0.1"', "eastron_sdm630", "import", map_)


def test_every_map_has_a_simulated_meter() -> None:
    assert {*MODELS} - {*SUNSPEC} == {*MAPS}
