from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.base58 import ALPHABET, decode_base58
from edge.errors import SettingsError
from edge.settings import load_settings, parse_settings
from protocol.topics import domain_of

GENERATION = """[[bus.meter]]
role = "generation"
unit = 2
map = "eastron_sdm630"
"""
EXAMPLE = Path(__file__).parents[2] / "edge" / "example.toml"


def uncommented(text: str) -> str:
    """The example with every default switched on."""
    lines = [line[2:] if line.startswith(("# [", "# ")) and "=" in line else line for line in text.splitlines()]
    return "\n".join(line.removeprefix("# ") if line.startswith("# [") else line for line in lines)


def test_the_example_is_a_valid_configuration() -> None:
    settings = load_settings(EXAMPLE)
    assert settings.sampling.interval_s == 60
    assert settings.domain == domain_of("sunny-street")
    assert settings.command_public_key is None


def test_the_defaults_that_the_example_shows_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    text = uncommented(EXAMPLE.read_text()).replace("clock_unit = 247", "clock_unit = 0")
    for spoken in ("The agent's", "Paths are"):
        text = text.replace(spoken, "# " + spoken)
    file.write_text(text)
    (tmp_path / "bare.toml").write_text(EXAMPLE.read_text())
    assert load_settings(file) == load_settings(tmp_path / "bare.toml")


def alternatives(text: str) -> str:
    """What the example shows as alternatives, from its comments to configuration."""
    lines = [line[2:] if line.startswith("#|") else "" for line in text.splitlines()]
    return "\n".join(line.strip() for line in lines)


def test_the_alternatives_that_the_example_shows_are_accepted(tmp_path: Path, config_text: Callable[..., str]) -> None:
    shown = alternatives(EXAMPLE.read_text())
    for kind, table, follows in (
        ("rtu", "SerialBus", GENERATION),
        ("rtu_over_tcp", "TcpBus", GENERATION),
        ("s0", "PulseBus", ""),
    ):
        at = shown.index(f'type = "{kind}"')
        bus = [line.split("   ")[0] for line in shown[at:].split("\n\n")[0].splitlines() if " = " in line]
        text = config_text(502).replace(GENERATION, "")
        text = text.replace("[sampling]", "\n".join(["[[bus]]", *bus, follows, "[sampling]"]))
        (tmp_path / f"{kind}.toml").write_text(text)
        first, second = load_settings(tmp_path / f"{kind}.toml").buses
        assert (type(first).__name__, type(second).__name__) == ("TcpBus", table)
        assert second.meters[0].role == "generation"


def test_home_assistant_and_https_are_accepted_as_shown(tmp_path: Path, config_text: Callable[..., str]) -> None:
    shown = alternatives(EXAMPLE.read_text())
    https = shown[shown.index("[https]") : shown.index('ca_file = "hub-ca.crt"')]
    home = shown[shown.index("[home_assistant]") :]
    lines = [
        line.split("   ")[0] for line in (https + "\n" + home).splitlines() if line.startswith("[") or " = " in line
    ]
    text = config_text(502).replace("[hub]", "\n".join([*lines, "[hub]", 'url = "https://hub.example/"']))
    (tmp_path / "edge.toml").write_text('transport = "https"\n' + text)
    settings = load_settings(tmp_path / "edge.toml")
    assert settings.hub.url == "https://hub.example"
    assert settings.https is not None
    assert settings.https.password_file == tmp_path / "mqtt.password"
    assert settings.home_assistant is not None
    assert (settings.home_assistant.host, settings.home_assistant.username) == ("homeassistant.local", "meter")


