"""The life of a meter's key by command line, with real meters over real Modbus and an API over real HTTP."""

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey, VerifyKey
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from typer.testing import CliRunner

from edge.cli import app
from edge.journal import Journal
from edge.register_map import load_register_map
from edge.settings import Settings, load_settings
from infra.mosquitto.client_authority import ClientAuthority
from protocol.enrolment import (
    ENROLMENT_METER_REPLACED,
    ENROLMENT_PHASES_NOT_NETTED,
    encode_enrolment,
    split_enrolment,
)
from protocol.replacement import REGISTER_GENERATION, REGISTER_GRID_EXPORT, REGISTER_GRID_IMPORT, split_replacement
from protocol.rotation import split_rotation

OWNER = SigningKey(b"\x0f" * 32)
runner = CliRunner()


def edge(*arguments: object) -> Any:
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def reachable(config_file: Path, hub: Any) -> Path:
    """The configuration of an enrolled meter that can reach a hub; its owner is OWNER."""
    text = config_file.read_text().replace("[hub]", f'[hub]\nurl = "{hub.url}"')
    config_file.write_text(text.replace("0f" * 32, bytes(OWNER.verify_key).hex()))
    assert edge("enrol", "--config", config_file).exit_code == 0
    return config_file


@pytest.fixture
def alone(reachable: Path, hub: Any) -> Path:
    """The same, without a hub in reach."""
    reachable.write_text(reachable.read_text().replace(f'url = "{hub.url}"', ""))
    return reachable


@contextmanager
def journal_of(config: Path) -> Iterator[tuple[Settings, Journal]]:
    settings = load_settings(config)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    try:
        yield settings, journal
    finally:
        journal.close()


def test_a_meter_gets_a_new_key(reachable: Path) -> None:
    assert edge("rotate", "--config", reachable).stdout == "key epoch 2\n"
    assert edge("rotate", "--config", reachable).stdout == "key epoch 3\n"


def test_without_a_hub_in_reach_what_an_operator_hands_in_is_printed_until_its_outcome_is_told(alone: Path) -> None:
    printed = edge("rotate", "--config", alone)
    assert edge("rotate", "--config", alone).stdout == printed.stdout
    handed_in = json.loads(printed.stdout)
    assert split_rotation(bytes.fromhex(handed_in["rotation"]))[0].key_epoch == 2
    assert handed_in["replacements"] == []
    assert "Until then nothing is sealed" in printed.stderr
    assert edge("rotate", "--config", alone, "--accepted", "--refused").exit_code == 2
    assert edge("rotate", "--config", alone, "--accepted").stdout == "key epoch 2\n"
    again = edge("rotate", "--config", alone, "--accepted")
    assert (again.exit_code, "rotation_none" in again.stderr) == (1, True)
    edge("rotate", "--config", alone)
    assert edge("rotate", "--config", alone, "--refused").stdout == "the old key goes on\n"
    with journal_of(alone) as (_, journal):
        assert journal.get_chain().key_epoch == 2


def test_an_exchanged_meter_is_recorded_and_its_registers_are_no_energy(reachable: Path, meters: Any, hub: Any) -> None:
    meters.home_wh(100_000, 7, 3)
    grid = ("--register", "grid_import", "--register", "grid_export")
    done = edge("replace-meter", "--config", reachable, *grid, "--old-serial", "OLD 1", "--new-serial", "NEW-2")
    assert done.exit_code == 0, done.output
    assert "grid_import: from 50000 Wh to 7 Wh, not energy" in done.stdout
    assert done.stdout.endswith("key epoch 2\n")
    [(_, body)] = hub.asked
    statement = split_rotation(bytes.fromhex(body["rotation"]))[0]
    assert statement.flags & ENROLMENT_METER_REPLACED
    records = {}
    for message in body["replacements"]:
        record, signed, signature = split_replacement(bytes.fromhex(message))
        VerifyKey(statement.public_key).verify(signed, signature)
        assert (record.meter_id, record.key_epoch) == ("home-17", 2)
        assert (record.old_serial, record.new_serial) == ("OLD 1", "NEW-2")
        records[record.register] = record.final_wh, record.initial_wh
    assert records == {REGISTER_GRID_IMPORT: (50_000, 7), REGISTER_GRID_EXPORT: (20_000, 3)}
    with journal_of(reachable) as (_, journal):
        counters = journal.get_counters()
        assert (counters.production_wh, counters.consumption_wh) == (100_000, 130_000)
        assert counters.swapped
        assert journal.exchanges() == []
    edge("rotate", "--config", reachable)
    assert hub.asked[1][1]["replacements"] == []


