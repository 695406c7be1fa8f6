"""Calling again what may be called again: when, how often, and what is worth it."""

from __future__ import annotations

import asyncio
import os
from random import Random
from typing import Final

from .errors import (
    ConnectionLost,
    DeadlineExceeded,
    IdentityOffline,
    InstanceNotFound,
    NoIdentityOnline,
    P2PError,
    ProtocolNotFound,
)
from .limits import MAX_CALL_ID

__all__ = ["Repetition"]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
"""Seconds between two attempts; each pause is twice the one before, less a random part of up to one half."""

_WORTH_IT: Final = 0.05
"""Seconds that must be left for another attempt: with less, the last answer says more."""

_PASSING: Final = (ConnectionLost, IdentityOffline, InstanceNotFound, NoIdentityOnline, ProtocolNotFound)
"""Beside what is retryable, what may be said while a process is being started again, on either side."""

_random: Final = Random()


class Repetition:
    """One call that may be sent several times, and the id that makes it one.

    Attributes:
        call_id: as in ``Call``, and ``attempt`` likewise.
    """

    __slots__ = ("_deadline", "_lost", "_pause", "_timeout", "attempt", "call_id")

    def __init__(self, deadline: float, timeout: float) -> None:
        self.call_id = os.urandom(MAX_CALL_ID)
        self.attempt = 0
        self._deadline = deadline
        self._timeout = timeout
        self._pause = _FIRST_PAUSE
        self._lost = False

    async def after(self, error: P2PError) -> None:
        """Returns when it is time for the next attempt.

        Raises:
            P2PError: the same, when there is no sense in one, or no time.
            DeadlineExceeded: there is no time for one, and it may have been executed.
        """
        self._lost = self._lost or isinstance(error, ConnectionLost)
        if isinstance(error, DeadlineExceeded) or not (error.retryable or isinstance(error, _PASSING)):
            raise error
        self.attempt += 1
        pause = _random.uniform(self._pause / 2, self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if asyncio.get_running_loop().time() + pause + _WORTH_IT >= self._deadline:
            if self._lost:
                raise DeadlineExceeded(seconds=self._timeout) from error
            raise error
        await asyncio.sleep(pause)
