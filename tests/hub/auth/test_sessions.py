"""Sessions on a real database: one line of tokens, ended by whoever shows an old one."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select, text

from hub.auth import sessions_service as service
from hub.auth.authentication import authenticate
from hub.auth.forgetting import forget_ended_sessions_once
from hub.auth.sessions_rules import LIFE_MAX, SESSIONS_PER_MEMBER_MAX, Client
from hub.auth.sessions_store import CHANNEL, sessions
from hub.auth.tokens import read_access_token
from hub.db import transaction
from hub.errors import AccessTokenExpired, MemberNotFound, MemberSuspended, SessionNotFound, Unauthorized
from hub.permissions import Role
from hub.token_keys import TokenKeys
from tests.hub.auth.conftest import LAPTOP, PHONE, a_member, opened

SECRET = b"\x33" * 32
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def refreshed(engine, keys, token, client=LAPTOP, now=NOW, secret=SECRET):
    with transaction(engine) as connection:
        return service.refresh_session(connection, token, client, keys, secret, now)


def is_let_in(engine, keys, access_token, now=NOW):
    try:
        with transaction(engine) as connection:
            authenticate(connection, keys, f"Bearer {access_token}", now)
    except Unauthorized:
        return False
    return True


def suspend(engine, member_id):
    """As the members' service does: the member first, then its sessions."""
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE members SET state = 'suspended' WHERE member_id = :member_id"), {"member_id": member_id}
        )
        service.end_sessions_of_member(connection, member_id, "suspended", "test", NOW)


def audited(engine, action):
    with engine.connect() as connection:
        query = text("SELECT actor, detail FROM audit_log WHERE action = :action ORDER BY audit_id")
        return [tuple(row) for row in connection.execute(query, {"action": action})]


# ---- one line of tokens


def test_signing_in_brings_an_access_token_and_a_refresh_token(engine, token_keys):
    member_id = a_member(engine, Role.AUDITOR)
    tokens = opened(engine, token_keys, member_id, NOW)
    claims = read_access_token(token_keys, tokens.access_token, NOW)
    assert (claims.member_id, claims.session_id) == (member_id, tokens.session_id)
    assert tokens.access_expires_in_s == 600
    assert re.fullmatch(r"cwr_[A-Za-z0-9_-]{64}", tokens.refresh_token)
    [(actor, detail)] = audited(engine, "session.open")
    assert (actor, detail) == (f"member:{member_id}", {"session_id": str(tokens.session_id), "method": "test"})


