"""Transfer of one secret key to another process: sealed for its receiver, so that no buffer on the way has the key.

Message queues, codecs and the interpreter leave copies of what they carry in memory that is freed. Here they carry a
sealed box of libsodium (X25519, XSalsa20-Poly1305), which only the receiver's key opens.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Final

from fastn_p2p_client.errors import InternalError

from .sodium import MODULE, SEED_BYTES, ffi, lib

RECIPIENT_BYTES: Final = 32
"""Bytes of a receiver's public key."""
_STACK_BYTES: Final = 1024 * 1024
"""Bytes of the stack that are overwritten, of the 8 MiB that the main thread has."""
_SEALED_BYTES: Final[int] = SEED_BYTES + lib.crypto_box_sealbytes()


class KeyReceiver:
    """Receiver of one key.

    Attributes:
        public: key for which the sender seals.
    """

    def __init__(self) -> None:
        public = ffi.new("unsigned char[]", RECIPIENT_BYTES)
        self._secret: Any = ffi.new("unsigned char[]", RECIPIENT_BYTES)
        lib.crypto_box_keypair(public, self._secret)
        self.public = bytes(ffi.buffer(public))

    def open(self, sealed: bytes) -> bytes:
        """Return the key of 32 bytes. Call ``wipe`` on it after its use. This receiver opens nothing else.

        Raises:
            InternalError: it was sealed for another receiver, or changed.
        """
        key = bytes(SEED_BYTES)
        opened = -1
        if len(sealed) == _SEALED_BYTES:
            target = ffi.from_buffer("unsigned char[]", key)  # nobody else has this object yet
            opened = lib.crypto_box_seal_open(target, sealed, len(sealed), self.public, self._secret)
        lib.sodium_memzero(self._secret, RECIPIENT_BYTES)
        if opened != 0:
            raise InternalError(reason="a key was not sealed for this process")
        return key


def seal_key(key: Any, recipient: bytes) -> bytes:
    """Return the 32 bytes at the pointer ``key``, sealed for a receiver's public key.

    Raises:
        ValueError: the public key has another length.
    """
    if len(recipient) != RECIPIENT_BYTES:
        raise ValueError(f"a receiver's key has {RECIPIENT_BYTES} bytes")
    sealed = ffi.new("unsigned char[]", _SEALED_BYTES)
    lib.crypto_box_seal(sealed, key, SEED_BYTES, recipient)
    return bytes(ffi.buffer(sealed))


def wipe(key: bytes) -> None:
    """Overwrite a key that ``KeyReceiver`` has returned, in place, and what its users have left on this thread's stack.

    Native code that was given the key has copied it to the stack, and returned: 17 copies were found there after the
    binding of an endpoint.
    """
    lib.sodium_memzero(ffi.from_buffer("unsigned char[]", key), len(key))
    with contextlib.suppress(AttributeError):  # a libsodium without it
        ctypes.CDLL(MODULE).sodium_stackzero(ctypes.c_size_t(_STACK_BYTES))
