"""What the doctor says of meters, from settings and bytes alone; and once of real ones."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from edge.bus_settings import MeterSettings, TcpBus
from edge.doctor import examine
from edge.errors import SettingsError
from edge.meter_findings import (
    RegisterLine,
    explain_bus,
    explain_identities,
    explain_phases,
    explain_registers,
    register_quantum_wh,
    word_order_suspicions,
)
from edge.register_map import RegisterMap, load_register_map
from edge.settings import Settings, load_settings

SDM630, EM24, B23 = (load_register_map(name) for name in ("eastron_sdm630", "carlo_gavazzi_em24", "abb_b23"))


@pytest.fixture
def home(settings: Settings) -> Callable[[RegisterMap], Settings]:
    def make(map_: RegisterMap) -> Settings:
        (bus,) = settings.buses
        meters = (MeterSettings("grid", 1, map_, "import"), MeterSettings("generation", 2, map_, "import"))
        return replace(settings, buses=(replace(bus, meters=meters),))

    return make


def raw_of(settings: Settings, energy: bytes, power: bytes) -> dict[tuple[str, str], bytes]:
    return {
        (meter.role, quantity): energy if quantity.startswith("energy") else power
        for meter in settings.meters
        for quantity in meter.register_map.registers
    }


def line_of(home: Any, map_: RegisterMap, quantity: str, raw: str) -> RegisterLine:
    settings = home(replace(map_, registers={quantity: map_.registers[quantity]}))
    settings = replace(settings, buses=(replace(settings.buses[0], meters=settings.meters[:1]),))
    (line,) = explain_registers(settings, {("grid", quantity): bytes.fromhex(raw)})
    return line


def test_registration_is_told_the_coarsest_step_of_the_energy_registers(home: Any) -> None:
    at_8_mwh = struct.pack(">f", 8_192.0)
    assert register_quantum_wh(home(SDM630), raw_of(home(SDM630), at_8_mwh, at_8_mwh)) == 1
    at_1_gwh = struct.pack(">f", 1_000_000.0)
    assert register_quantum_wh(home(SDM630), raw_of(home(SDM630), at_1_gwh, at_1_gwh)) == 63
    tenths = struct.pack("<I", 5)
    assert register_quantum_wh(home(EM24), raw_of(home(EM24), tenths, tenths)) == 100
    cents = (5).to_bytes(8, "big")
    assert register_quantum_wh(home(B23), raw_of(home(B23), cents, cents)) == 10


@pytest.mark.parametrize(
    ("map_", "energy", "suspicious"),
    [
        (SDM630, struct.pack(">f", 12_345.678), False),
        (SDM630, struct.pack(">f", 0.0), False),
        (SDM630, bytes.fromhex("e6b74640"), True),  # 12345.678 with its words the other way round
        (EM24, bytes.fromhex("30390000"), False),  # 1234.5 kWh, low word first
        (EM24, bytes.fromhex("00003039"), True),
    ],
)
def test_energy_that_only_makes_sense_the_other_way_round_is_suspicious(
    home: Any, map_: RegisterMap, energy: bytes, suspicious: bool
) -> None:
    settings = home(map_)
    found = word_order_suspicions(settings, raw_of(settings, energy, energy))
    assert [error.code for error in found] == 3 * suspicious * ["word_order_suspicious"]
    if suspicious:
        other = "little" if map_ is SDM630 else "big"
        assert f"grid energy_import reads {energy.hex()}: with word_order = '{other}'" in found[0].detail


def test_a_meter_that_sums_its_phases_one_by_one_is_marked(home: Any) -> None:
    assert explain_phases(home(replace(SDM630, phases_netted=True))) == "netted"
    apart = explain_phases(home(replace(SDM630, phases_netted=False)))
    assert "grid (eastron_sdm630), generation (eastron_sdm630)" in apart


def test_steps_are_shown_in_the_registers_own_unit(home: Any) -> None:
    shown = (("energy_import", "00050000", 100, "Wh"), ("power", "00140000", Fraction(1, 10), "W"))
    for quantity, raw, step, step_unit in shown:
        assert line_of(home, EM24, quantity, raw).step == step
        assert line_of(home, EM24, quantity, raw).step_unit == step_unit
    assert line_of(home, EM24, "energy_import", "00050000").value == Fraction(1, 2)
    assert line_of(home, EM24, "energy_import", "00050000").value_unit == "kWh"
    assert line_of(home, SDM630, "energy_import", "7fc00000").problem == "not a number"
    assert line_of(home, SDM630, "energy_import", "c2c80000").problem == "negative"
    assert line_of(home, B23, "energy_import", "ff" * 8).problem == "no value"


def test_a_voltage_that_no_grid_has_shows_that_the_map_is_not_the_meters(home: Any) -> None:
    """An iEM3000 whose registers are one further on: its energy would read as a 65,536th and look likely."""
    iem3000 = load_register_map("schneider_iem3000")
    volts = struct.pack(">f", 230.0)
    assert line_of(home, iem3000, "voltage", volts.hex()).problem == ""
    assert line_of(home, iem3000, "voltage", (bytes(2) + volts[:2]).hex()).problem == "no grid has that"
    assert line_of(home, B23, "frequency", "0032").problem == "no grid has that"  # 0.5 Hz
    assert line_of(home, B23, "frequency", "1388").problem == ""


def test_the_budget_of_a_bus_is_said_in_figures(settings: Settings) -> None:
    (bus,) = settings.buses
    assert isinstance(bus, TcpBus)
    assert "2 meters," in explain_bus(bus, 60)
    assert explain_bus(bus, 60).endswith("of 60 s")
    with pytest.raises(SettingsError, match="bus_budget_exceeded"):
        explain_bus(replace(bus, timeout_s=40, retries=2), 60)


def test_meters_that_cannot_be_told_apart_are_said_to_be_so(home: Any) -> None:
    assert "unit 1: this model cannot be told apart" in explain_identities(home(replace(SDM630, identity=None)))


def test_the_doctor_looks_at_buses_identities_steps_and_phases(config_file: Path) -> None:
    findings = asyncio.run(examine(load_settings(config_file)))
    seen = dict(findings.checks)
    assert seen.keys() >= {"bus 1", "identity", "phases", "register step"}
    assert seen["register step"] == "register this meter with --register-quantum-wh 1"
    assert findings.production_wh == 100_000


def test_the_doctor_names_a_bus_that_has_no_time(config_file: Path) -> None:
    config_file.write_text(config_file.read_text().replace("timeout_s = 1\nretries = 0", "timeout_s = 50\nretries = 2"))
    findings = asyncio.run(examine(load_settings(config_file)))
    assert "bus_budget_exceeded" in [problem.code for problem in findings.problems]
