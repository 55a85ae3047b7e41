"""Every simulated model against its maker's document, register by register, without a line in between."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from sunspec2 import mdef

from simulators.meters.measured import PARTIAL_RESET_AT_WH, Measured
from simulators.meters.models import MODELS
from simulators.meters.registers import Model, Read, Refusal, Words

NOW = 1_795_176_000
HOME = Measured(import_wh=123_456_789, export_wh=45_678_912, power_w=-2_345, time_unix_s=NOW, seed=3)
HOLDING, INPUT = 3, 4
FORMATS = {"f32": ">f", "f64": ">d", "i16": ">h", "u16": ">H", "i32": ">i", "u32": ">I", "i64": ">q", "u64": ">Q"}

ENERGY: dict[str, tuple[int, str, bool, int, int | None, int]] = {
    # function, format, low word first, import, export (None: not counted), Wh in one
    "eastron_sdm120": (INPUT, "f32", False, 0x48, 0x4A, 1_000),
    "eastron_sdm220": (INPUT, "f32", False, 0x48, 0x4A, 1_000),
    "eastron_sdm230": (INPUT, "f32", False, 0x48, 0x4A, 1_000),
    "eastron_sdm72d_m": (INPUT, "f32", False, 0x48, 0x4A, 1_000),
    "eastron_sdm630": (INPUT, "f32", False, 0x48, 0x4A, 1_000),
    "carlo_gavazzi_em24": (INPUT, "i32", True, 0x3E, 0x5C, 100),
    "carlo_gavazzi_em24_import": (INPUT, "i32", True, 0x3E, None, 100),
    "carlo_gavazzi_em24_e1": (INPUT, "i32", True, 0x34, 0x4E, 100),
    "carlo_gavazzi_em340": (INPUT, "i32", True, 0x34, 0x4E, 100),
    "schneider_iem3000": (HOLDING, "i64", False, 0x0C83, 0x0C87, 1),
    "chint_dtsu666": (HOLDING, "f32", False, 0x101E, 0x1028, 1_000),
    "abb_b23": (HOLDING, "u64", False, 0x5000, 0x5004, 10),
    "siemens_pac2200": (HOLDING, "f64", False, 801, 809, 1),
    "orno_we516": (HOLDING, "f32", False, 0x0108, 0x0110, 1_000),
    "janitza_umg": (HOLDING, "f32", False, 0x4A7C, 0x4A84, 1),
    "shelly_pro_3em": (INPUT, "f32", True, 1_162, 1_164, 1),
    "huawei_emma": (HOLDING, "i64", False, 31_687, 31_679, 10),
    "sunspec_201": (HOLDING, "u32", False, 40_116, 40_108, 1),
    "sunspec_202": (HOLDING, "u32", False, 40_116, 40_108, 10),
    "sunspec_203": (HOLDING, "u32", False, 40_116, 40_108, 10),
    "sunspec_204": (HOLDING, "u32", False, 40_116, 40_108, 100),
    "sunspec_211": (HOLDING, "f32", False, 40_138, 40_130, 1),
    "sunspec_212": (HOLDING, "f32", False, 40_138, 40_130, 1),
    "sunspec_213": (HOLDING, "f32", False, 40_138, 40_130, 1),
    "sunspec_214": (HOLDING, "f32", False, 40_138, 40_130, 1),
    "sunspec_701": (HOLDING, "u64", False, 40_093, 40_089, 1),
}
TWO_DECIMALS = ("chint_dtsu666", "orno_we516")
"""They show kilowatt-hours with two decimals."""

INSTANTANEOUS: dict[str, list[tuple[int, str, bool, float, str]]] = {
    # address, format, low word first, factor to V, W or Hz, quantity
    "eastron_sdm120": [(0x00, "f32", False, 1, "V"), (0x0C, "f32", False, 1, "W"), (0x46, "f32", False, 1, "Hz")],
    "eastron_sdm72d_m": [(0x34, "f32", False, 1, "W")],
    "eastron_sdm630": [(0x00, "f32", False, 1, "V"), (0x34, "f32", False, 1, "W"), (0x46, "f32", False, 1, "Hz")],
    "carlo_gavazzi_em24": [
        (0x00, "i32", True, 0.1, "V"),
        (0x28, "i32", True, 0.1, "W"),
        (0x37, "i16", False, 0.1, "Hz"),
    ],
    "carlo_gavazzi_em24_e1": [
        (0x00, "i32", True, 0.1, "V"),
        (0x28, "i32", True, 0.1, "W"),
        (0x33, "i16", False, 0.1, "Hz"),
    ],
    "schneider_iem3000": [
        (3027, "f32", False, 1, "V"),
        (0x0BF3, "f32", False, 1_000, "W"),
        (0x0C25, "f32", False, 1, "Hz"),
    ],
    "chint_dtsu666": [
        (0x2006, "f32", False, 0.1, "V"),
        (0x2012, "f32", False, 0.1, "W"),
        (0x2044, "f32", False, 0.01, "Hz"),
    ],
    "abb_b23": [
        (0x5B00, "u32", False, 0.1, "V"),
        (0x5B14, "i32", False, 0.01, "W"),
        (0x5B2C, "u16", False, 0.01, "Hz"),
    ],
    "siemens_pac2200": [(1, "f32", False, 1, "V"), (65, "f32", False, 1, "W"), (55, "f32", False, 1, "Hz")],
    "orno_we516": [(0x0E, "f32", False, 1, "V"), (0x1C, "f32", False, 1_000, "W"), (0x14, "f32", False, 1, "Hz")],
    "janitza_umg": [(19_000, "f32", False, 1, "V"), (19_026, "f32", False, 1, "W"), (19_050, "f32", False, 1, "Hz")],
    "shelly_pro_3em": [
        (1_020, "f32", True, 1, "V"),
        (1_013, "f32", True, 1, "W"),
        (1_033, "f32", True, 1, "Hz"),
    ],
    "huawei_emma": [(31_639, "u32", False, 0.01, "V"), (31_657, "i32", False, 1, "W")],
    "sunspec_203": [
        (40_078, "i16", False, 0.1, "V"),
        (40_088, "i16", False, 1, "W"),
        (40_086, "i16", False, 0.01, "Hz"),
    ],
    "sunspec_213": [(40_082, "f32", False, 1, "V"), (40_098, "f32", False, 1, "W"), (40_096, "f32", False, 1, "Hz")],
}


def words(model: Model, function: int, address: int, count: int, measured: Measured = HOME) -> Words:
    answer = model.read(Read(function, address, count), measured, unit=1)
    assert isinstance(answer, tuple), (model.name, answer)
    return answer


def number(model: Model, function: int, address: int, form: str, low_first: bool, measured: Measured = HOME) -> Any:
    registers = struct.calcsize(FORMATS[form]) // 2
    found = words(model, function, address, registers, measured)
    (value,) = struct.unpack(FORMATS[form], struct.pack(f">{registers}H", *(found[::-1] if low_first else found)))
    return value


def refused(model: Model, function: int, address: int, count: int) -> int | None:
    answer = model.read(Read(function, address, count), HOME, unit=1)
    return answer.code if isinstance(answer, Refusal) else None


def test_every_model_has_an_expectation_here() -> None:
    assert set(ENERGY) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_energy_stands_where_the_document_says_to_the_step_of_the_register(name: str) -> None:
    function, form, low_first, import_at, export_at, one_wh = ENERGY[name]
    step_wh = 10 if name in TWO_DECIMALS else 1
    for address, true_wh in ((import_at, HOME.import_wh), (export_at, HOME.export_wh)):
        if address is None:
            continue
        value = number(MODELS[name], function, address, form, low_first)
        if form == "f32":
            shown = true_wh // step_wh * step_wh / one_wh
            assert value == struct.unpack(">f", struct.pack(">f", shown))[0]
        else:
            assert value == true_wh // one_wh


@pytest.mark.parametrize("name", INSTANTANEOUS)
def test_power_voltage_and_frequency_stand_where_the_document_says(name: str) -> None:
    function = ENERGY[name][0]
    for address, form, low_first, factor, quantity in INSTANTANEOUS[name]:
        value = number(MODELS[name], function, address, form, low_first) * factor
        expected, tolerance = {"V": (230, 2), "W": (HOME.power_w, 1), "Hz": (50, 0.1)}[quantity]
        assert value == pytest.approx(expected, abs=tolerance), (address, quantity)


@pytest.mark.parametrize("name", MODELS)
def test_no_register_can_be_read_beside_the_tables(name: str) -> None:
    model = MODELS[name]
    for table in model.tables:
        readable = {at for first, end in table.ranges for at in range(first, end)}
        for function in table.functions:
            for first, end in table.ranges:
                if end not in readable:
                    assert refused(model, function, end, 1) == 2
                    assert refused(model, function, end - 1, 2) == 2
                if first and first - 1 not in readable:
                    assert refused(model, function, first - 1, 1) == 2
            assert refused(model, function, 0xFFFF, 2) == 2


@pytest.mark.parametrize("name", MODELS)
def test_no_two_values_share_a_register_and_all_can_be_read(name: str) -> None:
    for table in MODELS[name].tables:
        filled = [at for point in table.points for at in range(point.address, point.address + point.words)]
        for address, constant in table.constants(1, 1).items():
            filled += range(address, address + len(constant))
        assert len(filled) == len(set(filled))
        assert set(filled) <= {at for first, end in table.ranges for at in range(first, end)}


@pytest.mark.parametrize("name", MODELS)
def test_a_meter_has_no_function_but_its_own_and_no_longer_read_than_its_own(name: str) -> None:
    model = MODELS[name]
    functions = {function for table in model.tables for function in table.functions}
    for function in {1, 2, HOLDING, INPUT, 5, 6, 16} - functions:
        assert refused(model, function, 0, 1) == 1
    for table in model.tables:
        first, _ = table.ranges[0]
        assert refused(model, table.functions[0], first, table.registers_max + 1) == 3
        assert refused(model, table.functions[0], first, 0) == 3


@pytest.mark.parametrize(
    ("name", "last", "one_wh"),
    [
        ("carlo_gavazzi_em24", 2**31 - 1, 100),
        ("carlo_gavazzi_em340", 2**31 - 1, 100),
        ("sunspec_201", 2**32 - 1, 1),
        ("sunspec_204", 2**32 - 1, 100),
        ("siemens_pac2200", 10**12 - 1, 1),
        ("abb_b23", 2**64 - 1, 10),
    ],
)
def test_a_counter_starts_again_from_zero_after_its_last_value(name: str, last: int, one_wh: int) -> None:
    function, form, low_first, import_at, _, _ = ENERGY[name]
    for counted, shown in ((last, last), (last + 1, 0), (last + 8, 7)):
        measured = replace(HOME, import_wh=counted * one_wh)
        assert number(MODELS[name], function, import_at, form, low_first, measured) == shown


def test_the_two_em24_mean_different_things_by_0x42() -> None:
    din, ethernet = MODELS["carlo_gavazzi_em24"], MODELS["carlo_gavazzi_em24_e1"]
    assert number(din, INPUT, 0x42, "i32", True) == (HOME.import_wh - PARTIAL_RESET_AT_WH) // 100
    assert number(ethernet, INPUT, 0x42, "i32", True) == (HOME.import_wh + 1) // 3 // 100
    assert number(ethernet, INPUT, 0x3C, "i32", True) == (HOME.import_wh - PARTIAL_RESET_AT_WH) // 100


def test_an_em24_without_export_refuses_its_address_and_is_otherwise_an_em24() -> None:
    whole, import_only = MODELS["carlo_gavazzi_em24"], MODELS["carlo_gavazzi_em24_import"]
    assert refused(whole, INPUT, 0x5C, 2) is None
    assert refused(import_only, INPUT, 0x5C, 2) == refused(import_only, INPUT, 0x5A, 4) == 2
    for address in range(0, 0x5C, 2):
        assert words(import_only, INPUT, address, 2) == words(whole, INPUT, address, 2)


def test_an_emma_feeds_in_with_a_positive_power_that_its_meter_calls_negative() -> None:
    emma = MODELS["huawei_emma"]
    assert number(emma, HOLDING, 30_358, "i32", False) == -number(emma, HOLDING, 31_657, "i32", False) == 2_345
    assert number(emma, HOLDING, 30_332, "u64", False) == number(emma, HOLDING, 31_679, "i64", False)
    assert number(emma, HOLDING, 30_338, "u64", False) == number(emma, HOLDING, 31_687, "i64", False)


def test_a_shelly_dates_its_values_and_keeps_a_perpetual_count_of_each_phase() -> None:
    shelly = MODELS["shelly_pro_3em"]
    assert number(shelly, INPUT, 1_000, "u32", True) == number(shelly, INPUT, 1_160, "u32", True) == NOW
    perpetual = [number(shelly, INPUT, address, "f32", True) for address in (1_182, 1_202, 1_222)]
    assert sum(perpetual) == pytest.approx(HOME.import_wh, abs=12)
    assert struct.pack(">10H", *words(shelly, INPUT, 6, 10)).rstrip(b"\0") == b"SPEM-003CEBEU"


def test_the_identification_of_a_carlo_gavazzi_is_read_alone_in_the_midst_of_a_voltage() -> None:
    for name, code in (("carlo_gavazzi_em24", 71), ("carlo_gavazzi_em24_e1", 1648), ("carlo_gavazzi_em340", 340)):
        assert words(MODELS[name], HOLDING, 0x0B, 1) == (code,)
        assert number(MODELS[name], INPUT, 0x0A, "i32", True) / 10 == pytest.approx(398, abs=4)


@pytest.mark.parametrize(
    ("name", "function", "address", "form", "low_first", "one_wh"),
    [
        ("eastron_sdm630", INPUT, 0x15A, "f32", False, 1_000),
        ("carlo_gavazzi_em24", INPUT, 0x46, "i32", True, 100),
        ("carlo_gavazzi_em340", INPUT, 0x40, "i32", True, 100),
        ("schneider_iem3000", HOLDING, 3517, "i64", False, 1),
        ("abb_b23", HOLDING, 0x5460, "u64", False, 10),
        ("orno_we516", HOLDING, 0x010A, "f32", False, 1_000),
        ("sunspec_203", HOLDING, 40_118, "u32", False, 10),
    ],
)
def test_the_phases_add_up_to_the_total(
    name: str, function: int, address: int, form: str, low_first: bool, one_wh: int
) -> None:
    step = struct.calcsize(FORMATS[form]) // 2
    phases = [number(MODELS[name], function, address + step * at, form, low_first) for at in range(3)]
    assert sum(phases) * one_wh == pytest.approx(HOME.import_wh, abs=3 * one_wh)


def test_what_this_grade_of_an_abb_does_not_measure_is_all_ones() -> None:
    b23 = MODELS["abb_b23"]
    assert words(b23, HOLDING, 0x500C, 4) == (0xFFFF,) * 4
    assert words(b23, HOLDING, 0x5014, 4) == (0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF)
    assert words(b23, HOLDING, 0x5B1C, 2) == (0x7FFF, 0xFFFF)
    assert struct.pack(">2H", *words(b23, HOLDING, 0x8960, 2)) == b"B23 "


@pytest.mark.parametrize(
    ("name", "function", "address", "count"),
    [
        ("eastron_sdm630", INPUT, 0x49, 2),
        ("eastron_sdm630", INPUT, 0x48, 1),
        ("eastron_sdm630", INPUT, 0x48, 3),
        ("eastron_sdm72d_m", INPUT, 0x36, 2),
        ("siemens_pac2200", HOLDING, 802, 4),
        ("siemens_pac2200", INPUT, 801, 2),
        ("schneider_iem3000", HOLDING, 3203, 2),
    ],
)
def test_half_a_value_is_an_illegal_address(name: str, function: int, address: int, count: int) -> None:
    assert refused(MODELS[name], function, address, count) == 2


def test_every_meter_of_a_make_says_which_it_is() -> None:
    codes = {name: words(model, HOLDING, 0xFC02, 1) for name, model in MODELS.items() if name.startswith("eastron")}
    assert len(set(codes.values())) == len(codes) == 5
    iem = words(MODELS["schneider_iem3000"], HOLDING, 49, 20)
    assert struct.pack(">20H", *iem).rstrip(b"\0") == b"iEM3155"


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("sunspec")])
def test_the_offsets_of_sunspec_are_those_of_the_alliance(name: str) -> None:
    model = MODELS[name]
    published = mdef.from_json_file(f"{mdef.__file__.removesuffix('mdef.py')}models/json/model_{name[8:]}.json")
    offset, at = 0, {}
    for point in published["group"]["points"]:
        at[point["name"]] = 40_070 + offset
        offset += point["size"]
    assert words(model, HOLDING, 40_070, 2) == (int(name[8:]), offset - 2)
    assert words(model, HOLDING, 40_070 + offset, 2) == (0xFFFF, 0)
    assert refused(model, HOLDING, 40_070 + offset, 3) == 2
    exported, imported = ("TotWhInj", "TotWhAbs") if name.endswith("701") else ("TotWhExp", "TotWhImp")
    assert (at[imported], at[exported]) == ENERGY[name][3:5]
    if "TotWh_SF" in at:
        assert 10 ** words(model, HOLDING, at["TotWh_SF"], 1)[0] == ENERGY[name][5]


def test_a_one_phase_sunspec_meter_has_no_second_phase() -> None:
    one_phase = MODELS["sunspec_201"]
    assert words(one_phase, HOLDING, 40_080, 1) == (0x8000,)
    assert words(MODELS["sunspec_211"], HOLDING, 40_086, 2) == (0x7FC0, 0)
    assert words(one_phase, HOLDING, 40_120, 2) == (0, 0)


def test_a_generator_injects_what_a_home_absorbs() -> None:
    der = MODELS["sunspec_701"]
    panels = Measured(1_000, 0, 500, NOW, 1, is_generation=True)
    assert number(der, HOLDING, 40_089, "u64", False, panels) == 1_000
    assert number(der, HOLDING, 40_080, "i16", False, panels) == 500
    assert number(der, HOLDING, 40_080, "i16", False) == -HOME.power_w
