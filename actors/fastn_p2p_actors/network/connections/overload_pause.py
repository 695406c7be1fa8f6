"""Pause in the reading of a stranger whose requests are above a limit.

Problem: a stranger that sends call after call although each ends with ``Overloaded`` costs as much as before: its bytes
are decrypted, decoded and answered. Idea: what it has sent is read, and then nothing for a moment. QUIC soon makes it
wait, because it has no credit left. Each read in a row that brings such a request doubles the pause, and each other
read halves it. Cost: one comparison per read. Peers in the address book are never paused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

FIRST_PAUSE: Final = 0.01
"""Seconds of the first pause."""
LONGEST_PAUSE: Final = 0.5
"""Seconds of the longest one: a ping still gets its answer in time."""


class OverloadPause:
    """Pause of one connection.

    Attributes:
        seconds: length of the next pause; 0 if none is due, and no recent one has to be halved.
    """

    __slots__ = ("_is_due", "_sleep", "seconds")

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._is_due = False
        self.seconds = 0.0

    def on_overload(self) -> None:
        """A request was above a limit."""
        if not self._is_due:
            self._is_due = True
            self.seconds = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self.seconds))

    def begin(self) -> float:
        """Return the seconds to wait before the next read; 0 if no pause is due. Otherwise call ``end`` after it."""
        if self._is_due:
            return self.seconds
        self.seconds = self.seconds / 2 if self.seconds > FIRST_PAUSE else 0.0
        return 0.0

    def end(self) -> None:
        """End the pause."""
        self._is_due = False

    async def wait(self) -> None:
        """Wait before the next read if a pause is due."""
        seconds = self.begin()
        if seconds:
            await self._sleep(seconds)
            self.end()
