"""Makes ed25519.json: signatures that one rule accepts or refuses. See ed25519.py for the rule."""

import hashlib
from collections.abc import Iterator
from typing import Any

import ed25519
from ed25519 import BASE, IDENTITY, L, P, Point

RFC_8032 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "test SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}
SEED = hashlib.sha256(b"commonwatt golden vectors").digest()
MESSAGE = b"one kilowatt-hour"
NONCE = int.from_bytes(hashlib.sha512(b"a nonce").digest(), "little") % L

Case = dict[str, Any]


def cases() -> list[Case]:
    """All cases, each checked against the rule as ed25519.py spells it."""
    made = [*valid(), *bad_scalars(), *small_keys(), *small_r(), *mixed_order(), *plainly_wrong()]
    for case in made:
        parts = [bytes.fromhex(case[name]) for name in ("public_key", "message", "signature")]
        if ed25519.verify(parts[0], parts[1], parts[2]) != case["valid"]:
            raise AssertionError(case["name"])
    return made


def _case(name: str, key: bytes, message: bytes, signature: bytes, *, valid: bool = False) -> Case:
    return {
        "name": name,
        "public_key": key.hex(),
        "message": message.hex(),
        "signature": signature.hex(),
        "valid": valid,
    }


def valid() -> Iterator[Case]:
    """The examples of RFC 8032, re-computed, and one of ours."""
    for name, (seed, message, signature) in RFC_8032.items():
        secret = bytes.fromhex(seed)
        made = ed25519.sign(secret, bytes.fromhex(message))
        if made.hex() != signature:
            raise AssertionError(name)
        yield _case(f"RFC 8032 {name}", ed25519.public_key(secret), bytes.fromhex(message), made, valid=True)
    yield _case("ours", ed25519.public_key(SEED), MESSAGE, ed25519.sign(SEED, MESSAGE), valid=True)


def bad_scalars() -> Iterator[Case]:
    """The same signature with another number for S: it satisfies the equation, and must be refused."""
    key, signature = ed25519.public_key(SEED), ed25519.sign(SEED, MESSAGE)
    s = int.from_bytes(signature[32:], "little")
    for times in (1, 2, 7, 14):
        malleated = signature[:32] + (s + times * L).to_bytes(32, "little")
        yield _case(f"S + {times} L", key, MESSAGE, malleated)
    yield _case("S = L", key, MESSAGE, signature[:32] + L.to_bytes(32, "little"))
    yield _case("S = 0", key, MESSAGE, signature[:32] + bytes(32))
    yield _case("S with the top bit set", key, MESSAGE, signature[:-1] + bytes([signature[-1] | 0x80]))


def torsion() -> dict[str, Point]:
    """The eight points of small order, by their order and number."""
    seed = 2
    while True:
        x = ed25519.recover_x(seed, 0)
        generator = IDENTITY if x is None else ed25519.multiply(L, ed25519.from_affine(x, seed))
        if not ed25519.same(ed25519.multiply(4, generator), IDENTITY):
            break
        seed += 1
    return {f"{number} T": ed25519.multiply(number, generator) for number in range(8)}


def small_encodings() -> dict[str, bytes]:
    """Every encoding, canonical or not, of a point of small order."""
    encodings = {name: ed25519.encode(point) for name, point in torsion().items()}
    known = set(encodings.values())
    for y in (0, 1, P - 1, P, P + 1):
        for sign in (0, 1):
            data = (y | sign << 255).to_bytes(32, "little")
            if data not in known:
                encodings[f"non-canonical y = {_short(y)}, sign {sign}"] = data
    return encodings


def _short(y: int) -> str:
    return str(y) if y < 2 else f"p{y - P:+d}"


def small_keys() -> Iterator[Case]:
    """Keys that anybody can sign for: a message is chosen for which h times the key vanishes."""
    for name, key in small_encodings().items():
        point = ed25519.decode(key, canonical=False)
        for attempt in range(1_000):
            message = MESSAGE + b" %d" % attempt
            signature = ed25519.sign_with(0, NONCE, key, message)
            h = ed25519.challenge(signature[:32], key, message)
            if point is not None and ed25519.same(ed25519.multiply(h, point), IDENTITY):
                yield _case(f"small-order key {name}", key, message, signature)
                break


def small_r() -> Iterator[Case]:
    """R of small order: with a cofactor these satisfy the equation, for the identity even without."""
    key, scalar = ed25519.public_key(SEED), ed25519.secret_scalar(SEED)
    for name, r in small_encodings().items():
        s = ed25519.challenge(r, key, MESSAGE) * scalar % L
        yield _case(f"small-order R {name}", key, MESSAGE, r + s.to_bytes(32, "little"))


def mixed_order() -> Iterator[Case]:
    """A key with a part of small order is no small key: valid where the equation holds without a cofactor."""
    scalar, tail = ed25519.secret_scalar(SEED), torsion()["1 T"]
    key = ed25519.encode(ed25519.add(ed25519.multiply(scalar, BASE), tail))
    wanted = {True: "mixed-order key, equation holds", False: "mixed-order key, holds only with a cofactor"}
    attempt = 0
    while wanted:
        message = MESSAGE + b" mixed %d" % attempt
        attempt += 1
        signature = ed25519.sign_with(scalar, NONCE, key, message)
        holds = ed25519.challenge(signature[:32], key, message) % 8 == 0
        if holds in wanted:
            yield _case(wanted.pop(holds), key, message, signature, valid=holds)
    key = ed25519.public_key(SEED)
    shifted = ed25519.sign_with(scalar, NONCE, key, MESSAGE, offset=tail)
    yield _case("R shifted by a point of order eight", key, MESSAGE, shifted)


def plainly_wrong() -> Iterator[Case]:
    """What every verifier refuses."""
    key, signature = ed25519.public_key(SEED), ed25519.sign(SEED, MESSAGE)
    other = ed25519.public_key(hashlib.sha256(SEED).digest())
    yield _case("another message", key, MESSAGE + b"s", signature)
    yield _case("another key", other, MESSAGE, signature)
    yield _case("a flipped bit in R", key, MESSAGE, bytes([signature[0] ^ 1]) + signature[1:])
    yield _case("a flipped bit in S", key, MESSAGE, signature[:32] + bytes([signature[32] ^ 1]) + signature[33:])
    yield _case("all zero signature", key, MESSAGE, bytes(64))
    yield _case("63 bytes", key, MESSAGE, signature[:-1])
    yield _case("65 bytes", key, MESSAGE, signature + b"\0")
    yield _case("a key of 31 bytes", key[:-1], MESSAGE, signature)
    off_curve = next(y for y in range(2, 100) if ed25519.recover_x(y, 0) is None)
    yield _case("a key that is no point", off_curve.to_bytes(32, "little"), MESSAGE, signature)
    for k in range(2, 19):
        if ed25519.recover_x(k, 0) is not None:
            yield _case(f"non-canonical key y = p + {k}", (P + k).to_bytes(32, "little"), MESSAGE, signature)
