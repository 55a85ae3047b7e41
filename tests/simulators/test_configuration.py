"""The file that describes simulated homes refuses what it does not know."""

from pathlib import Path
from typing import Any

import pytest

from simulators.meters.configuration import ConfigurationError, load, parse

HOME: dict[str, Any] = {
    "id": "home-01",
    "measurement": "generation_and_grid",
    "household": "H0-A",
    "solar": "PV1",
    "solar_peak_w": 5_000,
    "seed": 1,
    "installed": "2026-11-01",
}


def test_a_home_needs_little() -> None:
    (home,) = parse({"homes": [HOME]}, Path()).homes
    assert (home.home_id, home.port, home.has_generation_meter) == ("home-01", 0, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "Home"}, "id"),
        ({"id": "hub-1"}, "id"),
        ({"port": 65_536}, "port"),
        ({"port": True}, "port"),
        ({"measurement": "guess"}, "generation_and_grid, net_only"),
        ({"household": "H0-Z"}, "H0-A"),
        ({"solar": "PV9"}, "PV1"),
        ({"solar_peak_w": 0}, "solar_peak_w"),
        ({"seed": -1}, "seed"),
        ({"seed": "one"}, "seed"),
        ({"installed": "yesterday"}, "installed"),
        ({"import_start_wh": -1}, "import_start_wh"),
        ({"golden_day": "2026-11-19"}, "golden"),
        ({"installed": "2026-11-19", "golden_day": "2026-11-19", "measurement": "net_only"}, "golden"),
        ({"colour": "red"}, "unknown key colour"),
        ({"grid_model": "sdm640"}, "grid_model must be one of eastron_sdm120"),
        ({"generation_model": 5}, "generation_model"),
        ({"framing": "ascii"}, "tcp, rtu_over_tcp, rtu"),
        ({"framing": "rtu"}, "device"),
        ({"framing": "rtu", "device": "/dev/ttyS0", "port": 5}, "unknown key port"),
        ({"framing": "rtu", "device": "/dev/ttyS0", "baud": 9_601}, "baud must be one of 1200, 2400"),
        ({"device": "/dev/ttyS0"}, "unknown key device"),
        ({"faults": [{"role": "roof", "kind": "zero", "start": "2026-11-19T12:00:00Z"}]}, "grid, generation"),
        ({"faults": [{"role": "grid", "kind": "tired", "start": "2026-11-19T12:00:00Z"}]}, "fault 1: kind"),
        ({"faults": [{"role": "grid", "kind": "zero", "start": "noon"}]}, "start must be a time"),
        ({"faults": [{"role": "grid", "kind": "zero", "start": "2026-11-19T12:00:00"}]}, "offset"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse({"homes": [HOME | changes]}, Path())


@pytest.mark.parametrize("missing", ["id", "measurement", "household", "seed", "installed", "solar_peak_w"])
def test_a_missing_value_is_named(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        parse({"homes": [{key: value for key, value in HOME.items() if key != missing}]}, Path())


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"homes": []},
        {"homes": [7]},
        {"homes": [HOME], "speed": 1},
        {"homes": [HOME], "ports_file": 1},
        {"homes": [HOME, HOME]},
        {"homes": [HOME | {"port": 5_020}, HOME | {"id": "home-02", "port": 5_020}]},
    ],
)
def test_a_file_that_describes_no_street_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        parse(table, Path())


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "homes.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError):
        load(path)
    path.write_text("homes = [", encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load(path)


def test_a_home_may_have_other_meters_another_line_and_faults() -> None:
    spike = {"role": "grid", "kind": "spike", "start": "2026-11-19T12:00:00Z", "end": "2026-11-19T12:01:00Z", "size": 9}
    serial = {"framing": "rtu", "device": "/dev/ttyS0", "grid_model": "abb_b23", "faults": [spike]}
    (home,) = parse({"homes": [HOME | serial]}, Path()).homes
    assert (home.device, home.baud, home.grid_model, home.generation_model) == (
        "/dev/ttyS0",
        9_600,
        "abb_b23",
        "eastron_sdm630",
    )
    (fault,) = home.grid_faults.faults
    assert (fault.end_unix_s - fault.start_unix_s, fault.size) == (60, 9)
    assert home.generation_faults.faults == ()


def test_two_homes_cannot_share_a_serial_line() -> None:
    serial = {"framing": "rtu", "device": "/dev/ttyS0"}
    homes = [HOME | serial | {"id": f"home-0{number}"} for number in (1, 2)]
    with pytest.raises(ConfigurationError, match="two homes have the same device"):
        parse({"homes": homes}, Path())
