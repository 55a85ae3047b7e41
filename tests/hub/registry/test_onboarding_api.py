"""Onboarding over HTTP: what members see and send, what they are refused, and what operators see of it."""

from __future__ import annotations

import base64
from uuid import UUID, uuid4

import base58
import pytest

from hub.chain.accounts import MeterState
from hub.chain.intents import IntentState
from hub.permissions import Role
from hub.registry import onboarding_rules as rules
from tests.hub.registry.chained import HUB_KEY, PROGRAM, Chained, with_chain

STRANGER = base58.b58encode(HUB_KEY.public_key).decode()
USER, METER = "/me/registrations/user", "/me/registrations/meter"


@pytest.fixture
def server(settings, engine, running_hub):
    with running_hub(with_chain(settings), engine) as server:
        yield server


@pytest.fixture
def house(server):
    """The chain of that server, at its own time."""
    made = Chained(server.engine, server.settings)
    made.show(made.config())
    made.now = made.now.now(tz=made.now.tzinfo)
    return made


@pytest.fixture
def ada(house):
    return house.person()


@pytest.fixture
def client(server, ada):
    with server.signed_in(ada.member_id) as client:
        yield client


def post(client, path, body, status=202, key=None):
    answer = client.post(path, json=body, headers={"Idempotency-Key": key or str(uuid4())})
    assert answer.status_code == status, answer.text
    return answer.json()


def signature_of(person, shown):
    message = base64.b64decode(shown["transaction"]["message"])
    signature = base58.b58encode(person.key.sign(message)).decode()
    return {"message": shown["transaction"]["message"], "signature": signature}


def test_a_wallet_goes_from_asked_for_to_registered(house, ada, client):
    asked = post(client, USER, {"wallet": ada.address})
    path = f"/me/registrations/{asked['registration_id']}"
    assert asked == client.get(path).json()
    assert (asked["state"], asked["kind"], asked["wallet"]) == ("planned", "user.register", ada.address)
    assert (asked["transaction"], asked["signature"], asked["meter_id"]) == (None, None, None)
    assert (asked["rent_lamports"], asked["rent_state"]) == (str(rules.USER_RENT_LAMPORTS), "reserved")
    registration_id = UUID(asked["registration_id"])
    attempt = house.build(registration_id)
    waiting = client.get(path).json()
    assert waiting["state"] == "awaiting_wallet"
    to_sign = waiting["transaction"]
    assert base64.b64decode(to_sign["message"]) == attempt.message
    assert to_sign["signature"] == waiting["signature"] == attempt.signature
    assert to_sign["expires_at"] == waiting["expires_at"] > waiting["requested_at"]
    says = to_sign["says"]
    assert says["words"].startswith(f"Registers the wallet {ada.address} as a prosumer")
    assert says["program_id"] == str(PROGRAM)
    assert says["fee_payer"] == base58.b58encode(HUB_KEY.public_key).decode()
    assert says["account"] == str(house.at.user(ada.wallet))
    sent = post(client, f"{path}/signature", signature_of(ada, waiting))
    assert (sent["state"], sent["signature"], sent["transaction"]) == ("open", attempt.signature, None)
    house.end(registration_id, IntentState.FINALIZED)
    done = client.get(path).json()
    assert (done["state"], done["rent_state"], done["signature"]) == ("finalized", "paid", attempt.signature)
    [wallet] = client.get("/me").json()["wallets"]
    assert wallet["chain_account"] == {
        "address": str(house.at.user(ada.wallet)),
        "state": "active",
        "signature": attempt.signature,
    }
    assert client.get("/me/registrations").json() == {"registrations": [done], "next_cursor": None}


def test_a_meter_shows_its_account_on_the_chain(house, ada, client):
    house.registered(ada)
    meter = house.meter(ada.wallet)
    assert client.get(f"/meters/{meter.meter_id}").json()["chain"] is None
    asked = post(client, METER, {"meter_id": meter.meter_id})
    assert (asked["kind"], asked["meter_id"]) == ("meter.register", meter.meter_id)
    registration_id = UUID(asked["registration_id"])
    attempt = house.build(registration_id)
    waiting = client.get(f"/me/registrations/{registration_id}").json()
    says = waiting["transaction"]["says"]
    assert (says["meter_id"], says["meter_kind"], says["key_epoch"]) == (meter.meter_id, "solar", 1)
    assert (says["capacity_w"], says["register_step_wh"]) == (20_000, 10)
    assert says["public_key"] == meter.key.public_key.hex()
    post(client, f"/me/registrations/{registration_id}/signature", signature_of(ada, waiting))
    house.end(registration_id, IntentState.FINALIZED)
    address = str(house.at.meter(meter.meter_id))
    on_chain = {"address": address, "state": "active", "signature": attempt.signature}
    assert client.get(f"/meters/{meter.meter_id}").json()["chain"] == on_chain
    house.event(house.meter_account(meter.meter_id, ada.wallet, MeterState.SUSPENDED), b"x" * 64, 7)
    [listed] = client.get("/meters").json()["meters"]
    assert listed["chain"] == on_chain | {"state": "suspended"}


