"""An export over several keys proves itself: who vouched for each key, and that the energy goes on without a seam."""

from __future__ import annotations

import io
import json
import random

import pytest

from commonwatt.verify_evidence import verify
from commonwatt.verify_report import FALSE, HELD, MISSING, Report, as_json, as_text
from protocol.enrolment import ENROLMENT_METER_REPLACED, split_enrolment
from protocol.replacement import REGISTER_GENERATION, Replacement, encode_replacement
from protocol.seal import NO_PREDECESSOR
from simulators import misbehaviour
from simulators.sealing import SealedMessage, SimulatedMeter, seeded_key

KEYS = [seeded_key("second"), seeded_key("third")]
FLIPS = 600


class Life:
    """A meter's export while its keys change; every line can be spoiled before it is written."""

    def __init__(self, evidence) -> None:
        self.evidence = evidence
        self.meter: SimulatedMeter = evidence.meter
        self.lines: list[dict[str, object]] = [evidence.header(0, 0, format="commonwatt-evidence/2")]
        self.lines[0]["from_sequence"] = 1

    def seals(self, count: int) -> list[SealedMessage]:
        messages = self.meter.messages(count)
        self.lines += [self.evidence.line(message) for message in messages]
        opening = next(line for line in reversed(self.lines) if "to_sequence" in line)
        opening["to_sequence"] = self.meter.sequence
        return messages

    def rotate(self, key, endorser=None, replacements=(), **changes: object) -> None:
        rotation = self.meter.rotation(key, endorser, **changes)
        self.meter.take_over(key)
        self.lines.append(
            {
                "key_epoch": self.meter.key_epoch,
                "rotation": rotation.hex(),
                "replacements": [record.hex() for record in replacements],
                "to_sequence": 0,
            }
        )

    def export(self) -> bytes:
        return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in self.lines)

    def verify(self, key: bytes | None = None) -> Report:
        return verify(io.BytesIO(self.export()), key)


@pytest.fixture
def life(evidence) -> Life:
    return Life(evidence)


def _named(report: Report, kind: str = FALSE) -> list[tuple[int, int, str]]:
    return [(each.key_epoch, each.first_sequence, each.reason) for each in report.findings if each.kind == kind]


@pytest.mark.parametrize("counts", [(4, 3, 5), (1, 0, 2), (0, 0, 0), (0, 4, 0), (7, 1, 1)])
def test_energy_goes_on_from_key_to_key(life: Life, counts: tuple[int, int, int]) -> None:
    for count, key in zip(counts, [*KEYS, None], strict=True):
        life.seals(count)
        if key is not None:
            life.rotate(key, life.meter.owner_key if key is KEYS[1] else None)
    report = life.verify()
    assert report.verified, report.findings
    expected = life.meter.expected()
    assert report.verified_seals == report.seals == sum(counts)
    assert report.end.surplus_wh == expected.surplus_wh
    assert report.end.production_wh == expected.sealed_production_wh
    assert not report.unproved.production_wh
    assert [key.endorsed_by for key in report.keys] == ["itself", "old_key", "owner"]
    assert "Everything in this file verifies." in list(as_text(report))
    assert [key["key_epoch"] for key in as_json(report)["keys"]] == [1, 2, 3]


def test_any_of_the_keys_may_be_the_one_that_is_known(life: Life) -> None:
    life.seals(2)
    first = bytes(life.meter.key.verify_key)
    life.rotate(KEYS[0])
    life.seals(1)
    for key in (first, bytes(KEYS[0].verify_key)):
        assert life.verify(key).verified
    assert _named(life.verify(bytes(KEYS[1].verify_key))) == [(2, 0, "enrolment_key")]


def test_every_flipped_bit_between_two_keys_is_noticed(life: Life) -> None:
    life.seals(2)
    life.rotate(KEYS[0], flags=ENROLMENT_METER_REPLACED, replacements=[_record(life.meter)])
    life.seals(2)
    rotation = next(line for line in life.lines if "rotation" in line)
    genuine, record = bytes.fromhex(str(rotation["rotation"])), _record(life.meter, 2)
    rng = random.Random(7)
    for _ in range(FLIPS):
        spoiled = bytearray(genuine)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        rotation["rotation"] = spoiled.hex()
        assert [(epoch, sequence) for epoch, sequence, _ in _named(life.verify())] == [(2, 0)]
    rotation["rotation"] = genuine.hex()
    for bit in range(0, 8 * len(record), 5):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        rotation["replacements"] = [changed.hex()]
        assert [(epoch, sequence) for epoch, sequence, _ in _named(life.verify())] == [(2, 0)]


