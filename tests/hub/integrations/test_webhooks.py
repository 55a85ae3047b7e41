"""One try at a receiver, whatever the receiver, its name or its certificate does."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from hub.integrations.webhooks import Outcome, WebhookPost
from infra.local.certificates import CA_FILE, KEY_FILE, SERVER_FILE
from infra.mosquitto.certificate import as_authority, as_end_entity, common_name, unsigned_certificate
from tests.hub.receiving import running_receiver

LOOPBACK = [ip_network("127.0.0.0/8")]
NAME = "receiver.example.org"
"""A name that no resolver knows: who reaches it was told the address."""
QUICK_S = 0.5
"""For receivers that never answer."""


class Resolver:
    """Answers with these addresses, one list a time and then the last, and counts."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port):
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [ip_address(each) for each in answer]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_receiver(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture
def receiver(running):
    running.fail(status=204)  # whatever it thinks of the signature: there is none
    (running.directory / "received.jsonl").unlink(missing_ok=True)
    return running


def _send(url, timeout_s=10.0, resolve=None, networks=LOOPBACK, tls=None, body=b"{}"):
    post = WebhookPost(networks, resolve or Resolver(["127.0.0.1"]), tls, timeout_s)
    return post.send(url, {"Content-Type": "application/json", "webhook-id": "msg_1"}, body)


def test_what_is_sent_arrives_byte_for_byte(receiver):
    body = '{"data":{"text":"Zählerstand"}}'.encode()
    answer = _send(receiver.url, body=body)
    assert (answer.outcome, answer.status, answer.error) == (Outcome.DELIVERED, 204, "")
    [received] = receiver.received()
    assert (received.path, received.body) == ("/hooks?house=7", body)
    assert received.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "user-agent": "Commonwatt-Webhooks/1",
        "connection": "close",
        "content-type": "application/json",
        "webhook-id": "msg_1",
        "content-length": str(len(body)),
    }


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_every_status_of_success_is_success(receiver, status):
    receiver.fail(status=status)
    assert _send(receiver.url).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 429, 500, 503, 599])
def test_every_other_status_is_a_refusal_with_its_number_and_nothing_of_its_words(receiver, status):
    receiver.fail(status=status, body_bytes=100)
    answer = _send(receiver.url)
    assert (answer.outcome, answer.status) == (Outcome.REFUSED, status)
    assert answer.error == f"the receiver answered {status}"


def test_a_redirect_is_not_followed(receiver):
    receiver.fail(redirect=f"http://127.0.0.1:{receiver.port}/elsewhere")
    answer = _send(receiver.url)
    assert (answer.outcome, answer.status) == (Outcome.REFUSED, 307)
    assert [each.path for each in receiver.received()] == ["/hooks?house=7"]


def test_a_receiver_that_hangs_may_have_it(receiver):
    receiver.fail(hang=True)
    answer = _send(receiver.url, QUICK_S)
    assert (answer.outcome, answer.status, answer.error) == (Outcome.UNKNOWN, None, "no answer in time")
    assert len(receiver.received()) == 1


def test_an_answer_drop_by_drop_has_no_more_time_than_any(receiver):
    """Each byte comes well within the time; all together would take twenty times as long, and say 204."""
    receiver.fail(drip_s=QUICK_S / 2)
    answer = _send(receiver.url, QUICK_S)
    assert (answer.outcome, answer.error) == (Outcome.UNKNOWN, "no answer in time")


def test_a_receiver_that_closes_after_taking_may_have_it(receiver):
    receiver.fail(cut=1, status=204)
    answer = _send(receiver.url)
    assert (answer.outcome, answer.status) == (Outcome.UNKNOWN, None)
    assert len(receiver.received()) == 1
    assert _send(receiver.url).outcome is Outcome.DELIVERED


def test_what_is_not_http_is_no_answer(receiver):
    receiver.fail(garbage=True)
    answer = _send(receiver.url)
    assert (answer.outcome, answer.status, answer.error) == (Outcome.UNKNOWN, None, "the answer is not HTTP")


def test_a_body_without_end_changes_nothing(receiver):
    receiver.fail(status=200, body_bytes=10**15)
    assert _send(receiver.url).outcome is Outcome.DELIVERED


def test_where_nobody_listens_nothing_was_sent():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    answer = _send(f"http://127.0.0.1:{port}/")
    assert (answer.outcome, answer.status, answer.error) == (Outcome.NOT_SENT, None, "no connection")


