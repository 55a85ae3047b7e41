"""A refresh token is good once; what is shown of a session that is over is good for nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.auth import sessions_rules as rules
from hub.auth.sessions_rules import Client, Session, Verdict, judge_refresh

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LAPTOP, PHONE = Client("192.0.2.1", "a laptop"), Client("198.51.100.7", "a phone")
FIRST, SECOND, THIRD, FORGED = (bytes([number]) * 32 for number in range(4))
SUCCESSORS = {FIRST: SECOND, SECOND: THIRD, THIRD: b"\x09" * 32, FORGED: b"\x08" * 32}


def session(**changes: object) -> Session:
    """A session whose second token was given out just now, to the laptop."""
    values = Session(
        session_id=UUID(int=1),
        member_id=UUID(int=2),
        method="test",
        client=LAPTOP,
        family_hash=b"\x07" * 32,
        token_hash=SECOND,
        previous_token_hash=FIRST,
        created_at=NOW - timedelta(hours=1),
        last_used_at=NOW,
        expires_at=NOW + timedelta(days=14),
        ended_at=None,
        ended_because=None,
    )
    return replace(values, **changes)


def judged(of: Session, token: bytes, client: Client = LAPTOP, now: datetime = NOW) -> Verdict:
    return judge_refresh(of, token, SUCCESSORS[token], client, now)


def test_the_newest_token_is_good_from_anywhere():
    assert judged(session(), SECOND, LAPTOP) is Verdict.ROTATE
    assert judged(session(), SECOND, PHONE) is Verdict.ROTATE
    assert judged(session(previous_token_hash=None), SECOND) is Verdict.ROTATE


@pytest.mark.parametrize("late_s", [0, 1, 9.999, -9.999])
def test_the_token_before_it_may_come_once_more_from_the_same_client_within_ten_seconds(late_s):
    assert judged(session(), FIRST, now=NOW + timedelta(seconds=late_s)) is Verdict.REPEAT


@pytest.mark.parametrize("late_s", [10, 11, 86_400, -10])
def test_ten_seconds_later_it_is_reuse(late_s):
    assert judged(session(), FIRST, now=NOW + timedelta(seconds=late_s)) is Verdict.END


@pytest.mark.parametrize(
    "client", [PHONE, replace(LAPTOP, address="192.0.2.2"), replace(LAPTOP, user_agent="another"), Client("", "")]
)
def test_from_another_client_it_is_reuse_at_once(client):
    assert judged(session(), FIRST, client) is Verdict.END


def test_two_steps_back_is_reuse_even_at_once():
    assert judged(session(token_hash=THIRD, previous_token_hash=SECOND), FIRST) is Verdict.END


def test_a_token_made_up_in_the_familys_name_is_reuse():
    assert judged(session(), FORGED) is Verdict.END


def test_what_no_longer_brings_the_newest_token_is_not_answered():
    """The member secret was changed in between: the same answer cannot be given again, and no other shall be."""
    assert judge_refresh(session(), FIRST, FORGED, LAPTOP, NOW) is Verdict.END


@given(
    token=st.sampled_from([FIRST, SECOND, THIRD, FORGED]),
    client=st.sampled_from([LAPTOP, PHONE]),
    later=st.timedeltas(timedelta(0), timedelta(days=60)),
)
def test_a_session_that_is_over_refuses_everything_and_accuses_nobody(token, client, later):
    ended = session(ended_at=NOW, ended_because="signed_out")
    assert judged(ended, token, client, NOW + later) is Verdict.REFUSE
    expired = session(expires_at=NOW)
    assert judged(expired, token, client, NOW + later) is Verdict.REFUSE


@given(used_after=st.timedeltas(timedelta(0), timedelta(days=30)))
def test_a_session_ends_a_fortnight_after_its_last_use_and_a_month_after_its_first(used_after):
    end = rules.expires_at(NOW, NOW + used_after)
    assert end <= NOW + timedelta(days=30)
    assert end <= NOW + used_after + timedelta(days=14)
    assert end in (NOW + timedelta(days=30), NOW + used_after + timedelta(days=14))


@given(st.text(max_size=400))
def test_a_user_agent_is_kept_as_far_as_it_can_be_shown(text):
    agent = Client.of("192.0.2.1", text).user_agent
    assert len(agent) <= rules.USER_AGENT_LENGTH_MAX
    assert agent.isprintable()
    assert agent in "".join(letter for letter in text if letter.isprintable())
