"""What programs are to serve has changed: whoever watches is told, and whoever removes something hears when they are
done with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from fastn_p2p_client.errors import DaemonBusy

__all__ = ["BindingWatchers"]

T = TypeVar("T")

_BUSY_SECONDS: Final = 15.0
"""How long a program that was told something may take until it asks again: two hooks, and requests that end. One that
takes longer is not waited for."""
_MAX_WATCHERS: Final = 4096
"""Watchers that are remembered; the one that has been silent longest goes first."""


class _Watcher:
    """One program, as to one protocol."""

    __slots__ = ("asking", "failed", "heard_at", "protocol", "seen")

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.seen = b""
        self.failed: dict[str, str] = {}
        self.asking = 0
        self.heard_at = 0.0


class BindingWatchers:
    """
    Attributes:
        leaving: (identity, protocol, instance) of what is being removed: programs are to serve it no more.
        keeping: the same, of what is being removed without its workspace: programs do not call ``on_delete``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self._watchers: dict[bytes, _Watcher] = {}
        self._closed = False
        self._reads: dict[str, tuple[asyncio.Event, asyncio.Future[Any]]] = {}
        """Reads that run, and the change after which each has begun."""
        self.being_removed: set[tuple[str, str, str]] = set()
        self.keeping: set[tuple[str, str, str]] = set()

    def notify(self) -> None:
        """Something has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Nobody is told anything any more."""
        self._closed = True
        self.notify()

    def next_change(self) -> asyncio.Event:
        """Set at the next change. To be taken before one looks. Raises DaemonBusy once it is closed."""
        if self._closed:
            raise DaemonBusy(actor="gateway")
        return self._changed

    @contextmanager
    def watching(self, name: bytes, protocol: str, seen: bytes, failed: dict[str, str]) -> Iterator[None]:
        """A program asks, having seen this; inside, it waits. One that is cancelled there has gone."""
        watcher = self._watchers.pop(name, None)
        if watcher is None or watcher.protocol != protocol:
            watcher = _Watcher(protocol)
        while len(self._watchers) >= _MAX_WATCHERS:
            del self._watchers[next(iter(self._watchers))]
        self._watchers[name] = watcher
        watcher.seen, watcher.failed = seen, failed
        watcher.asking += 1
        self._tell()
        try:
            yield
        except asyncio.CancelledError:
            if self._watchers.get(name) is watcher:
                del self._watchers[name]
            self._tell()
            raise
        finally:
            watcher.asking -= 1
            watcher.heard_at = self._clock()

    def forget(self, names: Iterable[bytes]) -> None:
        """These are no more: their program has ended."""
        for name in names:
            self._watchers.pop(name, None)
        self._tell()

    async def shared_read(self, key: str, read: Callable[[], T]) -> T:
        """What ``read`` returns in a thread. Those who ask while it runs, and since the last change, share it: a change
        wakes every watcher at once."""
        running = self._reads.get(key)
        if running is None or running[0] is not self._changed:
            task = asyncio.ensure_future(asyncio.to_thread(read))
            running = self._reads[key] = self._changed, task
            task.add_done_callback(lambda done: self._read_ended(key, done))
        result: T = await asyncio.shield(running[1])
        return result

    def _read_ended(self, key: str, task: asyncio.Future[Any]) -> None:
        if not task.cancelled():
            task.exception()  # all who wait have it
        if key in self._reads and self._reads[key][1] is task:
            del self._reads[key]

    async def wait_until_seen(self, protocol: str, revision: Callable[[], Awaitable[bytes]], timeout: float) -> None:
        """Returns when every program that watches the protocol serves what it now is, or is not to be waited for."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    asked = self._asked
                    if self._is_known(protocol, await revision()):
                        return
                    try:
                        async with asyncio.timeout(1.0):
                            await asked.wait()
                    except TimeoutError:
                        continue  # somebody may have become one that is not waited for
        except TimeoutError:
            return

    def failures(self) -> dict[tuple[str, str], str]:
        """Protocol and ``identity/instance`` → why a program that could serve it does not."""
        return {
            (watcher.protocol, binding): reason
            for watcher in self._present()
            for binding, reason in watcher.failed.items()
        }

    def _is_known(self, protocol: str, revision: bytes) -> bool:
        return all(each.asking and each.seen == revision for each in self._present() if each.protocol == protocol)

    def _present(self) -> list[_Watcher]:
        now = self._clock()
        return [each for each in self._watchers.values() if each.asking or now - each.heard_at < _BUSY_SECONDS]

    def _tell(self) -> None:
        self._asked.set()
        self._asked = asyncio.Event()
