import json
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import VerifyKey
from typer.testing import CliRunner

from edge.cli import app
from edge.identity import load_identity
from edge.journal import Intervals, Journal
from edge.sealing import seal_readings
from edge.settings import load_settings
from protocol.enrolment import split_enrolment
from protocol.readings import Reading

runner = CliRunner()


def edge(*arguments: str) -> Any:
    return runner.invoke(app, list(arguments))


def test_enrol_prints_one_line_that_the_new_key_has_signed_and_repeats_it(config_file: Path, quarter: int) -> None:
    result = edge("enrol", "--config", str(config_file))
    assert result.exit_code == 0
    statement, signed, signature = split_enrolment(bytes.fromhex(result.stdout.strip()))
    VerifyKey(statement.public_key).verify(signed, signature)
    assert (statement.meter_id, statement.key_epoch) == ("home-17", 1)
    assert (statement.production_wh, statement.consumption_wh, statement.surplus_wh) == (100_000, 130_000, 0)
    assert statement.owner == b"\x0f" * 32
    assert edge("enrol", "--config", str(config_file)).stdout == result.stdout


def test_a_statement_that_the_hub_finds_too_old_is_renewed_as_long_as_no_seal_follows_from_it(
    config_file: Path, meters: Any
) -> None:
    config = ("--config", str(config_file))
    old, _, _ = split_enrolment(bytes.fromhex(edge("enrol", *config, "--valid-from", "2026-05-01T00:00Z").stdout))
    meters.home_wh(100_700, 50_000, 20_000)
    renewed = edge("enrol", *config, "--renew")
    new, _, _ = split_enrolment(bytes.fromhex(renewed.stdout.strip()))
    assert new.valid_from_unix_s > old.valid_from_unix_s
    assert (new.public_key, new.production_wh) == (old.public_key, 100_700)
    assert edge("enrol", *config).stdout == renewed.stdout

    settings = load_settings(config_file)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    chain, now = journal.get_chain(), new.valid_from_unix_s + 1
    journal.append_readings([Reading(now, 100_700, 130_700)], journal.get_counters())
    sign = load_identity(settings.key_file).sign
    journal.append_seal(seal_readings(chain, journal.unsealed_readings(1), now, settings.domain, sign))
    journal.close()
    result = edge("enrol", *config, "--renew")
    assert (result.exit_code, "enrolment_in_use" in result.stderr) == (1, True)


def test_a_person_accepts_the_registers_of_a_replaced_meter(config_file: Path, meters: Any) -> None:
    edge("enrol", "--config", str(config_file))
    result = edge("accept-register", "--config", str(config_file))
    assert (result.exit_code, "register_believed" in result.stderr) == (1, True)
    meters.home_wh(7, 50_000, 20_000)
    assert edge("accept-register", "--config", str(config_file)).stdout == "generation: accepted\n"
    named = edge("accept-register", "--config", str(config_file), "--register", "grid_import")
    assert named.stdout == "grid_import: accepted\n"


def test_the_doctor_says_when_a_command_has_set_other_intervals_than_the_file(config_file: Path) -> None:
    edge("enrol", "--config", str(config_file))
    settings = load_settings(config_file)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    journal.accept_command(1, Intervals(10, 0))
    journal.close()
    seen = edge("doctor", "--config", str(config_file)).stdout
    assert "set by command, not by the file: interval_s = 10, seal_interval_s = 0" in seen


def test_a_simulated_home_is_enrolled_as_of_the_time_given(config_file: Path, meters: Any) -> None:
    meters.at_time = lambda now: meters.home_wh(now % 1_000, 0, 0)
    result = edge("enrol", "--config", str(config_file), "--valid-from", "2026-05-01T05:45:00+00:00")
    statement, _, _ = split_enrolment(bytes.fromhex(result.stdout.strip()))
    assert statement.valid_from_unix_s == 1_777_614_300
    assert statement.production_wh == 1_777_614_300 % 1_000
    assert meters.laboratory_times == [1_777_614_300, 0]


def test_an_enrolment_needs_no_hub_yet_but_running_does(config_file: Path) -> None:
    text = config_file.read_text()
    start = text.index("[hub]")
    config_file.write_text(text[:start] + text[text.index("[laboratory]") :])
    (config_file.parent / "mqtt.password").unlink()
    assert edge("enrol", "--config", str(config_file)).exit_code == 0
    result = edge("run", "--config", str(config_file))
    assert result.exit_code == 1
    assert "hub.command_public_key" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["enrol", "--config", "nothing.toml"], 1, "error: settings_unreadable: nothing.toml"),
        (["enrol"], 2, "--config"),
        (["enrol", "--config", "{config}", "--valid-from", "yesterday"], 2, "isoformat"),
        (["enrol", "--config", "{config}", "--valid-from", "2026-05-01T05:45:00"], 2, "UTC"),
        (["enrol", "--config", "{config}", "--valid-from", "2099-05-01T05:45:00Z"], 2, "future"),
        (["run", "--config", "{config}"], 1, "error: key_missing"),
        (["replay", "--config", "{config}", "--from", "2026-05-02T00:00Z", "--to", "2026-05-01T00:00Z"], 2, "before"),
    ],
)
def test_a_mistake_is_one_clear_line_and_a_code(
    config_file: Path, arguments: list[str], code: int, message: str
) -> None:
    result = edge(*[argument.replace("{config}", str(config_file)) for argument in arguments])
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_the_doctor_explains_every_register_and_names_what_is_missing(config_file: Path, meters: Any) -> None:
    edge("enrol", "--config", str(config_file))
    meters.set(1, 0x00, float("nan"))
    result = edge("doctor", "--config", str(config_file))
    assert result.exit_code == 1
    seen = " ".join(result.stdout.split())
    for words in (
        "42c80000",  # 100 kWh, as the generation meter sends it
        "100 kWh",
        "-250 W",
        "0.0076 Wh",
        "not a number",
        "production 100000 Wh, consumption 130000 Wh",
        "trusted, as configured",
        "0 seals without a receipt",
        "problem broker_unreachable: 127.0.0.1:1",
    ):
        assert words in seen, seen


def test_the_doctor_names_a_meter_that_is_not_there(config_file: Path, meters: Any) -> None:
    meters.stop()
    result = edge("doctor", "--config", str(config_file))
    assert result.exit_code == 1
    for problem in ("modbus_unreachable", "key_missing", "not_enrolled"):
        assert f"problem  {problem}" in result.stdout


def test_a_log_line_is_one_json_object() -> None:
    import logging

    from edge.logs import JsonFormatter

    record = logging.makeLogRecord({"msg": "sealed", "levelname": "INFO", "sequence": 3, "why": "grün\nzwei"})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert {"event": "sealed", "sequence": 3, "level": "info"}.items() <= json.loads(line).items()
