"""An export of evidence proves itself, and nothing false in it goes unnamed."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nacl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commonwatt.verify import app
from commonwatt.verify_evidence import LINE_BYTES_MAX, UnreadableError, verify
from commonwatt.verify_report import FALSE, HELD, MISSING, as_json, as_text
from commonwatt.verify_single_file import single_file
from protocol.enrolment import STATEMENT_BYTES
from protocol.readings import decode_readings, encode_readings
from simulators import misbehaviour
from simulators.sealing import START_CONSUMPTION_WH, START_PRODUCTION_WH, START_SURPLUS_WH, seeded_key

SEED = 20_261_120
FLIPS = 1_500
LENIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _verify(data: bytes, key: bytes | None = None):
    return verify(io.BytesIO(data), key)


def _named(report, kind=FALSE):
    return [
        (finding.first_sequence, finding.last_sequence, finding.reason)
        for finding in report.findings
        if finding.kind == kind
    ]


def _spoil(evidence, sequence, change, count=6):
    """An export in which `change` was done to one message."""
    sealed = evidence.meter.messages(count)
    at = sequence - 1
    sealed[at] = replace(sealed[at], message=change(sealed[at].message))
    return evidence.export(sealed)


@given(
    interval_s=st.integers(1, 1_000),
    readings_per_seal=st.integers(1, 40),
    seals=st.integers(0, 12),
    meter=st.integers(0, 1_000),
)
@settings(LENIENT, max_examples=60)
def test_the_verifiers_sums_are_the_energy_that_was_sealed(
    simulated, as_export, evidence, interval_s, readings_per_seal, seals, meter
):
    evidence.meter = simulated(f"home-{meter}", interval_s, readings_per_seal)
    sealed = evidence.meter.messages(seals)
    expected = evidence.meter.expected()
    report = _verify(evidence.export(sealed))
    assert report.verified
    assert (report.verified_seals, report.readings) == (expected.seals, expected.readings)
    assert report.start.production_wh == START_PRODUCTION_WH
    assert report.start.consumption_wh == START_CONSUMPTION_WH
    assert report.start.surplus_wh == START_SURPLUS_WH
    assert report.end.production_wh == expected.sealed_production_wh
    assert report.end.consumption_wh == expected.sealed_consumption_wh
    assert report.end.surplus_wh == expected.surplus_wh
    assert not report.unproved.production_wh
    if seals:
        assert report.end_unix_s == expected.closed_until_unix_s
        assert report.last_reading.production_wh == expected.production_wh
        assert report.last_reading.consumption_wh == expected.consumption_wh


def test_every_flipped_bit_of_the_evidence_is_named_by_its_sequence(evidence, as_export):
    """Not only that something is wrong: where. A seal's own flip accuses no other seal."""
    rng = random.Random(SEED)
    sealed = evidence.meter.messages(8)
    for _ in range(FLIPS):
        at = rng.randrange(len(sealed))
        message = bytearray(sealed[at].message)
        message[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
        spoiled = [*sealed]
        spoiled[at] = replace(sealed[at], message=bytes(message))
        report = _verify(evidence.export(spoiled))
        assert [first for first, _, _ in _named(report)] == [at + 1]
        assert report.counts[MISSING] == 0
        assert report.verified_seals == len(sealed) - 1


def test_every_flipped_bit_of_the_enrolment_is_named(evidence, as_export):
    for bit in range(0, 8 * (STATEMENT_BYTES + 64), 3):
        spoiled = bytearray(evidence.meter.enrolment())
        spoiled[bit // 8] ^= 1 << bit % 8
        report = _verify(as_export(evidence.header(enrolment=spoiled.hex())))
        assert [(first, last) for first, last, _ in _named(report)] == [(0, 0)]


def test_no_flipped_bit_of_the_file_itself_leaves_everything_verified(evidence):
    """Except in the hub's own notes on a seal, which prove nothing and are not believed."""
    rng = random.Random(SEED)
    genuine = evidence.export(evidence.meter.messages(4))
    # ill-formed notes are refused too; but a digit of a time may become another
    notes = {
        place
        for line in genuine.split(b"\n")
        if b'"received_at":"' in line
        for begin in [genuine.index(line) + line.index(b'"received_at":"') + len(b'"received_at":"')]
        for place in range(begin, begin + len("2026-11-20T06:00:00.123456Z"))
    }
    for _ in range(FLIPS):
        at = rng.randrange(len(genuine))
        spoiled = bytearray(genuine)
        spoiled[at] ^= 1 << rng.randrange(8)
        if at in notes:
            continue
        try:
            report = _verify(bytes(spoiled))
        except UnreadableError:
            assert at < genuine.index(b"\n") + 1
        else:
            assert not report.verified, spoiled
            assert report.findings


# nothing in a file says what time it is now, so a seal from the future is only out of order
@pytest.mark.parametrize("kind", sorted(misbehaviour.BAD_MESSAGES.keys() - {"future"}))
def test_every_bad_message_is_false_under_its_own_sequence(evidence, kind):
    rng = random.Random(kind)
    spoil = misbehaviour.BAD_MESSAGES[kind]
    report = _verify(_spoil(evidence, 3, lambda message: spoil(evidence.meter.key, message, rng)))
    assert report.counts[FALSE] >= 1
    assert _named(report)[0][0] == 3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bad_signature", "signature"),
        ("foreign_key", "signature"),
        ("tampered_readings", "readings_hash"),
        ("wrong_domain", "domain"),
        ("invented_surplus", "netting_mismatch"),
        ("fallen_counter", "counter_decreased"),
        ("broken_chain", "chain_mismatch"),
        ("readings_beyond_the_seal", "time_order"),
    ],
)
def test_the_reason_names_the_broken_rule(evidence, kind, reason):
    spoil = misbehaviour.BAD_MESSAGES[kind]
    report = _verify(_spoil(evidence, 3, lambda message: spoil(evidence.meter.key, message, random.Random(1))))
    assert (3, 3, reason) in _named(report)


