"""Queue of handlers that wait for their start, because earlier ones have used up the loop's time.

A socket brings hundreds of messages in one iteration of the loop. If each of them starts a handler that computes for
10 ms, the loop reads nothing for seconds: neither requests of other peers nor cancellations. So handlers start for
``_BUDGET`` seconds per iteration, and the others wait here. The loop reads in between, and a call that is cancelled
meanwhile never runs. Peers take turns: a peer with one call waits for one handler of each other peer.

The cost where no handler waits is one look at the clock per call. Not covered: what a handler computes after its first
``await``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_BUDGET: Final = 0.01
"""Seconds per loop iteration after which no further handler starts. 256 small calls take half of it."""
_MIN_WOKEN: Final = 4
"""Handlers that are woken per loop iteration, at least."""


class StartQueue:
    """Handlers that wait for their start, by peer.

    Args:
        loop: the event loop that runs the handlers.
        clock: returns seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop = loop
        self._clock = clock
        self._began = 0.0
        """Time at which the first handler of this iteration started; 0 if none has."""
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}
        """By peer, the next one first."""
        self._woken_late: list[asyncio.Future[None]] = []
        """Woken in this iteration after its time was used up. They start first in the next one."""
        self._started = 0
        """Handlers that were woken in this iteration and have started."""
        self._is_scheduled = False

    def __len__(self) -> int:
        """Return how many handlers wait."""
        return len(self._woken_late) + sum(map(len, self._waiting.values()))

    def on_read(self) -> None:
        """Note that the loop has read a message: a new iteration has begun."""
        self._began = 0.0

    def has_time(self) -> bool:
        """Return whether a handler may start at once. Otherwise it has to ``wait``."""
        return not self._is_scheduled and self._is_within_budget()

    async def wait(self, peer: bytes) -> None:
        """Wait until a handler for this peer may start."""
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
            self._woken_late.append(ready)
            await ready
        self._started += 1

    def _is_within_budget(self) -> bool:
        now = self._clock()
        if not self._began:
            self._began = now
        return now - self._began < _BUDGET

    def _wake_some(self) -> None:
        """Wake twice as many handlers as could start in the last iteration. They run before this is called again."""
        self._began = 0.0
        waiting = self._waiting
        late, self._woken_late = self._woken_late, []
        if not late and not waiting:
            self._is_scheduled = False
            return
        count = max(_MIN_WOKEN, 2 * self._started)
        self._started = 0
        for ready in late:
            count -= _wake(ready)
        while waiting and count > 0:
            peer = next(iter(waiting))
            queue = waiting.pop(peer)
            count -= _wake(queue.popleft())
            if queue:
                waiting[peer] = queue  # after all other peers
        self._loop.call_soon(self._wake_some)


def _wake(ready: asyncio.Future[None]) -> bool:
    """Wake one handler. Return False if its call was cancelled meanwhile."""
    if ready.done():
        return False
    ready.set_result(None)
    return True
