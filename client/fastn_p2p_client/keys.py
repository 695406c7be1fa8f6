"""``PublicKey``: the Ed25519 public key of an identity, written as an ID52.

An ID52 is the 32-byte key in BASE32_DNSSEC (RFC 4648 section 7, "base32hex", lower case, no padding):
52 characters, the last of which carries four bits that are always zero.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Final

from .errors import InvalidKey

KEY_BYTES: Final = 32
"""Bytes of a key."""
ID52_LENGTH: Final = 52
"""Characters of an ID52."""

_ALPHABET: Final = frozenset("0123456789abcdefghijklmnopqrstuv")

# Curve constants: RFC 8032 section 5.1.
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
# The y coordinates of all points whose order divides 8: 0, 1, -1 and the two roots of d·y^4 + 2·y^2 = 1. No secret key
# belongs to such a point.
_ORDER_EIGHT_Y: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_EIGHT_Y, _P - _ORDER_EIGHT_Y})


@lru_cache(maxsize=4096)
def _invalid_reason(raw: bytes) -> str | None:
    """Return why ``raw`` is not a usable Ed25519 public key (RFC 8032 section 5.1.3), or None if it is one."""
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _P:
        return "the encoding of the curve point is not canonical"
    if y in _SMALL_ORDER_Y:
        return "the curve point has a small order"
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    if pow(u * v, (_P - 1) // 2, _P) != 1:
        return "it is not a point on the curve"
    return None


class PublicKey:
    """Public key of an identity: immutable, hashable, ordered by its bytes.

    ``str(key)`` is its ID52 and ``bytes(key)`` its 32 bytes.

    Args:
        value: an ID52 (``PublicKey("i66fo…")``), 32 bytes (``PublicKey(raw)``), or another ``PublicKey``.

    Raises:
        InvalidKey: wrong length, a character outside the alphabet, non-zero trailing bits, or bytes that are not a
            point on the curve.
    """

    __slots__ = ("_hash", "_id52", "_raw")
    _raw: bytes
    _id52: str
    _hash: int

    def __init__(self, value: str | bytes | bytearray | memoryview | PublicKey, /) -> None:
        if isinstance(value, PublicKey):
            raw = value._raw
        elif isinstance(value, str):
            raw = _decode_id52(value)
        else:
            raw = bytes(value)
            if len(raw) != KEY_BYTES:
                raise InvalidKey(text=raw.hex()[:80], reason=f"it has {len(raw)} bytes, a key has {KEY_BYTES}")
        problem = _invalid_reason(raw)
        if problem is not None:
            raise InvalidKey(text=id52_of(raw), reason=problem)
        object.__setattr__(self, "_raw", raw)
        object.__setattr__(self, "_id52", id52_of(raw))
        object.__setattr__(self, "_hash", hash(raw))

    @property
    def id52(self) -> str:
        """The ID52: 52 characters."""
        return self._id52

    def __bytes__(self) -> bytes:
        """Return the 32 bytes of the key."""
        return self._raw

    def __str__(self) -> str:
        return self._id52

    def __repr__(self) -> str:
        return f"PublicKey({self._id52!r})"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, PublicKey) else NotImplemented

    def __lt__(self, other: PublicKey) -> bool:
        return self._raw < other._raw

    def __hash__(self) -> int:
        return self._hash

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a PublicKey is immutable")

    def __reduce__(self) -> tuple[type[PublicKey], tuple[bytes]]:
        return (PublicKey, (self._raw,))


def proven_key(value: str | bytes) -> PublicKey:
    """Return the key of an ID52, or of 32 bytes, that was verified before: by a signature, or before it was stored.

    It takes a tenth of the time of ``PublicKey``, because it does not check that the point is on the curve. A stored
    key that was altered since then belongs to no identity, and matches nothing.

    Raises:
        InvalidKey: the text does not have the form of an ID52.
    """
    key = object.__new__(PublicKey)
    raw = _decode_id52(value) if isinstance(value, str) else value
    object.__setattr__(key, "_raw", raw)
    object.__setattr__(key, "_id52", value if isinstance(value, str) else id52_of(raw))
    object.__setattr__(key, "_hash", hash(raw))
    return key


def id52_of(raw: bytes) -> str:
    """Return the ID52 of the 32 bytes of a key, without the checks of ``PublicKey``."""
    return base64.b32hexencode(raw).decode("ascii").rstrip("=").lower()


def _decode_id52(text: str) -> bytes:
    if len(text) != ID52_LENGTH:
        raise InvalidKey(text=text[:80], reason=f"it has {len(text)} characters, an ID52 has {ID52_LENGTH}")
    strange = next((character for character in text if character not in _ALPHABET), None)
    if strange is not None:
        raise InvalidKey(text=text, reason=f"{strange!r} is not in the alphabet 0-9 a-v")
    raw = base64.b32hexdecode(text.upper() + "====")
    if id52_of(raw) != text:
        raise InvalidKey(text=text, reason="its last character has bits that must be zero")
    return raw
