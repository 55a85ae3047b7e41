"""From an address to a member and back in: over HTTP, with a real mail server between the hub and the reader."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import httpx
import pytest

from hub.auth.forgetting import forget_mails_once
from hub.limits import policies
from hub.limits.guard import Guard
from hub.settings import MEMBER_SECRET_BYTES, read_secret_bytes
from tests.hub.auth.conftest import problem
from tests.hub.auth.mailing import BETTER, GOOD, Office, sending, somebody


def test_somebody_registers_reads_the_mail_and_signs_in(office):
    ada = somebody()
    assert office.register(ada.upper()).json() == {"accepted": True}
    office.deliver()
    [letter] = office.post.letters(ada)
    assert "http://127.0.0.1:8800/auth/verify#" in letter.get_content()
    first = office.ask("/auth/verify", {"token": office.token(ada), "password": GOOD}).json()
    again = office.sign_in(ada.title()).json()
    assert again["member_id"] == first["member_id"]
    assert again["session_id"] != first["session_id"]
    me = office.server.anonymous.get("/me", headers={"Authorization": f"Bearer {again['access_token']}"})
    assert (me.status_code, me.json()["type"]) == (200, "prosumer")


def test_whoever_forgets_the_password_chooses_another_and_is_signed_out_everywhere(office):
    ada, tokens = office.member()
    assert office.ask("/auth/password/forgot", {"email": ada}).json() == {"accepted": True}
    office.deliver()
    assert "/auth/reset#" in office.post.letters(ada)[-1].get_content()
    answer = office.ask("/auth/password/reset", {"token": office.token(ada), "password": BETTER})
    assert answer.json() == {"ended_sessions": 1}
    problem(office.ask("/auth/refresh", {"refresh_token": tokens["refresh_token"]}), 401, "refresh_token_invalid")
    problem(office.as_member(tokens, "/me/password", {"current": GOOD, "new": BETTER}), 401, "unauthorized")
    problem(office.sign_in(ada, GOOD), 401, "email_or_password_wrong")
    assert office.sign_in(ada, BETTER).status_code == 200
    office.deliver()
    assert office.subjects(ada)[-1] == "Your password was changed"


def test_a_member_who_changes_the_password_stays_signed_in_here_and_nowhere_else(office):
    ada, here = office.member()
    elsewhere = office.sign_in(ada).json()
    problem(office.as_member(here, "/me/password", {"current": BETTER, "new": BETTER}), 401, "proof_refused")
    assert office.as_member(here, "/me/password", {"current": GOOD, "new": BETTER}).json() == {"ended_sessions": 1}
    problem(office.ask("/auth/refresh", {"refresh_token": elsewhere["refresh_token"]}), 401, "refresh_token_invalid")
    assert office.ask("/auth/refresh", {"refresh_token": here["refresh_token"]}).status_code == 200
    assert office.sign_in(ada, BETTER).status_code == 200


def test_a_mailed_link_is_good_once(office):
    ada = somebody()
    office.register(ada)
    office.deliver()
    body = {"token": office.token(ada), "password": GOOD}
    assert office.ask("/auth/verify", body).status_code == 201
    problem(office.ask("/auth/verify", body), 401, "mail_proof_invalid")
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    body = {"token": office.token(ada), "password": BETTER}
    assert office.ask("/auth/password/reset", body).status_code == 200
    problem(office.ask("/auth/password/reset", body), 401, "mail_proof_invalid")


def test_a_link_for_one_thing_is_good_for_no_other(office):
    ada, _ = office.member()
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    token = office.token(ada)
    problem(office.ask("/auth/verify", {"token": token, "password": GOOD}), 401, "mail_proof_invalid")
    assert office.ask("/auth/password/reset", {"token": token, "password": BETTER}).status_code == 200


def test_a_link_with_one_letter_changed_is_good_for_nothing(office):
    ada = somebody()
    office.register(ada)
    office.deliver()
    token = office.token(ada)
    for position in (0, 20, 21, 22, 40, 63):
        other = "A" if token[position] != "A" else "B"
        changed = token[:position] + other + token[position + 1 :]
        problem(office.ask("/auth/verify", {"token": changed, "password": GOOD}), 401, "mail_proof_invalid")
    assert office.ask("/auth/verify", {"token": token, "password": GOOD}).status_code == 201


def test_of_two_clicks_at_once_one_makes_a_member(office):
    ada = somebody()
    office.register(ada)
    office.deliver()
    token, together = office.token(ada), threading.Barrier(4)

    def click(_: int) -> int:
        together.wait()
        return office.ask("/auth/verify", {"token": token, "password": GOOD}).status_code

    with ThreadPoolExecutor(4) as people:
        assert sorted(people.map(click, range(4))) == [201, 401, 401, 401]


def test_of_two_registrations_of_one_address_confirmed_at_once_one_makes_a_member(office):
    ada, tokens = somebody(), []
    for password in (GOOD, BETTER):
        office.register(ada, password)
        office.deliver()
        tokens.append((office.token(ada), password))
    together = threading.Barrier(2)

    def click(proof: tuple[str, str]) -> int:
        together.wait()
        return office.ask("/auth/verify", {"token": proof[0], "password": proof[1]}).status_code

    with ThreadPoolExecutor(2) as people:
        assert sorted(people.map(click, tokens)) == [201, 401]
    assert sorted(office.sign_in(ada, password).status_code for password in (GOOD, BETTER)) == [200, 401]


def test_every_open_registration_is_good_with_its_own_password_and_the_others_end_with_the_first(office):
    """So nobody keeps somebody from registering by registering the address again and again."""
    ada = somebody()
    office.register(ada, GOOD)
    office.deliver()
    hers = office.token(ada)
    office.register(ada, BETTER, name="Mallory")
    office.deliver()
    strangers = office.token(ada)
    problem(office.ask("/auth/verify", {"token": strangers, "password": GOOD}), 401, "registration_password_wrong")
    assert office.ask("/auth/verify", {"token": hers, "password": GOOD}).status_code == 201
    problem(office.ask("/auth/verify", {"token": strangers, "password": BETTER}), 401, "mail_proof_invalid")
    problem(office.sign_in(ada, BETTER), 401, "email_or_password_wrong")


def test_a_careless_click_gives_nobody_an_account_with_somebody_elses_address(office):
    """A stranger has registered the address; its owner opens the link and types whatever comes to mind."""
    ada = somebody()
    office.register(ada, password=BETTER, name="Mallory")
    office.deliver()
    body = {"token": office.token(ada), "password": GOOD}
    for _ in range(10):
        problem(office.ask("/auth/verify", body), 401, "registration_password_wrong")
    problem(office.ask("/auth/verify", body), 401, "mail_proof_invalid")
    problem(office.ask("/auth/verify", {**body, "password": BETTER}), 401, "mail_proof_invalid")
    problem(office.sign_in(ada, BETTER), 401, "email_or_password_wrong")


def test_no_word_that_a_stranger_chose_is_mailed_to_an_address(office):
    ada = somebody()
    office.register(ada, name="You have won: http://evil.example")
    office.deliver()
    [letter] = office.post.letters(ada)
    assert "evil" not in letter.as_string()


@pytest.mark.parametrize(("asked", "life"), [("/auth/register", 24), ("/auth/password/forgot", 1)])
def test_a_link_that_is_too_old_is_good_for_nothing(office, running_hub, asked, life):
    """The database is made to believe that it was asked for so many hours ago."""
    ada = somebody() if asked == "/auth/register" else office.member()[0]
    body = {"email": ada, "password": GOOD, "name": "Ada", "type": "consumer"}
    office.ask(asked, body if asked == "/auth/register" else {"email": ada})
    office.deliver()
    with office.server.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE mail_proofs SET created_at = created_at - %(age)s, expires_at = expires_at - %(age)s",
            {"age": timedelta(hours=life)},
        )
    path = "/auth/verify" if asked == "/auth/register" else "/auth/password/reset"
    problem(office.ask(path, {"token": office.token(ada), "password": GOOD}), 401, "mail_proof_invalid")


def test_another_link_for_another_password_leaves_the_first_one_good_until_one_is_used(office):
    ada, _ = office.member()
    tokens = []
    for _ in range(2):
        office.ask("/auth/password/forgot", {"email": ada})
        office.deliver()
        tokens.append(office.token(ada))
    assert office.ask("/auth/password/reset", {"token": tokens[0], "password": BETTER}).status_code == 200
    problem(office.ask("/auth/password/reset", {"token": tokens[1], "password": GOOD}), 401, "mail_proof_invalid")


def test_a_link_for_another_password_ends_when_the_password_is_changed(office):
    ada, tokens = office.member()
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    link = office.token(ada)
    assert office.as_member(tokens, "/me/password", {"current": GOOD, "new": BETTER}).status_code == 200
    problem(office.ask("/auth/password/reset", {"token": link, "password": GOOD}), 401, "mail_proof_invalid")


def test_a_weak_password_is_refused_with_a_reason_and_leaves_the_link_good(office):
    ada, _ = office.member()
    refused = problem(office.register(somebody(), "password1"), 422, "password_too_weak")
    assert "common" in refused.json()["detail"]
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    token = office.token(ada)
    for weak in ("short", "ada-ada-ada", "qwertyuiop", ada):
        problem(office.ask("/auth/password/reset", {"token": token, "password": weak}), 422, "password_too_weak")
    assert office.ask("/auth/password/reset", {"token": token, "password": BETTER}).status_code == 200


def test_a_suspended_member_learns_it_with_the_password_and_a_stranger_does_not(office):
    ada, tokens = office.member()
    answer = office.server.post(f"/members/{tokens['member_id']}/suspend", {"reason": "a test"})
    assert answer.status_code == 200, answer.text
    problem(office.sign_in(ada, BETTER), 401, "email_or_password_wrong")
    problem(office.sign_in(ada, GOOD), 403, "member_suspended")


def test_a_hub_without_a_mail_server_says_so_where_mail_is_needed(server):
    body = {"email": "ada@example.org", "password": GOOD, "name": "Ada", "type": "consumer"}
    problem(server.anonymous.post("/auth/register", json=body), 503, "mail_not_configured")
    problem(server.anonymous.post("/auth/password/forgot", json={"email": "a@example.org"}), 503, "mail_not_configured")
    body = {"email": "ada@example.org", "password": GOOD}
    problem(server.anonymous.post("/auth/sign-in", json=body), 401, "email_or_password_wrong")


def test_a_malformed_registration_is_refused_without_repeating_it(office):
    good = {"email": "ada@example.org", "password": GOOD, "name": "Ada", "type": "consumer"}
    for change in (
        {"email": "ada@example.org\r\nBcc: everybody@example.org"},
        {"email": "Ada <ada@example.org>"},
        {"email": "ada@localhost"},
        {"email": "x" * 65 + "@example.org"},
        {"email": 7},
        {"type": "admin"},
        {"type": "operator"},
        {"name": ""},
        {"name": "Ada\nLovelace"},
        {"password": "tab\tstop and more"},
        {"password": "\ud800 lone half of a letter"},
        {"password": "x" * 513},
        {"roles": ["admin"]},
    ):
        refused = problem(office.ask("/auth/register", good | change), 422, "malformed_input")
        assert GOOD not in refused.text
        assert "lone half" not in refused.text


def test_nobody_keeps_somebody_out_by_registering_his_address_again_and_again(
    settings, engine, running_hub, mail_server
):
    """From one network, however often; his own tries are counted apart."""
    behind_a_proxy = settings.model_copy(update={"trusted_proxies": [ip_network("127.0.0.1/32")]})
    with running_hub(sending(behind_a_proxy, mail_server), engine) as server:
        office, ada = Office(server, mail_server), somebody()
        body = {"email": ada, "password": GOOD, "name": "Ada", "type": "prosumer"}

        def register(client: str) -> httpx.Response:
            return office.ask("/auth/register", body, **{"X-Forwarded-For": client})

        strangers = [register("192.0.2.66").status_code for _ in range(8)]
        assert strangers == [202] * 5 + [429] * 3
        assert register("198.51.100.7").status_code == 202
        office.deliver()
        assert office.ask("/auth/verify", {"token": office.token(ada), "password": GOOD}).status_code == 201
        # and however many help each other, a mailbox gets so many mails at most
        many = [register(f"203.0.113.{number}").status_code for number in range(20)]
        assert many == [202] * 14 + [429] * 6


def test_what_strangers_tried_at_a_password_does_not_delay_who_has_chosen_another(office):
    ada, _ = office.member()
    settings = office.server.settings
    secret = read_secret_bytes(settings.member_secret_file, MEMBER_SECRET_BYTES)
    for network in range(policies.SIGN_IN_BY_ACCOUNT.quota):
        client = f"198.51.{network}.7"
        Guard(office.server.engine, secret, client, datetime.now(UTC), lambda verdict: None).count_sign_in(ada, None)
    problem(office.sign_in(ada), 429, "rate_limited")
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    assert office.ask("/auth/password/reset", {"token": office.token(ada), "password": BETTER}).status_code == 200
    assert office.sign_in(ada, BETTER).status_code == 200


def test_what_an_unanswered_registration_said_of_somebody_is_forgotten_with_its_link(office):
    office.register(somebody())
    office.member()
    now = datetime.now(UTC)
    assert forget_mails_once(office.server.engine, now) == 0
    with office.server.engine.connect() as connection:
        details = connection.exec_driver_sql("SELECT detail FROM mail_proofs ORDER BY created_at").scalars().all()
    assert [sorted(detail) for detail in details] == [["name", "password_hash", "type"], []]
    assert forget_mails_once(office.server.engine, now + timedelta(hours=25)) == 2
