"""Mails leave in the end and once, or say why not: whatever the mail server or the worker does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from hub.auth.jobs import auth_mail_handlers
from hub.auth.mail_proofs import SEND_MAIL
from hub.db import transaction
from hub.integrations.mail import mail_server_of
from hub.outbox.jobs import LEASE
from hub.outbox.store import lease_due_job
from hub.settings import MEMBER_SECRET_BYTES, read_secret_bytes
from tests.hub.auth.mailing import BETTER, GOOD, Office, somebody


def jobs(office: Office) -> list[tuple[str, str | None]]:
    """State and last error of every mail, in the order in which they were asked for."""
    with transaction(office.server.engine) as connection:
        rows = connection.execute(
            text("SELECT state, last_error FROM outbox_jobs WHERE kind = :kind ORDER BY job_id"), {"kind": SEND_MAIL}
        )
        return [(row.state, row.last_error) for row in rows]


def test_the_outbox_knows_neither_address_nor_token(office):
    office.register(somebody())
    with transaction(office.server.engine) as connection:
        [job] = connection.execute(text("SELECT subject, payload FROM outbox_jobs")).all()
        [proof] = connection.execute(text("SELECT proof_id FROM mail_proofs")).all()
    assert (job.subject, job.payload) == (str(proof.proof_id), {})


def test_a_greylisted_mail_is_sent_again_and_comes(office):
    ada = somebody()
    office.post.server.fail(greylisted=2)
    office.register(ada)
    office.deliver()
    assert jobs(office) == [("waiting", "MailAway: recipient: 451 4.7.1")]
    office.at(timedelta(seconds=5)).deliver()
    assert office.post.letters(ada) == []
    office.at(timedelta(seconds=10)).deliver()
    assert jobs(office) == [("done", None)]
    assert office.ask("/auth/verify", {"token": office.token(ada), "password": GOOD}).status_code == 201


@pytest.mark.parametrize("step", ["greeting", "sender", "recipient", "message"])
def test_a_mail_whose_connection_is_cut_is_sent_again(office, step):
    ada = somebody()
    office.post.server.fail(drops={step: 1})
    office.register(ada)
    office.deliver()
    assert [state for state, _ in jobs(office)] == ["waiting"]
    office.at(timedelta(seconds=5)).deliver()
    assert office.subjects(ada) == ["Confirm your e-mail address"]


def test_a_refused_mail_is_given_up_with_the_servers_number_and_without_the_address(office):
    ada = somebody()
    office.post.server.fail(refused=[ada])
    office.register(ada)
    office.deliver()
    assert jobs(office) == [("given_up", "refused for good: recipient: 550 5.1.1")]


def test_a_mail_whose_answer_is_lost_comes_twice_and_is_recognised_as_the_same(office):
    ada = somebody()
    office.post.server.fail(lost_answers=1)
    office.register(ada)
    office.deliver()
    office.at(timedelta(seconds=5)).deliver()
    first, second = office.post.letters(ada)
    assert first["Message-ID"] == second["Message-ID"]
    assert first.get_content() == second.get_content()
    assert jobs(office) == [("done", None)]


def test_a_worker_that_dies_after_sending_leaves_the_same_mail_to_the_next(office):
    ada = somebody()
    office.register(ada)
    handlers = auth_mail_handlers(
        office.server.engine,
        mail_server_of(office.server.settings),
        read_secret_bytes(office.server.settings.member_secret_file, MEMBER_SECRET_BYTES),
        office.server.settings.community_id,
        office.server.settings.public_url,
    )
    now = datetime.now(UTC)
    with transaction(office.server.engine) as connection:
        job = lease_due_job(connection, handlers.keys(), now, now + LEASE)
    assert job is not None
    handlers[job.kind](job, now)  # and here the worker dies
    assert office.deliver() == 0
    assert office.at(LEASE + timedelta(seconds=5)).deliver() == 1
    first, second = office.post.letters(ada)
    assert (first["Message-ID"], first.get_content()) == (second["Message-ID"], second.get_content())
    assert office.ask("/auth/verify", {"token": office.token(ada), "password": GOOD}).status_code == 201


def test_a_mail_that_would_come_too_late_is_not_sent(office):
    ada = somebody()
    office.register(ada)
    office.at(timedelta(hours=25)).deliver()
    assert jobs(office) == [("given_up", "too late: what the mail would prove has expired")]
    assert office.post.letters(ada) == []


def test_a_link_that_was_used_meanwhile_is_not_mailed_again(office):
    """The first copy came, although its answer was lost."""
    ada = somebody()
    office.post.server.fail(lost_answers=1)
    office.register(ada)
    office.deliver()
    assert office.ask("/auth/verify", {"token": office.token(ada), "password": GOOD}).status_code == 201
    office.at(timedelta(seconds=5)).deliver()
    assert len(office.post.letters(ada)) == 1
    assert jobs(office) == [("done", None)]


def test_what_a_mail_says_is_decided_when_it_leaves(office):
    """Two registrations wait for a mail server; when the second mail leaves, the address has an account."""
    ada = somebody()
    office.register(ada)
    office.deliver()
    office.register(ada, BETTER)
    assert office.ask("/auth/verify", {"token": office.token(ada), "password": GOOD}).status_code == 201
    office.deliver()
    assert len(office.post.letters(ada)) == 1  # the second registration ended with the first
    office.register(ada, BETTER)
    office.deliver()
    assert office.subjects(ada)[-1] == "You are a member already"


def test_a_hub_that_no_longer_sends_mail_gives_up_what_waits(office):
    office.register(somebody())
    handlers = auth_mail_handlers(office.server.engine, None, bytes(32), "test-community", "http://127.0.0.1:8800")
    from hub.outbox.jobs import run_jobs_once

    run_jobs_once(office.server.engine, handlers, lambda: datetime.now(UTC))
    assert jobs(office) == [("given_up", "this hub sends no mail")]
