"""Freeze watch: notices that this process did not run for a while, because it was stopped or the machine slept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_INTERVAL: Final = 1.0
"""Seconds between two looks at the clock."""
_LONGEST: Final = 5.0
"""Seconds without a look that count as a freeze: a loaded machine lets a process wait for less."""


class FreezeWatch:
    """Watches whether this process runs.

    Args:
        boot: returns monotonic seconds, with those that the machine slept.
        on_thawed: called after a freeze.
    """

    def __init__(self, boot: Callable[[], float], on_thawed: Callable[[], object]) -> None:
        self._boot = boot
        self._on_thawed = on_thawed
        self._loop = asyncio.get_running_loop()
        self._seen = boot()
        self._thawed = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Look at the clock from now on."""
        if self._timer is None:
            self._seen = self._boot()
            self._look()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def has_run_since(self, moment: float) -> bool:
        """Return whether this process has run without a freeze since a moment of the boot clock."""
        self._note()
        return moment >= self._thawed

    def _look(self) -> None:
        self._timer = self._loop.call_later(_INTERVAL, self._look)
        self._note()

    def _note(self) -> None:
        now = self._boot()
        if self._timer is not None and now - self._seen > _LONGEST:
            self._thawed = now
            self._on_thawed()
        self._seen = now
