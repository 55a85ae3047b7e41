"""Signed messages of Dogecoin wallets: what `signmessage` makes and `verifymessage` accepts, and nothing more.

The signature is 65 bytes: a header that tells which of up to four keys it is and how the address was made from it, then
r and s. The key is worked out from signature and message, and must be the one that the address is the hash of.
"""

from __future__ import annotations

from typing import Final

from coincurve import PublicKey

from hub.auth.addresses import double_sha256, hash_of_key

SIGNATURE_BYTES: Final = 65
MAGIC: Final = b"Dogecoin Signed Message:\n"
HEADER_MIN, HEADER_MAX = 27, 34
_COMPRESSED: Final = 4
ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""Of the curve secp256k1. Of s and ORDER − s both would do; the smaller one is the signature."""


def hash_of_message(message: bytes) -> bytes:
    """The 32 bytes that are signed. The magic before them is no beginning of a transaction."""
    return double_sha256(_with_length(MAGIC) + _with_length(message))


def verify(key_hash: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key with this hash (20 bytes, of an address) signed the message. Wrong lengths are no signature."""
    if len(signature) != SIGNATURE_BYTES or not HEADER_MIN <= signature[0] <= HEADER_MAX:
        return False
    header = signature[0] - HEADER_MIN
    if int.from_bytes(signature[33:]) > ORDER // 2:
        return False
    try:
        key = PublicKey.from_signature_and_message(
            signature[1:] + bytes([header % _COMPRESSED]), hash_of_message(message), hasher=None
        )
    except ValueError:
        return False
    return hash_of_key(key.format(compressed=header >= _COMPRESSED)) == key_hash


def _with_length(content: bytes) -> bytes:
    """The bytes behind their number, as Dogecoin writes one."""
    length = len(content)
    if length < 0xFD:
        return bytes([length]) + content
    size, mark = next((size, mark) for size, mark in ((2, 0xFD), (4, 0xFE), (8, 0xFF)) if length < 1 << 8 * size)
    return bytes([mark]) + length.to_bytes(size, "little") + content
