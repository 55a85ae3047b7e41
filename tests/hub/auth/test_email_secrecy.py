"""A stranger learns of no address whether it has an account: not by answers, work, limits, errors, mails or logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import ProgrammingError

from hub import metrics
from hub.db import transaction
from tests.hub.auth.conftest import problem
from tests.hub.auth.mailing import BETTER, GOOD, somebody
from tests.hub.auth.signing_wallet import SigningWallet

OF_THE_MOMENT = {"x-request-id", "date"}


def told(answer: httpx.Response) -> tuple[int, dict[str, str], dict[str, object]]:
    """All that an answer tells, but what is new in every one."""
    headers = {name: value for name, value in answer.headers.items() if name not in OF_THE_MOMENT}
    body = answer.json()
    body.pop("request_id", None)
    return answer.status_code, headers, body


def hashes() -> dict[str, float]:
    """How many password hashes were worked out so far, by purpose."""
    return {
        sample.labels["purpose"]: sample.value
        for metric in metrics.PASSWORD_HASHES.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    asked: list[str] = []

    def note(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)


def work(engine: Engine, request: Callable[[], httpx.Response]) -> tuple[object, list[str], dict[str, float]]:
    """What a request is told, and what is done for it."""
    before = hashes()
    with statements(engine) as asked:
        answer = told(request())
    done = {purpose: count - before.get(purpose, 0) for purpose, count in hashes().items()}
    return answer, asked, {purpose: count for purpose, count in done.items() if count}


def test_a_registration_is_answered_with_the_same_words_and_work_whether_the_address_is_known_or_not(office):
    known, _ = office.member()
    office.server.engine.dispose()
    office.register(somebody())  # connections are there now
    _, asked, done = work(office.server.engine, lambda: office.register(somebody()))
    answer_known, asked_known, done_known = work(office.server.engine, lambda: office.register(known))
    answer_unknown, asked_unknown, done_unknown = work(office.server.engine, lambda: office.register(somebody()))
    assert answer_known[0] == answer_unknown[0] == 202
    assert answer_known[2] == answer_unknown[2] == {"accepted": True}
    assert answer_known[1].keys() == answer_unknown[1].keys()
    assert asked_known == asked_unknown == asked
    assert done_known == done_unknown == done == {"make": 1}


def test_a_forgotten_password_is_answered_with_the_same_words_and_work_for_every_address(office):
    known, _ = office.member()
    work(office.server.engine, lambda: office.ask("/auth/password/forgot", {"email": somebody()}))
    outcomes = [
        work(office.server.engine, lambda address=address: office.ask("/auth/password/forgot", {"email": address}))
        for address in (known, somebody())
    ]
    (of_known, asked_known, done_known), (of_unknown, asked_unknown, done_unknown) = outcomes
    assert (of_known[0], of_known[2]) == (of_unknown[0], of_unknown[2]) == (202, {"accepted": True})
    assert asked_known == asked_unknown != []
    assert done_known == done_unknown == {}


def test_a_refused_sign_in_is_the_same_in_words_and_work_for_a_wrong_password_and_for_nobody(office):
    known, _ = office.member()
    wallet = SigningWallet.new()  # a member who has no password at all is no different
    wallet.register(office.server.anonymous)
    work(office.server.engine, lambda: office.sign_in(somebody(), BETTER))
    outcomes = [
        work(office.server.engine, lambda address=address: office.sign_in(address, BETTER))
        for address in (known, somebody())
    ]
    (of_known, asked_known, done_known), (of_unknown, asked_unknown, done_unknown) = outcomes
    assert of_known[0] == of_unknown[0] == 401
    assert of_known[1].keys() == of_unknown[1].keys()
    assert of_known[2] == of_unknown[2]
    assert of_known[2]["code"] == "email_or_password_wrong"
    assert asked_known == asked_unknown != []
    assert done_known == done_unknown == {"verify": 1}


def test_a_member_learns_nothing_of_another_members_address_by_asking_to_use_it(office):
    known, _ = office.member()
    _, tokens = office.member()
    proof = {"kind": "password", "password": GOOD}

    def ask(address: str) -> httpx.Response:
        return office.as_member(tokens, "/me/email", {"email": address, "existing": proof})

    work(office.server.engine, lambda: ask(somebody()))
    outcomes = [work(office.server.engine, lambda address=address: ask(address)) for address in (known, somebody())]
    (of_known, asked_known, done_known), (of_unknown, asked_unknown, done_unknown) = outcomes
    assert (of_known[0], of_known[2]) == (of_unknown[0], of_unknown[2]) == (202, {"accepted": True})
    assert asked_known == asked_unknown != []
    assert done_known == done_unknown


@pytest.mark.parametrize("path", ["/auth/register", "/auth/password/forgot", "/auth/sign-in"])
def test_the_limits_of_an_address_count_alike_whether_it_is_known_or_not(office, path):
    known, _ = office.member()
    outcomes = []
    for address in (known, somebody()):
        body = {"email": address, "password": BETTER, "name": "Ada", "type": "consumer"}
        wanted = {"/auth/register": body.keys(), "/auth/password/forgot": {"email"}}.get(path, {"email", "password"})
        asked = {name: body[name] for name in wanted}
        codes = [office.ask(path, asked).json().get("code", "") for _ in range(11)]
        outcomes.append(codes[1:] if path == "/auth/register" else codes)  # the member has registered once already
    shorter = min(codes.index("rate_limited") for codes in outcomes)
    longer = max(codes.index("rate_limited") for codes in outcomes)
    assert longer - shorter <= 1


def test_the_mails_go_to_the_owner_of_the_address_and_to_nobody_else(office):
    known, _ = office.member()
    stranger = somebody()
    office.register(known, BETTER)
    office.ask("/auth/password/forgot", {"email": stranger})
    office.deliver()
    assert office.subjects(known)[-1] == "You are a member already"
    assert "#" not in office.post.letters(known)[-1].get_content()
    assert office.subjects(stranger) == []
    assert office.sign_in(known, GOOD).status_code == 200


def test_the_link_of_a_registration_ends_when_its_address_becomes_somebodys(office):
    """The mail was read, not answered; meanwhile the address was linked by a member who has its mailbox too."""
    address = somebody()
    office.register(address, BETTER)
    office.deliver()
    link = office.token(address)
    _, tokens = office.member()
    proof = {"kind": "password", "password": GOOD}
    assert office.as_member(tokens, "/me/email", {"email": address, "existing": proof}).status_code == 202
    office.deliver()
    assert office.as_member(tokens, "/me/email/verify", {"token": office.token(address)}).json() == {"email": address}
    problem(office.ask("/auth/verify", {"token": link, "password": BETTER}), 401, "mail_proof_invalid")


def test_neither_logs_nor_database_hold_a_token_or_a_password_and_logs_no_address(office, log_lines):
    ada, tokens = office.member()
    office.ask("/auth/password/forgot", {"email": ada})
    office.post.server.fail(refused=[ada])
    office.deliver()
    office.post.server.fail()
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    link = office.token(ada)
    dump = everything(office.server.engine)
    assert ada in dump  # it is looked for where it would be
    assert office.ask("/auth/password/reset", {"token": link, "password": BETTER}).status_code == 200
    dump += everything(office.server.engine)
    lines = json.dumps(log_lines())
    assert "job_given_up" in lines
    assert "/auth/password/reset" in lines
    for secret in (GOOD, BETTER, link, link[22:], tokens["refresh_token"]):
        assert secret not in dump
        assert secret not in lines
    assert ada not in lines


def test_a_database_that_fails_repeats_nothing_of_what_it_was_told(engine):
    """What went wrong is logged, and written into the outbox, as the fault says it."""
    with pytest.raises(ProgrammingError, match="nowhere") as failed, transaction(engine) as connection:
        connection.execute(text("SELECT CAST(:password AS text) FROM nowhere"), {"password": GOOD})
    assert GOOD not in str(failed.value)


def everything(engine: Engine) -> str:
    """All rows of all tables, as text."""
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        rows = (connection.execute(text(f'SELECT CAST(t AS text) FROM "{table}" AS t')) for table in tables.all())
        return "\n".join(row for found in rows for row in found.scalars())
