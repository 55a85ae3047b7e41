"""What an operator is told about the fleet, over HTTP and a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from hub.db import transaction
from hub.fleet import queries, rules
from hub.fleet.jobs import measure_fleet_once
from hub.fleet.service import record_status
from hub.metrics import REGISTRY
from tests.hub.fleet.conftest import status_bytes

SECOND = timedelta(seconds=1)


@pytest.fixture
def roof(server, new_meter):
    """A registered meter that was never heard."""
    meter = new_meter("roof")
    server.register(meter)
    return meter


def _get(server, path, **parameters):
    answer = server.client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _names(server, **parameters):
    return [meter["meter_id"] for meter in _get(server, "/fleet", **parameters)["meters"]]


def _line(server, meter_id="roof"):
    [line] = [meter for meter in _get(server, "/fleet")["meters"] if meter["meter_id"] == meter_id]
    return line


def _seal(meter, minute):
    at_unix_s = meter.valid_from_unix_s + minute * 60
    return meter.seal([(at_unix_s, minute * 10, minute * 5)])


def _iso(at):
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def test_a_meter_that_was_never_heard_is_in_the_fleet_all_the_same(server, roof):
    line = _line(server)
    assert (line["presence"], line["last_seen_at"], line["problems"], line["missing_seals"]) == ("never", None, [], 0)
    assert (line["highest_sequence"], line["backlog_seals"], line["firmware"], line["behind"]) == (0, None, None, False)
    assert _get(server, "/meters/roof/status")["stated"] is None


def test_what_a_meter_says_is_shown_with_the_skew_of_its_clock(server, roof, say):
    now = datetime.now(UTC)
    say("roof", at=now, time_unix_s=int(now.timestamp()) - 75, backlog_seals=40, problems=["journal_full"])
    line = _line(server)
    assert (line["presence"], line["last_seen_at"], line["status_at"]) == ("online", _iso(now), _iso(now))
    assert (line["clock_skew_s"], line["clock"]) == (75, "synchronised")
    assert (line["backlog_seals"], line["behind"], line["problems"]) == (40, True, ["journal_full"])
    assert (line["firmware"], line["transport"]) == ("0.1.0", "mqtt5")
    stated = _get(server, "/meters/roof/status")["stated"]
    assert stated["meters"] == [{"role": "grid", "map": "eastron_sdm120", "quantum_wh": "0.98"}]
    assert (stated["counts"], stated["sequence"], stated["state"]) == ({"broker_lost": 1}, 1, "online")


def test_a_seal_is_a_sign_of_life_and_a_hole_before_it_is_missing(server, roof):
    first, _, _, fourth = (_seal(roof, minute) for minute in (1, 2, 3, 4))
    server.post_seal(roof, first)
    server.post_seal(roof, fourth)
    line = _line(server)
    assert (line["presence"], line["highest_sequence"], line["missing_seals"], line["behind"]) == ("online", 4, 2, True)
    assert line["last_seen_at"] == line["last_seal_at"]
    assert line["last_reading_at"] == _iso(datetime.fromtimestamp(roof.valid_from_unix_s + 240, UTC))


def test_what_is_held_is_counted_until_it_is_decided(server, roof):
    server.post("/meters/roof/suspend", {"reason": "looked at"})
    server.post_seal(roof, _seal(roof, 1))
    server.post_seal(roof, _seal(roof, 2))
    assert _line(server)["held_messages"] == 2
    [first, _] = _get(server, "/quarantine")["entries"]
    server.post(f"/quarantine/{first['quarantine_id']}/release", {"note": "checked"})
    assert _line(server)["held_messages"] == 1


def test_what_is_held_is_counted_only_so_far_that_one_suspended_meter_cannot_slow_the_whole_fleet(server, roof):
    with server.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO quarantine"
                " (meter_no, topic, reason, detail, verified, message_hash, received_at, state)"
                " SELECT meter_no, '', 'meter_suspended', '', true, int4send(n), now(), 'held'"
                " FROM meters, generate_series(1, :held) AS n"
            ),
            {"held": queries.HELD_COUNTED_MAX + 5},
        )
        plan = connection.execute(
            text("EXPLAIN SELECT FROM quarantine WHERE meter_no = 1 AND state = 'held' LIMIT 10")
        ).scalars()
        assert "quarantine_held_meter_no_idx" in " ".join(plan)
    assert _line(server)["held_messages"] == queries.HELD_COUNTED_MAX


def test_a_last_will_keeps_what_was_said_before_it(server, roof, say):
    heard = datetime.now(UTC) - timedelta(minutes=10)
    say("roof", at=heard, backlog_seals=3)
    say("roof", at=heard + SECOND, state="offline")
    shown = _get(server, "/meters/roof/status")
    assert (shown["presence"], shown["backlog_seals"], shown["firmware"]) == ("offline", 3, "0.1.0")
    assert shown["last_seen_at"] == _iso(heard), "a will is no sign of life"
    assert (shown["stated"]["state"], shown["stated"]["since"]) == ("offline", _iso(heard + SECOND))
    say("roof", at=heard + 2 * SECOND, state="offline")
    assert _get(server, "/meters/roof/status")["stated"]["since"] == _iso(heard + SECOND), "since the first time"


def test_an_older_status_changes_nothing_when_it_comes_late(server, roof, say):
    now = datetime.now(UTC)
    say("roof", at=now, agent="0.2.0")
    say("roof", at=now - SECOND, agent="0.1.0", state="offline")
    shown = _get(server, "/meters/roof/status")
    assert (shown["firmware"], shown["stated"]["state"]) == ("0.2.0", "online")


@pytest.mark.parametrize("state", ["online", "offline"])
def test_a_hub_whose_clock_was_ahead_hears_its_meters_again_as_soon_as_it_is_set_right(server, roof, say, state):
    now = datetime.now(UTC)
    say("roof", at=now + timedelta(days=365), agent="0.1.0", state="online")
    say("roof", at=now + timedelta(days=366), agent="0.1.0", state=state)
    say("roof", at=now - SECOND, agent="0.2.0")
    shown = _get(server, "/meters/roof/status")
    assert (shown["presence"], shown["firmware"], shown["status_at"]) == ("online", "0.2.0", _iso(now - SECOND))
    assert shown["stated"]["since"] == _iso(now - SECOND)
    say("roof", at=now - 2 * SECOND, agent="0.3.0")
    assert _line(server)["firmware"] == "0.2.0", "and what is older changes nothing, as ever"


def test_what_the_broker_had_kept_fills_in_and_is_no_sign_of_life(server, roof, say):
    say("roof", live=False, time_unix_s=1_700_000_000, backlog_seals=7)
    line = _line(server)
    assert (line["backlog_seals"], line["firmware"]) == (7, "0.1.0")
    assert (line["presence"], line["status_at"], line["clock_skew_s"]) == ("never", None, None)
    heard = datetime.now(UTC)
    say("roof", at=heard, backlog_seals=2, agent="0.2.0")
    say("roof", at=heard + 5 * SECOND, live=False, backlog_seals=7)
    line = _line(server)
    assert (line["backlog_seals"], line["firmware"], line["status_at"]) == (2, "0.2.0", _iso(heard))


def test_a_kept_will_is_believed_only_of_a_meter_that_is_silent(server, roof, say):
    now = datetime.now(UTC)
    say("roof", at=now - timedelta(minutes=30))
    say("roof", at=now - timedelta(minutes=29), live=False, state="offline")
    assert _get(server, "/meters/roof/status")["stated"]["state"] == "online", "a restart of the broker, or our own"
    say("roof", at=now - timedelta(minutes=20), live=False, state="offline")
    shown = _get(server, "/meters/roof/status")["stated"]
    assert (shown["state"], shown["since"]) == ("offline", _iso(now - timedelta(minutes=20)))
    say("roof", at=now - timedelta(minutes=10), live=False)
    assert _get(server, "/meters/roof/status")["stated"]["state"] == "offline", "an old word brings nobody back"


def test_a_status_of_nobody_is_told_apart(server, roof, say):
    assert say("roof") == {"roof"}
    assert say("stranger") == set()
    assert [meter["meter_id"] for meter in _get(server, "/fleet")["meters"]] == ["roof"]


def test_a_posted_report_is_noted_and_a_malformed_one_is_dropped(server, roof, engine):
    def dropped():
        return REGISTRY.get_sample_value("commonwatt_fleet_statuses_dropped_total", {"reason": "malformed"}) or 0

    before = dropped()
    with transaction(engine) as connection:
        meter_no = connection.execute(text("SELECT meter_no FROM meters")).scalar_one()
        report = status_bytes(transport="https")
        assert record_status(connection, meter_no, report, datetime.now(UTC), live=True)
        assert not record_status(connection, meter_no, b"\xff" * 9_000, datetime.now(UTC), live=True)
    assert dropped() == before + 1
    assert _line(server)["transport"] == "https"


@pytest.fixture
def street(server, new_meter, say):
    """Five meters: two well, one with problems and a backlog, one gone, one never heard."""
    meters = [new_meter(f"home-{number}") for number in range(5)]
    for meter in meters:
        server.register(meter)
    say("home-0", agent="0.1.0")
    say("home-1", agent="0.2.0")
    say("home-2", agent="0.2.0", backlog_seals=50, problems=["journal_full", "register_fell"])
    say("home-3", agent="0.1.0", at=datetime.now(UTC) - timedelta(hours=2), problems=["register_fell"])
    server.post("/meters/home-1/suspend", {"reason": "looked at"})
    return meters


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"presence": "online"}, [0, 1, 2]),
        ({"presence": "offline"}, [3]),
        ({"presence": "never"}, [4]),
        ({"problem": "register_fell"}, [2, 3]),
        ({"problem": "journal"}, []),
        ({"state": "suspended"}, [1]),
        ({"firmware": "0.2.0"}, [1, 2]),
        ({"behind": "true"}, [2]),
        ({"behind": "false"}, [0, 1, 3, 4]),
        ({"firmware": "0.1.0", "presence": "online"}, [0]),
    ],
    ids=str,
)
def test_the_fleet_is_filtered(server, street, filters, found):
    assert _names(server, **filters) == [f"home-{number}" for number in found]


def test_a_long_fleet_comes_in_pages_also_when_filtered(server, street):
    names, cursor = [], ""
    while cursor is not None:
        page = _get(server, "/fleet", presence="online", limit=1, cursor=cursor)
        names += [meter["meter_id"] for meter in page["meters"]]
        cursor = page["next_cursor"]
    assert names == ["home-0", "home-1", "home-2"]


def test_the_fleet_is_summed_up(server, street, engine):
    summary = _get(server, "/fleet/summary")
    assert summary["presences"] == {"online": 3, "offline": 1, "never": 1}
    assert summary["states"] == {"active": 4, "suspended": 1}
    assert list(summary["problems"].items()) == [("register_fell", 2), ("journal_full", 1)]
    assert summary["firmware"] == {"0.1.0": 2, "0.2.0": 2}
    assert (summary["meters"], summary["meters_with_problems"], summary["meters_behind"]) == (5, 2, 1)
    assert (summary["backlog_seals"], summary["missing_seals"], summary["held_messages"]) == (50, 0, 0)
    measure_fleet_once(engine, datetime.now(UTC))
    assert REGISTRY.get_sample_value("commonwatt_fleet_meters", {"presence": "online"}) == 3
    assert REGISTRY.get_sample_value("commonwatt_fleet_meters_with_problems") == 2
    assert REGISTRY.get_sample_value("commonwatt_fleet_backlog_seals") == 50


def test_a_retired_meter_is_listed_but_missed_by_nobody(server, street, engine):
    with engine.begin() as connection:
        connection.execute(text("UPDATE meters SET state = 'retired' WHERE meter_id = 'home-3'"))
    summary = _get(server, "/fleet/summary")
    assert (summary["meters"], summary["presences"]["offline"], summary["states"]["retired"]) == (4, 0, 1)
    assert _names(server, state="retired") == ["home-3"]


def test_an_empty_fleet_is_summed_up_too(server):
    summary = _get(server, "/fleet/summary")
    assert (summary["meters"], summary["problems"], summary["backlog_seals"]) == (0, {}, 0)
    assert summary["presences"] == {"online": 0, "offline": 0, "never": 0}


def test_devices_that_state_absurd_figures_make_no_answer_impossible(server, street, say):
    for number in range(5):
        say(f"home-{number}", backlog_seals=2**53 - 1, time_unix_s=0)
    assert _get(server, "/fleet/summary")["backlog_seals"] == 2**53 - 1
    assert _line(server, "home-0")["clock_skew_s"] > 1_700_000_000


NUMBERS_OF_A_SEAL = (
    "sealed_at_unix_s", "closed_until_unix_s", "production_wh", "consumption_wh", "surplus_wh", "first_reading_unix_s",
    "first_production_wh", "first_consumption_wh", "last_reading_unix_s", "last_production_wh", "last_consumption_wh",
    "production_excess_ws", "consumption_excess_ws", "reading_count",
)  # fmt: skip
seconds_ago = st.none() | st.integers(-200, 4_000) | st.sampled_from([-181, -180, 90, 91, 180, 181, 2_700, 2_701])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["online", "offline"]), seconds_ago, seconds_ago, seconds_ago)
def test_the_database_and_the_rule_agree_on_who_is_online(server, roof, engine, state, since, status, seal):
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def at(ago_s):
        return None if ago_s is None else now - ago_s * SECOND

    with engine.connect() as connection:
        if since is not None:
            connection.execute(
                text(
                    "INSERT INTO meter_status (meter_no, state, state_at, status_at, problems)"
                    " SELECT meter_no, :state, :since, :status, '{}' FROM meters"
                ),
                {"state": state, "since": at(since), "status": at(status)},
            )
        if seal is not None:
            connection.execute(
                text(
                    f"INSERT INTO seals (meter_no, key_epoch, sequence, state, linked, sound, seal_hash,"
                    f" previous_seal_hash, received_at, {', '.join(NUMBERS_OF_A_SEAL)}) SELECT meter_no, 1, 1,"
                    f" 'accepted', true, true, '', '', :seal{', 0' * len(NUMBERS_OF_A_SEAL)} FROM meters"
                ),
                {"seal": at(seal)},
            )
        [line] = queries.list_fleet(connection, queries.Filters(), "", 10, now)
        connection.rollback()
    assert line.presence == rules.presence(now, line.sightings)


def test_alarms_are_listed_newest_first_in_pages(server, roof, engine):
    with engine.begin() as connection:
        for number in range(3):
            connection.execute(
                text(
                    "INSERT INTO alarms (kind, meter_no, detail, raised_at)"
                    " SELECT 'equivocation', meter_no, jsonb_build_object('sequence', CAST(:n AS int)), now()"
                    " FROM meters"
                ),
                {"n": number},
            )
        connection.execute(text("INSERT INTO alarms (kind, detail, raised_at) VALUES ('other', '{}', now())"))
    page = _get(server, "/alarms", limit=2)
    assert [(alarm["kind"], alarm["meter_id"]) for alarm in page["alarms"]] == [
        ("other", None),
        ("equivocation", "roof"),
    ]
    rest = _get(server, "/alarms", cursor=page["next_cursor"])
    assert [alarm["detail"] for alarm in rest["alarms"]] == [{"sequence": 1}, {"sequence": 0}]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("path", ["/fleet", "/fleet/summary", "/alarms", "/meters/roof/status"])
def test_nobody_looks_at_the_fleet_without_the_token(server, roof, path):
    assert server.anonymous.get(path).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/fleet?presence=asleep",
        "/fleet?problem=No%20Name",
        "/fleet?firmware=%00",
        "/fleet?firmware=%C3%A9",
        "/fleet?behind=perhaps",
        "/fleet?colour=blue",
        "/fleet?limit=100000",
        "/fleet/summary?x=1",
        "/alarms?cursor=xyz",
    ],
)
def test_a_question_that_means_nothing_is_refused(server, path):
    answer = server.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_input")


def test_the_status_of_a_meter_that_is_not_there_is_not_found(server):
    assert server.client.get("/meters/nobody/status").json()["code"] == "meter_not_found"
