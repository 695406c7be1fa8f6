"""Read buffer that the connections of a thread share: what is received is decoded before the next read."""

from __future__ import annotations

import mmap
import threading
from typing import Final

from ....limits import MAX_CHUNK
from .decoder import release_spare_buffers

_SIZE: Final = MAX_CHUNK + 4096
"""Bytes that are received at once: the largest ``SessionData``, with what precedes it."""


class _ReadBuffer(threading.local):
    """Buffer of each thread. It is mapped, so that only those of its pages take memory that were written to."""

    def __init__(self) -> None:
        self.pages = mmap.mmap(-1, _SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self.pages)


read_buffer: Final = _ReadBuffer()


def release_read_buffers() -> None:
    """Free this thread's read buffer, and the spare ones for chunks. The next reads take memory again."""
    read_buffer.pages.madvise(mmap.MADV_DONTNEED)
    release_spare_buffers()
