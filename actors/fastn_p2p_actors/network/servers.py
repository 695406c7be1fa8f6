"""The local processes that serve a binding, and which of them takes what comes next."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Final

from ..mailbox import Sender

if TYPE_CHECKING:
    from .registry import Binding

__all__ = ["QUICK", "TOGETHER", "Server", "Servers"]

QUICK: Final = 0.0001
"""Seconds within which a server gets one call after the other done where calls take next to nothing."""
TOGETHER: Final = 32
"""So many more than the least busy one has, it may have in flight there."""
_SETTLING: Final = 64
"""Calls over which that is averaged."""
_SILENCE: Final = 0.01
"""Seconds without an answer after which it gets no more than others: it may hang."""


class Server:
    """A local process that serves a binding.

    Attributes:
        hosted: whether it is the identity's own process, and not a program.
        in_flight: requests and sessions that it works on.
        limit: how many of them it takes.
        heard: when it has answered last, or got a request while it had nothing to do.
    """

    __slots__ = ("binding", "heard", "hosted", "in_flight", "limit", "sender")

    def __init__(self, binding: Binding, sender: Sender, limit: int, hosted: bool) -> None:
        self.binding = binding
        self.sender = sender
        self.limit = limit
        self.hosted = hosted
        self.in_flight = 0
        self.heard = 0.0


class Servers:
    """Those of one binding."""

    __slots__ = ("_all", "_crowd", "_last", "_seconds")

    def __init__(self) -> None:
        self._all: list[Server] = []
        self._last: Server | None = None
        """Has got the last request."""
        self._seconds = 1.0
        """That a call takes."""
        self._crowd = 1.0
        """Calls that a server has in flight when it answers one of them."""

    def __iter__(self) -> Iterator[Server]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, server: Server) -> None:
        self._all.append(server)

    def remove(self, sender: Sender) -> None:
        self._all = [server for server in self._all if server.sender is not sender]
        self._last = None

    def clear(self) -> None:
        self._all.clear()
        self._last = None

    def of(self, sender: Sender) -> Server | None:
        return next((server for server in self._all if server.sender is sender), None)

    def other_than(self, asked: Container[Sender]) -> Server | None:
        """One that is not among ``asked``."""
        return next((server for server in self._all if server.sender not in asked), None)

    def least_busy(self) -> Server | None:
        """The one with the fewest requests and sessions in flight; None when nobody has room."""
        best: Server | None = None
        for server in self._all:
            if server.in_flight < server.limit and (best is None or server.in_flight < best.in_flight):
                best = server
        return best

    def for_request(self, now: float) -> Server | None:
        """The least busy one; but where calls take next to nothing, the last one again, until it has clearly more to
        do: to wake another for its share takes more of the processors than the share itself."""
        best = self.least_busy()
        last = self._last
        if best is not None and last is not None and self._seconds < QUICK * self._crowd:
            most = min(last.limit, best.in_flight + TOGETHER)
            if last.in_flight < most and (not last.in_flight or now < last.heard + _SILENCE):
                best = last
        self._last = best
        if best is not None and not best.in_flight:
            best.heard = now
        return best

    def answered(self, server: Server, seconds: float, now: float) -> None:
        """``server`` has taken so long for a call, which is not counted any more."""
        if len(self._all) > 1:
            server.heard = now
            self._seconds += (seconds - self._seconds) / _SETTLING
            self._crowd += (server.in_flight + 1 - self._crowd) / _SETTLING
