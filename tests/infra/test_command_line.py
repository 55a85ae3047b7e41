import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from commonwatt.cli import ROOMS
from edge.certificate_request import make_request
from infra.local.mosquitto_package import Installation

IMPORTED_BY = """
import json, sys
import commonwatt.cli
sys.argv = ["commonwatt", *sys.argv[1:]]
try:
    commonwatt.cli.main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def commonwatt(*arguments: str, without: str = "") -> "subprocess.CompletedProcess[str]":
    hide = f"import sys; sys.modules[{without!r}] = None\n" if without else ""
    command = [sys.executable, "-c", hide + IMPORTED_BY, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_help_names_every_command_and_imports_no_room() -> None:
    done = commonwatt("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ROOMS)
    assert not {"edge", "hub", "simulators", "infra"} & set(json.loads(done.stdout.splitlines()[-1]))


def test_the_version_is_the_one_of_the_distribution() -> None:
    assert commonwatt("--version").stdout.splitlines()[0] == "0.1.0"


@pytest.mark.parametrize(("room", "others"), [("edge", {"hub", "fastapi"}), ("simulate", {"hub", "edge"})])
def test_a_room_loads_none_of_the_others(room: str, others: set[str]) -> None:
    done = commonwatt(room, "--help")
    assert done.returncode == 0
    assert not others & set(json.loads(done.stdout.splitlines()[-1]))


def test_a_missing_dependency_is_one_clear_sentence() -> None:
    done = commonwatt("edge", "doctor", without="aiomqtt")
    assert done.returncode == 2
    assert "'aiomqtt' is missing; install commonwatt[edge]" in done.stderr


def test_a_command_that_is_not_installed_is_one_clear_sentence() -> None:
    done = commonwatt("edge", "doctor", without="edge.cli")
    assert done.returncode == 2
    assert "this installation does not contain it" in done.stderr


def test_the_configuration_of_a_real_broker_keeps_its_accounts(
    tmp_path: Path, mosquitto_installation: Installation
) -> None:
    state = tmp_path / "broker"
    options = {
        "--community": "test-community",
        "--certificates": str(tmp_path),
        "--directory": str(state),
        "--plugin": str(mosquitto_installation.plugin),
    }
    arguments = ["broker", "configure", *(word for option in options.items() for word in option)]
    assert commonwatt(*arguments).returncode == 0
    accounts = (state / "dynamic-security.json").read_bytes()
    assert stat.S_IMODE((state / "hub-password").stat().st_mode) == 0o600
    assert commonwatt(*arguments).returncode == 0
    assert (state / "dynamic-security.json").read_bytes() == accounts
    assert "$" not in (state / "mosquitto.conf").read_text()


def test_a_registered_meter_gets_a_certificate_and_loses_it(
    tmp_path: Path, mosquitto_installation: Installation
) -> None:
    state, request = tmp_path / "broker", tmp_path / "home-17.csr"
    where = ("--directory", str(state), "--meter-id", "home-17")
    request.write_text(make_request("home-17", tmp_path / "mqtt.key"))
    configure = ("broker", "configure", "--community", "test-community", "--certificates", str(tmp_path))
    configure = (*configure, "--directory", str(state), "--plugin", str(mosquitto_installation.plugin))
    assert commonwatt(*configure).returncode == 0
    assert "certificate-port" in commonwatt("broker", "revoke", *where).stderr
    assert commonwatt(*configure, "--certificate-port", "8884").returncode == 0
    assert "listener 8884" in (state / "mosquitto.conf").read_text()
    assert stat.S_IMODE((state / "client-authority" / "ca.key").stat().st_mode) == 0o600

    sign = ("broker", "sign", *where, "--request", str(request))
    assert "has no account" in commonwatt(*sign).stderr
    accounts = json.loads((state / "dynamic-security.json").read_bytes())
    accounts["clients"].append({"username": "home-17"})
    (state / "dynamic-security.json").write_text(json.dumps(accounts))
    done = commonwatt(*sign)
    assert done.returncode == 0, done.stderr
    assert "BEGIN CERTIFICATE" in done.stdout
    assert "1 certificates of home-17 revoked" in commonwatt("broker", "revoke", *where).stdout
    assert "0 certificates of home-17 revoked" in commonwatt("broker", "revoke", *where).stdout
