"""Another way in by e-mail, or another address: proven from both sides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import pytest

from hub.db import transaction
from tests.hub.auth.conftest import problem
from tests.hub.auth.mailing import BETTER, GOOD, Office, somebody
from tests.hub.auth.signing_wallet import SigningWallet

PROOF = {"kind": "password", "password": GOOD}


@contextlib.contextmanager
def as_wallet(office: Office, wallet: SigningWallet) -> Iterator[httpx.Client]:
    tokens = wallet.sign_in(office.server.anonymous).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    with httpx.Client(base_url=office.server.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def wallet(office) -> SigningWallet:
    """Of a member who has no address yet."""
    wallet = SigningWallet.new()
    assert wallet.register(office.server.anonymous).status_code == 201
    return wallet


def test_a_member_with_a_wallet_adds_an_address_and_a_password_and_signs_in_with_them(office, wallet):
    address = somebody()
    with as_wallet(office, wallet) as client:
        proof = wallet.proof(client, {"kind": "set_email", "email": address})
        body = {"email": address.upper(), "existing": proof, "new_password": GOOD}
        assert client.post("/me/email", json=body).json() == {"accepted": True}
        problem(office.sign_in(address), 401, "email_or_password_wrong")  # nothing is linked before the mail is read
        office.deliver()
        answer = client.post("/me/email/verify", json={"token": office.token(address)})
        assert answer.json() == {"email": address}
        me = client.get("/me").json()
    assert office.sign_in(address).json()["member_id"] == me["member_id"]


def test_the_wallet_confirms_the_very_address(office, wallet):
    with as_wallet(office, wallet) as client:
        proof = wallet.proof(client, {"kind": "set_email", "email": somebody()})
        body = {"email": somebody(), "existing": proof, "new_password": GOOD}
        problem(client.post("/me/email", json=body), 409, "challenge_unusable")


def test_a_first_address_needs_a_password_and_a_good_one_and_a_later_one_none(office, wallet):
    with as_wallet(office, wallet) as client:
        for password, status, code in ((None, 422, "malformed_input"), ("12345678", 422, "password_too_weak")):
            address = somebody()
            proof = wallet.proof(client, {"kind": "set_email", "email": address})
            body = {"email": address, "existing": proof} | ({"new_password": password} if password else {})
            problem(client.post("/me/email", json=body), status, code)
    _, tokens = office.member()
    body = {"email": somebody(), "existing": PROOF, "new_password": BETTER}
    problem(office.as_member(tokens, "/me/email", body), 422, "malformed_input")


def test_a_session_alone_does_not_change_the_address(office):
    _, tokens = office.member()
    wrong = {"kind": "password", "password": BETTER}
    problem(office.as_member(tokens, "/me/email", {"email": somebody(), "existing": wrong}), 401, "proof_refused")
    problem(office.as_member(tokens, "/me/email", {"email": somebody()}), 422, "malformed_input")


def test_another_address_takes_the_place_of_the_first_which_is_told(office):
    old, tokens = office.member()
    elsewhere = office.sign_in(old).json()
    new = somebody()
    assert office.as_member(tokens, "/me/email", {"email": new, "existing": PROOF}).status_code == 202
    office.deliver()
    assert office.as_member(tokens, "/me/email/verify", {"token": office.token(new)}).json() == {"email": new}
    office.deliver()
    assert office.subjects(old)[-1] == "Your e-mail address was changed"
    assert new not in office.post.letters(old)[-1].as_string()
    problem(office.sign_in(old), 401, "email_or_password_wrong")
    assert office.sign_in(new).json()["member_id"] == tokens["member_id"]
    problem(office.ask("/auth/refresh", {"refresh_token": elsewhere["refresh_token"]}), 401, "refresh_token_invalid")
    assert office.ask("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 200


def test_a_link_for_another_password_that_lies_in_the_old_mailbox_ends_with_the_address(office):
    old, tokens = office.member()
    office.ask("/auth/password/forgot", {"email": old})
    office.deliver()
    link = office.token(old)
    new = somebody()
    office.as_member(tokens, "/me/email", {"email": new, "existing": PROOF})
    office.deliver()
    office.as_member(tokens, "/me/email/verify", {"token": office.token(new)})
    problem(office.ask("/auth/password/reset", {"token": link, "password": BETTER}), 401, "mail_proof_invalid")


def test_a_change_of_address_that_a_thief_asked_for_ends_when_the_member_chooses_another_password(office):
    ada, tokens = office.member()
    thiefs = somebody()
    office.as_member(tokens, "/me/email", {"email": thiefs, "existing": PROOF})
    office.deliver()
    code = office.token(thiefs)
    assert office.as_member(tokens, "/me/password", {"current": GOOD, "new": BETTER}).status_code == 200
    problem(office.as_member(tokens, "/me/email/verify", {"token": code}), 401, "mail_proof_invalid")
    assert office.sign_in(ada, BETTER).status_code == 200


def test_a_change_of_address_that_a_finder_asked_for_ends_when_the_lost_wallet_is_unlinked(office, wallet):
    lost, address = SigningWallet.new(), somebody()
    with as_wallet(office, wallet) as client:
        assert wallet.link(client, lost).status_code == 201
        with as_wallet(office, lost) as finder:
            proof = lost.proof(finder, {"kind": "set_email", "email": address})
            body = {"email": address, "existing": proof, "new_password": GOOD}
            assert finder.post("/me/email", json=body).status_code == 202
        office.deliver()
        assert wallet.unlink(client, lost).status_code == 200
        # also where he finds a session of the member open afterwards
        problem(client.post("/me/email/verify", json={"token": office.token(address)}), 401, "mail_proof_invalid")


def test_a_code_is_good_only_for_the_member_who_asked_for_it(office):
    """Somebody has the code read out to him, or the reader of the mail is signed in as somebody else."""
    _, tokens = office.member()
    _, others = office.member()
    address = somebody()
    office.as_member(tokens, "/me/email", {"email": address, "existing": PROOF})
    office.deliver()
    code = office.token(address)
    problem(office.as_member(others, "/me/email/verify", {"token": code}), 401, "mail_proof_invalid")
    problem(office.ask("/me/email/verify", {"token": code}), 401, "unauthorized")
    assert office.as_member(tokens, "/me/email/verify", {"token": code}).status_code == 200
    problem(office.as_member(tokens, "/me/email/verify", {"token": code}), 401, "mail_proof_invalid")


def test_who_asks_for_an_address_that_is_taken_is_told_nothing_and_its_owner_is(office):
    ada, _ = office.member()
    _, tokens = office.member()
    assert office.as_member(tokens, "/me/email", {"email": ada, "existing": PROOF}).json() == {"accepted": True}
    office.deliver()
    assert office.subjects(ada)[-1] == "Somebody tried to use your e-mail address"


def test_what_changes_a_members_way_in_is_in_the_audit_log_without_the_address(office):
    old, tokens = office.member()
    new = somebody()
    office.as_member(tokens, "/me/email", {"email": new, "existing": PROOF})
    office.deliver()
    office.as_member(tokens, "/me/email/verify", {"token": office.token(new)})
    office.as_member(tokens, "/me/password", {"current": GOOD, "new": BETTER})
    office.ask("/auth/password/forgot", {"email": new})
    office.deliver()
    office.ask("/auth/password/reset", {"token": office.token(new), "password": GOOD})
    with transaction(office.server.engine) as connection:
        rows = connection.exec_driver_sql(
            "SELECT action, detail::text FROM audit_log WHERE subject = %s ORDER BY audit_id",
            (f"member:{tokens['member_id']}",),
        ).all()
    acts = [row.action for row in rows if not row.action.startswith("session.")]
    assert acts == [
        "member.create",
        "member.link",
        "member.unlink",
        "member.link",
        "member.change_password",
        "member.reset_password",
    ]
    assert not any(address in row.detail for row in rows for address in (old, new))
