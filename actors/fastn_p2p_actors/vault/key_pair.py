"""Ed25519 key pairs whose secret is always in locked memory.

libsodium creates, reads and uses secrets in place. The kernel copies them between the page and the file. No secret is
ever a Python object.
"""

from __future__ import annotations

import os
from typing import Any

from fastn_p2p_actors.credentials.sodium import PUBLIC_KEY_BYTES, SEED_BYTES, SIGNATURE_BYTES, ffi, lib

from .locked_memory import LockedBytes, LockedMemory


class KeyPair:
    """Public key, and the slot of its secret key (libsodium's form: seed, then public key)."""

    __slots__ = ("_memory", "_slot", "public")

    def __init__(self, memory: LockedMemory, seed: LockedBytes) -> None:
        """Create the pair of the seed in ``seed``, and free that slot."""
        self._memory = memory
        self._slot = memory.allocate()
        public = ffi.new("unsigned char[]", PUBLIC_KEY_BYTES)
        lib.crypto_sign_seed_keypair(public, self._slot.pointer, seed.pointer)
        memory.free(seed)
        self.public = bytes(ffi.buffer(public))

    @classmethod
    def generate(cls, memory: LockedMemory) -> KeyPair:
        """Create a new pair from the kernel's random numbers."""
        seed = memory.allocate()
        lib.randombytes(seed.pointer, SEED_BYTES)
        return cls(memory, seed)

    @classmethod
    def read(cls, memory: LockedMemory, descriptor: int, offset: int) -> KeyPair:
        """Return the pair whose seed is the 32 bytes at ``offset`` of a file.

        Raises:
            EOFError: the file is shorter.
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

    def copy(self) -> KeyPair:
        """Return the same pair in a slot of its own."""
        seed = self._memory.allocate()
        ffi.memmove(seed.pointer, self.seed_pointer, SEED_BYTES)
        return KeyPair(self._memory, seed)

    @property
    def seed_pointer(self) -> Any:
        """The seed in its page, for libsodium."""
        self._memory.check()
        return self._slot.pointer

    @property
    def seed_view(self) -> memoryview:
        """The seed in its page, for ``os.writev``. Do not copy it."""
        self._memory.check()
        return self._slot.view[:SEED_BYTES].toreadonly()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of the message.

        Raises:
            MemoryWiped: the secret was wiped.
        """
        self._memory.check()
        signed = ffi.new("unsigned char[]", SIGNATURE_BYTES + len(message))
        length = ffi.new("unsigned long long *")
        lib.crypto_sign(signed, length, message, len(message), self._slot.pointer)
        return bytes(ffi.buffer(signed, SIGNATURE_BYTES))

    def wipe(self) -> None:
        """Wipe the secret. The pair must not be used any more."""
        self._memory.free(self._slot)
