"""A member can have the hub call the public internet, and nothing else, however the address is written."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.errors import WebhookUrlRefused
from hub.integrations.web_targets import check_addresses, is_public, parse_target

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]

INNER = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("text", INNER)
def test_an_address_that_is_not_for_everybody_is_not_public(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_public(text):
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_what_is_public_here_is_public_by_the_registries_too(address):
    """Python's tables are those of IANA, some years old or young; we may refuse more, never less."""
    if is_public(address):
        assert address.is_global and not address.is_multicast and not address.is_reserved


@given(st.ip_addresses(v=4))
@example(IPv4Address("127.0.0.1"))
@example(IPv4Address("8.8.8.8"))
def test_no_ipv4_address_becomes_public_inside_an_ipv6_one(inner):
    number = int(inner)
    for prefix, shift in (("::", 0), ("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80), ("::ffff:0:0:0", 0)):
        assert not is_public(IPv6Address(int(IPv6Address(prefix)) | number << shift))


ODD = [
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.0.0.1/",
    "https://127.0.0.1./",
    "https://1.1.1.1/",
    "https://01.1.1.1/",
    "https://1.1.1.1.1/",
    "https://256.1.1.1/",
    "https://1.1.1.0x1/",
    "https://example.0x7f/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::1%25eth0]/",
    "https://[2606:4700::1111]/",
    "https://[127.0.0.1]/",
    "https://[::1/",
    "https://::1/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://receiver/",
    "https://receiver.example.org./",
    "https://.receiver.example.org/",
    "https://receiver..org/",
    "https://-receiver.org/",
    "https://receiver-.org/",
    "https://rec_eiver.org/",
    "https://" + "a" * 64 + ".org/",
    "https://" + "a." * 127 + "org/",
    "https://bücher.example/",
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
    "https://ⓔxample.org/",
    "https://exam%70le.org/",
    "https://user@example.org/",
    "https://user:password@example.org/",
    "https://example.org@127.0.0.1/",
    "https://example.org:443@127.0.0.1/",
    "https://127.0.0.1\\@example.org/",
    "https://example.org\\.evil.org/",
    "https://example.org/#fragment",
    "https://example.org#@127.0.0.1/",
    "https:///example.org/",
    "https:/example.org/",
    "https:example.org",
    "//example.org/",
    "example.org",
    "",
    "http://example.org/",
    "HTTPS://example.org/",
    "ftp://example.org/",
    "file:///etc/passwd",
    "gopher://example.org/",
    "javascript:alert(1)",
    "https://example.org:22/",
    "https://example.org:80/",
    "https://example.org:0/",
    "https://example.org:00443/",
    "https://example.org:65536/",
    "https://example.org:99999/",
    "https://example.org:443443/",
    "https://example.org:-1/",
    "https://example.org:/",
    "https://example.org:４４３/",
    "https://example.org/\r\nHost: inner",
    "https://example.org/\n",
    "https://example.org/ x",
    " https://example.org/",
    "https://example.org/\t",
    "https://example.org/\x00",
    "https://example.org/ä",
    "https://example.org/?a=\x7f",
    "https://example.org/?a=<b>",
    'https://example.org/?a="b"',
    "https://example.org/" + "a" * 2_000,
]


@pytest.mark.parametrize("url", ODD)
def test_an_address_in_an_odd_form_is_refused_without_asking_anybody(url):
    with pytest.raises(WebhookUrlRefused):
        parse_target(url, [])


PLAIN_THERE = {
    "http://example.org/",
    "https://127.0.0.1/",
    "https://[::1]/",
    "https://example.org:22/",
    "https://example.org:80/",
}
"""What has a plain form, and is decided by its addresses where a network is allowed."""


@pytest.mark.parametrize("url", [each for each in ODD if each not in PLAIN_THERE])
def test_an_odd_form_is_refused_also_where_the_loopback_address_is_allowed(url):
    with pytest.raises(WebhookUrlRefused):
        parse_target(url, LOOPBACK)


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "spelt"),
    [
        ("https://example.org", "example.org", 443, "/", "https://example.org/"),
        ("https://Example.ORG:443/A?b=C%20d", "example.org", 443, "/A?b=C%20d", "https://example.org/A?b=C%20d"),
        ("https://a-1.b2.xn--p1ai:8443/x", "a-1.b2.xn--p1ai", 8443, "/x", "https://a-1.b2.xn--p1ai:8443/x"),
        ("https://example.org?x", "example.org", 443, "/?x", "https://example.org/?x"),
        ("https://1.2.example.org/@:", "1.2.example.org", 443, "/@:", "https://1.2.example.org/@:"),
    ],
)
def test_a_plain_address_is_taken_apart(url, host, port, path, spelt):
    target = parse_target(url, [])
    assert (target.host, target.port, target.path, target.url, target.literal) == (host, port, path, spelt, None)


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=40), st.booleans())
def test_whatever_is_taken_is_read_alike_by_another_reader(text, full):
    """What passes has the same scheme, host, port and path for Python's own reader of URLs."""
    from urllib.parse import urlsplit

    url = f"https://{text}" if full else text
    try:
        target = parse_target(url, [])
    except WebhookUrlRefused:
        return
    other = urlsplit(url)
    assert (other.scheme, other.hostname, other.port or 443) == ("https", target.host, target.port)
    assert other.username is other.password is None and not other.fragment
    with pytest.raises(OSError, match=""):
        socket.inet_aton(target.host)


