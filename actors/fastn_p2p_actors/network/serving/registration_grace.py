"""Calls that wait a moment for somebody who has just lost this process, or its own, to register again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["RegistrationGrace"]

_SETTLING: Final = 2.0
"""Seconds after the start of this process, or the end of one that served, in which whoever serves registers (again):
what comes for an identity or a binding that is not known waits that long for it."""
_MAX_PARKED: Final = 4096


class RegistrationGrace:
    """Holds calls while registrations are to be expected, and gives each another turn at every registration."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._settled_at = self._loop.time() + _SETTLING
        self._parked: list[Callable[[], None]] = []

    def is_open(self) -> bool:
        """Whether a registration is to be expected, and there is room."""
        return self._loop.time() < self._settled_at and len(self._parked) < _MAX_PARKED

    def retry_later(self, again: Callable[[], None]) -> None:
        """Call ``again`` at the next registration, or when none is to be expected any more."""
        if not self._parked:
            self._loop.call_at(self._settled_at, self.on_registration)
        self._parked.append(again)

    def reopen(self) -> None:
        """A process that served has ended, and its successor registers soon."""
        self._settled_at = self._loop.time() + _SETTLING

    def on_registration(self) -> None:
        """Somebody has come online or serves something."""
        parked, self._parked = self._parked, []
        for again in parked:
            again()

    def close(self) -> None:
        """Nobody will register any more."""
        self._settled_at = self._loop.time()
        self.on_registration()

    def remaining_ms(self, deadline_ms: int) -> Callable[[], int]:
        """What is left of a deadline, whenever asked; at least 1 ms."""
        started = self._loop.time()
        return lambda: max(1, deadline_ms - int((self._loop.time() - started) * 1000))
