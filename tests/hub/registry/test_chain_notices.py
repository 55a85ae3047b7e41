"""Nobody is left to wonder: of an unknown transaction operators hear at once, and its owner that it is delayed."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text

from hub.chain.inbox import Trouble
from hub.chain.intent import Ended
from hub.db import transaction
from hub.permissions import Role
from hub.registry.chain_notices import TRANSACTION_UNKNOWN, WHAT, tell_of_trouble, tell_of_unknown
from tests.hub.notifications.telling import Community

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WALLET = b"\x61" * 32


@pytest.fixture
def community(engine) -> Community:
    return Community(engine)


def _unknown(kind: str = "mint", subject: str = "meter:roof") -> Ended:
    return Ended(uuid4(), kind, subject, {}, "unknown", "5sig", None, "no_answer", "the node is silent")


def _tell(engine, ended: Ended, owners=()) -> None:
    with transaction(engine) as connection:
        tell_of_unknown(connection, ended, owners, NOW)


def _alarms(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT kind, meter_no, detail FROM alarms ORDER BY alarm_id")).all()


def test_of_a_transaction_that_is_unknown_operators_are_alarmed_and_its_owner_is_told_of_a_delay(engine, community):
    owner, operator, other = community.member(wallet=WALLET), community.member(Role.OPERATOR), community.member()
    ended = _unknown()
    _tell(engine, ended, [WALLET, b"\x62" * 32])
    community.tell()
    [alarm] = _alarms(engine)
    assert (alarm.kind, alarm.meter_no, alarm.detail["intent_id"]) == (TRANSACTION_UNKNOWN, None, str(ended.intent_id))
    [told] = community.told(owner)
    assert told.kind == "chain.transaction_delayed"
    assert told.data == {"what": WHAT["mint"], "signature": "5sig"}
    [alarmed] = community.told(operator)
    assert (alarmed.kind, alarmed.data["alarm"]) == ("alarm.chain", TRANSACTION_UNKNOWN)
    assert community.told(other) == []


def test_an_owner_is_told_of_one_delay_once_and_of_another_again(engine, community):
    owner = community.member(wallet=WALLET)
    ended = _unknown()
    for each in (ended, ended, _unknown()):
        _tell(engine, each, [WALLET])
    community.tell()
    assert [told.times for told in community.told(owner)] == [2, 1]


def test_a_step_of_the_hubs_own_concerns_operators_alone(engine, community):
    owner = community.member(wallet=WALLET)
    _tell(engine, _unknown("lookup_table.extend", "lookup_table:x"))
    community.tell()
    assert community.told(owner) == []
    assert len(_alarms(engine)) == 1


def test_what_ended_is_not_told_as_unknown(engine):
    finalized = Ended(uuid4(), "mint", "meter:roof", {}, "finalized", "5sig", 7, None, "")
    with pytest.raises(AssertionError):
        _tell(engine, finalized)


def test_a_hole_in_the_history_is_an_alarm_with_its_reason_for_those_who_look_now_and_later(engine, community):
    operator = community.member(Role.OPERATOR)
    with transaction(engine) as connection:
        tell_of_trouble(connection, Trouble("chain_history_hole", "The node forgot.", {"reason": "pruned"}), NOW)
    community.tell()
    [alarm] = _alarms(engine)
    assert (alarm.kind, alarm.detail) == ("chain_history_hole", {"reason": "pruned"})
    [alarmed] = community.told(operator)
    assert alarmed.data["why"] == "The node forgot."
    with engine.connect() as connection:
        [update] = connection.execute(text("SELECT kind, data FROM live_updates WHERE topic = 'alerts'")).all()
    assert (update.kind, update.data["alarm"], update.data["meter_id"]) == (
        "alarm.raised",
        "chain_history_hole",
        None,
    )


def test_a_transaction_that_was_rolled_back_alarms_nobody(engine, community):
    with pytest.raises(ZeroDivisionError), transaction(engine) as connection:
        tell_of_unknown(connection, _unknown(), [WALLET], NOW)
        raise ZeroDivisionError
    assert _alarms(engine) == []