@given(st.from_regex(r"\A(0x[0-9a-f]{1,8}|0?[0-9]{1,10})(\.(0x[0-9a-f]{1,4}|0?[0-9]{1,5})){0,3}\.?\Z"))
def test_no_spelling_of_an_ipv4_address_is_a_name(host):
    with pytest.raises(WebhookUrlRefused):
        parse_target(f"https://{host}/", [])


def _check(url, *addresses, allowed=()):
    check_addresses(parse_target(url, allowed), [ip_address(each) for each in addresses], allowed)


def test_every_address_of_a_name_must_be_public():
    _check("https://example.org/", "1.1.1.1", "2606:4700::1111")
    for inner in INNER:
        for addresses in ([inner], ["1.1.1.1", inner], [inner, "1.1.1.1"]):
            with pytest.raises(WebhookUrlRefused):
                _check("https://example.org/", *addresses)


def test_a_refusal_does_not_tell_what_the_hubs_resolver_knows():
    refusals = []
    for addresses in ([], ["10.1.2.3"], ["1.1.1.1", "127.0.0.1"]):
        with pytest.raises(WebhookUrlRefused) as refusal:
            _check("https://example.org/", *addresses)
        refusals.append(refusal.value.detail)
    assert len(set(refusals)) == 1


def test_an_allowed_network_may_be_reached_without_tls_and_on_any_port():
    _check("http://127.0.0.1:8080/x", "127.0.0.1", allowed=LOOPBACK)
    _check("http://receiver.example.org:8080/x", "127.0.0.1", "::1", allowed=LOOPBACK)
    _check("https://receiver.example.org/x", "127.0.0.1", "1.1.1.1", allowed=LOOPBACK)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://receiver.example.org/x", ["1.1.1.1"]),
        ("http://receiver.example.org/x", ["127.0.0.1", "1.1.1.1"]),
        ("https://receiver.example.org:22/x", ["1.1.1.1"]),
        ("https://receiver.example.org/x", ["10.0.0.1"]),
        ("https://receiver.example.org/x", ["127.0.0.1", "10.0.0.1"]),
        ("https://receiver.example.org/x", ["::ffff:127.0.0.1"]),
    ],
)
def test_an_allowed_network_opens_nothing_beside_it(url, addresses):
    with pytest.raises(WebhookUrlRefused):
        _check(url, *addresses, allowed=LOOPBACK)


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://[0::1]/", "http://127.1/"])
def test_a_literal_is_taken_only_in_its_own_spelling_and_network(url):
    with pytest.raises(WebhookUrlRefused):
        parse_target(url, LOOPBACK)
    assert parse_target("http://[::1]:81/", LOOPBACK).authority == "[::1]:81"
