"""A bell that is rung when something has changed, for whoever waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["ChangeSignal"]

T = TypeVar("T")


class ChangeSignal:
    """Made and used inside one event loop."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def notify(self) -> None:
        """Everybody who waits looks again."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait_for(self, look: Callable[[], Awaitable[T]], enough: Callable[[T], bool], seconds: float) -> T:
        """What ``look`` finds, once that is enough, or when the time is over."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            rung = self._rung
            found = await look()
            if enough(found) or not seconds:
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await rung.wait()
            except TimeoutError:
                return found
