"""Authenticated encryption of messages with a shared key: XSalsa20-Poly1305, each with a new random nonce."""

from __future__ import annotations

import secrets
from typing import Final

from .sodium import ffi, lib

KEY_BYTES: Final[int] = lib.crypto_secretbox_keybytes()
_NONCE_BYTES: Final[int] = lib.crypto_secretbox_noncebytes()
_MAC_BYTES: Final[int] = lib.crypto_secretbox_macbytes()
OVERHEAD: Final = _NONCE_BYTES + _MAC_BYTES
"""Bytes by which a box is longer than its message."""


def seal_box(key: bytes, message: bytes) -> bytes:
    """Return the message, encrypted under the key (32 bytes): nonce, then ciphertext."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = ffi.new("unsigned char[]", len(message) + _MAC_BYTES)
    if lib.crypto_secretbox_easy(sealed, message, len(message), nonce, key) != 0:
        raise RuntimeError("libsodium cannot encrypt")
    return nonce + bytes(ffi.buffer(sealed))


def open_box(key: bytes, box: bytes) -> bytes | None:
    """Return the message in a box; None if it was not sealed under this key (32 bytes), or is damaged."""
    if len(box) < OVERHEAD:
        return None
    nonce, sealed = box[:_NONCE_BYTES], box[_NONCE_BYTES:]
    message = ffi.new("unsigned char[]", len(sealed) - _MAC_BYTES)
    if lib.crypto_secretbox_open_easy(message, sealed, len(sealed), nonce, key) != 0:
        return None
    return bytes(ffi.buffer(message))