def test_the_record_of_an_exchange_waits_for_the_rotation_that_the_hub_takes(
    reachable: Path, meters: Any, hub: Any
) -> None:
    meters.home_wh(3, 50_000, 20_000)
    hub.answer = lambda _path, _body: (409, {"code": "rotation_base_differs"})
    serials = ("--register", "generation", "--old-serial", "A", "--new-serial", "B")
    refused = edge("replace-meter", "--config", reachable, *serials)
    assert (refused.exit_code, "rotation_base_differs" in refused.stderr) == (1, True)
    twice = edge("replace-meter", "--config", reachable, *serials)
    assert (twice.exit_code, "exchange_waiting" in twice.stderr) == (1, True)
    hub.answer = lambda _path, _body: (201, {})
    assert edge("rotate", "--config", reachable).exit_code == 0
    [record] = hub.asked[-1][1]["replacements"]
    found = split_replacement(bytes.fromhex(record))[0]
    assert (found.register, found.final_wh, found.initial_wh) == (REGISTER_GENERATION, 100_000, 3)


@pytest.mark.parametrize(
    ("register", "serial", "code"),
    [("nothing", "A", "register_unknown"), ("generation", "", "serial_invalid"), ("generation", "ü", "serial_invalid")],
)
def test_an_exchange_that_cannot_be_recorded_changes_nothing(
    reachable: Path, hub: Any, register: str, serial: str, code: str
) -> None:
    arguments = ("--register", register, "--old-serial", serial, "--new-serial", "B")
    refused = edge("replace-meter", "--config", reachable, *arguments)
    assert (refused.exit_code, code in refused.stderr) == (1, True)
    with journal_of(reachable) as (_, journal):
        assert journal.exchanges() == []
        assert not journal.get_counters().swapped
    assert hub.asked == []


# ── a device whose key is lost ──────────────────────────────────────────────────────────────────────────────


def lost_device(directory: Path, config: Path) -> Path:
    """The last seal of the device that was, and a new device in its place: the same configuration, nothing else."""
    with journal_of(config) as (settings, journal):
        statement, _, _ = split_enrolment(journal.find_enrolment() or b"")
        last = {
            "key_epoch": 1,
            "sequence": 5,
            "seal_hash": "ab" * 32,
            "production_wh": 100_000,
            "consumption_wh": 130_000,
            "surplus_wh": 0,
            "closed_until_unix_s": statement.valid_from_unix_s // 900 * 900,
            "last_reading_unix_s": statement.valid_from_unix_s,
            "last_production_wh": 100_010,
            "last_consumption_wh": 130_020,
            "public_key": statement.public_key.hex(),
        }
    for file in (settings.journal.file, settings.key_file):
        file.unlink()
    (directory / "last.json").write_text(json.dumps(last))
    return directory / "last.json"


@pytest.mark.parametrize(("registers", "production_wh", "consumption_wh"), [
    ("continue", 100_600, 130_700), ("anew", 100_010, 130_020),
])  # fmt: skip
def test_a_new_device_takes_the_place_of_a_lost_one_with_the_owners_word(
    reachable: Path, meters: Any, tmp_path: Path, registers: str, production_wh: int, consumption_wh: int
) -> None:
    last = lost_device(tmp_path, reachable)
    meters.home_wh(100_600, 50_200, 20_100)
    enrolled = edge("enrol", "--config", reachable, "--replaces", last, "--registers", registers)
    assert enrolled.exit_code == 0, enrolled.output
    assert edge("enrol", "--config", reachable).stdout == enrolled.stdout
    with journal_of(reachable) as (_, journal):
        counters = journal.get_counters()
        assert (counters.production_wh, counters.consumption_wh) == (production_wh, consumption_wh)

    wallet = tmp_path / "wallet"
    wallet.touch(mode=0o600)
    wallet.write_text(bytes(OWNER).hex())
    (tmp_path / "enrolment").write_text(enrolled.stdout)
    endorsed = edge("endorse", "--enrolment", tmp_path / "enrolment", "--owner-key-file", wallet)
    statement, signed, _, endorsement = split_rotation(bytes.fromhex(endorsed.stdout.strip()))
    OWNER.verify_key.verify(signed, endorsement)
    assert (statement.key_epoch, statement.last_seal_hash) == (2, b"\xab" * 32)
    assert (statement.production_wh, statement.consumption_wh, statement.surplus_wh) == (100_000, 130_000, 0)
    assert statement.valid_from_unix_s % 900 == 0
    by_wallet = OWNER.sign(encode_enrolment(statement)).signature.hex()
    pasted = edge("endorse", "--enrolment", enrolled.stdout.strip(), "--signature", by_wallet)
    assert pasted.stdout == endorsed.stdout


