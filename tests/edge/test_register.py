import struct
from dataclasses import replace
from fractions import Fraction
from math import isfinite

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.errors import RegisterError
from edge.register import (
    TYPES,
    Block,
    Register,
    exact_value,
    plan_blocks,
    quantum,
    scaled_value,
    swapped_words,
)
from edge.register_map import load_register_map

SDM630 = load_register_map("eastron_sdm630")
ENERGY = SDM630.registers["energy_import"]
INTEGERS = [name for name in TYPES if "int" in name]
FLOATS = [name for name in TYPES if "float" in name]
scales = st.sampled_from([Fraction(1), Fraction(100), Fraction(1, 10), Fraction(1000), Fraction(-1)])
word_orders = st.sampled_from(["big", "little"])


def register(type_: str, word_order: str = "big", scale: Fraction = Fraction(1), quantity: str = "power") -> Register:
    step = None if type_ in FLOATS else abs(scale)
    return Register(quantity, 4, 0x10, type_, word_order, "W", scale, step, None, (), None, "a test")


def wire(register: Register, number: float) -> bytes:
    data = struct.pack(TYPES[register.type], number)
    return data if register.word_order == "big" else swapped_words(data)


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


@given(st.data(), st.sampled_from(INTEGERS), word_orders, scales)
def test_every_integer_of_every_type_and_word_order_is_exact(
    data: st.DataObject, type_: str, word_order: str, scale: Fraction
) -> None:
    bits = 8 * struct.calcsize(TYPES[type_])
    low, high = (0, 2**bits - 1) if type_.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    number = data.draw(st.integers(low, high))
    power = register(type_, word_order, scale)
    assert scaled_value(power, wire(power, number)) == round(number * scale)
    assert exact_value(power, wire(power, number)) == number * scale
    assert quantum(power, wire(power, number)) == abs(scale)


@given(st.data(), st.sampled_from(FLOATS), word_orders, scales)
def test_any_bytes_of_a_float_register_are_exact_or_a_named_error(
    data: st.DataObject, type_: str, word_order: str, scale: Fraction
) -> None:
    power = register(type_, word_order, scale)
    raw = data.draw(st.binary(min_size=2 * power.count, max_size=2 * power.count))
    number = struct.unpack(TYPES[type_], raw if word_order == "big" else swapped_words(raw))[0]
    try:
        value = scaled_value(power, raw)
    except RegisterError as error:
        assert error.code == "register_not_a_number"
        assert not isfinite(number)
    else:
        assert abs(Fraction(number) * scale - value) <= Fraction(1, 2)


@given(st.data(), st.sampled_from(FLOATS), word_orders, scales)
def test_the_quantum_of_a_float_is_the_way_to_its_neighbour(
    data: st.DataObject, type_: str, word_order: str, scale: Fraction
) -> None:
    power = register(type_, word_order, scale)
    size = 2 * power.count
    infinity = int.from_bytes(struct.pack(TYPES[type_], float("inf")), "big")
    bits = data.draw(st.integers(0, infinity - 2))
    here, above = (struct.unpack(TYPES[type_], number.to_bytes(size, "big"))[0] for number in (bits, bits + 1))
    step = (Fraction(above) - Fraction(here)) * abs(scale)
    assert quantum(power, wire(power, here)) == step


@pytest.mark.parametrize(("kwh", "step_wh"), [(999, 0.06), (8_192, 0.98), (100_000, 7.8), (1_000_000, 62.5)])
def test_the_quantum_of_a_float_register_grows_with_it(kwh: float, step_wh: float) -> None:
    assert float(quantum(ENERGY, float32(kwh))) == pytest.approx(step_wh, rel=0.02)


def test_a_float_that_counts_in_coarser_steps_has_those_until_it_is_coarser_itself() -> None:
    coarse = replace(ENERGY, quantum=Fraction(10))
    assert quantum(coarse, float32(999)) == 10
    assert quantum(coarse, float32(1_000_000)) == Fraction(125, 2)


@given(st.integers(0, 2**32 - 1))
def test_the_wrong_word_order_is_another_number_unless_both_words_are_one(number: int) -> None:
    assume(number >> 16 != number & 0xFFFF)
    big = register("uint32")
    raw = wire(big, number)
    assert swapped_words(swapped_words(raw)) == raw
    assert scaled_value(replace(big, word_order="little"), raw) != number


def test_the_words_of_a_long_register_are_swapped_from_end_to_end() -> None:
    assert swapped_words(bytes.fromhex("0001020304050607")) == bytes.fromhex("0607040502030001")


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


def test_bytes_that_mean_no_value_are_never_energy() -> None:
    export = load_register_map("abb_b23").registers["energy_export"]
    with pytest.raises(RegisterError) as raised:
        scaled_value(export, b"\xff" * 8)
    assert raised.value.code == "register_unavailable"
    assert scaled_value(export, b"\0" * 8) == 0


def test_a_register_beyond_its_own_range_is_not_believed() -> None:
    energy = load_register_map("siemens_pac2200").registers["energy_import"]
    assert energy.modulus_scaled == 10**12
    assert scaled_value(energy, struct.pack(">d", 10**12 - 1)) == 10**12 - 1
    with pytest.raises(RegisterError) as raised:
        scaled_value(energy, struct.pack(">d", 10**12))
    assert raised.value.code == "register_out_of_range"


@given(st.integers(0, 2**32 - 1), st.integers(-10, 10))
def test_a_scale_factor_beside_the_number_is_its_power_of_ten(number: int, exponent: int) -> None:
    energy = replace(register("uint32", quantity="energy_import"), quantum=None, scale_factor_address=0x40, unit="Wh")
    assert energy.spans == [(4, 0x10, 2), (4, 0x40, 1)]
    raw = struct.pack(">Ih", number, exponent)
    assert scaled_value(energy, raw) == round(number * Fraction(10) ** exponent)
    assert quantum(energy, raw) == Fraction(10) ** exponent


def test_near_registers_are_read_in_one_go() -> None:
    wanted = [SDM630.registers[name] for name in ("voltage", "power", "frequency", "energy_import", "energy_export")]
    assert plan_blocks(wanted, SDM630.registers_per_read_max, SDM630.gap_registers_max) == [Block(4, 0, 0x4C)]
    assert len(plan_blocks([*wanted, SDM630.registers["energy_total"]], 80, 60)) == 2


registers = st.builds(
    lambda type_, function_code, address, factor: replace(
        register(type_), function_code=function_code, address=address, scale_factor_address=factor
    ),
    st.sampled_from(list(TYPES)),
    st.sampled_from([3, 4]),
    st.integers(0, 500),
    st.none() | st.integers(0, 500),
)


@given(st.lists(registers, max_size=8), st.integers(4, 125), st.integers(0, 125))
def test_every_plan_covers_every_register_whole_and_keeps_the_limit(
    wanted: list[Register], registers_max: int, gap_max: int
) -> None:
    blocks = plan_blocks(wanted, registers_max, gap_max)
    for one in wanted:
        for function_code, address, count in one.spans:
            assert any(
                block.function_code == function_code
                and block.address <= address
                and address + count <= block.address + block.count
                for block in blocks
            )
    assert all(block.count <= registers_max for block in blocks)