def test_asking_again_under_another_key_gives_the_same_registration(house, ada, client):
    first = post(client, USER, {"wallet": ada.address}, key="one")
    assert post(client, USER, {"wallet": ada.address}, key="two") == first
    house.build(UUID(first["registration_id"]))
    again = post(client, USER, {"wallet": ada.address}, key="one")
    assert again["state"] == "awaiting_wallet", "a repeat is answered with how things stand now"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (USER, {}, "malformed_input"),
        (USER, {"wallet": ""}, "malformed_input"),
        (USER, {"wallet": 7}, "malformed_input"),
        (USER, {"wallet": "not base58, surely"}, "address_invalid"),
        (USER, {"wallet": "1" * 44}, "address_invalid"),
        (USER, {"wallet": STRANGER}, "wallet_not_linked"),
        (METER, {"meter_id": "No Such Meter"}, "malformed_input"),
        (METER, {"meter_id": "no-such-meter"}, "meter_not_found"),
        (METER, {"meter_id": "roof", "owner": "me"}, "malformed_input"),
    ],
)
def test_what_cannot_be_registered_is_refused_by_name_and_nothing_is_begun(house, client, path, body, code):
    answer = client.post(path, json=body, headers={"Idempotency-Key": "x"})
    assert answer.json()["code"] == code, answer.text
    assert client.get("/me/registrations").json()["registrations"] == []
    assert house.rows("SELECT count(*) FROM chain_intents") == [(0,)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"message": "###="}, "malformed_input"),
        ({"message": "ÄÖÜß"}, "malformed_input"),
        ({"message": "AAAA"}, "transaction_not_ours"),
        ({"message": "A" * 1_648}, "malformed_input"),
        ({"signature": "0" * 88}, "malformed_input"),
        ({"signature": "2" * 70}, "wallet_signature_invalid"),
        ({"signature": "1" * 64}, "wallet_signature_invalid"),
        ({"signature": "z" * 88}, "wallet_signature_invalid"),
        ({"signature": ""}, "malformed_input"),
    ],
)
def test_a_signature_that_is_none_is_refused_by_name_and_the_right_one_still_counts(house, ada, client, change, code):
    asked = post(client, USER, {"wallet": ada.address})
    house.build(UUID(asked["registration_id"]))
    path = f"/me/registrations/{asked['registration_id']}"
    good = signature_of(ada, client.get(path).json())
    refused = client.post(f"{path}/signature", json=good | change, headers={"Idempotency-Key": "x"})
    assert refused.json()["code"] == code, refused.text
    assert post(client, f"{path}/signature", good, key="x")["state"] == "open"


def test_registrations_are_their_members_own(server, house, ada, client):
    asked = post(client, USER, {"wallet": ada.address})
    path = f"/me/registrations/{asked['registration_id']}"
    house.build(UUID(asked["registration_id"]))
    good = signature_of(ada, client.get(path).json())
    bo = house.person()
    with server.signed_in(bo.member_id) as stranger:
        for answer in (
            stranger.get(path),
            stranger.post(f"{path}/signature", json=good, headers={"Idempotency-Key": "x"}),
            stranger.get(f"/me/registrations/{uuid4()}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "registration_not_found")
        assert stranger.get("/me/registrations").json()["registrations"] == []
        answer = stranger.get("/me/registrations", params={"cursor": asked["registration_id"]})
        assert answer.json()["code"] == "malformed_input"


def test_operators_see_whose_registrations_there_are_and_who_pays_but_not_what_is_to_be_signed(server, house):
    people = [house.person() for _ in range(3)]
    asked = [house.ask_user(person) for person in people]
    house.build(asked[0])
    with server.acting(server.member(Role.OPERATOR)) as operator:
        first = operator.get("/registrations", params={"limit": 2}).json()
        rest = operator.get("/registrations", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    shown = first["registrations"] + rest["registrations"]
    assert {each["member_id"] for each in shown} == {str(person.member_id) for person in people}
    assert {each["rent_payer"] for each in shown} == {base58.b58encode(HUB_KEY.public_key).decode()}
    assert {each["state"] for each in shown} == {"planned", "awaiting_wallet"}
    assert [each["transaction"] for each in shown] == [None] * 3
    assert rest["next_cursor"] is None


def test_a_hub_without_a_chain_says_so_and_works_otherwise(settings, engine, running_hub):
    with running_hub(settings, engine) as server:
        wallet = bytes(range(1, 33))
        member = server.member(wallet=wallet)
        with server.signed_in(member.member_id) as client:
            for path, body in (
                (USER, {"wallet": base58.b58encode(wallet).decode()}),
                (METER, {"meter_id": "roof"}),
            ):
                answer = client.post(path, json=body, headers={"Idempotency-Key": "x"})
                assert (answer.status_code, answer.json()["code"]) == (503, "chain_not_configured")
            assert client.get("/me/registrations").json() == {"registrations": [], "next_cursor": None}
            assert client.get("/me").json()["wallets"][0]["chain_account"] is None


def test_a_chain_that_is_not_ready_or_paused_is_told_by_name(server, engine, settings):
    house = Chained(server.engine, server.settings)
    ada = house.person()
    with server.signed_in(ada.member_id) as client:
        answer = client.post(USER, json={"wallet": ada.address}, headers={"Idempotency-Key": "x"})
        assert (answer.status_code, answer.json()["code"]) == (503, "chain_not_ready")
        house.show(house.config())
        post(client, USER, {"wallet": ada.address}, key="x")
