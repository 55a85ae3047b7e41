"""Whatever changes who can act as a member, the member is told of it: once, and without a secret."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from hub.auth import notices, sessions_service
from hub.auth.sessions_rules import Client
from hub.db import transaction
from hub.integrations.mail import mail_server_of
from hub.notifications.kinds import GROUPS, KINDS, Channel
from hub.notifications.service import set_preference
from hub.permissions import Role
from hub.token_keys import read_token_keys
from tests.hub.auth.conftest import LAPTOP, PHONE, opened
from tests.hub.auth.mailing import BETTER, GOOD, Office, sending, somebody
from tests.hub.auth.signing_wallet import SigningWallet
from tests.hub.notifications.telling import NOON, Community, an_address

SECRET = b"\x33" * 32
_keys = itertools.count(1)


@pytest.fixture
def office(settings, engine, running_hub, mail_server):
    with running_hub(sending(settings, mail_server), engine) as server:
        yield Office(server, mail_server)


@pytest.fixture
def keys(settings):
    return read_token_keys(settings)


@pytest.fixture
def community(engine):
    """At the true time: what comes over HTTP has it too."""
    return Community(engine, now=datetime.now(UTC))


@pytest.fixture
def told(community):
    """What this member was told of its account until now, as (kind, data), oldest first."""

    def told(member_id):
        community.now = datetime.now(UTC) + timedelta(minutes=1)
        community.tell()
        return [(each.kind.removeprefix("account."), each.data) for each in community.told(member_id)]

    return told


def _bearing(server, access_token):
    headers = {"Authorization": f"Bearer {access_token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def _post(client, path, body=None):
    return client.post(path, json=body, headers={"Idempotency-Key": f"account-{next(_keys)}"})


def _kinds(told):
    return [kind for kind, _ in told]


# --- ways in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", ["solana", "dogecoin"])
def test_a_member_is_told_of_a_wallet_that_is_linked_and_of_one_that_is_unlinked(server, told, chain):
    wallet, other = SigningWallet.new(), SigningWallet.new(chain)
    tokens = wallet.register(server.anonymous).json()
    assert told(tokens["member_id"]) == [], "of what it has just done to become a member it knows"
    with _bearing(server, tokens["access_token"]) as client:
        assert wallet.link(client, other).status_code == 201
        assert other.sign_in(server.anonymous).status_code == 200
        assert wallet.unlink(client, other).status_code == 200
    linked = {"chain": chain, "address": other.address}
    assert told(tokens["member_id"]) == [
        ("wallet_linked", linked),
        ("wallet_unlinked", linked | {"ended_sessions": 1}),
    ]


def test_a_wallet_that_could_not_be_linked_is_not_told_of(server, told):
    ada, bob = SigningWallet.new(), SigningWallet.new()
    tokens = ada.register(server.anonymous).json()
    bob.register(server.anonymous)
    with _bearing(server, tokens["access_token"]) as client:
        assert ada.link(client, bob).status_code == 409
    assert told(tokens["member_id"]) == []


def test_of_address_and_password_a_member_is_told_in_the_application_and_never_mailed_twice(office, told, community):
    ada, tokens = office.member()
    office.as_member(tokens, "/me/password", {"current": GOOD, "new": BETTER})
    another = somebody()
    proof = {"kind": "password", "password": BETTER}
    assert office.as_member(tokens, "/me/email", {"email": another, "existing": proof}).status_code == 202
    office.deliver()
    answer = office.as_member(tokens, "/me/email/verify", {"token": office.token(another)})
    assert answer.status_code == 200, answer.text
    office.ask("/auth/password/forgot", {"email": another})
    office.deliver()
    answer = office.ask("/auth/password/reset", {"token": office.token(another), "password": GOOD})
    assert answer.status_code == 200, answer.text
    assert told(tokens["member_id"]) == [
        ("password_changed", {"ended_sessions": 0}),
        ("email_linked", {"ended_sessions": 0}),
        ("password_changed", {"ended_sessions": 1}),
    ]
    office.deliver()
    assert community.mail(mail_server_of(office.server.settings)) == 0
    assert office.subjects(ada)[1:] == ["Your password was changed", "Your e-mail address was changed"]
    assert office.subjects(another)[1:] == ["Choose another password", "Your password was changed"]


# --- sessions ---------------------------------------------------------------------------------------------------


def test_a_member_is_told_of_a_sign_in_from_a_client_that_none_of_its_sessions_knows(engine, keys, community, told):
    member = community.member()
    for client in (LAPTOP, LAPTOP, PHONE, Client(LAPTOP.address, PHONE.user_agent), PHONE):
        opened(engine, keys, member, client=client)
    new = [data["client_address"] for kind, data in told(member) if kind == "signed_in"]
    assert new == [LAPTOP.address, PHONE.address, LAPTOP.address]
    with transaction(engine) as connection:
        live = {str(each.session_id) for each in sessions_service.list_sessions(connection, member, community.now)}
    assert {data["session_id"] for _, data in told(member)} <= live


def test_a_client_is_known_also_by_a_session_that_has_ended_and_only_to_its_own_member(engine, keys, community, told):
    member, other = community.member(), community.member()
    opened(engine, keys, member)
    with transaction(engine) as connection:
        sessions_service.end_sessions_of_member(connection, member, "a test", "test", datetime.now(UTC))
    opened(engine, keys, member)
    opened(engine, keys, other)
    assert _kinds(told(member)) == _kinds(told(other)) == ["signed_in"]


def test_who_comes_to_a_sleeping_account_is_told_of_though_no_session_is_left(engine, keys, community, told):
    """The sessions of long ago are forgotten: then every client is a new one."""
    member = community.member()
    opened(engine, keys, member)
    community.execute("DELETE FROM sessions")
    opened(engine, keys, member)
    assert _kinds(told(member)) == ["signed_in"] * 2


def test_a_program_cannot_write_into_our_mails_by_what_it_calls_itself(engine, keys, community, told):
    member = community.member()
    opened(engine, keys, member, client=Client.of("192.0.2.1", "Your account is lost: pay at evil.example"))
    assert "evil" not in json.dumps(told(member))


def test_a_member_is_told_when_a_used_refresh_token_ends_its_session_and_once(engine, keys, community, told):
    member = community.member()
    tokens = opened(engine, keys, member, client=LAPTOP)
    now = datetime.now(UTC)
    for number in range(4):
        with transaction(engine) as connection:
            again = sessions_service.refresh_session(
                connection, tokens.refresh_token, PHONE, keys, SECRET, now + timedelta(minutes=number)
            )
        assert (again is None) == (number > 0)
    assert told(member)[1:] == [
        ("token_reused", {"session_id": str(tokens.session_id), "client_address": PHONE.address})
    ]


# --- keys and roles ---------------------------------------------------------------------------------------------


def test_a_member_is_told_of_its_api_keys_and_never_their_secret(server, told):
    wallet = SigningWallet.new()
    tokens = wallet.register(server.anonymous).json()
    wanted = {"name": "heat pump", "scopes": ["meters.read"], "expires_in_s": 86_400}
    with _bearing(server, tokens["access_token"]) as client:
        made = _post(client, "/me/api-keys", wanted).json()
        assert _post(client, f"/me/api-keys/{made['key_id']}/revoke").status_code == 200
        assert _post(client, f"/me/api-keys/{made['key_id']}/revoke").status_code == 404
    key = {"name": "heat pump", "key_id": made["key_id"]}
    [(first, data), second] = told(tokens["member_id"])
    assert (first, second) == ("api_key_made", ("api_key_revoked", key))
    assert data == key | {"expires_at": data["expires_at"]}
    assert made["api_key"].rpartition("_")[2] not in json.dumps(data)


def test_a_member_is_told_what_admins_decide_about_it_and_why(server, told):
    member = server.member()
    for what, body in (
        ("roles/give", {"role": "operator"}),
        ("roles/take", {"role": "operator"}),
        ("suspend", {}),
        ("reinstate", {}),
    ):
        answer = server.post(f"/members/{member.member_id}/{what}", {"reason": "the assembly said so.", **body})
        assert answer.status_code == 200, answer.text
    why = {"reason": "the assembly said so"}
    assert told(member.member_id) == [
        ("role_given", why | {"role": "operator"}),
        ("role_taken", why | {"role": "operator"}),
        ("suspended", why),
        ("reinstated", why),
    ]


def test_what_an_admin_did_not_do_is_not_told(server, told):
    member = server.member(Role.AUDITOR)
    for what, body in (
        ("roles/give", {"role": "auditor"}),
        ("roles/take", {"role": "operator"}),
        ("reinstate", {}),
    ):
        answer = server.post(f"/members/{member.member_id}/{what}", {"reason": "x", **body})
        assert answer.status_code == 409, answer.text
    assert told(member.member_id) == []


# --- how it is told ---------------------------------------------------------------------------------------------


def test_what_is_told_is_written_with_what_happened_or_not_at_all(engine, keys, community):
    member = community.member()
    with pytest.raises(RuntimeError), transaction(engine) as connection:
        sessions_service.open_session(connection, member, "test", LAPTOP, keys, NOON)
        raise RuntimeError
    assert community.rows("SELECT count(*) FROM outbox_jobs") == [(0,)]


def test_a_job_that_runs_twice_tells_once(engine, keys, community, told):
    member = community.member()
    opened(engine, keys, member)
    told(member)
    community.execute("UPDATE outbox_jobs SET state = 'waiting' WHERE kind = 'notification.tell'")
    assert _kinds(told(member)) == ["signed_in"]


def test_of_who_can_act_as_it_a_member_is_mailed_whatever_it_turned_off(community, settings, mail_server):
    address = an_address()
    member = community.member(email=address)
    free = [(group, channel) for group in GROUPS.values() for channel in group.channels - group.fixed]
    with transaction(community.engine) as connection:
        for group, channel in free:
            set_preference(connection, member, group, channel, False, community.now)
        notices.tell_wallet_linked(connection, member, "solana", "So1", community.now)
    community.tell()
    community.mail(mail_server_of(sending(settings, mail_server)))
    [letter] = mail_server.letters(address)
    assert letter["Subject"] == "Another wallet can sign in as you (test-community)"


def test_who_is_suspended_is_mailed_that_and_nothing_else(community, settings, mail_server):
    """It cannot sign in, so a mail is the one way to know why."""
    address = an_address()
    member = community.member(email=address)
    community.notify(member)
    community.execute("UPDATE members SET state = 'suspended' WHERE member_id = :member", member=member)
    with transaction(community.engine) as connection:
        notices.tell_standing(connection, member, "unpaid.", community.now, suspended=True)
    community.tell()
    community.notify(member)
    community.mail(mail_server_of(sending(settings, mail_server)))
    [letter] = mail_server.letters(address)
    assert letter["Subject"] == "Your account is suspended (test-community)"
    assert "The reason: unpaid. Your meters go on" in " ".join(letter.get_content().split())
    assert community.rows("SELECT kind, mail FROM notifications ORDER BY notification_id") == [
        ("meter.suspended", "dropped"),
        ("account.suspended", "sent"),
        ("meter.suspended", "dropped"),
    ]


def test_everything_about_the_account_that_is_not_mailed_by_auth_is_mailed_here():
    account = {name: kind.group for name, kind in KINDS.items() if name.startswith("account.")}
    silent = {name for name, group in account.items() if Channel.EMAIL not in group.fixed}
    assert silent == {"account.email_linked", "account.password_changed"}
    assert {name for name, kind in KINDS.items() if kind.to_suspended} == {"account.suspended"}
