"""Handing in mail, to a real server that is in order, is not, or is somebody else's."""

from __future__ import annotations

import datetime
import socket
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from hub.errors import SettingsInvalid
from hub.integrations.mail import Mail, MailAway, MailRefused, MailServer, mail_server_of
from infra.local.mail import SENDER, MailSimulator
from infra.mosquitto.certificate import as_authority, as_end_entity, common_name, unsigned_certificate
from tests.conftest import Post
from tests.hub.auth.mailing import sending, somebody


def mail_to(address: str, text: str = "Good evening.\n") -> Mail:
    return Mail(address, "Good evening", text, "<one@commonwatt.example>")


def server_of(simulator: MailSimulator, **changes: object) -> MailServer:
    values: dict[str, object] = {
        "host": simulator.host,
        "port": simulator.port,
        "security": simulator.security,
        "sender": SENDER,
        "username": simulator.username,
        "password": simulator.password_file.read_text(),
        "ca_file": simulator.ca_file,
    }
    return MailServer(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_arrives_as_it_was_written(tmp_path, security):
    text = "Dear Zoë,\n\nthis line is kept as it is, however long: " + "wind and sun " * 90 + "\n.\n-- \nthe hub\n"
    with MailSimulator(tmp_path, security) as simulator:
        ada = somebody()
        server_of(simulator).send(Mail(ada, "Grüße (community)", text, "<two@commonwatt.example>"))
        [letter] = Post(simulator).letters(ada)
    assert letter.get_content().replace("\r\n", "\n") == text
    assert (letter["Subject"], letter["Message-ID"]) == ("Grüße (community)", "<two@commonwatt.example>")
    assert (letter["From"], letter["To"], letter["Return-Path"]) == (SENDER, ada, "<hub@commonwatt.example>")
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter.get_content_type() == "text/plain"
    assert letter["Date"].datetime.tzinfo is not None


def test_what_a_settings_file_names_is_used(settings, mail_server):
    server = mail_server_of(sending(settings, mail_server))
    assert server is not None
    ada = somebody()
    server.send(mail_to(ada))
    assert len(mail_server.letters(ada)) == 1
    assert mail_server_of(settings) is None


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        ({"refused": ["nobody@example.org"]}, MailRefused, "recipient: 550 5.1.1"),
        ({"greylisted": 1}, MailAway, "recipient: 451 4.7.1"),
        ({"full": True}, MailAway, "message: 452 4.3.1"),
        ({"drops": {"greeting": 1}}, MailAway, "greeting: SMTPServerDisconnected"),
        ({"drops": {"sender": 1}}, MailAway, "mail: SMTPServerDisconnected"),
        ({"drops": {"recipient": 1}}, MailAway, "mail: SMTPServerDisconnected"),
        ({"drops": {"message": 1}}, MailAway, "mail: SMTPServerDisconnected"),
        ({"lost_answers": 1}, MailAway, "mail: SMTPServerDisconnected"),
    ],
)
def test_a_refusal_says_whether_it_is_for_good_and_names_no_address(mail_server, faults, error, message):
    mail_server.server.fail(**faults)
    with pytest.raises(error) as fault:
        server_of(mail_server.server).send(mail_to("nobody@example.org"))
    assert str(fault.value) == message


def test_a_message_that_is_too_large_is_refused_for_good(mail_server):
    with pytest.raises(MailRefused, match="message: 552"):
        server_of(mail_server.server).send(mail_to(somebody(), "much too long\n" * 100_000))


def test_our_own_wrong_password_keeps_mails_waiting_instead_of_losing_them(mail_server):
    with pytest.raises(MailAway, match=r"AUTH: 535 5\.7\.8"):
        server_of(mail_server.server, password="wrong").send(mail_to(somebody()))  # noqa: S106


def test_a_server_that_nobody_vouches_for_gets_neither_password_nor_mail(mail_server):
    with pytest.raises(MailAway, match="STARTTLS: SSLCertVerificationError"):
        server_of(mail_server.server, ca_file=None).send(mail_to(somebody()))


