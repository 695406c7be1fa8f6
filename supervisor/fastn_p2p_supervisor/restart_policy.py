"""Restart policy of processes, and the supervisor's time limits.

The rule is Erlang/OTP's restart intensity: more than ``intensity`` restarts within ``period`` seconds are a crash loop.
As many ends in a row of processes that never became ready are a crash loop too, however slow. The code is pure: the
caller passes the time and the jitter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RestartRule:
    """How often, and how soon, a process is restarted.

    The first restart of a series is immediate. The following ones wait ``backoff`` seconds, doubled each time up to
    ``longest``, minus a random part of at most one half. With ``backoff`` 0 all are immediate.

    Attributes:
        intensity: restarts allowed within ``period``.
        period: seconds.
        backoff: seconds before the second restart.
        longest: seconds of the longest wait.
    """

    intensity: int = 5
    period: float = 10.0
    backoff: float = 0.0
    longest: float = 4.0


CORE: Final = RestartRule()
IDENTITY: Final = RestartRule(backoff=0.1)
FORK_SERVER: Final = RestartRule()


class RestartHistory:
    """Recent restarts of one process, judged by a rule."""

    def __init__(self, rule: RestartRule, jitter: Callable[[], float]) -> None:
        """Create an empty history. ``jitter`` returns numbers in [0, 1)."""
        self._rule = rule
        self._jitter = jitter
        self._restarts: deque[float] = deque()
        self._never_ready = 0

    def record_exit(self, now: float, *, was_ready: bool = True) -> float | None:
        """Return the seconds to wait before the restart, which counts from then on. None if it is one too many."""
        rule = self._rule
        self._never_ready = 0 if was_ready else self._never_ready + 1
        if self._never_ready > rule.intensity:
            return None
        while self._restarts and now - self._restarts[0] >= rule.period:
            self._restarts.popleft()
        series = len(self._restarts)
        if series >= rule.intensity:
            return None
        delay = 0.0
        if series and rule.backoff:
            delay = min(rule.backoff * 2.0 ** (series - 1), rule.longest) * (1 - self._jitter() / 2)
        self._restarts.append(now + delay)
        return delay

    def reset(self) -> None:
        """Forget all restarts, for instance because the owner starts the process by hand."""
        self._restarts.clear()
        self._never_ready = 0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of the supervisor, in seconds."""

    ready: float = 15.0
    """From the start of a process until it reports ready."""
    beats: int = 5
    """Heartbeats that may be missing; ``silence`` applies as well."""
    silence: float = 5.0
    """Shortest silence after which a process counts as hung."""
    drain: float = 5.0
    """From SIGTERM to SIGKILL."""
    whole_stop: float = 9.0
    """For stopping everything. A service manager that waits 10 s sees a clean end."""
    failed_stop: float = 0.5
    """For stopping everything after a failure. Requests in flight would only delay the next start."""
    tick: float = 0.5
    """Between two checks for hung processes."""

    def silence_of(self, heartbeat: float) -> float:
        """Return the seconds of silence after which a process with this heartbeat interval counts as hung."""
        return max(self.beats * heartbeat, self.silence)
