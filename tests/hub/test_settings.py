"""The environment of a hub process: complete and right, or every fault by name."""

import stat
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.errors import SettingsInvalid
from hub.settings import PREFIX, Settings, read_secret, read_secret_bytes
from protocol.topics import domain_of

RIGHT = {
    "COMMONWATT_DATABASE_URL": "postgresql://hub@127.0.0.1/hub",
    "COMMONWATT_COMMUNITY_ID": "sunny-street",
    "COMMONWATT_MQTT_HOST": "broker.example",
    "COMMONWATT_MQTT_PORT": "8883",
    "COMMONWATT_MQTT_CA_FILE": "/etc/ca.crt",
    "COMMONWATT_MQTT_PASSWORD_FILE": "/etc/password",
    "COMMONWATT_COMMAND_KEY_FILE": "/etc/key",
    "COMMONWATT_BROKER_SECRET_FILE": "/etc/secret",
    "COMMONWATT_MEMBER_SECRET_FILE": "/etc/member-secret",
    "COMMONWATT_TOKEN_KEY_FILE": "/etc/token-key",
    "COMMONWATT_PUBLIC_URL": "https://hub.example",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_complete_environment_is_read() -> None:
    read = Settings.read()
    assert read.community_id == "sunny-street"
    assert read.domain == domain_of("sunny-street")
    assert (read.api_host, read.backlog_age_max_s) == ("127.0.0.1", 35 * 86_400)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_missing_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(SettingsInvalid, match=f"{name}: Field required"):
        Settings.read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://elsewhere"),
        ("COMMUNITY_ID", "Sunny Street"),
        ("MQTT_PORT", "0"),
        ("MQTT_PORT", "many"),
        ("API_PORT", "70000"),
        ("BACKLOG_AGE_MAX_S", "1"),
        ("LOG_LEVEL", "chatty"),
        ("GENESIS_HASH_HEX", "abcd"),
        ("PUBLIC_URL", "hub.example"),
        ("PUBLIC_URL", "https://hub.example/"),
        ("PUBLIC_URL", "https://hub.example:443"),
        ("PUBLIC_URL", "https://Hub.example"),
        ("PUBLIC_URL", "https://me@hub.example"),
        ("PUBLIC_URL", "http://hub.example"),
        ("PUBLIC_URL", "https://hub.example:many"),
        ("PUBLIC_URL", "https://b\u00fccher.example"),
        ("PUBLIC_URL", f"https://{'a.' * 127}b"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://app.example, app.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "::ffff:10.0.0.0/104"),
        ("SMTP_SECURITY", "hope"),
        ("WEBHOOK_NETWORKS_ALLOWED", "everything"),
    ],
)
def test_what_is_wrong_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(PREFIX + name, value)
    with pytest.raises(SettingsInvalid, match=PREFIX + name):
        Settings.read()


def test_whoever_comes_from_an_earlier_hub_is_told_what_took_the_place_of_the_admin_token(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("COMMONWATT_ADMIN_TOKEN_FILE", "/etc/commonwatt/admin-token")
    with pytest.raises(SettingsInvalid, match="no such setting, admins are members now: `commonwatt hub bootstrap`"):
        Settings.read()


def test_a_list_is_written_with_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMONWATT_CORS_ORIGINS", "https://app.example, http://localhost:5173,")
    environment.setenv("COMMONWATT_TRUSTED_PROXIES", "10.0.0.0/8,::1/128")
    read = Settings.read()
    assert read.cors_origins == ["https://app.example", "http://localhost:5173"]
    assert read.trusted_proxies == [IPv4Network("10.0.0.0/8"), IPv6Network("::1/128")]
    assert read.webhook_networks_allowed == []


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/7", "::/0", "2000::/3", "2a00::/12"])
def test_clients_at_large_are_no_proxies(environment: pytest.MonkeyPatch, everybody: str) -> None:
    """Whoever is believed may say that it is anybody, and so escape every limit by address."""
    environment.setenv("COMMONWATT_TRUSTED_PROXIES", f"127.0.0.1/32,{everybody}")
    with pytest.raises(SettingsInvalid, match=f"COMMONWATT_TRUSTED_PROXIES: .*{everybody}.*clients"):
        Settings.read()


@pytest.mark.parametrize("proxies", ["10.0.0.0/8", "104.16.0.0/13", "2a06:98c0::/29", "fd12:3456:789a::/48"])
def test_the_networks_that_proxies_have_may_be_trusted(environment: pytest.MonkeyPatch, proxies: str) -> None:
    environment.setenv("COMMONWATT_TRUSTED_PROXIES", proxies)
    assert list(map(str, Settings.read().trusted_proxies)) == [proxies]


@pytest.mark.parametrize(
    "half", [{"SMTP_HOST": "mail.example"}, {"SMTP_USERNAME": "hub"}, {"SMTP_PASSWORD_FILE": "/etc/password"}]
)
def test_half_a_mail_server_is_none(environment: pytest.MonkeyPatch, half: dict[str, str]) -> None:
    for name, value in half.items():
        environment.setenv(PREFIX + name, value)
    with pytest.raises(SettingsInvalid, match=r"mail needs a sender|both or neither"):
        Settings.read()


def test_half_a_chain_is_no_chain(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMONWATT_GENESIS_HASH_HEX", "ab" * 32)
    with pytest.raises(SettingsInvalid, match="both or neither"):
        Settings.read()
    environment.setenv("COMMONWATT_PROGRAM_ID_HEX", "cd" * 32)
    assert Settings.read().domain == domain_of("sunny-street", b"\xab" * 32, b"\xcd" * 32)


def test_several_faults_are_told_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("COMMONWATT_MQTT_HOST")
    environment.setenv("COMMONWATT_MQTT_PORT", "-1")
    environment.setenv("COMMONWATT_MQTT_PROT", "8883")
    with pytest.raises(SettingsInvalid) as caught:
        Settings.read()
    assert "COMMONWATT_MQTT_PROT: no such setting, perhaps COMMONWATT_MQTT_PORT" in caught.value.detail
    assert "COMMONWATT_MQTT_HOST: " in caught.value.detail
    assert "COMMONWATT_MQTT_PORT: " in caught.value.detail


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*RIGHT, "COMMONWATT_API_PORT", "COMMONWATT_LOG_LEVEL", "COMMONWATT_PROGRAM_ID_HEX"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40),
)
def test_no_value_ends_in_anything_but_settings_or_a_named_fault(name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        try:
            assert Settings.read().domain
        except SettingsInvalid as fault:
            assert PREFIX in fault.detail


def secret(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    file = directory / "secret"
    file.touch(mode=stat.S_IMODE(mode))
    file.chmod(mode)
    file.write_bytes(content)
    return file


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert read_secret(secret(tmp_path, b"token\n")) == "token"
    assert read_secret_bytes(secret(tmp_path, b"00ff\n"), 2) == b"\x00\xff"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsInvalid, match="others may read it"):
        read_secret(secret(tmp_path, b"token", mode))


@pytest.mark.parametrize("content", [b"", b" \n", "schlüssel".encode("latin-1")])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsInvalid):
        read_secret(secret(tmp_path, content))


@pytest.mark.parametrize("content", [b"00", b"zz" * 32, b"00" * 33])
def test_a_key_of_the_wrong_size_or_alphabet_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsInvalid):
        read_secret_bytes(secret(tmp_path, content), 32)


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="nowhere"):
        read_secret(tmp_path / "nowhere")
