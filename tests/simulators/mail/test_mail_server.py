"""The simulated mail server is as strict as a real one, and as unpleasant as it is told to be. Spoken to by smtplib."""

from __future__ import annotations

import email.policy
import json
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.local.mail import MailSimulator
from simulators.cli import app
from simulators.mail.faults import Faults, FaultsInvalid, Switches, parse
from simulators.mail.mailbox import Mailbox, MailboxFull

SENDER = "hub@example.org"


@contextmanager
def connected(simulator: MailSimulator, tls: bool = True, password: str | None = None) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(simulator.host, simulator.port, timeout=10) as connection:
        if tls:
            connection.starttls(context=ssl.create_default_context(cafile=simulator.ca_file))
            connection.login(simulator.username, password or simulator.password_file.read_text())
        yield connection


def send(connection: smtplib.SMTP, *recipients: str, text: str = "Hello.") -> dict[str, tuple[int, bytes]]:
    return connection.sendmail(SENDER, recipients, f"Subject: one\r\n\r\n{text}\r\n")


def messages(simulator: MailSimulator) -> list[bytes]:
    return [file.read_bytes() for file in sorted(simulator.messages.glob("*.eml"))]


def test_a_message_is_kept_whole_with_its_envelope(mail_simulator):
    mail_simulator.fail()
    before = len(messages(mail_simulator))
    with connected(mail_simulator) as connection:
        send(connection, "ada@example.net", "bob@example.net", text="..and a dot\r\n.\r\nand more")
    [kept] = messages(mail_simulator)[before:]
    letter = email.message_from_bytes(kept, policy=email.policy.default)
    assert letter["Return-Path"] == f"<{SENDER}>"
    assert letter.get_all("Delivered-To") == ["ada@example.net", "bob@example.net"]
    assert "..and a dot\r\n.\r\nand more" in kept.decode()
    assert not list(mail_simulator.messages.glob("*.part"))


def test_without_encryption_or_password_nothing_is_taken(mail_simulator):
    mail_simulator.fail()
    before = len(messages(mail_simulator))
    with connected(mail_simulator, tls=False) as connection:
        connection.ehlo()
        assert not connection.has_extn("auth")
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            send(connection, "ada@example.net")
    with smtplib.SMTP(mail_simulator.host, mail_simulator.port) as connection:
        connection.starttls(context=ssl.create_default_context(cafile=mail_simulator.ca_file))
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            send(connection, "ada@example.net")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            connection.login(mail_simulator.username, "wrong")
    assert len(messages(mail_simulator)) == before


def test_a_message_that_is_too_large_is_not_taken(mail_simulator):
    mail_simulator.fail()
    with connected(mail_simulator) as connection:
        connection.ehlo()
        assert connection.esmtp_features["size"] == "1000000"
        connection.mail(SENDER)
        connection.rcpt("ada@example.net")
        assert connection.data("x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 15_000)[0] == 552


def test_faults_happen_as_often_as_they_are_told_to_and_then_no_more(mail_simulator):
    mail_simulator.fail(greylisted=1, refused=["Nobody@example.net"])
    with connected(mail_simulator) as connection:
        for recipient, codes in (("nobody@example.net", [550, 550]), ("cleo@example.net", [451, 250])):
            connection.mail(SENDER)
            assert [connection.rcpt(recipient)[0] for _ in codes] == codes
            connection.rset()
    mail_simulator.fail(drops={"message": 1})
    with pytest.raises(smtplib.SMTPServerDisconnected), connected(mail_simulator) as connection:
        send(connection, "ada@example.net")
    with connected(mail_simulator) as connection:
        assert send(connection, "ada@example.net") == {}


def test_a_server_that_is_killed_keeps_its_messages_and_comes_back_at_the_same_place(tmp_path):
    with MailSimulator(tmp_path) as simulator:
        with connected(simulator) as connection:
            send(connection, "ada@example.net", text="before")
            port = simulator.port
            simulator.kill()
        simulator.start()
        assert simulator.port == port
        with connected(simulator) as connection:
            send(connection, "ada@example.net", text="after")
        assert [kept.rpartition(b"\r\n\r\n")[2] for kept in messages(simulator)] == [b"before\r\n", b"after\r\n"]


def test_a_full_mailbox_takes_nothing_more(tmp_path):
    box = Mailbox(tmp_path, messages_max=1)
    box.add(SENDER, ["ada@example.net"], b"")
    for full in (box, Mailbox(tmp_path, messages_max=1)):
        with pytest.raises(MailboxFull):
            full.add(SENDER, ["ada@example.net"], b"")


def test_messages_sort_as_they_came_even_within_one_nanosecond(tmp_path):
    box = Mailbox(tmp_path, now_ns=lambda: 7)
    added = [box.add(SENDER, ["ada@example.net"], b"%d" % number) for number in range(12)]
    assert sorted(tmp_path.glob("*.eml")) == added


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"grey": 1}',
        '{"greylisted": true}',
        '{"greylisted": "1"}',
        '{"drops": {"lunch": 1}}',
        '{"drops": {"message": "1"}}',
        '{"refused": "ada"}',
    ],
)
def test_faults_that_are_misspelt_are_refused(text):
    with pytest.raises(FaultsInvalid):
        parse(text)


def test_counting_begins_anew_when_the_faults_change(tmp_path):
    switches = Switches(tmp_path)
    assert switches.now == Faults()
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"drops": {"greeting": 1}}))
    assert [switches.drops_at("greeting") for _ in range(2)] == [True, False]
    file.write_text(json.dumps({"drops": {"greeting": 2}}))
    assert [switches.drops_at("greeting") for _ in range(3)] == [True, True, False]
    file.unlink()
    assert not switches.drops_at("greeting")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--security", "starttls"], "--certificate-file"),
        (["--security", "none", "--username", "hub"], "--password-file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options, message):
    ran = CliRunner().invoke(app, ["mail", "--directory", str(tmp_path), *options])
    assert ran.exit_code == 2
    assert message in ran.output
