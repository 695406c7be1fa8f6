"""Record of one search for a connection to a peer: the attempts, how long they took, and their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..transport.endpoint import EndpointAddress
from .record_finder import Lookup, SourceResult

TOO_SHORT: Final = 0.25
"""Seconds below which a fruitless search says nothing about the peer."""
_SHOWN: Final = 4
"""Number of addresses, of relays and of attempts that the text names."""


class Attempt:
    """Attempt to reach an endpoint.

    Attributes:
        address: addresses and relays that are tried.
        began: when it began.
        ended: when it ended.
        connected: True if it has opened a connection.
        result: reason for which it failed; empty while there is no answer.
        refused: True if the peer daemon has refused it.
    """

    __slots__ = ("address", "began", "connected", "ended", "refused", "result")

    def __init__(self, address: EndpointAddress, began: float) -> None:
        self.address = address
        self.began = began
        self.ended = 0.0
        self.connected = False
        self.result = ""
        self.refused = False

    def succeed(self, now: float) -> None:
        """End the attempt with an open connection."""
        self.ended, self.connected = now, True

    def fail(self, result: str, now: float, *, refused: bool = False) -> None:
        """End the attempt with this error."""
        self.ended, self.result, self.refused = now, result, refused


class Search:
    """Attempts of one search. ``words`` may be called at any time. Times are seconds of one clock.

    Attributes:
        attempts: in the order in which they began.
        lookup: lookup of the peer's records in the sources; None if they were not asked.
        local_problem: returns what is wrong at this machine; empty if nothing is.
    """

    __slots__ = ("_began", "attempts", "local_problem", "lookup")

    def __init__(self, now: float) -> None:
        self._began = now
        self.attempts: list[Attempt] = []
        self.lookup: Lookup | None = None
        self.local_problem: Callable[[], str] = str

    def begin(self, address: EndpointAddress, now: float) -> Attempt:
        """Add and return an attempt to reach an endpoint."""
        attempt = Attempt(address, now)
        self.attempts.append(attempt)
        return attempt

    def seconds(self, now: float) -> float:
        """Return how long the search has taken."""
        return now - self._began

    def words(self, now: float) -> str:
        """Describe each attempt for an error message: its addresses, its result and its duration; then the sources."""
        described = [_words(attempt, now) for attempt in self.attempts[:_SHOWN]]
        if len(self.attempts) > _SHOWN:
            described.append(f"and {len(self.attempts) - _SHOWN} more attempts")
        if not described:
            described = [f"its addresses were looked for during {self.seconds(now):.1f} s, and none was found"]
        if self.lookup is not None and self.lookup.answers:
            described.append(_describe_answers(self.lookup))
        return "; ".join(filter(None, (self.local_problem(), *described)))

    def sources(self) -> str:
        """Name each source that was asked with its answer, and each kind that was not; empty if there is none."""
        if self.lookup is None:
            return ""
        unused = ", ".join(f"{kind} ({reason})" for kind, reason in self.lookup.unused.items())
        asked = _describe_answers(self.lookup) if self.lookup.answers else ""
        return "; ".join(filter(None, (self.local_problem(), asked, unused and f"not asked: {unused}")))


def _describe_answers(lookup: Lookup) -> str:
    """Describe the answers of the sources."""
    return "asked " + _some([f"{answer.name} ({_answer(answer)})" for answer in lookup.answers])


def _answer(answer: SourceResult) -> str:
    if answer.problem:
        return answer.problem
    if any(not record.problem for record in answer.records):
        return "it knows the peer"
    if answer.records:
        return answer.records[0].problem
    return "no answer yet" if answer.seconds is None else "it does not know the peer"


def _words(attempt: Attempt, now: float) -> str:
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