def test_a_lost_key_is_not_used_again_and_the_choice_about_the_meters_is_a_persons(
    reachable: Path, tmp_path: Path, meters: Any
) -> None:
    with journal_of(reachable) as (settings, _):
        key = settings.key_file.read_text()
    last = lost_device(tmp_path, reachable)
    assert edge("enrol", "--config", reachable, "--replaces", last).exit_code == 2
    meters.home_wh(7, 50_000, 20_000)
    another = edge("enrol", "--config", reachable, "--replaces", last, "--registers", "continue")
    assert (another.exit_code, "registers_do_not_continue" in another.stderr) == (1, True)
    settings.key_file.write_text(key)
    again = edge("enrol", "--config", reachable, "--replaces", last, "--registers", "anew")
    assert (again.exit_code, "key_in_use" in again.stderr) == (1, True)


def test_a_journal_that_is_in_use_does_not_pass_for_a_new_device(reachable: Path, tmp_path: Path) -> None:
    """Its statement is another's: endorsed and handed in it would be refused, and nobody would know why."""
    with journal_of(reachable) as (settings, _):
        kept = settings.key_file.read_bytes(), settings.journal.file.read_bytes()
    last = lost_device(tmp_path, reachable)
    settings.key_file.touch(mode=0o600)
    settings.key_file.write_bytes(kept[0])
    settings.journal.file.write_bytes(kept[1])
    refused = edge("enrol", "--config", reachable, "--replaces", last, "--registers", "anew")
    assert (refused.exit_code, "enrolment_in_use" in refused.stderr) == (1, True)


def test_a_new_device_repeats_its_statement(reachable: Path, tmp_path: Path, meters: Any) -> None:
    last = lost_device(tmp_path, reachable)
    replaces = ("enrol", "--config", reachable, "--replaces", last, "--registers", "anew")
    first = edge(*replaces)
    meters.home_wh(100_600, 50_200, 20_100)
    assert (first.exit_code, edge(*replaces).stdout) == (0, first.stdout)


def test_a_later_epoch_is_not_enrolled_as_if_it_were_the_first(reachable: Path) -> None:
    edge("rotate", "--config", reachable)
    refused = edge("enrol", "--config", reachable, "--renew")
    assert (refused.exit_code, "enrolment_in_use" in refused.stderr) == (1, True)


def test_nobody_but_the_owner_endorses(reachable: Path, tmp_path: Path) -> None:
    last = lost_device(tmp_path, reachable)
    enrolled = edge("enrol", "--config", reachable, "--replaces", last, "--registers", "anew").stdout.strip()
    refused = edge("endorse", "--enrolment", enrolled, "--signature", "00" * 64)
    assert (refused.exit_code, "endorsement_invalid" in refused.stderr) == (1, True)
    assert edge("endorse", "--enrolment", enrolled).exit_code == 2
    assert edge("endorse", "--enrolment", "no such file", "--signature", "00").exit_code == 2


# ── a meter that does not net its phases ────────────────────────────────────────────────────────────────────


def test_a_meter_that_does_not_net_its_phases_is_marked_and_a_person_is_told(config_file: Path) -> None:
    def enrolled() -> Any:
        for file in ("journal.sqlite", "meter.key"):
            (config_file.parent / file).unlink(missing_ok=True)
        return edge("enrol", "--config", config_file)

    text = config_file.read_text()
    for name in ("eastron_sdm630", "eastron_sdm230"):
        config_file.write_text(text.replace("eastron_sdm630", name))
        netted = load_register_map(name).phases_netted
        done = enrolled()
        statement = split_enrolment(bytes.fromhex(done.stdout.strip()))[0]
        assert (statement.flags == 0, "does not net its phases" not in done.stderr) == (netted, netted)
    assert statement.flags == 0

    config_file.write_text(text)  # another map, as if the grid meter were another: the statement must say so first
    refused = edge("run", "--config", config_file)
    assert (refused.exit_code, "enrolment_differs" in refused.stderr) == (1, True)
    rotation = json.loads(edge("rotate", "--config", config_file).stdout)["rotation"]
    assert split_rotation(bytes.fromhex(rotation))[0].flags == ENROLMENT_PHASES_NOT_NETTED


# ── what opens the broker ───────────────────────────────────────────────────────────────────────────────────


