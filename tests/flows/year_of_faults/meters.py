"""The meters of a home as a year of faults finds them: what they truly show, and what arrives of it.

The encoders here know nothing of `edge`: they are written from what a register is, so that they can judge it.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.bus_settings import MeterSettings
from edge.errors import ModbusError
from edge.register_map import RegisterMap, load_register_map, parse_register_map
from simulators.meters.energy import Energy, HomeEnergy

Raw = dict[tuple[str, str], bytes]
Corruption = Callable[[Raw, int], Raw]
"""What a fault makes of one read; the number is that of the read within its round, from 0. May raise ModbusError."""


@dataclass(frozen=True)
class Model:
    """How a meter shows its numbers. `shown_wh` is what its energy register says of so many watt-hours."""

    name: str
    shown_wh: Callable[[int], int]
    energy: Callable[[int], bytes]
    power: Callable[[int], bytes]
    voltage: Callable[[int], bytes]
    frequency: Callable[[int], bytes]
    no_value: bytes
    modulus_wh: int | None = None

    def register_map(self) -> RegisterMap:
        """Its map: one of ours, or for the wheel one of the test's own."""
        if self.modulus_wh is None:
            return load_register_map(self.name)
        return parse_register_map(WHEEL_MAP, Path("wheel.toml"))


def float32(value: float) -> bytes:
    return struct.pack(">f", value)


def float32_kwh_shown(wh: int) -> int:
    kwh: float = struct.unpack(">f", struct.pack(">f", wh / 1000))[0]
    return round(kwh * 1000)  # 24 bits times 1,000 is exact in a double


def little_int32(value: int) -> bytes:
    return struct.pack(">HH", value & 0xFFFF, value >> 16 & 0xFFFF)


WHEEL_WH = 300_000
_WHEEL_REGISTER = {"function_code": 3, "word_order": "big", "source": "the test"}
WHEEL_MAP = {
    "meter": {
        "id": "wheel", "manufacturer": "Test", "model": "wheel", "source": "the test", "phases_netted": True,
        "phases_source": "the test", "registers_per_read_max": 100, "gap_registers_max": 10,
    },
    "registers": {
        **{
            f"energy_{name}": {
                **_WHEEL_REGISTER, "address": address, "type": "uint32", "unit": "kWh", "scale": 10, "quantum": 10,
                "modulus": WHEEL_WH,
            }
            for name, address in (("import", 0), ("export", 2))
        },
        "power": {**_WHEEL_REGISTER, "address": 4, "type": "int32", "unit": "W", "scale": 1, "quantum": 1},
        "voltage": {**_WHEEL_REGISTER, "address": 6, "type": "uint32", "unit": "V", "scale": 1, "quantum": 1},
        "frequency": {**_WHEEL_REGISTER, "address": 8, "type": "uint16", "unit": "Hz", "scale": 10, "quantum": 10},
    },
}  # fmt: skip

