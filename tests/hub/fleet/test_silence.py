"""A meter that is not heard for long is told of once, and once when it is back; a hub that was away blames nobody."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.db import transaction
from hub.fleet import silence
from hub.fleet.service import Statement, record_statuses
from hub.fleet.silence import NOTICED_FOR, SILENT_FOR, is_widespread, tell_silences_once
from hub.fleet.status import parse_status
from hub.permissions import Role
from hub.registry import service as registry
from hub.registry.service import Capacity
from hub.signatures import SigningKey
from tests.hub.conftest import TestMeter
from tests.hub.fleet.conftest import status_bytes
from tests.hub.notifications.telling import Community

DAWN = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def community(engine):
    return Community(engine, now=DAWN)


@pytest.fixture
def operator(community):
    return community.member(Role.OPERATOR)


class Street:
    """Meters with owners that are heard until they are not."""

    def __init__(self, community, count=3):
        self.community = community
        self.names = [f"house-{number}" for number in range(count)]
        self.owners = []
        for number, name in enumerate(self.names, 1):
            wallet = number.to_bytes(32, "big")
            self.owners.append(community.member(wallet=wallet))
            meter = TestMeter(name, SigningKey(number.to_bytes(32, "little")), int(DAWN.timestamp()))
            with transaction(community.engine) as connection:
                registry.register_meter(
                    connection,
                    meter.enrolment(owner=wallet),
                    Capacity(10_000, 10_000),
                    meter.domain,
                    86_400,
                    "test",
                    DAWN,
                )

    def speak(self, *numbers):
        """These meters say that they are online, now."""
        now = self.community.now
        with transaction(self.community.engine) as connection:
            for number in numbers:
                stated = parse_status(status_bytes(time_unix_s=int(now.timestamp())))
                record_statuses(connection, [Statement(self.names[number], stated, now, live=True)], now)

    def look(self):
        told = tell_silences_once(self.community.engine, self.community.now)
        self.community.tell()
        return told

    def live(self, hours, *speaking):
        """Time passes in quarters of an hour, in which these speak and the hub looks."""
        for _ in range(round(hours * 4)):
            self.community.wait(minutes=15)
            self.speak(*speaking)
            self.look()

    def told(self, number):
        return [each for each in self.community.told(self.owners[number]) if each.kind != "meter.registered"]


def test_a_silence_is_told_once_and_its_end_once(community, operator):
    street = Street(community)
    street.speak(0, 1, 2)
    street.live(20, 0, 1)
    assert street.told(0) == street.told(1) == []
    [silent] = street.told(2)
    assert (silent.kind, silent.data) == (
        "meter.silent",
        {"meter_id": "house-2", "silent_since": "2026-11-20T06:00:00Z"},
    )
    assert SILENT_FOR <= silent.created_at - DAWN <= SILENT_FOR + 2 * NOTICED_FOR
    [told] = community.told(operator)
    assert (told.kind, told.data["meter_ids"], told.data["count"]) == ("fleet.meters_silent", ["house-2"], 1)
    street.live(1, 0, 1, 2)
    assert [each.kind for each in street.told(2)] == ["meter.silent", "meter.heard_again"]
    assert community.kinds_told(operator) == ["fleet.meters_silent", "fleet.meters_heard_again"]
    street.live(20, 0, 1)
    assert [each.kind for each in street.told(2)] == ["meter.silent", "meter.heard_again", "meter.silent"]


def test_a_pause_is_no_silence(community, operator):
    street = Street(community)
    street.speak(0, 1, 2)
    for _ in range(4):
        street.live(SILENT_FOR.total_seconds() / 3_600 - 0.25, 0, 1)
        street.live(0.25, 2)
    assert [street.told(number) for number in range(3)] == [[], [], []]
    assert community.told(operator) == []


def test_a_hub_that_was_away_for_hours_blames_nobody(community, operator):
    """At its start all meters look silent; they are heard within minutes, before anybody is told."""
    street = Street(community)
    street.speak(0, 1, 2)
    community.wait(hours=9)
    assert street.look() == 0
    street.live(1, 0, 1, 2)
    assert [street.told(number) for number in range(3)] == [[], [], []]
    assert community.told(operator) == []
    assert community.rows("SELECT count(*) FROM meter_silences") == [(0,)]


def test_when_half_of_the_community_is_silent_only_operators_are_told(community, operator):
    street = Street(community, 20)
    street.speak(*range(20))
    street.live(5, *range(10))
    assert all(street.told(number) == [] for number in range(20))
    [told] = community.told(operator)
    assert (told.data["count"], len(told.data["meter_ids"]), told.data["advice"]) == (10, 10, silence.ADVICE_WIDESPREAD)
    street.live(1, *range(15))
    assert [len(street.told(number)) for number in range(20)] == [0] * 15 + [1] * 5
    assert community.kinds_told(operator) == ["fleet.meters_silent", "fleet.meters_heard_again"]


def test_a_meter_that_was_never_heard_or_is_out_of_service_is_not_silent(community, operator):
    street = Street(community, 4)
    street.speak(0, 1, 2)
    with transaction(community.engine) as connection:
        registry.suspend_meter(connection, "house-1", "a test", "test", community.now)
        registry.retire_meter(connection, "house-2", "a test", "test", community.now)
    street.live(8, 0)
    assert community.told(operator) == []


def test_a_meter_that_is_retired_while_it_is_silent_is_not_heard_again(community, operator):
    street = Street(community)
    street.speak(0, 1, 2)
    street.live(5, 0, 1)
    with transaction(community.engine) as connection:
        registry.retire_meter(connection, "house-2", "gone", "test", community.now)
    street.live(1, 0, 1)
    assert [each.kind for each in street.told(2)] == ["meter.silent", "meter.retired"]
    assert community.kinds_told(operator) == ["fleet.meters_silent"]
    assert community.rows("SELECT count(*) FROM meter_silences") == [(0,)]


def test_two_processes_that_look_at_once_tell_once(community, operator):
    street = Street(community)
    street.speak(0, 1, 2)
    street.live(3, 0, 1)
    community.wait(minutes=15)
    street.speak(0, 1)
    told = []
    looks = [
        threading.Thread(target=lambda: told.append(tell_silences_once(community.engine, community.now)))
        for _ in range(3)
    ]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    community.tell()
    assert sorted(told) == [0, 0, 2]
    assert len(street.told(2)) == 1 and len(community.told(operator)) == 1


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_few_meters_are_never_the_whole_community(silent, more):
    active = silent + more
    widespread = is_widespread(silent, active)
    assert not (widespread and silent < silence.WIDESPREAD_METERS_MIN)
    assert widespread == (silent >= 10 and silent >= active / 2)
