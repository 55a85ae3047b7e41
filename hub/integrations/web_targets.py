"""Where a webhook may go: the form of its address, and the network addresses behind its name. Pure.

A member chooses the address and the hub calls it, from inside the operator's network. So the address must be in the one
form that everybody reads alike, and every network address that its name has must be one that anybody could reach
anyway. Names are looked up, and connections made, in `webhooks.py`, which connects to what was checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from hub.errors import WebhookUrlRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_LENGTH_MAX: Final = 2_000
PORTS: Final = frozenset({443, 8443})
"""Of public receivers; in a network that the operator allows, any."""
HTTP: Final = "http"
HTTPS: Final = "https"
DEFAULT_PORTS: Final = {HTTP: 80, HTTPS: 443}
HOST_LENGTH_MAX: Final = 253

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[!$-;=@-Z_a-z~]*)?"
    r"(?P<query>\?[!$-;=?@-Z_a-z~]*)?"
)
"""What RFC 3986 allows, less user information and fragment, and less what some reader would take for another thing:
backslashes, spaces, control characters, letters beyond ASCII, percent signs in the host."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
"""At least two labels; the last begins with a letter, so that no reader takes the whole for a number: 127.1, 0x7f.1,
2130706433 and 017700000001 are all ways to write an IPv4 address."""

_IPV4_SPECIAL: Final = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this network, and "any" in some systems
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a provider's translation
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # what a virtual machine in one cloud asks for its secrets
        "169.254.0.0/16",  # link-local, where other clouds have theirs
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_IPV6_PUBLIC: Final = IPv6Network("2000::/3")
"""The only part that is given out. Outside it are loopback, unspecified, mapped IPv4, NAT64, link-local, unique local,
multicast, and whatever comes."""
_IPV6_SPECIAL: Final = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)


@dataclass(frozen=True)
class Target:
    """An address taken apart: what to look up, what to connect to, what to ask for. `literal` if no name is in it."""

    scheme: str
    host: str
    port: int
    path: str
    literal: Address | None

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address in its one spelling."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_target(url: str, networks_allowed: Sequence[Network]) -> Target:
    """Take the address of a receiver apart. Raises WebhookUrlRefused saying which rule it breaks."""
    if len(url) > URL_LENGTH_MAX:
        raise WebhookUrlRefused(f"longer than {URL_LENGTH_MAX} characters")
    match = _URL.fullmatch(url)
    if match is None:
        raise WebhookUrlRefused(
            "not of the form https://name[:port]/path?query in plain ASCII, without user, password or fragment"
        )
    scheme = match["scheme"]
    port = int(match["port"] or DEFAULT_PORTS[scheme])
    host = match["host"].lower().removeprefix("[").removesuffix("]")
    target = Target(scheme, host, port, (match["path"] or "/") + (match["query"] or ""), _literal(host))
    if port > 65_535:
        raise WebhookUrlRefused("no such port")
    if target.literal is not None:
        if not _is_in(target.literal, networks_allowed):
            raise WebhookUrlRefused("a name is needed: an address in numbers has no certificate")
        return target
    if len(host) > HOST_LENGTH_MAX or not _NAME.fullmatch(host):
        raise WebhookUrlRefused("the host is not a full name such as receiver.example.org")
    if not networks_allowed:
        _check_public_form(target)
    return target


def check_addresses(target: Target, addresses: Sequence[Address], networks_allowed: Sequence[Network]) -> None:
    """Whether the hub may connect to a target whose name has these addresses; every one of them must be permitted.

    Raises WebhookUrlRefused. What it says is the same for a name without addresses and one with private ones: the
    hub's resolver may know names that are nobody else's business.
    """
    if addresses and all(_is_in(address, networks_allowed) for address in addresses):
        return
    if not addresses or not all(is_public(address) or _is_in(address, networks_allowed) for address in addresses):
        raise WebhookUrlRefused("the name has no public address, or also one that is not public")
    _check_public_form(target)


def is_public(address: Address) -> bool:
    """Whether this is an address of the public internet, of one receiver, with no other address inside it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_SPECIAL)
    if address.scope_id is not None or address not in _IPV6_PUBLIC:
        return False
    return not any(address in network for network in _IPV6_SPECIAL)


def _check_public_form(target: Target) -> None:
    if target.scheme != HTTPS:
        raise WebhookUrlRefused("https is needed: anybody on the way could read it")
    if target.port not in PORTS:
        raise WebhookUrlRefused(f"the port must be one of {', '.join(map(str, sorted(PORTS)))}")


def _literal(host: str) -> Address | None:
    """The address that the host is, in the one strict spelling of each kind."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return address if str(address) == host else None


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
