"""Memory for secrets: never swapped, dumped or inherited, and wiped at the end."""

from __future__ import annotations

import logging
import mmap
import threading
from typing import Any, Final

from fastn_p2p_actors.credentials.sodium import SECRET_KEY_BYTES, ffi, lib

from .secret_page import map_secret_memory

SLOT_BYTES: Final = SECRET_KEY_BYTES
CHUNK_BYTES: Final = mmap.PAGESIZE
MADV_WIPEONFORK: Final = 18  # linux/mman.h; the mmap module does not have it

log = logging.getLogger(__name__)


class MemoryWiped(Exception):
    """A secret was used after ``LockedMemory.wipe``."""


class LockedBytes:
    """Space for one secret key. ``pointer`` is for libsodium, ``view`` for the kernel's read and write."""

    __slots__ = ("pointer", "view")

    def __init__(self, pointer: Any, view: memoryview) -> None:
        self.pointer = pointer
        self.view = view

    def clear(self) -> None:
        lib.sodium_memzero(self.pointer, SLOT_BYTES)


class LockedMemory:
    """Pages that hold only secrets. It grows by a page at a time and never moves a secret.

    If the kernel refuses to lock a page (``RLIMIT_MEMLOCK``), that is logged once and ``locked`` is False: secrets may
    then be swapped out. The other protections still work.

    Attributes:
        hidden: take further pages from memfd_secret(2), which not even root can read from outside. While there are
            such pages, the kernel does not hibernate. So only a vault with a passphrase uses them.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self.locked = True
        self.hidden = hidden
        self._chunks: list[tuple[mmap.mmap, Any]] = []
        self._free: list[LockedBytes] = []
        self._wiped = False
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes taken from the system."""
        return len(self._chunks) * CHUNK_BYTES

    def allocate(self) -> LockedBytes:
        """Return a slot full of zeros.

        Raises:
            MemoryWiped: ``wipe`` was called.
        """
        with self._lock:  # argon2id runs in a thread
            self.check()
            if not self._free:
                self._grow()
            return self._free.pop()

    def free(self, slot: LockedBytes) -> None:
        """Wipe the slot, so that another secret can use it."""
        slot.clear()
        self._free.append(slot)

    def check(self) -> None:
        """Raise MemoryWiped after ``wipe``: wiped slots hold zeros, which libsodium would use as a key."""
        if self._wiped:
            raise MemoryWiped

    def wipe(self) -> None:
        """Overwrite every secret with zeros. Slots must not be used any more."""
        self._wiped = True
        for _, base in self._chunks:
            lib.sodium_munlock(base, CHUNK_BYTES)  # wipes first, whether locked or not
        self._free.clear()

    def _grow(self) -> None:
        secret = map_secret_memory(CHUNK_BYTES) if self.hidden else None
        if secret is not None:
            self._add(secret, ffi.from_buffer("unsigned char[]", secret))
            return
        chunk = mmap.mmap(-1, CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ffi.from_buffer("unsigned char[]", chunk)
        chunk.madvise(mmap.MADV_DONTDUMP)
        try:
            chunk.madvise(MADV_WIPEONFORK)
        except OSError as error:  # before Linux 4.14
            log.warning("forked processes would inherit secrets: %s. Linux 4.14 or later prevents that.", error)
        if lib.sodium_mlock(base, CHUNK_BYTES) != 0 and self.locked:
            self.locked = False
            log.warning("memory for secrets cannot be locked and may be swapped to disk: raise RLIMIT_MEMLOCK")
        self._add(chunk, base)

    def _add(self, chunk: mmap.mmap, base: Any) -> None:
        self._chunks.append((chunk, base))
        view = memoryview(chunk)
        for start in range(0, CHUNK_BYTES, SLOT_BYTES):
            self._free.append(LockedBytes(base + start, view[start : start + SLOT_BYTES]))
