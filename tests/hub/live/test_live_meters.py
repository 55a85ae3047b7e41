"""What members hear of their meters, and operators of alarms, as it happens."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hub.db import transaction
from hub.live.store import live_updates
from hub.permissions import Role
from hub.signatures import SigningKey
from tests.hub.live.conftest import following

WALLET = bytes(range(32))


@pytest.fixture(scope="module")
def server(shared_server):
    return shared_server


@pytest.fixture
def owner(server):
    """A member and the wallet that its meters name."""
    wallet = SigningKey(datetime.now(UTC).isoformat().encode().ljust(32, b"\0")[:32]).public_key
    return server.member(member_type=Role.PROSUMER, wallet=wallet), wallet


def of(meter, wallet):
    """The meter, enrolled for this owner."""
    return {"enrolment": meter.enrolment(owner=wallet).hex()}


def told(client, count=1):
    return [(each["kind"], each["data"]) for each in client.receive_updates(count)]


def test_the_owner_hears_of_registration_readings_and_every_change(server, owner, new_meter):
    member, wallet = owner
    meter = new_meter()
    with following(server.url, member.api_key, meters=None) as client:
        server.register(meter, **of(meter, wallet))
        assert told(client) == [("meter.registered", {"meter_id": meter.meter_id})]

        start = meter.valid_from_unix_s
        message = meter.seal([(start + 60, 100, 10), (start + 120, 200, 20)])
        assert server.post_seal(meter, message).status_code == 200
        [(kind, data)] = told(client)
        assert kind == "meter.read"
        assert data == {
            "meter_id": meter.meter_id,
            "key_epoch": 1,
            "sequence": 1,
            "sealed_at": at(start + 120),
            "first_reading_at": at(start + 60),
            "last_reading_at": at(start + 120),
            "production_wh": 200,
            "consumption_wh": 20,
            "power_w": None,
            "seals": 1,
            "readings": 2,
        }
        latest = server.client.get(f"/meters/{meter.meter_id}/latest").json()["reading"]
        assert (latest["time"], latest["production_wh"]) == (data["last_reading_at"], data["production_wh"])

        for what, body, kind in (
            ("suspend", {"reason": "a look"}, "meter.suspended"),
            ("resume", {"reason": "all well"}, "meter.resumed"),
            ("minting", {"allowed": False, "reason": "a look"}, "meter.minting_forbidden"),
            ("retire", {"reason": "the end"}, "meter.retired"),
        ):
            answer = server.post(f"/meters/{meter.meter_id}/{what}", body)
            assert answer.status_code == 200, answer.text
            [(heard, data)] = told(client)
            assert (heard, data["meter_id"], data["reason"]) == (kind, meter.meter_id, body["reason"])


def at(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def test_what_is_posted_twice_or_refused_is_told_once_or_never(server, owner, new_meter):
    member, wallet = owner
    meter = new_meter()
    server.register(meter, **of(meter, wallet))
    message = meter.seal([(meter.valid_from_unix_s + 60, 100, 10)])
    with following(server.url, member.api_key, meters=None) as client:
        for _ in range(3):
            assert server.post_seal(meter, message).status_code == 200
        assert server.post_seal(meter, message[:-1] + b"\x00").status_code == 422
        assert [kind for kind, _ in told(client)] == ["meter.read"]
        assert client.is_silent(0.2)


def test_the_owner_hears_of_seals_that_are_held_and_then_released(server, owner, new_meter):
    member, wallet = owner
    meter = new_meter()
    server.register(meter, **of(meter, wallet))
    with following(server.url, member.api_key, meters=None) as client:
        message = meter.seal([(meter.valid_from_unix_s + 60, 999_999, 10)])  # a power station, for a minute
        server.post_seal(meter, message)
        held = {"meter_id": meter.meter_id, "reason": "over_capacity", "seals": 1}
        assert told(client) == [("meter.seals_held", held)]
        [entry] = server.client.get(f"/quarantine?meter_id={meter.meter_id}").json()["entries"]
        answer = server.post(f"/quarantine/{entry['quarantine_id']}/release", {"note": "it was right"})
        assert answer.status_code == 200, answer.text
        assert told(client) == [("meter.seals_released", {"meter_id": meter.meter_id, "seals": 1})]


def test_a_meter_whose_owner_is_no_member_costs_no_update(server, new_meter):
    meter = new_meter()
    server.register(meter, **of(meter, SigningKey(bytes(range(1, 33))).public_key))
    assert server.post_seal(meter, meter.seal([(meter.valid_from_unix_s + 60, 100, 10)])).status_code == 200
    with transaction(server.engine) as connection:
        rows = connection.execute(live_updates.select()).all()
    assert not [row for row in rows if row.data.get("meter_id") == meter.meter_id]


def test_an_owner_hears_only_of_its_own_meters(server, owner, new_meter):
    member, wallet = owner
    other = server.member(wallet=SigningKey(bytes(range(2, 34))).public_key)
    meter = new_meter()
    with following(server.url, other.api_key, meters=None) as client:
        server.register(meter, **of(meter, wallet))
        assert client.is_silent(0.3)
    with following(server.url, member.api_key, meters=0) as client:
        assert [kind for kind, _ in told(client)] == ["meter.registered"]


def test_operators_hear_of_a_key_that_signed_two_histories_and_the_owner_that_its_meter_is_suspended(
    server, owner, new_meter
):
    member, wallet = owner
    operator = server.member(Role.OPERATOR)
    meter = new_meter()
    server.register(meter, **of(meter, wallet))
    twin = new_meter(meter.meter_id)
    twin.key = meter.key
    start = meter.valid_from_unix_s
    assert server.post_seal(meter, meter.seal([(start + 60, 100, 10)])).status_code == 200
    with (
        following(server.url, operator.api_key, alerts=None) as watching,
        following(server.url, member.api_key, meters=None) as client,
    ):
        assert server.post_seal(meter, twin.seal([(start + 60, 150, 10)])).status_code == 409
        [(kind, data)] = told(watching)
        assert (kind, data["alarm"], data["meter_id"]) == ("alarm.raised", "equivocation", meter.meter_id)
        [alarm] = [a for a in server.client.get("/alarms").json()["alarms"] if a["alarm_id"] == data["alarm_id"]]
        assert alarm["kind"] == data["alarm"]
        [(kind, data)] = told(client)
        assert (kind, data["meter_id"]) == ("meter.suspended", meter.meter_id)
