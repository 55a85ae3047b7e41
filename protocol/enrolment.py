"""The enrolment statement: a meter's key says whose meter it is and where its counters start.

180 bytes, signed by the key that they name. Fixed offsets, because the on-chain program reads the same bytes.
A rotation is the same statement for the next epoch, starting from the last counters of the one before (rotation.py).
"""

import struct

from protocol.errors import ProtocolError
from protocol.limits import (
    ENERGY_WH_MAX,
    KEY_EPOCH_MAX,
    METER_ID_BYTES_MAX,
    TIME_MAX_UNIX_S,
    TIME_MIN_UNIX_S,
)
from protocol.seal import DOMAIN_BYTES, HASH_BYTES, NO_PREDECESSOR, SIGNATURE_BYTES
from protocol.topics import check_meter_id, decode_meter_id

MAGIC = b"CWE1"
LAYOUT = "<4s8s32sBBHI32s32sQQQq32s"
STATEMENT_BYTES = 180
KEY_BYTES = 32

KIND_SOLAR = 1
KIND_WIND = 2
KIND_BATTERY = 3
KIND_GRID = 4
KIND_NAMES = {KIND_SOLAR: "solar", KIND_WIND: "wind", KIND_BATTERY: "battery", KIND_GRID: "grid"}

MEASURES_GENERATION_AND_GRID = 1
"""production = generation; consumption = generation + import − export."""
MEASURES_NET_ONLY = 2
"""One bidirectional meter: production = export, consumption = import."""
MEASUREMENT_NAMES = {MEASURES_GENERATION_AND_GRID: "generation_and_grid", MEASURES_NET_ONLY: "net_only"}

ENROLMENT_PHASES_NOT_NETTED = 1
"""Flag: the grid meter sums import and export per phase, so both counters are too high. What it measures is stored and
shown, but feeds no minting unless an operator allows it."""
ENROLMENT_METER_REPLACED = 2
"""Flag: this key begins with another physical meter; signed records of the exchange travel with it (replacement.py)."""
ENROLMENT_FLAGS_ALL = ENROLMENT_PHASES_NOT_NETTED | ENROLMENT_METER_REPLACED


class Enrolment:
    """What the meter's key states about itself. Counters in watt-hours as of `valid_from_unix_s`."""

    def __init__(
        self,
        domain: bytes,
        meter_id: str,
        kind: int,
        measurement: int,
        key_epoch: int,
        owner: bytes,
        public_key: bytes,
        production_wh: int,
        consumption_wh: int,
        surplus_wh: int,
        valid_from_unix_s: int,
        last_seal_hash: bytes = NO_PREDECESSOR,
        flags: int = 0,
    ) -> None:
        self.domain = domain
        self.meter_id = meter_id
        self.kind = kind
        self.measurement = measurement
        self.key_epoch = key_epoch
        self.owner = owner
        self.public_key = public_key
        self.production_wh = production_wh
        self.consumption_wh = consumption_wh
        self.surplus_wh = surplus_wh
        self.valid_from_unix_s = valid_from_unix_s
        self.last_seal_hash = last_seal_hash
        self.flags = flags


def encode_enrolment(statement: Enrolment) -> bytes:
    """The 180 bytes to sign. Raises ProtocolError `enrolment_…` or `meter_id`."""
    _check(statement)
    return struct.pack(
        LAYOUT,
        MAGIC,
        statement.domain,
        statement.meter_id.encode(),
        statement.kind,
        statement.measurement,
        statement.flags,
        statement.key_epoch,
        statement.owner,
        statement.public_key,
        statement.production_wh,
        statement.consumption_wh,
        statement.surplus_wh,
        statement.valid_from_unix_s,
        statement.last_seal_hash,
    )


def decode_enrolment(data: bytes) -> Enrolment:
    """The inverse of encode_enrolment. Raises ProtocolError and nothing else, whatever the bytes."""
    if len(data) != STATEMENT_BYTES:
        raise ProtocolError("enrolment_length", "%d bytes instead of %d" % (len(data), STATEMENT_BYTES))
    fields = struct.unpack(LAYOUT, data)
    if fields[0] != MAGIC:
        raise ProtocolError("enrolment_magic", "not a protocol v1 enrolment statement")
    statement = Enrolment(
        fields[1], decode_meter_id(fields[2]), fields[3], fields[4], fields[6], fields[7], fields[8],
        fields[9], fields[10], fields[11], fields[12], fields[13], fields[5],
    )  # fmt: skip
    _check(statement)
    return statement


def split_enrolment(message: bytes) -> "tuple[Enrolment, bytes, bytes]":
    """Take `statement ‖ signature` apart: the decoded statement, its bytes, the signature (not verified)."""
    if len(message) != STATEMENT_BYTES + SIGNATURE_BYTES:
        raise ProtocolError("enrolment_length", "%d bytes" % len(message))
    return decode_enrolment(message[:STATEMENT_BYTES]), message[:STATEMENT_BYTES], message[STATEMENT_BYTES:]


def _check(statement: Enrolment) -> None:
    check_meter_id(statement.meter_id)
    if len(statement.meter_id) > METER_ID_BYTES_MAX or len(statement.domain) != DOMAIN_BYTES:
        raise ProtocolError("enrolment_domain", "wrong length")
    if statement.kind not in KIND_NAMES:
        raise ProtocolError("enrolment_kind", str(statement.kind))
    if statement.measurement not in MEASUREMENT_NAMES:
        raise ProtocolError("enrolment_measurement", str(statement.measurement))
    if not 1 <= statement.key_epoch <= KEY_EPOCH_MAX:
        raise ProtocolError("enrolment_epoch", str(statement.key_epoch))
    if not 0 <= statement.flags <= ENROLMENT_FLAGS_ALL:
        raise ProtocolError("enrolment_flags", str(statement.flags))
    if statement.flags & ENROLMENT_METER_REPLACED and statement.key_epoch == 1:
        raise ProtocolError("enrolment_flags", "the first key replaces no meter")
    if len(statement.owner) != KEY_BYTES or len(statement.public_key) != KEY_BYTES:
        raise ProtocolError("enrolment_key", "a key has %d bytes" % KEY_BYTES)
    if len(statement.last_seal_hash) != HASH_BYTES:
        raise ProtocolError("enrolment_hash", "a hash has %d bytes" % HASH_BYTES)
    for counter_wh in (statement.production_wh, statement.consumption_wh):
        if not 0 <= counter_wh <= ENERGY_WH_MAX:
            raise ProtocolError("enrolment_counter", str(counter_wh))
    if not 0 <= statement.surplus_wh <= statement.production_wh:
        raise ProtocolError("enrolment_counter", "surplus exceeds production")
    if not TIME_MIN_UNIX_S <= statement.valid_from_unix_s <= TIME_MAX_UNIX_S:
        raise ProtocolError("enrolment_time", str(statement.valid_from_unix_s))
