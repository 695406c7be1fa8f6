"""Calling again what may be called again: when, how often, and what is worth it."""

from __future__ import annotations

import asyncio
import os
from random import Random
from typing import Final

from .errors import (
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    DeadlineExceeded,
    IdentityOffline,
    InstanceNotFound,
    NoIdentityOnline,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
from .limits import MAX_CALL_ID

__all__ = ["Repetition"]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
"""Seconds between two attempts; each pause is twice the one before, less a random part of up to one half."""

_PASSING: Final = (
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    IdentityOffline,
    InstanceNotFound,
    NoIdentityOnline,
    Overloaded,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
"""What may be said while a process that had a call is being started again, on either side."""

_random: Final = Random()


class Repetition:
    """One call that may be sent several times, and the id that makes it one.

    Attributes:
        call_id: as in ``Call``, and ``attempt`` likewise.
    """

    __slots__ = ("_deadline", "_pause", "_timeout", "attempt", "call_id")

    def __init__(self, deadline: float, timeout: float) -> None:
        self.call_id = os.urandom(MAX_CALL_ID)
        self.attempt = 0
        self._deadline = deadline
        self._timeout = timeout
        self._pause = _FIRST_PAUSE

    async def after(self, error: P2PError) -> None:
        """Returns when it is time for the next attempt.

        Raises:
            P2PError: the same, which says that there is no sense in one.
            DeadlineExceeded: there is no time for one. What was lost may have been executed.
        """
        if not isinstance(error, _PASSING if self.attempt else ConnectionLost):
            raise error
        self.attempt += 1
        pause = _random.uniform(self._pause / 2, self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if asyncio.get_running_loop().time() + pause >= self._deadline:
            raise DeadlineExceeded(seconds=self._timeout) from error
        await asyncio.sleep(pause)
