"""Ed25519 key pairs whose secret half lives in locked memory, from its first moment to its last.

libsodium makes, reads and uses secrets in place; the kernel copies between the page and the file. No secret is ever a
Python object, with one exception that says so: ``reveal_seed``.
"""

from __future__ import annotations

import os

from fastn_p2p_actors.credentials.sodium import PUBLIC_KEY_BYTES, SEED_BYTES, SIGNATURE_BYTES, ffi, lib

from .locked_memory import (
    LockedMemory,
    Slot,
)

__all__ = ["KeyPair"]


class KeyPair:
    """A public key, and the slot with its secret (libsodium's form: seed, then public key)."""

    __slots__ = ("_memory", "_slot", "public")

    def __init__(self, memory: LockedMemory, seed: Slot) -> None:
        """The pair of the seed in ``seed``, which is given back."""
        self._memory = memory
        self._slot = memory.allocate()
        public = ffi.new("unsigned char[]", PUBLIC_KEY_BYTES)
        lib.crypto_sign_seed_keypair(public, self._slot.pointer, seed.pointer)
        memory.free(seed)
        self.public = bytes(ffi.buffer(public))

    @classmethod
    def generate(cls, memory: LockedMemory) -> KeyPair:
        """A new pair from the kernel's random numbers."""
        seed = memory.allocate()
        lib.randombytes(seed.pointer, SEED_BYTES)
        return cls(memory, seed)

    @classmethod
    def read(cls, memory: LockedMemory, descriptor: int, offset: int) -> KeyPair:
        """The pair whose seed is the 32 bytes at ``offset`` of a file.

        Raises:
            EOFError: the file ends before.
            OSError: it cannot be read.
        """
        seed = memory.allocate()
        try:
            if os.preadv(descriptor, [seed.view[:SEED_BYTES]], offset) != SEED_BYTES:
                raise EOFError
        except BaseException:
            memory.free(seed)
            raise
        return cls(memory, seed)

    @property
    def seed_view(self) -> memoryview:
        """The seed in its page: for ``os.writev``, not for copying."""
        self._memory.check()
        return self._slot.view[:SEED_BYTES].toreadonly()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature.

        Raises:
            MemoryWiped: the secret is gone.
        """
        self._memory.check()
        signed = ffi.new("unsigned char[]", SIGNATURE_BYTES + len(message))
        length = ffi.new("unsigned long long *")
        lib.crypto_sign(signed, length, message, len(message), self._slot.pointer)
        return bytes(ffi.buffer(signed, SIGNATURE_BYTES))

    def reveal_seed(self) -> bytes:
        """The seed as bytes, which nothing can wipe: only for the transport key, which has to be handed over."""
        return bytes(self.seed_view)

    def forget(self) -> None:
        """Wipes the secret; the pair must not be used any more."""
        self._memory.free(self._slot)
