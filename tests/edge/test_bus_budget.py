import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bus_budget import budget_of, check_buses, shortest_interval_s
from edge.bus_settings import BusSettings, MeterSettings, PulseBus, SerialBus, TcpBus
from edge.confirming import READS_PER_READING
from edge.errors import SettingsError
from edge.pulses import pulse_register_map
from edge.register_map import load_register_map
from edge.service import run_agent
from edge.settings import load_settings
from tests.edge.modbus_slave import GENERATION, GRID, a_map

SDM630 = load_register_map("eastron_sdm630")
HOME = (MeterSettings("grid", 1, SDM630, "import"), MeterSettings("generation", 2, SDM630, "import"))
RTU = SerialBus("attic", Path("/dev/ttyUSB0"), 9_600, "N", 1, 1, 1, HOME)
TCP = TcpBus("cellar", "192.168.1.40", 502, "tcp", 3, 1, HOME)


def refusal(*buses: BusSettings, interval_s: int = 60) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        check_buses(buses, interval_s)
    return caught.value


def test_the_wire_time_of_a_poll_is_reckoned_character_by_character() -> None:
    """One read of 2 registers: 8 characters there, 9 back, 10 bits each, after 50 ms silence, 50 ms to think."""
    bus = replace(RTU, meters=(GENERATION,), retries=0)
    assert budget_of(bus).poll_s == pytest.approx(0.050 + 17 * 10 / 9_600 + 0.050)
    even = replace(bus, parity="E", baud=1_200)
    assert budget_of(even).poll_s == pytest.approx(0.050 + 17 * 11 / 1_200 + 0.050)
    fast = replace(bus, pause_ms=0)
    assert budget_of(fast).poll_s == pytest.approx((3.5 + 17) * 10 / 9_600 + 0.050)
    faster = replace(fast, baud=115_200)
    assert budget_of(faster).poll_s == pytest.approx(0.00175 + 17 * 10 / 115_200 + 0.050)


def test_a_reading_takes_as_many_polls_as_it_takes_to_be_believed() -> None:
    budget = budget_of(replace(RTU, retries=0))
    assert budget.needed_s == pytest.approx(READS_PER_READING * budget.poll_s)


def test_usual_homes_fit_their_intervals() -> None:
    check_buses([RTU], 60)
    check_buses([TCP], 5)
    check_buses([replace(TCP, timeout_s=1, retries=0)], 1)


def test_a_poll_that_does_not_fit_is_refused_with_figures_and_what_would_fit() -> None:
    slow = replace(RTU, baud=1_200, retries=0, meters=tuple(replace(GRID, unit=unit) for unit in range(1, 6)))
    error = refusal(slow, interval_s=3)
    assert error.code == "bus_budget_exceeded"
    assert "attic: 5 meters, 10 reads of 20 registers at 1200 baud take 2.42 s, 2 times with 0 retries" in error.detail
    assert "a reading is due every 3 s; it fits with interval_s = 5 or 4800 baud" in error.detail
    check_buses([slow], 5)
    check_buses([replace(slow, baud=4_800)], 3)


def test_a_baud_rate_that_a_meter_cannot_do_is_no_remedy() -> None:
    few = replace(a_map(energy_import=0x10, energy_export=0x100), baud_rates=(1_200, 9_600))
    meters = tuple(MeterSettings("grid", unit, few, "import") for unit in range(1, 6))
    slow = replace(RTU, baud=1_200, retries=0, meters=meters)
    assert "or 9600 baud" in refusal(slow, interval_s=3).detail


def test_patience_counts_since_a_poll_with_all_its_retries_must_fit_too() -> None:
    error = refusal(replace(TCP, timeout_s=20, retries=3), interval_s=60)
    assert error.code == "bus_budget_exceeded"
    assert "2 times with 3 retries after 20 s each" in error.detail
    assert "it fits with interval_s = 61 or retries = 2 or a shorter timeout_s" in error.detail


def test_a_gateway_that_passes_serial_frames_has_a_line_behind_it() -> None:
    behind = replace(TCP, framing="rtu")
    assert budget_of(behind).poll_s == pytest.approx(budget_of(replace(RTU, timeout_s=3)).poll_s)


def test_two_meters_with_one_unit_on_one_line_are_refused() -> None:
    error = refusal(replace(RTU, meters=(GRID, replace(GENERATION, unit=1))))
    assert error.code == "bus_unit_doubled"
    assert "attic: 2 meters have unit 1" in error.detail
    check_buses([replace(RTU, meters=(GRID,)), replace(TCP, meters=(replace(GENERATION, unit=1),))], 60)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"baud": 115_200}, "115200 baud; it can do 2400, 4800, 9600, 19200, 38400"), ({"parity": "O"}, "parity O")],
)
def test_a_line_set_as_a_meter_cannot_talk_is_refused(change: dict[str, object], words: str) -> None:
    map_ = replace(SDM630, baud_rates=(2_400, 4_800, 9_600, 19_200, 38_400), parities=("N", "E"))
    error = refusal(replace(RTU, meters=(MeterSettings("grid", 1, map_, "import"),), **change))  # type: ignore[arg-type]
    assert error.code == "bus_parameters_unsupported"
    assert f"attic: unit 1, eastron_sdm630: {words}" in error.detail


@pytest.mark.parametrize(
    ("map_name", "line"),
    [
        ("chint_dtsu666", {"parity": "E"}),  # the manual's n.2, n.1, E.1 and o.1
        ("chint_dtsu666", {"parity": "N", "stop_bits": 2}),
        ("chint_dtsu666", {"baud": 19_200}),
        ("eastron_sdm72d_m", {"baud": 19_200}),
    ],
)
def test_a_line_set_as_the_makers_manual_allows_is_not_refused(map_name: str, line: dict[str, object]) -> None:
    meters = (MeterSettings("grid", 1, load_register_map(map_name), "import"),)
    check_buses([replace(RTU, meters=meters, **line)], 60)  # type: ignore[arg-type]


def test_one_serial_line_or_gateway_is_one_bus() -> None:
    assert refusal(RTU, replace(RTU, name="garage")).code == "bus_doubled"
    assert refusal(TCP, replace(TCP, name="garage")).code == "bus_doubled"
    check_buses([RTU, TCP], 60)


def test_the_shortest_interval_is_the_one_of_the_slowest_bus() -> None:
    patient = replace(TCP, timeout_s=20, retries=3)
    assert shortest_interval_s([RTU, patient]) == 61
    check_buses([RTU, patient], 61)
    assert refusal(RTU, patient, interval_s=60).code == "bus_budget_exceeded"
    assert shortest_interval_s([]) == 1


def test_pulses_need_no_time() -> None:
    meter = MeterSettings("generation", 0, pulse_register_map(1_000), "total")
    pulses = PulseBus("s0", Path("/dev/gpiochip0"), 17, 1_000, 20, Path("pulses.json"), 0, (meter,))
    check_buses([TCP, pulses], 5)
    assert shortest_interval_s([pulses]) == 1


def test_an_agent_whose_poll_does_not_fit_does_not_start(config_file: Path) -> None:
    config_file.write_text(config_file.read_text().replace("timeout_s = 1\nretries = 0", "timeout_s = 60\nretries = 1"))
    with pytest.raises(SettingsError, match="bus_budget_exceeded"):
        asyncio.run(run_agent(load_settings(config_file)))
    assert not (config_file.parent / "journal.sqlite").exists()
