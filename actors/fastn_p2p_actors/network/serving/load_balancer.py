"""The local processes that serve a binding, and which of them takes what comes next.

A process that hangs, or is stopped, takes requests and answers none: they pile up there, so that by their number alone
it would keep its share for ever (measured: 256 deadlines in 12 s). So one that lets a request's deadline pass, and has
answered nothing at all since it got that request, is *doubtful*: it gets nothing more while others can take it. From
time to time one request is tried with it, first after a second, then after twice as long each time. As soon as it
answers anything it is like the others again. A handler that is merely slow is not doubtful as long as its process
answers other requests meanwhile. If all are doubtful, all take requests.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import Final, Protocol

from ...runtime.mailbox import Sender

__all__ = [
    "FAST_CALL",
    "FIRST_TRIAL",
    "HANG_AFTER",
    "LONGEST_TRIAL",
    "STICKY_LIMIT",
    "BindingCounters",
    "LoadBalancer",
    "ServingProcess",
]

FAST_CALL: Final = 0.0001
"""Seconds within which a server gets one call after the other done where calls take next to nothing."""
STICKY_LIMIT: Final = 32
"""So many more than the least busy one has, it may have in flight there."""
_SETTLING: Final = 64
"""Calls over which that is averaged."""
_SILENCE: Final = 0.01
"""Seconds without an answer after which it gets no more than others: it may hang."""
HANG_AFTER: Final = 0.25
"""Seconds that a request must have been with a server for its deadline to tell anything about the server."""
FIRST_TRIAL: Final = 1.0
LONGEST_TRIAL: Final = 60.0
"""Seconds until a doubtful server gets a request again; doubled each time that it does not answer."""


class IdentityName(Protocol):
    @property
    def name(self) -> str: ...


class BindingCounters(Protocol):
    """A ``RegisteredBinding``, as far as calls to one of its processes need it."""

    protocol: str
    instance: str
    servers: LoadBalancer
    calls: int
    errors: int
    in_flight: int

    @property
    def identity(self) -> IdentityName: ...

    def answered(self, server: ServingProcess, seconds: float, now: float, /) -> None:
        """It has taken so long for a call."""
        ...


class ServingProcess:
    """A local process that serves a binding.

    Attributes:
        hosted: whether it is the identity's own process, and not a program.
        in_flight: requests and sessions that it works on.
        limit: how many of them it takes.
        bytes: of the payloads of those requests.
        heard: when it has answered last, or got a request while it had nothing to do.
        missed_at: when it got the last request whose deadline it let pass, without having answered anything since.
        tried_at: when it has got one although it is doubtful; infinite while there is no such one.
        trial_at: when it may get the next one.
    """

    __slots__ = (
        "binding", "bytes", "heard", "hosted", "in_flight", "limit",
        "missed_at", "sender", "trial_after", "trial_at", "tried_at",
    )  # fmt: skip

    def __init__(self, binding: BindingCounters, sender: Sender, limit: int, hosted: bool) -> None:
        self.binding = binding
        self.sender = sender
        self.limit = limit
        self.hosted = hosted
        self.in_flight = 0
        self.bytes = 0
        self.heard = 0.0
        self.missed_at = 0.0
        self.trial_after = FIRST_TRIAL
        self.trial_at = 0.0
        self.tried_at = math.inf

    @property
    def is_doubtful(self) -> bool:
        """Return whether it may hang."""
        return self.missed_at > self.sender.answered_at


class LoadBalancer:
    """Those of one binding."""

    __slots__ = ("_all", "_crowd", "_doubtful", "_last", "_seconds")

    def __init__(self) -> None:
        self._all: list[ServingProcess] = []
        self._doubtful = False
        """True if any server was, when last looked at."""
        self._last: ServingProcess | None = None
        """Has got the last request."""
        self._seconds = 1.0
        """That a call takes."""
        self._crowd = 1.0
        """Calls that a server has in flight when it answers one of them."""

    def __iter__(self) -> Iterator[ServingProcess]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, server: ServingProcess) -> None:
        self._all.append(server)

    def remove(self, sender: Sender) -> None:
        self._all = [server for server in self._all if server.sender is not sender]
        self._last = None

    def clear(self) -> None:
        self._all.clear()
        self._last = None

    def of(self, sender: Sender) -> ServingProcess | None:
        return next((server for server in self._all if server.sender is sender), None)

    def other_than(self, asked: Container[Sender]) -> ServingProcess | None:
        """One that is not among ``asked``."""
        others = [server for server in self._all if server.sender not in asked]
        return next((server for server in others if not server.is_doubtful), others[0] if others else None)

    def missed(self, server: ServingProcess, since: float, now: float) -> None:
        """The deadline of something that ``server`` got at ``since`` has passed, and it has not answered that."""
        if now - since < HANG_AFTER or server.sender.answered_at >= since:
            return
        if not server.is_doubtful:
            server.trial_after, server.trial_at = FIRST_TRIAL, now + FIRST_TRIAL
            server.tried_at = math.inf
        elif since >= server.tried_at:
            server.trial_after = min(2 * server.trial_after, LONGEST_TRIAL)
            server.trial_at = now + server.trial_after
            server.tried_at = math.inf
        server.missed_at = max(since, server.missed_at)
        self._doubtful = True

    def least_busy(self, now: float) -> ServingProcess | None:
        """The one with the fewest requests and sessions in flight; None when nobody has room."""
        return self._least_busy(self._trusted(now) if self._doubtful else self._all)

    def _trusted(self, now: float) -> list[ServingProcess]:
        """Those to choose from while some are doubtful: the others, or one whose trial is due."""
        doubtful = [server for server in self._all if server.is_doubtful]
        self._doubtful = bool(doubtful)
        if len(doubtful) == len(self._all):
            return self._all
        for server in doubtful:
            if now >= server.trial_at and server.in_flight < server.limit:
                server.tried_at, server.trial_at = now, now + LONGEST_TRIAL
                return [server]
        return [server for server in self._all if not server.is_doubtful]

    @staticmethod
    def _least_busy(servers: list[ServingProcess]) -> ServingProcess | None:
        best: ServingProcess | None = None
        for server in servers:
            if server.in_flight < server.limit and (best is None or server.in_flight < best.in_flight):
                best = server
        return best

    def pick_for_request(self, now: float) -> ServingProcess | None:
        """The least busy one; but where calls take next to nothing, the last one again, until it has clearly more to
        do: to wake another for its share takes more of the processors than the share itself."""
        best = self.least_busy(now)
        last = self._last
        if best is not None and last is not None and not self._doubtful and self._seconds < FAST_CALL * self._crowd:
            most = min(last.limit, best.in_flight + STICKY_LIMIT)
            if last.in_flight < most and (not last.in_flight or now < last.heard + _SILENCE):
                best = last
        self._last = best
        if best is not None and not best.in_flight:
            best.heard = now
        return best

    def answered(self, server: ServingProcess, seconds: float, now: float) -> None:
        """``server`` has taken so long for a call, which is not counted any more."""
        if len(self._all) > 1:
            server.heard = now
            self._seconds += (seconds - self._seconds) / _SETTLING
            self._crowd += (server.in_flight + 1 - self._crowd) / _SETTLING
