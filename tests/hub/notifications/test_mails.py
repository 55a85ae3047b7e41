"""What reaches a mailbox: once, in plain words, not too often, and only where the member wants it now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from hub.db import transaction
from hub.integrations.mail import MailServer, mail_server_of
from hub.notifications import service, store
from hub.notifications.kinds import GROUPS, KINDS, Channel, instant
from hub.notifications.mail_service import MAILS_PER_WINDOW_MAX, WINDOW, Parcel, take_parcel
from hub.notifications.mails import LINES_MAX
from tests.hub.auth.mailing import sending
from tests.hub.notifications.telling import NOON, SENDER, about, an_address


@pytest.fixture
def smtp(settings, mail_server):
    return mail_server_of(sending(settings, mail_server))


@pytest.fixture
def address():
    return an_address()


def _mail_states(community):
    return [state for (state,) in community.rows("SELECT mail FROM notifications ORDER BY notification_id")]


def _jobs(community):
    return community.rows("SELECT state, attempts FROM outbox_jobs WHERE kind = 'notification.mail' ORDER BY job_id")


def test_one_thing_is_told_in_one_mail_with_the_way_to_get_no_more(community, smtp, mail_server, address):
    member = community.member(email=address)
    community.notify(member, data=about("roof", "the cover was open"))
    assert community.mail(smtp) == 1
    [letter] = mail_server.letters(address)
    assert letter["Subject"] == "Meter roof is suspended (test-community)"
    words = " ".join(letter.get_content().split())
    assert "Dear Ada," in words
    assert "Meter roof is suspended. The reason: the cover was open." in words
    assert "turn them off in your notification preferences" in words
    assert "https://hub.example.org/me/notification-preferences" in words
    assert _mail_states(community) == ["sent"]


def test_what_cannot_be_turned_off_says_so(community, smtp, mail_server, address):
    member = community.member(email=address)
    community.notify(member, "meter.password_renewed", about())
    community.mail(smtp)
    [letter] = mail_server.letters(address)
    words = " ".join(letter.get_content().split())
    assert "Mails about meter_keys cannot be turned off" in words and "turn them off" not in words


def test_what_happens_before_the_mail_goes_is_in_one_mail(community, smtp, mail_server, address):
    member = community.member(email=address)
    for number in range(4):
        community.notify(member, data=about(f"meter-{number}"))
    assert community.mail(smtp) == 4
    [letter] = mail_server.letters(address)
    assert letter["Subject"] == "4 notifications (test-community)"
    words = " ".join(letter.get_content().split())
    places = [words.index(f"- Meter meter-{number} is suspended") for number in range(4)]
    assert places == sorted(places)
    assert [state for state, _ in _jobs(community)] == ["done"] * 4


def test_mails_that_come_too_fast_become_one_that_waits(community, smtp, mail_server, address):
    member = community.member(email=address)
    for number in range(MAILS_PER_WINDOW_MAX + 20):
        community.notify(member, data=about(f"meter-{number}"))
        community.mail(smtp)
        community.wait(minutes=1)
    assert len(mail_server.letters(address)) == MAILS_PER_WINDOW_MAX
    community.now = NOON + WINDOW - timedelta(seconds=1)
    community.mail(smtp)
    assert len(mail_server.letters(address)) == MAILS_PER_WINDOW_MAX
    community.wait(seconds=1)
    community.mail(smtp)
    *_, last = mail_server.letters(address)
    assert len(mail_server.letters(address)) == MAILS_PER_WINDOW_MAX + 1
    assert last["Subject"] == "20 notifications (test-community)"
    assert _mail_states(community) == ["sent"] * (MAILS_PER_WINDOW_MAX + 20)
    assert {state for state, _ in _jobs(community)} == {"done"}


def test_one_members_limit_does_not_hold_up_another(community, smtp, mail_server, address):
    busy, other_address = community.member(email=address), an_address()
    for _ in range(MAILS_PER_WINDOW_MAX + 1):
        community.notify(busy)
        community.mail(smtp)
        community.wait(seconds=1)
    community.notify(community.member(email=other_address))
    community.mail(smtp)
    assert len(mail_server.letters(other_address)) == 1


def test_of_very_many_notifications_a_mail_tells_the_newest_and_counts_the_others(
    community, smtp, mail_server, address
):
    member = community.member(email=address)
    for number in range(LINES_MAX + 7):
        community.notify(member, data=about(f"meter-{number}"))
    community.mail(smtp)
    [letter] = mail_server.letters(address)
    words = " ".join(letter.get_content().split())
    assert "Earlier ones that are not told here: 7." in words
    assert "meter-6 " not in words and "meter-7 " in words and f"meter-{LINES_MAX + 6} " in words


# --- meanwhile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE members SET state = 'suspended' WHERE member_id = :member",
        "DELETE FROM identities WHERE member_id = :member",
    ],
)
def test_a_member_who_was_suspended_or_lost_its_address_meanwhile_gets_no_mail(
    community, smtp, mail_server, address, meanwhile
):
    member = community.member(email=address)
    community.notify(member)
    community.execute(meanwhile, member=member)
    assert community.mail(smtp) == 1
    assert mail_server.letters(address) == []
    assert _mail_states(community) == ["dropped"]
    assert _jobs(community) == [("done", 1)]


def test_a_mail_goes_to_the_address_that_the_member_has_when_it_goes(community, smtp, mail_server, address):
    member, another = community.member(email=address), an_address()
    community.notify(member)
    community.execute("UPDATE identities SET value = :new WHERE member_id = :member", new=another, member=member)
    community.mail(smtp)
    assert mail_server.letters(address) == []
    assert len(mail_server.letters(another)) == 1


def test_what_was_turned_off_meanwhile_is_not_mailed(community, smtp, mail_server, address):
    member = community.member(email=address)
    community.notify(member)
    community.notify(member, "meter.password_renewed", about())
    with transaction(community.engine) as connection:
        service.set_preference(connection, member, GROUPS["meters"], Channel.EMAIL, False, NOON)
    community.mail(smtp)
    [letter] = mail_server.letters(address)
    assert letter["Subject"] == "Meter roof has a new broker password (test-community)"
    assert _mail_states(community) == ["dropped", "sent"]


def test_what_could_not_be_mailed_for_days_is_no_news(community, smtp, mail_server, address):
    community.notify(community.member(email=address))
    community.wait(days=3)
    community.mail(smtp)
    assert mail_server.letters(address) == []
    assert _mail_states(community) == ["dropped"]


# --- the mail server --------------------------------------------------------------------------------------------


def test_a_mail_waits_for_a_server_that_is_away(community, smtp, mail_server, address):
    member = community.member(email=address)
    community.notify(member)
    assert community.mail(MailServer("127.0.0.1", 1, "none", "hub@example.org")) == 1
    assert _jobs(community) == [("waiting", 1)]
    community.notify(member)
    community.wait(minutes=1)
    community.mail(smtp)
    first, second = mail_server.letters(address)
    assert first["Subject"] == second["Subject"] == "Meter roof is suspended (test-community)"
    assert _mail_states(community) == ["sent", "sent"]


def test_a_mail_that_is_refused_for_good_is_not_tried_again(community, smtp, mail_server, address):
    community.notify(community.member(email=address))
    mail_server.server.fail(refused=[address])
    community.mail(smtp)
    assert _mail_states(community) == ["dropped"]
    assert _jobs(community) == [("given_up", 1)]
    [(error,)] = community.rows("SELECT last_error FROM outbox_jobs WHERE kind = 'notification.mail'")
    assert error.startswith("refused for good: ") and address not in error


def test_a_hub_without_a_mail_server_keeps_no_mail_waiting(community, address):
    community.notify(community.member(email=address))
    community.mail(None)
    assert _mail_states(community) == ["dropped"]
    assert _jobs(community) == [("done", 1)]


def test_a_worker_that_dies_after_sending_sends_the_same_mail_again(community, smtp, mail_server, address):
    """Between the server's yes and ours: the second is the first, whatever has happened since."""
    member = community.member(email=address)
    community.notify(member)
    mail_server.server.fail(lost_answers=1)
    community.mail(smtp)
    assert _jobs(community) == [("waiting", 1)]
    community.notify(member, data=about("cellar"))
    community.wait(minutes=1)
    community.mail(smtp)
    first, again, second = mail_server.letters(address)
    assert first["Message-ID"] == again["Message-ID"] != second["Message-ID"]
    assert first.get_content() == again.get_content()
    assert second["Subject"] == "Meter cellar is suspended (test-community)"


