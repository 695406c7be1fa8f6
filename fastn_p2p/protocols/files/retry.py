"""Retry policy of one transfer: retry connection errors with backoff, until nothing has moved for N seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from fastn_p2p_client.errors import ConnectionLost, P2PError, is_transient
from fastn_p2p_client.retry import Backoff

from .events import OnEvent, Retrying

P = ParamSpec("P")
T = TypeVar("T")

RETRY_TIMEOUT: Final = 60.0
"""Seconds without progress after which a transfer ends with the last error."""

_FIRST_DELAY: Final = 0.1
"""Seconds."""
_LONGEST_DELAY: Final = 5.0
"""Seconds."""


class TransferRetry:
    """Retry policy that all sessions and calls of one transfer share.

    Args:
        report: receives a ``Retrying`` event before each pause.
        seconds: time of attempts without progress after which the last error is raised. Time in which the process is
            stopped (Ctrl-Z) or the machine sleeps does not count.
        clock: seconds that only go up.
    """

    def __init__(
        self, report: OnEvent, seconds: float = RETRY_TIMEOUT, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._seconds = seconds
        self._clock = clock
        self._progress_at = self._failed_at = clock()
        self._backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._connected = False
        self._delay: asyncio.Task[None] | None = None

    def mark_connected(self) -> None:
        """Note that the peer has answered. Before that, an unknown name or address is not retried."""
        if not self._connected:
            self._connected = True
            self.reset()

    def reset(self) -> None:
        """Note progress: the time without it begins again, and so does the backoff."""
        self._progress_at = self._failed_at = self._clock()
        self._backoff.reset()

    async def run(self, action: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Call ``action``, again after each connection error; return its result.

        Raises:
            P2PError: the error is not worth another attempt, or nothing has moved for ``seconds``.
            Exception: any other error that ``action`` raises.
        """
        while True:
            try:
                result = await action(*arguments, **options)
            except P2PError as error:
                await self._wait_or_raise(error)
            else:
                self.mark_connected()
                return result

    async def _wait_or_raise(self, error: P2PError) -> None:
        """Wait until the next attempt, or raise ``error``. Concurrent failures share one pause."""
        if not is_transient(error, self._connected) and not (self._connected and error.retryable):
            raise error
        now = self._clock()
        if now - self._failed_at > self._seconds + 2 * _LONGEST_DELAY:
            self._progress_at = now  # nothing was tried for all that time: the process was stopped
        self._failed_at = now
        if now - self._progress_at > self._seconds:
            raise error
        if self._delay is None or self._delay.done():
            delay = self._backoff.next_delay()
            reason = f"{error.what} went away" if isinstance(error, ConnectionLost) else str(error)
            self._report(Retrying(reason, round(delay, 3)))
            self._delay = asyncio.create_task(asyncio.sleep(delay))
        await asyncio.shield(self._delay)