def test_who_takes_no_connection_gets_nothing():
    """A listener whose queue is full: the connection is not made, and nothing is said."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        answer = _send(f"http://127.0.0.1:{full.getsockname()[1]}/", QUICK_S)
        for filler in fillers:
            filler.close()
    assert (answer.outcome, answer.error) == (Outcome.NOT_SENT, "no connection in time")


# --- names ------------------------------------------------------------------------------------------------------


def test_a_name_is_asked_for_once_and_what_was_checked_is_connected_to(receiver):
    """The second answer is another address: nobody hears it, whatever it is."""
    resolver = Resolver(["127.0.0.1"], ["10.0.0.1"])
    answer = _send(f"http://{NAME}:{receiver.port}/x", resolve=resolver)
    assert answer.outcome is Outcome.DELIVERED
    assert resolver.asked == [(NAME, receiver.port)]
    assert receiver.received()[0].headers["host"] == f"{NAME}:{receiver.port}"


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["8.8.8.8", "127.0.0.1"], []]
)
def test_a_name_that_leads_inside_is_not_connected_to(addresses):
    answer = _send(f"https://{NAME}/", resolve=Resolver(addresses), networks=[])
    assert (answer.outcome, answer.status) == (Outcome.NOT_SENT, None)
    assert answer.error == ("the address is refused: the name has no public address, or also one that is not public")


def test_an_endpoint_whose_network_is_no_longer_allowed_gets_nothing(receiver):
    for url in (receiver.url, f"http://{NAME}:{receiver.port}/"):
        assert _send(url, networks=[]).outcome is Outcome.NOT_SENT
    assert receiver.received() == []


def test_a_name_that_does_not_exist_reads_like_one_that_leads_inside():
    answers = [
        _send(f"https://{NAME}/", resolve=Resolver(each), networks=[])
        for each in (["10.0.0.1"], socket.gaierror(socket.EAI_NONAME, "unknown"))
    ]
    assert answers[0].error == answers[1].error


def test_a_resolver_that_is_away_is_no_judgement():
    answer = _send(f"https://{NAME}/", resolve=Resolver(socket.gaierror(socket.EAI_AGAIN, "later")))
    assert (answer.outcome, answer.error) == (Outcome.NOT_SENT, "the name could not be looked up")


def test_a_resolver_that_hangs_takes_no_more_time_than_a_try_has():
    forever = threading.Event()
    answer = _send(f"https://{NAME}/", QUICK_S, resolve=lambda host, port: forever.wait(60))
    forever.set()
    assert (answer.outcome, answer.error) == (Outcome.NOT_SENT, "no connection in time")


def test_the_next_address_is_tried_where_the_first_takes_no_connection(receiver):
    answer = _send(f"http://{NAME}:{receiver.port}/", resolve=Resolver(["127.0.0.2", "127.0.0.1"]))
    assert answer.outcome is Outcome.DELIVERED


def test_a_proxy_of_the_environment_is_not_asked(receiver, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert _send(receiver.url).outcome is Outcome.DELIVERED


# --- certificates -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for NAME and for no address."""
    directory = tmp_path_factory.mktemp("certificates")
    now, life = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = common_name("an authority of these tests")
    ca = as_authority(unsigned_certificate(ca_name, ca_name, ca_key.public_key(), now, life)).sign(
        ca_key, hashes.SHA256()
    )
    unsigned = unsigned_certificate(common_name(NAME), ca_name, key.public_key(), now, life)
    signed = (
        as_end_entity(unsigned, ExtendedKeyUsageOID.SERVER_AUTH, ca_key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (directory / CA_FILE).write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (directory / SERVER_FILE).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / KEY_FILE).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory


@pytest.fixture(scope="module")
def secure(tmp_path_factory, certificates):
    with running_receiver(tmp_path_factory.mktemp("secure"), certificates) as receiver:
        receiver.fail(status=204)
        yield receiver


@pytest.fixture
def trusting(certificates):
    return ssl.create_default_context(cafile=str(certificates / CA_FILE))


def test_the_certificate_is_checked_against_the_name_and_the_name_is_asked_for(secure, trusting):
    answer = _send(f"https://{NAME}:{secure.port}/", tls=trusting)
    assert (answer.outcome, answer.error) == (Outcome.DELIVERED, "")
    assert secure.received()[-1].asked_for == NAME


@pytest.mark.parametrize("host", ["other.example.org", "127.0.0.1"])
def test_a_certificate_for_another_name_gets_nothing(secure, trusting, host):
    before = len(secure.received())
    answer = _send(f"https://{host}:{secure.port}/", tls=trusting)
    assert answer.outcome is Outcome.NOT_SENT
    assert answer.error.startswith("the certificate is not accepted: ")
    assert len(secure.received()) == before


def test_a_certificate_of_nobody_we_know_gets_nothing(secure):
    answer = _send(f"https://{NAME}:{secure.port}/")
    assert answer.outcome is Outcome.NOT_SENT
    assert answer.error.startswith("the certificate is not accepted: ")


def test_what_speaks_no_tls_gets_nothing(receiver):
    answer = _send(f"https://{NAME}:{receiver.port}/")
    assert (answer.outcome, answer.error) == (Outcome.NOT_SENT, "TLS could not be agreed on")
    assert receiver.received() == []