def test_a_password_is_renewed_on_demand(reachable: Path, hub: Any) -> None:
    hub.answer = lambda _path, _body: (200, {"username": "home-17", "password": "another"})
    assert edge("renew-password", "--config", reachable).stdout == "renewed\n"
    assert (reachable.parent / "mqtt.password").read_text() == "another\n"
    assert "the one that was here" in edge("renew-password", "--config", reachable).stdout
    hub.answer = lambda _path, _body: (422, {"code": "credential_request_invalid"})
    refused = edge("renew-password", "--config", reachable)
    assert (refused.exit_code, "credential_request_invalid" in refused.stderr) == (1, True)


def test_a_certificate_is_requested_and_installed(config_file: Path, tmp_path: Path) -> None:
    missing = edge("certificate-request", "--config", config_file)
    assert (missing.exit_code, "mqtt.certificate_file" in missing.stderr) == (1, True)
    files = 'certificate_file = "mqtt.crt"\ncertificate_key_file = "mqtt.key"'
    config_file.write_text(config_file.read_text().replace('password_file = "mqtt.password"', files))
    request = edge("certificate-request", "--config", config_file).stdout
    now = datetime.now(UTC)
    signed = ClientAuthority(tmp_path / "authority", "sunny-street", now).sign(request.encode(), "home-17", now)
    (tmp_path / "signed.crt").write_bytes(signed)
    done = edge("certificate-request", "--config", config_file, "--install", tmp_path / "signed.crt")
    assert "good until" in done.stdout
    assert (config_file.parent / "mqtt.crt").read_bytes() == signed
    nothing = edge("certificate-request", "--config", config_file, "--install", tmp_path / "nothing")
    assert nothing.exit_code == 1
    assert "PRIVATE" not in request + done.output


# ── SunSpec ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sunspec_port(serve: Callable[[Callable[[], ModbusTcpServer]], int]) -> int:
    values = {
        2 + 2 + 66 + 8: struct.pack(">h", 2345),
        2 + 2 + 66 + 15: struct.pack(">h", -1),
        2 + 2 + 66 + 38: struct.pack(">I", 70_000),
        2 + 2 + 66 + 46: struct.pack(">I", 1_234_567),
        2 + 2 + 66 + 54: struct.pack(">h", 1),
    }
    body = bytearray(b"SunS" + struct.pack(">2H", 1, 66) + bytes(132))
    body += struct.pack(">2H", 203, 105) + b"\x80\x00" * 105 + struct.pack(">2H", 0xFFFF, 0)
    for offset, data in values.items():
        body[2 * offset : 2 * offset + len(data)] = data
    words = list(struct.unpack(f">{len(body) // 2}H", body))
    data = SimData(40_000, values=words, datatype=DataType.REGISTERS)
    return serve(lambda: ModbusTcpServer([SimDevice(7, [data])], address=("127.0.0.1", 0)))


def test_the_meters_of_a_sunspec_device_are_written_down_as_maps(sunspec_port: int, tmp_path: Path) -> None:
    where = ("--host", "127.0.0.1", "--port", sunspec_port, "--unit", 7, "--directory", tmp_path)
    done = edge("discover", *where)
    assert done.exit_code == 0, done.output
    assert 'map = "sunspec-unit-7.toml"' in done.stdout
    found = load_register_map("sunspec-unit-7.toml", beside=tmp_path)
    assert {"energy_import", "energy_export"} <= set(found.registers)
    again = edge("discover", *where)
    assert (again.exit_code, "map_exists" in again.stderr) == (1, True)


def test_a_device_that_is_not_there_or_speaks_no_sunspec_is_a_named_error(meters: Any, tmp_path: Path) -> None:
    for port in (meters.port, 1):
        done = edge("discover", "--host", "127.0.0.1", "--port", port, "--unit", 1, "--directory", tmp_path)
        assert (done.exit_code, "sunspec_not_found" in done.stderr) == (1, True), done.output
    assert edge("discover", "--unit", 1).exit_code == 2
    for unit in (0, 255):  # addresses of a device of its own, but of none on a line
        there = edge("discover", "--host", "127.0.0.1", "--port", 1, "--unit", unit, "--directory", tmp_path)
        assert (there.exit_code, "sunspec_not_found" in there.stderr) == (1, True), there.output
        for line in (("--device", tmp_path / "tty"), ("--host", "127.0.0.1", "--port", 1, "--rtu-over-tcp")):
            assert edge("discover", *line, "--unit", unit, "--directory", tmp_path).exit_code == 2
    assert edge("discover", "--host", "127.0.0.1", "--unit", 256).exit_code == 2
    assert list(tmp_path.glob("sunspec*")) == []
