"""Grace period after a restart, in which calls and sessions wait for their target to register."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_GRACE_PERIOD: Final = 2.0
"""Seconds of one grace period. A process that serves registers within it."""
_MAX_HELD: Final = 4096
"""Calls and sessions that wait at the same time."""


# After a restart of the network process nothing is registered. Identity processes and programs connect again, and so do
# callers, often before them. The bindings of one identity are missing in the same way when its process has ended. Such
# a call would fail with "peer offline" or "protocol not found", which is no longer true a moment later.
#
# So for some time after the start, and after the end of a process that served, such calls are held. Each is tried again
# at every registration of any process, and when the grace period ends: then it fails with the true error.
#
# A registration costs one attempt for each held call, so N calls and M registrations cost N * M attempts, of a few
# dictionary lookups each. ``_MAX_HELD`` bounds N; a call beyond it fails at once. Payloads of held calls are reserved
# in ``PayloadMemory`` by their owners, not here.
#
# Not covered: a process that needs longer than the grace period; its callers get the error and have to retry. Programs
# that may have executed a retried call are waited for longer (``ExpectedPrograms``).


class RegistrationGrace:
    """During the grace period after a restart, hold calls whose target has not registered yet, and retry each of them
    at every registration.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + _GRACE_PERIOD
        self._held: list[Callable[[], None]] = []

    def is_open(self) -> bool:
        """Return whether a registration is expected and there is room for one more call."""
        return self._loop.time() < self._ends_at and len(self._held) < _MAX_HELD

    def retry_later(self, again: Callable[[], None]) -> None:
        """Call ``again`` once: at the next registration, or at the end of the grace period."""
        if not self._held:
            self._loop.call_at(self._ends_at, self.on_registration)
        self._held.append(again)

    def reopen(self) -> None:
        """Start a new grace period: a process that served has ended, and its successor registers soon."""
        self._ends_at = self._loop.time() + _GRACE_PERIOD

    def on_registration(self) -> None:
        """Retry all held calls: an identity has come online, or a process has registered a binding."""
        held, self._held = self._held, []
        for again in held:
            again()

    def close(self) -> None:
        """End the grace period and retry all held calls, because no process will register any more."""
        self._ends_at = self._loop.time()
        self.on_registration()

    def remaining_ms(self, deadline_ms: int) -> Callable[[], int]:
        """Return a function that returns the milliseconds left of a deadline that starts now; at least 1."""
        started = self._loop.time()
        return lambda: max(1, deadline_ms - int((self._loop.time() - started) * 1000))
