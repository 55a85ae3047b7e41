import asyncio
import struct
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DiscoveryError, ModbusError, RegisterError
from edge.register_map import RegisterMap, load_register_map, parse_register_map, quantum, scaled_value
from edge.sunspec import BASE_ADDRESSES, MODELS_MAX, Read, SunspecMeter, discover

COMMON_LENGTH = 66
INTEGER_LENGTH, FLOAT_LENGTH, DER_LENGTH = 105, 124, 153
METER_OFFSET = 2 + 2 + COMMON_LENGTH
"""From the marker to the header of the first model after the common one."""
END = struct.pack(">2H", 0xFFFF, 0)


def text(value: str, registers: int) -> bytes:
    return value.encode().ljust(2 * registers, b"\0")


def common() -> bytes:
    body = text("Acme", 16) + text("Wall meter \x07", 16) + text("", 8) + text("1.2", 8) + text("S-17", 16)
    return struct.pack(">2H", 1, COMMON_LENGTH) + body + struct.pack(">2H", 1, 0x8000)


def model(model_id: int, length: int, values: Mapping[int, bytes]) -> bytes:
    """A model whose points, by their offset from its header, hold these bytes; all others are not implemented."""
    absent = b"\x7f\xc0\x00\x00" if 211 <= model_id <= 214 else b"\x80\x00" * 2
    words = bytearray(absent * ((2 + length) // 2 + 1))[: 2 * (2 + length)]
    words[:4] = struct.pack(">2H", model_id, length)
    for offset, data in values.items():
        words[2 * offset : 2 * offset + len(data)] = data
    return bytes(words)


def integer_meter(model_id: int = 203, exporting: int = 70_000, energy_exponent: int = 1) -> bytes:
    """Model 20x: 234.5 V, 49.98 Hz, -120 W; import 1,234,567 and `exporting`, in tens of watt-hours."""
    values = {
        8: struct.pack(">h", 2345),
        15: struct.pack(">h", -1),
        16: struct.pack(">h", 4998),
        17: struct.pack(">h", -2),
        18: struct.pack(">h", -12),
        22: struct.pack(">h", 1),
        38: struct.pack(">I", exporting),
        46: struct.pack(">I", 1_234_567),
        54: struct.pack(">h", energy_exponent),
    }
    return model(model_id, INTEGER_LENGTH, values)


def float_meter(model_id: int = 213) -> bytes:
    values = {12: 230.25, 26: 50.0, 28: -1500.5, 60: 7_000.5, 68: 1_234_567.0}
    return model(model_id, FLOAT_LENGTH, {offset: struct.pack(">f", value) for offset, value in values.items()})


def der_meter(ac_type: int = 2) -> bytes:
    values = {
        2: struct.pack(">H", ac_type),
        10: struct.pack(">h", 4_200),
        16: struct.pack(">H", 2_301),
        17: struct.pack(">I", 50_010),
        19: struct.pack(">Q", 9_000_001),
        23: struct.pack(">Q", 12),
        114: struct.pack(">h", -1),
        115: struct.pack(">h", -3),
        116: struct.pack(">h", 0),
        120: struct.pack(">h", 0),
    }
    return model(701, DER_LENGTH, values)


def device(*models: bytes) -> bytes:
    return b"SunS" + common() + b"".join(models) + END


def reader(memory: bytes, base: int = 40_000) -> Read:
    """A device that has these registers from `base` and no others."""

    async def read(address: int, count: int) -> bytes:
        first = 2 * (address - base)
        if first < 0 or first + 2 * count > len(memory):
            raise ModbusError("modbus_exception", "illegal data address")
        return memory[first : first + 2 * count]

    return read


def found(memory: bytes, base: int = 40_000) -> list[SunspecMeter]:
    return asyncio.run(discover(reader(memory, base)))


def only_meter(memory: bytes, base: int = 40_000) -> SunspecMeter:
    meters = found(memory, base)
    assert len(meters) == 1
    return meters[0]


def parse(meter: SunspecMeter) -> RegisterMap:
    return parse_register_map(tomllib.loads(meter.map_toml), Path("sunspec-unit-1.toml"))


def poll(register_map: RegisterMap, memory: bytes, base: int = 40_000) -> dict[str, int]:
    """What the discovered map reads of the same registers."""
    values = {}
    for quantity, register in register_map.registers.items():
        spans = [(2 * (address - base), 2 * count) for _, address, count in register.spans]
        values[quantity] = scaled_value(register, b"".join(memory[first : first + size] for first, size in spans))
    return values


@pytest.mark.parametrize("base", BASE_ADDRESSES)
def test_an_integer_meter_is_found_at_each_base_and_its_map_reads_watt_hours(base: int) -> None:
    memory = device(integer_meter())
    meter = only_meter(memory, base)
    assert (meter.model_id, meter.address) == (203, base + METER_OFFSET)
    assert poll(parse(meter), memory, base) == {
        "energy_import": 12_345_670,
        "energy_export": 700_000,
        "power": -120,
        "voltage": 2_345,
        "frequency": 49_980,
    }


@pytest.mark.parametrize("model_id", [201, 202, 203, 204])
def test_an_accumulator_wraps_at_two_to_the_32_times_its_scale(model_id: int) -> None:
    meter = only_meter(device(integer_meter(model_id)))
    register_map = parse(meter)
    energy = register_map.registers["energy_import"]
    assert energy.modulus_scaled == 10 * 2**32
    assert quantum(energy, struct.pack(">Ih", 5, 1)) == 10
    assert quantum(energy, struct.pack(">Ih", 5, -3)) == Fraction(1, 1000), "the scale factor of the same poll counts"
    assert register_map.phases_netted == (model_id == 201)
    assert any("phases" in remark for remark in meter.remarks) == (model_id != 201)


def test_a_fraction_of_a_watt_hour_is_exact_in_the_modulus() -> None:
    register_map = parse(only_meter(device(integer_meter(energy_exponent=-1))))
    assert register_map.registers["energy_import"].modulus == Fraction(2**32, 10)


@pytest.mark.parametrize("model_id", [211, 212, 213, 214])
def test_a_float_meter_needs_no_scale_factor(model_id: int) -> None:
    memory = device(float_meter(model_id))
    register_map = parse(only_meter(memory))
    assert poll(register_map, memory) == {
        "energy_import": 1_234_567,
        "energy_export": 7_000,
        "power": -1500,
        "voltage": 2302,
        "frequency": 50_000,
    }
    assert register_map.phases_netted == (model_id == 211)


def test_what_an_inverter_injects_is_export_and_its_power_is_negative_like_any_meters() -> None:
    memory = device(der_meter())
    assert poll(parse(only_meter(memory)), memory) == {
        "energy_import": 12,
        "energy_export": 9_000_001,
        "power": -4_200,
        "voltage": 2_301,
        "frequency": 50_010,
    }


@pytest.mark.parametrize(("ac_type", "netted"), [(0, True), (1, False), (2, False), (0xFFFF, False)])
def test_only_a_single_phase_inverter_is_known_to_net_its_phases(ac_type: int, netted: bool) -> None:
    assert parse(only_meter(device(der_meter(ac_type)))).phases_netted is netted


def test_a_meter_behind_other_models_and_a_second_meter_are_both_found() -> None:
    memory = device(model(103, 50, {}), integer_meter(203), model(160, 0, {}), float_meter(213))
    meters = found(memory)
    assert [meter.model_id for meter in meters] == [203, 213]
    for meter in meters:
        assert poll(parse(meter), memory)["energy_import"] in (12_345_670, 1_234_567)


def test_the_map_names_the_device_and_proves_it_by_the_header_of_its_model(tmp_path: Path) -> None:
    meter = only_meter(device(integer_meter()))
    (tmp_path / "sunspec-unit-1.toml").write_text(meter.map_toml)
    found = load_register_map("sunspec-unit-1.toml", beside=tmp_path)
    assert (found.map_id, found.model) == ("sunspec_203", "Acme Wall meter")
    assert "S-17" in found.source
    assert found.identity is not None
    assert found.identity.matches(struct.pack(">2H", 203, INTEGER_LENGTH))
    assert not found.identity.matches(struct.pack(">2H", 213, FLOAT_LENGTH))


def test_a_device_that_quotes_and_controls_cannot_break_its_map() -> None:
    memory = device(integer_meter()).replace(text("Acme", 16), text('"\n[meter]\\', 16))
    assert parse(only_meter(memory)).model == '"[meter]\\ Wall meter'


def test_an_accumulator_that_counts_is_not_believed_when_it_reads_zero() -> None:
    register = parse(only_meter(device(integer_meter()))).registers["energy_export"]
    with pytest.raises(RegisterError) as raised:
        scaled_value(register, struct.pack(">Ih", 0, 1))
    assert raised.value.code == "register_unavailable"


def test_an_accumulator_that_is_zero_at_discovery_may_stay_zero_and_is_remarked_upon() -> None:
    memory = device(integer_meter(exporting=0))
    meter = only_meter(memory)
    assert poll(parse(meter), memory)["energy_export"] == 0
    assert meter.remarks[0] == "energy_export reads zero: nothing counted yet, or not counted at all"


def test_what_the_device_does_not_implement_is_left_out_and_remarked_upon() -> None:
    values = {38: struct.pack(">I", 7), 46: struct.pack(">I", 8), 54: struct.pack(">h", 0), 18: struct.pack(">h", 5)}
    meter = only_meter(device(model(203, INTEGER_LENGTH, values)))  # power has no scale factor
    assert set(parse(meter).registers) == {"energy_import", "energy_export"}
    assert [remark.split(":")[0] for remark in meter.remarks[:3]] == ["no power", "no voltage", "no frequency"]


def test_a_float_that_is_no_number_is_not_implemented() -> None:
    values = {60: struct.pack(">f", 7.0), 68: bytes.fromhex("7fffffff")}
    assert set(parse(only_meter(device(model(213, FLOAT_LENGTH, values)))).registers) == {"energy_export"}


def test_a_scale_factor_is_judged_anew_at_every_poll() -> None:
    register = parse(only_meter(device(integer_meter()))).registers["energy_import"]
    assert scaled_value(register, struct.pack(">Ih", 5, 2)) == 500
    for exponent, code in [(-0x8000, "register_unavailable"), (11, "register_scale_factor")]:
        with pytest.raises(RegisterError) as raised:
            scaled_value(register, struct.pack(">Ih", 5, exponent))
        assert raised.value.code == code


def endless() -> bytes:
    return b"SunS" + common() + model(64_000, 0, {}) * (MODELS_MAX + 10)


@pytest.mark.parametrize(
    ("memory", "code"),
    [
        (b"Suns" + common() + END, "sunspec_not_found"),
        (b"", "sunspec_not_found"),
        (device(), "sunspec_no_meter"),
        (device(model(103, 50, {})), "sunspec_no_meter"),
        (device(model(220, 42, {})), "sunspec_no_meter"),
        (endless(), "sunspec_endless"),
        (b"SunS" + common() + struct.pack(">2H", 99, 0xFFF0), "sunspec_endless"),
        (device(integer_meter(energy_exponent=11)), "sunspec_scale_factor"),
        (device(integer_meter(energy_exponent=-0x8000)), "sunspec_no_energy"),
        (device(model(203, 40, {})), "sunspec_model_too_short"),
        (device(model(213, FLOAT_LENGTH, {60: b"\x7f\xc0\0\0", 68: b"\x7f\xc0\0\0"})), "sunspec_no_energy"),
    ],
)
def test_a_device_that_is_no_meter_or_lies_about_it_is_a_named_error(memory: bytes, code: str) -> None:
    with pytest.raises(DiscoveryError) as raised:
        found(memory)
    assert raised.value.code == code


def test_a_chain_without_an_end_stops_with_the_registers() -> None:
    with pytest.raises(ModbusError):
        found(device(integer_meter())[: -len(END)])


def test_too_few_bytes_are_no_answer() -> None:
    async def read(address: int, count: int) -> bytes:
        return b"SunS"[: 2 * count] if address == 40_000 else b"?"

    with pytest.raises(DiscoveryError, match="sunspec_short_answer"):
        asyncio.run(discover(read))


@given(st.lists(st.integers(0, 0xFFFF), max_size=400))
def test_no_registers_make_discovery_raise_anything_but_its_own_errors(words: list[int]) -> None:
    memory = b"SunS" + common() + struct.pack(f">{len(words)}H", *words)
    try:
        meters = found(memory)
    except (DiscoveryError, ModbusError):
        return
    assert meters


@given(st.sampled_from([203, 213, 701]), st.binary(min_size=310, max_size=310))
def test_whatever_a_meter_model_holds_its_map_can_be_read_or_the_reason_has_a_name(model_id: int, body: bytes) -> None:
    length = {203: INTEGER_LENGTH, 213: FLOAT_LENGTH, 701: DER_LENGTH}[model_id]
    memory = device(struct.pack(">2H", model_id, length) + body[: 2 * length])
    try:
        meter = only_meter(memory)
    except DiscoveryError as error:
        assert error.code in ("sunspec_no_energy", "sunspec_scale_factor")
    else:
        parse(meter)
