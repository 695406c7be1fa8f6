"""Retries: how long to wait before the next attempt, and which calls are worth one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from random import Random
from typing import Final

from .errors import (
    ConnectionLost,
    DeadlineExceeded,
    HandlerFailed,
    P2PError,
)
from .limits import MAX_CALL_ID

__all__ = ["FIRST", "LONGEST", "Backoff", "CallRetry"]

FIRST: Final = 0.1
"""Seconds after the first failure; doubled each time."""
LONGEST: Final = 300.0
"""Seconds between two attempts at most."""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
"""Seconds between two attempts of a call: as in ``Backoff``."""

_WORTH_IT: Final = 0.05
"""Seconds that must be left for another attempt: with less, the last answer says more."""

_random: Final = Random()  # of its own: a program that uses this may have seeded the one that all share


class Backoff:
    """Exponential backoff with jitter.

    Args:
        first, longest: seconds.
        chance: a random number from 0 to 1, 1 excluded. Up to one half of a pause is left out, so that those who have
            failed together do not come back together.
    """

    def __init__(
        self, first: float = FIRST, longest: float = LONGEST, *, chance: Callable[[], float] = _random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._next = first

    def pause(self) -> float:
        """Return the seconds until the next attempt, longer each time until ``reset``."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause * (1 - self._chance() / 2)

    def reset(self) -> None:
        """Begin with the first pause again: an attempt has succeeded."""
        self._next = self._first


class CallRetry:
    """One call that may be sent several times, and the id that makes it one.

    Attributes:
        call_id: as in ``Call``, and ``attempt`` likewise.
    """

    __slots__ = ("_backoff", "_deadline", "_lost", "_timeout", "attempt", "call_id")

    def __init__(self, deadline: float, timeout: float) -> None:
        self.call_id = os.urandom(MAX_CALL_ID)
        self.attempt = 0
        self._deadline = deadline
        self._timeout = timeout
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._lost = False

    async def wait_or_raise(self, error: P2PError) -> None:
        """Returns when it is time for the next attempt.

        Raises:
            P2PError: the same, when there is no sense in one, or no time.
            DeadlineExceeded: there is no time for one, and it may have been executed.
        """
        self._lost = self._lost or isinstance(error, ConnectionLost)
        if isinstance(error, DeadlineExceeded | HandlerFailed) or not (error.retryable or error.transient):
            raise error
        self.attempt += 1
        pause = self._backoff.pause()
        if asyncio.get_running_loop().time() + pause + _WORTH_IT >= self._deadline:
            if self._lost:
                raise DeadlineExceeded(seconds=self._timeout) from error
            raise error
        await asyncio.sleep(pause)
