"""Of what happens to meters, their owners are told; of what the community must look into, its operators; once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hub.db import transaction
from hub.notifications import jobs
from hub.outbox.jobs import run_jobs_once
from hub.permissions import Role
from hub.readings import rules, service
from hub.readings.jobs import forget_held_notices_once
from hub.registry import service as registry
from protocol.topics import topic
from simulators import misbehaviour
from simulators.sealing import seeded_key
from tests.hub.notifications.telling import Community
from tests.hub.readings.conftest import COMMUNITY_ID, START, Hub, fleet
from tests.hub.readings.test_key_life import revoke, rotate


@pytest.fixture
def community(engine):
    return Community(engine, now=START + timedelta(hours=2))


@pytest.fixture
def hub(engine):
    return Hub(engine)


@pytest.fixture
def home(hub, owner, home_meter):
    hub.register(home_meter)
    return home_meter


@pytest.fixture
def home_meter():
    [meter] = fleet()
    return meter


@pytest.fixture
def owner(community, home_meter):
    return community.member(wallet=bytes(home_meter.owner_key.verify_key))


@pytest.fixture
def operator(community):
    return community.member(Role.OPERATOR)


@pytest.fixture
def stranger(community):
    return community.member(wallet=b"\x01" * 32)


def _govern(hub, act, *arguments):
    with transaction(hub.engine) as connection:
        act(connection, *arguments, "operator", hub.now)


def test_an_owner_is_told_of_every_decision_about_its_meter(hub, community, home, owner, operator, stranger):
    name = home.meter_id
    _govern(hub, registry.suspend_meter, name, "the cover was open")
    _govern(hub, registry.resume_meter, name, "it is closed.")
    _govern(hub, registry.set_minting_allowed, name, False, "phases")
    _govern(hub, registry.set_minting_allowed, name, True, "phases")
    _govern(hub, registry.renew_broker_password, name, "leaked")
    _govern(hub, registry.retire_meter, name, "demolished")
    assert community.kinds_told(owner) == [
        "meter.registered",
        "meter.suspended",
        "meter.resumed",
        "meter.minting_forbidden",
        "meter.minting_allowed",
        "meter.password_renewed",
        "meter.retired",
    ]
    assert [each.data.get("reason") for each in community.told(owner)][1:3] == ["the cover was open", "it is closed"]
    assert {each.data["meter_id"] for each in community.told(owner)} == {name}
    assert community.told(operator) == community.told(stranger) == []


def test_what_was_not_done_is_not_told(hub, community, home, owner):
    with pytest.raises(registry.MeterNotSuspended), transaction(hub.engine) as connection:
        registry.resume_meter(connection, home.meter_id, "x", "operator", hub.now)
    assert community.kinds_told(owner) == ["meter.registered"]


def test_a_meter_whose_owner_is_no_member_is_governed_all_the_same(hub, community, home_meter):
    hub.register(home_meter)
    _govern(hub, registry.suspend_meter, home_meter.meter_id, "a test")
    assert community.rows("SELECT count(*) FROM notifications") == [(0,)]


def test_an_owner_is_told_of_new_keys_and_revoked_ones(hub, community, home, owner):
    hub.now = community.now = START + timedelta(days=1)
    hub.take(*home.messages(2))
    rotate(hub, home)
    rotate(hub, home, seeded_key("third"), home.owner_key)
    revoke(hub, home, 3, int(hub.now.timestamp()))
    assert community.tell() == 2
    told = {each.kind: each.data for each in community.told(owner)[1:]}
    assert [each.kind for each in community.told(owner)[1:]].count("meter.key_rotated") == 2
    assert told["meter.key_rotated"]["vouched_for_by"] == "you, the owner"
    assert told["meter.key_revoked"] == {
        "meter_id": home.meter_id,
        "key_epoch": 3,
        "revoked_from": f"{hub.now:%Y-%m-%dT%H:%M:%SZ}",
        "reason": "stolen",
        "withdrawn_seals": 0,
    }


# --- what devices bring about -----------------------------------------------------------------------------------


def _over_capacity(hub, home):
    """Every seal of this meter is held from now on."""
    hub.rows("UPDATE meters SET production_capacity_w = 1, connection_capacity_w = 1 RETURNING 1")


def test_held_energy_is_told_once_for_each_hour_however_many_seals_are_held(hub, community, home, owner, operator):
    _over_capacity(hub, home)
    for hour in range(3):
        for _ in range(5):
            hub.take(*home.messages(2))
        community.now = hub.now
        community.tell()
        assert community.kinds_told(owner).count("meter.seals_held") == hour + 1
        assert community.kinds_told(operator) == ["fleet.seals_held"] * (hour + 1)
        hub.now += timedelta(hours=1)
    [held, *_] = [each for each in community.told(owner) if each.kind == "meter.seals_held"]
    assert held.times == 1
    assert held.data == {
        "meter_id": home.meter_id,
        "since": f"{START + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}",
        "why": "they tell of more energy than the installation can produce or draw.",
    }
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'over_capacity'") == 30
    assert hub.value("SELECT count(*) FROM outbox_jobs WHERE kind = 'notification.tell'") == 6


def test_a_flood_of_held_seals_costs_its_transactions_one_line(hub, community, home, owner):
    _over_capacity(hub, home)
    hub.take(*home.messages(60))
    for message in home.messages(20):
        hub.take(message)
    assert hub.value("SELECT count(*) FROM outbox_jobs WHERE kind = 'notification.tell'") == 2
    assert hub.value("SELECT count(*) FROM held_notices") == 1


def test_a_meter_that_seals_against_its_own_past_is_told_of_too(hub, community, home, owner):
    """The predecessor comes late and shows that its successor, accepted before, contradicts it."""
    first, second, third = home.messages(3)
    hub.take(first)
    hub.take(replace(third, message=misbehaviour.reseal(home.key, third.message, previous_seal_hash=b"\x01" * 32)))
    hub.take(second)
    community.tell()
    [held] = [each for each in community.told(owner) if each.kind == "meter.seals_held"]
    assert held.data["why"] == "they do not follow from the batch before."


def test_a_suspended_meter_is_not_told_of_again_with_every_seal(hub, community, home, owner):
    _govern(hub, registry.suspend_meter, home.meter_id, "a test")
    hub.take(*home.messages(3))
    assert hub.value("SELECT count(*) FROM quarantine WHERE reason = 'meter_suspended'") == 3
    assert community.tell() == 0
    assert community.kinds_told(owner) == ["meter.registered", "meter.suspended"]


def test_a_forked_history_is_an_alarm_for_operators_and_a_suspension_for_the_owner(
    hub, community, home, owner, operator
):
    admin, auditor = community.member(Role.ADMIN), community.member(Role.AUDITOR)
    first = home.next_message()
    hub.take(first)
    for number in range(5):
        hub.take(replace(first, message=misbehaviour.fork(home.key, first.message)))
        assert hub.value("SELECT count(*) FROM alarms") == 1, number
    community.tell()
    assert community.kinds_told(owner) == ["meter.registered", "meter.suspended"]
    for member in (operator, admin):
        [alarm] = community.told(member)
        assert (alarm.kind, alarm.data["alarm"], alarm.data["meter_id"]) == (
            "alarm.raised",
            rules.EQUIVOCATION,
            home.meter_id,
        )
        assert hub.value("SELECT alarm_id FROM alarms") == alarm.data["alarm_id"]
    assert community.told(auditor) == []


def test_a_stolen_name_is_one_alarm_a_day(hub, community, home, operator):
    name = topic(COMMUNITY_ID, home.meter_id, "seals")
    thief = seeded_key("thief's own")
    forged = [(name, misbehaviour.reseal(thief, message.message)) for message in home.messages(30)]
    for message in forged:
        hub.take(message)
    community.tell()
    assert service.STOLEN_NAME_MESSAGES < 30
    [alarm] = community.told(operator)
    assert alarm.data["alarm"] == "stolen_name"


def test_what_a_device_brought_about_is_told_though_the_worker_died_and_told_once(hub, community, home, owner):
    _over_capacity(hub, home)
    hub.take(*home.messages(1))
    handlers = jobs.tell_handlers(hub.engine)

    def dies(job, now):
        handlers["notification.tell"](job, now)
        raise ConnectionError("the worker died after telling")

    assert run_jobs_once(hub.engine, {"notification.tell": dies}, lambda: hub.now) == 1, "the next waits its turn"
    community.now = hub.now + timedelta(minutes=1)
    assert community.tell() == 2
    [held] = [each for each in community.told(owner) if each.kind == "meter.seals_held"]
    assert community.rows("SELECT count(*) FROM notifications WHERE kind = 'meter.seals_held'") == [(1,)]
    assert held.times == 2, "counted, not told again"


def test_notes_of_who_was_told_are_forgotten(hub, home):
    _over_capacity(hub, home)
    hub.take(*home.messages(1))
    assert forget_held_notices_once(hub.engine, hub.now + timedelta(days=1)) == 0
    assert forget_held_notices_once(hub.engine, hub.now + timedelta(days=3)) == 1


def test_over_http_the_owner_is_told_in_the_same_breath(server, new_meter):
    wallet = b"\x21" * 32
    owner = server.member(wallet=wallet)
    meter = new_meter()
    server.register(meter, enrolment=meter.enrolment(owner=wallet).hex())
    server.post(f"/meters/{meter.meter_id}/suspend", {"reason": "the cover was open"})
    with server.acting(owner) as client:
        answer = client.get("/me/notifications").json()
    assert [each["kind"] for each in answer["notifications"]] == ["meter.suspended", "meter.registered"]
    assert answer["unread_count"] == 2
    assert datetime.fromisoformat(answer["notifications"][0]["created_at"]) <= datetime.now(UTC)
