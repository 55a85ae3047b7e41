"""The hub's verifier refuses what the chain's refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nacl.bindings
import pytest

from hub.signatures import SigningKey, is_acceptable_key, verify

ORDER = 2**252 + 27742317777372353535851937790883648493
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order 8."""
MESSAGE = b"5000 Wh"
KEY = SigningKey(b"k" * 32)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ed25519.json").read_text())


def _signature_with(point: bytes, public_key: bytes, scalar: int) -> bytes:
    """A signature whose R is `point` and whose equation holds up to a small-order part."""
    challenge = int.from_bytes(hashlib.sha512(point + public_key + MESSAGE).digest(), "little") % ORDER
    return point + ((7 + challenge * scalar) % ORDER).to_bytes(32, "little")


def _scalar(seed: bytes) -> int:
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return int.from_bytes(digest, "little")


def test_a_signature_of_the_key_verifies_and_no_other():
    signature = KEY.sign(MESSAGE)
    assert verify(KEY.public_key, MESSAGE, signature)
    assert not verify(KEY.public_key, MESSAGE + b"0", signature)
    assert not verify(SigningKey(bytes(32)).public_key, MESSAGE, signature)
    assert not verify(KEY.public_key, MESSAGE, signature[:-1])
    assert not verify(KEY.public_key[:-1], MESSAGE, signature)


def test_a_second_form_of_the_same_signature_is_refused():
    signature = KEY.sign(MESSAGE)
    s_plus_order = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(KEY.public_key, MESSAGE, signature[:32] + s_plus_order.to_bytes(32, "little"))


def test_the_equation_is_checked_without_the_cofactor():
    base = nacl.bindings.crypto_scalarmult_ed25519_base_noclamp((7).to_bytes(32, "little"))
    clean = _signature_with(base, KEY.public_key, _scalar(b"k" * 32))
    assert verify(KEY.public_key, MESSAGE, clean)
    twisted = _signature_with(nacl.bindings.crypto_core_ed25519_add(base, TORSION), KEY.public_key, _scalar(b"k" * 32))
    assert not verify(KEY.public_key, MESSAGE, twisted)


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        TORSION,
        (2**255 - 19).to_bytes(32, "little"),
        b"\xff" * 32,
        b"\x02" + bytes(31),
        nacl.bindings.crypto_core_ed25519_add(KEY.public_key, TORSION),
        KEY.public_key[:31],
        KEY.public_key + b"\x00",
    ],
)
def test_keys_of_small_or_mixed_order_or_in_another_form_cannot_enrol(key):
    assert is_acceptable_key(KEY.public_key)
    assert not is_acceptable_key(key)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_a_published_vector_is_judged_as_the_chain_judges_it(case):
    parts = [bytes.fromhex(case[name]) for name in ("public_key", "message", "signature")]
    assert verify(*parts) == case["valid"]
