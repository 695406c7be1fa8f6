"""Due times: when something is to be done for each of many keys."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

_MIN_STALE: Final = 64
"""Replaced entries of the heap that are always kept."""


class DueTimes:
    """Holds a due time for each key. Finding what is due does not look at the other keys.

    Times are those of one clock, whichever the caller uses.
    """

    def __init__(self) -> None:
        self._times: dict[bytes, float] = {}
        self._heap: list[tuple[float, bytes]] = []
        """Also has entries that were replaced since."""

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: bytes, time: float) -> None:
        """Set the due time of a key, in place of an earlier one."""
        self._times[key] = time
        if len(self._heap) > 2 * len(self._times) + _MIN_STALE:
            self._heap = [(due, each) for each, due in self._times.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (time, key))

    def remove(self, key: bytes) -> None:
        """Remove a key, if it is there."""
        self._times.pop(key, None)

    def next(self) -> float | None:
        """Return the earliest due time; None without a key."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def remove_due(self, now: float, most: int) -> list[bytes]:
        """Remove and return up to ``most`` keys that are due, the earliest first."""
        taken: list[bytes] = []
        while len(taken) < most and (due := self.next()) is not None and due <= now:
            taken.append(heapq.heappop(self._heap)[1])
            del self._times[taken[-1]]
        return taken

    def due(self, now: float) -> Iterator[bytes]:
        """Yield the keys that are due, in no order. Looks at all keys."""
        return (key for key, due in self._times.items() if due <= now)
