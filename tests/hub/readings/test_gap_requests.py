"""A gap is asked for when it has lasted, again while it stays, and never once it has closed."""

from datetime import timedelta

from sqlalchemy import text

from hub.db import transaction
from hub.readings.jobs import ASK_AFTER, ASK_AGAIN_AFTER, RESEND_SEALS_MAX, ask_for_gaps_once
from hub.signatures import SigningKey, verify
from protocol.command import RESEND, split_command
from simulators.sealing import SimulatedMeter
from tests.hub.readings.conftest import POLICY, Hub

KEY = SigningKey(bytes(range(32)))


def commands(hub: Hub) -> list[tuple[int, int, int]]:
    sent = []
    for (message_hex,) in hub.rows("SELECT payload->>'message_hex' FROM outbox_jobs WHERE kind = 'meter.command'"):
        command, signed, signature = split_command(bytes.fromhex(str(message_hex)))
        assert verify(KEY.public_key, signed, signature)
        assert command.kind == RESEND
        sent.append((command.counter, command.first, command.last))
    return sorted(sent)


def test_a_gap_that_lasts_is_asked_for_until_it_closes(hub: Hub, home: SimulatedMeter) -> None:
    messages = home.messages(9)
    hub.take(messages[0], messages[4], messages[8])
    soon = hub.now + ASK_AFTER / 2
    assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, soon) == 0, "the backlog may be on its way"
    late = hub.now + ASK_AFTER + timedelta(seconds=1)
    assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, late) == 1, "one a meter at a time"
    assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, late) == 0, "the broker has not got the first yet"
    everything_is_sent(hub)
    assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, late) == 1
    assert commands(hub) == [(1, 2, 4), (2, 6, 8)]
    everything_is_sent(hub)
    assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, late) == 0
    hub.take(messages[2], *messages[5:8])
    later = late + ASK_AGAIN_AFTER + timedelta(seconds=1)
    for _ in range(2):
        assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, later) == 1, "both halves, as old as what they are of"
        everything_is_sent(hub)
    assert commands(hub)[2:] == [(3, 2, 2), (4, 4, 4)]
    hub.take(messages[1], messages[3])
    assert ask_for_gaps_once(hub.engine, POLICY.domain, KEY, later + ASK_AGAIN_AFTER * 2) == 0


def everything_is_sent(hub: Hub) -> None:
    with transaction(hub.engine) as connection:
        connection.execute(text("UPDATE outbox_jobs SET state = 'done'"))


def test_of_an_endless_gap_only_the_beginning_is_asked_for(hub: Hub, home: SimulatedMeter) -> None:
    messages = home.messages(2)
    hub.take(messages[0])
    for _ in range(RESEND_SEALS_MAX + 200):
        home.next_message()
    hub.now += timedelta(days=30)
    hub.take(home.next_message())
    ask_for_gaps_once(hub.engine, POLICY.domain, KEY, hub.now + ASK_AFTER * 2)
    assert [(first, last) for _, first, last in commands(hub)] == [(2, RESEND_SEALS_MAX + 1)]
