"""What can be told: in plain words, from the facts alone, and every group can be reached."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.notifications import kinds
from hub.notifications.kinds import GROUPS, KINDS, Audience, Channel, get_kind, instant, render
from hub.notifications.service import is_changeable, is_enabled

FACTS = st.text(max_size=30) | st.integers() | st.lists(st.text(max_size=5), max_size=3)


def _facts(kind, value="x"):
    return dict.fromkeys(kind.fields, value)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_is_a_dotted_name_and_reads_as_sentences(name):
    kind = KINDS[name]
    sentences = {"why": "Because it is so.", "advice": "Look at it."}
    title, text = kind.render(_facts(kind, "something") | {k: v for k, v in sentences.items() if k in kind.fields})
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name)
    assert not re.search(r"[{}]|\.\.|  ", title + text)
    assert re.fullmatch(r"[A-Z].*[^.]", title) and re.fullmatch(r"[A-Z].*\.", text)


@given(st.data(), st.sampled_from(sorted(KINDS)))
def test_no_fact_breaks_a_text_or_is_taken_for_a_template(data, name):
    kind = KINDS[name]
    facts = {field: data.draw(FACTS) for field in kind.fields}
    title, text = render(name, facts)
    for value in facts.values():
        if isinstance(value, str) and len(value) > 25:
            assert value in title + text


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_fact_that_is_missing_or_too_many_is_our_mistake(name):
    facts = _facts(KINDS[name])
    assert get_kind(name, facts) is KINDS[name]
    with pytest.raises(AssertionError):
        get_kind(name, facts | {"another": 1})
    with pytest.raises(AssertionError):
        get_kind(name, dict(list(facts.items())[1:]))


def test_a_time_is_told_as_people_read_it():
    at = datetime(2026, 11, 20, 6, 5, 59, tzinfo=UTC)
    _, text = render("meter.heard_again", {"meter_id": "roof", "silent_since": instant(at)})
    assert text == "Meter roof, silent since 2026-11-20 06:05 UTC, is heard again."
    _, text = render("meter.heard_again", {"meter_id": "roof", "silent_since": "2026-02-30T06:05:59Z"})
    assert "2026-02-30T06:05:59Z" in text


def test_what_a_newer_hub_wrote_can_still_be_listed():
    assert render("order.matched", {"order_id": 7})[0] == "order.matched"
    assert render("meter.suspended", {"meter_id": "roof"})[0] == "meter.suspended"


def test_everything_is_on_until_it_is_turned_off_except_what_would_flood_people():
    off = {
        (name, channel) for name, group in GROUPS.items() for channel in Channel if not is_enabled({}, group, channel)
    }
    assert off == {
        ("fleet", Channel.EMAIL),
        ("tokens", Channel.EMAIL),  # each day, of each meter
        ("endpoints", Channel.WEBHOOK),
        ("email_and_password", Channel.EMAIL),
    }


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_preference_counts_where_it_may(name):
    group = GROUPS[name]
    for channel in Channel:
        for wish in (True, False):
            enabled = is_enabled({(name, channel): wish}, group, channel)
            assert enabled == (wish if is_changeable(group, channel) else is_enabled({}, group, channel))


def test_what_is_about_security_reaches_the_mailbox_whatever_is_wished():
    fixed = {name for name, group in GROUPS.items() if Channel.EMAIL in group.fixed}
    assert fixed == {"account", "meter_keys", "endpoints", "alarms"}
    assert kinds.ALARMS.audience is Audience.OPERATORS
