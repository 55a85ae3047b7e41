"""What the hub hands out behind a token, judged by the verifier that people are given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from commonwatt.verify import app as verify
from hub.settings import Settings
from protocol.topics import domain_of
from simulators.sealing import SimulatedMeter, seeded_key
from tests.hub.conftest import Server, engine, log_lines, running, settings
from tests.hub.minting.chain_model import ModelChain
from tests.hub.minting.conftest import House, sunny
from tests.hub.minting.thieves import went_on_from
from tests.hub.readings.conftest import COMMUNITY_ID, START
from tests.hub.readings.test_key_life import revoke, rotate

__all__ = ["engine", "log_lines", "settings"]  # fixtures of another room


@pytest.fixture
def house(engine: Any) -> House:
    chain = ModelChain(engine, domain_of(COMMUNITY_ID))
    found = House(engine, START + timedelta(days=1), chain=chain)
    chain.start(found.now)
    return found


@pytest.fixture
def server(house: House, settings: Settings, engine: Any, log_lines: Any) -> Iterator[Server]:
    with running(settings, engine) as server:
        yield server


@pytest.fixture
def home(house: House) -> SimulatedMeter:
    [meter] = sunny()
    house.join(meter)
    return meter


def transactions(house: House, where: str = "true") -> list[str]:
    """The signatures of finalized transactions, the oldest first."""
    rows = house.rows(
        f"SELECT signature FROM mints WHERE state = 'finalized' AND {where} GROUP BY signature ORDER BY min(mint_id)"
    )
    return [str(row[0]) for row in rows]


def judged(client: Any, signature: str, tmp_path: Path, capsys: Any) -> tuple[int, dict[str, Any]]:
    """What `commonwatt verify` says of the bundle, and its exit status."""
    answer = client.get(f"/tokens/provenance/{signature}")
    assert answer.status_code == 200, answer.text
    file = tmp_path / "bundle.ndjson"
    file.write_bytes(answer.content)
    with pytest.raises(SystemExit) as ended:
        verify([str(file), "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def faults_of(report: dict[str, Any]) -> list[Any]:
    return report["faults"] + [
        fault for mint in report["mints"] for fault in [*mint["faults"], *mint["evidence"]["false"]]
    ]


def test_each_transaction_of_a_meter_verifies_across_a_rotation(house, server, home, tmp_path, capsys):
    for _ in range(2):
        house.take(*home.messages(3))
        house.mint_all()
    rotate(house, home)
    house.take(*home.messages(3))
    house.mint_all()
    house.take(*home.messages(2))
    house.mint_all()
    minted_wh = 0
    for signature in transactions(house, "step <> 'rotate'"):
        status, report = judged(server.client, signature, tmp_path, capsys)
        assert (status, faults_of(report)) == (0, [])
        [mint] = report["mints"]
        assert (mint["meter_id"], report["transaction"]) == (home.meter_id, signature)
        minted_wh += mint["minted_wh"]
    assert minted_wh == house.chain.minted_wh() > 0


def test_what_only_changed_a_key_is_behind_no_token(house, server, home):
    house.take(*home.messages(3))
    rotate(house, home)
    house.mint_all()
    [rotation] = transactions(house, "step = 'rotate'")
    assert server.client.get(f"/tokens/provenance/{rotation}").json()["code"] == "mint_not_found"
    assert server.client.get(f"/tokens/provenance/{'2' * 88}").status_code == 404
    assert server.client.get("/tokens/provenance/0OIl").status_code == 422


def test_of_a_shared_transaction_a_member_gets_its_own_part_and_a_stranger_none(house, server, tmp_path, capsys):
    meters = sunny(2, seed=7)
    house.join(*meters)
    house.make_table(*meters)
    for _ in range(2):
        house.take(*(message for meter in meters for message in meter.messages(2)))
        house.mint_all()
    signature = transactions(house)[-1]
    assert house.value("SELECT count(*) FROM mints WHERE signature = :it", it=signature) == 2
    status, report = judged(server.client, signature, tmp_path, capsys)
    assert (status, [mint["meter_id"] for mint in report["mints"]]) == (0, sorted(each.meter_id for each in meters))
    for meter in meters:
        with server.acting(server.member(wallet=bytes(meter.owner_key.verify_key))) as client:
            status, report = judged(client, signature, tmp_path, capsys)
        assert (status, [mint["meter_id"] for mint in report["mints"]]) == (0, [meter.meter_id])
    with server.acting(server.member()) as client:
        assert client.get(f"/tokens/provenance/{signature}").json()["code"] == "mint_not_found"
    assert server.anonymous.get(f"/tokens/provenance/{signature}").status_code == 401


def test_what_was_written_off_of_a_rejected_seal_is_in_the_bundle(house, server, home, tmp_path, capsys):
    house.take(*home.messages(2))
    home.leap(1_000_000)
    house.take(*home.messages(4))
    [entry] = house.entries("over_capacity")
    house.reject(entry)
    house.mint_all()
    told = []
    for signature in transactions(house):
        status, report = judged(server.client, signature, tmp_path, capsys)
        assert (status, faults_of(report)) == (0, [])
        told += report["mints"]
    assert sum(mint["minted_wh"] for mint in told) == house.chain.minted_wh()
    assert sum(mint["written_off_wh"] for mint in told) == house.balance(home.meter_id).written_off_wh > 900_000
    assert next(mint["evidence"]["held"][0]["reason"] for mint in told if mint["evidence"]["held"]) == "rejected"


def test_across_a_lost_gap_nothing_is_false_and_what_is_missing_has_its_numbers(house, server, home, tmp_path, capsys):
    messages = home.messages(8)
    house.take(*messages[:2], *messages[5:])
    house.declare_lost(home.meter_id, 3)
    house.mint_all()
    house.take(messages[3])  # of the gap, and late: evidence that never counts
    missing = []
    for signature in transactions(house):
        _, report = judged(server.client, signature, tmp_path, capsys)
        assert faults_of(report) == []
        missing += [each for mint in report["mints"] for each in mint["evidence"]["missing"]]
    assert [(each["first_sequence"], each["last_sequence"]) for each in missing] == [(3, 3), (5, 5)]


def test_what_was_minted_for_a_thief_stays_proven_and_is_earned_back(house, server, home, tmp_path, capsys):
    house.take(*home.messages(4))
    house.mint_all()
    sealed_at, before = home.start_unix_s + home.readings * home.interval_s, home.expected()
    house.take(*home.messages(4))
    house.mint_all()
    revoke(house, home, 1, sealed_at + 1)
    house.take(*went_on_from(house, home, before).messages(32))
    house.mint_all()
    told = []
    for signature in transactions(house, "step <> 'rotate'"):
        status, report = judged(server.client, signature, tmp_path, capsys)
        assert (status, faults_of(report)) == (0, [])
        told += report["mints"]
    assert sum(mint["earned_back_wh"] for mint in told) == house.balance(home.meter_id).earned_back_wh > 0
    assert sum(mint["minted_wh"] for mint in told) == house.chain.minted_wh()


def test_what_only_makes_way_for_a_key_is_behind_no_token(house, server, home, tmp_path, capsys):
    """The old key's last seals are taken back before they were minted, and so is the key that was to follow them."""
    house.take(*home.messages(1))
    sealed_at, before = home.start_unix_s + home.readings * home.interval_s, home.expected()
    house.take(*home.messages(2))
    rotate(house, home, seeded_key("a thief's key"))
    revoke(house, home, 1, sealed_at + 1)
    house.take(*went_on_from(house, home, before).messages(3))
    house.mint_all()
    assert [row[0] for row in house.rows("SELECT step FROM mints ORDER BY mint_id")] == [
        "submit",
        "make_way",
        "rotate",
        "rotate",
        "submit",
    ]
    [making_way] = transactions(house, "step = 'make_way'")
    assert server.client.get(f"/tokens/provenance/{making_way}").json()["code"] == "mint_not_found"
    assert house.balance(home.meter_id).over_minted_wh == 0
    for signature in transactions(house, "step = 'submit'"):
        status, report = judged(server.client, signature, tmp_path, capsys)
        assert (status, faults_of(report)) == (0, [])
