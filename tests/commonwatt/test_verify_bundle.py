"""The trail behind a token proves itself without the hub; what is false in it is named by meter and sequence."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest

from commonwatt.verify import app, verify_bundle
from commonwatt.verify_bundle import HEADER, UNITS_PER_WH, Bundle, bundle_as_json, bundle_as_text, grid
from commonwatt.verify_chain import decode_base58, encode_base58
from commonwatt.verify_evidence import read_fields, read_lines
from protocol.enrolment import STATEMENT_BYTES, decode_enrolment
from protocol.seal import Seal, split_message
from simulators.sealing import START_SURPLUS_WH, SealedMessage, SimulatedMeter, seeded_key
from tests.commonwatt.conftest import COMMUNITY_ID, Evidence, ndjson

TRANSACTION = "5" * 88
FLIPS = 200


def header(meters: int = 1) -> dict[str, object]:
    return {
        "format": "commonwatt-provenance/1",
        "community_id": COMMUNITY_ID,
        "genesis_hash": "",
        "program_id": "",
        "transaction": TRANSACTION,
        "slot": 4_711,
        "meters": meters,
    }


def section(meter: SimulatedMeter, sealed: list[SealedMessage], first: int, **changes: object) -> bytes:
    """What the hub hands out of a meter whose seals from `first` on were minted, the one before them included."""
    evidence = Evidence(meter)
    start = max(1, first - 1)
    before_wh = seal_of(sealed[first - 2]).surplus_wh if first > 1 else START_SURPLUS_WH
    surplus_wh = seal_of(sealed[-1]).surplus_wh - before_wh
    stated = {
        "meter_id": meter.meter_id,
        "owner": decode_enrolment(meter.enrolment()[:STATEMENT_BYTES]).owner.hex(),
        "key_epoch": 1,
        "first_sequence": first,
        "last_sequence": len(sealed),
        "surplus_wh": surplus_wh,
        "minted_wh": surplus_wh,
        "written_off_wh": 0,
        "earned_back_wh": 0,
        "amount_units": str(surplus_wh * UNITS_PER_WH),
        "enrolment": meter.enrolment().hex(),
        "rotations": [],
    } | changes
    return ndjson(stated) + evidence.export(sealed[start - 1 :], from_sequence=start, to_sequence=len(sealed))


def seal_of(sealed: SealedMessage) -> Seal:
    return split_message(sealed.message).seal


def check(*sections: bytes, meters: int | None = None) -> Bundle:
    lines = read_lines(io.BytesIO(ndjson(header(len(sections) if meters is None else meters)) + b"".join(sections)))
    found = read_fields(next(lines), HEADER)
    assert found is not None
    return verify_bundle(found, lines)


@pytest.fixture
def meter(simulated) -> SimulatedMeter:
    return simulated("roof", 600)  # a seal is two hours and a half: twelve reach over noon


@pytest.mark.parametrize("first", [1, 5])
def test_a_bundle_proves_the_energy_behind_a_token(meter, first):
    sealed = meter.messages(12)
    bundle = check(section(meter, sealed, first))
    assert bundle.verified, list(bundle_as_text(bundle))
    [mint] = bundle.mints
    assert mint.evidence.verified_seals == {1: 12, 5: 9}[first]
    assert mint.amount_units > 0
    assert mint.last_seal == sealed[-1].message
    [told] = [line for line in bundle_as_text(bundle) if line.startswith("minted")]
    assert f"{grid(mint.amount_units)} GRID for {mint.stated['surplus_wh']} Wh" in told
    assert bundle_as_json(bundle)["mints"][0]["amount_units"] == str(mint.amount_units)


def test_a_flipped_bit_is_named_by_meter_and_sequence(simulated):
    rng = random.Random(20_261_120)
    meters = [simulated("roof", 600), simulated("barn", 600)]
    sealed = [meter.messages(6) for meter in meters]
    for _ in range(FLIPS):
        spoiled, at = rng.randrange(2), rng.randrange(6)
        message = bytearray(sealed[spoiled][at].message)
        message[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
        changed = [[*each] for each in sealed]
        changed[spoiled][at] = replace(sealed[spoiled][at], message=bytes(message))
        parts = []
        for meter, good, bad in zip(meters, sealed, changed, strict=True):
            stated, rest = section(meter, good, 1).split(b"\n", 1)
            parts.append(stated + b"\n" + rest.replace(good[at].message.hex().encode(), bad[at].message.hex().encode()))
        bundle = check(*parts)
        assert not bundle.verified
        named = [
            (mint.stated["meter_id"], finding.first_sequence)
            for mint in bundle.mints
            for finding in mint.evidence.findings
        ]
        assert named == [(meters[spoiled].meter_id, at + 1)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minted_wh": 1}, "are not the sum"),
        ({"written_off_wh": -1, "earned_back_wh": 1}, "are not the sum"),
        ({"amount_units": "1"}, "1 units are not"),
        ({"amount_units": "1e9"}, "1e9 units are not"),
        ({"owner": "11" * 32}, " as its owner"),
        ({"meter_id": "barn"}, "the evidence is of roof"),
        ({"key_epoch": 2}, "the evidence is of roof, key epoch 1"),
        ({"first_sequence": 0}, "no such sequences"),
        ({"enrolment": "00"}, "key enrolment_length"),
        ({"rotations": [1]}, "key line_malformed"),
        ({"rotations": ["00"]}, "key rotation_length"),
    ],
)
def test_what_a_bundle_states_and_its_evidence_does_not_is_named(meter, changes, words):
    bundle = check(section(meter, meter.messages(6), 1, **changes))
    assert not bundle.verified
    assert any(words in fault for fault in bundle.mints[0].faults), bundle.mints[0].faults


def test_more_surplus_than_the_meter_signed_is_named(meter):
    sealed = meter.messages(6)
    signed_wh = seal_of(sealed[-1]).surplus_wh - START_SURPLUS_WH
    claims = {"surplus_wh": signed_wh + 1, "minted_wh": signed_wh + 1}
    bundle = check(section(meter, sealed, 1, **claims, amount_units=str((signed_wh + 1) * UNITS_PER_WH)))
    assert bundle.mints[0].faults == [f"the seals state {signed_wh} Wh of surplus, not {signed_wh + 1}"]


def test_anothers_enrolment_does_not_lead_to_the_key_that_sealed(meter, simulated):
    other = simulated("roof")
    other.key = seeded_key("thief")
    bundle = check(section(meter, meter.messages(3), 1, enrolment=other.enrolment().hex()))
    assert bundle.mints[0].faults == ["the keys lead to another key than the one that sealed"]


@pytest.mark.parametrize("meters", [0, 2])
def test_a_meter_that_is_missing_from_the_file_is_missed(meter, meters):
    bundle = check(section(meter, meter.messages(3), 1), meters=meters)
    assert bundle.faults == [f"1 meters are in the file, and its header says {meters}"]
    assert not bundle.verified


def test_a_bundle_of_nothing_proves_nothing():
    assert not check().verified


def test_the_command_tells_what_it_found_and_ends_accordingly(meter, tmp_path, capsys):
    file = tmp_path / "bundle"
    file.write_bytes(ndjson(header()) + section(meter, meter.messages(3), 1))
    with pytest.raises(SystemExit) as ended:
        app([str(file), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["chain"] is None
    with pytest.raises(SystemExit) as ended:
        app([str(file), "--rpc", "http://127.0.0.1:1"])
    assert ended.value.code == 2
    assert "getGenesisHash" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", bytes(32), bytes(3) + b"\x01\xff", bytes(range(64))])
def test_base58_is_the_one_of_bitcoin(data):
    import base58

    assert encode_base58(data) == base58.b58encode(data).decode()
    assert decode_base58(encode_base58(data)) == data
