"""When a process that died is started again, and when that is given up.

The rule is Erlang/OTP's restart intensity: more than ``intensity`` restarts within ``period`` seconds is a crash loop.
So are as many in a row, however slow, of processes that never got ready.
Pure: the time and the jitter come from the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["CORE", "FORK_SERVER", "IDENTITY", "RestartHistory", "RestartRule", "Timeouts"]


@dataclass(frozen=True, slots=True)
class RestartRule:
    """How often, and how soon.

    The first restart of a series is immediate; the following ones wait ``backoff`` seconds, doubled each time up to
    ``longest``, less a random part of up to one half. A ``backoff`` of 0 means that all are immediate.
    """

    intensity: int = 5
    period: float = 10.0
    backoff: float = 0.0
    longest: float = 4.0


CORE: Final = RestartRule()
IDENTITY: Final = RestartRule(backoff=0.1)
FORK_SERVER: Final = RestartRule()


class RestartHistory:
    """The restarts of one process, judged by a rule."""

    def __init__(self, rule: RestartRule, jitter: Callable[[], float]) -> None:
        """``jitter`` returns numbers in [0, 1)."""
        self._rule = rule
        self._jitter = jitter
        self._restarts: deque[float] = deque()
        self._never_ready = 0

    def record_exit(self, now: float, *, was_ready: bool = True) -> float | None:
        """Seconds to wait before the restart, which counts from then on; None when it is one too many."""
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
        """Begins afresh, as when somebody starts the process by hand."""
        self._restarts.clear()
        self._never_ready = 0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the supervisor waits for what, in seconds."""

    ready: float = 15.0
    """From a process's start until it says that it is ready."""
    beats: int = 5
    """Heartbeats that may be missing …"""
    silence: float = 5.0
    """… but at least this long."""
    drain: float = 5.0
    """From SIGTERM to SIGKILL."""
    whole_stop: float = 9.0
    """For stopping everything; a service manager that waits 10 s sees a clean end."""
    failed_stop: float = 0.5
    """The same when the daemon cannot go on: what is still in flight would only hold up its next start."""
    tick: float = 0.5
    """Between two looks at who is silent."""

    def silence_of(self, heartbeat: float) -> float:
        """How long a process that promises a sign of life every ``heartbeat`` seconds may be silent."""
        return max(self.beats * heartbeat, self.silence)
