"""Long polls of programs that watch bindings.

It wakes them when bindings change. It tells the remover of a binding when every program has stopped serving it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from fastn_p2p_client.errors import DaemonBusy

T = TypeVar("T")

_BUSY_SECONDS: Final = 15.0
"""Seconds that a program may take from a reply to its next poll: two hooks, and requests that end. A program that takes
longer is not waited for."""
_MAX_WATCHERS: Final = 4096
"""Watchers that are remembered; the one that polled longest ago is forgotten first."""


class _Watcher:
    """Polls of one program for one protocol."""

    __slots__ = ("failed", "polled_at", "protocol", "seen", "waiting_polls")

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.seen = b""
        self.failed: dict[str, str] = {}
        self.waiting_polls = 0
        self.polled_at = 0.0


class BindingWatchers:
    """Programs that watch bindings, and bindings that are being removed.

    Attributes:
        being_removed: (identity, protocol, instance) of bindings that programs must stop serving.
        keeping: the same for a removal without the workspace: programs do not call ``on_delete``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self._polled = asyncio.Event()
        self._watchers: dict[bytes, _Watcher] = {}
        self._closed = False
        self._reads: dict[str, tuple[asyncio.Event, asyncio.Future[Any]]] = {}
        """Running reads by key, with the event of the next change at their start."""
        self.being_removed: set[tuple[str, str, str]] = set()
        self.keeping: set[tuple[str, str, str]] = set()

    def notify(self) -> None:
        """Wake all watchers: bindings have changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End all polls."""
        self._closed = True
        self.notify()

    def next_change(self) -> asyncio.Event:
        """Return an event that is set at the next change; take it before reading the bindings. Raises DaemonBusy when
        closed."""
        if self._closed:
            raise DaemonBusy(actor="gateway")
        return self._changed

    @contextmanager
    def watching(self, name: bytes, protocol: str, seen: bytes, failed: dict[str, str]) -> Iterator[None]:
        """Hold a poll of a program; inside, it waits. A program whose poll is cancelled there has gone.

        Args:
            name: name of the watcher.
            protocol: the protocol that it watches.
            seen: revision of the bindings that it serves.
            failed: reasons why it does not serve a binding, by ``identity/instance``.
        """
        watcher = self._watchers.pop(name, None)
        if watcher is None or watcher.protocol != protocol:
            watcher = _Watcher(protocol)
        while len(self._watchers) >= _MAX_WATCHERS:
            del self._watchers[next(iter(self._watchers))]
        self._watchers[name] = watcher
        watcher.seen, watcher.failed = seen, failed
        watcher.waiting_polls += 1
        self._notify_remover()
        try:
            yield
        except asyncio.CancelledError:
            if self._watchers.get(name) is watcher:
                del self._watchers[name]
            self._notify_remover()
            raise
        finally:
            watcher.waiting_polls -= 1
            watcher.polled_at = self._clock()

    def remove(self, names: Iterable[bytes]) -> None:
        """Remove watchers whose program has ended."""
        for name in names:
            self._watchers.pop(name, None)
        self._notify_remover()

    async def shared_read(self, key: str, read: Callable[[], T]) -> T:
        """Run ``read`` in a thread and return its result. Callers since the last change share one run.

        A change wakes every watcher at once, and all of them read the same.
        """
        running = self._reads.get(key)
        if running is None or running[0] is not self._changed:
            task = asyncio.ensure_future(asyncio.to_thread(read))
            running = self._reads[key] = self._changed, task
            task.add_done_callback(lambda done: self._read_ended(key, done))
        result: T = await asyncio.shield(running[1])
        return result

    def _read_ended(self, key: str, task: asyncio.Future[Any]) -> None:
        if not task.cancelled():
            task.exception()  # every waiting caller gets it
        if key in self._reads and self._reads[key][1] is task:
            del self._reads[key]

    async def wait_until_seen(self, protocol: str, revision: Callable[[], Awaitable[bytes]], timeout: float) -> None:
        """Wait until every program that watches the protocol serves its present bindings, at most ``timeout`` seconds.

        Args:
            protocol: the protocol.
            revision: return the present revision of its bindings.
            timeout: seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    polled = self._polled
                    if self._all_have_seen(protocol, await revision()):
                        return
                    try:
                        async with asyncio.timeout(1.0):
                            await polled.wait()
                    except TimeoutError:
                        continue  # a program may count as gone by now
        except TimeoutError:
            return

    def failures(self) -> dict[tuple[str, str], str]:
        """Return why programs do not serve a binding, by protocol and ``identity/instance``."""
        return {
            (watcher.protocol, binding): reason
            for watcher in self._present()
            for binding, reason in watcher.failed.items()
        }

    def _all_have_seen(self, protocol: str, revision: bytes) -> bool:
        return all(
            each.waiting_polls and each.seen == revision for each in self._present() if each.protocol == protocol
        )

    def _present(self) -> list[_Watcher]:
        now = self._clock()
        return [each for each in self._watchers.values() if each.waiting_polls or now - each.polled_at < _BUSY_SECONDS]

    def _notify_remover(self) -> None:
        self._polled.set()
        self._polled = asyncio.Event()
