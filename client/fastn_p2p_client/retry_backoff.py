"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

__all__ = ["FIRST", "LONGEST", "Backoff"]

FIRST: Final = 0.1
"""Seconds after the first failure; doubled each time."""
LONGEST: Final = 300.0


class Backoff:
    """
    Args:
        chance: a random number from 0 to 1, 1 excluded. Up to one half of a pause is left out, so that those who have
            failed together do not come back together.
    """

    def __init__(
        self, first: float = FIRST, longest: float = LONGEST, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._next = first

    def pause(self) -> float:
        """Seconds until the next attempt, longer each time it is asked."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause * (1 - self._chance() / 2)

    def reset(self) -> None:
        """It went well."""
        self._next = self._first
