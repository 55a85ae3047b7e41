"""Who is at the other end: the client's address behind our own proxies, and the network by which it is counted.

Believed is only what a trusted proxy wrote. Each proxy appends to X-Forwarded-For the address that it was connected
from, so the list is read from its end, and the first address that is none of ours is the client's; what stands before
it anybody may have written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

UNKNOWN: Final = "unknown"
"""In place of an address, if the server knows none."""
IPV6_PREFIX: Final = 64
"""What one customer has at the least, and can choose addresses from."""
HOPS_MAX: Final = 32
"""No honest chain of proxies is longer; the list may fill all headers."""


def client_of(peer: str, forwarded_for: Sequence[str], trusted: Iterable[Network]) -> str:
    """The client's address in its shortest form. `forwarded_for` are the values of X-Forwarded-For in their order.

    An entry that is no address ends the walk: the client is then the nearest that a trusted proxy vouched for.
    """
    address = _parse(peer)
    if address is None:
        return UNKNOWN
    trusted = tuple(trusted)
    hops = ",".join(forwarded_for).rsplit(",", HOPS_MAX)[-HOPS_MAX:] if forwarded_for else []
    while hops and _is_within(address, trusted):
        before = _parse_hop(hops.pop())
        if before is None:
            break
        address = before
    return str(address)


def network_of(address: str) -> str:
    """What a client's address is counted by: itself, or the /64 of an IPv6 address."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_PREFIX), strict=False))
    return UNKNOWN if parsed is None else str(parsed)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _parse_hop(text: str) -> IPv4Address | IPv6Address | None:
    """An entry as proxies write it: an address, or with a port 192.0.2.1:4711 or [2001:db8::1]:4711."""
    text = text.strip(" \t")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return _parse(text)


def _is_within(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
