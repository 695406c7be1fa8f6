"""Earlier attempts: daemons that may have executed a retried call whose outcome was lost.

Problem: several daemons may serve one identity, and each knows only the calls that it got itself. A second daemon would
execute a call again that the first one has executed. Idea: the caller's daemon remembers where an attempt went, and
sends the next one there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

THIS_DAEMON: Final = b""
"""Stands for the endpoint of this daemon, for calls that it serves itself."""
MAX_ATTEMPTS: Final = 16_384
"""Calls that are remembered at most. Beyond it the oldest are forgotten, and then count as executed anywhere."""


class EarlierAttempts:
    """Endpoints to which calls with a ``call_id`` were sent without an outcome, until the calls' deadlines.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._endpoints: dict[bytes, tuple[bytes, float]] = {}
        """Endpoint, and the time until which it is remembered, by target and call id. Oldest first."""

    def __len__(self) -> int:
        return len(self._endpoints)

    def note(self, target: bytes, call_id: bytes, endpoint: bytes, until: float) -> None:
        """Remember until a time that the daemon at ``endpoint`` may have executed a call."""
        self._endpoints.setdefault(target + call_id, (endpoint, until))
        now = self._clock()
        while self._endpoints:
            oldest = next(iter(self._endpoints))
            if self._endpoints[oldest][1] >= now and len(self._endpoints) <= MAX_ATTEMPTS:
                return
            del self._endpoints[oldest]

    def endpoint_of(self, target: bytes, call_id: bytes) -> bytes | None:
        """Return the endpoint of the daemon that may have executed a call, or None if it is not known."""
        found = self._endpoints.get(target + call_id)
        return None if found is None else found[0]
