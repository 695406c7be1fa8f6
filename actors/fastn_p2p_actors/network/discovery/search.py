"""Record of one search for a connection to a peer: the attempts, how long they took, and their results."""

from __future__ import annotations

from typing import Final

from ..transport.endpoint import EndpointAddress

TOO_SHORT: Final = 0.25
"""Seconds below which a fruitless search says nothing about the peer."""
_SHOWN: Final = 4
"""Number of addresses, of relays and of attempts that the text names."""


class _Attempt:
    """Attempt to reach an endpoint. ``result`` is empty while there is no answer."""

    __slots__ = ("address", "began", "ended", "result")

    def __init__(self, address: EndpointAddress, began: float) -> None:
        self.address = address
        self.began = began
        self.ended = 0.0
        self.result = ""


class Search:
    """Attempts of one search. ``words`` may be called at any time. Times are seconds of one clock."""

    __slots__ = ("_attempts", "_began")

    def __init__(self, now: float) -> None:
        self._began = now
        self._attempts: list[_Attempt] = []

    def begin(self, address: EndpointAddress, now: float) -> None:
        """Add an attempt to reach an endpoint."""
        self._attempts.append(_Attempt(address, now))

    def failed(self, result: str, now: float) -> None:
        """End the newest attempt with this error."""
        self._attempts[-1].ended, self._attempts[-1].result = now, result

    def seconds(self, now: float) -> float:
        """Return how long the search has taken."""
        return now - self._began

    def words(self, now: float) -> str:
        """Describe each attempt for an error message: its addresses, its result and its duration."""
        if not self._attempts:
            return f"its addresses were looked for during {self.seconds(now):.1f} s, and none was found"
        told = [_words(attempt, now) for attempt in self._attempts[:_SHOWN]]
        if len(self._attempts) > _SHOWN:
            told.append(f"and {len(self._attempts) - _SHOWN} more endpoints")
        return "; ".join(told)


def _words(attempt: _Attempt, now: float) -> str:
    places = _some(list(attempt.address.addresses))
    if attempt.address.relays:
        noun = "relay" if len(attempt.address.relays) == 1 else "relays"
        places = f"{places}{' and ' if places else ''}{noun} {_some(list(attempt.address.relays))}"
    tried = f"tried {places or 'its endpoint, of which no address is known'}"
    if attempt.result:
        return f"{tried} for {attempt.ended - attempt.began:.1f} s: {attempt.result}"
    return f"{tried} for {now - attempt.began:.1f} s: no answer yet"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
