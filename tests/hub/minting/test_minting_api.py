"""What members and operators are told of minting, over HTTP."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from hub.db import transaction
from hub.minting import service
from hub.permissions import Role
from tests.hub.conftest import TestMeter
from tests.hub.minting.chain_model import PROGRAM, ModelChain
from tests.hub.minting.holding import hold_minting

WALLET = hashlib.sha256(b"a member's wallet").digest()


@pytest.fixture
def roof(server, new_meter):
    """A meter of a member's, with four quarters of sun yesterday; the third is missing."""
    today_unix_s = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400
    meter = new_meter("roof", today_unix_s - 86_400)
    server.register(meter, enrolment=meter.enrolment(owner=WALLET).hex())
    seals = [meter.seal([(meter.valid_from_unix_s + 900 * n, 500 * n, 200 * n)]) for n in range(1, 5)]
    for number in (0, 1, 3):
        assert server.post_seal(meter, seals[number]).status_code == 200
    return meter


def mint(server, *meters: TestMeter) -> ModelChain:
    chain = ModelChain(server.engine, server.settings.domain)
    now = datetime.now(UTC)
    chain.start(now)
    for meter in meters:
        chain.register(meter.meter_id, now)
    with transaction(server.engine) as connection:
        service.plan_steps(connection, bytes(PROGRAM), 50, now)
    chain.work(now)
    return chain


def test_a_member_sees_what_its_meters_earned_and_by_which_transaction(server, roof):
    member = server.member(wallet=WALLET)
    mint(server, roof)
    with server.acting(member) as client:
        tokens = client.get("/me/tokens").json()
        minting = client.get("/meters/roof/minting").json()
        [minted] = client.get("/meters/roof/mints").json()["mints"]
        seals = client.get("/meters/roof/seals").json()["seals"]
        raw = {"from": minted["closed_from"], "to": "2099-01-01T00:00:00Z", "bucket": "raw"}
        raw["to"] = datetime.fromtimestamp(roof.valid_from_unix_s + 86_400, UTC).isoformat().replace("+00:00", "Z")
        readings = client.get("/meters/roof/readings", params=raw).json()["readings"]
    assert tokens["amount_units"] == "600000000"
    assert (tokens["amount"], tokens["meters"][0]["mints"]) == ("0.6", 1)
    total = minting["total"]
    assert (total["accepted_wh"], total["minted_wh"], total["held_wh"]) == (1_200, 600, 600)
    assert minting["days"][0] | {"day": ""} == total | {"day": ""}
    assert minting["next_step"]["reason"] == "gap"
    assert (minted["state"], minted["amount_units"], minted["last_sequence"]) == ("finalized", "600000000", 2)
    signature = minted["transaction_signature"]
    assert [(seal["minted"], seal["transaction_signature"]) for seal in seals] == [
        (True, signature),
        (True, signature),
        (False, None),
    ]
    assert [reading["transaction_signature"] for reading in readings] == [signature, signature, None]


def test_a_stranger_sees_nothing_of_it(server, roof):
    stranger = server.member()
    with server.acting(stranger) as client:
        assert client.get("/meters/roof/minting").status_code == 404
        assert client.get("/me/tokens").json() == {"amount_units": "0", "amount": "0", "meters": []}
        assert client.get("/minting").status_code == 403


def test_operators_see_which_meters_are_stuck_and_why(server, roof, new_meter):
    server.register(new_meter("shed"))
    mint(server, roof)
    operator = server.member(Role.OPERATOR)
    with server.acting(operator) as client:
        found = client.get("/minting").json()
        assert [(each["meter_id"], each["reason"]) for each in found["meters"]] == [
            ("roof", "gap"),
            ("shed", "not_on_chain"),
        ]
        page = client.get("/minting", params={"limit": 1}).json()
        assert page["next_cursor"] == "roof"
        assert client.get("/tokens/supply").json()["minted_units"] == "600000000"


def test_an_operator_gives_a_gap_up_and_the_rest_is_minted(server, roof):
    answer = server.post("/meters/roof/gaps/1/3/declare-lost", {"note": "the card broke"})
    assert (answer.status_code, answer.json()["last_sequence"]) == (200, 3)
    [gap] = server.client.get("/meters/roof/gaps").json()["gaps"]
    assert (gap["lost_reason"], gap["passed"]) == ("the card broke", False)
    assert server.post("/meters/roof/gaps/1/3/declare-lost", {"note": "x"}).json()["code"] == "gap_already_lost"
    assert server.post("/meters/roof/gaps/1/1/declare-lost", {"note": "x"}).json()["code"] == "gap_not_found"
    chain = mint(server, roof)
    with transaction(server.engine) as connection:
        service.plan_steps(connection, bytes(PROGRAM), 50, datetime.now(UTC))
    chain.work(datetime.now(UTC))
    assert chain.minted_wh() == 1_200
    [gap] = server.client.get("/meters/roof/gaps").json()["gaps"]
    assert gap["passed"]


def test_an_operator_lets_a_held_meter_go_on(server, roof):
    assert server.post("/meters/roof/minting/retry", {"reason": "x"}).json()["code"] == "minting_not_held"
    mint(server, roof)
    with transaction(server.engine) as connection:
        hold_minting(connection, "roof", datetime.now(UTC))
    [blocked] = server.client.get("/minting").json()["meters"]
    assert (blocked["reason"], blocked["since"] is not None) == ("held", True)
    assert server.post("/meters/roof/minting/retry", {"reason": "looked at it"}).json()["held"] is False
    [blocked] = server.client.get("/minting").json()["meters"]
    assert blocked["reason"] == "gap"
