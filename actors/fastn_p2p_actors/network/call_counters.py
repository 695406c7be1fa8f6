"""Counters of calls in one direction: a histogram of their durations, and errors by code.

A call that has an outcome costs two additions and a search among 14 numbers, together 0.1 µs. ``fastn-p2p metrics``
shows them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from fastn_p2p_client.errors import CODES

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper bounds of the histogram, in seconds. A last slot counts the rest."""
APPLICATION: Final = "application-error"
"""Code of all application errors: their kinds are chosen by protocols, so there may be any number of them."""
_UNKNOWN: Final = "unknown"
"""Code of all errors that only a later version knows: a peer may have made them up."""


class CallCounters:
    """Counters of calls in one direction, from the start of the network process.

    Attributes:
        durations: number of calls that were answered, by slot of ``BOUNDS``.
        seconds: sum of their durations.
        unanswered: number of calls that ended otherwise: refused, cancelled, or lost with their process.
        errors: number of calls that ended with an error, by code.
    """

    __slots__ = ("durations", "errors", "seconds", "unanswered")

    def __init__(self) -> None:
        self.durations = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.unanswered = 0
        self.errors: dict[str, int] = {}

    @property
    def ended(self) -> int:
        """Number of calls that have ended."""
        return sum(self.durations) + self.unanswered

    def answer(self, seconds: float) -> None:
        """Count a call that was answered, with a reply or an error, and its duration."""
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def fail(self, code: str) -> None:
        """Count an error."""
        known = code if code in CODES or code == APPLICATION else _UNKNOWN
        self.errors[known] = self.errors.get(known, 0) + 1

    def refuse(self, code: str) -> None:
        """Count a call that has ended with an error before anything answered it."""
        self.unanswered += 1
        self.fail(code)
