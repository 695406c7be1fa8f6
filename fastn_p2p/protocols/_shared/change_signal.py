"""Condition to wait on: a query that is repeated after every change until its result is good enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class ChangeSignal:
    """Signal that wakes all waiters. Made and used inside one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Wake all waiters; each repeats its query."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, query: Callable[[], Awaitable[T]], enough: Callable[[T], bool], seconds: float) -> T:
        """Return the result of ``query`` once ``enough`` accepts it, or its last result when the time is over."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            changed = self._changed
            found = await query()
            if enough(found) or not seconds:
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                return found
