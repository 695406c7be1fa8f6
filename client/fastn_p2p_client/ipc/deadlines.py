"""``DeadlineTimer``: one timer for many deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

RESOLUTION: Final = 0.01
"""Seconds by which an expiry can be late. Deadlines this close together expire together."""


class DeadlineTimer(Generic[Key]):
    """Timer that calls ``expire(key)`` once for each key whose deadline has passed.

    Adding and discarding cost one dictionary operation each. The timer sleeps until the nearest deadline, and later
    ones do not touch it.

    Args:
        loop: event loop; its ``time()`` is the clock, in seconds.
        expire: called with each key that has expired and was not discarded.
    """

    __slots__ = ("_expire", "_loop", "_timer", "_times", "_wake_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Key], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._times: dict[Key, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0

    def __len__(self) -> int:
        return len(self._times)

    def add(self, key: Key, at: float) -> None:
        self._times[key] = at
        if self._timer is None or at < self._wake_at - RESOLUTION:
            self._arm(at)

    def discard(self, key: Key) -> None:
        self._times.pop(key, None)

    def close(self) -> None:
        self._times.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = at
        self._timer = self._loop.call_at(at, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = [key for key, at in self._times.items() if at <= now]
        for key in due:
            if self._times.pop(key, None) is not None:
                self._expire(key)
        if self._times and self._timer is None:
            self._arm(max(min(self._times.values()), now + RESOLUTION))
