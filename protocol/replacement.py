"""The record of an exchanged meter: what the old register showed last and what the new one showed first.

    record (108 bytes) ‖ Ed25519 signature by the key of the epoch that begins with the new meter

Up to three records, one per register, travel with the rotation whose statement says ENROLMENT_METER_REPLACED. They
are evidence for people: energy continues from the counters of the last seal, never from a register's own number.
"""

import struct

from protocol.errors import ProtocolError
from protocol.limits import ENERGY_WH_MAX, KEY_EPOCH_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from protocol.rotation import FIRST_ROTATION_EPOCH
from protocol.seal import DOMAIN_BYTES, SIGNATURE_BYTES
from protocol.topics import check_meter_id, decode_meter_id

MAGIC = b"CWR1"
LAYOUT = "<4s8s32sIIqQQ16s16s"
REPLACEMENT_BYTES = 108
SERIAL_BYTES_MAX = 16
REPLACEMENTS_MAX = 3
"""One per register."""

REGISTER_GENERATION = 1
REGISTER_GRID_IMPORT = 2
REGISTER_GRID_EXPORT = 3
REGISTER_NAMES = {
    REGISTER_GENERATION: "generation",
    REGISTER_GRID_IMPORT: "grid_import",
    REGISTER_GRID_EXPORT: "grid_export",
}


class Replacement:
    """One register of an exchanged meter. `final_wh`, `initial_wh` in watt-hours; serials are printable ASCII."""

    def __init__(
        self,
        domain: bytes,
        meter_id: str,
        key_epoch: int,
        register: int,
        at_unix_s: int,
        final_wh: int,
        initial_wh: int,
        old_serial: str,
        new_serial: str,
    ) -> None:
        self.domain = domain
        self.meter_id = meter_id
        self.key_epoch = key_epoch
        self.register = register
        self.at_unix_s = at_unix_s
        self.final_wh = final_wh
        self.initial_wh = initial_wh
        self.old_serial = old_serial
        self.new_serial = new_serial


def encode_replacement(record: Replacement) -> bytes:
    """The 108 bytes to sign. Raises ProtocolError `replacement_…` or `meter_id`."""
    _check(record)
    return struct.pack(
        LAYOUT,
        MAGIC,
        record.domain,
        record.meter_id.encode(),
        record.key_epoch,
        record.register,
        record.at_unix_s,
        record.final_wh,
        record.initial_wh,
        record.old_serial.encode(),
        record.new_serial.encode(),
    )


def split_replacement(message: bytes) -> "tuple[Replacement, bytes, bytes]":
    """The record, its signed bytes and the signature (not verified). Raises only ProtocolError."""
    if len(message) != REPLACEMENT_BYTES + SIGNATURE_BYTES:
        raise ProtocolError("replacement_length", "%d bytes" % len(message))
    signed = message[:REPLACEMENT_BYTES]
    fields = struct.unpack(LAYOUT, signed)
    if fields[0] != MAGIC:
        raise ProtocolError("replacement_magic")
    record = Replacement(
        fields[1], decode_meter_id(fields[2]), fields[3], fields[4], fields[5], fields[6], fields[7],
        _decode_serial(fields[8]), _decode_serial(fields[9]),
    )  # fmt: skip
    _check(record)
    return record, signed, message[REPLACEMENT_BYTES:]


def _decode_serial(field: bytes) -> str:
    serial = field.rstrip(b"\x00")
    for byte in serial:
        if not 0x20 <= byte < 0x7F:
            raise ProtocolError("replacement_serial", "not printable ASCII")
    return serial.decode()


def _check_serial(serial: str) -> None:
    if not 1 <= len(serial) <= SERIAL_BYTES_MAX:
        raise ProtocolError("replacement_serial", "1 to %d characters" % SERIAL_BYTES_MAX)
    for letter in serial:
        if not 0x20 <= ord(letter) < 0x7F:
            raise ProtocolError("replacement_serial", "not printable ASCII")


def _check(record: Replacement) -> None:
    check_meter_id(record.meter_id)
    if len(record.domain) != DOMAIN_BYTES:
        raise ProtocolError("replacement_domain")
    if not FIRST_ROTATION_EPOCH <= record.key_epoch <= KEY_EPOCH_MAX:
        raise ProtocolError("replacement_epoch", str(record.key_epoch))
    if record.register not in REGISTER_NAMES:
        raise ProtocolError("replacement_register", str(record.register))
    if not TIME_MIN_UNIX_S <= record.at_unix_s <= TIME_MAX_UNIX_S:
        raise ProtocolError("replacement_time", str(record.at_unix_s))
    if not 0 <= record.final_wh <= ENERGY_WH_MAX or not 0 <= record.initial_wh <= ENERGY_WH_MAX:
        raise ProtocolError("replacement_counter", "a counter is outside its range")
    _check_serial(record.old_serial)
    _check_serial(record.new_serial)
