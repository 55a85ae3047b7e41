"""Who is asking: what a proxy of ours says is believed, what anybody else says is not."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.limits.clients import UNKNOWN, client_of, network_of

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1/32")]
strangers = st.ip_addresses(network="198.51.100.0/24") | st.ip_addresses(network="2001:db8::/32")
proxies = st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/16")
claims = st.lists(st.text(max_size=20) | strangers.map(str) | proxies.map(str), max_size=6)


@given(strangers, claims)
def test_a_stranger_is_whoever_is_connected_whatever_it_claims(peer, claimed):
    assert client_of(str(peer), claimed, TRUSTED) == str(peer)


@given(strangers, st.lists(proxies, min_size=1, max_size=4), claims)
def test_behind_proxies_of_ours_a_client_is_what_the_first_of_them_saw_whatever_it_claims(client, chain, claimed):
    """Each proxy appends whence it was connected; the last one is the peer."""
    *before, peer = chain
    forwarded = ", ".join([*claimed, str(client), *map(str, before)])
    assert client_of(str(peer), [forwarded], TRUSTED) == str(client)


@given(strangers, proxies, claims)
def test_several_headers_are_one_list(client, peer, claimed):
    assert client_of(str(peer), [*claimed, str(client)], TRUSTED) == str(client)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["unknown"], "10.0.0.1"),
        (["198.51.100.7, unknown"], "10.0.0.1"),
        (["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["198.51.100.7:4711"], "198.51.100.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:DB8:0:0::7"], "2001:db8::7"),
        (["::ffff:198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, ::ffff:10.9.9.9"], "198.51.100.7"),
        (["fe80::1%eth0"], "fe80::1"),
        (["198.51.100.07"], "10.0.0.1"),
        (["1" * 10_000], "10.0.0.1"),
        ([","] * 100, "10.0.0.1"),
    ],
)
def test_an_entry_is_an_address_or_the_walk_ends_at_the_last_that_was_vouched_for(forwarded, client):
    assert client_of("10.0.0.1", forwarded, TRUSTED) == client


def test_a_proxy_on_this_machine_may_come_mapped_into_ipv6():
    assert client_of("::ffff:127.0.0.1", ["198.51.100.7"], TRUSTED) == "198.51.100.7"


def test_without_trusted_proxies_nobody_is_believed():
    assert client_of("127.0.0.1", ["198.51.100.7"], []) == "127.0.0.1"


def test_a_server_that_knows_no_address_knows_none():
    assert client_of("", ["198.51.100.7"], TRUSTED) == UNKNOWN
    assert network_of(UNKNOWN) == UNKNOWN


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_counted_by_itself(address):
    assert network_of(str(address)) == str(address)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_the_addresses_of_one_ipv6_customer_are_counted_together(address, host):
    neighbour = IPv6Address(int(address) >> 64 << 64 | host)
    if address.ipv4_mapped is None and neighbour.ipv4_mapped is None:
        assert (
            network_of(str(address))
            == network_of(str(neighbour))
            != network_of(str(IPv6Address(int(address) ^ 1 << 64)))
        )
