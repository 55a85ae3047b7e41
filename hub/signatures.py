"""Ed25519 behind one seam: whatever verifies here must refuse everything that the chain's verifier refuses.

The rule is RFC 8032 with canonical S, the equation without the cofactor, and no small-order key or R. libsodium applies
exactly that (tests/hub/test_signatures.py pins it). Keys are held to more, once, at enrolment: a canonical encoding
of a point in the prime-order subgroup, which every honestly made key is, and with which all known verifiers agree.
"""

from __future__ import annotations

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from protocol.seal import SIGNATURE_BYTES

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32


def is_acceptable_key(public_key: bytes) -> bool:
    """Whether a meter may enrol with this key: 32 bytes, canonical, on the curve, in the prime-order subgroup."""
    return len(public_key) == PUBLIC_KEY_BYTES and crypto_core_ed25519_is_valid_point(public_key)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is this key's over `message`. Wrong lengths are simply no signature."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


class SigningKey:
    """The hub's own key, from its 32-byte seed: signs commands."""

    def __init__(self, seed: bytes) -> None:
        self.public_key, self._secret_key = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature alone."""
        return crypto_sign(message, self._secret_key)[:SIGNATURE_BYTES]
