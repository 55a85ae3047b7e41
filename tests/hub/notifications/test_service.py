"""A member is told once, in the transaction of what happened, and nobody's mailbox can be flooded."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from hub.db import transaction
from hub.errors import NotificationNotFound, PreferenceFixed
from hub.notifications import service
from hub.notifications.kinds import GROUPS, KINDS, Channel, instant
from hub.notifications.service import OPERATORS, TOLD_PER_WINDOW_MAX, tell_later
from hub.permissions import Role
from tests.hub.notifications.telling import NOON, SUSPENDED, about, an_address

MAIL_JOBS = "SELECT count(*) FROM outbox_jobs WHERE kind = 'notification.mail'"


def test_what_did_not_happen_is_not_told(community):
    member = community.member(email=an_address())
    with pytest.raises(RuntimeError), transaction(community.engine) as connection:
        service.notify(connection, member, SUSPENDED, about(), NOON)
        raise RuntimeError
    assert community.told(member) == []
    assert community.rows("SELECT count(*) FROM outbox_jobs") == [(0,)]
    assert community.rows("SELECT count(*) FROM live_updates") == [(0,)]


def test_what_happened_is_told_in_the_application_and_live(community):
    member, other = community.member(), community.member()
    community.notify(member)
    [told] = community.told(member)
    assert (told.kind, told.data, told.times, told.created_at, told.read_at) == (SUSPENDED, about(), 1, NOON, None)
    assert community.told(other) == []
    [(topic, kind, data)] = community.rows("SELECT topic, kind, data FROM live_updates")
    assert (topic, kind) == (f"notifications:{member}", "notification.new")
    assert data == service.notification_json(told)
    assert data["title"] == "Meter roof is suspended"


def test_under_a_key_a_member_is_told_once_and_then_it_is_counted(community):
    member, other = community.member(email=an_address()), community.member()
    for _ in range(5):
        community.notify(member, key="held:roof:12")
        community.wait(minutes=5)
    community.notify(member, key="held:roof:13")
    community.notify(other, key="held:roof:12")
    first, second = community.told(member)
    assert (first.times, second.times) == (5, 1)
    assert first.last_at - first.created_at == timedelta(minutes=20)
    assert len(community.told(other)) == 1
    assert community.rows(MAIL_JOBS) == [(2,)]


def test_hundreds_of_things_in_an_hour_are_one_hundred_and_a_line(community):
    member = community.member(email=an_address())
    for number in range(300):
        community.notify(member, data=about(f"meter-{number}"))
    told = community.told(member)
    assert [each.kind for each in told] == [SUSPENDED] * TOLD_PER_WINDOW_MAX + ["notifications.more"]
    assert (told[-1].times, told[-1].data) == (300 - TOLD_PER_WINDOW_MAX, {"since": instant(NOON)})
    assert community.rows(MAIL_JOBS) == [(TOLD_PER_WINDOW_MAX + 1,)]
    community.wait(hours=1)
    community.notify(member)
    assert community.kinds_told(member)[-1] == SUSPENDED


def test_no_flood_of_other_things_hides_an_alarm(community):
    """A hundred meters that send rubbish are easy to have; then a key is stolen."""
    operator = community.member(Role.OPERATOR, email=an_address())
    for number in range(TOLD_PER_WINDOW_MAX + 1):
        held = {"meter_id": f"meter-{number}", "since": instant(NOON), "why": "so."}
        community.notify(operator, "fleet.seals_held", held)
    alarm = {"alarm": "equivocation", "alarm_id": 1, "meter_id": "roof", "raised_at": instant(NOON), "why": "So."}
    for _ in range(TOLD_PER_WINDOW_MAX + 1):
        community.notify(operator, "alarm.raised", alarm)
    assert community.kinds_told(operator).count("alarm.raised") == TOLD_PER_WINDOW_MAX
    [more] = [each for each in community.told(operator) if each.kind == "notifications.more"]
    assert more.times == 2


def test_a_flood_for_one_member_costs_no_other_a_word(community):
    flooded, other = community.member(), community.member()
    for _ in range(TOLD_PER_WINDOW_MAX + 5):
        community.notify(flooded)
    community.notify(other)
    assert community.kinds_told(other) == [SUSPENDED]


def test_of_two_members_with_a_role_one_in_a_flood_takes_nothing_from_the_other(community):
    """The key of the flood's line is not the key of what the next member is told."""
    first, second = sorted([community.member(Role.OPERATOR), community.member(Role.OPERATOR)])
    for _ in range(TOLD_PER_WINDOW_MAX):
        community.notify(first)
    for _ in range(2):
        with transaction(community.engine) as connection:
            service.notify_role(connection, [Role.OPERATOR], "meter.suspended", about(), NOON)
    assert community.kinds_told(first)[-1] == "notifications.more"
    assert community.kinds_told(second) == [SUSPENDED, SUSPENDED]


def test_a_role_is_told_as_it_is_given_at_that_moment(community):
    operator, admin = community.member(Role.OPERATOR), community.member(Role.ADMIN)
    both, auditor = community.member(Role.OPERATOR, Role.ADMIN), community.member(Role.AUDITOR)
    suspended = community.member(Role.OPERATOR)
    community.execute("UPDATE members SET state = 'suspended' WHERE member_id = :id", id=suspended)
    data = {"count": 1, "meter_ids": ["roof"]}
    with transaction(community.engine) as connection:
        service.notify_role(connection, OPERATORS, "fleet.meters_heard_again", data, NOON)
    assert [len(community.told(each)) for each in (operator, admin, both, auditor, suspended)] == [1, 1, 1, 0, 0]


