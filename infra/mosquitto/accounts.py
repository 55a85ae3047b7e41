"""Who may do what on the broker: the access list, and the accounts that exist before any meter is registered.

The access list is one static text for all meters, because it knows patterns (`%u` is the user name, a
meter's id) and roles of the dynamic-security plugin do not: accounts come and go at run time through the
plugin, rights never change. Nothing is allowed that is not listed here. A subscription to foreign topics is
granted by Mosquitto and delivers nothing.
"""

import base64
import hashlib
import json
from typing import Any

from protocol.limits import SHARDS
from protocol.topics import PREFIX, check_community_id, shard_filter

CONTROL_TOPICS = "$CONTROL/dynamic-security/#"
CONTROL_USER = "hub-control"
GATEWAY_USER = "hub-gateway"
"""Publishes seals for any meter of the community, as a collecting gateway or a benchmark does. Has an
account only if asked."""

FROM_METER = ("seals", "status")
TO_METER = ("committed", "commands")

HASH_ITERATIONS = 20_000
"""PBKDF2-SHA512. The hub's passwords are 256 random bits: the hash need not be slow, the broker's one
thread must not be."""

SALT_BYTES = 12


def hub_user(shard: int) -> str:
    """The broker user (and client id) of the ingest worker that leases a shard."""
    return f"hub-{shard}"


def access_list(community_id: str) -> str:
    """Mosquitto's acl_file for one community."""
    check_community_id(community_id)
    lines = ["# A meter: its own topics."]
    lines += [
        f"pattern write {PREFIX}/{community_id}/{shard}/%u/{channel}"
        for shard in range(SHARDS)
        for channel in FROM_METER
    ]  # by number: below a wildcard a meter could keep retained messages under any name
    lines += [f"pattern read {PREFIX}/{community_id}/+/%u/{channel}" for channel in TO_METER]
    lines += ["", f"user {CONTROL_USER}", f"topic readwrite {CONTROL_TOPICS}"]
    lines += [f"topic write {PREFIX}/{community_id}/+/+/commands"]
    for shard in range(SHARDS):
        lines += ["", f"user {hub_user(shard)}"]
        lines += [f"topic read {shard_filter(community_id, shard, channel)}" for channel in FROM_METER]
        lines += [f"topic write {shard_filter(community_id, shard, channel)}" for channel in TO_METER]
    lines += ["", f"user {GATEWAY_USER}"]
    lines += [f"topic write {PREFIX}/{community_id}/+/+/{channel}" for channel in FROM_METER]
    lines += [f"topic read {PREFIX}/{community_id}/+/+/{channel}" for channel in TO_METER]
    return "\n".join(lines) + "\n"


def first_accounts(hub_password: str, salt: bytes, gateway_password: str | None = None) -> bytes:
    """The dynamic-security document of a new broker: hub-control, hub-0 to hub-15, the gateway if it has a
    password.

    Mosquitto rewrites the document itself from then on.
    """
    hub = _hashed(hub_password, salt)
    accounts = [_account(name, hub, bound=True) for name in map(hub_user, range(SHARDS))]
    accounts.append(_account(CONTROL_USER, hub, bound=False))  # several job processes, each with an id of its own
    if gateway_password is not None:
        accounts.append(_account(GATEWAY_USER, _hashed(gateway_password, salt), bound=False))
    nothing = dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"), False)
    return json.dumps({"defaultACLAccess": nothing, "clients": accounts, "groups": [], "roles": []}, indent=1).encode()


def _hashed(password: str, salt: bytes) -> dict[str, Any]:
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ITERATIONS)
    return {
        "password": base64.b64encode(digest).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": HASH_ITERATIONS,
    }


def _account(name: str, password: dict[str, Any], *, bound: bool) -> dict[str, Any]:
    """A bound account connects only with its own name as client id, so that nobody can take over its
    session."""
    client_id = {"clientid": name} if bound else {}
    return {"username": name, **client_id, "roles": [], **password}
