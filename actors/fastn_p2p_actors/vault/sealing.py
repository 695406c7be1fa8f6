"""Sealed secrets: XSalsa20-Poly1305 of libsodium under a key of their own, in locked memory throughout.

Each secret gets a key from BLAKE2b over its public header, keyed with the master key. So a header that was changed, or
that belongs to another secret, does not open it.
"""

from __future__ import annotations

from typing import Any, Final

from fastn_p2p_actors.credentials.sodium import ffi, lib

from .locked_memory import LockedMemory

KEY_BYTES: Final = 32
_NONCE_BYTES: Final[int] = lib.crypto_secretbox_noncebytes()
_MAC_BYTES: Final[int] = lib.crypto_secretbox_macbytes()
SEALED_BYTES: Final = _NONCE_BYTES + _MAC_BYTES + KEY_BYTES
"""Bytes of a sealed secret of 32 bytes: nonce, authenticator, ciphertext."""
_PERSONAL: Final = b"fastn-p2p/seal/1"
_SALT: Final = bytes(16)


def derive_key(target: Any, key: Any, header: bytes) -> None:
    """Write the key of the header to ``target``: BLAKE2b-256 keyed with the 32 bytes at ``key``."""
    lib.crypto_generichash_blake2b_salt_personal(
        target, KEY_BYTES, header, len(header), key, KEY_BYTES, _SALT, _PERSONAL
    )


def seal(memory: LockedMemory, key: Any, header: bytes, secret: Any) -> bytes:
    """Return the 32 bytes at ``secret``, sealed under the key at ``key`` and bound to the header."""
    own = memory.allocate()
    try:
        derive_key(own.pointer, key, header)
        sealed = ffi.new("unsigned char[]", SEALED_BYTES)
        lib.randombytes(sealed, _NONCE_BYTES)
        lib.crypto_secretbox_easy(sealed + _NONCE_BYTES, secret, KEY_BYTES, sealed, own.pointer)
        return bytes(ffi.buffer(sealed))
    finally:
        memory.free(own)


def unseal(memory: LockedMemory, key: Any, header: bytes, sealed: bytes, target: Any) -> bool:
    """Write the secret to ``target``. Return False if the key, the header or the sealed bytes are others."""
    if len(sealed) != SEALED_BYTES:
        return False
    own = memory.allocate()
    try:
        derive_key(own.pointer, key, header)
        rest = sealed[_NONCE_BYTES:]
        opened = lib.crypto_secretbox_open_easy(target, rest, len(rest), sealed[:_NONCE_BYTES], own.pointer)
        return bool(opened == 0)
    finally:
        memory.free(own)
