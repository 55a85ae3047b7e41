"""Addresses of wallets as people write them: one spelling for each, or it is refused.

A Solana address is the wallet's public key in base58. A Dogecoin address is base58 with a checksum: version, and the
hash of a public key, which only a signature by that key shows.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import base58
from Crypto.Hash import RIPEMD160

from hub.errors import AddressInvalid
from hub.signatures import is_acceptable_key

Chain = Literal["solana", "dogecoin"]

ADDRESS_LENGTH_MAX: Final = 44
"""Of 32 bytes in base58; those of Dogecoin are shorter."""

DOGECOIN_VERSION: Final = 0x1E
"""Pay to the hash of a key, main network. Addresses of scripts have no key that could sign."""
KEY_HASH_BYTES: Final = 20
_CHECKSUM_BYTES: Final = 4


def parse_solana_address(text: str) -> bytes:
    """The 32-byte public key. Raises AddressInvalid, also for what is no key that a wallet could have made."""
    key = _decode(text)
    if not is_acceptable_key(key):
        raise AddressInvalid("not the base58 text of an Ed25519 public key")
    return key


def parse_dogecoin_address(text: str) -> bytes:
    """The 20-byte hash of the public key. Raises AddressInvalid."""
    content = _decode(text)
    payload, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if len(payload) != 1 + KEY_HASH_BYTES or double_sha256(payload)[:_CHECKSUM_BYTES] != checksum:
        raise AddressInvalid("not a Dogecoin address: its length or its checksum is wrong")
    if payload[0] != DOGECOIN_VERSION:
        raise AddressInvalid("not the address of a key on Dogecoin's main network; such begin with D")
    return payload[1:]


def check_address(chain: Chain, text: str) -> bytes | None:
    """The public key that the address is, of a chain where it is one. Raises AddressInvalid."""
    if chain == "solana":
        return parse_solana_address(text)
    parse_dogecoin_address(text)
    return None


def hash_of_key(public_key: bytes) -> bytes:
    """What a Dogecoin address holds of a public key in either of its encodings: RIPEMD-160 of SHA-256, 20 bytes."""
    return RIPEMD160.new(hashlib.sha256(public_key).digest()).digest()


def double_sha256(content: bytes) -> bytes:
    """SHA-256 of SHA-256, 32 bytes."""
    return hashlib.sha256(hashlib.sha256(content).digest()).digest()


def _decode(text: str) -> bytes:
    """The bytes of base58, if `text` is exactly how they are written."""
    if not 0 < len(text) <= ADDRESS_LENGTH_MAX:
        raise AddressInvalid(f"an address has 1 to {ADDRESS_LENGTH_MAX} letters")
    try:
        content = base58.b58decode(text)
    except ValueError:
        raise AddressInvalid("not base58") from None
    if base58.b58encode(content).decode() != text:
        raise AddressInvalid("not base58, or with white space around it")
    return content
