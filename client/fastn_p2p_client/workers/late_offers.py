"""Offers that this process has perhaps read late, because it was frozen or computed for long.

The bridge may have given such a call to another worker meanwhile, so the worker asks before it begins. Where the event
loop was not late, the offer was not either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TICK_SECONDS: Final = 0.1
LAG_SECONDS: Final = 0.15
"""Seconds by which the event loop is late before it counts. The bridge waits for twice as long."""
LATE_SECONDS: Final = 0.5
"""Seconds after such a lag in which what is read may be old."""


class LagWatch:
    """Watches how late the event loop is.

    Args:
        loop: the event loop.
        on_tick: called every ``TICK_SECONDS``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_tick: Callable[[], None]) -> None:
        self._loop = loop
        self._on_tick = on_tick
        self._late_until = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    @property
    def is_late(self) -> bool:
        """True if what is read now may have waited."""
        now = self._loop.time()
        return now < self._late_until or now - self._due > LAG_SECONDS

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._due > LAG_SECONDS:
            self._late_until = now + LATE_SECONDS
        self._schedule()
        self._on_tick()
