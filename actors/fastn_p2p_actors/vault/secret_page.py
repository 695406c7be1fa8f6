"""Page of memory for one secret, behind a descriptor that another process can keep without reading it.

With memfd_secret(2), no system call and no other process reads the page: neither ``/proc/<pid>/mem`` nor ptrace, not
even as root. Only a process that has the descriptor can map it. Elsewhere it is a sealed memfd in locked memory.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from fastn_p2p_actors.credentials.sodium import ffi, lib

from ..runtime.process_setup import boot_ms

PAGE_BYTES: Final = mmap.PAGESIZE
_SYS_MEMFD_SECRET: Final = 447
"""Number of memfd_secret(2) on every architecture, since Linux 5.14."""
_DEADLINE_AT: Final = 64
"""Offset of the time at which the secret must be gone: milliseconds since boot, 8 bytes; 0 for never."""
_FILLED_AT: Final = 72
"""Offset of a byte that is 1 while the page holds a key."""

_libc = ctypes.CDLL(None, use_errno=True)
_mappings: Final[WeakSet[mmap.mmap]] = WeakSet()
"""Mappings that forked children do not inherit."""


def _keep_mappings() -> None:
    """Never free the objects of the parent's mappings in a forked child.

    Freeing one unmaps its addresses. The kernel may have given them to other memory, because nothing is mapped there in
    the child.
    """
    for mapping in _mappings:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(mapping))


os.register_at_fork(after_in_child=_keep_mappings)


def open_secret_memory(size: int) -> int | None:
    """Return a descriptor of memory that only its mappings can read; None where the kernel has none.

    Raises:
        OSError: it exists, but there is none left for this process.
    """
    descriptor: int = _libc.syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor < 0:
        return None
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_secret_memory(size: int) -> mmap.mmap | None:
    """Return memory that only this process can read; None where the kernel has none, or none left."""
    try:
        descriptor = open_secret_memory(size)
    except OSError:
        return None
    if descriptor is None:
        return None
    try:
        return _map(descriptor, size)
    except OSError:
        return None
    finally:
        os.close(descriptor)


class SecretPage:
    """Page with a key of 32 bytes and the time until which it may be used.

    Attributes:
        descriptor: keeps the page alive in the process that holds it.
        hidden: True if not even root can read it from outside.
        pointer: the key, for libsodium.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the page behind ``descriptor``, and own the descriptor.

        Raises:
            OSError: it is no page of this kind.
        """
        self.descriptor = descriptor
        if os.fstat(descriptor).st_size != PAGE_BYTES:
            raise OSError(errno.EINVAL, "not a page of a secret")
        self._memory = _map(descriptor, PAGE_BYTES)
        self._base: Any = ffi.from_buffer("unsigned char[]", self._memory)
        self.pointer: Any = self._base
        self.hidden = _is_secret(descriptor)
        if not self.hidden:
            lib.sodium_mlock(self._base, PAGE_BYTES)

    @classmethod
    def create(cls) -> SecretPage:
        """Return a new page, full of zeros."""
        try:
            descriptor = open_secret_memory(PAGE_BYTES)
        except OSError:
            descriptor = None
        if descriptor is not None:
            try:
                return cls(descriptor)
            except OSError:  # the limit of locked memory is used up
                os.close(descriptor)
        descriptor = os.memfd_create("fastn-p2p-key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, PAGE_BYTES)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return cls(descriptor)

    @property
    def is_filled(self) -> bool:
        """Return whether the page holds a key that may still be used. Wipe it if its time is over."""
        deadline = self.deadline_ms
        if deadline and boot_ms() >= deadline:
            lib.sodium_memzero(self._base, PAGE_BYTES)
        return self._memory[_FILLED_AT] == 1

    def mark_filled(self) -> None:
        """Say that the key at ``pointer`` is complete."""
        self._memory[_FILLED_AT] = 1

    @property
    def deadline_ms(self) -> int:
        """Milliseconds since boot at which the key must be gone; 0 for never."""
        return int.from_bytes(self._memory[_DEADLINE_AT : _DEADLINE_AT + 8], "little")

    @deadline_ms.setter
    def deadline_ms(self, value: int) -> None:
        self._memory[_DEADLINE_AT : _DEADLINE_AT + 8] = value.to_bytes(8, "little")

    def wipe(self) -> None:
        """Overwrite the page with zeros, for every process that has it, and close the descriptor."""
        lib.sodium_memzero(self._base, PAGE_BYTES)
        self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close the descriptor. The page lives on where another process keeps it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _map(descriptor: int, size: int) -> mmap.mmap:
    memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
    memory.madvise(mmap.MADV_DONTFORK)
    memory.madvise(mmap.MADV_DONTDUMP)
    _mappings.add(memory)
    return memory


def _is_secret(descriptor: int) -> bool:
    try:
        return "secretmem" in str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return False