def test_what_a_mail_holds_is_fixed_before_it_is_sent(community, address):
    member = community.member(email=address)
    community.notify(member)
    with transaction(community.engine) as connection:
        first = take_parcel(connection, member, SENDER, NOON)
    community.notify(member, data=about("cellar"))
    with transaction(community.engine) as connection:
        again = take_parcel(connection, member, SENDER, NOON + timedelta(minutes=5))
    assert isinstance(first, Parcel) and again == first


def test_an_outbox_job_of_a_mail_holds_ids_and_nothing_of_the_member(community, address):
    member = community.member(email=address, name="Ada Lovelace")
    community.notify(member)
    with transaction(community.engine) as connection:
        [row] = connection.execute(text("SELECT subject, payload FROM outbox_jobs"))
    assert (row.subject, row.payload) == (str(member), {})


def test_every_kind_can_be_mailed(community, smtp, mail_server):
    for kind in KINDS.values():
        if Channel.EMAIL in kind.group.never:
            continue
        address = an_address()
        member = community.member(email=address)
        if not service.is_enabled({}, kind.group, Channel.EMAIL):
            with transaction(community.engine) as connection:
                service.set_preference(connection, member, kind.group, Channel.EMAIL, True, NOON)
        community.notify(member, kind.name, dict.fromkeys(kind.fields, instant(NOON)))
        community.mail(smtp)
        [letter] = mail_server.letters(address)
        assert "2026-11-20 12:00 UTC" in " ".join(letter.get_content().split())
    assert set(_mail_states(community)) == {store.MAIL_SENT}
