import struct
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import RegisterError, RegisterMapError
from edge.register_map import (
    MAPS_DIRECTORY,
    Block,
    load_register_map,
    parse_register_map,
    plan_blocks,
    quantum,
    scaled_value,
)

SDM630 = load_register_map("eastron_sdm630")
ENERGY = SDM630.registers["energy_import"]
floats = st.floats(width=32)


def float32(value: float) -> bytes:
    return struct.pack(">f", value)


def test_the_golden_bytes_of_an_sdm630_are_whole_watt_hours() -> None:
    assert scaled_value(ENERGY, bytes.fromhex("449a522b")) == 1_234_568  # 1234.5677490234375 kWh
    assert scaled_value(ENERGY, bytes.fromhex("00000000")) == 0
    assert scaled_value(SDM630.registers["power"], float32(-1234.5)) == -1234  # half to even
    assert scaled_value(SDM630.registers["voltage"], float32(230.125)) == 2301
    assert scaled_value(SDM630.registers["frequency"], float32(49.984375)) == 49_984


@given(st.integers(0, 999_999))
def test_every_whole_watt_hour_below_a_megawatt_hour_survives_the_float_register(energy_wh: int) -> None:
    assert scaled_value(ENERGY, float32(energy_wh / 1000)) == energy_wh


@given(st.binary(min_size=4, max_size=4))
def test_any_four_bytes_are_watt_hours_within_half_of_one_or_a_named_error(raw: bytes) -> None:
    try:
        energy_wh = scaled_value(ENERGY, raw)
    except RegisterError as error:
        assert error.code in ("register_not_a_number", "register_negative")
    else:
        exact = Fraction(struct.unpack(">f", raw)[0]) * 1000
        assert abs(exact - energy_wh) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "register_not_a_number"),
        (float("inf"), "register_not_a_number"),
        (float("-inf"), "register_not_a_number"),
        (-0.5, "register_negative"),
    ],
)
def test_energy_that_no_meter_can_mean_is_a_named_error(value: float, code: str) -> None:
    with pytest.raises(RegisterError) as raised:
        scaled_value(ENERGY, float32(value))
    assert raised.value.code == code


@pytest.mark.parametrize(("kwh", "step_wh"), [(999, 0.06), (8_192, 0.98), (100_000, 7.8), (1_000_000, 62.5)])
def test_the_quantum_of_a_float_register_grows_with_it(kwh: float, step_wh: float) -> None:
    assert float(quantum(ENERGY, float32(kwh))) == pytest.approx(step_wh, rel=0.02)


def test_near_registers_are_read_in_one_go() -> None:
    wanted = [SDM630.registers[name] for name in ("voltage", "power", "frequency", "energy_import", "energy_export")]
    assert plan_blocks(wanted, SDM630.registers_per_read_max, SDM630.gap_registers_max) == [Block(4, 0, 0x4C)]
    assert len(plan_blocks([*wanted, SDM630.registers["energy_total"]], 80, 60)) == 2


@given(st.integers(2, 125), st.integers(0, 125))
def test_every_plan_covers_every_register_and_keeps_the_limit(registers_max: int, gap_max: int) -> None:
    blocks = plan_blocks(SDM630.registers.values(), registers_max, gap_max)
    for register in SDM630.registers.values():
        assert any(b.address <= register.address and register.address + 2 <= b.address + b.count for b in blocks)
    assert all(block.count <= registers_max for block in blocks)


def test_an_unknown_map_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RegisterMapError, match="eastron_sdm630"):
        load_register_map("eastron_sdm63")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('address = "72"', "address: must be a whole number"),
        ("address = 65535", "address: must be a whole number from 0 to 65534"),
        ("function_code = 6", "function_code: must be a whole number from 3 to 4"),
        ('word_order = "middle"', "word_order: must be one of big"),
        ("scale = 0", "scale: must be a positive"),
        ("scale = 0.1", "scale: must be a positive"),
        ('modulus = "ten"', "modulus: must be a positive"),
        ("adress = 3", "adress: no such key; the nearest is 'address'"),
        ('type = "float16"', "did you mean 'float32'"),
    ],
)
def test_a_wrong_entry_of_a_map_names_the_entry_and_the_reason(change: str, why: str) -> None:
    text = (MAPS_DIRECTORY / "eastron_sdm630.toml").read_text()
    document = tomllib.loads(text)
    document["registers"]["energy_import"].update(tomllib.loads(change))
    with pytest.raises(RegisterMapError) as raised:
        parse_register_map(document, Path("map.toml"))
    assert "map.toml: registers.energy_import." in str(raised.value)
    assert why in str(raised.value)


def test_a_decimal_in_quotes_is_an_exact_scale() -> None:
    document = tomllib.loads((MAPS_DIRECTORY / "eastron_sdm630.toml").read_text())
    document["registers"]["power"].update(scale="0.1", modulus="1000000.5")
    register = parse_register_map(document, Path("map.toml")).registers["power"]
    assert (register.scale, register.modulus_scaled) == (Fraction(1, 10), 100_000)


def test_a_map_for_a_quantity_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    text = (MAPS_DIRECTORY / "eastron_sdm630.toml").read_text().replace("energy_import", "energy_imports")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(RegisterMapError, match="energy_imports: no such quantity; the nearest is 'energy_import'"):
        load_register_map("mine", tmp_path)


names = st.sampled_from(["id", "model", "address", "type", "energy_import", "power", "é", ""])
json = st.recursive(
    st.none() | st.booleans() | st.integers() | names | floats,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


@given(st.fixed_dictionaries({}, optional={"meter": json, "registers": json, "x": json}))
def test_no_document_makes_the_loader_raise_anything_but_its_own_error(document: dict[str, object]) -> None:
    with pytest.raises(RegisterMapError):
        parse_register_map(document, Path("map.toml"))
