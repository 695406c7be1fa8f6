"""Secrets that arrive on a descriptor, and the key that argon2id derives from a passphrase.

A passphrase is the bytes of the first line, without the line break, as they are: no other encoding, no trimming, no
Unicode normalization. They go from the descriptor into locked memory and are never a Python object.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from fastn_p2p_actors.credentials.sodium import ffi, lib
from fastn_p2p_client.errors import InvalidPassphrase, Overloaded

from .locked_memory import LockedMemory
from .sealing import KEY_BYTES

MAX_PASSPHRASE: Final = 1024
"""Bytes of a passphrase. Longer ones are refused instead of cut."""
READ_SECONDS: Final = 10.0
"""Seconds in which a descriptor must deliver its secret."""
MIB: Final = 1024 * 1024
_SALT_BYTES: Final[int] = lib.crypto_pwhash_saltbytes()
_ARGON2ID: Final[int] = lib.crypto_pwhash_alg_argon2id13()
_MOST_MEMORY: Final = 4096 * MIB
_MOST_PASSES: Final = 64
"""Limits for parameters of a slot that another program has written: a start must not take all memory, or hours."""
_CARRIAGE_RETURN: Final = 13


class Argon2Cost(msgspec.Struct, frozen=True):
    """Cost of argon2id (RFC 9106). The default is libsodium's ``MODERATE``: 256 MiB, 0.7 s on one core."""

    passes: int = 3
    memory: int = 256 * MIB
    """Bytes."""


PRODUCT_COST: Final = Argon2Cost()
KEY_COST: Final = Argon2Cost(passes=1, memory=8192)
"""The least that argon2id takes, for random keys of 256 bits: nobody can guess one at any speed."""


class Secret:
    """Secret of any length up to ``MAX_PASSPHRASE`` in locked memory. Use it with ``with``: it is wiped at the end."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.pointer: Any = ffi.from_buffer("unsigned char[]", self._memory)
        lib.sodium_mlock(self.pointer, mmap.PAGESIZE)  # and MADV_DONTDUMP
        self.length = 0

    def __enter__(self) -> Secret:
        return self

    def __exit__(self, *exception: object) -> None:
        self.length = 0
        lib.sodium_munlock(self.pointer, mmap.PAGESIZE)  # wipes first

    def read(self, descriptor: int) -> None:
        """Read the first line of a descriptor. Takes at most ``READ_SECONDS``; call it in a thread.

        Raises:
            InvalidPassphrase: it is empty or too long, or cannot be read.
        """
        end = time.monotonic() + READ_SECONDS
        view = memoryview(self._memory)[: MAX_PASSPHRASE + 2]
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        filled = 0
        while filled < len(view) and self._memory.find(b"\n", 0, filled) < 0:
            with contextlib.suppress(InterruptedError):
                if not waiting.poll(max(0, end - time.monotonic()) * 1000):
                    raise InvalidPassphrase(reason=f"none arrived within {READ_SECONDS:g} s")
            try:
                count = os.readv(descriptor, [view[filled:]])
            except BlockingIOError:
                continue
            except OSError as error:
                raise InvalidPassphrase(reason=f"it cannot be read: {error.strerror}") from None
            if count == 0:
                break
            filled += count
        self.length = self._line_length(filled)
        if self.length == 0:
            raise InvalidPassphrase(reason="it is empty")
        if self.length > MAX_PASSPHRASE:
            raise InvalidPassphrase(reason=f"it is longer than {MAX_PASSPHRASE} bytes")

    @property
    def page(self) -> memoryview:
        """The whole locked page, to write a secret into. Set ``length`` afterwards."""
        return memoryview(self._memory)

    @property
    def view(self) -> memoryview:
        """The secret in its page. Do not copy it."""
        return memoryview(self._memory)[: self.length].toreadonly()

    def _line_length(self, filled: int) -> int:
        end = self._memory.find(b"\n", 0, filled)
        if end < 0:
            return filled
        return end - 1 if end > 0 and self._memory[end - 1] == _CARRIAGE_RETURN else end


def new_salt() -> bytes:
    """Return a random salt for ``derive``."""
    return os.urandom(_SALT_BYTES)


def is_usable(cost: Argon2Cost, salt: bytes) -> bool:
    """Return whether argon2id takes these parameters, within the limits of this program."""
    return (
        1 <= cost.passes <= _MOST_PASSES
        and lib.crypto_pwhash_argon2id_memlimit_min() <= cost.memory <= _MOST_MEMORY
        and len(salt) == _SALT_BYTES
    )


def derive(target: Any, secret: Secret, cost: Argon2Cost, salt: bytes) -> None:
    """Write the 32-byte key of a passphrase to ``target``. Takes most of a second and ``cost.memory``, without the GIL.

    Raises:
        Overloaded: there is not enough memory.
    """
    password = ffi.cast("char *", secret.pointer)
    done = lib.crypto_pwhash(target, KEY_BYTES, password, secret.length, salt, cost.passes, cost.memory, _ARGON2ID)
    if done != 0:
        raise Overloaded(what="memory for the passphrase, in MiB", limit=cost.memory // MIB)


@contextlib.contextmanager
def temporary_key(memory: LockedMemory) -> Iterator[Any]:
    """Return a pointer to 32 bytes of locked memory, which are wiped at the end."""
    slot = memory.allocate()
    try:
        yield slot.pointer
    finally:
        memory.free(slot)
