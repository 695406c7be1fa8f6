"""Return free heap memory to the kernel after a peak.

Problem: glibc keeps freed memory below a block that is still in use. An identity process had 27 MiB; it had 144 MiB
after 1,600 sessions that were not read, and 43 MiB once ``malloc_trim`` was called. Idea: with each heartbeat, a
process that has done something since the last look reads its size. While it is larger than it was, it trims when it
has little to do. A busy process trims at most once a minute, because it will need the freed memory again. After trims
that free little, the process must have done more before the next one. Only the first look three seconds after a trim
needs no more work: what ends then, such as the last streams of a connection, frees much and takes little time. Cost: an
idle process looks at the clock only; a busy one reads ``statm`` per 10 ms of processor time at most, and gives a
thousandth of its time to trims. Not covered: memory in use, and memory that only a full garbage collection would find.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from .process_setup import private_size, trim_heap

GROWN_BY: Final = 1024 * 1024
"""Bytes above the smallest size so far that make a trim worthwhile."""
_BUSY: Final = 0.25
"""Share of a processor above which a process counts as busy."""
_BUSY_FOR: Final = 60.0
"""Seconds after which even a busy process trims."""
_DONE_SOMETHING: Final = 0.01
"""Seconds of processor time since the last look or trim after which some memory may have been freed."""
_DONE_MUCH: Final = 0.32
"""The same, at most, after trims in a row that freed little: an idle process would trim for ever else."""
_WORTH_IT: Final = 256 * 1024
"""Bytes that a trim must free to be repeated as soon."""
_INTERVAL: Final = 3.0
"""Seconds between two trims, at least."""
_SHARE: Final = 0.001
"""Share of the time that trims may take."""


class HeapWatch:
    """Heap check of this process, run with each heartbeat.

    Args:
        run: run the trim in a thread, because it may take as long as many calls.
        trim: return the heap's free memory to the kernel.
        size: return the bytes that ``private_size`` returns.
        clock: return monotonic seconds.
        worked: return the seconds of processor time that the process has used.
        spent: return the seconds of processor time that the calling thread has used.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], None]], object],
        *,
        trim: Callable[[], None] = trim_heap,
        size: Callable[[], int] = private_size,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._run = run
        self._trim = trim
        self._size = size
        self._clock = clock
        self._worked = worked
        self._spent = spent
        self._least = size()
        self._trimmed_at = self._checked_at = clock()
        self._interval = 0.0
        """Seconds from the last trim to the next one."""
        self._had_worked = worked()
        self._worked_at_trim = -_DONE_SOMETHING
        self._needed = _DONE_SOMETHING
        """Seconds of processor time since the last trim until the next one: more after trims that freed little."""
        self._once_more = False
        """True until the look that needs no such work."""

    def check(self) -> bool:
        """Trim if it is time to. Return True if the process should check again soon."""
        now, worked = self._clock(), self._worked()
        busy = worked - self._had_worked > _BUSY * (now - self._checked_at)
        self._checked_at, self._had_worked = now, worked
        once_more = self._once_more and now - self._trimmed_at >= _INTERVAL and worked > self._worked_at_trim
        if worked - self._worked_at_trim < self._needed and not once_more:
            return False  # an idle process does not even read its size: in cold caches that takes half a millisecond
        size = self._size()
        self._least = min(self._least, size)
        if size <= self._least + GROWN_BY:
            self._worked_at_trim = worked
            self._once_more = False
            return False
        if now - self._trimmed_at < (_BUSY_FOR if busy else 0.0 if once_more else self._interval):
            return True
        self._trimmed_at, self._worked_at_trim = now, worked
        self._interval = _INTERVAL
        self._once_more = not once_more
        self._run(self._trim_timed)
        return False

    def _trim_timed(self) -> None:
        began, before = self._spent(), self._size()
        self._trim()
        self._interval = max(_INTERVAL, 2 * (self._spent() - began) / _SHARE)  # twice: the next may need no work
        self._worked_at_trim = self._worked()  # the trim is no work that frees memory
        freed = before - self._size()
        self._needed = _DONE_SOMETHING if freed >= _WORTH_IT else min(4 * self._needed, _DONE_MUCH)
