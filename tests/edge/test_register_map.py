import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import RegisterMapError
from edge.register_map import MAPS_DIRECTORY, RegisterMap, load_register_map, parse_register_map

SDM630_TEXT = (MAPS_DIRECTORY / "eastron_sdm630.toml").read_text()
MAP_FILE = Path("map.toml")


def document(change: str = "", table: str = "energy_import") -> dict[str, Any]:
    """The SDM630's map with one register changed by a line of TOML; `key = "-"` takes the key away."""
    found = tomllib.loads(SDM630_TEXT)
    for key, value in tomllib.loads(change).items():
        if value == "-":
            del found["registers"][table][key]
        else:
            found["registers"][table][key] = value
    return found


def parse(change: str = "", table: str = "energy_import") -> RegisterMap:
    return parse_register_map(document(change, table), MAP_FILE)


def test_an_unknown_map_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RegisterMapError, match="eastron_sdm630"):
        load_register_map("eastron_sdm63")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('address = "72"', "address: must be a whole number"),
        ("address = 65535", "address: must be a whole number from 0 to 65534"),
        ("function_code = 6", "function_code: must be a whole number from 3 to 4"),
        ('word_order = "middle"', "word_order: must be one of big, little"),
        ("scale = 0", "scale: must be a positive"),
        ("scale = -1000", "scale: must be a positive"),
        ("scale = 0.1", "scale: must be a positive"),
        ('scale = "1e9"', "scale: must be a positive"),
        ('scale = "1/3"', "scale: must be a positive"),
        (
            'modulus = "ten"',
            "modulus: must be a positive whole number, or a decimal in quotes, not 'ten' (or 'unk",
        ),
        ('modulus = "-"', "modulus: missing"),
        ('quantum = "float64"', "quantum: must be a positive"),
        ("adress = 3", "adress: no such key; the nearest is 'address'"),
        ('type = "float16"', "did you mean 'float"),
        ('unavailable = ["ffff"]', "unavailable: must be 4 bytes in hex"),
        ('unavailable = ["0x7fc00"]', "unavailable: must be 4 bytes in hex"),
        ("unavailable = []", "unavailable: must be a list, and not an empty one"),
        ('source = "-"', "source: missing"),
        ("scale_factor_address = 4", "scale_factor_address: a float32 has no scale factor"),
        ('type = "uint32"\nquantum = "scale_factor"', "quantum: must be a number for this uint32"),
        ('type = "uint32"\nquantum = 100\nscale_factor_address = 9', "quantum: must be 'scale_factor'"),
        ('type = "uint32"\nquantum = 1500', "quantum: must be a multiple of the scale, 1000"),
        ('type = "int32"\nquantum = 1000\nmodulus = 2147483648001', "modulus: must be a multiple of the scale and fit"),
        ('type = "int16"\nquantum = 1000\nmodulus = 65536000', "modulus: must be a multiple of the scale and fit"),
    ],
)
def test_a_wrong_entry_of_a_map_names_the_entry_and_the_reason(change: str, why: str) -> None:
    with pytest.raises(RegisterMapError) as raised:
        parse(change)
    assert "map.toml: registers.energy_import." in str(raised.value)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("meter.id", "", "meter.id: must be 1 to 64 printable characters"),
        ("meter.id", "m" * 65, "meter.id: must be 1 to 64 printable characters"),
        ("meter.id", "two\nlines", "meter.id: must be 1 to 64 printable characters"),
        ("meter.id", 630, "meter.id: must be text"),
        ("meter.phases_netted", "yes", "must be true or false"),
        ("meter.phases_netted", None, "meter.phases_netted: missing"),
        ("meter.phases_source", None, "meter.phases_source: missing"),
        ("meter.registers_per_read_max", 126, "from 2 to 125"),
        ("serial.baud_rates", ["9600"], "must be a whole number"),
        ("serial.parities", ["none"], "must be one of N, E, O"),
        ("serial.bauds", [9600], "no such key; the nearest is 'baud_rates'"),
        ("identity", {"function_code": 3, "address": 11, "allowed": [], "source": "x"}, "not an empty one"),
        ("identity", {"function_code": 3, "address": 11, "allowed": [[1], [1, 2]], "source": "x"}, "all of one length"),
        ("identity", {"function_code": 3, "address": 65_535, "allowed": [[1, 2]], "source": "x"}, "beyond the last"),
        ("identity", {"function_code": 3, "address": 11, "allowed": [[70_000]], "source": "x"}, "from 0 to 65535"),
        ("registers.energy_imports", {}, "energy_imports: no such quantity; the nearest is 'energy_import'"),
        ("extra", {}, "no such key"),
    ],
)
def test_a_wrong_line_about_the_meter_is_named_too(path: str, value: object, why: str) -> None:
    found = document()
    *tables, key = path.split(".")
    table = found
    for name in tables:
        table = table[name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    with pytest.raises(RegisterMapError) as raised:
        parse_register_map(found, MAP_FILE)
    assert why in str(raised.value)


def test_a_register_is_never_longer_than_what_the_meter_answers_at_once() -> None:
    found = document('type = "uint64"\nquantum = 1000')
    found["meter"]["registers_per_read_max"] = 3
    with pytest.raises(RegisterMapError, match="longer than registers_per_read_max"):
        parse_register_map(found, MAP_FILE)


def test_a_decimal_in_quotes_is_an_exact_scale_and_an_exact_modulus() -> None:
    register = parse('scale = "0.1"\nmodulus = "1000000.5"').registers["energy_import"]
    assert (register.scale, register.modulus) == (Fraction(1, 10), Fraction("1000000.5"))
    assert register.modulus_scaled == 1_000_000, "what readings are compared with is whole"


def test_only_power_may_be_turned_round() -> None:
    assert parse("scale = -1", "power").registers["power"].scale == -1


def test_a_map_beside_the_configuration_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SDM630_TEXT.replace('"eastron_sdm630"', '"mine"'))
    assert load_register_map("mine.toml", beside=tmp_path).map_id == "mine"
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.toml").write_text(SDM630_TEXT)
    assert load_register_map("maps/mine.toml", beside=tmp_path).map_id == "eastron_sdm630"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "register_map_unreadable"),
        (b"\xff\xfe", "register_map_unreadable"),
        (b"[meter", "register_map_unreadable"),
        (b"a = " + b"[" * 20_000, "register_map_unreadable"),
        (b"#" * 70_000, "register_map_too_long"),
        (b"", "settings_missing"),
    ],
)
def test_a_map_file_that_cannot_be_read_is_a_named_error(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(RegisterMapError) as raised:
        load_register_map("mine.toml", beside=tmp_path)
    assert raised.value.code == code


names = st.sampled_from(["id", "model", "address", "type", "energy_import", "power", "é", ""])
json = st.recursive(
    st.none() | st.booleans() | st.integers() | names | st.floats(width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


@given(st.fixed_dictionaries({}, optional={"meter": json, "registers": json, "identity": json, "serial": json}))
def test_no_document_makes_the_loader_raise_anything_but_its_own_error(found: dict[str, object]) -> None:
    with pytest.raises(RegisterMapError):
        parse_register_map(found, MAP_FILE)


@given(st.sampled_from(["function_code", "address", "type", "word_order", "unit", "scale", "quantum", "modulus"]), json)
def test_no_value_of_a_key_makes_the_loader_raise_anything_but_its_own_error(key: str, value: object) -> None:
    found = document()
    found["registers"]["energy_import"][key] = value
    try:
        parse_register_map(found, MAP_FILE)
    except RegisterMapError as error:
        assert key in str(error) or "quantum" in str(error) or "modulus" in str(error)
