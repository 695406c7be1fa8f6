"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

__all__ = ["Pauses"]

_FIRST: Final = 0.5
_LONGEST: Final = 60.0
_random: Final = Random()  # of its own: a program that uses this may have seeded the one that all share


class Pauses:
    """Seconds: doubled each time, up to ``longest``, and varied by a quarter."""

    def __init__(self, longest: float = _LONGEST, jitter: Callable[[], float] = _random.random) -> None:
        self._longest = longest
        self._jitter = jitter
        self._next = _FIRST

    def next(self) -> float:
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause * (0.75 + 0.5 * self._jitter())

    def over(self) -> None:
        """It has worked: the next pause is short again."""
        self._next = _FIRST