def test_paths_are_relative_to_the_file(tmp_path: Path, config_text: Callable[..., str]) -> None:
    (tmp_path / "edge.toml").write_text(config_text(502))
    settings = load_settings(tmp_path / "edge.toml")
    assert settings.journal.file == tmp_path / "journal.sqlite"
    assert settings.mqtt is not None
    assert settings.mqtt.ca_file == tmp_path / "ca.crt"


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        ("community_id", "comunity_id", "community_id", "is it the 'comunity_id'"),
        ('kind = "solar"', 'kind = "sollar"', "kind", "did you mean 'solar'"),
        ("timeout_s = 1", "timeout = 1", "bus[0].timeout", "the nearest is 'timeout_s'"),
        ("timeout_s = 1", "timeout_s = 1.5", "bus[0].timeout_s", "whole number"),
        ("timeout_s = 1", "timeout_s = true", "bus[0].timeout_s", "whole number"),
        ('host = "127.0.0.1"', 'host = "http://meter"', "bus[0].host", "without a port"),
        ("unit = 1", "unit = 256", "bus[0].meter[0].unit", "0 to 255"),
        ('role = "grid"', 'role = "generation"', "bus.meter", "one meter each of generation, grid"),
        ('map = "eastron_sdm630"', 'map = "sdm640"', "bus[0].meter[0].map", "did you mean"),
        ('clock_check = "trust"', "seal_interval_s = 30", "sampling.seal_interval_s", "shorter than interval_s"),
        ('clock_check = "trust"', "interval_s = 901", "sampling.interval_s", "1 to 900"),
        ('owner = "0f', 'owner = "0g', "owner", "hex or base58"),
        ("port = 1", "port = 70000", "mqtt.port", "1 to 65535"),
        ("ca_file", "ca_fil", "mqtt.ca_file", "missing"),
        ("command_public_key", "comand_public_key", "hub.comand_public_key", "nearest is 'command_public_key'"),
        ("[laboratory]", "[laboratry]", "laboratry", "nearest is 'laboratory'"),
        ("[laboratory]", f'[chain]\ngenesis_hash = "{"aa" * 32}"\n[laboratory]', "chain", "both chain parts"),
        ('meter_id = "home-17"', 'meter_id = "hub-1"', "meter_id", "hub's own"),
        ('meter_id = "home-17"', "meter_id = 17", "meter_id", "must be text"),
        ('type = "tcp"', 'type = "tpc"', "bus[0].type", "did you mean 'tcp'"),
        ("unit = 2", "unit = 1", "bus[0].meter", "two meters have unit 1"),
        ('type = "tcp"', 'type = "tcp"\nbaud = 9600', "bus[0].baud", "no such key"),
        ('kind = "solar"', 'kind = "solar"\ntransport = "https"', "", "https: the transport is https"),
        ("[laboratory]", 'url = "http://hub.example"\n[laboratory]', "hub.url", "must be https"),
        ("[laboratory]", 'url = "https://hub.example/?x=1"\n[laboratory]', "hub.url", "must be an address"),
        ('password_file = "mqtt.password"', "version = 5", "mqtt.password_file", "a certificate_file"),
        (
            'ca_file = "ca.crt"',
            'ca_file = "ca.crt"\ncertificate_file = "m.crt"',
            "mqtt.certificate_file",
            "belong together",
        ),
        ('ca_file = "ca.crt"', 'ca_file = "ca.crt"\nversion = 4', "mqtt.version", "MQTT 3.1.1"),
        (
            "[laboratory]",
            '[home_assistant]\nhost = "h"\ndiscovery_prefix = "a/#"\n[laboratory]',
            "home_assistant.discovery_prefix",
            "wildcards",
        ),
        ("[hub]", "[[hub]]", "hub", "must be a table"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_the_reason(
    tmp_path: Path, config_text: Callable[..., str], old: str, new: str, key: str, why: str
) -> None:
    text = config_text(502)
    assert old in text
    file = tmp_path / "edge.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(SettingsError) as raised:
        load_settings(file)
    message = str(raised.value)
    assert (f"{file}: {key}: " if key else f"{file}: ") in message
    assert why in message
    assert "\n" not in message


def test_unit_0_and_255_answer_over_tcp_but_on_a_line_0_is_everybody(
    tmp_path: Path, config_text: Callable[..., str]
) -> None:
    text = config_text(502).replace("\nunit = 1", "\nunit = 0").replace("\nunit = 2", "\nunit = 255")
    file = tmp_path / "edge.toml"
    file.write_text(text)
    assert [meter.unit for meter in load_settings(file).meters] == [0, 255]
    file.write_text(text.replace('type = "tcp"', 'type = "rtu_over_tcp"'))
    with pytest.raises(SettingsError, match=r"bus\[0\].meter\[0\].unit: must be a whole number from 1 to 247"):
        load_settings(file)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"[" * 60_000, b"#" * 70_000])
def test_a_file_that_is_no_toml_is_a_named_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "edge.toml").write_bytes(content)
    with pytest.raises(SettingsError, match="settings_unreadable"):
        load_settings(tmp_path / "edge.toml")
    with pytest.raises(SettingsError, match="settings_unreadable"):
        load_settings(tmp_path / "nothing.toml")


NAMES = [
    "community_id",
    "meter_id",
    "kind",
    "measurement",
    "owner",
    "key_file",
    "chain",
    "bus",
    "type",
    "device",
    "line",
    "transport",
    "https",
    "home_assistant",
    "url",
    "sampling",
    "journal",
    "mqtt",
    "hub",
    "laboratory",
    "host",
    "port",
    "meter",
    "role",
    "unit",
    "map",
    "file",
    "ca_file",
    "command_public_key",
    "clock_unit",
    "interval_s",
    "bytes_max",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "grid", "é\0", "::", "11"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=12))
def test_no_configuration_makes_the_loader_raise_anything_but_its_own_error(document: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        parse_settings(document, Path("edge.toml"))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_loader_raise_anything_but_its_own_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError):
        load_settings(file)


@given(st.binary(max_size=40))
def test_base58_is_read_as_wallets_write_it(data: bytes) -> None:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    text = "1" * (len(data) - len(data.lstrip(b"\0"))) + text
    assert decode_base58(text) == data


def test_what_is_not_base58_is_refused() -> None:
    for text in ("0", "O", "é", "1" * 65):
        with pytest.raises(ValueError, match=r"base58|too long"):
            decode_base58(text)
