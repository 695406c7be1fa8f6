"""Load balancer: choose the local process that takes the next call or session of a binding."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import Final, Protocol

from ...runtime.mailbox import Sender

FAST_CALL: Final = 0.0001
"""Seconds of a process's time for one call, below which calls go to the same process again."""
STICKY_LIMIT: Final = 32
"""Calls that the same process may have in flight beyond those of the least busy one."""
_AVERAGED_CALLS: Final = 64
"""Calls over which durations are averaged."""
_SILENCE: Final = 0.01
"""Seconds without an answer after which a process is no longer preferred: it may hang."""
HANG_AFTER: Final = 0.25
"""Seconds that a process must have had a request before the request's deadline tells anything about the process."""
FIRST_TRIAL: Final = 1.0
"""Seconds until a doubtful process gets a request again; doubled after each that it does not answer."""
LONGEST_TRIAL: Final = 60.0
"""Seconds between two such requests, at most."""


class IdentityName(Protocol):
    """``OnlineIdentity``, as far as it is needed here."""

    @property
    def name(self) -> str: ...


class BindingCounters(Protocol):
    """``RegisteredBinding``, as far as calls to one of its processes need it."""

    protocol: str
    instance: str
    servers: LoadBalancer
    calls: int
    errors: int
    in_flight: int

    @property
    def identity(self) -> IdentityName: ...

    def answered(self, server: ServingProcess, seconds: float, now: float, /) -> None:
        """Count a call that ``server`` has answered after so many seconds."""
        ...


class ServingProcess:
    """A local process that serves a binding.

    Times are seconds of ``time.monotonic()``.

    Attributes:
        hosted: true of the identity's own process, false of a program.
        claims_calls: whether it claims retried calls in a store that all daemons of the identity share.
        in_flight: number of its requests and sessions.
        limit: highest ``in_flight``.
        bytes: size of the payloads of those requests.
        active_at: when it last answered, or got a request while it had none.
        missed_at: when it got the last request whose deadline it missed, without an answer to anything since.
        tried_at: when it got a request on trial; infinite without a trial.
        trial_at: when it may get the next request on trial.
        trial_after: seconds of the pause before that.
    """

    __slots__ = (
        "active_at",
        "binding",
        "bytes",
        "claims_calls",
        "hosted",
        "in_flight",
        "limit",
        "missed_at",
        "sender",
        "trial_after",
        "trial_at",
        "tried_at",
    )  # fmt: skip

    def __init__(self, binding: BindingCounters, sender: Sender, limit: int, hosted: bool) -> None:
        self.binding = binding
        self.sender = sender
        self.limit = limit
        self.hosted = hosted
        self.claims_calls = False
        self.in_flight = 0
        self.bytes = 0
        self.active_at = 0.0
        self.missed_at = 0.0
        self.trial_after = FIRST_TRIAL
        self.trial_at = 0.0
        self.tried_at = math.inf

    @property
    def is_doubtful(self) -> bool:
        """True if it may hang."""
        return self.missed_at > self.sender.answered_at


# Least in flight. The process with the fewest requests and sessions in flight takes the next one. Two refinements:
#
# Stickiness. Where a call takes next to nothing, to wake another process for its share takes more processor time than
# the share itself. So if a process needs less than ``FAST_CALL`` seconds for a call (the measured duration, divided by
# the calls that are in flight at the same time), the last process gets the next call too. It does so until it has
# ``STICKY_LIMIT`` more than the least busy one, or has been silent for ``_SILENCE``.
#
# Doubt. A process that hangs or is stopped takes requests and answers none. They pile up, and each deadline makes room
# for another: by number alone it would keep its share for ever (measured: 256 missed deadlines in 12 s). So a process
# is doubtful if it lets a deadline pass and has answered nothing at all since it got that request. It gets nothing
# while others have room, except one request on trial: after ``FIRST_TRIAL`` seconds, then after twice as long each
# time, up to ``LONGEST_TRIAL``. One answer ends the doubt. If all processes are doubtful, all take requests.
#
# Cost: one pass over the binding's processes for each request, and no timers.
# Not covered: processes of different speed get equal numbers in flight, not equal shares of the time. A handler that
# hangs while its process answers other requests is not noticed.


class LoadBalancer:
    """Local processes that serve one binding, and the choice among them."""

    __slots__ = ("_all", "_concurrency", "_doubtful", "_last", "_seconds")

    def __init__(self) -> None:
        self._all: list[ServingProcess] = []
        self._doubtful = False
        """True if any process was doubtful at the last choice."""
        self._last: ServingProcess | None = None
        """Process that got the last request."""
        self._seconds = 1.0
        """Seconds that a call takes, on average."""
        self._concurrency = 1.0
        """Calls in flight at a process when it answers one of them, on average."""

    def __iter__(self) -> Iterator[ServingProcess]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, server: ServingProcess) -> None:
        """Add a process."""
        self._all.append(server)

    def remove(self, sender: Sender) -> None:
        """Remove the process behind ``sender``."""
        self._all = [server for server in self._all if server.sender is not sender]
        self._last = None

    def clear(self) -> None:
        """Remove all processes."""
        self._all.clear()
        self._last = None

    def of(self, sender: Sender) -> ServingProcess | None:
        """Return the process behind ``sender``; None if it does not serve the binding."""
        return next((server for server in self._all if server.sender is sender), None)

    def other_than(self, excluded: Container[Sender]) -> ServingProcess | None:
        """Return a process that is not among ``excluded``, preferably not a doubtful one; None if there is none."""
        others = [server for server in self._all if server.sender not in excluded]
        return next((server for server in others if not server.is_doubtful), others[0] if others else None)

    def missed(self, server: ServingProcess, since: float, now: float) -> None:
        """Note that ``server`` has not answered in time what it got at ``since``."""
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
        """Return the process with the fewest requests and sessions in flight; None if none has room."""
        return self._least_busy(self._trusted(now) if self._doubtful else self._all)

    def _trusted(self, now: float) -> list[ServingProcess]:
        """Return the processes to choose from while some are doubtful: the others, or one whose trial is due."""
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
        """Return the process that takes the next call; None if none has room."""
        best = self.least_busy(now)
        last = self._last
        if (
            best is not None
            and last is not None
            and not self._doubtful
            and self._seconds < FAST_CALL * self._concurrency
        ):
            most = min(last.limit, best.in_flight + STICKY_LIMIT)
            if last.in_flight < most and (not last.in_flight or now < last.active_at + _SILENCE):
                best = last
        self._last = best
        if best is not None and not best.in_flight:
            best.active_at = now
        return best

    def answered(self, server: ServingProcess, seconds: float, now: float) -> None:
        """Count a call that ``server`` has answered after so many seconds, and that is no longer in flight."""
        if len(self._all) > 1:
            server.active_at = now
            self._seconds += (seconds - self._seconds) / _AVERAGED_CALLS
            self._concurrency += (server.in_flight + 1 - self._concurrency) / _AVERAGED_CALLS
