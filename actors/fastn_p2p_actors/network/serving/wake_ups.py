"""Wake-ups: identities that are asleep get a process again when somebody may use one of their bindings."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.errors import DaemonBusy, DeadlineExceeded, Overloaded, P2PError

from .registry import OnlineIdentity, Registry

PARALLEL: Final = 8
"""Identities that are woken at the same time. More would delay each other."""
MAX_HELD: Final = 4096
"""Calls and sessions that wait for a wake-up at the same time."""
MAX_HELD_PER_IDENTITY: Final = 256
"""Calls and sessions that wait for the same identity."""

log = logging.getLogger(__name__)


# An identity that is asleep keeps its bindings and access lists here and has no process. A request is held only after
# the access list has admitted its caller, so a stranger never causes a process. Callers take turns: one that wants a
# thousand identities delays another by at most the wake-ups that run, and by one of its own.
#
# A held request is tried again once the identity has registered. If the process keeps ending, the identity is removed,
# and the request fails as it does for any identity that has failed.


class _WakeUp:
    """Wake-up of one identity, and the requests that wait for it."""

    __slots__ = ("held", "is_running")

    def __init__(self) -> None:
        self.held: list[tuple[Callable[[], None], Callable[[P2PError], None]]] = []
        self.is_running = False


class WakeUps:
    """Wakes identities, a few at a time, and holds requests meanwhile.

    Args:
        registry: online identities; those that cannot be woken are removed from it.
        wake: starts an identity's process, and returns once that is ready. Raises P2PError.
    """

    def __init__(self, registry: Registry, wake: Callable[[str], Awaitable[object]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._wake = wake
        self._pending: dict[str, _WakeUp] = {}
        self._wanted_by: dict[bytes, deque[str]] = {}
        """Identities that each caller wants, by the caller's key; the caller whose turn is next comes first."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = 0
        self.count = 0
        """Wake-ups so far."""

    def __len__(self) -> int:
        return self._held

    def hold(
        self,
        identity: OnlineIdentity,
        caller: bytes,
        again: Callable[[], None],
        fail: Callable[[P2PError], None],
    ) -> None:
        """Wake an identity, and then call ``again``; call ``fail`` if too much waits or the daemon is too busy.

        Args:
            identity: an identity that is asleep.
            caller: key of the caller, whom an access list has admitted.
        """
        name = identity.name
        pending = self._pending.get(name)
        if self._held >= MAX_HELD or (pending is not None and len(pending.held) >= MAX_HELD_PER_IDENTITY):
            limit = MAX_HELD if self._held >= MAX_HELD else MAX_HELD_PER_IDENTITY
            fail(Overloaded(what="requests that wait for identities to wake", limit=limit))
            return
        if pending is None:
            pending = self._pending[name] = _WakeUp()
        pending.held.append((again, fail))
        self._held += 1
        if not pending.is_running:
            self._wanted_by.setdefault(caller, deque()).append(name)
            self._start_next()

    def on_registered(self, name: str) -> None:
        """Try the requests again that wait for this identity: it has registered."""
        for again, _ in self._release(name):
            again()

    def close(self) -> None:
        """Fail all requests that wait: no identity is woken any more."""
        for task in self._tasks:
            task.cancel()
        self._wanted_by.clear()
        for name in list(self._pending):
            for _, fail in self._release(name):
                fail(DaemonBusy(actor="network"))

    def _release(self, name: str) -> list[tuple[Callable[[], None], Callable[[P2PError], None]]]:
        pending = self._pending.pop(name, None)
        held = pending.held if pending is not None else []
        self._held -= len(held)
        return held

    def _start_next(self) -> None:
        while self._wanted_by and len(self._tasks) < PARALLEL:
            caller, names = next(iter(self._wanted_by.items()))
            del self._wanted_by[caller]
            name = names.popleft()
            if names:
                self._wanted_by[caller] = names  # behind all others
            pending = self._pending.get(name)
            if pending is None or pending.is_running:
                continue  # it was woken for another caller
            pending.is_running = True
            task = self._loop.create_task(self._run(name))
            self._tasks.add(task)
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_next()

    async def _run(self, name: str) -> None:
        self.count += 1
        problem: P2PError | None = None
        try:
            await self._wake(name)
        except P2PError as error:
            problem = error
        identity = self._registry.by_name(name)
        is_busy = isinstance(problem, DaemonBusy | DeadlineExceeded)
        if identity is not None and identity.is_asleep and not is_busy:
            log.warning("%s cannot be woken: %s", name, problem or "its process has not registered")
            self._registry.remove_identity(identity)
        for again, fail in self._release(name):
            if is_busy:
                fail(DaemonBusy(actor="supervisor"))
            else:
                again()
