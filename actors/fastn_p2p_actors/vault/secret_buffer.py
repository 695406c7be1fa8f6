"""Buffer of any size for secrets, in locked memory that is wiped at the end."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

from fastn_p2p_actors.credentials.sodium import ffi, lib

from .locked_memory import MADV_WIPEONFORK


class SecretBuffer:
    """Memory that is never swapped, dumped or inherited. Use it with ``with``: it is wiped at the end.

    If the kernel refuses to lock it (``RLIMIT_MEMLOCK``), it may be swapped out. The other protections still work.

    Attributes:
        pointer: the memory, for libsodium.
        view: the memory, for the kernel and for copies of what is public.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):
            self._memory.madvise(MADV_WIPEONFORK)
        self.pointer: Any = ffi.from_buffer("unsigned char[]", self._memory)
        self.view = memoryview(self._memory)
        lib.sodium_mlock(self.pointer, size)  # and MADV_DONTDUMP

    def __enter__(self) -> SecretBuffer:
        return self

    def __exit__(self, *exception: object) -> None:
        lib.sodium_munlock(self.pointer, self._size)  # wipes first
