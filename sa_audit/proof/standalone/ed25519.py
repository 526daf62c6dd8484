"""Ed25519: checking a signature, in plain integers.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import hashlib

# -- Ed25519 (RFC 8032, section 5.1.7) ----------------------------------------------------

Point = tuple[int, int, int, int]

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def point(raw: bytes) -> Point | None:
    """Decode a point to x, y, z, t, or None."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_1 % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def add(p: Point, q: Point) -> Point:
    """Add two points."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar: int, p: Point) -> Point:
    """Multiply a point."""
    product = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            product = add(product, p)
        p, scalar = add(p, p), scalar >> 1
    return product


BASE_POINT = (4 * pow(5, P - 2, P) % P).to_bytes(32, "little")


def ed25519(key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature is that key's over a message."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, base, s = point(key), point(BASE_POINT), int.from_bytes(signature[32:], "little")
    if a is None or base is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    minus_a = (P - a[0], a[1], a[2], P - a[3])
    x, y, z, _t = add(multiply(s, base), multiply(k, minus_a))
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]