def test_a_missing_seal_is_a_gap_and_its_energy_is_not_proved(evidence):
    sealed = evidence.meter.messages(9)
    report = _verify(evidence.export([*sealed[:3], *sealed[5:]]))
    assert _named(report, MISSING) == [(4, 5, "not_in_the_file")]
    assert _named(report) == []
    assert not report.verified
    assert report.end.surplus_wh == evidence.meter.expected().surplus_wh
    before, after = (misbehaviour.field_of(sealed[at].message, "production_wh") for at in (2, 5))
    assert report.unproved.production_wh == after - before


def test_an_export_that_was_cut_off_is_missing_its_end(evidence):
    sealed = evidence.meter.messages(5)
    assert _named(_verify(evidence.export(sealed[:3])), MISSING) == [(4, 5, "not_in_the_file")]


def test_an_export_from_the_midst_of_an_epoch_counts_from_its_first_seal(evidence):
    sealed = evidence.meter.messages(6)
    report = _verify(evidence.export(sealed[2:5], from_sequence=3, to_sequence=5))
    assert report.verified
    assert report.start.production_wh == misbehaviour.field_of(sealed[2].message, "production_wh")
    assert report.end.production_wh == misbehaviour.field_of(sealed[4].message, "production_wh")


def test_a_seal_after_a_gap_still_cannot_invent_energy(evidence):
    sealed = evidence.meter.messages(4)
    key, message = evidence.meter.key, sealed[3].message
    invented = misbehaviour.reseal(
        key,
        message,
        production_wh=misbehaviour.field_of(message, "production_wh") + 5,
        surplus_wh=misbehaviour.field_of(message, "surplus_wh") + 5,
    )
    report = _verify(evidence.export([sealed[0], sealed[1], replace(sealed[3], message=invented)]))
    assert _named(report) == [(4, 4, "netting_mismatch")]


def test_two_seals_with_one_sequence_are_equivocation(evidence):
    sealed = evidence.meter.messages(3)
    forked = replace(sealed[1], message=misbehaviour.fork(evidence.meter.key, sealed[1].message))
    report = _verify(evidence.export([sealed[0], sealed[1], forked, sealed[2]]))
    assert _named(report) == [(2, 2, "equivocation")]


