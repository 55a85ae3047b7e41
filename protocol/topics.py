"""Names: meters, communities, the MQTT topics between them, and the domain that no seal leaves.

commonwatt/v1/<community>/<shard>/<meter_id>/seals       from the meter, QoS 1
commonwatt/v1/<community>/<shard>/<meter_id>/committed   from the hub alone, retained
commonwatt/v1/<community>/<shard>/<meter_id>/status      from the meter, retained, also its last will
commonwatt/v1/<community>/<shard>/<meter_id>/commands    from the hub alone, signed by it
"""

from protocol.errors import ProtocolError
from protocol.limits import COMMUNITY_ID_BYTES_MAX, METER_ID_BYTES_MAX, SHARDS
from protocol.seal import DOMAIN_BYTES, HASH_BYTES, sha256

PREFIX = "commonwatt/v1"
CHANNELS = ("seals", "committed", "status", "commands")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
RESERVED_PREFIX = "hub-"
"""Broker user names of the hub itself: no meter may be called so."""


def check_meter_id(meter_id: str) -> str:
    """Return the id, or raise ProtocolError `meter_id`. Lower case letters, digits and inner hyphens, 1 to 32."""
    _check_name("meter_id", meter_id, METER_ID_BYTES_MAX)
    if meter_id.startswith(RESERVED_PREFIX):
        raise ProtocolError("meter_id", "names that begin with %s are the hub's own" % RESERVED_PREFIX)
    return meter_id


def decode_meter_id(field: bytes) -> str:
    """The id in a field of 32 bytes, filled up with zero bytes. Raises ProtocolError `meter_id`."""
    name = field.rstrip(b"\x00")
    for byte in name:
        if byte >= 0x80:
            raise ProtocolError("meter_id", "not ASCII")
    return check_meter_id(name.decode())


def check_community_id(community_id: str) -> str:
    """Return the id, or raise ProtocolError `community_id`. The same alphabet as a meter id."""
    return _check_name("community_id", community_id, COMMUNITY_ID_BYTES_MAX)


def _check_name(code: str, name: str, length_max: int) -> str:
    if not 1 <= len(name) <= length_max:
        raise ProtocolError(code, "1 to %d characters" % length_max)
    for letter in name:
        if letter not in _LETTERS and letter != "-":
            raise ProtocolError(code, "only a-z, 0-9 and hyphens")
    if name[0] == "-" or name[-1] == "-":
        raise ProtocolError(code, "no hyphen at either end")
    return name


def shard_of(meter_id: str) -> int:
    """The shard of a meter, 0 to 15, fixed for ever by its id: first byte of SHA-256(meter id) mod 16."""
    return sha256(meter_id.encode())[0] % SHARDS


def topic(community_id: str, meter_id: str, channel: str) -> str:
    """The full topic of one of CHANNELS for a meter."""
    return "%s/%s/%d/%s/%s" % (PREFIX, community_id, shard_of(meter_id), meter_id, channel)


def shard_filter(community_id: str, shard: int, channel: str) -> str:
    """The subscription for one channel of all meters of a shard."""
    return "%s/%s/%d/+/%s" % (PREFIX, community_id, shard, channel)


def parse_topic(name: str) -> "tuple[str, int, str, str]":
    """Community, shard, meter id and channel of a topic. Raises ProtocolError `topic…`, `meter_id`, …"""
    parts = name.split("/")
    if len(parts) != 6 or parts[0] + "/" + parts[1] != PREFIX or parts[5] not in CHANNELS:
        raise ProtocolError("topic", "not a topic of this protocol")
    community_id = check_community_id(parts[2])
    meter_id = check_meter_id(parts[4])
    if parts[3] != str(shard_of(meter_id)):
        raise ProtocolError("topic_shard", "this meter belongs to shard %d" % shard_of(meter_id))
    return community_id, shard_of(meter_id), meter_id, parts[5]


def domain_of(community_id: str, genesis_hash: bytes = b"", program_id: bytes = b"") -> bytes:
    """First 8 bytes of SHA-256(community id ‖ chain genesis hash ‖ program id).

    The chain parts are both empty until a chain is configured, and 32 bytes each from then on: with a community id of
    at most 32 bytes no two different triples give the same input.
    """
    check_community_id(community_id)
    if (len(genesis_hash), len(program_id)) not in ((0, 0), (HASH_BYTES, HASH_BYTES)):
        raise ProtocolError("domain", "both chain parts are empty or both have 32 bytes")
    return sha256(community_id.encode() + genesis_hash + program_id)[:DOMAIN_BYTES]
