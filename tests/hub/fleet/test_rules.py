"""Who is online: never a false alarm from a restart of the broker, never a dead meter that looks alive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.fleet.rules import (
    BACKLOG_SEALS_NORMAL,
    NEVER,
    OFFLINE,
    OFFLINE_GRACE,
    ONLINE,
    PRESENCES,
    SEAL_SILENCE_MAX,
    STATUS_SILENCE_MAX,
    Sightings,
    is_behind,
    presence,
)

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
moments = st.integers(-20_000, 20_000).map(lambda s: NOON + timedelta(seconds=s))
sightings = st.builds(
    Sightings, st.sampled_from([None, ONLINE, OFFLINE]), st.none() | moments, st.none() | moments, st.none() | moments
)


def _said(state, since, status_at=None, seal_at=None):
    return Sightings(state, since, status_at, seal_at)


@given(moments, sightings)
def test_a_meter_is_exactly_one_of_online_offline_and_never_seen(now, seen):
    assert presence(now, seen) in PRESENCES
    assert (presence(now, seen) == NEVER) == (seen.last_seen_at is None)


@given(moments, sightings, st.integers(0, 10_000))
def test_silence_never_brings_a_meter_back(now, seen, later_s):
    dated_ahead = seen.last_seen_at is not None and seen.last_seen_at > now
    if presence(now, seen) == OFFLINE and not dated_ahead:
        assert presence(now + later_s * SECOND, seen) == OFFLINE


@given(moments, sightings, moments)
def test_a_newer_status_that_says_online_ends_being_offline(now, seen, heard_at):
    if now - STATUS_SILENCE_MAX <= heard_at <= now:
        fresh = Sightings(ONLINE, heard_at, heard_at, seen.seal_at)
        assert presence(now, fresh) == ONLINE


def test_a_meter_that_reports_is_offline_after_three_missed_reports():
    seen = _said(ONLINE, NOON, NOON)
    assert presence(NOON + STATUS_SILENCE_MAX, seen) == ONLINE
    assert presence(NOON + STATUS_SILENCE_MAX + SECOND, seen) == OFFLINE


def test_a_meter_without_statuses_is_offline_after_three_missed_seals():
    seen = _said(None, None, None, NOON)
    assert presence(NOON + SEAL_SILENCE_MAX, seen) == ONLINE
    assert presence(NOON + SEAL_SILENCE_MAX + SECOND, seen) == OFFLINE


def test_a_meter_that_seals_without_reporting_any_more_is_known_by_its_seals():
    seen = _said(ONLINE, NOON, NOON, NOON + STATUS_SILENCE_MAX + SECOND)
    assert presence(seen.seal_at + SEAL_SILENCE_MAX, seen) == ONLINE
    assert presence(seen.seal_at + SEAL_SILENCE_MAX + SECOND, seen) == OFFLINE


def test_what_the_hub_heard_while_its_clock_was_ahead_shows_no_silent_meter_as_online():
    a_year_ahead = NOON + timedelta(days=365)
    assert presence(NOON, _said(ONLINE, a_year_ahead, a_year_ahead)) == OFFLINE
    assert presence(NOON, _said(ONLINE, a_year_ahead, a_year_ahead, a_year_ahead)) == OFFLINE
    assert presence(NOON, _said(ONLINE, NOON, NOON, a_year_ahead)) == ONLINE
    assert presence(NOON, _said(None, None, None, NOON + STATUS_SILENCE_MAX)) == ONLINE, "hosts differ by a little"


def test_a_last_will_counts_after_a_grace_so_that_a_broker_restart_alarms_nobody():
    seen = _said(OFFLINE, NOON, NOON - SECOND)
    assert presence(NOON + OFFLINE_GRACE - SECOND, seen) == ONLINE
    assert presence(NOON + OFFLINE_GRACE, seen) == OFFLINE


def test_a_seal_long_after_a_last_will_shows_that_the_meter_lives():
    seal_at = NOON + OFFLINE_GRACE + 60 * SECOND
    assert presence(seal_at + SECOND, _said(OFFLINE, NOON, NOON, seal_at)) == ONLINE


def test_a_seal_that_was_on_its_way_when_the_meter_died_does_not_revive_it():
    seen = _said(OFFLINE, NOON, NOON - 30 * SECOND, NOON + 2 * SECOND)
    assert presence(NOON + OFFLINE_GRACE, seen) == OFFLINE


def test_a_will_kept_by_the_broker_is_no_sign_that_a_meter_was_ever_here():
    assert presence(NOON, _said(OFFLINE, NOON - timedelta(days=3))) == NEVER


@pytest.mark.parametrize(
    ("backlog", "missing", "behind"),
    [(None, 0, False), (BACKLOG_SEALS_NORMAL, 0, False), (BACKLOG_SEALS_NORMAL + 1, 0, True), (0, 1, True)],
)
def test_a_meter_is_behind_when_seals_that_exist_are_not_here(backlog, missing, behind):
    assert is_behind(backlog, missing) is behind
