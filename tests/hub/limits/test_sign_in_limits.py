"""Guessing passwords over HTTP: slowed for strangers, the same for every address, and never at the member's cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hub.errors import RateLimited
from hub.limits import policies
from hub.limits.guard import Guard
from hub.settings import MEMBER_SECRET_BYTES, read_secret_bytes
from tests.hub.auth.mailing import BETTER, GOOD, Office, sending, somebody

WRONG = "not the password at all, sorry"


@pytest.fixture
def office(settings, engine, running_hub, mail_server):
    with running_hub(sending(settings, mail_server), engine) as server:
        yield Office(server, mail_server)


def _strangers_try(office, account):
    """From as many addresses as it takes until the account refuses them."""
    secret = read_secret_bytes(office.server.settings.member_secret_file, MEMBER_SECRET_BYTES)
    for number in range(policies.SIGN_IN_BY_ACCOUNT.quota + 1):
        address = f"203.0.113.{number}"
        guard = Guard(office.server.engine, secret, address, datetime.now(UTC), lambda verdict: None)
        try:
            guard.count_sign_in(account, None)
        except RateLimited:
            return
    raise AssertionError("they were never refused")


def _sign_in(office, address, password=GOOD, **more):
    return office.ask("/auth/sign-in", {"email": address, "password": password, **more})


def _what_is_told(answer):
    told = answer.json()
    told.pop("request_id")
    headers = {name: answer.headers.get(name) for name in ("RateLimit-Policy", "Content-Type", "WWW-Authenticate")}
    return answer.status_code, told["code"], told["title"], headers


def test_guessing_is_slowed_and_tells_nothing_about_who_has_an_account(office):
    member, _ = office.member()
    answers = {}
    for address in (member, somebody()):
        tries = policies.SIGN_IN_BY_ACCOUNT_AND_CLIENT.quota + 2
        answers[address] = [_sign_in(office, address, WRONG) for _ in range(tries)]
    of_member, of_nobody = ([_what_is_told(answer) for answer in each] for each in answers.values())
    assert of_member == of_nobody
    statuses = [answer.status_code for answer in answers[member]]
    assert statuses == [401] * policies.SIGN_IN_BY_ACCOUNT_AND_CLIENT.quota + [429, 429]
    refused = answers[member][-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 90
    assert '"sign-in-account-client";r=0' in refused.headers["RateLimit"]


def test_the_right_password_does_not_help_a_guesser_who_is_over_the_limit(office):
    member, _ = office.member()
    for _ in range(policies.SIGN_IN_BY_ACCOUNT_AND_CLIENT.quota):
        assert _sign_in(office, member, WRONG).status_code == 401
    assert _sign_in(office, member).status_code == 429


def test_what_strangers_try_keeps_no_client_out_that_was_signed_in_before(office):
    member, tokens = office.member()
    other, _ = office.member()
    before = office.sign_in(other).json()
    _strangers_try(office, member)
    assert _sign_in(office, member).status_code == 429
    assert _sign_in(office, member, known_session=before["session_id"]).status_code == 429, "a session of somebody else"
    assert _sign_in(office, member, known_session="00000000-0000-4000-8000-000000000000").status_code == 429
    assert _sign_in(office, member, known_session=tokens["session_id"]).status_code == 200
    refreshed = office.ask("/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 200, "what is open stays open"


def test_a_session_that_has_ended_still_tells_a_known_client(office):
    member, tokens = office.member()
    assert office.ask("/auth/sign-out", {"refresh_token": tokens["refresh_token"]}).status_code == 200
    _strangers_try(office, member)
    assert _sign_in(office, member, known_session=tokens["session_id"]).status_code == 200


def test_a_mailed_link_opens_the_account_to_its_owner_at_once(office):
    member, _ = office.member()
    _strangers_try(office, member)
    assert _sign_in(office, member).status_code == 429
    assert office.ask("/auth/password/forgot", {"email": member}).status_code == 202
    office.deliver()
    answer = office.ask("/auth/password/reset", {"token": office.token(member), "password": BETTER})
    assert answer.status_code == 200, answer.text
    assert _sign_in(office, member, BETTER).status_code == 200


def test_mails_to_one_address_are_few_whoever_asks(office):
    address = somebody()
    answers = [office.ask("/auth/password/forgot", {"email": address}).status_code for _ in range(7)]
    assert answers == [202] * policies.RESET_BY_ADDRESS.quota + [429] * (7 - policies.RESET_BY_ADDRESS.quota)
    assert office.ask("/auth/password/forgot", {"email": somebody()}).status_code == 202


@pytest.mark.parametrize("session", ["", "x", "00000000-0000-4000-8000-00000000000g", 7])
def test_a_known_session_is_an_id_or_left_out(office, session):
    answer = _sign_in(office, somebody(), known_session=session)
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_input")
