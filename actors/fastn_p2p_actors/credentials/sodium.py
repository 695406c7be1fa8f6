"""libsodium, as PyNaCl ships it.

The compiled module is used directly. ``nacl.bindings`` wraps the same functions, but takes five times as long to import
(41 ms against 8 ms). Its signing also passes secrets as Python bytes, which cannot be wiped.
"""

from __future__ import annotations

from typing import Any, Final

import nacl._sodium  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

ffi: Final[Any] = nacl._sodium.ffi
lib: Final[Any] = nacl._sodium.lib
MODULE: Final[str] = nacl._sodium.__file__
"""Path of the compiled module, for functions of libsodium that it does not wrap."""

if lib.sodium_init() < 0:
    raise RuntimeError("libsodium cannot be used: sodium_init failed")

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final[int] = lib.crypto_sign_publickeybytes()
SECRET_KEY_BYTES: Final[int] = lib.crypto_sign_secretkeybytes()
"""Bytes of libsodium's form of a secret key: the seed, then the public key."""
SIGNATURE_BYTES: Final[int] = lib.crypto_sign_bytes()


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` is that of ``public`` over ``message`` (Ed25519, RFC 8032).

    Signatures that are not canonical and keys of small order are rejected.
    """
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    signed = signature + message
    opened = ffi.new("unsigned char[]", len(signed))
    length = ffi.new("unsigned long long *")
    return bool(lib.crypto_sign_open(opened, length, signed, len(signed), public) == 0)