def test_an_owner_is_told_through_its_wallet_and_a_strangers_wallet_tells_nobody(community):
    wallet = b"\x07" * 32
    owner = community.member(wallet=wallet)
    for key in (wallet, b"\x08" * 32):
        with transaction(community.engine) as connection:
            service.notify_owner(connection, key, SUSPENDED, about(), NOON)
    assert community.kinds_told(owner) == [SUSPENDED]
    assert community.rows("SELECT count(*) FROM notifications") == [(1,)]


def test_what_a_job_tells_it_tells_once_though_it_runs_twice(community):
    wallet = b"\x07" * 32
    owner, operator = community.member(wallet=wallet, email=an_address()), community.member(Role.OPERATOR)
    with transaction(community.engine) as connection:
        tell_later(connection, "meter:roof", SUSPENDED, about(), NOON, owner=wallet, roles=OPERATORS)
    assert community.tell() == 1
    community.execute("UPDATE outbox_jobs SET state = 'waiting' WHERE kind = 'notification.tell'")
    assert community.tell() == 1
    for member in (owner, operator):
        [told] = community.told(member)
        assert told.times == 2
    assert community.rows(MAIL_JOBS) == [(1,)]


def test_two_transactions_that_tell_the_same_operators_wait_for_each_other_and_do_not_fail(community):
    operators = [community.member(Role.OPERATOR) for _ in range(4)]
    failures, together = [], threading.Barrier(4)

    def tell(number):
        try:
            for round_no in range(10):
                together.wait(20)
                with transaction(community.engine) as connection:
                    service.notify_role(connection, OPERATORS, SUSPENDED, about(), NOON, f"round-{round_no}")
        except Exception as fault:  # noqa: BLE001 - shown by the assertion below
            failures.append((number, fault))
            together.abort()

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for operator in operators:
        assert [each.times for each in community.told(operator)] == [4] * 10


# --- preferences ------------------------------------------------------------------------------------------------


def _prefer(community, member, group, channel, enabled):
    with transaction(community.engine) as connection:
        service.set_preference(connection, member, GROUPS[group], channel, enabled, NOON)


def test_what_is_turned_off_is_still_told_in_the_application(community):
    member = community.member(email=an_address())
    _prefer(community, member, "meters", Channel.EMAIL, False)
    community.notify(member)
    community.notify(member, "meter.silent", {"meter_id": "roof", "silent_since": instant(NOON)})
    assert len(community.told(member)) == 2
    assert community.rows(MAIL_JOBS) == [(1,)]
    _prefer(community, member, "meters", Channel.EMAIL, True)
    community.notify(member)
    assert community.rows(MAIL_JOBS) == [(2,)]


@pytest.mark.parametrize(
    ("group", "channel"),
    [("meter_keys", Channel.EMAIL), ("alarms", Channel.EMAIL), ("endpoints", Channel.WEBHOOK), ("meters", "in_app")],
)
def test_what_must_reach_the_member_cannot_be_turned_off(community, group, channel):
    member = community.member()
    with pytest.raises(PreferenceFixed):
        _prefer(community, member, group, Channel(channel), False)


def test_a_member_without_an_address_gets_no_mail(community):
    community.notify(community.member())
    assert community.rows(MAIL_JOBS) == [(0,)]


# --- reading ----------------------------------------------------------------------------------------------------


def _read(community, member, notification_id, **how):
    with transaction(community.engine) as connection:
        return service.mark_read(connection, member, notification_id, community.now, **how)


def test_one_notification_is_read_or_it_and_all_before_it(community):
    member, other = community.member(), community.member()
    for _ in range(5):
        community.notify(member)
        community.notify(other)
    ids = [each.notification_id for each in community.told(member)]
    community.wait(minutes=1)
    assert _read(community, member, ids[3], and_older=False) == 1
    assert _read(community, member, ids[3], and_older=False) == 0
    assert [each.read_at is not None for each in community.told(member)] == [False, False, False, True, False]
    community.wait(minutes=1)
    assert _read(community, member, ids[3], and_older=True) == 3
    assert [each.read_at for each in community.told(member)] == [
        *[NOON + timedelta(minutes=2)] * 3,
        NOON + timedelta(minutes=1),
        None,
    ]
    assert all(each.read_at is None for each in community.told(other))
    [(data,)] = community.rows(
        "SELECT data FROM live_updates WHERE kind = 'notification.read' ORDER BY sequence DESC LIMIT 1"
    )
    assert data == {"up_to": ids[3], "unread_count": 1}


def test_of_two_who_read_at_once_the_later_tells_how_many_are_unread_after_both(community):
    member = community.member()
    for _ in range(4):
        community.notify(member)
    first, second, *_ = [each.notification_id for each in community.told(member)]
    other = threading.Thread(target=_read, args=(community, member, second), kwargs={"and_older": False})
    with transaction(community.engine) as connection:
        service.mark_read(connection, member, first, NOON, and_older=False)
        other.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        while other.is_alive() and not community.rows(waiting):
            other.join(0.01)
    other.join()
    counts = community.rows(
        "SELECT data ->> 'unread_count' FROM live_updates WHERE kind = 'notification.read' ORDER BY sequence"
    )
    assert counts == [("3",), ("2",)]


def test_nobody_reads_for_another(community):
    member, other = community.member(), community.member()
    community.notify(member)
    [told] = community.told(member)
    for and_older in (False, True):
        with pytest.raises(NotificationNotFound):
            _read(community, other, told.notification_id, and_older=and_older)
    assert community.told(member) == [told]


def test_every_kind_fits_into_a_live_update_and_a_row(community):
    member = community.member()
    for kind in KINDS.values():
        community.notify(member, kind.name, dict.fromkeys(kind.fields, "x" * 500))
    assert len(community.told(member)) == len(KINDS)
