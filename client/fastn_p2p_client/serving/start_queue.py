"""Queue of handlers that wait for their start, because those before them have taken the loop's time.

A socket brings hundreds of messages in one turn of the loop. Where each of them starts a handler that computes for 10
ms, the loop reads nothing more for seconds: neither what other peers ask, nor that nobody waits any more. So handlers
start for ``_BUDGET`` seconds per turn; the others wait here. Reading goes on in between, a call that is cancelled
meanwhile never runs, and peers take turns: a peer with one call waits for one handler of each other peer.

Cost where nothing waits: one look at the clock per call. Not covered: what a handler computes after it has awaited
something.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["StartQueue"]

_BUDGET: Final = 0.01
"""Seconds per turn of the loop after which no further handler starts. 256 small calls take half of it."""
_LEAST: Final = 4
"""Handlers that are woken per turn, at least."""


class StartQueue:
    """Handlers that wait for their start, by peer.

    Args:
        loop: that runs the handlers.
        clock: seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop = loop
        self._clock = clock
        self._began = 0.0
        """When the first handler of this turn has started; 0 if none has."""
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}
        """By peer; the first peer is the next one."""
        self._again: list[asyncio.Future[None]] = []
        """Woken in this turn, and too late: they are the first of the next one."""
        self._started = 0
        """Handlers that were woken in this turn, and have started."""
        self._is_scheduled = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._again) + sum(map(len, self._waiting.values()))

    def on_read(self) -> None:
        """A new turn of the loop has begun: it has read something."""
        self._began = 0.0

    def has_time(self) -> bool:
        """Return whether a handler may start at once. If not, it has to ``wait``."""
        return not self._is_scheduled and self._is_within_budget()

    async def wait(self, peer: bytes) -> None:
        """Return when a handler for this peer may start."""
        ready = self._loop.create_future()
        queue = self._waiting.get(peer)
        if queue is None:
            self._waiting[peer] = deque((ready,))
        else:
            queue.append(ready)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._wake_some)
        await ready
        while not self._is_within_budget():
            ready = self._loop.create_future()
            self._again.append(ready)
            await ready
        self._started += 1

    def _is_within_budget(self) -> bool:
        now = self._clock()
        if not self._began:
            self._began = now
        return now - self._began < _BUDGET

    def _wake_some(self) -> None:
        """Wake twice as many as could start in the last turn. They run before this is called again."""
        self._began = 0.0
        waiting = self._waiting
        again, self._again = self._again, []
        if not again and not waiting:
            self._is_scheduled = False
            return
        count = max(_LEAST, 2 * self._started)
        self._started = 0
        for ready in again:
            count -= _wake(ready)
        while waiting and count > 0:
            peer = next(iter(waiting))
            queue = waiting.pop(peer)
            count -= _wake(queue.popleft())
            if queue:
                waiting[peer] = queue  # behind all others
        self._loop.call_soon(self._wake_some)


def _wake(ready: asyncio.Future[None]) -> bool:
    """Return False where its call was cancelled meanwhile."""
    if ready.done():
        return False
    ready.set_result(None)
    return True
