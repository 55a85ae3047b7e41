"""Ed25519 by the textbook, slow and short: what the vectors are made with. RFC 8032, section 5.1.

The one rule of Commonwatt is `verify`: the equation without a cofactor, S below the group order, every point in its
canonical encoding, and neither the key nor R of small order.
"""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z."""
IDENTITY: Point = (0, 1, 1, 0)


def from_affine(x: int, y: int) -> Point:
    """The point with these coordinates."""
    return x, y, 1, x * y % P


def affine(point: Point) -> tuple[int, int]:
    """The coordinates x and y."""
    inverse = pow(point[2], P - 2, P)
    return point[0] * inverse % P, point[1] * inverse % P


def same(a: Point, b: Point) -> bool:
    """Whether two points are one."""
    return affine(a) == affine(b)


def add(a: Point, b: Point) -> Point:
    """The sum of two points (RFC 8032, section 5.1.4: the formulas are complete)."""
    low = (a[1] - a[0]) * (b[1] - b[0]) % P
    high = (a[1] + a[0]) * (b[1] + b[0]) % P
    t = 2 * a[3] * b[3] * D % P
    z = 2 * a[2] * b[2] % P
    e, f, g, h = high - low, z - t, z + t, high + low
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar: int, point: Point) -> Point:
    """The scalar multiple of a point."""
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def recover_x(y: int, sign: int) -> int | None:
    """The x of this sign on the curve, or None. A zero x is returned for either sign."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_ONE % P
    if x * x % P != square:
        return None
    return P - x if x and x % 2 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = from_affine(recover_x(BASE_Y, 0) or 0, BASE_Y)


def encode(point: Point) -> bytes:
    """32 bytes, little-endian y with the sign of x in the top bit."""
    x, y = affine(point)
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(data: bytes, *, canonical: bool = True) -> Point | None:
    """The point, or None if there is none or it is not the canonical encoding."""
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    x = recover_x(y % P, sign)
    if x is None or (canonical and (y >= P or (x == 0 and sign))):
        return None
    return from_affine(x, y % P)


def is_small(point: Point) -> bool:
    """Whether the point's order divides eight."""
    return same(multiply(8, point), IDENTITY)


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    """h of the verification equation, reduced."""
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L


def secret_scalar(seed: bytes) -> int:
    """The clamped scalar of a seed."""
    number = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return (number & ((1 << 254) - 8)) | 1 << 254


def public_key(seed: bytes) -> bytes:
    """The public key of a 32-byte seed."""
    return encode(multiply(secret_scalar(seed), BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    """The deterministic signature of RFC 8032."""
    key = public_key(seed)
    nonce = hashlib.sha512(hashlib.sha512(seed).digest()[32:] + message).digest()
    return sign_with(secret_scalar(seed), int.from_bytes(nonce, "little") % L, key, message)


def sign_with(scalar: int, nonce: int, key: bytes, message: bytes, offset: Point = IDENTITY) -> bytes:
    """A signature from its parts; `offset` is added to R, for signatures that ought not to exist."""
    r = encode(add(multiply(nonce, BASE), offset))
    return r + ((nonce + challenge(r, key, message) * scalar) % L).to_bytes(32, "little")


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Commonwatt's rule."""
    if len(key) != 32 or len(signature) != 64:
        return False
    point, r, s = decode(key), decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if point is None or r is None or is_small(point) or is_small(r) or s >= L:
        return False
    return same(multiply(s, BASE), add(r, multiply(challenge(signature[:32], key, message), point)))
