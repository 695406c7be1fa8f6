"""Earlier attempts: daemons that may have executed a retried call whose outcome was lost.

Problem: several daemons may serve one identity, and each knows only the calls that it got itself, since its start. A
second daemon, or a restarted one, would execute a call again that the first one has executed. Idea: the caller's daemon
remembers where an attempt went, sends the next one there, and says so if that daemon has been restarted since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

THIS_DAEMON: Final = b""
"""Stands for the endpoint of this daemon, for calls that it serves itself."""
MAX_ATTEMPTS: Final = 16_384
"""Calls that are remembered at most. Beyond it the oldest are forgotten, and then count as executed anywhere."""


class EarlierAttempt(NamedTuple):
    """Daemon that may have executed a call: its endpoint, and its start as in ``wire.Hello``."""

    endpoint: bytes
    start: bytes


class EarlierAttempts:
    """Daemons to which calls with a ``call_id`` were sent without an outcome, until the calls' deadlines.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._attempts: dict[bytes, tuple[EarlierAttempt, float]] = {}
        """Attempt, and the time until which it is remembered, by target and call id. Oldest first."""

    def __len__(self) -> int:
        return len(self._attempts)

    def note(
        self, target: bytes, call_id: bytes, attempt: EarlierAttempt, until: float, *, replace: bool = False
    ) -> None:
        """Remember until a time that a daemon may have executed a call. The first attempt counts, unless it is to be
        replaced."""
        if replace:
            self._attempts.pop(target + call_id, None)
        self._attempts.setdefault(target + call_id, (attempt, until))
        now = self._clock()
        while self._attempts:
            oldest = next(iter(self._attempts))
            if self._attempts[oldest][1] >= now and len(self._attempts) <= MAX_ATTEMPTS:
                return
            del self._attempts[oldest]

    def find(self, target: bytes, call_id: bytes) -> EarlierAttempt | None:
        """Return the daemon that may have executed a call, or None if it is not known."""
        found = self._attempts.get(target + call_id)
        return None if found is None else found[0]
