"""Retry policy: exponential backoff, and which errors of a call are worth another attempt."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from .errors import (
    CommandNotFound,
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    DelegationExpired,
    DelegationNotYetValid,
    Denied,
    HandlerFailed,
    HomeAway,
    IdentityOffline,
    InstanceNotFound,
    NoIdentityOnline,
    P2PError,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
from .limits import MAX_CALL_ID

if TYPE_CHECKING:
    from random import Random

FIRST: Final = 0.1
"""Seconds before the second attempt; each later pause is twice as long."""
LONGEST: Final = 300.0
"""Seconds: the longest pause between two attempts."""

_FIRST_CALL_DELAY: Final = 0.02
"""Seconds before the second attempt of a call."""
_LONGEST_CALL_DELAY: Final = 0.5
"""Seconds: the longest pause between two attempts of a call."""

_MIN_TIME_LEFT: Final = 0.05
"""Seconds that another attempt needs at least. With less time left, the last error says more than a timeout."""

NOT_EXECUTED: Final = (
    CommandNotFound,
    DaemonNotRunning,
    DelegationExpired,
    DelegationNotYetValid,
    Denied,
    HomeAway,
    IdentityOffline,
    InstanceNotFound,
    NoIdentityOnline,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
"""Errors that end an attempt before any handler got it. After any other, the call may have been executed."""


@cache
def _random() -> Random:
    """Return a generator of our own: a program may have seeded the shared one."""
    from random import Random  # imported late: it takes long, and most programs never wait

    return Random()


def _chance() -> float:
    return _random().random()


class Backoff:
    """Exponential backoff with jitter.

    Args:
        first: seconds of the first pause; each later pause is twice as long.
        longest: seconds of the longest pause.
        jitter: share by which each pause is shortened at random at most, so that clients which failed together do not
            retry together. 0 for a caller that must not come early, or that varies the pause by itself.
        chance: function that returns a random number from 0 to 1, 1 excluded.
    """

    def __init__(
        self,
        first: float = FIRST,
        longest: float = LONGEST,
        *,
        jitter: float = 0.5,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._chance = chance
        self._next = first

    def next_delay(self) -> float:
        """Return the seconds until the next attempt: longer each time, until ``reset``."""
        delay, self._next = self._next, min(2 * self._next, self._longest)
        return delay * (1 - self._jitter * self._chance())

    def reset(self) -> None:
        """Start with the first pause again, after an attempt has succeeded."""
        self._next = self._first


class CallRetry:
    """The attempts of one call with ``retry=True``.

    Args:
        deadline: time of the event loop.
        timeout: seconds that ``DeadlineExceeded`` names.
        request_id: name of the call that its program has chosen; empty for none.

    Attributes:
        request_id: name of the call; by default ``call_id`` in hexadecimal.
        call_id: idempotency key: the same random bytes in all attempts.
        attempt: number of attempts before this one that may have been executed.
        sent_ms: time of the first of these, in milliseconds of ``CLOCK_BOOTTIME``; 0 if there is none.
    """

    __slots__ = (
        "_backoff",
        "_began_ms",
        "_deadline",
        "_lost",
        "_timeout",
        "attempt",
        "call_id",
        "request_id",
        "sent_ms",
    )

    def __init__(self, deadline: float, timeout: float, request_id: str = "") -> None:
        self.call_id = os.urandom(MAX_CALL_ID)
        self.request_id = request_id or self.call_id.hex()
        self.attempt = self.sent_ms = self._began_ms = 0
        self._deadline = deadline
        self._timeout = timeout
        self._backoff = Backoff(_FIRST_CALL_DELAY, _LONGEST_CALL_DELAY)
        self._lost = False

    def begin(self) -> None:
        """Note that an attempt begins."""
        if not self.attempt:
            self._began_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    async def wait_or_raise(self, error: P2PError) -> None:
        """Wait until the next attempt, or raise the error of the last one.

        Raises:
            P2PError: ``error``, if a retry cannot help or there is no time for one.
            DeadlineExceeded: there is no time for another attempt, and an earlier one may have been executed.
        """
        self._lost = self._lost or isinstance(error, ConnectionLost)
        if isinstance(error, DeadlineExceeded | HandlerFailed) or not (error.retryable or error.transient):
            raise error
        if not isinstance(error, NOT_EXECUTED):
            self.attempt += 1
            self.sent_ms = self._began_ms
        delay = self._backoff.next_delay()
        if asyncio.get_running_loop().time() + delay + _MIN_TIME_LEFT >= self._deadline:
            if self._lost:
                late = DeadlineExceeded(seconds=self._timeout)
                late.request_id = self.request_id
                raise late from error
            raise error
        await asyncio.sleep(delay)
