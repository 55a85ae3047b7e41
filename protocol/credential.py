"""A meter asks for its broker password and proves by its key that it is the meter.

    request (72 bytes) ‖ Ed25519 signature by the meter's current key

The hub answers with the password in force. The time bounds how long a recorded request is of use; the nonce keeps two
requests of one second apart.
"""

import struct

from protocol.errors import ProtocolError
from protocol.limits import KEY_EPOCH_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from protocol.seal import DOMAIN_BYTES, SIGNATURE_BYTES
from protocol.topics import check_meter_id, decode_meter_id

MAGIC = b"CWP1"
LAYOUT = "<4s8s32sIq16s"
CREDENTIAL_REQUEST_BYTES = 72
NONCE_BYTES = 16


class CredentialRequest:
    """`at_unix_s` is the meter's clock, `nonce` 16 random bytes."""

    def __init__(self, domain: bytes, meter_id: str, key_epoch: int, at_unix_s: int, nonce: bytes) -> None:
        self.domain = domain
        self.meter_id = meter_id
        self.key_epoch = key_epoch
        self.at_unix_s = at_unix_s
        self.nonce = nonce


def encode_credential_request(request: CredentialRequest) -> bytes:
    """The 72 bytes to sign. Raises ProtocolError `credential_…` or `meter_id`."""
    _check(request)
    return struct.pack(
        LAYOUT,
        MAGIC,
        request.domain,
        request.meter_id.encode(),
        request.key_epoch,
        request.at_unix_s,
        request.nonce,
    )


def split_credential_request(message: bytes) -> "tuple[CredentialRequest, bytes, bytes]":
    """The request, its signed bytes and the signature (not verified). Raises only ProtocolError."""
    if len(message) != CREDENTIAL_REQUEST_BYTES + SIGNATURE_BYTES:
        raise ProtocolError("credential_length", "%d bytes" % len(message))
    signed = message[:CREDENTIAL_REQUEST_BYTES]
    fields = struct.unpack(LAYOUT, signed)
    if fields[0] != MAGIC:
        raise ProtocolError("credential_magic")
    request = CredentialRequest(fields[1], decode_meter_id(fields[2]), fields[3], fields[4], fields[5])
    _check(request)
    return request, signed, message[CREDENTIAL_REQUEST_BYTES:]


def _check(request: CredentialRequest) -> None:
    check_meter_id(request.meter_id)
    if len(request.domain) != DOMAIN_BYTES:
        raise ProtocolError("credential_domain")
    if not 1 <= request.key_epoch <= KEY_EPOCH_MAX:
        raise ProtocolError("credential_epoch", str(request.key_epoch))
    if not TIME_MIN_UNIX_S <= request.at_unix_s <= TIME_MAX_UNIX_S:
        raise ProtocolError("credential_time", str(request.at_unix_s))
    if len(request.nonce) != NONCE_BYTES:
        raise ProtocolError("credential_nonce", "a nonce has %d bytes" % NONCE_BYTES)