def _record(meter: SimulatedMeter, key_epoch: int | None = None) -> bytes:
    signed = encode_replacement(
        Replacement(
            meter.domain,
            meter.meter_id,
            key_epoch or meter.key_epoch + 1,
            REGISTER_GENERATION,
            meter.start_unix_s,
            48_210_700,
            12,
            "OLD-7",
            "NEW-8",
        )
    )
    return signed + KEYS[0].sign(signed).signature


def test_an_exchanged_meter_is_shown_to_whoever_reads(life: Life) -> None:
    life.seals(1)
    life.rotate(KEYS[0], flags=ENROLMENT_METER_REPLACED, replacements=[_record(life.meter)])
    report = life.verify()
    assert report.verified
    [shown] = as_json(report)["replacements"]
    assert (shown["register"], shown["final_wh"], shown["new_serial"]) == ("generation", 48_210_700, "NEW-8")
    assert any("OLD-7 at 48210700 Wh for NEW-8 at 12 Wh" in line for line in as_text(report))


def test_a_key_that_nobody_vouches_for_ends_the_proof(life: Life) -> None:
    life.seals(2)
    life.rotate(KEYS[0], KEYS[1])
    life.seals(3)
    report = life.verify()
    assert _named(report) == [(2, 0, "endorsement")]
    assert report.verified_seals == 2


@pytest.mark.parametrize("name", ["production_wh", "consumption_wh", "surplus_wh", "valid_from_unix_s"])
def test_a_key_that_begins_elsewhere_than_its_predecessor_ended_is_false(life: Life, name: str) -> None:
    messages = life.seals(3)
    before = misbehaviour.field_of(messages[-1].message, "closed_until_unix_s" if name == "valid_from_unix_s" else name)
    life.rotate(KEYS[0], **{name: before - 900 if name == "valid_from_unix_s" else before - 1})
    assert (2, 0, "rotation_base") in _named(life.verify())


def test_a_base_that_is_not_in_the_file_is_missing_and_what_follows_is_bounded(life: Life) -> None:
    life.seals(3)
    life.rotate(KEYS[0])
    life.seals(2)
    del life.lines[3]
    report = life.verify()
    assert (2, 0, "base_not_in_the_file") in _named(report, MISSING)
    assert not _named(report)
    assert not report.verified
    assert report.unproved.production_wh > 0


def test_a_key_may_begin_where_the_first_one_did_if_nothing_since_then_counts(life: Life) -> None:
    """Both keys were revoked with all that they sealed; the owner begins again."""
    life.seals(3)
    life.rotate(KEYS[0])
    life.seals(1)
    for line in life.lines:
        if "state" in line:
            line["state"] = "quarantined"
    first = split_enrolment(life.meter.enrolment())[0]
    life.rotate(
        KEYS[1],
        life.meter.owner_key,
        last_seal_hash=NO_PREDECESSOR,
        valid_from_unix_s=first.valid_from_unix_s,
        production_wh=first.production_wh,
        consumption_wh=first.consumption_wh,
        surplus_wh=first.surplus_wh,
    )
    report = life.verify()
    assert _named(report) == []
    assert report.end == report.start
    assert report.verified


def test_what_the_old_key_sealed_beyond_the_handover_is_told_and_not_added(life: Life) -> None:
    life.seals(2)
    expected = life.meter.expected()
    rotation = life.meter.rotation(KEYS[0]).hex()
    life.seals(2)
    life.lines.append({"key_epoch": 2, "rotation": rotation, "replacements": [], "to_sequence": 0})
    report = life.verify()
    assert _named(report, HELD) == [(2, 0, "beyond_the_handover")]
    assert (report.end.production_wh, report.end.surplus_wh) == (expected.sealed_production_wh, expected.surplus_wh)


def test_a_later_key_alone_is_bounded_by_its_own_statement(evidence, as_export) -> None:
    """Without the seals of the key before, the file does not tell its last reading: the first gain stays unproved."""
    meter: SimulatedMeter = evidence.meter
    meter.messages(2)
    rotation = meter.rotation(KEYS[0])
    meter.take_over(KEYS[0])
    sealed = meter.messages(3)
    header = evidence.header(key_epoch=2, enrolment=rotation[:244].hex())
    report = verify(io.BytesIO(as_export(header, *(evidence.line(each) for each in sealed))))
    assert report.verified, report.findings
    assert report.unproved.production_wh + report.unproved.consumption_wh > 0


def test_a_key_line_in_a_file_of_one_key_is_not_believed(life: Life) -> None:
    life.seals(1)
    life.rotate(KEYS[0])
    life.lines[0]["format"] = "commonwatt-evidence/1"
    assert _named(life.verify()) == [(1, 2, "line_malformed")]
