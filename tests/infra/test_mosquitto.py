import datetime
import shutil
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from infra.local import debian_package, mosquitto_package
from infra.local.certificates import RENEW_BEFORE, VALIDITY, ensure_certificates
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from infra.local.processes import LaunchError

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)


def test_a_killed_broker_comes_back_on_the_same_port(tmp_path: Path, mosquitto_installation: Installation) -> None:
    with Mosquitto(tmp_path, mosquitto_installation, "test-community") as broker:
        port = broker.port
        broker.kill()
        broker.start()
        assert broker.port == port


def test_a_community_has_a_gateway_only_if_asked(tmp_path: Path, mosquitto_installation: Installation) -> None:
    for gateway in (False, True):
        with Mosquitto(tmp_path / str(gateway), mosquitto_installation, "test-community", gateway=gateway) as broker:
            accounts = (broker.state / "dynamic-security.json").read_text()
            assert ("hub-gateway" in accounts) == gateway


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path, mosquitto_installation: Installation) -> None:
    with Mosquitto(tmp_path, mosquitto_installation, "test-community"):
        pass
    secret_files = ("password", "certificates/server.key", "state/dynamic-security.json")
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in secret_files} == {0o600}
    assert (tmp_path / "password").read_text() not in (tmp_path / "state/dynamic-security.json").read_text()


def test_a_broker_that_does_not_start_says_why(tmp_path: Path, mosquitto_installation: Installation) -> None:
    without_plugin = Installation(
        mosquitto_installation.program, tmp_path / "absent.so", mosquitto_installation.environment
    )
    with pytest.raises(LaunchError, match="absent"):
        Mosquitto(tmp_path, without_plugin, "test-community").start()


def test_certificates_are_kept_while_they_are_good_and_remade_in_time(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NOW)
    first = (tmp_path / "ca.crt").read_bytes()
    ensure_certificates(tmp_path, NOW + VALIDITY - RENEW_BEFORE - datetime.timedelta(days=1))
    assert (tmp_path / "ca.crt").read_bytes() == first
    ensure_certificates(tmp_path, NOW + VALIDITY - RENEW_BEFORE)
    assert (tmp_path / "ca.crt").read_bytes() != first


def test_the_authority_verifies_the_server_strictly(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NOW)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert len(context.get_ca_certs()) == 1
    server = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_a_machine_with_neither_mosquitto_nor_apt_gets_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="install the package `mosquitto`"):
        mosquitto_package.fetch(tmp_path / "cache")


@pytest.mark.skipif(shutil.which("apt-config") is None, reason="this machine has no apt")
def test_the_private_package_state_takes_over_no_hooks_of_the_machine(tmp_path: Path) -> None:
    environment = debian_package.private_state(tmp_path)
    configuration = Path(environment["APT_CONFIG"]).read_text()
    assert "Invoke" not in configuration
    assert str(tmp_path) in configuration