def test_a_fork_in_place_of_a_seal_breaks_the_chain_behind_it(evidence):
    report = _verify(_spoil(evidence, 2, lambda message: misbehaviour.fork(evidence.meter.key, message)))
    assert _named(report) == [(3, 3, "chain_mismatch")]


def test_seals_in_another_order_are_not_a_chain(evidence):
    first, second, third = evidence.meter.messages(3)
    report = _verify(evidence.export([second, first, third]))
    assert (1, 1, "sequence_order") in _named(report)


def test_seals_under_the_enrolment_of_another_key_prove_nothing(evidence, simulated, as_export):
    sealed = evidence.meter.messages(2)
    other = simulated("roof")
    other.key = seeded_key("another roof")
    header = evidence.header(enrolment=other.enrolment().hex())
    report = _verify(as_export(header, *(evidence.line(message) for message in sealed)))
    assert _named(report) == [(1, 1, "signature"), (2, 2, "signature")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"community_id": "another-community"}, "domain"),
        ({"domain": "00" * 8}, "domain"),
        ({"meter_id": "shed"}, "header_mismatch"),
        ({"key_epoch": 2}, "header_mismatch"),
        ({"from_sequence": 0}, "header_mismatch"),
        ({"enrolment": ""}, "enrolment_length"),
        ({"enrolment": "no"}, "not_hexadecimal"),
        ({"genesis_hash": "ab"}, "domain"),
    ],
)
def test_a_header_that_differs_from_the_signed_statement_is_false(evidence, as_export, changes, reason):
    assert _named(_verify(as_export(evidence.header() | changes))) == [(0, 0, reason)]


def test_the_key_can_be_held_against_the_one_that_is_known(evidence):
    export = evidence.export(evidence.meter.messages(1))
    assert _verify(export, bytes(evidence.meter.key.verify_key)).verified
    report = _verify(export, bytes(seeded_key("stranger").verify_key))
    assert _named(report) == [(0, 0, "enrolment_key")]


def test_what_the_hub_holds_back_is_reported_and_its_word_changes_nothing(evidence, as_export):
    first, second, third = evidence.meter.messages(3)
    lines = [
        evidence.line(first),
        evidence.line(second, state="quarantined"),
        evidence.line(third, state="rejected"),
    ]
    report = _verify(as_export(evidence.header(), *lines))
    assert report.verified
    assert _named(report, HELD) == [(2, 2, "quarantined"), (3, 3, "rejected")]
    assert report.end.surplus_wh == evidence.meter.expected().surplus_wh
    spoiled = misbehaviour.invented_surplus(evidence.meter.key, second.message, random.Random(1))
    report = _verify(as_export(evidence.header(), lines[0], evidence.line(replace(second, message=spoiled)), lines[2]))
    assert (2, 2, "netting_mismatch") in _named(report)


def test_a_meter_without_a_seal_has_nothing_false(evidence):
    report = _verify(evidence.export([]))
    assert report.verified
    assert report.seals == 0


def test_readings_are_checked_in_order_even_if_the_meter_signed_otherwise(evidence):
    def back_in_time(message):
        readings = decode_readings(misbehaviour.section_of(message))
        for reading in readings:
            reading.time_unix_s -= 3_600
        return misbehaviour.reseal(evidence.meter.key, message, section=encode_readings(readings))

    assert (6, 6, "time_order") in _named(_verify(_spoil(evidence, 6, back_in_time)))


