"""A clock that goes where a test tells it."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Seconds from 0, and functions that are called at their time."""

    def __init__(self) -> None:
        self.time = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._added = 0

    def now(self) -> float:
        return self.time

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._added += 1
        heapq.heappush(self._calls, (self.time + seconds, self._added, call))

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while self._calls and self._calls[0][0] <= end:
            self.time, _, call = heapq.heappop(self._calls)
            call()
        self.time = end
