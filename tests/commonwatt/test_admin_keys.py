"""What operators do about keys, passwords and permissions, at the command line and against a real hub."""

from __future__ import annotations

import json
import stat

import pytest

from commonwatt.verify_evidence import verify
from protocol.enrolment import ENROLMENT_PHASES_NOT_NETTED
from simulators.sealing import seeded_key

NEXT = seeded_key("next")


@pytest.fixture
def roof(operator, simulated, tmp_path):
    """A registered meter with two seals of yesterday."""
    meter = simulated("roof")
    operator.register(meter, tmp_path)
    for sealed in meter.messages(2):
        assert operator.post(sealed) == "accepted"
    return meter


def _rotation_file(meter, directory, **changes):
    file = directory / "rotation.json"
    body = {"rotation": meter.rotation(NEXT, meter.owner_key, **changes).hex(), "replacements": []}
    file.write_text(json.dumps(body))
    return file


def test_a_rotation_is_handed_in_and_the_keys_are_listed(operator, roof, tmp_path):
    file = _rotation_file(roof, tmp_path)
    for _ in range(2):
        assert "Key epoch 2 of roof is active, by owner." in operator.do("rotate", "roof", file)
    listed = operator.do("keys", "roof")
    assert "superseded" in listed
    assert bytes(NEXT.verify_key).hex() in listed
    roof.take_over(NEXT)
    assert operator.post(roof.next_message()) == "accepted"


def test_the_hex_of_a_rotation_alone_will_do(operator, roof, tmp_path):
    file = tmp_path / "rotation.hex"
    file.write_text(roof.rotation(NEXT).hex() + "\n")
    assert "by old_key" in operator.do("rotate", "roof", file)


@pytest.mark.parametrize("content", ["{", "{}", "nonsense", None])
def test_what_is_no_rotation_is_refused_with_one_line(operator, roof, tmp_path, content):
    file = tmp_path / "rotation.json"
    if content is not None:
        file.write_text(content)
    result = operator.run("rotate", "roof", file)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output


def test_a_meter_that_sums_its_phases_is_pointed_out_and_may_be_allowed(operator, roof, tmp_path):
    file = _rotation_file(roof, tmp_path, flags=ENROLMENT_PHASES_NOT_NETTED)
    assert "allow-minting" in operator.do("rotate", "roof", file)
    assert "roof: allowed" in operator.do("allow-minting", "roof", "--reason", "one phase only")
    assert "roof: not allowed" in operator.do("forbid-minting", "roof", "--reason", "after all")
    assert "minting_unchanged" in operator.run("forbid-minting", "roof", "--reason", "again").output


def test_a_revoked_key_and_what_it_costs(operator, roof):
    words = ("revoke-key", "roof", 1, "--from", "2026-01-01T00:00:00Z", "--reason", "stolen")
    assert "Revoked key epochs of roof: 1. Withdrawn seals: 2." in operator.do(*words)
    assert "revoked" in operator.do("keys", "roof")
    assert operator.post(roof.next_message()) == "quarantined"
    assert "key_already_revoked" in operator.run(*words).output


def test_a_renewed_password_lands_in_a_file_of_its_own(operator, roof, tmp_path):
    file = tmp_path / "roof.password"
    before = file.read_text()
    assert "Broker password 2" in operator.do("renew-password", "roof", "--reason", "leaked", "--password-file", file)
    assert file.read_text() != before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() not in operator.do("renew-password", "roof", "--reason", "leaked again")


def test_a_meter_is_retired_only_by_a_clear_word(operator, roof):
    assert operator.run("retire", "roof", "--reason", "demolished", stdin="n\n").exit_code == 1
    assert "roof is retired." in operator.do("retire", "roof", "--reason", "demolished", "--yes")
    assert "meter_retired" in operator.run("retire", "roof", "--reason", "again", "--yes").output


def test_the_base_for_a_device_that_replaces_a_lost_one_is_written_down(operator, roof, tmp_path):
    file = tmp_path / "predecessor.json"
    assert "seal 2 of key epoch 1" in operator.do("predecessor", "roof", file)
    written = json.loads(file.read_text())
    assert written["seal_hash"] == roof.last_seal_hash.hex()
    assert (written["key_epoch"], written["sequence"]) == (1, 2)
    assert written["last_production_wh"] == roof.expected().production_wh


def test_an_export_over_two_keys_verifies_elsewhere(operator, roof, tmp_path):
    operator.do("rotate", "roof", _rotation_file(roof, tmp_path))
    roof.take_over(NEXT)
    for sealed in roof.messages(3):
        assert operator.post(sealed) == "accepted"
    for options, seals in (((), 5), (("--key-epoch", 1), 2), (("--key-epoch", 2), 3)):
        file = tmp_path / f"{seals}.evidence"
        operator.do("export", "roof", file, *options)
        with file.open("rb") as stream:
            report = verify(stream)
        assert report.verified, report.findings
        assert report.verified_seals == seals
    with (tmp_path / "5.evidence").open("rb") as stream:
        whole = verify(stream)
    expected = roof.expected()
    assert (whole.end.production_wh, whole.end.surplus_wh) == (expected.sealed_production_wh, expected.surplus_wh)
    assert not whole.unproved.production_wh