def test_a_server_with_somebody_elses_name_gets_neither_password_nor_mail(tmp_path):
    """Its certificate is good, and for another host."""
    simulator = MailSimulator(tmp_path)
    certify(simulator, "mail.elsewhere.example")
    with simulator, pytest.raises(MailAway, match="STARTTLS: SSLCertVerificationError"):
        server_of(simulator).send(mail_to(somebody()))


def test_a_server_that_is_not_there_is_away():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MailAway, match="connect: ConnectionRefusedError"):
        MailServer("127.0.0.1", port, "none", SENDER).send(mail_to(somebody()))


class Talker:
    """Somebody on a port who says what a test wants, whatever he hears."""

    def __init__(self, *said: bytes) -> None:
        self._said = said
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> Talker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _talk(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            for line in self._said:
                connection.sendall(line)
                self.heard += connection.recv(4_096)
            while more := connection.recv(4_096):  # silent from now on, until the other side has had enough
                self.heard += more


def test_a_server_without_tls_gets_neither_password_nor_mail(tmp_path):
    with Talker(b"220 hello\r\n", b"250-hello\r\n250 AUTH PLAIN\r\n") as talker:
        server = MailServer("127.0.0.1", talker.port, "starttls", SENDER, "hub", "secret-of-the-hub")
        with pytest.raises(MailAway, match="STARTTLS: SMTPNotSupportedError"):
            server.send(mail_to("ada@example.org"))
    assert b"AUTH" not in talker.heard
    assert b"ada" not in talker.heard


def test_a_server_that_stays_silent_is_left_after_a_while():
    with Talker(b"220 hello\r\n") as talker:
        server = MailServer("127.0.0.1", talker.port, "none", SENDER, step_timeout_s=0.1)
        with pytest.raises(MailAway, match="greeting: "):
            server.send(mail_to("ada@example.org"))


def test_a_server_that_never_comes_to_the_point_is_left_after_a_while():
    """It says something at every step in time, and never the end of its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = threading.Event()

        def drone() -> None:
            connection, _ = listener.accept()
            with connection:
                while not gone.is_set():
                    try:
                        connection.sendall(b"220-and another thing\r\n")
                    except OSError:
                        return
                    gone.wait(0.02)

        thread = threading.Thread(target=drone)
        thread.start()
        server = MailServer("127.0.0.1", listener.getsockname()[1], "none", SENDER, session_timeout_s=0.3)
        with pytest.raises(MailAway, match="greeting: "):
            server.send(mail_to("ada@example.org"))
        gone.set()
        thread.join()


def test_without_encryption_mail_goes_to_this_machine_only():
    MailServer("127.0.0.1", 25, "none", SENDER)
    MailServer("::1", 25, "none", SENDER)
    MailServer("localhost", 25, "none", SENDER)
    for host in ("mail.example.org", "192.0.2.1", "127.0.0.1.example.org"):
        with pytest.raises(SettingsInvalid, match="smtp_security none"):
            MailServer(host, 25, "none", SENDER)


@pytest.mark.parametrize("sender", ["", "hub", "hub@", "a@example.org, b@example.org", "hub@example.org\nBcc: x@y.org"])
def test_a_sender_is_one_address(sender):
    with pytest.raises(SettingsInvalid, match="mail_from"):
        MailServer("127.0.0.1", 25, "none", sender)


def test_an_authority_that_is_not_there_is_found_at_the_start(tmp_path):
    with pytest.raises(SettingsInvalid, match="smtp_ca_file"):
        MailServer("mail.example.org", 587, "starttls", SENDER, ca_file=tmp_path / "none.pem")


def certify(simulator: MailSimulator, host: str) -> None:
    """Give the simulator a certificate of its own authority for that host, before it starts."""
    now, year = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=365)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority, name = common_name("An authority"), common_name(host)
    ca = as_authority(unsigned_certificate(authority, authority, ca_key.public_key(), now, year))
    end = as_end_entity(
        unsigned_certificate(name, authority, key.public_key(), now, year),
        ExtendedKeyUsageOID.SERVER_AUTH,
        ca_key.public_key(),
    ).add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    folder = simulator.ca_file.parent
    folder.mkdir(parents=True)
    pem = serialization.Encoding.PEM
    simulator.ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.crt").write_bytes(end.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