@given(data=st.binary(max_size=300))
@LENIENT
def test_bytes_that_are_no_export_are_unreadable(data):
    with pytest.raises(UnreadableError):
        _verify(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(LENIENT, max_examples=300)
def test_a_hostile_file_ends_in_a_named_finding(evidence, as_export, data):
    header, line = evidence.header(), evidence.line(evidence.meter.next_message())
    for fields in (header, line):
        for name in data.draw(st.sets(st.sampled_from(sorted(fields)), max_size=2)):
            fields[name] = data.draw(_JSON | st.integers(-(2**70), 2**70) | st.text(alphabet="0123456789abcdef"))
    tail = data.draw(st.binary(max_size=80) | _JSON.map(lambda value: json.dumps(value).encode()))
    try:
        report = _verify(as_export(header, line) + tail)
    except UnreadableError:
        return
    assert all(line.isprintable() for line in as_text(report))
    assert json.loads(json.dumps(as_json(report)))["verified"] is report.verified


def test_deep_nesting_and_endless_lines_are_malformed_lines(evidence, as_export):
    header = as_export(evidence.header(to_sequence=3))
    deep, endless = b"[" * 60_000 + b"\n", b"0" * (3 * LINE_BYTES_MAX) + b"\n"
    report = _verify(header + deep + endless + b"1" * 5_000)
    assert _named(report) == [(at, at, "line_malformed") for at in (1, 2, 3)]
    with pytest.raises(UnreadableError):
        _verify(deep)


def test_a_file_full_of_faults_is_counted_in_bounded_memory(evidence, as_export, monkeypatch):
    monkeypatch.setattr("commonwatt.verify_report.FINDINGS_KEPT_MAX", 10)
    report = _verify(as_export(evidence.header()) + b"x\n" * 500)
    assert len(report.findings) == 10
    assert report.counts[FALSE] == 500
    assert "500 false" in list(as_text(report))[-1]


@pytest.mark.parametrize(
    ("spoil", "status"),
    [(lambda data: data, 0), (lambda data: data.replace(b"message", b"massage"), 1), (lambda data: b"{}", 2)],
)
def test_the_exit_status_says_how_it_went(evidence, tmp_path, capsys, spoil, status):
    file = tmp_path / "roof.evidence"
    file.write_bytes(spoil(evidence.export(evidence.meter.messages(3))))
    with pytest.raises(SystemExit) as ended:
        app([str(file), "--json"])
    assert ended.value.code == status
    out, err = capsys.readouterr()
    if status == 2:
        assert f"{file}: " in err
        assert len(err.splitlines()) == 1
    else:
        assert json.loads(out)["verified"] is (status == 0)


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    command = [sys.executable, "-m", "commonwatt", "verify", str(tmp_path / "nothing")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No such file" in done.stderr


def test_the_report_names_meter_owner_key_energy_and_period(evidence):
    sealed = evidence.meter.messages(8)
    text = "\n".join(as_text(_verify(evidence.export(sealed))))
    expected = evidence.meter.expected()
    assert "roof of test-community" in text
    assert bytes(evidence.meter.key.verify_key).hex() + ", epoch 1" in text
    assert "8 of 8 seals, 120 readings" in text
    gained_wh = expected.surplus_wh - START_SURPLUS_WH
    assert f"{gained_wh} Wh (from {START_SURPLUS_WH} to {expected.surplus_wh})" in text
    assert text.endswith("Everything in this file verifies.")


def test_the_verifier_needs_neither_the_hub_nor_its_libraries(evidence, tmp_path):
    file = tmp_path / "roof.evidence"
    file.write_bytes(evidence.export(evidence.meter.messages(2)))
    program = (
        "import sys\n"
        "for name in ('hub', 'edge', 'sqlalchemy', 'msgspec', 'fastapi', 'httpx', 'rich', 'typer'):\n"
        "    sys.modules[name] = None\n"
        "from commonwatt.verify import app\n"
        "app(sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_verifier_is_one_file_that_can_be_carried_anywhere(evidence, tmp_path):
    file = tmp_path / "roof.evidence"
    file.write_bytes(evidence.export(evidence.meter.messages(2)))
    with pytest.raises(SystemExit) as ended:
        app(["--single-file", str(tmp_path / "verify.pyz")])
    assert ended.value.code == 0
    elsewhere = {"PATH": "/nowhere", "PYTHONPATH": str(Path(nacl.__file__).parent.parent)}
    isolated = [sys.executable, "-S", "verify.pyz", "roof.evidence"]
    done = subprocess.run(isolated, check=False, capture_output=True, text=True, cwd=tmp_path, env=elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Everything in this file verifies.\n")
    assert (tmp_path / "verify.pyz").read_bytes() == single_file()
