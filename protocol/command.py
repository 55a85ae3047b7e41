"""Commands: what the hub may ask of a meter, signed by the hub's command key.

    command (80 bytes) ‖ Ed25519 signature of the hub

Each carries the meter's id, a counter that only grows and an expiry: a recorded command cannot be played to another
meter, twice, or later.
"""

import struct

from protocol.errors import ProtocolError
from protocol.limits import SEQUENCE_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from protocol.seal import DOMAIN_BYTES, SIGNATURE_BYTES
from protocol.topics import check_meter_id, decode_meter_id

MAGIC = b"CWC1"
LAYOUT = "<4s8s32sQqIQQ"
COMMAND_BYTES = 80

SET_INTERVAL = 1
"""`first` = seconds between readings, `last` = seconds between seals (0: live mode, each reading is sealed)."""
RESEND = 2
"""Publish the seals with sequences `first` … `last` of the current epoch again."""
RESTART = 3
"""End the process cleanly; its supervisor starts it again. Both arguments are 0."""
KIND_NAMES = {SET_INTERVAL: "set_interval", RESEND: "resend", RESTART: "restart"}

READING_INTERVAL_MAX_S = 900
SEAL_INTERVAL_MAX_S = 86_400


class Command:
    """One order to one meter. `counter` grows with every command the hub has ever signed for this meter."""

    def __init__(
        self,
        domain: bytes,
        meter_id: str,
        counter: int,
        expires_at_unix_s: int,
        kind: int,
        first: int = 0,
        last: int = 0,
    ) -> None:
        self.domain = domain
        self.meter_id = meter_id
        self.counter = counter
        self.expires_at_unix_s = expires_at_unix_s
        self.kind = kind
        self.first = first
        self.last = last


def encode_command(command: Command) -> bytes:
    """The 80 bytes to sign. Raises ProtocolError `command_…`."""
    _check(command)
    return struct.pack(
        LAYOUT,
        MAGIC,
        command.domain,
        command.meter_id.encode(),
        command.counter,
        command.expires_at_unix_s,
        command.kind,
        command.first,
        command.last,
    )


def split_command(message: bytes) -> "tuple[Command, bytes, bytes]":
    """The command, its signed bytes and the signature (not verified). Raises only ProtocolError."""
    if len(message) != COMMAND_BYTES + SIGNATURE_BYTES:
        raise ProtocolError("command_length", "%d bytes" % len(message))
    signed = message[:COMMAND_BYTES]
    fields = struct.unpack(LAYOUT, signed)
    if fields[0] != MAGIC:
        raise ProtocolError("command_magic")
    command = Command(fields[1], decode_meter_id(fields[2]), fields[3], fields[4], fields[5], fields[6], fields[7])
    _check(command)
    return command, signed, message[COMMAND_BYTES:]


def _check(command: Command) -> None:
    check_meter_id(command.meter_id)
    if len(command.domain) != DOMAIN_BYTES:
        raise ProtocolError("command_domain")
    if not 1 <= command.counter <= SEQUENCE_MAX:
        raise ProtocolError("command_counter", str(command.counter))
    if not TIME_MIN_UNIX_S <= command.expires_at_unix_s <= TIME_MAX_UNIX_S:
        raise ProtocolError("command_expiry", str(command.expires_at_unix_s))
    first, last = command.first, command.last
    if command.kind == SET_INTERVAL:
        valid = 1 <= first <= READING_INTERVAL_MAX_S and (last == 0 or first <= last <= SEAL_INTERVAL_MAX_S)
    elif command.kind == RESEND:
        valid = 1 <= first <= last <= SEQUENCE_MAX
    elif command.kind == RESTART:
        valid = first == 0 and last == 0
    else:
        raise ProtocolError("command_kind", str(command.kind))
    if not valid:
        raise ProtocolError("command_arguments", "%d, %d" % (first, last))
