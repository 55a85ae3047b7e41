import struct
from fractions import Fraction

import pytest

from edge.bus_settings import MeterSettings
from edge.errors import RegisterError
from edge.poll import RawRegisters, read_poll, swapped_registers_wh, wanted_registers
from edge.register_map import load_register_map

SDM630 = load_register_map("eastron_sdm630")
EM24 = load_register_map("carlo_gavazzi_em24")
METERS = (MeterSettings("grid", 1, SDM630, "import"), MeterSettings("generation", 2, SDM630, "import"))


def floats(**grid: float) -> dict[tuple[str, str], bytes]:
    values = {
        "energy_import": 50.0,
        "energy_export": 20.0,
        "power": -250.0,
        "voltage": 230.5,
        "frequency": 49.98,
    } | grid
    raw = {("grid", quantity): struct.pack(">f", value) for quantity, value in values.items()}
    return raw | {
        ("generation", "energy_import"): struct.pack(">f", 100.0),
        ("generation", "power"): struct.pack(">f", 1_800.0),
    }


def exchanged(raw: RawRegisters) -> dict[tuple[str, str], bytes]:
    return {key: data[2:] + data[:2] for key, data in raw.items()}


def test_the_power_of_every_meter_is_read_because_it_witnesses_its_energy() -> None:
    assert [register.quantity for register in wanted_registers(METERS[1])] == ["energy_import", "power"]
    poll = read_poll(METERS, floats())
    assert poll.powers_w == {"grid": -250, "generation": 1_800}
    assert (poll.power_w, poll.voltage_dv, poll.frequency_mhz) == (-250, 2_305, 49_980)


def test_a_gateway_that_exchanges_words_is_found_out_by_voltage_and_frequency() -> None:
    with pytest.raises(RegisterError, match="register_word_order"):
        read_poll(METERS, exchanged(floats()))
    with pytest.raises(RegisterError, match="register_word_order: frequency"):
        raw = floats()
        read_poll(METERS, {**raw, ("grid", "frequency"): exchanged(raw)["grid", "frequency"]})


def test_a_map_with_the_wrong_word_order_is_found_out_too() -> None:
    meters = (MeterSettings("grid", 1, EM24, "import"),)
    big = {"energy_import": 90_001, "energy_export": 20_002, "power": 12_340, "voltage": 2_301}
    raw = {("grid", quantity): struct.pack(">i", value) for quantity, value in big.items()}
    with pytest.raises(RegisterError, match="register_word_order: voltage"):
        read_poll(meters, raw | {("grid", "frequency"): struct.pack(">h", 500)})


@pytest.mark.parametrize("voltage", [0.0, 3.0, 900.0, float("nan"), -1.0, 1e30])
def test_a_voltage_that_no_word_order_explains_costs_only_its_column(voltage: float) -> None:
    poll = read_poll(METERS, floats(voltage=voltage))
    assert poll.registers_wh == {"generation": 100_000, "grid_import": 50_000, "grid_export": 20_000}


def test_energy_with_its_words_exchanged_is_what_it_would_have_been() -> None:
    raw = floats()
    assert swapped_registers_wh(METERS, exchanged(raw)) == read_poll(METERS, raw).registers_wh


def test_energy_that_the_meter_calls_unavailable_is_no_poll() -> None:
    meters = (MeterSettings("grid", 1, EM24, "import"),)
    raw = {("grid", quantity): bytes(4) for quantity in ("energy_import", "energy_export", "power", "voltage")}
    raw["grid", "frequency"] = bytes(2)
    with pytest.raises(RegisterError, match="register_unavailable"):
        read_poll(meters, {**raw, ("grid", "energy_export"): bytes.fromhex("ffff7fff")})


def test_a_floating_register_grows_coarse_and_the_poll_says_how_coarse() -> None:
    assert read_poll(METERS, floats(energy_import=8_192.0)).quanta_wh["grid_import"] == Fraction(1_000, 1_024)
    assert read_poll(METERS, floats(energy_import=100_000.0)).coarse == ()
    assert read_poll(METERS, floats(energy_import=1_000_000.0)).coarse == ("grid_import",)


def test_what_a_coarse_register_does_not_show_yet_it_shows_later() -> None:
    readings = [
        read_poll(METERS, floats(energy_import=1_000_000 + wh / 1_000)).registers_wh["grid_import"]
        for wh in range(0, 10_001, 10)
    ]
    assert readings == sorted(readings)
    for passed_wh, shown_wh in zip(range(0, 10_001, 10), readings, strict=True):
        assert abs(shown_wh - readings[0] - passed_wh) <= 63  # one step of the register, after any number of readings
