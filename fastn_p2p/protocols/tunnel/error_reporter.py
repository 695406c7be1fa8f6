"""What does not work at the moment, told to people when it begins, changes and ends, and not again for each victim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 60.0


class ErrorReporter:
    """At most one line at a time: when things change faster than they can be told, only the last state is told.

    The pause after each line doubles, up to a minute; after a minute without news the next line is told at once.

    Args:
        tell: takes each line.
        now: the time in seconds, of any clock.
        later: calls a function in so many seconds.
    """

    def __init__(
        self,
        tell: Callable[[str], object],
        *,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._tell = tell
        self._now = now
        self._later = later
        self._state = self._told = ""
        self._failures = 0
        self._last = self._news = -LONGEST_PAUSE
        self._pause = FIRST_PAUSE
        self._waiting = False

    def report_failure(self, words: str) -> None:
        """Something did not work, and why."""
        if self._now() - self._news >= LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        self._news = self._now()
        self._state = words
        self._failures += 1
        self._changed()

    def report_success(self) -> None:
        """It does work."""
        self._state = ""
        self._changed()

    def _changed(self) -> None:
        if self._waiting or self._state == self._told:
            return
        passed = self._now() - self._last
        if passed >= self._pause:
            self._say()
        else:
            self._waiting = True
            self._later(self._pause - passed, self._waited)

    def _waited(self) -> None:
        self._waiting = False
        if self._state != self._told:
            self._say()

    def _say(self) -> None:
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._last = self._now()
        self._told = self._state
        if self._state:
            self._tell(self._state)
        else:
            count, self._failures = self._failures, 0
            what = "one connection was" if count == 1 else f"{count} connections were"
            self._tell(f"connections get through again; {what} closed meanwhile")
