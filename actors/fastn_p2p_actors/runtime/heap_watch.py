"""Give the heap's free memory back after a peak.

glibc keeps what was freed below a block that is still in use, for ever: an identity's process had 27 MiB, 144 MiB
after 1,600 sessions that were not read, and 43 MiB once ``malloc_trim`` was called. So each process of the daemon looks
at its size with every sign of life that it gives. While it is larger than it was, it trims, each time that it has done
something and has little to do. While it works, what it has freed is about to be needed again: then it trims at most
once a minute. Cost: a read of ``statm`` per look, and a thousandth of the time for trims. Memory that is in use stays,
and so does what only a full garbage collection would find.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from .process_setup import (
    give_back_heap,
    resident_size,
)

__all__ = ["GROWN_BY", "HeapWatch"]

GROWN_BY: Final = 8 * 1024 * 1024
"""Bytes above the least that the process has had, from which on a trim is worth it."""
_BUSY: Final = 0.25
"""Share of a processor that a process with much to do takes."""
_BUSY_FOR: Final = 60.0
"""Seconds after which a process that is busy all the time gives back all the same."""
_DONE_SOMETHING: Final = 0.01
"""Seconds of processor time since the last trim from which on something may have been freed."""
_PAUSE: Final = 3.0
"""Seconds between two trims, at least."""
_SHARE: Final = 0.001
"""Of the time, that trims may take."""


class HeapWatch:
    """Memory of this process between two signs of life.

    Args:
        run: runs the trim, in a thread: it may take as long as many calls.
        trim: gives the heap's free memory back.
        size: bytes of memory that the process has.
        clock: seconds.
        worked: seconds of processor time that the process has taken.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], None]], object],
        *,
        trim: Callable[[], None] = give_back_heap,
        size: Callable[[], int] = resident_size,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ) -> None:
        self._run = run
        self._trim = trim
        self._size = size
        self._clock = clock
        self._worked = worked
        self._least = size()
        self._trimmed_at = self._looked_at = clock()
        self._pause = 0.0
        """Seconds from the last trim to the next one."""
        self._had_worked = worked()
        self._worked_at_trim = -_DONE_SOMETHING

    def look(self) -> bool:
        """Trim if it is time to; return True where the process has to be looked at again soon."""
        now, worked, size = self._clock(), self._worked(), self._size()
        busy = worked - self._had_worked > _BUSY * (now - self._looked_at)
        self._looked_at, self._had_worked = now, worked
        self._least = min(self._least, size)
        if size <= self._least + GROWN_BY or worked - self._worked_at_trim < _DONE_SOMETHING:
            return False
        if now - self._trimmed_at < (_BUSY_FOR if busy else self._pause):
            return True
        self._trimmed_at, self._worked_at_trim = now, worked
        self._pause = _PAUSE
        self._run(self._give_back)
        return False

    def _give_back(self) -> None:
        began = self._clock()
        self._trim()
        self._pause = max(_PAUSE, (self._clock() - began) / _SHARE)
