"""Writer of received blocks: writes in a thread while more blocks arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from ..framing import BLOCK
from .partial_file import PartialFile

QUICK: Final = 0.01
"""Seconds: a shorter write is not worth a thread, because it went to the page cache only."""
RELIABLE: Final = 64
"""Quick writes after a slow one before the disk counts as fast again."""
_MOST: Final = 3 * BLOCK
"""Bytes that may wait to be written; at more, the reader waits, and so the sender does."""


class FileWriter:
    """Writer of one partial file. The longer a write takes, the more blocks the next one contains.

    Args:
        may_block_loop: this process does nothing else, and its event loop may be blocked for a moment. While the disk
            is fast, blocks are then written without a thread: waking one costs as much as the write.
        clock: seconds.
    """

    def __init__(self, partial: PartialFile, *, may_block_loop: bool, clock: Callable[[], float] = monotonic) -> None:
        self._partial = partial
        self._may_block_loop = may_block_loop
        self._clock = clock
        self._slow_writes_left = 0
        """Quick writes that are missing until the disk counts as fast again."""
        self._parts: list[memoryview] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def add(self, part: memoryview) -> None:
        """Add the next bytes; the caller must not change them.

        Raises:
            FileError: these or earlier bytes could not be written.
        """
        self._parts.append(part)
        self._size += len(part)
        if self._writing is not None and (self._writing.done() or self._size >= _MOST):
            await self._wait_for_write()
        if self._writing is None and self._size >= BLOCK:
            self._write_all()

    async def flush(self) -> None:
        """Wait until all bytes are in the file. Raises FileError if they could not be written."""
        await self._wait_for_write()
        if self._parts:
            self._write_all()
            await self._wait_for_write()

    def close(self) -> None:
        """Stop writing. Bytes that were not flushed may be lost."""
        if self._writing is not None:
            self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._writing.cancel()

    def _write_all(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if self._may_block_loop and not self._slow_writes_left:
            self._write(parts)
        else:
            self._writing = asyncio.create_task(asyncio.to_thread(self._write, parts))

    async def _wait_for_write(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    def _write(self, parts: list[memoryview]) -> None:
        since = self._clock()
        self._partial.write(parts)
        self._slow_writes_left = RELIABLE if self._clock() - since > QUICK else max(self._slow_writes_left - 1, 0)