def test_each_refresh_token_brings_another_one_and_the_session_stays_the_same(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    seen, now = [tokens.refresh_token], NOW
    for _ in range(20):
        now += timedelta(hours=1)
        tokens_next = refreshed(engine, token_keys, seen[-1], now=now)
        assert (tokens_next.session_id, tokens_next.member_id) == (tokens.session_id, tokens.member_id)
        read_access_token(token_keys, tokens_next.access_token, now)
        seen.append(tokens_next.refresh_token)
    assert len(set(seen)) == 21


def test_the_database_holds_no_token_and_nothing_that_could_be_shown_as_one(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    later = refreshed(engine, token_keys, tokens.refresh_token)
    with engine.connect() as connection:
        rows = [str(row) for row in connection.execute(text("SELECT sessions::text FROM sessions"))]
        [(family, current, previous)] = connection.execute(
            select(sessions.c.family_hash, sessions.c.token_hash, sessions.c.previous_token_hash)
        )
    for token in (tokens.refresh_token, later.refresh_token, tokens.access_token, later.access_token):
        assert token not in rows[0]
        assert token.encode().hex() not in rows[0]
        for column in (family, current, previous):
            assert refreshed(engine, token_keys, f"cwr_{column.hex()}") is None
    assert len({family, current, previous}) == 3
    assert all(len(column) == 32 for column in (family, current, previous))


def test_nobody_without_the_token_before_it_can_make_the_next_even_with_the_hubs_secret(engine, token_keys):
    """The first token of each session is random, so equal sessions of one hub have nothing in common."""
    member_id = a_member(engine)
    first, second = (opened(engine, token_keys, member_id, NOW) for _ in range(2))
    nexts = [refreshed(engine, token_keys, tokens.refresh_token).refresh_token for tokens in (first, second)]
    assert len({first.refresh_token, second.refresh_token, *nexts}) == 4
    for tokens, token in zip((first, second), nexts, strict=True):
        assert token[4:25] == tokens.refresh_token[4:25], "a family"
    own_parts = [token[26:] for token in (first.refresh_token, second.refresh_token, *nexts)]
    assert len(set(own_parts)) == 4


def test_what_is_no_token_of_any_session_is_refused_and_harms_none(engine, token_keys):
    token = opened(engine, token_keys, a_member(engine), NOW).refresh_token
    for other in (
        "",
        token[4:],
        token.upper(),
        token + "=",
        token + "\n",
        token[:-1],
        "cwr_" + "A" * 64,
        "cwk_" + token[4:],
        "cwr_" + "ä" * 64,
    ):
        assert refreshed(engine, token_keys, other) is None
    assert refreshed(engine, token_keys, token) is not None


# ---- reuse


def test_a_reused_refresh_token_ends_the_whole_session(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    newest = refreshed(engine, token_keys, tokens.refresh_token)
    later = NOW + timedelta(minutes=1)
    assert is_let_in(engine, token_keys, newest.access_token, later)
    assert refreshed(engine, token_keys, tokens.refresh_token, now=later) is None
    assert refreshed(engine, token_keys, newest.refresh_token, now=later) is None
    assert not is_let_in(engine, token_keys, newest.access_token, later)
    [(actor, detail)] = audited(engine, "session.end")
    assert (actor, detail) == ("hub", {"session_ids": [str(tokens.session_id)], "reason": "token_reused"})


def test_a_thief_who_is_faster_than_the_member_loses_the_session_when_the_member_comes(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    stolen = refreshed(engine, token_keys, tokens.refresh_token, PHONE)
    assert refreshed(engine, token_keys, tokens.refresh_token, LAPTOP, NOW + timedelta(seconds=1)) is None
    assert refreshed(engine, token_keys, stolen.refresh_token, PHONE, NOW + timedelta(seconds=2)) is None
    assert not is_let_in(engine, token_keys, stolen.access_token)


def test_a_lost_answer_is_given_again_with_the_same_refresh_token(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    lost = refreshed(engine, token_keys, tokens.refresh_token)
    again = refreshed(engine, token_keys, tokens.refresh_token, now=NOW + timedelta(seconds=9))
    assert again.refresh_token == lost.refresh_token
    assert again.access_token != lost.access_token
    assert refreshed(engine, token_keys, again.refresh_token, now=NOW + timedelta(seconds=9)) is not None


def test_the_grace_does_not_grow_by_being_used(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    for late_s in (0, 4, 9):
        assert refreshed(engine, token_keys, tokens.refresh_token, now=NOW + timedelta(seconds=late_s)) is not None
    assert refreshed(engine, token_keys, tokens.refresh_token, now=NOW + timedelta(seconds=11)) is None
    assert audited(engine, "session.end") != []


def test_once_the_next_token_is_used_the_one_before_it_is_reuse_even_within_the_grace(engine, token_keys):
    first = opened(engine, token_keys, a_member(engine), NOW)
    second = refreshed(engine, token_keys, first.refresh_token)
    third = refreshed(engine, token_keys, second.refresh_token)
    assert refreshed(engine, token_keys, first.refresh_token) is None
    assert refreshed(engine, token_keys, third.refresh_token) is None


def test_a_hub_with_another_member_secret_goes_on_with_the_sessions_of_the_one_before(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    second = refreshed(engine, token_keys, tokens.refresh_token)
    third = refreshed(engine, token_keys, second.refresh_token, now=NOW + timedelta(hours=1), secret=b"\x44" * 32)
    assert refreshed(engine, token_keys, third.refresh_token, now=NOW + timedelta(hours=2)) is not None


def test_what_an_uncommitted_refresh_did_never_happened(engine, token_keys):
    """The process dies before the commit: the member's token is still the newest."""
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    with engine.connect() as connection:
        connection.begin()
        service.refresh_session(connection, tokens.refresh_token, LAPTOP, token_keys, SECRET, NOW)
        connection.rollback()
    later = NOW + timedelta(hours=1)
    assert refreshed(engine, token_keys, tokens.refresh_token, PHONE, later) is not None


def test_two_tabs_that_refresh_at_once_get_the_same_next_token(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    token = tokens.refresh_token
    for round_number in range(10):
        now = NOW + timedelta(hours=round_number)
        barrier = threading.Barrier(4)

        def ask(token=token, now=now, barrier=barrier):
            barrier.wait()
            return refreshed(engine, token_keys, token, now=now)

        with ThreadPoolExecutor(4) as pool:
            answers = [future.result() for future in [pool.submit(ask) for _ in range(4)]]
        assert len({answer.refresh_token for answer in answers}) == 1
        assert len({answer.access_token for answer in answers}) == 4
        token = answers[0].refresh_token


def test_of_two_clients_that_show_one_token_at_once_the_second_ends_the_session(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            first = service.refresh_session(connection, tokens.refresh_token, LAPTOP, token_keys, SECRET, NOW)
            second = pool.submit(refreshed, engine, token_keys, tokens.refresh_token, PHONE)
            wait_until_somebody_waits_for_a_lock(engine)
        assert second.result() is None
    assert refreshed(engine, token_keys, first.refresh_token) is None
    assert [detail["reason"] for _, detail in audited(engine, "session.end")] == ["token_reused"]


def wait_until_somebody_waits_for_a_lock(engine):
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        with engine.connect() as connection:
            if connection.execute(waiting).scalar_one():
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_of_a_member_and_a_thief_at_once_neither_keeps_the_session(engine, token_keys):
    for round_number in range(10):
        tokens = opened(engine, token_keys, a_member(engine), NOW)
        newest = refreshed(engine, token_keys, tokens.refresh_token)
        later = NOW + timedelta(hours=1, seconds=round_number)
        barrier = threading.Barrier(2)

        def ask(token, client, now=later, barrier=barrier):
            barrier.wait()
            return refreshed(engine, token_keys, token, client, now)

        with ThreadPoolExecutor(2) as pool:
            member = pool.submit(ask, newest.refresh_token, LAPTOP)
            thief = pool.submit(ask, tokens.refresh_token, PHONE)
        assert thief.result() is None
        for token in {newest.refresh_token} | ({member.result().refresh_token} if member.result() else set()):
            assert refreshed(engine, token_keys, token, now=later) is None


# ---- the ends of a session


def test_a_session_ends_a_fortnight_after_its_last_refresh(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    kept = refreshed(engine, token_keys, tokens.refresh_token, now=NOW + timedelta(days=13))
    assert refreshed(engine, token_keys, kept.refresh_token, now=NOW + timedelta(days=27)) is None
    idle = opened(engine, token_keys, a_member(engine), NOW)
    assert refreshed(engine, token_keys, idle.refresh_token, now=NOW + timedelta(days=14)) is None


def test_a_session_ends_a_month_after_signing_in_and_its_last_access_token_with_it(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    for day in range(10, 30, 10):
        tokens = refreshed(engine, token_keys, tokens.refresh_token, now=NOW + timedelta(days=day))
    end = NOW + LIFE_MAX
    last = refreshed(engine, token_keys, tokens.refresh_token, now=end - timedelta(minutes=4))
    assert last.access_expires_in_s == 240
    assert is_let_in(engine, token_keys, last.access_token, end - timedelta(seconds=1))
    with pytest.raises(AccessTokenExpired):
        is_let_in(engine, token_keys, last.access_token, end)
    assert refreshed(engine, token_keys, last.refresh_token, now=end) is None


def test_signing_out_ends_the_session_at_once_and_only_this_one(engine, token_keys):
    member_id = a_member(engine)
    tokens, other = (opened(engine, token_keys, member_id, NOW) for _ in range(2))
    with transaction(engine) as connection:
        assert service.sign_out(connection, tokens.refresh_token, NOW)
        assert not service.sign_out(connection, tokens.refresh_token, NOW)
    assert refreshed(engine, token_keys, tokens.refresh_token) is None
    assert not is_let_in(engine, token_keys, tokens.access_token)
    assert is_let_in(engine, token_keys, other.access_token)
    assert [detail["reason"] for _, detail in audited(engine, "session.end")] == ["signed_out"]


def test_a_used_refresh_token_still_signs_out(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    newest = refreshed(engine, token_keys, tokens.refresh_token)
    with transaction(engine) as connection:
        assert service.sign_out(connection, tokens.refresh_token, NOW)
    assert refreshed(engine, token_keys, newest.refresh_token) is None


def test_nobody_signs_in_or_refreshes_who_is_suspended(engine, token_keys):
    member_id = a_member(engine)
    tokens = opened(engine, token_keys, member_id, NOW)
    suspend(engine, member_id)
    assert refreshed(engine, token_keys, tokens.refresh_token) is None
    assert not is_let_in(engine, token_keys, tokens.access_token)
    with pytest.raises(MemberSuspended):
        opened(engine, token_keys, member_id, NOW)
    with pytest.raises(MemberNotFound):
        opened(engine, token_keys, uuid4(), NOW)


def test_a_suspended_member_is_kept_out_even_where_nobody_ended_its_sessions(engine, token_keys):
    tokens = opened(engine, token_keys, a_member(engine), NOW)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE members SET state = 'suspended'"))
    assert refreshed(engine, token_keys, tokens.refresh_token) is None
    assert not is_let_in(engine, token_keys, tokens.access_token)


def test_a_reinstated_member_signs_in_again(engine, token_keys):
    member_id = a_member(engine)
    tokens = opened(engine, token_keys, member_id, NOW)
    suspend(engine, member_id)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE members SET state = 'active'"))
    assert not is_let_in(engine, token_keys, tokens.access_token)
    assert refreshed(engine, token_keys, tokens.refresh_token) is None
    assert is_let_in(engine, token_keys, opened(engine, token_keys, member_id, NOW).access_token)


def test_of_a_suspension_and_a_sign_in_at_once_the_suspension_wins(engine, token_keys):
    for _ in range(10):
        member_id = a_member(engine)
        barrier = threading.Barrier(2)

        def sign_in(member_id=member_id, barrier=barrier):
            barrier.wait()
            try:
                return opened(engine, token_keys, member_id, NOW)
            except MemberSuspended:
                return None

        with ThreadPoolExecutor(1) as pool:
            tokens = pool.submit(sign_in)
            barrier.wait()
            suspend(engine, member_id)
        with transaction(engine) as connection:
            connection.execute(text("UPDATE members SET state = 'active'"))
            assert service.list_sessions(connection, member_id, NOW) == []
        assert tokens.result() is None or not is_let_in(engine, token_keys, tokens.result().access_token)


def test_one_sign_in_too_many_ends_the_session_that_was_not_used_for_longest(engine, token_keys):
    member_id = a_member(engine)
    held = [
        opened(engine, token_keys, member_id, NOW + timedelta(seconds=number))
        for number in range(SESSIONS_PER_MEMBER_MAX)
    ]
    later = NOW + timedelta(minutes=5)
    refreshed(engine, token_keys, held[0].refresh_token, now=later)
    opened(engine, token_keys, member_id, later)
    with transaction(engine) as connection:
        live = {each.session_id for each in service.list_sessions(connection, member_id, later)}
    assert len(live) == SESSIONS_PER_MEMBER_MAX
    assert held[0].session_id in live
    assert held[1].session_id not in live
    assert [detail["reason"] for _, detail in audited(engine, "session.end")] == ["too_many_sessions"]


def test_a_member_ends_a_session_of_its_own_and_of_nobody_else(engine, token_keys):
    mine, yours = (a_member(engine) for _ in range(2))
    here, there, theirs = (opened(engine, token_keys, member_id, NOW) for member_id in (mine, mine, yours))
    with transaction(engine) as connection:
        for session_id in (theirs.session_id, uuid4()):
            with pytest.raises(SessionNotFound):
                service.end_session(connection, mine, session_id, "ended_by_member", f"member:{mine}", NOW)
        service.end_session(connection, mine, there.session_id, "ended_by_member", f"member:{mine}", NOW)
        with pytest.raises(SessionNotFound):
            service.end_session(connection, mine, there.session_id, "ended_by_member", f"member:{mine}", NOW)
    assert [is_let_in(engine, token_keys, tokens.access_token) for tokens in (here, there, theirs)] == [
        True,
        False,
        True,
    ]


def test_all_sessions_but_one_end_together(engine, token_keys):
    mine, yours = (a_member(engine) for _ in range(2))
    here, there, also, theirs = (opened(engine, token_keys, each, NOW) for each in (mine, mine, mine, yours))
    with transaction(engine) as connection:
        assert service.end_sessions_of_member(connection, mine, "password_reset", "test", NOW, here.session_id) == 2
        assert service.end_sessions_of_member(connection, mine, "password_reset", "test", NOW, here.session_id) == 0
    let_in = [is_let_in(engine, token_keys, tokens.access_token) for tokens in (here, there, also, theirs)]
    assert let_in == [True, False, False, True]
    [(_, detail)] = audited(engine, "session.end")
    assert detail == {"session_ids": sorted([str(there.session_id), str(also.session_id)]), "reason": "password_reset"}


def test_every_process_hears_which_sessions_ended_once_that_is_committed(engine, token_keys, database_url):
    member_id = a_member(engine)
    tokens = [opened(engine, token_keys, member_id, NOW) for _ in range(4)]
    used = refreshed(engine, token_keys, tokens[0].refresh_token)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        with engine.connect() as connection:
            connection.begin()
            service.sign_out(connection, tokens[3].refresh_token, NOW)
            connection.rollback()
        refreshed(engine, token_keys, tokens[0].refresh_token, PHONE)
        with transaction(engine) as connection:
            service.sign_out(connection, tokens[1].refresh_token, NOW)
        with transaction(engine) as connection:
            service.end_sessions_of_member(connection, member_id, "suspended", "test", NOW)
        heard = [notice.payload for notice in listener.notifies(timeout=10, stop_after=4)]
    assert heard == [
        str(tokens[0].session_id),
        str(tokens[1].session_id),
        *sorted(str(t.session_id) for t in tokens[2:]),
    ]
    assert refreshed(engine, token_keys, used.refresh_token) is None


def test_sessions_that_are_over_are_forgotten_after_a_week_and_others_are_not(engine, token_keys):
    member_id = a_member(engine)
    ended, expired, live = (opened(engine, token_keys, member_id, NOW) for _ in range(3))
    with transaction(engine) as connection:
        service.sign_out(connection, ended.refresh_token, NOW)
    live = refreshed(engine, token_keys, live.refresh_token, now=NOW + timedelta(days=13))

    def remembered():
        with engine.connect() as connection:
            return set(connection.execute(select(sessions.c.session_id)).scalars())

    assert forget_ended_sessions_once(engine, NOW + timedelta(days=7)) == 0
    assert forget_ended_sessions_once(engine, NOW + timedelta(days=7, seconds=1)) == 1
    assert remembered() == {expired.session_id, live.session_id}
    assert forget_ended_sessions_once(engine, NOW + timedelta(days=21, seconds=1)) == 1
    assert remembered() == {live.session_id}
    assert refreshed(engine, token_keys, ended.refresh_token, now=NOW + timedelta(days=21)) is None


# ---- everything at once

CLIENTS = st.sampled_from([LAPTOP, PHONE])
WHICH = st.integers(0, 3)
DAY_S = 86_400


@dataclass
class KnownSession:
    """What anybody could say of a session who saw every token that it gave out."""

    session_id: UUID
    member_id: UUID
    began: datetime
    given: list[str]
    used_at: datetime
    used_by: Client
    over: bool = False

    def ends(self) -> datetime:
        return min(self.began + timedelta(days=30), self.used_at + timedelta(days=14))


@dataclass
class AccessToken:
    """An access token and when it ends."""

    text: str
    session: KnownSession
    ends: datetime = field(init=False)
    issued: datetime

    def __post_init__(self) -> None:
        self.ends = min(self.issued + timedelta(minutes=10), self.session.began + timedelta(days=30))


class Sessions(RuleBasedStateMachine):
    """Members, thieves and an admin do what they like, in any order; a naive book says what must come of it."""

    connection: Connection
    keys: TokenKeys
    done: Counter[str]

    access = Bundle("access")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.book: list[KnownSession] = []
        self.suspended: set[UUID] = set()
        self.members = [uuid4(), uuid4()]
        for member_id in self.members:
            self.connection.execute(
                text(
                    "INSERT INTO members (member_id, type, name, state, created_at)"
                    " VALUES (:member_id, 'consumer', 'Ada', 'active', :now)"
                ),
                {"member_id": member_id, "now": NOW},
            )

    def teardown(self) -> None:
        self.connection.rollback()

    @initialize(target=access, client=CLIENTS)
    def begin(self, client):
        return self.sign_in(0, client)

    @rule(target=access, number=st.integers(0, 1), client=CLIENTS)
    def sign_in(self, number, client):
        member_id = self.members[number]
        if member_id in self.suspended:
            with pytest.raises(MemberSuspended):
                service.open_session(self.connection, member_id, "test", client, self.keys, self.now)
            return multiple()
        tokens = service.open_session(self.connection, member_id, "test", client, self.keys, self.now)
        by_use = sorted(self._live(number), key=lambda each: (-each.used_at.timestamp(), each.session_id))
        for one_too_many in by_use[SESSIONS_PER_MEMBER_MAX - 1 :]:
            one_too_many.over = True
        known = KnownSession(tokens.session_id, member_id, self.now, [tokens.refresh_token], self.now, client)
        self.book.append(known)
        return AccessToken(tokens.access_token, self.book[-1], self.now)

    @rule(target=access, which=WHICH, client=CLIENTS)
    def refresh(self, which, client):
        """As a client does that keeps its tokens in order."""
        return self.show(which, 0, client, 0)

    @rule(target=access, which=WHICH, pause_s=st.sampled_from([0, 3, 9, 10, 12]), thief=st.sampled_from([None, PHONE]))
    def refresh_and_again(self, which, pause_s, thief):
        """As a client does whose answer was lost on the way, or a thief who is quick."""
        client = self._known(which).used_by
        self.show(which, 0, client, 0)
        self.now += timedelta(seconds=pause_s)
        return self.show(which, 1, thief or client, 0)

    @rule(target=access, which=WHICH, back=st.integers(0, 3), client=CLIENTS, skew_s=st.sampled_from([0, -2, 2]))
    def show(self, which, back, client, skew_s):
        """The newest token of a session, or one of those before it, to a process whose clock is a little off."""
        known, now = self._known(which), self.now + timedelta(seconds=skew_s)
        back = min(back, len(known.given) - 1)
        tokens = service.refresh_session(self.connection, known.given[-1 - back], client, self.keys, SECRET, now)
        if known.over or now >= known.ends():
            assert tokens is None
            self.done["refused, the session was over"] += 1
            return multiple()
        if back == 0:
            assert tokens is not None and tokens.refresh_token not in known.given
            known.given.append(tokens.refresh_token)
            known.used_at, known.used_by = now, client
            self.done["rotated"] += 1
        elif back == 1 and client == known.used_by and abs((now - known.used_at).total_seconds()) < 10:
            assert tokens is not None and tokens.refresh_token == known.given[-1]
            self.done["said again"] += 1
        else:
            assert tokens is None
            known.over = True
            self.done["reused"] += 1
            return multiple()
        return AccessToken(tokens.access_token, known, now)

    @rule(how=st.sampled_from(range(10)), which=WHICH, back=st.integers(0, 3), number=st.integers(0, 1))
    def end_something(self, how, which, back, number):
        """Seldom, or nothing would live for long."""
        match how:
            case 0:
                self.make_up_a_token(which, bytes([back]) * 32)
            case 1:
                self.sign_out(which, back)
            case 2:
                self.end_all(number)
            case 3:
                self.decide_about_member(number, "suspended")
            case 4 | 5:
                self.decide_about_member(number, "active")

    def make_up_a_token(self, which, secret):
        """Whoever once held a token of the session knows what its tokens begin with."""
        known = self._known(which)
        family = base64.urlsafe_b64decode(known.given[0].removeprefix("cwr_"))[:16]
        forged = "cwr_" + base64.urlsafe_b64encode(family + secret).decode()
        assert service.refresh_session(self.connection, forged, LAPTOP, self.keys, SECRET, self.now) is None
        self.done["made up"] += not self._is_over(known)
        known.over = True

    def sign_out(self, which, back):
        known = self._known(which)
        token = known.given[-1 - min(back, len(known.given) - 1)]
        assert service.sign_out(self.connection, token, self.now) is not self._is_over(known)
        known.over = True

    def end_all(self, number):
        ended = service.end_sessions_of_member(self.connection, self.members[number], "test", "test", self.now)
        assert ended == len(self._live(number))
        for known in self._live(number):
            known.over = True

    def decide_about_member(self, number, state):
        member_id = self.members[number]
        self.connection.execute(
            text("UPDATE members SET state = :state WHERE member_id = :member_id"),
            {"state": state, "member_id": member_id},
        )
        if state == "suspended":
            self.suspended.add(member_id)
            self.end_all(number)
        else:
            self.suspended.discard(member_id)

    @rule(passes=st.sampled_from([1, 4, 9, 10, 11, 300, 600, DAY_S, 6 * DAY_S, 13 * DAY_S, 14 * DAY_S]))
    def time_passes(self, passes):
        self.now += timedelta(seconds=passes)

    @rule(token=access)
    def ask(self, token):
        """An access token lets in exactly while it lives, its session does, and its member is not suspended."""
        known = token.session
        try:
            actor = authenticate(self.connection, self.keys, f"Bearer {token.text}", self.now)
        except AccessTokenExpired:
            assert self.now >= token.ends
            self.done["expired"] += 1
        except Unauthorized:
            assert self._is_over(known)
            self.done["kept out"] += 1
        else:
            assert self.now < token.ends and not self._is_over(known)
            assert actor.member_id == known.member_id not in self.suspended
            self.done["let in"] += 1

    @invariant()
    def the_list_names_exactly_the_sessions_that_live(self):
        for number in (0, 1):
            listed = service.list_sessions(self.connection, self.members[number], self.now)
            assert len(listed) == len(self._live(number))

    def _known(self, which: int) -> KnownSession:
        """One of the last few sessions, as a rule one that lives: who finds itself signed out signs in again."""
        if which and not (self._live(0) or self._live(1)):
            self.decide_about_member(0, "active")
            self.sign_in(0, LAPTOP)
        chosen = [each for each in self.book if not self._is_over(each)] if which else self.book
        return chosen[-1 - which % len(chosen)]

    def _is_over(self, known: KnownSession) -> bool:
        return known.over or self.now >= known.ends()

    def _live(self, number: int) -> list[KnownSession]:
        return [each for each in self.book if each.member_id == self.members[number] and not self._is_over(each)]


def _run(engine, token_keys, examples: int, steps: int) -> Counter[str]:
    done: Counter[str] = Counter()
    with engine.connect() as connection:
        machine = type("SessionsHere", (Sessions,), {"connection": connection, "keys": token_keys, "done": done})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
                database=None,
            ),
        )
    return done


EVERYTHING = {
    "rotated",
    "said again",
    "reused",
    "made up",
    "refused, the session was over",
    "let in",
    "kept out",
    "expired",
}


def test_whatever_happens_a_session_has_one_line_of_tokens_and_an_ended_one_yields_none(engine, token_keys):
    done = _run(engine, token_keys, 15, 40)
    assert {"rotated", "said again", "reused", "let in", "kept out"} <= done.keys(), done


@pytest.mark.long
def test_whatever_happens_for_long(engine, token_keys):
    done = _run(engine, token_keys, 600, 60)
    assert min(done[each] for each in EVERYTHING) >= 100, done
