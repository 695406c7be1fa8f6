"""What has arrived of a file on its way to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from ..framing import BLOCK
from .partial_file import PartialFile

QUICK: Final = 0.01
"""Seconds for a write that is worth no thread: the kernel has taken it into memory."""
RELIABLE: Final = 64
"""Quick writes after a slow one until the next may be expected to be quick too."""
_MOST: Final = 3 * BLOCK
"""Bytes that wait to be written; whoever sends waits then too."""


class FileWriter:
    """Writes in a thread while more comes: the longer that takes, the more is written in one go the next time.

    Args:
        alone: this process does nothing else, and may be held up for a moment: while the disk is quick, no thread
            writes, since waking it costs as much as the write.
        clock: seconds.
    """

    def __init__(self, partial: PartialFile, *, may_block_loop: bool, clock: Callable[[], float] = monotonic) -> None:
        self._partial = partial
        self._alone = may_block_loop
        self._clock = clock
        self._slow_writes_left = 0
        """Quick writes that are still missing until it is trusted again."""
        self._parts: list[memoryview] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def take(self, part: memoryview) -> None:
        """The next bytes, which stay as they are.

        Raises:
            FileError: they, or what was taken before, could not be written.
        """
        self._parts.append(part)
        self._size += len(part)
        if self._writing is not None and (self._writing.done() or self._size >= _MOST):
            await self._written()
        if self._writing is None and self._size >= BLOCK:
            self._write_all()

    async def flush(self) -> None:
        """Returns when all that was taken is in the file. Raises like ``take``."""
        await self._written()
        if self._parts:
            self._write_all()
            await self._written()

    def close(self) -> None:
        """What was taken and not flushed may be lost."""
        if self._writing is not None:
            self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._writing.cancel()

    def _write_all(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if self._alone and not self._slow_writes_left:
            self._write(parts)
        else:
            self._writing = asyncio.create_task(asyncio.to_thread(self._write, parts))

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    def _write(self, parts: list[memoryview]) -> None:
        since = self._clock()
        self._partial.write(parts)
        self._slow_writes_left = RELIABLE if self._clock() - since > QUICK else max(self._slow_writes_left - 1, 0)