SDM630 = Model(
    "eastron_sdm630",
    float32_kwh_shown,
    lambda wh: float32(wh / 1000),
    float32,
    lambda dv: float32(dv / 10),
    lambda mhz: float32(mhz / 1000),
    bytes.fromhex("7fc00000"),
)
EM24 = Model(
    "carlo_gavazzi_em24",
    lambda wh: wh // 100 * 100,
    lambda wh: little_int32(wh // 100),
    lambda w: little_int32(10 * w),
    little_int32,
    lambda mhz: struct.pack(">h", mhz // 100),
    bytes.fromhex("ffff7fff"),
)
ABB_B23 = Model(
    "abb_b23",
    lambda wh: wh // 10 * 10,
    lambda wh: struct.pack(">Q", wh // 10),
    lambda w: struct.pack(">i", 100 * w),
    lambda dv: struct.pack(">I", dv),
    lambda mhz: struct.pack(">H", mhz // 10),
    bytes.fromhex("ffffffffffffffff"),
)
WHEEL = Model(
    "wheel",
    lambda wh: wh // 10 * 10 % WHEEL_WH,
    lambda wh: struct.pack(">I", wh // 10 % (WHEEL_WH // 10)),
    lambda w: struct.pack(">i", w),
    lambda dv: struct.pack(">I", dv),
    lambda mhz: struct.pack(">H", mhz // 10),
    bytes.fromhex("ffffffff"),
    WHEEL_WH,
)


class EnergyRegister:
    """One energy register: what it has counted since it began, or what it is stuck at."""

    def __init__(self, model: Model, start_wh: int) -> None:
        self._model = model
        self._zero_wh = -start_wh
        self.stuck_wh: int | None = None

    def counted_wh(self, true_wh: int) -> int:
        return true_wh - self._zero_wh if self.stuck_wh is None else self.stuck_wh

    def shown_wh(self, true_wh: int) -> int:
        return self._model.shown_wh(self.counted_wh(true_wh))

    def begin_at(self, counted_wh: int, true_wh: int) -> None:
        """Reset, or another meter in its place."""
        self._zero_wh = true_wh - counted_wh
        self.stuck_wh = None


REGISTERS = {  # name as the agent has it: role and quantity
    "generation": ("generation", "energy_import"),
    "grid_import": ("grid", "energy_import"),
    "grid_export": ("grid", "energy_export"),
}


def true_wh(energy: Energy) -> dict[str, int]:
    return {"generation": energy.generation_wh, "grid_import": energy.import_wh, "grid_export": energy.export_wh}


class FaultyMeters:
    """A home's meters behind a faulty line: what the agent reads from. `now_unix_s` is the true time."""

    time_max_s = 1.0

    def __init__(
        self, home: HomeEnergy, model: Model, roles: Sequence[str], starts_wh: dict[str, int], now: Callable[[], int]
    ) -> None:
        self._home = home
        self._now = now
        self.model = model
        register_map = model.register_map()
        self.settings = tuple(MeterSettings(role, i + 1, register_map, "import") for i, role in enumerate(roles))
        self.registers = {
            name: EnergyRegister(model, starts_wh[name]) for name, (role, _) in REGISTERS.items() if role in roles
        }
        self.counts: dict[str, int] = {}
        self.problems: set[str] = set()
        self.corruption: Corruption | None = None
        self._stale: tuple[Raw, dict[str, int]] | None = None
        self.shown_this_round: list[dict[str, int]] = []
        self._raw: tuple[object, Raw] = (None, {})

    def true_wh(self) -> dict[str, int]:
        everything = true_wh(self._home.at(self._now()))
        return {name: everything[name] for name in self.registers}

    def shown_wh(self) -> dict[str, int]:
        truth = self.true_wh()
        return {name: register.shown_wh(truth[name]) for name, register in self.registers.items()}

    def hold_answer(self) -> None:
        """From now on every answer is this one, as from a gateway that has lost its meters."""
        self._stale = self.honest(), self.shown_wh()

    def release_answer(self) -> None:
        self._stale = None

    def begin_round(self, corruption: Corruption | None) -> None:
        self.corruption = corruption
        self.shown_this_round = []

    def honest(self) -> Raw:
        energy = self._home.at(self._now())
        truth = true_wh(energy)
        counted = {name: register.counted_wh(truth[name]) for name, register in self.registers.items()}
        key = (energy, *counted.values())
        if self._raw[0] == key:
            return self._raw[1]
        raw: Raw = {}
        for name, wh in counted.items():
            raw[REGISTERS[name]] = self.model.energy(wh)
        for meter in self.settings:
            power_w = energy.generation_power_w if meter.role == "generation" else energy.grid_power_w
            raw[meter.role, "power"] = self.model.power(power_w)
        raw["grid", "voltage"] = self.model.voltage(2_300 + energy.import_wh % 20)
        raw["grid", "frequency"] = self.model.frequency(49_950 + energy.import_wh % 100)
        self._raw = key, raw
        return raw

    async def read(self) -> Raw:
        number = len(self.shown_this_round)
        raw, shown = self._stale or (self.honest(), self.shown_wh())
        self.shown_this_round.append(shown)
        if self.corruption is not None:
            return self.corruption(raw, number)
        return raw


def no_answer(_raw: Raw, _number: int) -> Raw:
    raise ModbusError("modbus_no_answer", "the line is dead")


def refuses(_raw: Raw, _number: int) -> Raw:
    raise ModbusError("modbus_busy", "exception 6")
