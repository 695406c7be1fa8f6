"""Rate-limited error messages: one line when a problem starts, changes or ends, not one per failed connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastn_p2p_client.retry import Backoff

FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 60.0
"""Seconds between two lines: the first pause, and the longest."""


class ErrorReporter:
    """Reporter of the current problem. If problems change during a pause, only the last state is reported.

    The pause after each line doubles, up to a minute. After a minute without a failure the next line has no pause.

    Args:
        write: receives each line.
        now: returns the time in seconds, of any clock.
        call_later: calls a function after so many seconds.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._write = write
        self._now = now
        self._call_later = call_later
        self._state = self._reported = ""
        self._failures = 0
        self._last_line = self._last_failure = -LONGEST_DELAY
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY, jitter=0)
        self._delay = self._backoff.next_delay()
        self._waiting = False

    def report_failure(self, problem: str) -> None:
        """Count a failed connection, and report the problem if it is new."""
        if self._now() - self._last_failure >= LONGEST_DELAY:
            self._backoff.reset()
            self._delay = self._backoff.next_delay()
        self._last_failure = self._now()
        self._state = problem
        self._failures += 1
        self._update()

    def report_success(self) -> None:
        """Report the end of the problem, if there was one."""
        self._state = ""
        self._update()

    def _update(self) -> None:
        if self._waiting or self._state == self._reported:
            return
        passed = self._now() - self._last_line
        if passed >= self._delay:
            self._report()
        else:
            self._waiting = True
            self._call_later(self._delay - passed, self._on_timer)

    def _on_timer(self) -> None:
        self._waiting = False
        if self._state != self._reported:
            self._report()

    def _report(self) -> None:
        self._delay = self._backoff.next_delay()
        self._last_line = self._now()
        self._reported = self._state
        if self._state:
            self._write(self._state)
        else:
            count, self._failures = self._failures, 0
            closed = "one connection was" if count == 1 else f"{count} connections were"
            self._write(f"connections work again; {closed} closed meanwhile")
