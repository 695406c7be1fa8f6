"""Page of memory for a secret: what forked children have of it."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os

from fastn_p2p_actors.credentials.sodium import ffi
from fastn_p2p_actors.vault.secret_page import PAGE_BYTES, SecretPage

_MAP_FIXED_NOREPLACE = 0x100000


def map_at(address: int) -> None:
    """Map a page with zeros at an address where nothing is mapped."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_size_t
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    mapped = libc.mmap(ctypes.c_size_t(address), PAGE_BYTES, protection, flags, -1, ctypes.c_long(0))
    assert mapped == address, os.strerror(ctypes.get_errno())


def test_a_forked_child_neither_has_the_page_nor_unmaps_what_took_its_place() -> None:
    page = SecretPage.create()
    address = int(ffi.cast("uintptr_t", page.pointer))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            map_at(address)
            del page
            gc.collect()
            ctypes.memset(address, 7, PAGE_BYTES)  # ends this child if nothing is mapped here any more
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    page.wipe()
