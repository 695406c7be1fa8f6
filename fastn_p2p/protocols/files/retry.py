"""When a broken way is tried again, and when it is given up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from fastn_p2p_client.errors import ConnectionLost, Overloaded, P2PError, is_transient

from .events import OnEvent, Retrying

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE: Final = 60.0
"""Seconds of trying without any progress after which a transfer ends with what has kept it from going on."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class TransferRetry:
    """Shared by everything that one transfer does at the same time.

    Args:
        seconds: of trying without progress, until it is over. While the process is stopped (Ctrl-Z), or the machine
            sleeps, nothing is tried.
        clock: seconds that only go up.
    """

    def __init__(
        self, report: OnEvent, seconds: float = PATIENCE, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._seconds = seconds
        self._clock = clock
        self._last = self._seen = clock()
        self._delay = _FIRST_PAUSE
        self._met = False
        self._pause: asyncio.Task[None] | None = None

    def mark_connected(self) -> None:
        """The other side has answered once. What looks like a wrong name or address before is one."""
        if not self._met:
            self._met = True
            self.reset()

    def reset(self) -> None:
        """Something has moved."""
        self._last = self._seen = self._clock()
        self._delay = _FIRST_PAUSE

    async def run(self, action: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Does it, again and again while the way is broken.

        Raises:
            P2PError: trying again does not help, or patience is over.
            Exception: whatever else ``action`` raises.
        """
        while True:
            try:
                result = await action(*arguments, **options)
            except P2PError as error:
                await self._after(error)
            else:
                self.mark_connected()
                return result

    async def _after(self, error: P2PError) -> None:
        """Returns when it is time to try again, or raises ``error``; longer each time, up to some seconds."""
        passing = is_transient(error, self._met) or isinstance(error, Overloaded)
        if not passing and not (self._met and error.retryable):
            raise error
        now = self._clock()
        if (
            now - self._seen > self._seconds + 2 * _LONGEST_PAUSE
        ):  # nothing was tried for all that time, and something may work by now
            self._last = now
        self._seen = now
        if now - self._last > self._seconds:
            raise error
        if self._pause is None or self._pause.done():
            delay = self._delay * random.uniform(0.75, 1.25)
            self._delay = min(2 * self._delay, _LONGEST_PAUSE)
            words = f"{error.what} went away" if isinstance(error, ConnectionLost) else str(error)
            self._report(Retrying(words, round(delay, 3)))
            self._pause = asyncio.create_task(asyncio.sleep(delay))
        await asyncio.shield(self._pause)
