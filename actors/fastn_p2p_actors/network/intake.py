"""Large payloads on their way in, from all peers together: what they may take of this process's memory."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["MAX_INTAKE", "Intake", "Source"]

MAX_INTAKE: Final = 512 * 1024 * 1024
"""Bytes of payloads that have arrived in part, from all peers together."""


class Source(Protocol):
    """A connection over which payloads arrive."""

    def shed(self, reason: str) -> None:
        """End it: what has arrived over it is given back soon."""


class Intake:
    """Counts what has arrived of payloads that are not complete.

    Nobody waits for room, since then whoever leaves payloads unfinished would keep all others waiting. Instead the
    connection that holds most is ended when there is too much.
    """

    def __init__(self, limit: int = MAX_INTAKE) -> None:
        self._limit = limit
        self._held: dict[Source, int] = {}
        self.total = 0

    def take(self, source: Source, size: int) -> None:
        """So much more has arrived over this connection."""
        self._held[source] = self._held.get(source, 0) + size
        self.total += size
        if self.total > self._limit:
            largest = max(self._held, key=self._held.__getitem__)
            largest.shed("more large payloads on their way than there is room for")

    def give_back(self, source: Source, size: int) -> None:
        """A payload of so many bytes is complete, or lost."""
        self.total -= size
        left = self._held.get(source, 0) - size
        if left > 0:
            self._held[source] = left
        else:
            self._held.pop(source, None)
